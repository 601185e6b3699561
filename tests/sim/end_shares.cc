// GPADLs: a client shares some of its memory, asks the server to work on it, and takes it back,
// while the channel may be closed, saved or orphaned.
#include <kmcl/wdk/mdl.h>
#include <kmcl/wdk/pool.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "end.h"
#include "shares.h"

namespace kmcl::sim {
namespace {

constexpr ULONG kTag = 0x65726853;
constexpr std::ptrdiff_t kMostShares = 4;  // of a channel, at a time
constexpr std::int64_t kPatienceNs = 60'000'000'000;

template <typename Visit>
void ForEachWord(const std::vector<std::span<std::uint64_t>>& words, Visit visit) {
  std::size_t index = 0;
  for (const std::span<std::uint64_t> part : words) {
    for (std::uint64_t& word : part) visit(word, index++);
  }
}

bool Say(const std::vector<std::span<std::uint64_t>>& words, std::uint64_t name,
         std::uint64_t key) {
  bool as_said = true;
  ForEachWord(words, [&](std::uint64_t word, std::size_t index) {
    as_said = as_said && word == (Share::WordOf(name, index) ^ key);
  });
  return as_said;
}

}  // namespace

// ---- The memory. The pool is one for all processes here: what it keeps is not theirs.

void* Share::AddBlock(std::size_t bytes) {
  // Whole pages, so that none is kept for smaller ones.
  void* const block =
      ExAllocatePool2(POOL_FLAG_NON_PAGED, std::max<std::size_t>(bytes, 4096), kTag);
  if (block == nullptr) Fail("the pool is exhausted");
  blocks.push_back(block);
  return block;
}

void Share::FreeBlocks() {
  for (void* const block : blocks) ExFreePoolWithTag(block, kTag);
  blocks.clear();
  words.clear();
}

void Share::Fill(std::uint64_t name) {
  ForEachWord(words, [&](std::uint64_t& word, std::size_t index) { word = WordOf(name, index); });
}

bool Share::Says(std::uint64_t name, std::uint64_t key) const { return Say(words, name, key); }
bool SharedView::Says(std::uint64_t name, std::uint64_t key) const { return Say(words, name, key); }
void SharedView::Write(std::uint64_t name, std::uint64_t key) {
  ForEachWord(words, [&](std::uint64_t& word, std::size_t index) {
    word = Share::WordOf(name, index) ^ key;
  });
}

// ---- The client.

NTSTATUS End::CreateFromBuffer(Share& share, UINT32 flags) {
  const std::size_t offset = Choices().Between(0, 511) * std::size_t{8};
  const std::size_t bytes = Choices().Between(1, 1500) * std::size_t{8};
  auto* const first = static_cast<std::byte*>(share.AddBlock(offset + bytes)) + offset;
  share.words.emplace_back(reinterpret_cast<std::uint64_t*>(first), bytes / 8);
  const InLibrary library("VmbChannelCreateGpadlFromBuffer", number);
  return VmbChannelCreateGpadlFromBuffer(handle_, flags, first, static_cast<UINT32>(bytes),
                                         &share.handle);
}

// Two parts that have nothing to do with each other.
NTSTATUS End::CreateFromMdl(Share& share, UINT32 flags) {
  PMDL chain = nullptr;
  for (int i = 0; i < 2; ++i) {
    const std::size_t bytes = Choices().Between(1, 700) * std::size_t{8};
    void* const block = share.AddBlock(bytes);
    PMDL const mdl = IoAllocateMdl(block, static_cast<ULONG>(bytes), FALSE, FALSE, nullptr);
    if (mdl == nullptr) Fail("no memory for an MDL");
    MmBuildMdlForNonPagedPool(mdl);
    mdl->Next = chain;
    chain = mdl;
    share.words.emplace(share.words.begin(), static_cast<std::uint64_t*>(block), bytes / 8);
  }
  NTSTATUS status = STATUS_SUCCESS;
  {
    const InLibrary library("VmbChannelCreateGpadlFromMdl", number);
    status = VmbChannelCreateGpadlFromMdl(handle_, flags, chain, 0, 0, &share.handle);
  }
  while (chain != nullptr) IoFreeMdl(std::exchange(chain, chain->Next));
  return status;
}

// Pages in any order.
NTSTATUS End::CreateFromPages(Share& share, UINT32 flags) {
  const std::uint32_t count = Choices().Between(1, 4);
  const std::uint32_t offset = Choices().Between(0, 511) * 8;
  auto* const block = static_cast<std::byte*>(share.AddBlock(count * std::size_t{PAGE_SIZE}));
  std::vector<PFN_NUMBER> pages;
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto place = pages.begin() + Choices().Between(0, i);
    pages.insert(place, (reinterpret_cast<std::uintptr_t>(block) >> PAGE_SHIFT) + i);
  }
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::uint32_t skipped = i == 0 ? offset : 0;
    share.words.emplace_back(reinterpret_cast<std::uint64_t*>((pages[i] << PAGE_SHIFT) + skipped),
                             (PAGE_SIZE - skipped) / 8);
  }
  const InLibrary library("VmbChannelCreateGpadlFromPfnList", number);
  return VmbChannelCreateGpadlFromPfnList(handle_, flags, pages.data(), count, offset, 0,
                                          &share.handle);
}

