// Memory that a client's packets describe instead of carrying it: the server reads it, and writes
// something else into it, which the client finds there once the packet is completed (KMCL reference
// 7).
#include <kmcl/wdk/mdl.h>

#include <algorithm>

#include "end.h"

namespace kmcl::sim {
namespace {

constexpr std::uint32_t kMostWords = 3 * PAGE_SIZE / 8;

}  // namespace

NTSTATUS End::SendDescribed(Slot& slot, std::uint64_t* words, std::uint32_t bytes) {
  slot.memory.assign(Choices().Between(1, Choices().OneIn(3) ? kMostWords : 40), words[0]);
  const InLibrary library("VmbPacketSend", number);
  PMDL const mdl = IoAllocateMdl(slot.memory.data(), static_cast<ULONG>(slot.memory.size() * 8),
                                 FALSE, FALSE, nullptr);
  if (mdl == nullptr) return STATUS_INSUFFICIENT_RESOURCES;
  MmProbeAndLockPages(mdl, KernelMode, IoModifyAccess);
  const NTSTATUS status =
      VmbPacketSend(slot.packet, words, bytes, mdl, VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION);
  MmUnlockPages(mdl);
  IoFreeMdl(mdl);
  return status;
}

bool End::TakeExternalData(VMBPACKETCOMPLETION packet, std::uint64_t name) {
  const InLibrary library("VmbChannelPacketGetExternalData", number);
  PMDL chain = nullptr;
  const NTSTATUS status = VmbChannelPacketGetExternalData(packet, 0, &chain);
  if (status == STATUS_PENDING) return false;
  if (status != STATUS_SUCCESS) {
    if (hostile || (model_.plan.refusals && status == STATUS_INSUFFICIENT_RESOURCES)) return true;
    Wrong(std::string("no external data: ") + KmclStatusName(status));
  }
  for (; chain != nullptr; chain = chain->Next) {
    auto* const words =
        static_cast<std::uint64_t*>(MmGetSystemAddressForMdlSafe(chain, NormalPagePriority));
    if (words == nullptr) {
      if (hostile || model_.plan.refusals) return true;
      Wrong("external data is not mapped");
    }
    const std::uint32_t count = MmGetMdlByteCount(chain) / 8;
    // Who is hostile may write there now.
    for (std::uint32_t i = 0; i < count; ++i) {
      if (!hostile && words[i] != name) Wrong("a packet describes other memory");
      words[i] = name ^ kWritten;
    }
  }
  ++model_.described;
  return true;
}

void End::CheckWritten(const Slot& slot, std::uint64_t name) const {
  const auto as = [&](std::uint64_t wanted) {
    return std::ranges::all_of(slot.memory, [&](std::uint64_t word) { return word == wanted; });
  };
  // Where the system refuses, the server may not have seen it.
  if (as(name ^ kWritten) || (model_.plan.refusals && as(name))) return;
  Wrong("what the server wrote into a packet's memory is not there");
}

}  // namespace kmcl::sim
