#include "api/objects.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <unordered_map>

#include "api/status_map.h"
#include "api/verifier.h"
#include "channel/channel.h"
#include "log.h"
#include "mutex.h"

namespace kmcl::api {
namespace {

struct PartitionHandles {
  Mutex mutex;
  std::unordered_map<HANDLE, std::shared_ptr<endpoint::Partition>> entries KMCL_GUARDED_BY(mutex);
  std::uintptr_t last KMCL_GUARDED_BY(mutex) = 0;
};

// Never destroyed: handles may be closed while the process exits.
PartitionHandles& Handles() {
  static auto* handles = new PartitionHandles;
  return *handles;
}

}  // namespace

ChannelObject::ChannelObject(PDEVICE_OBJECT parent, bool in_caller_memory)
    : parent_(parent), in_caller_memory_(in_caller_memory) {
  const DeviceBinding& binding = *BindingOf(parent);
  if (binding.server != nullptr) {
    server_ = binding.server->MakeChannel(*this);
  } else {
    client_ = binding.client->MakeChannel(*this);
  }
}

// ---- The driver's callbacks. NULL stands for the defaults of KMCL reference 2.4 and 6.1.

bool ChannelObject::OnOpened() {
  return state_callbacks.EvtChannelOpened == nullptr ||
         NT_SUCCESS(state_callbacks.EvtChannelOpened(handle()));
}

void ChannelObject::OnClosed() {
  if (state_callbacks.EvtChannelClosed != nullptr) state_callbacks.EvtChannelClosed(handle());
}

void ChannelObject::OnSuspend() {
  if (state_callbacks.EvtChannelSuspend != nullptr) state_callbacks.EvtChannelSuspend(handle());
}

void ChannelObject::OnStarted() {
  if (state_callbacks.EvtChannelStarted != nullptr) state_callbacks.EvtChannelStarted(handle());
}

void ChannelObject::OnPostStarted() {
  if (state_callbacks.EvtChannelPostStarted != nullptr) {
    state_callbacks.EvtChannelPostStarted(handle());
  }
}

void ChannelObject::OnConnectFailed(Error error) {
  if (pnp_failure != nullptr) pnp_failure(handle(), StatusOf(error));
}

void ChannelObject::OnPacket(channel::IncomingPacket& packet) {
  const auto context = reinterpret_cast<VMBPACKETCOMPLETION>(&packet);
  const auto bytes = static_cast<UINT32>(packet.payload.size());
  const UINT32 flags =
      packet.external_data && is_server() ? VMBUS_CHANNEL_PROCESS_PACKET_FLAG_EXTERNAL_DATA : 0;
  if (process_packet != nullptr) {
    process_packet(handle(), context, packet.payload.data(), bytes, flags);
  } else if (process_packet_ex != nullptr) {
    process_packet_ex(handle(), context, packet.payload.data(), bytes, flags,
                      packet_callbacks_context);
  } else {
    packet.channel->Complete(packet, {});
  }
}

void ChannelObject::OnBatchEnd(std::uint32_t packets) {
  if (processing_complete != nullptr) {
    processing_complete(handle(), packets);
  } else if (processing_complete_ex != nullptr) {
    processing_complete_ex(handle(), packets, packet_callbacks_context);
  }
}

std::int32_t ChannelObject::OnSavePacket(channel::Packet& packet, std::span<std::byte> buffer,
                                         std::uint32_t& needed) {
  std::byte* const bytes = buffer.empty() ? nullptr : buffer.data();
  const auto size = static_cast<UINT32>(buffer.size());
  if (save_packet != nullptr) return save_packet(handle(), HandleOf(packet), bytes, size, &needed);
  if (save_packet_ex == nullptr) return STATUS_SUCCESS;
  return save_packet_ex(handle(), HandleOf(packet), bytes, size, &needed, save_context);
}

std::int32_t ChannelObject::OnRestorePacket(std::span<const std::byte> library,
                                            std::span<const std::byte> driver) {
  const auto bytes_of = [](std::span<const std::byte> bytes) {
    return bytes.empty() ? nullptr : const_cast<std::byte*>(bytes.data());
  };
  const auto library_bytes = static_cast<UINT32>(library.size());
  if (restore_packet != nullptr) {
    return restore_packet(handle(), bytes_of(library), library_bytes, bytes_of(driver),
                          static_cast<UINT32>(driver.size()));
  }
  if (restore_packet_ex != nullptr) {
    return restore_packet_ex(handle(), bytes_of(library), library_bytes, bytes_of(driver),
                             static_cast<UINT32>(driver.size()), save_context);
  }
  VMBPACKET packet = VmbPacketAllocate(handle());
  if (packet == nullptr) return STATUS_INSUFFICIENT_RESOURCES;
  const NTSTATUS status = VmbPacketRestore(packet, bytes_of(library), library_bytes);
  if (!NT_SUCCESS(status)) VmbPacketFree(packet);
  return status;
}

void ChannelObject::OnExternalDone(channel::Packet& packet, channel::Outcome outcome) {
  client_->transfers().End(packet, outcome);
}

void ChannelObject::OnLateCompletion(wire::TransactionId id) {
  if (client_ != nullptr) client_->transfers().OnLateCompletion(id);
}

void ChannelObject::OnDetached() {
  if (client_ != nullptr) client_->transfers().OnDetached();
}

void ChannelObject::OnPacketDone(channel::Packet& packet, channel::Outcome outcome,
                                 std::span<std::byte> reply) {
  CallRoutine(packet, StatusOf(outcome), reply);
}

// ---- Handles and conversions.

HANDLE AddPartitionHandle(std::shared_ptr<endpoint::Partition> partition) {
  PartitionHandles& handles = Handles();
  MutexLock lock(handles.mutex);
  // Like Windows', multiples of 4; a number is not used again.
  const auto handle = reinterpret_cast<HANDLE>(handles.last += 4);
  handles.entries[handle] = std::move(partition);
  return handle;
}

std::shared_ptr<endpoint::Partition> FindPartition(HANDLE handle) {
  PartitionHandles& handles = Handles();
  MutexLock lock(handles.mutex);
  const auto found = handles.entries.find(handle);
  return found == handles.entries.end() ? nullptr : found->second;
}

std::shared_ptr<endpoint::Partition> SetPartitionHandle(
    HANDLE handle, std::shared_ptr<endpoint::Partition> partition) {
  PartitionHandles& handles = Handles();
  MutexLock lock(handles.mutex);
  handles.last = std::max(handles.last, reinterpret_cast<std::uintptr_t>(handle));
  if (partition != nullptr) {
    auto& entry = handles.entries[handle];
    entry.swap(partition);
    return partition;
  }
  const auto found = handles.entries.find(handle);
  if (found == handles.entries.end()) return nullptr;
  partition = std::move(found->second);
  handles.entries.erase(found);
  return partition;
}

bool RemovePartitionHandle(HANDLE handle, const endpoint::Partition* partition) {
  std::shared_ptr<endpoint::Partition> last;  // let go of outside the lock
  PartitionHandles& handles = Handles();
  MutexLock lock(handles.mutex);
  const auto found = handles.entries.find(handle);
  if (found == handles.entries.end() || found->second.get() != partition) return false;
  last = std::move(found->second);
  handles.entries.erase(found);
  return true;
}

bool RemovePartitionHandle(HANDLE handle) {
  std::shared_ptr<endpoint::Partition> last;  // let go of outside the lock
  PartitionHandles& handles = Handles();
  MutexLock lock(handles.mutex);
  const auto found = handles.entries.find(handle);
  if (found == handles.entries.end()) return false;
  last = std::move(found->second);
  handles.entries.erase(found);
  return true;
}

bool IsForbiddenInCallback(const char* what) {
  if (!channel::InCallback()) return false;
  Log(LogLevel::kError, "%s was called from a callback, which it would wait for", what);
#ifndef NDEBUG
  std::abort();
#endif
  return true;
}

bool MayChangeState(VMBCHANNEL channel, const char* function, const void* caller) {
  if (KMCL_VERIFIER_ON && !verifier::MayChangeState(channel, function, caller)) return false;
  return !IsForbiddenInCallback(function);
}

wire::Guid FromC(const GUID& guid) { return std::bit_cast<wire::Guid>(guid); }

GUID ToC(const wire::Guid& guid) { return std::bit_cast<GUID>(guid); }

}  // namespace kmcl::api
