// External data, as a driver describes it at the client and looks at it at the server.
#include <kmcl/wdk/mdl.h>
#include <kmcl/wdk/pool.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "driver.h"
#include "payload.h"

namespace kmcl::contract {

namespace {

constexpr std::byte kWritten{0x5A};  // what the server does to each byte
constexpr ULONG kTag = 0x6b6d636c;

// Of bytes, in their order.
class Hash {
 public:
  void Add(std::byte byte) { value_ = (value_ ^ std::to_integer<UINT32>(byte)) * 16777619U; }
  UINT32 value() const { return value_; }

 private:
  UINT32 value_ = 2166136261U;
};

std::byte PatternAt(UINT32 number, std::size_t index) {
  return static_cast<std::byte>(number * 31 + index * 7 + index / 253);
}

// Memory of one kind, filled with a pattern; a part of it is described.
class Arena {
 public:
  Arena(const std::string& kind, std::size_t bytes) : pool_(kind == "pool"), bytes_(bytes) {
    base_ = static_cast<std::byte*>(pool_ ? ExAllocatePool2(POOL_FLAG_NON_PAGED, bytes, kTag)
                                          : std::aligned_alloc(PAGE_SIZE, ROUND_TO_PAGES(bytes)));
  }
  ~Arena() {
    if (pool_) {
      ExFreePoolWithTag(base_, kTag);
    } else {
      std::free(base_);
    }
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  void Fill(UINT32 number) {
    for (std::size_t i = 0; i < bytes_; ++i) {
      base_[i] = PatternAt(number, i);
    }
  }
  std::byte* base() const { return base_; }
  std::size_t bytes() const { return bytes_; }

 private:
  const bool pool_;
  const std::size_t bytes_;
  std::byte* base_;
};

struct Piece {
  std::size_t offset = 0;
  ULONG bytes = 0;
};

// A send with external data, from its memory to its end.
struct Described {
  DriverChannel* channel = nullptr;
  UINT32 number = 0;
  std::unique_ptr<Arena> arena;
  std::vector<bool> described;  // of the arena's bytes

  // What became of the memory: "written" (as the server does), "unchanged", or "wrong".
  std::string Memory() const {
    bool written = true;
    bool unchanged = true;
    for (std::size_t i = 0; i < arena->bytes(); ++i) {
      const std::byte before = PatternAt(number, i);
      const std::byte now = arena->base()[i];
      if (now != (described[i] ? before ^ kWritten : before)) {
        written = false;
      }
      if (now != before) {
        unchanged = false;
      }
    }
    return unchanged ? "unchanged" : written ? "written" : "wrong";
  }
  void Record(NTSTATUS status) const {
    channel->recorder().Record(
        "described " + std::to_string(number) + " " + KmclStatusName(status), "memory=" + Memory());
  }
};

void DescribedDone(VMBPACKET packet, NTSTATUS status, PVOID, UINT32) {
  const std::unique_ptr<Described> self(static_cast<Described*>(VmbPacketGetPointer(packet)));
  VmbPacketFree(packet);
  self->Record(status);
}

// One MDL for each piece, chained; they are gone when this is.
class Chain {
 public:
  Chain(const Arena& arena, const std::vector<Piece>& pieces, const std::string& lock)
      : locked_(lock != "build") {
    for (const Piece& piece : pieces) {
      PMDL const mdl =
          IoAllocateMdl(arena.base() + piece.offset, piece.bytes, FALSE, FALSE, nullptr);
      if (locked_) {
        MmProbeAndLockPages(mdl, KernelMode, lock == "read" ? IoReadAccess : IoModifyAccess);
      } else {
        MmBuildMdlForNonPagedPool(mdl);
      }
      if (!mdls_.empty()) {
        mdls_.back()->Next = mdl;
      }
      mdls_.push_back(mdl);
    }
  }
  ~Chain() {
    for (PMDL mdl : mdls_) {
      if (locked_) {
        MmUnlockPages(mdl);
      }
      // Whoever still looks at them sees nonsense.
      if (mdl->ByteCount != 0) {
        std::memset(MmGetMdlPfnArray(mdl), 0xEE, sizeof(PFN_NUMBER));
      }
      IoFreeMdl(mdl);
    }
  }
  Chain(const Chain&) = delete;
  Chain& operator=(const Chain&) = delete;

  PMDL head() const { return mdls_.empty() ? nullptr : mdls_.front(); }

