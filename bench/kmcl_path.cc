// A fixed number of packets through the whole of KMCL, both ends in this process, for counting what
// they cost: script/instructions runs it under valgrind. Nothing in it depends on how threads are
// scheduled: the reader is held while packets are sent, and a round of packets is delivered in one
// batch.
//
//   kmcl_path [--packets N] [--bytes B] [--round R] [--transactions] [--allocate] [--print]
//
// --transactions: each packet asks for a completion, and the server gives it in its packet
// callback.
// --allocate: each packet is allocated, sent, and freed by its completion routine.
// --print: what the ends counted, as JSON.

#include <kmcl/endpoint.h>
#include <kmcl/kmcl.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr GUID kType{0x6b1f7a03, 0x52d4, 0x4c19, {0x8e, 0x20, 0x9a, 0x37, 0xd1, 0x64, 0x0b, 0xc5}};
constexpr GUID kInstance{
    0xe07c5d18, 0x94aa, 0x4f36, {0xb3, 0x5e, 0x02, 0x7f, 0x88, 0x1d, 0xc6, 0x49}};

struct Plan {
  std::uint32_t packets = 32'000;
  std::uint32_t bytes = 64;
  std::uint32_t round = 1'000;  // packets that are sent before the reader goes on
  bool transactions = false;
  bool allocate = false;
  bool print = false;
};
Plan plan;

void Check(NTSTATUS status, const char* what) {
  if (NT_SUCCESS(status)) return;
  std::fprintf(stderr, "kmcl_path: %s: %s\n", what, KmclStatusName(status));
  std::_Exit(3);
}

// A number that one thread raises and another waits for.
class Mark {
 public:
  void Raise() {
    value_.fetch_add(1, std::memory_order_release);
    value_.notify_all();
  }
  void WaitFor(std::uint32_t wanted) {
    for (;;) {
      const std::uint32_t value = value_.load(std::memory_order_acquire);
      if (value >= wanted) return;
      value_.wait(value, std::memory_order_acquire);
    }
  }

 private:
  std::atomic<std::uint32_t> value_{0};
};

Mark arrived;
Mark server_active;
Mark client_active;
Mark held;      // the server has delivered a round, and waits
Mark let_go;    // it may go on
Mark all_back;  // transactions: the client has had all completions of a round
HANDLE the_partition = nullptr;
std::atomic<bool> finishing{false};

// The server's dispatch thread.
std::uint32_t server_rounds = 0;
std::uint64_t sum = 0;

VOID OnPacket(VMBCHANNEL, VMBPACKETCOMPLETION packet, PVOID buffer, UINT32 bytes, UINT32) {
  if (bytes < plan.bytes) std::abort();
  sum += *static_cast<const std::uint64_t*>(buffer);
  VmbChannelPacketComplete(packet, plan.transactions ? buffer : nullptr,
                           plan.transactions ? plan.bytes : 0);
}

// All that was sent has been delivered: the sender prepares the next round while this waits.
VOID OnProcessingComplete(VMBCHANNEL, UINT32) {
  if (finishing.load(std::memory_order_relaxed)) return;
  held.Raise();
  let_go.WaitFor(++server_rounds);
}

// With transactions: the client's dispatch thread.
std::uint32_t routines = 0;
std::uint32_t client_rounds = 0;

VOID OnDone(VMBPACKET packet, NTSTATUS status, PVOID, UINT32) {
  if (status != STATUS_SUCCESS) std::abort();
  if (plan.allocate) VmbPacketFree(packet);
  if (!plan.transactions) return;
  // The first completion of a round waits until all of them are in the ring.
  if (routines == 0) held.WaitFor(++client_rounds + 1);
  if (++routines == plan.round) {
    routines = 0;
    all_back.Raise();
  }
}

VMBPACKET MakePacket(VMBCHANNEL channel) {
  VMBPACKET const packet = VmbPacketAllocate(channel);
  if (packet == nullptr) std::abort();
  VmbPacketSetCompletionRoutine(packet, &OnDone);
  return packet;
}

void Send(VMBCHANNEL channel, std::vector<VMBPACKET>& packets, std::byte* payload) {
  const UINT32 flags = plan.transactions ? VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION : 0u;
  for (VMBPACKET packet : packets) {
    if (plan.allocate) packet = MakePacket(channel);
    if (VmbPacketSend(packet, payload, plan.bytes, nullptr, flags) != STATUS_SUCCESS) std::abort();
  }
}

void Print(const char* name, VMBCHANNEL channel, const char* separator) {
  KMCL_CHANNEL_COUNTERS counters{};
  counters.Size = sizeof counters;
  Check(KmclChannelQueryCounters(channel, &counters), "KmclChannelQueryCounters");
  std::printf(
      "\"%s\": {\"packets_sent\": %llu, \"completions_sent\": %llu, \"bells_rung\": %llu, "
      "\"batches\": %llu}%s",
      name, static_cast<unsigned long long>(counters.PacketsSent),
      static_cast<unsigned long long>(counters.CompletionsSent),
      static_cast<unsigned long long>(counters.BellsRung),
      static_cast<unsigned long long>(counters.Batches), separator);
}