Share* End::MakeShare() {
  const auto held = std::ranges::count_if(
      shares_, [](const Share& each) { return each.state != Share::State::kBack; });
  if (held >= kMostShares) return nullptr;
  Share& share = shares_.emplace_back();
  share.owner = this;
  share.session = session_;
  share.read_only = Choices().OneIn(4);
  const UINT32 flags = share.read_only ? VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY : 0;
  NTSTATUS status = STATUS_SUCCESS;
  switch (Choices().Between(0, 2)) {
    case 0:
      status = CreateFromBuffer(share, flags);
      break;
    case 1:
      status = CreateFromMdl(share, flags);
      break;
    default:
      status = CreateFromPages(share, flags);
  }
  Note("end %llu shares memory %#llx: %#llx", number, share.handle,
       static_cast<std::uint32_t>(status));
  if (status == STATUS_SUCCESS) {
    if (share.handle == 0) Wrong("memory is shared under no handle");
    ++model_.shared;
    // Closed meanwhile: the library has deleted it.
    const bool goes_on = open_ && !closing_ && session_ == share.session;
    share.state = goes_on ? Share::State::kLive : Share::State::kLeft;
    return goes_on ? &share : nullptr;
  }
  share.state = Share::State::kBack;
  share.FreeBlocks();
  const bool may_be =
      status == STATUS_INVALID_DEVICE_STATE || status == STATUS_DEVICE_REMOVED ||
      (status == STATUS_INSUFFICIENT_RESOURCES && (model_.plan.refusals || hostile));
  if (!may_be && !hostile) Wrong(std::string("memory is not shared: ") + KmclStatusName(status));
  return nullptr;
}

void End::UseShare(std::uint32_t timeout_us) {
  if (server || is_raw() || model_.plan.MayMeetRawServer(index) || !enabled_) return;
  Share* share = nullptr;
  if (Choices().OneIn(2)) {
    const auto found = std::ranges::find_if(shares_, [this](const Share& each) {
      return each.state == Share::State::kLive && each.fit && !each.in_use &&
             each.session == session_;
    });
    if (found != shares_.end()) share = &*found;
  }
  if (share == nullptr) share = MakeShare();
  if (share == nullptr) return;
  share->in_use = true;
  const NTSTATUS status = Request({.timeout_us = timeout_us, .share = share});
  // Else the server may come to it later.
  share->fit = status == STATUS_SUCCESS;
  share->in_use = false;
  if (!share->fit || Choices().OneIn(2)) DeleteShare(*share);
  if (share->state == Share::State::kBack) share->FreeBlocks();
}

void End::DeleteShare(Share& share) {
  if (share.state != Share::State::kLive) return;
  share.state = Share::State::kDeleting;
  {
    const InLibrary library("VmbChannelDeleteGpadl", number);
    VmbChannelDeleteGpadl(handle_, share.handle);
  }
  Note("end %llu has its memory %#llx back", number, share.handle);
  ReceiveBack(share);
}

void End::ReceiveBack(Share& share) {
  if (share.mapper != nullptr && !share.mapper->dead && !share.mapper->abandoned_ && !hostile) {
    Wrong("memory comes back that the server has mapped");
  }
  share.state = Share::State::kBack;
  if (!share.in_use) share.FreeBlocks();
  Changed();
}

// The client is closed: what is left after this the library deletes.
void End::GiveUpShares() {
  closing_ = true;
  for (Share& share : shares_) {
    if (share.state != Share::State::kLive) continue;
    if (Choices().OneIn(4)) {
      share.state = Share::State::kLeft;
    } else {
      DeleteShare(share);
    }
  }
  const auto done = [this] {
    return std::ranges::none_of(
        shares_, [](const Share& each) { return each.state == Share::State::kDeleting; });
  };
  if (!WaitUntil(done, NowNs() + kPatienceNs, "memory of a closed channel")) {
    Wrong("memory of a closed channel does not come back");
  }
}

// The server has let go of everything.
void End::ReceiveLeftShares() {
  for (Share& share : shares_) {
    if (share.state == Share::State::kLeft) ReceiveBack(share);
  }
}

bool End::WasWorkedOn(const Share& share, std::uint64_t name) const {
  if (model_.plan.hostile_client != 0) return true;
  if (share.Says(name, share.read_only ? 0 : kWritten)) return true;
  // Where the system refuses, the server may not have seen it.
  return model_.plan.refusals && share.Says(name, 0);
}

