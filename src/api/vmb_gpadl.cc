// GPADLs (KMCL reference 8, 10.7).

#include <kmcl/gpadl.h>

#include <new>

#include "api/gpadl_ranges.h"
#include "api/objects.h"
#include "api/status_map.h"
#include "api/verifier.h"
#include "log.h"
#include "wdk/mdl.h"

using namespace kmcl;
using namespace kmcl::api;

namespace {

endpoint::ClientChannel* ClientFrom(VMBCHANNEL channel) {
  return channel == nullptr ? nullptr : ChannelObject::From(channel).client();
}

endpoint::ServerChannel* ServerFrom(VMBCHANNEL channel) {
  return channel == nullptr ? nullptr : ChannelObject::From(channel).server();
}

bool AreKnown(UINT32 flags) { return (flags & ~UINT32{VMBUS_CHANNEL_GPADL_FLAGS}) == 0; }

bool IsReadOnly(UINT32 flags) { return (flags & VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY) != 0; }

// Whether every MDL of the chain says what its pages are.
bool AreBuilt(const MDL* chain) {
  constexpr CSHORT kFilled = MDL_SOURCE_IS_NONPAGED_POOL | MDL_PAGES_LOCKED | MDL_PARTIAL;
  for (; chain != nullptr; chain = chain->Next) {
    if ((chain->MdlFlags & kFilled) == 0) return false;
  }
  return true;
}

NTSTATUS StatusOfGpadl(Error error) {
  return error == Error::kGpadlUnknown ? STATUS_INVALID_PARAMETER_3 : StatusOf(error);
}

// Not the end of the channel, but a handle that is not there, or not mapped.
bool IsMisuse(Error error) { return error == Error::kGpadlUnknown || error == Error::kGpadlState; }

// The part that all ways to create have in common, once the arguments are good.
template <typename MakeRanges>
NTSTATUS Create(endpoint::ClientChannel& channel, UINT32 flags, const MakeRanges& make_ranges,
                UINT32* handle) {
  const VMBCHANNEL self = ChannelObject::From(channel.engine()).handle();
  if (KMCL_VERIFIER_ON && !verifier::IsAtPassive(self, "VmbChannelCreateGpadl", nullptr)) {
    return STATUS_INVALID_DEVICE_STATE;
  }
  if (!channel.engine().is_open()) return STATUS_INVALID_DEVICE_STATE;
  try {
    const Result<wire::GpaRangeList> ranges = make_ranges();
    if (!ranges) return StatusOf(ranges.error());
    const auto gpadl = channel.CreateGpadl(
        *ranges, IsReadOnly(flags) ? bus::GpadlAccess::kReadOnly : bus::GpadlAccess::kReadWrite);
    if (!gpadl) return StatusOf(gpadl.error());
    *handle = std::to_underlying(*gpadl);
    if (KMCL_VERIFIER_ON) verifier::GpadlTaken(self, *handle);
    return STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

}  // namespace

NTSTATUS VmbChannelCreateGpadlFromBuffer(VMBCHANNEL Channel, UINT32 Flags, PVOID Buffer,
                                         UINT32 ByteCount, PUINT32 GpadlHandle) {
  if (GpadlHandle != nullptr) *GpadlHandle = 0;
  endpoint::ClientChannel* const channel = ClientFrom(Channel);
  if (channel == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (!AreKnown(Flags)) return STATUS_INVALID_PARAMETER_2;
  if (Buffer == nullptr) return STATUS_INVALID_PARAMETER_3;
  if (ByteCount == 0 || ByteCount > wire::kMaximumGpadlBytes) return STATUS_INVALID_PARAMETER_4;
  if (GpadlHandle == nullptr) return STATUS_INVALID_PARAMETER_5;
  return Create(
      *channel, Flags, [&] { return RangesOfBuffer(*channel, Buffer, ByteCount); }, GpadlHandle);
}

NTSTATUS VmbChannelCreateGpadlFromMdl(VMBCHANNEL Channel, UINT32 Flags, PMDL Mdl,
                                      UINT32 StartOffsetWithinMdl, UINT32 DataLengthWithinMdl,
                                      PUINT32 GpadlHandle) {
  if (GpadlHandle != nullptr) *GpadlHandle = 0;
  endpoint::ClientChannel* const channel = ClientFrom(Channel);
  if (channel == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (!AreKnown(Flags)) return STATUS_INVALID_PARAMETER_2;
  if (Mdl == nullptr || !AreBuilt(Mdl)) return STATUS_INVALID_PARAMETER_3;
  const std::uint64_t size = wdk::SizeOf(Mdl).bytes;
  if (StartOffsetWithinMdl >= size) return STATUS_INVALID_PARAMETER_4;
  const std::uint64_t rest = size - StartOffsetWithinMdl;
  const std::uint64_t bytes = DataLengthWithinMdl == 0 ? rest : DataLengthWithinMdl;
  if (bytes > rest || bytes > wire::kMaximumGpadlBytes) return STATUS_INVALID_PARAMETER_5;
  if (GpadlHandle == nullptr) return STATUS_INVALID_PARAMETER_6;
  return Create(
      *channel, Flags,
      [&] {
        return RangesOfChain(*channel, Mdl, StartOffsetWithinMdl,
                             static_cast<std::uint32_t>(bytes));
      },
      GpadlHandle);
}

NTSTATUS VmbChannelCreateGpadlFromPfnList(VMBCHANNEL Channel, UINT32 Flags, PPFN_NUMBER Pfns,
                                          UINT32 PfnCount, UINT32 ByteOffset, UINT32 ByteCount,
                                          PUINT32 GpadlHandle) {
  constexpr std::uint64_t kMaximumPages = wire::kMaximumGpadlBytes / PAGE_SIZE + 1;
  if (GpadlHandle != nullptr) *GpadlHandle = 0;
  endpoint::ClientChannel* const channel = ClientFrom(Channel);
  if (channel == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (!AreKnown(Flags)) return STATUS_INVALID_PARAMETER_2;
  if (Pfns == nullptr) return STATUS_INVALID_PARAMETER_3;
  if (PfnCount == 0 || PfnCount > kMaximumPages) return STATUS_INVALID_PARAMETER_4;
  if (ByteOffset >= PAGE_SIZE) return STATUS_INVALID_PARAMETER_5;
  const std::uint64_t rest = std::uint64_t{PfnCount} * PAGE_SIZE - ByteOffset;
  const std::uint64_t bytes = ByteCount == 0 ? rest : ByteCount;
  // On the last page, so that no number is without meaning.
  if (bytes > rest || rest - bytes >= PAGE_SIZE || bytes > wire::kMaximumGpadlBytes) {
    return STATUS_INVALID_PARAMETER_6;
  }
  if (GpadlHandle == nullptr) return STATUS_INVALID_PARAMETER_7;
  return Create(
      *channel, Flags,
      [&] {
        return RangesOfPages(*channel, {Pfns, PfnCount}, ByteOffset,
                             static_cast<std::uint32_t>(bytes));
      },
      GpadlHandle);
}

VOID VmbChannelDeleteGpadl(VMBCHANNEL Channel, UINT32 GpadlHandle) {
  endpoint::ClientChannel* const channel = ClientFrom(Channel);
  if (channel == nullptr) {
    return Log(LogLevel::kError, "VmbChannelDeleteGpadl: not a client's channel");
  }
  if (KMCL_VERIFIER_ON) {
    if (!verifier::IsAtPassive(Channel, "VmbChannelDeleteGpadl", KMCL_CALLER)) return;
    verifier::GpadlReturned(Channel, GpadlHandle);
  }
  if (auto deleted = channel->DeleteGpadl(wire::GpadlId{GpadlHandle}); !deleted) {
    if (KMCL_VERIFIER_ON && IsMisuse(deleted.error())) {
      verifier::GpadlUnbalanced(Channel, GpadlHandle, "VmbChannelDeleteGpadl");
    }
    Log(LogLevel::kError, "VmbChannelDeleteGpadl: handle 0x%x is ignored (%s)", GpadlHandle,
        ErrorName(deleted.error()));
  }
}

NTSTATUS VmbChannelMapGpadl(VMBCHANNEL Channel, UINT32 Flags, UINT32 GpadlHandle, PMDL* Mdl) {
  if (Mdl != nullptr) *Mdl = nullptr;
  endpoint::ServerChannel* const channel = ServerFrom(Channel);
  if (channel == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (!AreKnown(Flags)) return STATUS_INVALID_PARAMETER_2;
  if (Mdl == nullptr) return STATUS_INVALID_PARAMETER_4;
  if (KMCL_VERIFIER_ON && !verifier::IsAtPassive(Channel, "VmbChannelMapGpadl", KMCL_CALLER)) {
    return STATUS_INVALID_DEVICE_STATE;
  }
  try {
    const auto mapped =
        channel->MapGpadl(wire::GpadlId{GpadlHandle},
                          IsReadOnly(Flags) ? wdk::Access::kReadOnly : wdk::Access::kReadWrite);
    if (KMCL_VERIFIER_ON && !mapped && mapped.error() == Error::kGpadlState) {
      verifier::GpadlNotMapped(Channel, GpadlHandle);
    }
    if (!mapped) return StatusOfGpadl(mapped.error());
    if (KMCL_VERIFIER_ON) verifier::GpadlTaken(Channel, GpadlHandle);
    *Mdl = *mapped;
    return STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

VOID VmbChannelUnmapGpadl(VMBCHANNEL Channel, UINT32 GpadlHandle) {
  endpoint::ServerChannel* const channel = ServerFrom(Channel);
  if (channel == nullptr) {
    return Log(LogLevel::kError, "VmbChannelUnmapGpadl: not a server's channel");
  }
  if (KMCL_VERIFIER_ON) {
    if (!verifier::IsAtPassive(Channel, "VmbChannelUnmapGpadl", KMCL_CALLER)) return;
    verifier::GpadlReturned(Channel, GpadlHandle);
  }
  if (auto unmapped = channel->UnmapGpadl(wire::GpadlId{GpadlHandle}); !unmapped) {
    if (KMCL_VERIFIER_ON && IsMisuse(unmapped.error())) {
      verifier::GpadlUnbalanced(Channel, GpadlHandle, "VmbChannelUnmapGpadl");
    }
    Log(LogLevel::kError, "VmbChannelUnmapGpadl: handle 0x%x is ignored (%s)", GpadlHandle,
        ErrorName(unmapped.error()));
  }
}
