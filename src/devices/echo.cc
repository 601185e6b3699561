#include "devices/echo.h"

#include <cstring>
#include <utility>

namespace kmcl::devices {

namespace {

// In front of the saved channel.
struct SavedEcho {
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
  std::uint64_t open = 0;
};

}  // namespace

std::expected<std::unique_ptr<EchoDevice>, NTSTATUS> EchoDevice::Offer(PDEVICE_OBJECT device_object,
                                                                       HANDLE partition,
                                                                       Monitor monitor) {
  auto device = Make(device_object, partition, monitor);
  if (!device) {
    return device;
  }
  const NTSTATUS status = OfferServerChannel((*device)->channel_.get());
  if (!NT_SUCCESS(status)) {
    return std::unexpected(status);
  }
  return device;
}

std::expected<std::vector<std::byte>, NTSTATUS> EchoDevice::Save() {
  family_->Stop();
  const auto channel = SaveServerChannel(channel_.get());
  if (!channel) {
    return std::unexpected(channel.error());
  }
  const SavedEcho own{counter_.packets(), counter_.bytes(), open_ ? 1U : 0U};
  const auto head = std::as_bytes(std::span(&own, 1));
  std::vector<std::byte> saved(head.begin(), head.end());
  saved.insert(saved.end(), channel->begin(), channel->end());
  return saved;
}

void EchoDevice::Resume() {
  family_->Resume();
  VmbChannelStart(channel_.get());
}

std::expected<std::unique_ptr<EchoDevice>, NTSTATUS> EchoDevice::Restore(
    PDEVICE_OBJECT device_object, HANDLE partition, std::span<const std::byte> saved) {
  SavedEcho own;
  if (saved.size() < sizeof(own)) {
    return std::unexpected(STATUS_DATA_ERROR);
  }
  std::memcpy(&own, saved.data(), sizeof(own));
  auto device = Make(device_object, partition, Monitor::kNo);
  if (!device) {
    return device;
  }
  (*device)->counter_ = EchoCounter(own.packets, own.bytes);
  (*device)->goes_on_ = own.open != 0;
  const NTSTATUS status =
      RestoreServerChannel((*device)->channel_.get(), saved.subspan(sizeof(own)));
  if (!NT_SUCCESS(status)) {
    return std::unexpected(status);
  }
  return device;
}

std::expected<std::unique_ptr<EchoDevice>, NTSTATUS> EchoDevice::Make(PDEVICE_OBJECT device_object,
                                                                      HANDLE partition,
                                                                      Monitor monitor) {
  std::unique_ptr<EchoDevice> device(new EchoDevice);
  ServerChannelSettings settings;
  settings.interface_type = kEchoInterface;
  settings.interface_instance = kEchoInstance;
  settings.friendly_name = u"Echo";
  settings.maximum_packet_bytes = kEchoMaximumPacketBytes;
  settings.monitored = monitor == Monitor::kYes;
  settings.process_packet = OnPacket;
  settings.opened = OnOpened;
  settings.closed = OnClosed;
  auto channel = MakeServerChannel(device_object, partition, settings, device.get());
  if (!channel) {
    return std::unexpected(channel.error());
  }
  device->channel_ = std::move(*channel);
  device->family_ =
      EchoFamily::Make(device_object, partition, device->channel_.get(), settings.monitored);
  if (!device->family_) {
    return std::unexpected(STATUS_INSUFFICIENT_RESOURCES);
  }
  return device;
}

KMCL_CHANNEL_COUNTERS EchoDevice::Revoke() {
  if (family_) {
    family_->Stop();
  }
  if (!channel_) {
    return {};
  }
  VmbChannelDisable(channel_.get());
  return QueryCounters(channel_.get());
}

NTSTATUS EchoDevice::OnOpened(VMBCHANNEL channel) {
  auto* self = static_cast<EchoDevice*>(VmbChannelGetPointer(channel));
  self->open_ = true;
  if (!std::exchange(self->goes_on_, false)) {
    self->counter_ = {};
  }
  return STATUS_SUCCESS;
}

VOID EchoDevice::OnClosed(VMBCHANNEL channel) {
  auto* self = static_cast<EchoDevice*>(VmbChannelGetPointer(channel));
  self->open_ = false;
  self->family_->Withdraw();
}

VOID EchoDevice::OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                          UINT32 buffer_bytes, UINT32 /*flags*/) {
  auto* self = static_cast<EchoDevice*>(VmbChannelGetPointer(channel));
  const auto* bytes = static_cast<const std::byte*>(buffer);
  if (const auto wanted = WantedSubchannels(bytes, buffer_bytes)) {
    self->family_->Request(packet, *wanted);
  } else {
    self->counter_.Answer(packet, bytes, buffer_bytes);
  }
}

}  // namespace kmcl::devices
