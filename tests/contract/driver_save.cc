// The driver's verbs and callbacks for save and restore.
#include <algorithm>
#include <cstring>

#include "driver.h"

namespace kmcl::contract {

namespace {

std::string Text(NTSTATUS status) { return std::to_string(status); }

}  // namespace

NTSTATUS DriverChannel::SavePacket(VMBCHANNEL handle, VMBPACKET packet, PVOID buffer, UINT32 bytes,
                                   PUINT32 needed) {
  DriverChannel& channel = Of(handle);
  const std::uint32_t number =
      static_cast<DriverPacket*>(VmbPacketGetPointer(packet))->number.load();
  channel.recorder_.Record((bytes == 0 ? "ask " : "keep ") + std::to_string(number));
  if (!NT_SUCCESS(channel.save_status_)) {
    return channel.save_status_;
  }
  if (bytes < sizeof(number)) {
    *needed = sizeof(number);
    return STATUS_BUFFER_TOO_SMALL;
  }
  std::memcpy(buffer, &number, sizeof(number));
  return STATUS_SUCCESS;
}

NTSTATUS DriverChannel::RestorePacket(VMBCHANNEL handle, PVOID library, UINT32 library_bytes,
                                      PVOID kept, UINT32 kept_bytes) {
  DriverChannel& channel = Of(handle);
  std::uint32_t number = 0;
  if (kept_bytes == sizeof(number)) {
    std::memcpy(&number, kept, sizeof(number));
  }
  channel.recorder_.Record("restore " + std::to_string(number));
  if (!NT_SUCCESS(channel.restore_status_)) {
    return channel.restore_status_;
  }
  auto packet = std::make_unique<DriverPacket>();
  packet->channel = &channel;
  packet->number = number;
  packet->frees_itself = true;
  packet->handle = VmbPacketAllocate(handle);
  VmbPacketSetPointer(packet->handle, packet.get());
  VmbPacketSetCompletionRoutine(packet->handle, PacketDone);
  const NTSTATUS status = VmbPacketRestore(packet->handle, library, library_bytes);
  if (!NT_SUCCESS(status)) {
    VmbPacketFree(packet->handle);
    return status;
  }
  (void)packet.release();  // its completion routine deletes it
  return STATUS_SUCCESS;
}

std::string Driver::Save(const Words& words) {
  VMBCHANNEL const channel = Find(words.at(1))->handle();
  const std::size_t wanted = std::stoul(words.at(2));
  NTSTATUS status = VmbChannelSaveBegin(channel);
  std::vector<std::byte> all;
  if (NT_SUCCESS(status)) {
    std::vector<std::byte> buffer(wanted);
    do {
      ULONG filled = 0;
      ULONG required = 0;
      status = VmbChannelSaveContinue(channel, buffer.data(), static_cast<ULONG>(buffer.size()),
                                      &filled, &required);
      all.insert(all.end(), buffer.begin(), buffer.begin() + filled);
      buffer.resize(std::max<std::size_t>(wanted, required));
    } while (status == STATUS_BUFFER_OVERFLOW || status == STATUS_BUFFER_TOO_SMALL);
    VmbChannelSaveEnd(channel);
  }
  const std::lock_guard lock(mutex_);
  saves_.push_back(std::move(all));
  return Text(status) + " " + std::to_string(saves_.size() - 1) + " " +
         std::to_string(saves_.back().size());
}

std::string Driver::SaveBegin(const Words& words) {
  return Text(VmbChannelSaveBegin(Find(words.at(1))->handle()));
}

std::string Driver::SaveContinue(const Words& words) {
  std::vector<std::byte> buffer(std::stoul(words.at(2)));
  ULONG filled = 1;
  ULONG required = 1;
  const NTSTATUS status =
      VmbChannelSaveContinue(Find(words.at(1))->handle(), buffer.empty() ? nullptr : buffer.data(),
                             static_cast<ULONG>(buffer.size()), &filled, &required);
  return Text(status) + " " + std::to_string(filled) + " " + std::to_string(required);
}

std::string Driver::SaveEnd(const Words& words) {
  VmbChannelSaveEnd(Find(words.at(1))->handle());
  return "ok";
}

std::string Driver::Restore(const Words& words) {
  const std::vector<std::byte>& save = saves_.at(std::stoul(words.at(2)));
  std::vector<std::byte> copy = save;
  std::size_t from = 0;
  std::size_t bytes = copy.size();
  if (words.size() > 3) {
    bytes = std::stoul(words[3]);
  }
  if (words.size() > 4) {
    from = std::stoul(words[4]);
  }
  return Text(VmbChannelRestoreFromBuffer(Find(words.at(1))->handle(), copy.data() + from,
                                          static_cast<ULONG>(std::min(bytes, copy.size() - from))));
}

std::string Driver::Damage(const Words& words) {
  const std::lock_guard lock(mutex_);
  std::vector<std::byte>& save = saves_.at(std::stoul(words.at(1)));
  save.at(std::stoul(words.at(2))) ^= std::byte{0xFF};
  return "ok";
}

}  // namespace kmcl::contract
