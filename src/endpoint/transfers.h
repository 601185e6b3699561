// The external data of packets on their way: what the MDLs of a send describe, as the server can see it.
//
// Memory from the nonpaged pool is described as it stands. Any other memory is bounced: copied into
// donated pages when the packet is sent, and back when it has been completed. The MDLs themselves are
// not used once Describe has returned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "channel/packet.h"
#include "mutex.h"
#include "result.h"
#include "transport/link.h"
#include "wdk/mdl.h"
#include "wire/ids.h"

namespace kmcl::endpoint {

// What a send describes: a part of a chain of MDLs, or whole pages of this process.
class ExternalSource {
 public:
  // `bytes` bytes of the chain from `offset` on; requires that it has them.
  static ExternalSource OfChain(PMDL head, std::uint64_t offset, std::uint64_t bytes);
  // One piece, whatever its MDL's length (wdk::ForcedPiece).
  static ExternalSource OfPiece(const wdk::Piece& piece);
  // Requires at least one, and fewer bytes than 4 GiB.
  static ExternalSource OfPages(std::span<const PFN_NUMBER> pages);

  // Calls `visit` with each piece, in order.
  void ForEach(const auto& visit) const {
    if (chain_ == nullptr) return visit(piece_);
    wdk::ChainWalk walk(chain_, offset_, bytes_);
    while (const auto piece = walk.Next()) visit(*piece);
  }

 private:
  PMDL chain_ = nullptr;
  std::uint64_t offset_ = 0;
  std::uint64_t bytes_ = 0;
  wdk::Piece piece_;
};

// One send's bounced memory, and its description if the packet has no room for it.
class Transfer {
 public:
  explicit Transfer(std::shared_ptr<transport::ClientLink> link) : link_(std::move(link)) {}
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

 private:
  friend class Transfers;

  // Bytes of the driver's that are copied back, and where they stand in the bounce buffer.
  struct Stretch {
    std::byte* driver = nullptr;
    const std::byte* bounce = nullptr;
    std::size_t bytes = 0;
  };
  // A view of pages that are not this process's (an MDL that a server's driver passes on).
  struct View {
    wdk::PageSpace* space = nullptr;
    void* base = nullptr;
    std::size_t pages = 0;
  };

  // Copies a piece to `bounce`; remembers the way back.
  [[nodiscard]] Result<void> CopyIn(const wdk::Piece& piece, std::byte* bounce);
  void CopyBack();
  void EndViews();

  const std::shared_ptr<transport::ClientLink> link_;
  transport::DonatedBuffer buffer_;
  std::vector<std::byte> header_;
  std::vector<Stretch> back_;
  std::vector<View> views_;

  // While the packet has ended without a completion.
  wire::TransactionId id_{};
  Transfer* next_ = nullptr;
};

// The transfers of one client channel. Any thread.
class Transfers {
 public:
  Transfers() = default;
  ~Transfers() { OnDetached(); }
  Transfers(const Transfers&) = delete;
  Transfers& operator=(const Transfers&) = delete;

  // What a packet takes along: its header, and what has to be kept until it has ended.
  struct Description {
    std::span<const std::byte> header;  // in `room`, or owned by `transfer`
    std::unique_ptr<Transfer> transfer;
  };
  // Describes `source`, in `room` if that is large enough. kOutOfMemory, also for pages that cannot be
  // mapped; kPacketTooLong for what no packet can describe.
  [[nodiscard]] static Result<Description> Describe(
      const std::shared_ptr<transport::ClientLink>& link, const ExternalSource& source,
      std::span<std::byte> room);

  // The packet has ended: Handler::OnExternalDone.
  void End(channel::Packet& packet, channel::Outcome outcome) KMCL_EXCLUDES(mutex_);
  void OnLateCompletion(wire::TransactionId id) KMCL_EXCLUDES(mutex_);
  void OnDetached() KMCL_EXCLUDES(mutex_);

 private:
  Mutex mutex_;
  Transfer* parked_ KMCL_GUARDED_BY(mutex_) = nullptr;  // the server may still write to their buffers
};

}  // namespace kmcl::endpoint
