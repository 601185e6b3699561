#include "kmcl_bus.h"

#include <kmcl/raw.h>
#include <unistd.h>

namespace kmcl::bench {
namespace {

constexpr GUID kInterface = {
    0x7c0f6a31, 0x53d8, 0x4b0e, {0x9f, 0x21, 0x64, 0x5e, 0x08, 0xd3, 0xaa, 0x47}};

GUID Instance(ULONG index) {
  GUID instance = kInterface;
  instance.Data1 = index;
  return instance;
}

// While it exists, the calling thread may use both CPUs of the row, as a program's main thread may.
class BothCpus {
 public:
  explicit BothCpus(const Plan& plan) {
    sched_getaffinity(0, sizeof(before_), &before_);
    cpu_set_t both;
    CPU_ZERO(&both);
    CPU_SET(static_cast<std::size_t>(plan.near_cpu), &both);
    CPU_SET(static_cast<std::size_t>(plan.far_cpu), &both);
    sched_setaffinity(0, sizeof(both), &both);
  }
  ~BothCpus() { sched_setaffinity(0, sizeof(before_), &before_); }
  BothCpus(const BothCpus&) = delete;
  BothCpus& operator=(const BothCpus&) = delete;

 private:
  cpu_set_t before_;
};

// Its dispatch thread is bound to a CPU; `cpu` stays where it is while the options are in use.
KMCL_ENDPOINT_OPTIONS Options(Wait wait, const ULONG& cpu) {
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.DispatchProcessors = &cpu;
  switch (wait) {
    case Wait::kPoll:
      options.SpinMicroseconds = KMCL_SPIN_FOREVER;
      break;
    case Wait::kSleep:
      options.SpinMicroseconds = KMCL_SPIN_NEVER;
      break;
    case Wait::kWindow:
      options.SpinMicroseconds = 50;
      break;
    case Wait::kAdaptive:
      options.SpinMicroseconds = KMCL_SPIN_ADAPTIVE;
      break;
  }
  return options;
}

}  // namespace

std::string NewAddress(bool local) {
  static int count = 0;
  const std::string name = "kmcl_bench." + std::to_string(getpid()) + "." + std::to_string(++count);
  return local ? "local:" + name : "unix:" + Scratch() + "/" + name;
}

BusServer::BusServer(Stage& stage, const std::string& address, const BusShape& shape, void* owner,
                     PFN_VMB_CHANNEL_PROCESS_PACKET on_packet,
                     std::function<void(VMBCHANNEL)> prepare)
    : stage_(stage),
      shape_(shape),
      owner_(owner),
      on_packet_(on_packet),
      prepare_(std::move(prepare)),
      ends_(shape.channels) {
  const BothCpus both(stage.plan());
  const auto cpu = static_cast<ULONG>(stage.plan().far_cpu);
  KMCL_ENDPOINT_OPTIONS options = Options(shape.wait, cpu);
  options.Context = this;
  options.PartitionArrived = OnArrival;
  options.PartitionGone = OnGone;
  Require(stage, KmclServerCreate(address.c_str(), &options, &server_), "KmclServerCreate");
}

BusServer::~BusServer() {
  gone_.acquire();
  KmclServerDestroy(server_);
}

VOID BusServer::OnArrival(PVOID context, KMCL_SERVER server, HANDLE partition) {
  auto& self = *static_cast<BusServer*>(context);
  for (ULONG i = 0; i < self.shape_.channels; ++i) {
    ChannelEnd& end = self.ends_[i];
    end = {.owner = self.owner_, .index = i};
    Stage& stage = self.stage_;
    Require(stage, VmbChannelAllocate(KmclServerDeviceObject(server), TRUE, &end.channel),
            "VmbChannelAllocate");
    VmbChannelSetPointer(end.channel, &end);
    Require(stage, VmbServerChannelInitSetVmbusHandle(end.channel, partition), "SetVmbusHandle");
    Require(stage, VmbServerChannelInitSetTargetInterfaceId(end.channel, kInterface, Instance(i)),
            "SetTargetInterfaceId");
    Require(stage, VmbChannelInitSetMaximumPacketSize(end.channel, self.shape_.largest_packet),
            "SetMaximumPacketSize");
    if (self.on_packet_ != nullptr) {
      Require(stage, VmbChannelInitSetProcessPacketCallbacks(end.channel, self.on_packet_, nullptr),
              "SetProcessPacketCallbacks");
    }
    if (self.shape_.raw) Require(stage, KmclChannelInitSetRaw(end.channel), "SetRaw");
    if (self.prepare_) self.prepare_(end.channel);
    Require(stage, VmbChannelEnable(end.channel), "VmbChannelEnable");
    VmbChannelStart(end.channel);
  }
}

VOID BusServer::OnGone(PVOID context, KMCL_SERVER, HANDLE) {
  auto& self = *static_cast<BusServer*>(context);
  for (const ChannelEnd& end : self.ends_) {
    VmbChannelDisable(end.channel);
    VmbChannelCleanup(end.channel);
  }
  self.gone_.release();
}

BusClient::BusClient(Stage& stage, const std::string& address, const BusShape& shape, void* owner,
                     const std::function<void(VMBCHANNEL)>& prepare)
    : ends_(shape.channels) {
  {
    const BothCpus both(stage.plan());
    const auto cpu = static_cast<ULONG>(stage.plan().near_cpu);
    const KMCL_ENDPOINT_OPTIONS options = Options(shape.wait, cpu);
    Require(stage, KmclClientConnect(address.c_str(), &options, &client_), "KmclClientConnect");
  }
  for (ULONG i = 0; i < shape.channels; ++i) {
    ChannelEnd& end = ends_[i];
    end = {.owner = owner, .index = i};
    const GUID instance = Instance(i);
    Require(stage, VmbChannelAllocate(KmclClientDeviceObject(client_), FALSE, &end.channel),
            "VmbChannelAllocate");
    VmbChannelSetPointer(end.channel, &end);
    Require(stage, VmbChannelInitSetMaximumPacketSize(end.channel, shape.largest_packet),
            "SetMaximumPacketSize");
    Require(
        stage,
        VmbClientChannelInitSetRingBufferPageCount(end.channel, shape.ring_pages, shape.ring_pages),
        "SetRingBufferPageCount");
    Require(stage, VmbClientChannelInitSetTargetPnp(end.channel, &kInterface, &instance, nullptr),
            "SetTargetPnp");
    if (shape.raw) Require(stage, KmclChannelInitSetRaw(end.channel), "SetRaw");
    if (prepare) prepare(end.channel);
    Require(stage, VmbChannelEnable(end.channel), "VmbChannelEnable");
  }
  if (shape.raw) return;
  // An answer to a request tells that both ends are active; each channel is asked for one.
  for (const ChannelEnd& end : ends_) {
    std::uint64_t hello = kHello;
    LARGE_INTEGER ten_seconds;
    ten_seconds.QuadPart = -10 * 10'000'000LL;
    Require(stage,
            VmbChannelSendSynchronousRequest(end.channel, &hello, sizeof(hello), nullptr,
                                             VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION, nullptr,
                                             nullptr, &ten_seconds),
            "a channel does not open");
  }
}

BusClient::~BusClient() {
  for (const ChannelEnd& end : ends_) {
    VmbChannelDisable(end.channel);
    VmbChannelCleanup(end.channel);
  }
  KmclClientDestroy(client_);
}

}  // namespace kmcl::bench
