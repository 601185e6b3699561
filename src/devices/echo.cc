#include "devices/echo.h"

#include <cstring>

namespace kmcl::devices {

std::expected<std::unique_ptr<EchoDevice>, NTSTATUS> EchoDevice::Offer(PDEVICE_OBJECT device_object,
                                                                       HANDLE partition) {
  std::unique_ptr<EchoDevice> device(new EchoDevice);
  ServerChannelSettings settings;
  settings.interface_type = kEchoInterface;
  settings.interface_instance = kEchoInstance;
  settings.friendly_name = u"Echo";
  settings.maximum_packet_bytes = kEchoMaximumPacketBytes;
  settings.process_packet = OnPacket;
  settings.opened = OnOpened;
  auto channel = MakeServerChannel(device_object, partition, settings, device.get());
  if (!channel) {
    return std::unexpected(channel.error());
  }
  device->channel_ = std::move(*channel);
  if (const NTSTATUS status = OfferServerChannel(device->channel_.get()); !NT_SUCCESS(status)) {
    return std::unexpected(status);
  }
  return device;
}

KMCL_CHANNEL_COUNTERS EchoDevice::Revoke() {
  VmbChannelDisable(channel_.get());
  return QueryCounters(channel_.get());
}

NTSTATUS EchoDevice::OnOpened(VMBCHANNEL channel) {
  auto* self = static_cast<EchoDevice*>(VmbChannelGetPointer(channel));
  self->packets_ = 0;
  self->bytes_ = 0;
  return STATUS_SUCCESS;
}

VOID EchoDevice::OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                          UINT32 buffer_bytes, UINT32 /*flags*/) {
  static_cast<EchoDevice*>(VmbChannelGetPointer(channel))
      ->Answer(packet, static_cast<const std::byte*>(buffer), buffer_bytes);
}

// The completion is built whether or not one was asked: KMCL drops it when not.
void EchoDevice::Answer(VMBPACKETCOMPLETION packet, const std::byte* bytes, UINT32 byte_count) {
  EchoHeader header;
  if (byte_count >= sizeof(header)) {
    std::memcpy(&header, bytes, sizeof(header));
  }
  const bool fits = byte_count >= sizeof(header) && header.bytes <= byte_count - sizeof(header);

  if (fits && header.kind == static_cast<std::uint32_t>(EchoKind::kData)) {
    ++packets_;
    bytes_ += sizeof(header) + header.bytes;
    VmbChannelPacketComplete(packet, const_cast<std::byte*>(bytes),
                             static_cast<UINT32>(sizeof(header)) + header.bytes);
    return;
  }
  if (fits && header.kind == static_cast<std::uint32_t>(EchoKind::kCount)) {
    EchoCounts counts;
    counts.header = {header.kind, sizeof(counts) - sizeof(header)};
    counts.packets = packets_;
    counts.bytes = bytes_;
    VmbChannelPacketComplete(packet, &counts, sizeof(counts));
    return;
  }
  EchoHeader refusal{static_cast<std::uint32_t>(EchoKind::kRefused), 0};
  VmbChannelPacketComplete(packet, &refusal, sizeof(refusal));
}

}  // namespace kmcl::devices
