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

  const NTSTATUS steps[] = {
      VmbServerChannelInitSetVmbusHandle(raw, partition),
      VmbServerChannelInitSetTargetInterfaceId(raw, settings.interface_type,
                                               settings.interface_instance),
      VmbChannelInitSetFriendlyName(raw, &name),
      VmbChannelInitSetMaximumPacketSize(raw, settings.maximum_packet_bytes),
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

KMCL_CHANNEL_COUNTERS QueryCounters(VMBCHANNEL channel) {
  KMCL_CHANNEL_COUNTERS counters{};
  counters.Size = sizeof(counters);
  if (!NT_SUCCESS(KmclChannelQueryCounters(channel, &counters))) {
    return {};
  }
  return counters;
}

}  // namespace kmcl::devices
