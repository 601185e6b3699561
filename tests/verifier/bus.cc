#include "bus.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace kmcl::verifier_test {
namespace {

constexpr GUID kType{0x6f0a1c52, 0x35be, 0x4a86, {0x91, 0x2d, 0x60, 0x0f, 0x7e, 0x3b, 0xa4, 0x18}};
constexpr GUID kInstance{
    0x2b94d0e7, 0x8c1f, 0x4e63, {0xa5, 0x77, 0x19, 0xc2, 0x5d, 0x08, 0x6e, 0xf3}};

Bus* the_bus = nullptr;

void Check(NTSTATUS status) {
  if (NT_SUCCESS(status)) return;
  std::fprintf(stderr, "set-up failed: %s\n", KmclStatusName(status));
  std::_Exit(3);
}

}  // namespace

void Event::Set() {
  std::lock_guard lock(mutex_);
  set_ = true;
  changed_.notify_all();
}

void Event::Wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return set_; });
}

struct Callbacks {
  static VOID Arrived(PVOID, KMCL_SERVER, HANDLE partition) {
    the_bus->partition = partition;
    the_bus->arrived_.Set();
  }
  static VOID ServerActive(VMBCHANNEL) { the_bus->server_active_.Set(); }
  static VOID ClientActive(VMBCHANNEL) { the_bus->client_active_.Set(); }
  static VOID ClientStarted(VMBCHANNEL) {
    if (the_bus->on_started) the_bus->on_started();
  }
  static VOID ClientClosed(VMBCHANNEL) {
    if (the_bus->on_closed) the_bus->on_closed();
  }
  static VOID ServerPacket(VMBCHANNEL, VMBPACKETCOMPLETION packet, PVOID buffer, UINT32, UINT32) {
    if (the_bus->on_packet) {
      the_bus->on_packet(packet, buffer);
    } else {
      the_bus->Keep(packet);
    }
    the_bus->received.Set();
  }
  static VOID ServerBatchEnd(VMBCHANNEL, UINT32) {
    if (the_bus->on_batch_end) the_bus->on_batch_end();
  }
  static VOID ClientDone(VMBPACKET packet, NTSTATUS, PVOID, UINT32) {
    if (the_bus->on_done) {
      the_bus->on_done(packet);
    } else {
      VmbPacketFree(packet);
    }
    the_bus->done.Set();
  }
};

Bus::Bus() {
  the_bus = this;
  KmclSetLogSink(
      [](PVOID, KMCL_LOG_LEVEL, const char* line) {
        std::fprintf(stderr, "%s\n", line);
        // A program that is being stopped waits for its end, and must not get to another one first.
        const char* const verifier = std::getenv("KMCL_VERIFIER");
        if (verifier != nullptr && std::string(verifier).starts_with("stop")) return;
        if (std::string(line).find("KMCL-V") != std::string::npos) the_bus->reported.Set();
      },
      nullptr);
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.PartitionArrived = &Callbacks::Arrived;
  const std::string address = "local:verifier-" + std::to_string(getpid());
  Check(KmclServerCreate(address.c_str(), &options, &server));
  Check(KmclClientConnect(address.c_str(), nullptr, &client));
  arrived_.Wait();

  Check(VmbChannelAllocate(KmclServerDeviceObject(server), TRUE, &server_channel));
  Check(VmbServerChannelInitSetVmbusHandle(server_channel, partition));
  Check(VmbServerChannelInitSetTargetInterfaceId(server_channel, kType, kInstance));
  Check(VmbChannelInitSetProcessPacketCallbacks(server_channel, &Callbacks::ServerPacket,
                                               &Callbacks::ServerBatchEnd));
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelPostStarted = &Callbacks::ServerActive;
  Check(VmbChannelInitSetStateChangeCallbacks(server_channel, &callbacks));

  Check(VmbChannelAllocate(KmclClientDeviceObject(client), FALSE, &client_channel));
  Check(VmbClientChannelInitSetTargetPnp(client_channel, &kType, &kInstance, nullptr));
  callbacks.EvtChannelStarted = &Callbacks::ClientStarted;
  callbacks.EvtChannelPostStarted = &Callbacks::ClientActive;
  callbacks.EvtChannelClosed = &Callbacks::ClientClosed;
  Check(VmbChannelInitSetStateChangeCallbacks(client_channel, &callbacks));
}

void Bus::Open() {
  Check(VmbChannelEnable(server_channel));
  VmbChannelStart(server_channel);
  Check(VmbChannelEnable(client_channel));
  server_active_.Wait();
  client_active_.Wait();
}

void Bus::CleanUp(VMBCHANNEL& channel) {
  if (channel == nullptr) return;
  VmbChannelDisable(channel);
  VmbChannelCleanup(channel);
  channel = nullptr;
}

void Bus::Keep(VMBPACKETCOMPLETION packet) {
  {
    const std::lock_guard lock(mutex_);
    if (!closing_) return kept_.push_back(packet);
  }
  VmbChannelPacketComplete(packet, nullptr, 0);
}

VMBPACKETCOMPLETION Bus::TakeKept() {
  const std::lock_guard lock(mutex_);
  const VMBPACKETCOMPLETION first = kept_.front();
  kept_.erase(kept_.begin());
  return first;
}

void Bus::Close() {
  std::vector<VMBPACKETCOMPLETION> kept;
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
    kept.swap(kept_);
  }
  for (VMBPACKETCOMPLETION packet : kept) VmbChannelPacketComplete(packet, nullptr, 0);
  CleanUp(client_channel);
  CleanUp(server_channel);
}

Bus::~Bus() {
  Close();
  KmclClientDestroy(client);
  KmclServerDestroy(server);
  the_bus = nullptr;
}

VMBPACKET Bus::Send(bool wait) {
  VMBPACKET const packet = VmbPacketAllocate(client_channel);
  VmbPacketSetCompletionRoutine(packet, &Callbacks::ClientDone);
  char bytes[] = "payload";
  Check(VmbPacketSend(packet, bytes, sizeof bytes, nullptr,
                      wait ? VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION : 0));
  return packet;
}

}  // namespace kmcl::verifier_test
