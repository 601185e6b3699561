#include "ends.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <chrono>
#include <vector>

namespace kmcl::limits {

#define KMCL_RETURN_UNLESS_SUCCESS(call) \
  if (const NTSTATUS outcome = (call); outcome != STATUS_SUCCESS) return outcome

GUID InstanceOf(std::uint32_t number) {
  GUID instance = kEchoType;
  instance.Data1 = number;
  return instance;
}

KMCL_ENDPOINT_OPTIONS DefaultOptions() {
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  return options;
}

Address::Address() {
  char directory[] = "/tmp/kmcl-limits-XXXXXX";
  if (mkdtemp(directory) == nullptr) {
    perror("mkdtemp");
    abort();
  }
  directory_ = directory;
  text_ = "unix:" + directory_ + "/bus";
}

Address::~Address() {
  unlink((directory_ + "/bus").c_str());
  rmdir(directory_.c_str());
}

void Count::Add() {
  {
    const std::lock_guard lock(mutex_);
    ++value_;
  }
  changed_.notify_all();
}

bool Count::WaitFor(std::uint32_t target) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::minutes(2), [&] { return value_ >= target; });
}

std::uint32_t Count::value() {
  const std::lock_guard lock(mutex_);
  return value_;
}

// ---- Server.

EchoServer::EchoServer(const char* address, const KMCL_ENDPOINT_OPTIONS& options,
                       std::uint32_t first_offers, const ChannelOptions& channels)
    : first_offers_(first_offers), options_(channels) {
  if (options_.completes_late) late_thread_ = std::thread([this] { CompleteLate(); });
  KMCL_ENDPOINT_OPTIONS own = options;
  own.Context = this;
  own.PartitionArrived = [](PVOID context, KMCL_SERVER made, HANDLE partition) {
    auto& server = *static_cast<EchoServer*>(context);
    server.last_partition_ = partition;
    for (std::uint32_t i = 0; i < server.first_offers_; ++i) {
      const NTSTATUS status = server.OfferTo(made, partition);
      if (status != STATUS_SUCCESS && server.offer_status_ == STATUS_SUCCESS) {
        server.offer_status_ = status;
      }
    }
    server.arrived_.Add();
  };
  own.PartitionGone = [](PVOID context, KMCL_SERVER, HANDLE) {
    static_cast<EchoServer*>(context)->gone_.Add();
  };
  status_ = KmclServerCreate(address, &own, &server_);
}

EchoServer::~EchoServer() {
  CleanUp();
  KmclServerDestroy(server_);
  {
    const std::lock_guard lock(late_mutex_);
    stopping_ = true;
  }
  late_changed_.notify_one();
  if (late_thread_.joinable()) late_thread_.join();
}

void EchoServer::OnPacket(VMBPACKETCOMPLETION packet, PVOID buffer, UINT32 bytes) {
  packets_.Add();
  if (!options_.completes_late) return VmbChannelPacketComplete(packet, buffer, bytes);
  {
    const std::lock_guard lock(late_mutex_);
    late_.push_back({packet, buffer, bytes});
  }
  late_changed_.notify_one();
}

void EchoServer::CompleteLate() {
  std::unique_lock lock(late_mutex_);
  for (;;) {
    late_changed_.wait(lock, [this] { return stopping_ || !late_.empty(); });
    if (late_.empty()) return;
    const Late late = late_.front();
    late_.pop_front();
    lock.unlock();
    VmbChannelPacketComplete(late.packet, late.buffer, late.bytes);
    lock.lock();
  }
}

EchoServer& EchoServer::Of(VMBCHANNEL channel) {
  return *static_cast<EchoServer*>(VmbChannelGetPointer(channel));
}

