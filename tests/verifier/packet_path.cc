// A fixed number of packets from VmbPacketAllocate to VmbPacketFree, through every function of the packet
// path: for script/verifier-instructions, which counts what they cost. The threads take turns, so that the
// count does not depend on how they meet: the server is held at the end of a batch while the client sends
// the next one, and the client sends nothing while completions arrive.
//   packet_path COUNT

#include <atomic>
#include <cstdlib>
#include <semaphore>

#include "bus.h"

namespace {

constexpr int kRound = 100;  // packets that the ring has room for
std::atomic<int> awaited;    // completions
std::counting_semaphore<> all_done{0};
std::counting_semaphore<> held{0};
std::counting_semaphore<> let_go{0};

void Done(VMBPACKET packet, NTSTATUS, PVOID, UINT32) {
  if (VmbPacketGetPointer(packet) != &awaited) std::abort();
  if (VmbChannelGetPointer(VmbPacketGetChannel(packet)) == nullptr) std::abort();
  VmbPacketFree(packet);
  if (--awaited == 0) all_done.release();
}

void SendRound(VMBCHANNEL channel) {
  awaited = kRound;
  for (int i = 0; i < kRound; ++i) {
    VMBPACKET const packet = VmbPacketAllocate(channel);
    VmbPacketSetPointer(packet, &awaited);
    VmbPacketSetCompletionRoutine(packet, &Done);
    char bytes[64] = {};
    const UINT32 flags = i % 2 == 0 ? VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION : 0u;
    if (VmbPacketSend(packet, bytes, sizeof bytes, nullptr, flags) != STATUS_SUCCESS) std::abort();
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int rounds = argc == 2 ? std::atoi(argv[1]) / kRound : 0;
  if (rounds <= 0) return 2;
  kmcl::verifier_test::Bus bus;
  bus.on_packet = [](VMBPACKETCOMPLETION packet, PVOID buffer) {
    if (VmbChannelPacketGetClientContext(packet) != nullptr) std::abort();
    VmbChannelPacketComplete(packet, buffer, 8);
  };
  bus.on_batch_end = [] {
    held.release();
    let_go.acquire();
  };
  bus.Open();
  VmbChannelSetPointer(bus.client_channel, &bus);
  // The first batch, which may have to ring for the server.
  char word[8] = {};
  UINT32 answered = sizeof word;
  if (VmbChannelSendSynchronousRequest(bus.client_channel, word, sizeof word, nullptr, 0, word,
                                       &answered, nullptr) != STATUS_SUCCESS) {
    std::abort();
  }
  for (int i = 0; i < rounds; ++i) {
    held.acquire();
    SendRound(bus.client_channel);
    let_go.release();
    all_done.acquire();
  }
  held.acquire();
  let_go.release();
  bus.Close();
  return 0;
}