 private:
  const bool locked_;
  std::vector<PMDL> mdls_;
};

}  // namespace

// describe CHANNEL NUMBER send|mdl|pfns|sync pool|heap build|read|write OFFSET LENGTH FLAGS TIMEOUT
// [FIRST:BYTES ...] -> status hash; event "described NUMBER STATUS" (memory). Pieces count from the
// beginning of the memory; those of pfns are pages, FIRST:1.
std::string Driver::DescribeMemory(const Words& words) {
  DriverChannel* const channel = Find(words.at(1));
  const std::string& function = words.at(3);
  const auto number = static_cast<UINT32>(std::stoul(words.at(2)));
  const auto offset = static_cast<UINT32>(std::stoul(words.at(6)));
  const auto length = static_cast<UINT32>(std::stoul(words.at(7)));
  const auto flags = static_cast<UINT32>(std::stoul(words.at(8)));
  std::vector<Piece> pieces;
  std::size_t end = 1;
  for (std::size_t i = 10; i < words.size(); ++i) {
    const std::size_t colon = words[i].find(':');
    Piece piece{std::stoul(words[i]), static_cast<ULONG>(std::stoul(words[i].substr(colon + 1)))};
    if (function == "pfns") {
      piece = {piece.offset * PAGE_SIZE, PAGE_SIZE};
    }
    end = std::max(end, piece.offset + piece.bytes);
    pieces.push_back(piece);
  }

  auto self = std::make_unique<Described>();
  self->channel = channel;
  self->number = number;
  self->arena = std::make_unique<Arena>(words.at(4), ROUND_TO_PAGES(end));
  self->arena->Fill(number);
  self->described.resize(self->arena->bytes());
  // What the call describes, in order.
  Hash hash;
  const bool forced = (flags & VMBUS_CHANNEL_FORMAT_FLAG_FORCE_MDL_LENGTH) != 0 && length != 0;
  std::size_t skip = function == "mdl" ? offset : 0;
  std::size_t left = function == "mdl" && length != 0 ? length : ~std::size_t{0};
  for (const Piece& piece : pieces) {
    const std::size_t bytes = forced ? self->arena->bytes() - piece.offset : piece.bytes;
    for (std::size_t i = std::min(skip, bytes); i < bytes && left > 0; ++i, --left) {
      hash.Add(self->arena->base()[piece.offset + i]);
      self->described[piece.offset + i] = true;
    }
    skip -= std::min(skip, bytes);
  }

  std::vector<std::byte> payload = MakePayload(number, 16);
  if (function == "sync") {
    LARGE_INTEGER timeout{};
    const bool unlimited = words.at(9) == "none";
    if (!unlimited) {
      timeout.QuadPart = std::stoll(words.at(9));
    }
    NTSTATUS status = STATUS_SUCCESS;
    {
      const Chain chain(*self->arena, pieces, words.at(5));
      status = VmbChannelSendSynchronousRequest(channel->handle(), payload.data(), 16, chain.head(),
                                                flags, nullptr, nullptr,
                                                unlimited ? nullptr : &timeout);
    }
    self->Record(status);
    return std::to_string(status) + " " + std::to_string(hash.value());
  }

  VMBPACKET const packet = VmbPacketAllocate(channel->handle());
  VmbPacketSetCompletionRoutine(packet, DescribedDone);
  Described* const sent = self.release();
  VmbPacketSetPointer(packet, sent);
  NTSTATUS status = STATUS_SUCCESS;
  if (function == "pfns") {
    std::vector<PFN_NUMBER> pages;
    for (const Piece& piece : pieces) {
      pages.push_back(reinterpret_cast<ULONG_PTR>(sent->arena->base() + piece.offset) / PAGE_SIZE);
    }
    status = VmbPacketSendWithExternalPfns(packet, payload.data(), 16, pages.data(),
                                           static_cast<UINT32>(pages.size()), flags);
    std::fill(pages.begin(), pages.end(), 0);
  } else {
    const Chain chain(*sent->arena, pieces, words.at(5));
    status = function == "mdl"
                 ? VmbPacketSendWithExternalMdl(packet, payload.data(), 16, chain.head(), offset,
                                                length, flags)
                 : VmbPacketSend(packet, payload.data(), 16, chain.head(), flags);
  }
  if (!NT_SUCCESS(status)) {
    VmbPacketFree(packet);
    delete sent;
  }
  return std::to_string(status) + " " + std::to_string(hash.value());
}

// The server's side. False if the packet will be delivered again.
bool DriverChannel::LookAtExternalData(VMBPACKETCOMPLETION packet, std::uint32_t number) {
  const bool read_only = external_read_only_;
  const UINT32 flags = read_only ? VMBUS_CHANNEL_PACKET_EXTERNAL_DATA_FLAG_READ_ONLY : 0;
  PMDL chain = nullptr;
  const NTSTATUS status = VmbChannelPacketGetExternalData(packet, flags, &chain);
  std::string detail = std::string("status=") + KmclStatusName(status) +
                       " irql=" + std::to_string(KeGetCurrentIrql());
  if (status == STATUS_PENDING) {
    recorder_.Record("pending " + std::to_string(number), detail);
    return false;
  }
  if (!NT_SUCCESS(status)) {
    detail += chain == nullptr ? " mdl=none" : " mdl=some";
    recorder_.Record("external " + std::to_string(number), detail);
    return true;
  }
  PMDL again = nullptr;
  if (VmbChannelPacketGetExternalData(packet, flags, &again) != STATUS_SUCCESS || again != chain) {
    detail += " another";
  }
  Hash hash;
  std::string offsets;
  std::size_t bytes = 0;
  int count = 0;
  for (PMDL mdl = chain; mdl != nullptr; mdl = mdl->Next, ++count) {
    if ((mdl->MdlFlags & MDL_PAGES_LOCKED) == 0 || mdl->StartVa != nullptr) {
      detail += " unlocked";
    }
    auto* const view =
        static_cast<std::byte*>(MmGetSystemAddressForMdlSafe(mdl, NormalPagePriority));
    if (view == nullptr) {
      detail += " unmapped";
      continue;
    }
    offsets += (offsets.empty() ? "" : ",") + std::to_string(MmGetMdlByteOffset(mdl));
    bytes += MmGetMdlByteCount(mdl);
    for (std::size_t i = 0; i < MmGetMdlByteCount(mdl); ++i) {
      hash.Add(view[i]);
      if (!read_only) {
        view[i] ^= kWritten;
      }
    }
    if (count % 2 == 1) {  // the others go with the packet
      MmUnmapLockedPages(view, mdl);
    }
  }
  recorder_.Record("external " + std::to_string(number),
                   detail + " mdls=" + std::to_string(count) + " bytes=" + std::to_string(bytes) +
                       " offsets=" + offsets + " hash=" + std::to_string(hash.value()));
  return true;
}

}  // namespace kmcl::contract
