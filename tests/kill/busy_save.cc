// How a busy channel goes over to another process.
#include <cstring>

#include "busy_channel.h"

namespace kmcl::kill {

NTSTATUS BusyChannel::Save(std::vector<std::byte>& state) {
  VmbChannelPause(handle_);
  NTSTATUS status = VmbChannelSaveBegin(handle_);
  if (status != STATUS_SUCCESS) return status;
  // All slots first, so that the successor does not use a number again. One may be about to send
  // yet; then that packet is not part of the save.
  for (const Slot& slot : slots_) {
    const std::uint64_t number = slot.number;
    const auto* const bytes = reinterpret_cast<const std::byte*>(&number);
    state.insert(state.end(), bytes, bytes + sizeof number);
  }
  ULONG required = 0;
  do {
    const std::size_t begin = state.size();
    // Small at first: a save comes in parts.
    const ULONG room = required > 4096 ? required : 4096;
    state.resize(begin + room);
    ULONG filled = 0;
    status = VmbChannelSaveContinue(handle_, state.data() + begin, room, &filled, &required);
    state.resize(begin + filled);
  } while (status == STATUS_BUFFER_OVERFLOW || status == STATUS_BUFFER_TOO_SMALL);
  VmbChannelSaveEnd(handle_);
  return status;
}

NTSTATUS BusyChannel::Restore(std::span<std::byte> state) {
  for (Slot& slot : slots_) {
    std::uint64_t number = 0;
    if (state.size() < sizeof number) return STATUS_DATA_ERROR;
    std::memcpy(&number, state.data(), sizeof number);
    slot.number = number;
    state = state.subspan(sizeof number);
  }
  return VmbChannelRestoreFromBuffer(handle_, state.data(), static_cast<ULONG>(state.size()));
}

NTSTATUS BusyChannel::SavePacket(VMBCHANNEL, VMBPACKET packet, PVOID buffer, UINT32 bytes,
                                 PUINT32 needed) {
  const Slot& slot = *static_cast<Slot*>(VmbPacketGetPointer(packet));
  const std::uint64_t number = slot.number;
  if (bytes < sizeof number) {
    *needed = sizeof number;
    return STATUS_BUFFER_TOO_SMALL;
  }
  std::memcpy(buffer, &number, sizeof number);
  return STATUS_SUCCESS;
}

NTSTATUS BusyChannel::RestorePacket(VMBCHANNEL handle, PVOID library, UINT32 library_bytes,
                                    PVOID kept, UINT32 kept_bytes) {
  BusyChannel& channel = Of(handle);
  std::uint64_t number = 0;
  if (kept_bytes != sizeof number) return STATUS_DATA_ERROR;
  std::memcpy(&number, kept, sizeof number);
  const std::uint64_t index = number >> kSlotShift;
  if (index >= channel.slots_.size()) return STATUS_DATA_ERROR;
  Slot& slot = channel.slots_[index];
  if (slot.in_flight.exchange(true)) {
    channel.Fault("a packet is restored twice");
    return STATUS_DATA_ERROR;
  }
  // What is answered is what was sent.
  slot.number = number;
  Account& account = slot.wants_completion ? channel.transactions_ : channel.plain_;
  ++account.accepted;
  ++account.restored;
  return VmbPacketRestore(slot.packet, library, library_bytes);
}

}  // namespace kmcl::kill
