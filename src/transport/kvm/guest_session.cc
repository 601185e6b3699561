#include "transport/kvm/guest_session.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "log.h"

namespace kmcl::transport::kvm {
namespace {

Result<Descriptor> MakeEvent() {
  Descriptor event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (event) return event;
  if (errno == EMFILE || errno == ENFILE) return std::unexpected(Error::kOutOfDescriptors);
  Log(LogLevel::kError, "kvm: eventfd: %s", std::strerror(errno));
  return std::unexpected(Error::kSystemCall);
}

}  // namespace

// The handshake between signal and collection is that of Bells (bells.cc): the flag is set, then
// the eventfd is written, whose every write is an edge; the collector takes the edge, then the
// flags.
class GuestSession::Inbox final : public BellInbox {
 public:
  explicit Inbox(Descriptor event) : event_(std::move(event)) {}

  int fd() const override { return event_.get(); }

  ChannelSet Collect() override {
    ChannelSet set{};
    for (std::size_t index = 0; index < set.size(); ++index) {
      // Looking first leaves the cache lines of quiet words shared.
      if (flags_[index].load(std::memory_order_acquire) == 0) continue;
      set[index] = flags_[index].exchange(0, std::memory_order_acq_rel);
    }
    return set;
  }

  void Ring(std::uint32_t channel) {
    const std::uint64_t bit = std::uint64_t{1} << channel % 64;
    if ((flags_[channel / 64].fetch_or(bit, std::memory_order_acq_rel) & bit) != 0) return;
    (void)eventfd_write(event_.get(), 1);  // nobody reads it; it takes centuries to fill
  }

 private:
  const Descriptor event_;
  std::array<std::atomic<std::uint64_t>, std::tuple_size_v<ChannelSet>> flags_{};
};

Result<std::shared_ptr<GuestSession>> GuestSession::Create(std::uint32_t inbox_count) {
  std::shared_ptr<GuestSession> session(new GuestSession);
  Result<Descriptor> arrived = MakeEvent();
  if (!arrived) return std::unexpected(arrived.error());
  session->arrived_ = *std::move(arrived);
  for (std::uint32_t index = 0; index < inbox_count; ++index) {
    Result<Descriptor> event = MakeEvent();
    if (!event) return std::unexpected(event.error());
    session->inboxes_.push_back(std::make_unique<Inbox>(*std::move(event)));
  }
  return session;
}

GuestSession::Posted GuestSession::Post(std::span<const std::byte> message) {
  {
    MutexLock lock(mutex_);
    if (ended()) return Posted::kEnded;
    if (messages_.size() >= kMostMessages) return Posted::kFull;
    Message& queued = messages_.emplace_back();
    queued.bytes = message.size();
    std::ranges::copy(message, queued.payload.begin());
    if (messages_.size() > 1) return Posted::kDone;
  }
  (void)eventfd_write(arrived_.get(), 1);
  return Posted::kDone;
}

ReceivedMessage GuestSession::Receive(std::span<std::byte> buffer) {
  KMCL_CHECK(buffer.size() >= kMaximumMessageBytes);
  if (ended()) return {ReceiveStatus::kGone, 0};
  for (const bool is_quiet : {false, true}) {
    if (is_quiet) {
      // Whoever posts the first message after this look writes the eventfd again.
      eventfd_t count = 0;
      (void)eventfd_read(arrived_.get(), &count);
    }
    std::size_t bytes = 0;
    bool others_wait = false;
    {
      MutexLock lock(mutex_);
      if (messages_.empty()) continue;
      const Message& message = messages_.front();
      bytes = message.bytes;
      std::copy_n(message.payload.begin(), bytes, buffer.begin());
      messages_.pop_front();
      others_wait = !messages_.empty();
    }
    // The eventfd was read; it has to say so.
    if (is_quiet && others_wait) (void)eventfd_write(arrived_.get(), 1);
    return {ReceiveStatus::kMessage, bytes};
  }
  // It may have ended since, and the word of it been read with the rest.
  return {ended() ? ReceiveStatus::kGone : ReceiveStatus::kNothing, 0};
}

bool GuestSession::Signal(wire::ChannelId channel) {
  const std::uint32_t number = std::to_underlying(channel);
  if (number > wire::kMaximumChannelId) return false;
  const std::uint64_t listened = listened_[number / 64].load(std::memory_order_acquire);
  if ((listened >> number % 64 & 1) == 0) return false;
  inboxes_[number % inboxes_.size()]->Ring(number);
  return true;
}

void GuestSession::ListenTo(wire::ChannelId channel, bool wanted) {
  const std::uint32_t number = std::to_underlying(channel);
  KMCL_CHECK(number <= wire::kMaximumChannelId);
  const std::uint64_t bit = std::uint64_t{1} << number % 64;
  if (wanted) {
    listened_[number / 64].fetch_or(bit, std::memory_order_acq_rel);
  } else {
    listened_[number / 64].fetch_and(~bit, std::memory_order_acq_rel);
  }
}

BellInbox& GuestSession::inbox(std::uint32_t index) {
  KMCL_CHECK(index < inboxes_.size());
  return *inboxes_[index];
}

void GuestSession::End() {
  {
    MutexLock lock(mutex_);
    ended_.store(true, std::memory_order_release);
    messages_.clear();
  }
  (void)eventfd_write(arrived_.get(), 1);
}

}  // namespace kmcl::transport::kvm
