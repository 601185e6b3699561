// A server's channel is saved, ends, and comes back as another one (KMCL reference 9). To the model
// it is the same end: its packets go on where they stood, and the client notices nothing.
#include <cstring>
#include <utility>

#include "end.h"

namespace kmcl::sim {
namespace {

// Tries of what the system may refuse.
constexpr int kMostTries = 30;
constexpr std::int64_t kPatienceNs = 60'000'000'000;

}  // namespace

void End::Save(bool succeeded) {
  if (!enabled_) return;
  taken_whole = true;
  if (!WaitUntil([this] { return users == 1 && pump_depth_ == 0; }, NowNs() + kPatienceNs,
                 "the others that use a channel")) {
    Wrong("others use a channel for ever");
  }
  Pause();
  const bool spoilt = spoilt_;
  auto save = WriteSave(succeeded);
  succeeded = succeeded && !save.empty();
  if (succeeded) {
    Disable();
    std::uint32_t left = 0;
    for (const Slot& slot : slots_) {
      if (slot.is_saved) Wrong("a saved packet does not end with its channel");
      if (slot.in_flight) ++left;
    }
    // Others may be on their way to their end: those of a channel that was restored in vain.
    if (left != saved_) Wrong("a packet was not saved, and does not end with its channel");
    Discard();
    NTSTATUS status = Allocate(device_, partition_);
    for (int tries = 0;
         status == STATUS_INSUFFICIENT_RESOURCES && model_.plan.refusals && tries < kMostTries;
         ++tries) {
      status = Allocate(device_, partition_);
    }
    if (status != STATUS_SUCCESS) Wrong(std::string("no successor: ") + KmclStatusName(status));
    for (int tries = 0; !Restore(save); ++tries) {
      if (!model_.plan.refusals || tries == kMostTries) Wrong("a save is not restored");
    }
    spoilt_ = spoilt;  // which is saved, too, unless the client has closed it meanwhile
    status = Enable();
    for (int tries = 0;
         status == STATUS_INSUFFICIENT_RESOURCES && model_.plan.refusals && tries < kMostTries;
         ++tries) {
      status = Enable();
    }
    unused_ = status == STATUS_NO_SUCH_DEVICE;  // the client has gone
    if (status != STATUS_SUCCESS && !unused_) {
      Wrong(std::string("a successor is not enabled: ") + KmclStatusName(status));
    }
  }
  taken_whole = false;
  Changed();
  if (!unused_) Start();
}

std::vector<std::vector<std::byte>> End::SaveForHandover() {
  do {
    taken_whole = true;
    if (!WaitUntil([this] { return users == 0 && pump_depth_ == 0; }, NowNs() + kPatienceNs,
                   "the others that use a channel")) {
      Wrong("others use a channel for ever");
    }
  } while (!taken_whole);
  if (!enabled_) return {};
  Pause();
  return WriteSave(true);
}

void End::ForgetSave() {
  for (Slot& slot : slots_) slot.is_saved = false;
  taken_whole = false;
  Changed();
}

void End::ResumeAfterHandover() {
  ForgetSave();
  if (enabled_) Start();
}

bool End::RestoreForHandover(std::vector<std::vector<std::byte>>& save) {
  if (!Restore(save)) return false;
  if (Enable() != STATUS_SUCCESS) return false;
  Start();
  return true;
}

// Its primary may have been disabled meanwhile, or its partition has gone.
bool End::MayBeDisabled() const { return is_subchannel() || gone; }

std::vector<std::vector<std::byte>> End::WriteSave(bool succeeded) {
  static constexpr ULONG kSizes[] = {0, 48, 200, 65536};
  std::vector<std::vector<std::byte>> save;
  saved_ = 0;
  {
    const InLibrary library("VmbChannelSaveBegin", number);
    const NTSTATUS begun = VmbChannelSaveBegin(handle_);
    if (begun == STATUS_INSUFFICIENT_RESOURCES && model_.plan.refusals) return save;
    if (begun == STATUS_INVALID_DEVICE_STATE && MayBeDisabled()) return save;
    if (begun != STATUS_SUCCESS) Wrong(std::string("no save begins: ") + KmclStatusName(begun));
  }
  ULONG wanted = kSizes[Choices().Between(0, 3)];
  for (;;) {
    std::vector<std::byte> part(wanted);
    ULONG filled = 0, required = 0;
    NTSTATUS status = STATUS_SUCCESS;
    {
      const InLibrary library("VmbChannelSaveContinue", number);
      status = VmbChannelSaveContinue(handle_, part.data(), wanted, &filled, &required);
    }
    part.resize(filled);
    if (filled != 0) save.push_back(std::move(part));
    if (status == STATUS_SUCCESS) break;
    if ((status == STATUS_INSUFFICIENT_RESOURCES && model_.plan.refusals) ||
        (status == STATUS_INVALID_DEVICE_STATE && MayBeDisabled())) {
      save.clear();
      succeeded = false;
      break;
    }
    if (status != STATUS_BUFFER_OVERFLOW && status != STATUS_BUFFER_TOO_SMALL) {
      Wrong(std::string("a save ends with ") + KmclStatusName(status));
    }
    wanted = required + (Choices().OneIn(2) ? 0 : kSizes[Choices().Between(0, 3)]);
  }
  // Those that are sent, and want no completion, may be on the way to their routines.
  WaitUntil([&] { return !open_ || save.empty() || in_flight_ <= saved_; }, NowNs() + 1'000'000'000,
            "routines of what was sent before the save");
  if (open_ && !save.empty() && saved_ != in_flight_) {
    Wrong("of " + std::to_string(in_flight_) + " packets " + std::to_string(saved_) + " are saved");
  }
  Note("end %llu is saved with %llu packets", number, saved_);
  if (!succeeded) {
    for (Slot& slot : slots_) slot.is_saved = false;
  }
  const InLibrary library("VmbChannelSaveEnd", number);
  VmbChannelSaveEnd(handle_);
  return save;
}

bool End::Restore(std::vector<std::vector<std::byte>>& save) {
  std::uint32_t expected = 0;
  for (Slot& slot : slots_) {
    if (!slot.in_flight) continue;
    ++expected;
    // Of a try that failed.
    const InLibrary library;
    if (slot.packet != nullptr) VmbPacketFree(std::exchange(slot.packet, nullptr));
  }
  saved_ = 0;
  for (std::vector<std::byte>& part : save) {
    const bool is_last = &part == &save.back();
    NTSTATUS status = STATUS_SUCCESS;
    {
      const InLibrary library("VmbChannelRestoreFromBuffer", number);
      status = VmbChannelRestoreFromBuffer(handle_, part.data(), static_cast<ULONG>(part.size()));
    }
    if (status == STATUS_INSUFFICIENT_RESOURCES) return false;
    if (status != (is_last ? STATUS_SUCCESS : STATUS_MORE_PROCESSING_REQUIRED)) {
      Wrong(std::string("a save is restored with ") + KmclStatusName(status));
    }
  }
  if (saved_ != expected) {
    Wrong("of " + std::to_string(expected) + " packets " + std::to_string(saved_) +
          " are restored");
  }
  ++model_.successions;
  model_.restored += saved_;
  for (Slot& slot : slots_) slot.is_saved = false;
  Note("end %llu is restored with %llu packets", number, saved_);
  return true;
}

NTSTATUS End::SavePacket(VMBCHANNEL channel, VMBPACKET packet, PVOID buffer, UINT32 bytes,
                         PUINT32 needed) {
  End& self = Of(channel);
  Slot& slot = *static_cast<Slot*>(VmbPacketGetPointer(packet));
  const InTest test;
  if (!slot.in_flight) self.Wrong("a packet is saved that is not in flight");
  if (bytes == 0) {
    *needed = sizeof slot.number;
    return STATUS_BUFFER_TOO_SMALL;
  }
  if (bytes < sizeof slot.number) self.Wrong("a packet's save has too little room");
  std::memcpy(buffer, &slot.number, sizeof slot.number);
  slot.is_saved = true;
  ++self.saved_;
  return STATUS_SUCCESS;
}

NTSTATUS End::RestorePacket(VMBCHANNEL channel, PVOID library, UINT32 library_bytes, PVOID kept,
                            UINT32 kept_bytes) {
  End& self = Of(channel);
  const InTest test;
  std::uint32_t which = 0;
  if (kept_bytes != sizeof which) self.Wrong("a packet is restored without what was kept of it");
  std::memcpy(&which, kept, sizeof which);
  if (which >= self.slots_.size() || !self.slots_[which].in_flight) {
    self.Wrong("a packet is restored that was not saved");
  }
  Slot& slot = self.slots_[which];
  if (!self.Fit(slot)) return STATUS_INSUFFICIENT_RESOURCES;
  ++self.saved_;
  slot.is_saved = true;  // should the restore fail, it comes back with the next one
  const InLibrary again;
  return VmbPacketRestore(slot.packet, library, library_bytes);
}

}  // namespace kmcl::sim