// ---- The server.

SharedView* End::FindView(UINT32 handle) {
  const auto found =
      std::ranges::find_if(views_, [&](const SharedView& each) { return each.handle == handle; });
  return found == views_.end() ? nullptr : &*found;
}

void End::WorkOn(UINT32 handle, Share* share, std::uint64_t name) {
  // One view at a time: it may still have the last one.
  WaitUntil([&] { return FindView(handle) == nullptr || !FindView(handle)->ending; }, kNever,
            "the end of a view");
  if (SharedView* const view = FindView(handle)) return WorkOnView(*view, name);
  PMDL chain = nullptr;
  const bool only_reads = share != nullptr && share->read_only && !Choices().OneIn(8);
  NTSTATUS status = STATUS_SUCCESS;
  {
    const InLibrary library("VmbChannelMapGpadl", number);
    status = VmbChannelMapGpadl(handle_, only_reads ? VMBUS_CHANNEL_GPADL_FLAG_READ_ONLY : 0,
                                handle, &chain);
  }
  Note("end %llu maps memory %#llx: %#llx", number, handle, static_cast<std::uint32_t>(status));
  if (status != STATUS_SUCCESS) return CheckUnmapped(share, status, only_reads);
  SharedView& view = views_.emplace_back();
  view.handle = handle;
  view.share = share;
  if (share != nullptr) share->mapper = this;
  for (; chain != nullptr; chain = chain->Next) {
    const InLibrary library("MmGetSystemAddressForMdlSafe", number);
    auto* const words =
        static_cast<std::uint64_t*>(MmGetSystemAddressForMdlSafe(chain, NormalPagePriority));
    const InTest test;
    if (words == nullptr) {
      if (!hostile && !model_.plan.refusals) Wrong("shared memory is not mapped");
      view.words.clear();
      break;
    }
    if (!hostile) view.words.emplace_back(words, MmGetMdlByteCount(chain) / 8);
  }
  WorkOnView(view, name);
  // Some keep it beyond the packet.
  if (hostile || !Choices().OneIn(3)) return EndView(handle);
  retirer_.Add({.end = this, .handle = handle});
}

void End::WorkOnView(SharedView& view, std::uint64_t name) {
  if (view.words.empty() || hostile) return;
  const auto check = [&] {
    if (view.share->state == Share::State::kBack)
      Wrong("memory is mapped that has been taken back");
    // The pool is one for all here, and who is hostile writes into it.
    if (model_.plan.hostile_client == 0 && !view.Says(name, 0)) {
      Wrong("shared memory says something else");
    }
  };
  check();
  if (Choices().OneIn(3)) {
    WaitUntil([] { return false; }, NowNs() + Choices().Between(0, 300'000), "work on memory");
    check();
  }
  if (!view.share->read_only) view.Write(name, kWritten);
  ++model_.worked_on;
}

// Only what the client has taken back, or wants to, cannot be mapped.
void End::CheckUnmapped(const Share* share, NTSTATUS status, bool only_reads) const {
  if (hostile || (status == STATUS_INSUFFICIENT_RESOURCES && model_.plan.refusals)) return;
  if (status == STATUS_ACCESS_DENIED && share->read_only && !only_reads) return;
  const End& owner = *share->owner;
  const bool may_be_gone = share->state != Share::State::kLive || owner.dead || !owner.open_ ||
                           owner.closing_ || owner.session_ != share->session;
  if (status == STATUS_INVALID_PARAMETER_3 && may_be_gone) return;
  Wrong(std::string("shared memory is not mapped: ") + KmclStatusName(status));
}

void End::EndView(UINT32 handle) {
  SharedView* const view = FindView(handle);
  if (view == nullptr || view->ending) return;
  view->ending = true;
  // The client may have it back from here on.
  if (view->share != nullptr) view->share->mapper = nullptr;
  {
    const InLibrary library("VmbChannelUnmapGpadl", number);
    VmbChannelUnmapGpadl(handle_, handle);
  }
  std::erase_if(views_, [&](const SharedView& each) { return &each == view; });
  Changed();
}

// The server is closed: what is left after this the library unmaps.
void End::EndViews() {
  std::vector<UINT32> handles;
  for (const SharedView& view : views_) handles.push_back(view.handle);
  for (const UINT32 handle : handles) {
    if (!Choices().OneIn(4)) EndView(handle);
  }
  WaitUntil(
      [this] { return std::ranges::none_of(views_, [](const auto& each) { return each.ending; }); },
      kNever, "the end of a view");
  for (const SharedView& view : views_) {
    if (view.share != nullptr) view.share->mapper = nullptr;
  }
  views_.clear();
}

}  // namespace kmcl::sim