bool Number(const char* text, std::uint32_t& into) {
  char* end = nullptr;
  const unsigned long value = std::strtoul(text, &end, 10);
  if (end == text || *end != '\0' || value == 0 || value > 1'000'000'000) return false;
  into = static_cast<std::uint32_t>(value);
  return true;
}

bool Parse(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--transactions") {
      plan.transactions = true;
    } else if (name == "--allocate") {
      plan.allocate = true;
    } else if (name == "--print") {
      plan.print = true;
    } else {
      std::uint32_t* const number = name == "--packets" ? &plan.packets
                                    : name == "--bytes" ? &plan.bytes
                                    : name == "--round" ? &plan.round
                                                        : nullptr;
      if (number == nullptr || ++i == argc || !Number(argv[i], *number)) return false;
    }
  }
  return plan.bytes >= 8 && plan.bytes <= 4096 && plan.packets % plan.round == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (!Parse(argc, argv)) {
    std::fprintf(
        stderr,
        "usage: kmcl_path [--packets N] [--bytes 8..4096] [--round R, N is a multiple of it] "
        "[--transactions] [--allocate] [--print]\n");
    return 2;
  }
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.PartitionArrived = [](PVOID, KMCL_SERVER, HANDLE partition) {
    the_partition = partition;
    arrived.Raise();
  };
  KMCL_SERVER server = nullptr;
  KMCL_CLIENT client = nullptr;
  Check(KmclServerCreate("local:kmcl-path", &options, &server), "KmclServerCreate");
  Check(KmclClientConnect("local:kmcl-path", nullptr, &client), "KmclClientConnect");
  arrived.WaitFor(1);

  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  VMBCHANNEL reader = nullptr;
  Check(VmbChannelAllocate(KmclServerDeviceObject(server), TRUE, &reader), "VmbChannelAllocate");
  Check(VmbServerChannelInitSetVmbusHandle(reader, the_partition), "set-up");
  Check(VmbServerChannelInitSetTargetInterfaceId(reader, kType, kInstance), "set-up");
  Check(VmbChannelInitSetProcessPacketCallbacks(reader, &OnPacket, &OnProcessingComplete),
        "set-up");
  callbacks.EvtChannelPostStarted = [](VMBCHANNEL) { server_active.Raise(); };
  Check(VmbChannelInitSetStateChangeCallbacks(reader, &callbacks), "set-up");

  VMBCHANNEL writer = nullptr;
  Check(VmbChannelAllocate(KmclClientDeviceObject(client), FALSE, &writer), "VmbChannelAllocate");
  Check(VmbClientChannelInitSetTargetPnp(writer, &kType, &kInstance, nullptr), "set-up");
  // Both directions hold a round.
  const std::uint32_t pages = 8 + plan.round * ((plan.bytes + 7) / 8 * 8 + 24) / 4096;
  Check(VmbClientChannelInitSetRingBufferPageCount(writer, pages, pages), "set-up");
  callbacks.EvtChannelPostStarted = [](VMBCHANNEL) { client_active.Raise(); };
  Check(VmbChannelInitSetStateChangeCallbacks(writer, &callbacks), "set-up");

  Check(VmbChannelEnable(reader), "VmbChannelEnable");
  VmbChannelStart(reader);
  Check(VmbChannelEnable(writer), "VmbChannelEnable");
  server_active.WaitFor(1);
  client_active.WaitFor(1);

  std::vector<VMBPACKET> packets(plan.round);
  if (!plan.allocate) {
    for (VMBPACKET& packet : packets) packet = MakePacket(writer);
  }
  alignas(16) std::byte payload[4096] = {};

  // One packet wakes the reader and leads it to where it is held.
  char first[4096] = {};
  Check(VmbChannelSendSynchronousRequest(writer, first, plan.bytes, nullptr, 0, nullptr, nullptr,
                                         nullptr),
        "VmbChannelSendSynchronousRequest");
  held.WaitFor(1);
  const std::uint32_t rounds = plan.packets / plan.round;
  for (std::uint32_t round = 1; round <= rounds; ++round) {
    Send(writer, packets, payload);
    let_go.Raise();
    held.WaitFor(round + 1);
    if (plan.transactions) all_back.WaitFor(round);
  }
  if (plan.print) {
    std::printf("{");
    Print("writer", writer, ", ");
    Print("reader", reader, "}\n");
  }
  finishing.store(true, std::memory_order_relaxed);
  let_go.Raise();

  VmbChannelDisable(writer);
  if (!plan.allocate) {
    for (VMBPACKET packet : packets) VmbPacketFree(packet);
  }
  VmbChannelCleanup(writer);
  VmbChannelDisable(reader);
  VmbChannelCleanup(reader);
  KmclClientDestroy(client);
  KmclServerDestroy(server);
  return sum == 0 ? 0 : 1;
}
