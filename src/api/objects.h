// What the handles of the C edge point to.
//
// VMBCHANNEL is a ChannelObject; VMBPACKET and VMBPACKETCOMPLETION are the channel room's packets. A
// device object's binding says which endpoint stands behind it. Partition handles are entries of a table:
// they come from the caller, may be stale, and are looked up, never followed.
#pragma once

#include <kmcl/endpoint.h>
#include <kmcl/kmcl.h>

#include <atomic>
#include <memory>
#include <string>

#include "api/bounce_buffers.h"
#include "channel/handler.h"
#include "endpoint/client.h"
#include "endpoint/partition.h"
#include "endpoint/server.h"
#include "wire/guid.h"

namespace kmcl::api {

// Behind PDEVICE_OBJECT: exactly one of the two.
struct DeviceBinding {
  endpoint::Server* server = nullptr;
  endpoint::Client* client = nullptr;
  std::atomic<long> interface_references{0};  // that drivers hold to its tables
};
inline DeviceBinding* BindingOf(PDEVICE_OBJECT device) {
  return device == nullptr ? nullptr : static_cast<DeviceBinding*>(device->KmclBinding);
}
// Before the endpoint goes: logs references that were not given back.
void CheckInterfaceReferences(const DeviceBinding& binding);

inline channel::Packet& PacketFrom(VMBPACKET handle) {
  return *reinterpret_cast<channel::Packet*>(handle);
}
inline VMBPACKET HandleOf(channel::Packet& packet) { return reinterpret_cast<VMBPACKET>(&packet); }

// Behind VMBCHANNEL: the driver's callbacks, and the channel they belong to.
class ChannelObject : public channel::Handler {
 public:
  // An end of the endpoint behind `parent`, whose binding says which kind it is.
  ChannelObject(PDEVICE_OBJECT parent, bool in_caller_memory);
  ~ChannelObject() override { end().Retire(); }

  static ChannelObject& From(VMBCHANNEL handle) { return *reinterpret_cast<ChannelObject*>(handle); }
  static ChannelObject& From(channel::Channel& channel) {
    return static_cast<ChannelObject&>(channel.handler());
  }
  VMBCHANNEL handle() { return reinterpret_cast<VMBCHANNEL>(this); }

  PDEVICE_OBJECT parent() const { return parent_; }
  bool in_caller_memory() const { return in_caller_memory_; }
  bool is_server() const { return server_ != nullptr; }
  endpoint::ChannelEnd& end() {
    return is_server() ? static_cast<endpoint::ChannelEnd&>(*server_) : *client_;
  }
  channel::Channel& engine() { return end().engine(); }
  endpoint::ServerChannel* server() { return server_.get(); }
  endpoint::ClientChannel* client() { return client_.get(); }

  // Set in the Init window.
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS state_callbacks{};
  PFN_VMB_CHANNEL_PROCESS_PACKET process_packet = nullptr;
  PFN_VMB_CHANNEL_PROCESSING_COMPLETE processing_complete = nullptr;
  // Looked at only when their counterparts without a context are null.
  PFN_VMB_CHANNEL_PROCESS_PACKET_EX process_packet_ex = nullptr;
  PFN_VMB_CHANNEL_PROCESSING_COMPLETE_EX processing_complete_ex = nullptr;
  PVOID packet_callbacks_context = nullptr;
  PFN_VMB_CHANNEL_PNP_FAILURE pnp_failure = nullptr;
  PFN_VMB_CHANNEL_SAVE_PACKET save_packet = nullptr;
  PFN_VMB_CHANNEL_RESTORE_PACKET restore_packet = nullptr;
  PFN_VMB_CHANNEL_SAVE_PACKET_EX save_packet_ex = nullptr;
  PFN_VMB_CHANNEL_RESTORE_PACKET_EX restore_packet_ex = nullptr;
  PVOID save_context = nullptr;
  std::unique_ptr<BounceBuffers> bounce_buffers;
  std::u16string friendly_name;

  std::atomic<PVOID> pointer{nullptr};
  std::atomic<ULONG> pending_forced{0};  // external data that is not there yet, so many times

  // Handler.
  bool OnOpened() override;
  void OnClosed() override;
  void OnSuspend() override;
  void OnStarted() override;
  void OnPostStarted() override;
  void OnConnectFailed(Error error) override;
  void OnPacket(channel::IncomingPacket& packet) override;
  void OnBatchEnd(std::uint32_t packets) override;
  std::int32_t OnSavePacket(channel::Packet& packet, std::span<std::byte> buffer,
                            std::uint32_t& needed) override;
  std::int32_t OnRestorePacket(std::span<const std::byte> library,
                               std::span<const std::byte> driver) override;
  void OnExternalDone(channel::Packet& packet, channel::Outcome outcome) override;
  void OnLateCompletion(wire::TransactionId id) override;
  void OnDetached() override;
  void OnPacketDone(channel::Packet& packet, channel::Outcome outcome,
                    std::span<std::byte> reply) override;
  static void CallRoutine(channel::Packet& packet, NTSTATUS status, std::span<std::byte> reply) {
    reinterpret_cast<PFN_VMB_PACKET_COMPLETION_ROUTINE>(packet.routine)(
        HandleOf(packet), status, reply.empty() ? nullptr : reply.data(),
        static_cast<UINT32>(reply.size()));
  }

 private:
  PDEVICE_OBJECT const parent_;
  const bool in_caller_memory_;
  // Exactly one of the two.
  std::shared_ptr<endpoint::ServerChannel> server_;
  std::shared_ptr<endpoint::ClientChannel> client_;
};

inline channel::IncomingPacket& IncomingFrom(VMBPACKETCOMPLETION handle) {
  return *reinterpret_cast<channel::IncomingPacket*>(handle);
}

// The table of partition handles. Null for a handle that is not, or no longer, in it.
HANDLE AddPartitionHandle(std::shared_ptr<endpoint::Partition> partition);
std::shared_ptr<endpoint::Partition> FindPartition(HANDLE handle);
bool RemovePartitionHandle(HANDLE handle);
// As above, if it is that partition's.
bool RemovePartitionHandle(HANDLE handle, const endpoint::Partition* partition);
// Makes `handle` mean `partition` (null: nothing), and says what it meant. For handles that come from
// another process; no later one is the same.
std::shared_ptr<endpoint::Partition> SetPartitionHandle(
    HANDLE handle, std::shared_ptr<endpoint::Partition> partition);

// A call that would wait for the callback it is made from. Logged; a debug build stops here. `what`
// names the function.
bool IsForbiddenInCallback(const char* what);
// The same, and what the verifier knows: false for a call that must not be made here.
bool MayChangeState(VMBCHANNEL channel, const char* function, const void* caller);

// VmbPacketSend, its checks included.
NTSTATUS SendPacket(channel::Packet& packet, PVOID buffer, UINT32 length, PMDL mdl, UINT32 flags);
// VmbPacketSend, without its short way. `caller` is what the verifier names.
NTSTATUS SendAnyPacket(VMBPACKET packet, PVOID buffer, UINT32 length, PMDL mdl, UINT32 flags,
                       const void* caller);

wire::Guid FromC(const GUID& guid);
GUID ToC(const wire::Guid& guid);

}  // namespace kmcl::api
