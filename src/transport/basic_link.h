// What every link of this room is made of: a message socket, the client's memory, and the bells.
#pragma once

#include <memory>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "transport/bells.h"
#include "transport/link.h"
#include "transport/message_socket.h"
#include "transport/nonpaged_pool.h"
#include "transport/partition_memory.h"

namespace kmcl::transport {

// The bell pages of a memory, populated, as Bells wants them.
[[nodiscard]] inline Result<Mapping> MapBellPages(const PartitionMemory& memory,
                                                  std::uint32_t bell_count) {
  std::vector<wire::PageNumber> pages;
  for (std::uint64_t page = 0; page < bell_count; ++page) pages.push_back(wire::PageNumber{page});
  return memory.MapNow(pages);
}

// `Interface` is Link or ClientLink. A link without memory is not ready.
template <typename Interface>
class BasicLink : public Interface {
 public:
  Result<void> Send(std::span<const std::byte> message) override { return socket_.Send(message); }
  ReceivedMessage Receive(std::span<std::byte> buffer) override { return socket_.Receive(buffer); }
  void Flush() override { socket_.Flush(); }
  std::size_t unsent_messages() const override { return socket_.unsent_messages(); }
  int message_fd() const override { return socket_.fd(); }
  PeerIdentity peer() const override { return peer_; }
  bool ready() const override { return memory_.has_value(); }
  void Refuse(const char* reason) override { socket_.Break(reason); }

  Result<Mapping> Map(std::span<const wire::PageNumber> pages) override {
    KMCL_CHECK(ready());
    return memory_->Map(pages);
  }
  Result<RingMapping> MapRings(std::span<const wire::PageNumber> pages,
                               std::uint32_t downstream_page) override {
    KMCL_CHECK(ready());
    return memory_->MapRings(pages, downstream_page);
  }
  std::byte* Window(wire::PageNumber first, std::uint64_t count) override {
    KMCL_CHECK(ready());
    return memory_->Window(first, count);
  }

  std::uint32_t bell_count() const override { return bells_.count(); }
  BellInbox& inbox(std::uint32_t index) override { return bells_.inbox(index); }
  std::unique_ptr<Doorbell> MakeDoorbell(wire::ChannelId channel, std::uint32_t index) override {
    return bells_.MakeDoorbell(channel, index);
  }

 protected:
  explicit BasicLink(MessageSocket socket) : socket_(std::move(socket)), peer_(socket_.peer()) {}

  MessageSocket socket_;
  PeerIdentity peer_;
  std::optional<PartitionMemory> memory_;
  Bells bells_;
};

// A server's end whose handshake is done, or was not needed.
class ReadyServerLink final : public BasicLink<Link> {
 public:
  ReadyServerLink(MessageSocket socket, PartitionMemory memory, Bells bells)
      : BasicLink(std::move(socket)) {
    memory_ = std::move(memory);
    bells_ = std::move(bells);
  }
};

// A client's end.
class ReadyClientLink final : public BasicLink<ClientLink> {
 public:
  ReadyClientLink(MessageSocket socket, PartitionMemory memory, Bells bells)
      : BasicLink(std::move(socket)) {
    memory_ = std::move(memory);
    bells_ = std::move(bells);
  }

  Result<PageRun> AllocatePages(std::uint32_t count) override { return memory_->Allocate(count); }
  void FreePages(PageRun run) override { memory_->Free(run); }
  Result<DonatedBuffer> AllocateBuffer(std::size_t bytes) override {
    return memory_->AllocateBuffer(bytes);
  }
  void FreeBuffer(const DonatedBuffer& buffer) override { memory_->FreeBuffer(buffer); }
  std::optional<wire::PageNumber> PageOf(const void* address) const override {
    return PageOfNonPaged(address);
  }
};

}  // namespace kmcl::transport
