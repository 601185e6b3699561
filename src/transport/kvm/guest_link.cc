#include "transport/kvm/guest_link.h"

#include <unistd.h>

#include <utility>

#include "log.h"

namespace kmcl::transport::kvm {

// Sets the channel's flag at one processor.
class GuestLink::EventFlag final : public Doorbell {
 public:
  EventFlag(Synic& synic, const GuestSession& session, std::uint32_t processor, std::uint32_t flag)
      : synic_(synic), session_(session), processor_(processor), flag_(flag) {}

  void Ring() override {
    if (session_.ended()) return;  // the next life of the guest knows nothing of it
    synic_.SetEventFlag(processor_, flag_);
  }

 private:
  Synic& synic_;
  const GuestSession& session_;  // the link's, which outlives its doorbells
  const std::uint32_t processor_;
  const std::uint32_t flag_;
};

GuestLink::GuestLink(std::shared_ptr<GuestBus> bus, std::shared_ptr<GuestSession> session)
    : bus_(std::move(bus)), session_(std::move(session)) {}

GuestLink::~GuestLink() {
  session_->End();
  bus_->OnLinkGone();
}

Result<void> GuestLink::Send(std::span<const std::byte> message) {
  if (message.empty()) return std::unexpected(Error::kMessageTooShort);
  if (message.size() > kMaximumMessageBytes) return std::unexpected(Error::kMessageTooLong);
  if (session_->ended()) return std::unexpected(Error::kPeerGone);
  bus_->synic_.PostMessage(bus_->message_processor_.load(std::memory_order_relaxed), message);
  return {};
}

PeerIdentity GuestLink::peer() const { return {.pid = getpid(), .uid = getuid(), .gid = getgid()}; }

void GuestLink::Refuse(const char* reason) {
  if (session_->ended()) return;
  Log(LogLevel::kInfo, "kvm: the guest's connection ends: %s", reason);
  session_->End();
}

Result<Mapping> GuestLink::Map(std::span<const wire::PageNumber> pages) {
  return bus_->memory_.Map(pages);
}

Result<RingMapping> GuestLink::MapRings(std::span<const wire::PageNumber> pages,
                                        std::uint32_t downstream_page) {
  return bus_->memory_.MapRings(pages, downstream_page);
}

std::byte* GuestLink::Window(wire::PageNumber first, std::uint64_t count) {
  return bus_->memory_.Window(first, count);
}

std::unique_ptr<Doorbell> GuestLink::MakeDoorbell(wire::ChannelId channel, std::uint32_t index) {
  KMCL_CHECK(index < bell_count() && std::to_underlying(channel) <= wire::kMaximumChannelId);
  return std::make_unique<EventFlag>(bus_->synic_, *session_, index, std::to_underlying(channel));
}

// What the connection before this one left waiting would only confuse its successor, which may be
// another kernel.
void GuestLink::OnContact(wire::ProcessorIndex messages_to) {
  if (session_->ended()) return;
  const std::uint32_t processor = std::to_underlying(messages_to);
  bus_->synic_.Forget();
  bus_->message_processor_.store(processor < bell_count() ? processor : 0,
                                 std::memory_order_relaxed);
}

void GuestLink::ListenTo(wire::ChannelId channel, bool wanted) {
  session_->ListenTo(channel, wanted);
}

}  // namespace kmcl::transport::kvm
