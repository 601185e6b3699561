#include "channel/synchronous_wait.h"

#include <algorithm>
#include <cstring>

namespace kmcl::channel {

bool SynchronousWait::Wait(std::optional<std::chrono::steady_clock::time_point> deadline) {
  MutexLock lock(mutex);
  while (!done) {
    if (!deadline) {
      changed.Wait(mutex);
    } else if (!changed.WaitUntil(mutex, *deadline)) {
      return done;
    }
  }
  return true;
}

bool SynchronousWait::IsDone() {
  MutexLock lock(mutex);
  return done;
}

void EndExternal(Handler& handler, Packet& packet, Outcome outcome) {
  handler.OnExternalDone(packet, outcome);
  packet.external = {};
  packet.transfer = nullptr;
}

void FinishPacket(Handler& handler, Packet& packet, Outcome outcome, std::span<std::byte> reply) {
  SynchronousWait* const wait = packet.waiter;
  if (!packet.external.empty()) EndExternal(handler, packet, outcome);
  packet.state.store(Packet::State::kIdle, std::memory_order_relaxed);
  if (wait == nullptr) {
    handler.OnPacketDone(packet, outcome, reply);
    return;
  }
  MutexLock lock(wait->mutex);
  wait->outcome = outcome;
  wait->reply_bytes = reply.size();
  const std::size_t copied = std::min(reply.size(), wait->reply_buffer.size());
  if (copied != 0) std::memcpy(wait->reply_buffer.data(), reply.data(), copied);
  wait->done = true;
  wait->changed.NotifyAll();
}

}  // namespace kmcl::channel
