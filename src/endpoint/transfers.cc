#include "endpoint/transfers.h"

#include <cstring>
#include <new>
#include <optional>
#include <utility>

#include "wdk/mdl_mapping.h"
#include "wire/gpa_range.h"
#include "wire/ring_layout.h"

namespace kmcl::endpoint {
namespace {

constexpr std::size_t kPage = wire::kPageBytes;

// Stands for the MDL of pages that have none: of this process, and writable.
MDL pages_of_this_process{};

std::byte* AddressOfPage(PFN_NUMBER page) { return reinterpret_cast<std::byte*>(page * kPage); }

// The partition's number of a page of this process, if the server can see it.
std::optional<wire::PageNumber> SharedPage(const transport::ClientLink& link, PFN_NUMBER page) {
  return link.PageOf(AddressOfPage(page));
}

bool IsShared(const transport::ClientLink& link, const wdk::Piece& piece) {
  if (piece.mdl->Process != nullptr) return false;
  for (const PFN_NUMBER page : piece.pages) {
    if (!SharedPage(link, page)) return false;
  }
  return true;
}

}  // namespace

ExternalSource ExternalSource::OfChain(PMDL head, std::uint64_t offset, std::uint64_t bytes) {
  ExternalSource source;
  source.chain_ = head;
  source.offset_ = offset;
  source.bytes_ = bytes;
  return source;
}

ExternalSource ExternalSource::OfPiece(const wdk::Piece& piece) {
  ExternalSource source;
  source.piece_ = piece;
  return source;
}

ExternalSource ExternalSource::OfPages(std::span<const PFN_NUMBER> pages) {
  return OfPiece({.mdl = &pages_of_this_process,
                  .byte_offset = 0,
                  .byte_count = static_cast<std::uint32_t>(pages.size() * kPage),
                  .pages = pages});
}

// ---- One transfer.

Transfer::~Transfer() {
  EndViews();
  if (buffer_.address != nullptr) link_->FreeBuffer(buffer_);
}

void Transfer::EndViews() {
  for (const View& view : views_) view.space->Unmap(view.base, view.pages);
  views_.clear();
}

void Transfer::CopyBack() {
  for (const Stretch& stretch : back_) {
    std::memcpy(stretch.driver, stretch.bounce, stretch.bytes);
  }
}

Result<void> Transfer::CopyIn(const wdk::Piece& piece, std::byte* bounce) {
  const bool writable = wdk::IsWritable(*piece.mdl);
  const auto take = [&](std::byte* driver, std::size_t bytes) {
    std::memcpy(bounce, driver, bytes);
    if (writable) back_.push_back({.driver = driver, .bounce = bounce, .bytes = bytes});
    bounce += bytes;
  };
  if (piece.mdl->Process != nullptr) {
    views_.reserve(views_.size() + 1);
    void* const base = piece.mdl->Process->Map(piece.pages, writable);
    if (base == nullptr) return std::unexpected(Error::kOutOfMemory);
    views_.push_back({.space = piece.mdl->Process, .base = base, .pages = piece.pages.size()});
    take(static_cast<std::byte*>(base) + piece.byte_offset, piece.byte_count);
    return {};
  }
  // In stretches of pages in a row.
  std::size_t left = piece.byte_count;
  std::size_t offset = piece.byte_offset;
  for (std::size_t first = 0; first < piece.pages.size();) {
    std::size_t count = 1;
    while (first + count < piece.pages.size() &&
           piece.pages[first + count] == piece.pages[first] + count) {
      ++count;
    }
    const std::size_t bytes = std::min(left, count * kPage - offset);
    take(AddressOfPage(piece.pages[first]) + offset, bytes);
    left -= bytes;
    offset = 0;
    first += count;
  }
  return {};
}

// ---- The transfers of a channel.

Result<Transfers::Description> Transfers::Describe(
    const std::shared_ptr<transport::ClientLink>& link, const ExternalSource& source,
    std::span<std::byte> room) try {
  std::size_t ranges = 0;
  std::size_t pages = 0;
  std::size_t bounced_pages = 0;
  bool describable = true;
  source.ForEach([&](const wdk::Piece& piece) {
    ++ranges;
    pages += piece.pages.size();
    if (!wire::GpaRangePageCount(piece.byte_count, piece.byte_offset)) describable = false;
    if (!IsShared(*link, piece)) bounced_pages += piece.pages.size();
  });
  const std::size_t header_bytes = wire::GpaDirectWriter::Bytes(ranges, pages);
  if (!describable || header_bytes > wire::kMaximumPacketBytes - wire::kPacketDescriptorBytes) {
    return std::unexpected(Error::kPacketTooLong);
  }

  Description description;
  std::span<std::byte> header = room.first(std::min(room.size(), header_bytes));
  if (bounced_pages != 0 || header_bytes > room.size()) {
    description.transfer = std::make_unique<Transfer>(link);
  }
  if (header_bytes > room.size()) {
    description.transfer->header_.resize(header_bytes);
    header = description.transfer->header_;
  }
  if (bounced_pages != 0) {
    auto buffer = link->AllocateBuffer(bounced_pages * kPage);
    if (!buffer) return std::unexpected(Error::kOutOfMemory);
    description.transfer->buffer_ = *buffer;
  }
  description.header = header;

  wire::GpaDirectWriter writer(header);
  std::size_t next_bounced = 0;  // page of the buffer
  Result<void> copied;
  source.ForEach([&](const wdk::Piece& piece) {
    if (!copied) return;
    writer.BeginRange(piece.byte_count, piece.byte_offset);
    if (IsShared(*link, piece)) {
      for (const PFN_NUMBER page : piece.pages) writer.AddPage(*SharedPage(*link, page));
      return;
    }
    // At the same place in its page as in the driver's memory.
    const transport::DonatedBuffer& buffer = description.transfer->buffer_;
    for (std::size_t i = 0; i < piece.pages.size(); ++i) {
      writer.AddPage(wire::PageNumber{std::to_underlying(buffer.run.first) + next_bounced + i});
    }
    copied = description.transfer->CopyIn(
        piece, buffer.address + next_bounced * kPage + piece.byte_offset);
    next_bounced += piece.pages.size();
  });
  if (!copied) return std::unexpected(copied.error());
  return description;
} catch (const std::bad_alloc&) {
  return std::unexpected(Error::kOutOfMemory);
}

void Transfers::End(channel::Packet& packet, channel::Outcome outcome) {
  std::unique_ptr<Transfer> transfer(static_cast<Transfer*>(packet.transfer));
  if (transfer == nullptr) return;
  if (outcome == channel::Outcome::kSuccess) {
    transfer->CopyBack();
    return;
  }
  if (packet.transaction_id == wire::TransactionId{}) return;  // the server never had it
  // What it still writes goes nowhere, but it must not go into somebody else's buffer.
  transfer->EndViews();
  transfer->id_ = packet.transaction_id;
  MutexLock lock(mutex_);
  transfer->next_ = parked_;
  parked_ = transfer.release();
}

void Transfers::OnLateCompletion(wire::TransactionId id) {
  std::unique_ptr<Transfer> ended;  // after the lock
  MutexLock lock(mutex_);
  for (Transfer** at = &parked_; *at != nullptr; at = &(*at)->next_) {
    if ((*at)->id_ != id) continue;
    ended.reset(*at);
    *at = ended->next_;
    return;
  }
}

void Transfers::OnDetached() {
  Transfer* parked = nullptr;
  {
    MutexLock lock(mutex_);
    parked = std::exchange(parked_, nullptr);
  }
  while (parked != nullptr) {
    const std::unique_ptr<Transfer> ended(parked);
    parked = ended->next_;
  }
}

}  // namespace kmcl::endpoint
