// The server's end towards a guest: messages by its SynIC's message slot, bells by event flags and
// hypercalls, and the guest's memory.
#pragma once

#include <memory>
#include <optional>

#include "transport/kvm/guest_bus.h"
#include "transport/link.h"

namespace kmcl::transport::kvm {

class GuestLink final : public Link {
 public:
  GuestLink(std::shared_ptr<GuestBus> bus, std::shared_ptr<GuestSession> session);
  ~GuestLink() override;

  Result<void> Send(std::span<const std::byte> message) override;
  ReceivedMessage Receive(std::span<std::byte> buffer) override {
    return session_->Receive(buffer);
  }
  // What the guest's slot does not take at once waits in the SynIC, which moves it on by itself. A
  // guest that leaves it there is not heard (GuestBus::Post).
  void Flush() override {}
  std::size_t unsent_messages() const override { return 0; }
  int message_fd() const override { return session_->message_fd(); }
  // This process: it runs the guest.
  PeerIdentity peer() const override;
  bool ready() const override { return true; }
  void Refuse(const char* reason) override;

  Result<Mapping> Map(std::span<const wire::PageNumber> pages) override;
  Result<RingMapping> MapRings(std::span<const wire::PageNumber> pages,
                               std::uint32_t downstream_page) override;
  std::optional<wire::PageNumber> FirstMissing(
      std::span<const wire::PageNumber> pages) const override {
    return bus_->memory_.FirstMissing(pages);
  }
  std::byte* Window(wire::PageNumber first, std::uint64_t count) override;

  // One for each virtual processor.
  std::uint32_t bell_count() const override { return bus_->processor_count_; }
  BellInbox& inbox(std::uint32_t index) override { return session_->inbox(index); }
  std::unique_ptr<Doorbell> MakeDoorbell(wire::ChannelId channel, std::uint32_t index) override;

  void OnContact(wire::ProcessorIndex messages_to) override;
  void ListenTo(wire::ChannelId channel, bool wanted) override;

 private:
  class EventFlag;

  const std::shared_ptr<GuestBus> bus_;
  const std::shared_ptr<GuestSession> session_;
};

}  // namespace kmcl::transport::kvm
