// A fixed number of packets from VmbPacketAllocate to VmbPacketFree, through every function of the packet
// path: for script/verifier-instructions, which counts what they cost.
//   packet_path COUNT

#include <atomic>
#include <cstdlib>

#include "bus.h"

int main(int argc, char** argv) {
  using kmcl::verifier_test::Bus;
  static std::atomic<int> left;
  const int count = argc == 2 ? std::atoi(argv[1]) : 0;
  if (count <= 0) return 2;
  static kmcl::verifier_test::Event all_done;
  Bus bus;
  bus.on_packet = [](VMBPACKETCOMPLETION packet, PVOID buffer) {
    if (VmbChannelPacketGetClientContext(packet) != nullptr) std::abort();
    VmbChannelPacketComplete(packet, buffer, 8);
  };
  bus.Open();
  VmbChannelSetPointer(bus.client_channel, &bus);
  left = count;
  for (int i = 0; i < count; ++i) {
    VMBPACKET const packet = VmbPacketAllocate(bus.client_channel);
    VmbPacketSetPointer(packet, &left);
    VmbPacketSetCompletionRoutine(packet, [](VMBPACKET done, NTSTATUS, PVOID, UINT32) {
      if (VmbPacketGetPointer(done) != &left) std::abort();
      if (VmbChannelGetPointer(VmbPacketGetChannel(done)) == nullptr) std::abort();
      VmbPacketFree(done);
      if (--left == 0) all_done.Set();
    });
    char bytes[64] = {};
    const UINT32 flags = i % 2 == 0 ? VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION : 0u;
    if (VmbPacketSend(packet, bytes, sizeof bytes, nullptr, flags) != STATUS_SUCCESS) std::abort();
  }
  all_done.Wait();
  // What needs no completion may still be on its way to the server.
  bus.Close();
  return 0;
}
