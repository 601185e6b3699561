#include "devices/server_channel.h"

namespace kmcl::devices {

void CleanUpChannel::operator()(VMBCHANNEL channel) const {
  VmbChannelDisable(channel);
  VmbChannelCleanup(channel);
}

std::expected<ChannelHandle, NTSTATUS> MakeServerChannel(PDEVICE_OBJECT device_object,
                                                         HANDLE partition,
                                                         const ServerChannelSettings& settings,
                                                         PVOID context) {
  VMBCHANNEL raw = nullptr;
  if (const NTSTATUS status = VmbChannelAllocate(device_object, TRUE, &raw); !NT_SUCCESS(status)) {
    return std::unexpected(status);
  }
  ChannelHandle channel(raw);
  VmbChannelSetPointer(raw, context);

  UNICODE_STRING name{};
  RtlInitUnicodeString(&name, reinterpret_cast<PCWSTR>(settings.friendly_name));
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks{};
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelOpened = settings.opened;
  callbacks.EvtChannelClosed = settings.closed;
  callbacks.EvtChannelStarted = settings.started;
  callbacks.EvtChannelSuspend = settings.suspend;
  const UINT32 flags = settings.message_pipe ? VMBUS_CHANNEL_INIT_FLAG_IS_PIPE : 0;
  const UINT32 server_flags = settings.message_pipe
                                  ? VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE |
                                        VMBUS_SERVER_CHANNEL_INIT_FLAG_ENUMERATE_DEVICE_INTERFACE
                                  : 0;

  const NTSTATUS target = settings.primary != nullptr
                              ? VmbChannelInitSetPrimaryChannel(raw, settings.primary)
                              : VmbServerChannelInitSetTargetInterfaceId(
                                    raw, settings.interface_type, settings.interface_instance);
  const NTSTATUS steps[] = {
      VmbServerChannelInitSetVmbusHandle(raw, partition),
      KmclServerChannelInitSetMonitored(raw, settings.monitored ? TRUE : FALSE),
      target,
      VmbChannelInitSetFriendlyName(raw, &name),
      VmbChannelInitSetMaximumPacketSize(raw, settings.maximum_packet_bytes),
      VmbChannelInitSetFlags(raw, flags),
      VmbServerChannelInitSetFlags(raw, server_flags),
      VmbChannelInitSetStateChangeCallbacks(raw, &callbacks),
      VmbChannelInitSetProcessPacketCallbacks(raw, settings.process_packet,
                                              settings.processing_complete),
  };
  for (const NTSTATUS status : steps) {
    if (!NT_SUCCESS(status)) {
      return std::unexpected(status);
    }
  }
  return channel;
}

NTSTATUS OfferServerChannel(VMBCHANNEL channel) {
  const NTSTATUS status = VmbChannelEnable(channel);
  if (NT_SUCCESS(status)) {
    VmbChannelStart(channel);
  }
  return status;
}

std::expected<std::vector<std::byte>, NTSTATUS> SaveServerChannel(VMBCHANNEL channel) {
  VmbChannelPause(channel);
  NTSTATUS status = VmbChannelSaveBegin(channel);
  if (!NT_SUCCESS(status)) {
    return std::unexpected(status);
  }
  std::vector<std::byte> saved;
  std::vector<std::byte> buffer(std::size_t{64} * 1024);
  do {
    ULONG filled = 0;
    ULONG required = 0;
    status = VmbChannelSaveContinue(channel, buffer.data(), static_cast<ULONG>(buffer.size()),
                                    &filled, &required);
    saved.insert(saved.end(), buffer.begin(), buffer.begin() + filled);
    if (required > buffer.size()) {
      buffer.resize(required);
    }
  } while (status == STATUS_BUFFER_OVERFLOW || status == STATUS_BUFFER_TOO_SMALL);
  VmbChannelSaveEnd(channel);
  if (!NT_SUCCESS(status)) {
    return std::unexpected(status);
  }
  return saved;
}

NTSTATUS RestoreServerChannel(VMBCHANNEL channel, std::span<const std::byte> saved) {
  std::vector<std::byte> copy(saved.begin(), saved.end());
  const NTSTATUS status =
      VmbChannelRestoreFromBuffer(channel, copy.data(), static_cast<ULONG>(copy.size()));
  return NT_SUCCESS(status) ? OfferServerChannel(channel) : status;
}

KMCL_CHANNEL_COUNTERS QueryCounters(VMBCHANNEL channel) {
  KMCL_CHANNEL_COUNTERS counters{};
  counters.Size = sizeof(counters);
  if (!NT_SUCCESS(KmclChannelQueryCounters(channel, &counters))) {
    return {};
  }
  return counters;
}

}  // namespace kmcl::devices
