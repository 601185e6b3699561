#include "transport/kvm/guest_session.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "errno_text.h"
#include "log.h"

namespace kmcl::transport::kvm {
namespace {

Result<Descriptor> MakeEvent() {
  Descriptor event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (event) return event;
  if (errno == EMFILE || errno == ENFILE) return std::unexpected(Error::kOutOfDescriptors);
  Log(LogLevel::kError, "kvm: eventfd: %s", ErrnoText(errno).words());
  return std::unexpected(Error::kSystemCall);
}

}  // namespace

// The handshake between signal and collection is that of Bells (bells.cc): the flag is set, then
// the eventfd is written, whose every write is an edge; the collector takes the edge, then the
// flags. A channel's own eventfd is an edge of the epoll, and by that one of whoever waits for the
// epoll: what was written before the epoll is asked is told by it, what is written later is an
// edge.
class GuestSession::Inbox final : public BellInbox {
 public:
  // Without an epoll no channel is routed here.
  Inbox(Descriptor event, Descriptor epoll) : event_(std::move(event)), epoll_(std::move(epoll)) {}

  int fd() const override { return epoll_ ? epoll_.get() : event_.get(); }

  ChannelSet Collect() override {
    ChannelSet set{};
    if (epoll_) CollectRouted(set);
    for (std::size_t index = 0; index < set.size(); ++index) {
      // Looking first leaves the cache lines of quiet words shared.
      if (flags_[index].load(std::memory_order_acquire) == 0) continue;
      set[index] |= flags_[index].exchange(0, std::memory_order_acq_rel);
    }
    return set;
  }

  void Ring(std::uint32_t channel) {
    const std::uint64_t bit = std::uint64_t{1} << channel % 64;
    if ((flags_[channel / 64].fetch_or(bit, std::memory_order_acq_rel) & bit) != 0) return;
    (void)eventfd_write(event_.get(), 1);  // nobody reads it; it takes centuries to fill
  }

  // Any thread. The channel 0 is none: its eventfd is ours.
  bool Watch(std::uint32_t channel, int event) {
    epoll_event watched{.events = EPOLLIN | EPOLLET, .data = {.u64 = channel}};
    return epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, event, &watched) == 0;
  }
  bool WatchOwn() { return Watch(0, event_.get()); }
  void Unwatch(int event) { epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, event, nullptr); }

 private:
  // Not for ever, however fast a guest signals: what is left is an edge.
  void CollectRouted(ChannelSet& set) {
    constexpr int kAtOnce = 64;
    constexpr int kRounds = (wire::kMaximumChannelId + kAtOnce) / kAtOnce;
    std::array<epoll_event, std::size_t{kAtOnce}> events;
    int count = kAtOnce;
    for (int round = 0; round < kRounds && count == kAtOnce; ++round) {
      count = epoll_wait(epoll_.get(), events.data(), kAtOnce, 0);
      for (int index = 0; index < count; ++index) {
        const std::uint64_t channel = events[static_cast<std::size_t>(index)].data.u64;
        if (channel != 0) set[channel / 64] |= std::uint64_t{1} << channel % 64;
      }
    }
  }

  const Descriptor event_;
  const Descriptor epoll_;
  std::array<std::atomic<std::uint64_t>, std::tuple_size_v<ChannelSet>> flags_{};
};

GuestSession::GuestSession(SignalRoutes* routes) : routes_(routes) {}

Result<std::shared_ptr<GuestSession>> GuestSession::Create(std::uint32_t inbox_count,
                                                           SignalRoutes* routes) {
  std::shared_ptr<GuestSession> session(new GuestSession(routes));
  Result<Descriptor> arrived = MakeEvent();
  if (!arrived) return std::unexpected(arrived.error());
  session->arrived_ = *std::move(arrived);
  for (std::uint32_t index = 0; index < inbox_count; ++index) {
    Result<Descriptor> event = MakeEvent();
    if (!event) return std::unexpected(event.error());
    Descriptor epoll(routes != nullptr ? epoll_create1(EPOLL_CLOEXEC) : -1);
    session->inboxes_.push_back(std::make_unique<Inbox>(*std::move(event), std::move(epoll)));
    if (routes == nullptr) continue;
    // Either the epoll could not be made, or it has no memory.
    if (!session->inboxes_.back()->WatchOwn()) return std::unexpected(Error::kOutOfDescriptors);
  }
  return session;
}

GuestSession::~GuestSession() {
  // Who made it without giving it to anybody has connected nothing.
  MutexLock lock(routed_mutex_);
  KMCL_CHECK(routed_.empty());
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

// A signal that comes as an exit although the channel is routed finds its flag: KVM is told after
// the one word has been set, and forgets before it is cleared.
void GuestSession::ListenTo(wire::ChannelId channel, bool wanted) {
  const std::uint32_t number = std::to_underlying(channel);
  KMCL_CHECK(number <= wire::kMaximumChannelId);
  const std::uint64_t bit = std::uint64_t{1} << number % 64;
  if (wanted) {
    listened_[number / 64].fetch_or(bit, std::memory_order_acq_rel);
    if (routes_ != nullptr) Connect(number);
  } else {
    {
      MutexLock lock(routed_mutex_);
      if (const auto found = routed_.find(number); found != routed_.end()) Disconnect(found);
    }
    listened_[number / 64].fetch_and(~bit, std::memory_order_acq_rel);
  }
}

void GuestSession::Connect(std::uint32_t channel) {
  MutexLock lock(routed_mutex_);
  if (routes_ended_ || routed_.contains(channel)) return;
  Result<Descriptor> event = MakeEvent();
  if (!event) return;
  Inbox& inbox = *inboxes_[channel % inboxes_.size()];
  if (!inbox.Watch(channel, event->get())) return;
  const wire::ConnectionId connection = wire::EventConnection(wire::ChannelId{channel});
  if (!routes_->Connect(std::to_underlying(connection), event->get())) {
    inbox.Unwatch(event->get());
    return;
  }
  routed_.emplace(channel, *std::move(event));
}

void GuestSession::Disconnect(Routed::iterator channel) {
  const wire::ConnectionId connection = wire::EventConnection(wire::ChannelId{channel->first});
  routes_->Disconnect(std::to_underlying(connection));
  inboxes_[channel->first % inboxes_.size()]->Unwatch(channel->second.get());
  routed_.erase(channel);
}

std::size_t GuestSession::routed() const {
  MutexLock lock(routed_mutex_);
  return routed_.size();
}

BellInbox& GuestSession::inbox(std::uint32_t index) {
  KMCL_CHECK(index < inboxes_.size());
  return *inboxes_[index];
}

void GuestSession::End() {
  {
    MutexLock lock(routed_mutex_);
    routes_ended_ = true;
    while (!routed_.empty()) Disconnect(routed_.begin());
  }
  {
    MutexLock lock(mutex_);
    ended_.store(true, std::memory_order_release);
    messages_.clear();
  }
  (void)eventfd_write(arrived_.get(), 1);
}

}  // namespace kmcl::transport::kvm