NTSTATUS EchoServer::Configure(VMBCHANNEL channel, HANDLE partition, std::uint32_t number) {
  VmbChannelSetPointer(channel, this);
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelOpened = [](VMBCHANNEL each) {
    Of(each).opened_.Add();
    return STATUS_SUCCESS;
  };
  callbacks.EvtChannelClosed = [](VMBCHANNEL each) { Of(each).closed_.Add(); };
  KMCL_RETURN_UNLESS_SUCCESS(VmbChannelInitSetStateChangeCallbacks(channel, &callbacks));
  KMCL_RETURN_UNLESS_SUCCESS(VmbChannelInitSetProcessPacketCallbacks(
      channel,
      [](VMBCHANNEL each, VMBPACKETCOMPLETION packet, PVOID buffer, UINT32 bytes, UINT32) {
        Of(each).OnPacket(packet, buffer, bytes);
      },
      nullptr));
  KMCL_RETURN_UNLESS_SUCCESS(
      VmbChannelInitSetMaximumPacketSize(channel, options_.maximum_packet_bytes));
  KMCL_RETURN_UNLESS_SUCCESS(VmbServerChannelInitSetVmbusHandle(channel, partition));
  KMCL_RETURN_UNLESS_SUCCESS(
      VmbServerChannelInitSetTargetInterfaceId(channel, kEchoType, InstanceOf(number)));
  return VmbChannelEnable(channel);
}

NTSTATUS EchoServer::OfferTo(KMCL_SERVER server, HANDLE partition) {
  VMBCHANNEL channel = nullptr;
  KMCL_RETURN_UNLESS_SUCCESS(VmbChannelAllocate(KmclServerDeviceObject(server), TRUE, &channel));
  const NTSTATUS status = Configure(channel, partition, next_instance_);
  if (status != STATUS_SUCCESS) {
    VmbChannelCleanup(channel);
    return status;
  }
  ++next_instance_;
  VmbChannelStart(channel);
  channels_.push_back({partition, channel});
  return STATUS_SUCCESS;
}

NTSTATUS EchoServer::Offer() { return OfferTo(server_, last_partition_); }

void EchoServer::CleanUp() {
  for (const Offered& each : channels_) {
    VmbChannelDisable(each.handle);
    VmbChannelCleanup(each.handle);
  }
  channels_.clear();
}

// ---- Client.

EchoChannel::EchoChannel(KMCL_CLIENT client, std::uint32_t number, bool any_instance,
                         const ChannelOptions& options, Count& started)
    : started_(started) {
  status_ = VmbChannelAllocate(KmclClientDeviceObject(client), FALSE, &handle_);
  if (status_ == STATUS_SUCCESS) status_ = Configure(number, any_instance, options);
}

NTSTATUS EchoChannel::Configure(std::uint32_t number, bool any_instance,
                                const ChannelOptions& options) {
  VmbChannelSetPointer(handle_, this);
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelPostStarted = [](VMBCHANNEL channel) {
    static_cast<EchoChannel*>(VmbChannelGetPointer(channel))->started_.Add();
  };
  KMCL_RETURN_UNLESS_SUCCESS(VmbChannelInitSetStateChangeCallbacks(handle_, &callbacks));
  KMCL_RETURN_UNLESS_SUCCESS(
      VmbChannelInitSetMaximumPacketSize(handle_, options.maximum_packet_bytes));
  KMCL_RETURN_UNLESS_SUCCESS(
      VmbClientChannelInitSetRingBufferPageCount(handle_, options.ring_pages, options.ring_pages));
  const GUID instance = InstanceOf(number);
  KMCL_RETURN_UNLESS_SUCCESS(VmbClientChannelInitSetTargetPnp(
      handle_, &kEchoType, any_instance ? nullptr : &instance, [](VMBCHANNEL, NTSTATUS failure) {
        fprintf(stderr, "a channel cannot be opened: %s\n", KmclStatusName(failure));
      }));
  return VmbChannelEnable(handle_);
}

EchoChannel::~EchoChannel() {
  if (handle_ == nullptr) return;
  VmbChannelDisable(handle_);
  VmbChannelCleanup(handle_);
}

NTSTATUS EchoChannel::Ask(std::uint32_t bytes) {
  std::vector<std::uint64_t> question(bytes / sizeof(std::uint64_t), 0x0102030405060708);
  question.front() = reinterpret_cast<std::uintptr_t>(this);
  std::vector<std::uint64_t> answer(question.size());
  auto answer_bytes = static_cast<UINT32>(answer.size() * sizeof answer[0]);
  LARGE_INTEGER timeout;
  timeout.QuadPart = -60 * 10'000'000LL;  // 60 s
  KMCL_RETURN_UNLESS_SUCCESS(VmbChannelSendSynchronousRequest(
      handle_, question.data(), static_cast<UINT32>(question.size() * sizeof question[0]), nullptr,
      VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION, answer.data(), &answer_bytes, &timeout));
  return answer == question ? STATUS_SUCCESS : STATUS_UNSUCCESSFUL;
}

}  // namespace kmcl::limits
