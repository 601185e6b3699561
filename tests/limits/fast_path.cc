#include "fast_path.h"

#include <kmcl/endpoint.h>
#include <kmcl/kmcl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <new>
#include <vector>

#include "ends.h"

namespace kmcl::limits {
namespace {

// Wide enough that two processes which share a processor do not spend a time slice on every few
// packets, and far from filling a ring.
constexpr std::uint32_t kWindow = 256;
constexpr std::uint32_t kPayloadBytes = 64;
constexpr ChannelOptions kOptions{.maximum_packet_bytes = kPayloadBytes, .ring_pages = 16};

// The one busy channel of a process; callbacks find it here.
struct Busy {
  BusyState* state = nullptr;
  std::uint64_t first_marked = 0;
  Count busy;
  Count ended;
};
Busy busy;

void Require(NTSTATUS status, const char* what) {
  if (status == STATUS_SUCCESS) return;
  fprintf(stderr, "%s: %s\n", what, KmclStatusName(status));
  _exit(EXIT_FAILURE);
}

KMCL_ENDPOINT_OPTIONS PollingOptions() {
  KMCL_ENDPOINT_OPTIONS options = DefaultOptions();
  options.SpinMicroseconds = KMCL_SPIN_FOREVER;
  return options;
}

void Note(std::atomic<pid_t>& thread) {
  if (thread.load(std::memory_order_relaxed) == 0) thread = gettid();
}

void SendNext(VMBPACKET packet) {
  std::uint64_t payload[kPayloadBytes / sizeof(std::uint64_t)] = {};
  Require(VmbPacketSend(packet, payload, sizeof payload, nullptr,
                        VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION),
          "VmbPacketSend");
}

void PacketDone(VMBPACKET packet, NTSTATUS status, PVOID, UINT32) {
  if (status != STATUS_SUCCESS) return;  // the end
  BusyState& state = *busy.state;
  Note(state.client_dispatch_thread);
  const std::uint64_t number = ++state.transactions;
  if (number == kWarmUpTransactions) busy.busy.Add();
  if (number >= kWarmUpTransactions && state.phase == Phase::kBefore && state.may_begin) {
    busy.first_marked = number;
    state.phase = Phase::kBetween;
    syscall(BeaconCall());
  }
  if (state.phase == Phase::kBetween && number == busy.first_marked + kMarkedTransactions) {
    state.phase = Phase::kAfter;
    syscall(BeaconCall());
    busy.ended.Add();
  }
  SendNext(packet);
}

void Offer(KMCL_SERVER server, HANDLE partition) {
  VMBCHANNEL channel = nullptr;
  Require(VmbChannelAllocate(KmclServerDeviceObject(server), TRUE, &channel), "allocate");
  Require(VmbServerChannelInitSetVmbusHandle(channel, partition), "partition");
  Require(VmbServerChannelInitSetTargetInterfaceId(channel, kEchoType, InstanceOf(0)), "instance");
  Require(VmbChannelInitSetMaximumPacketSize(channel, kPayloadBytes), "size");
  Require(VmbChannelInitSetProcessPacketCallbacks(
              channel,
              [](VMBCHANNEL, VMBPACKETCOMPLETION packet, PVOID buffer, UINT32, UINT32) {
                Note(busy.state->server_dispatch_thread);
                VmbChannelPacketComplete(packet, buffer, sizeof(std::uint64_t));
              },
              nullptr),
          "callbacks");
  Require(VmbChannelEnable(channel), "enable");
  VmbChannelStart(channel);
}

}  // namespace

BusyState* BusyState::Make() {
  void* const memory =
      mmap(nullptr, sizeof(BusyState), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    perror("mmap");
    abort();
  }
  return new (memory) BusyState;
}

long BeaconCall() { return SYS_getppid; }

int RunBusyServer(const char* address, BusyState& state, const Line& line) {
  busy.state = &state;
  KMCL_ENDPOINT_OPTIONS options = PollingOptions();
  options.PartitionArrived = [](PVOID, KMCL_SERVER made, HANDLE partition) {
    Offer(made, partition);
  };
  KMCL_SERVER server = nullptr;
  Require(KmclServerCreate(address, &options, &server), "server");
  line.Say('r');
  (void)line.Hear<char>();  // until the kill
  return EXIT_SUCCESS;
}

int RunBusyClient(const char* address, BusyState& state, std::uint32_t bystanders,
                  const Line& line) {
  if (!line.Hear<char>()) return EXIT_FAILURE;
  busy.state = &state;
  const KMCL_ENDPOINT_OPTIONS options = PollingOptions();
  std::vector<KMCL_CLIENT> idle(bystanders);
  for (KMCL_CLIENT& each : idle) Require(KmclClientConnect(address, nullptr, &each), "bystander");
  KMCL_CLIENT client = nullptr;
  Require(KmclClientConnect(address, &options, &client), "client");
  Count started;
  EchoChannel channel(client, 0, false, kOptions, started);
  Require(channel.status(), "channel");
  if (!started.WaitFor(1)) return EXIT_FAILURE;
  for (std::uint32_t i = 0; i < kWindow; ++i) {
    const VMBPACKET packet = VmbPacketAllocate(channel.handle());
    if (packet == nullptr) return EXIT_FAILURE;
    VmbPacketSetCompletionRoutine(packet, PacketDone);
    SendNext(packet);
  }
  if (!busy.busy.WaitFor(1)) return EXIT_FAILURE;
  line.Say('b');
  if (!busy.ended.WaitFor(1)) return EXIT_FAILURE;
  line.Say('e');
  (void)line.Hear<char>();  // until the kill
  return EXIT_SUCCESS;
}

}  // namespace kmcl::limits
