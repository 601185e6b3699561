// A blocking wait for one packet, on the waiter's stack, and the one place where packets end.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <span>

#include "channel/handler.h"
#include "channel/packet.h"
#include "mutex.h"

namespace kmcl::channel {

struct SynchronousWait {
  explicit SynchronousWait(std::span<std::byte> buffer) : reply_buffer(buffer) {}

  // Waits until the packet has ended, at most until `deadline`. False: it has not.
  bool Wait(std::optional<std::chrono::steady_clock::time_point> deadline) KMCL_EXCLUDES(mutex);
  bool IsDone() KMCL_EXCLUDES(mutex);

  Mutex mutex;
  CondVar changed;
  bool done KMCL_GUARDED_BY(mutex) = false;
  // Valid once done.
  Outcome outcome = Outcome::kSuccess;
  std::span<std::byte> reply_buffer;
  std::size_t reply_bytes = 0;  // of the completion, which may be more than the buffer holds
};

// A packet that describes memory has ended: lets the handler undo that. Not under a lock.
void EndExternal(Handler& handler, Packet& packet, Outcome outcome);

// A packet has ended: tells its waiter, or calls its completion routine. Not under a lock.
void FinishPacket(Handler& handler, Packet& packet, Outcome outcome, std::span<std::byte> reply);

}  // namespace kmcl::channel
