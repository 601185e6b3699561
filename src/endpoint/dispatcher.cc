#include "endpoint/dispatcher.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <exception>
#include <utility>

#include "log.h"
#include "wdk/irql.h"

namespace kmcl::endpoint {
namespace {

// Looks at an empty ring within one turn, shared by all channels that are being polled.
constexpr std::uint32_t kSpinsPerRound = 128;
// Inboxes looked at in each round with ready channels, in turn. A look costs a few dozen loads.
constexpr std::size_t kInboxesPerRound = 4;
// Rounds with ready channels between two tries of channels that wait for space unannounced.
constexpr std::uint32_t kRoundsPerRetry = 64;
// For peers that do not ring when they have freed space (no feature bit in their ring).
constexpr std::int64_t kBlockedPollNs = 1'000'000;

// After so long without news whoever looks lends its processor, each round, to whoever waits for
// one: that may be who is to send the news. Longer than what a peer takes that is awake.
constexpr std::int64_t kLookAloneNs = 5'000;
// How long a channel that is to be polled is looked at while others are, too; then by its bell.
constexpr std::int64_t kPolledAmongOthersNs = 50'000;

void Count(std::atomic<std::uint64_t>& counter) {
  counter.store(counter.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
}

std::int64_t Now() {
  timespec now{};
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

Result<std::unique_ptr<Dispatcher>> Dispatcher::Create(const DispatcherOptions& options) {
  std::unique_ptr<Dispatcher> dispatcher(new Dispatcher(options));
  dispatcher->epoll_ = epoll_create1(EPOLL_CLOEXEC);
  dispatcher->wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (dispatcher->epoll_ < 0 || dispatcher->wake_ < 0) {
    return std::unexpected(Error::kOutOfDescriptors);
  }
  epoll_event event{.events = EPOLLIN, .data = {.u64 = 0}};
  if (epoll_ctl(dispatcher->epoll_, EPOLL_CTL_ADD, dispatcher->wake_, &event) != 0) {
    return std::unexpected(Error::kOutOfMemory);
  }
  try {
    dispatcher->thread_ = std::thread([raw = dispatcher.get()] { raw->Run(); });
  } catch (const std::exception&) {
    return std::unexpected(Error::kOutOfMemory);
  }
  if (options.processor) {
    cpu_set_t only;
    CPU_ZERO(&only);
    if (*options.processor < CPU_SETSIZE) CPU_SET(*options.processor, &only);
    if (pthread_setaffinity_np(dispatcher->thread_.native_handle(), sizeof only, &only) != 0) {
      return std::unexpected(Error::kProcessorUnusable);
    }
  }
  return dispatcher;
}

Dispatcher::~Dispatcher() {
  if (thread_.joinable()) {
    stopping_.store(true, std::memory_order_seq_cst);
    const std::uint64_t one = 1;
    KMCL_CHECK(write(wake_, &one, sizeof one) == sizeof one);
    thread_.join();
  }
  // Kicks that came too late keep their channels.
  TakeKicks();
  if (wake_ >= 0) close(wake_);
  if (epoll_ >= 0) close(epoll_);
}

Result<void> Dispatcher::AddInbox(std::shared_ptr<transport::Link> link, std::uint32_t index) {
  auto inbox = std::make_shared<Inbox>();
  inbox->link = std::move(link);
  inbox->bells = &inbox->link->inbox(index);
  MutexLock lock(mutex_);
  inbox->token = next_token_++;
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = inbox->token}};
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, inbox->bells->fd(), &event) != 0) {
    return std::unexpected(Error::kOutOfMemory);
  }
  inboxes_[{inbox->link.get(), index}] = inbox;
  by_token_[inbox->token] = inbox;
  return {};
}

void Dispatcher::RemoveInbox(transport::Link& link, std::uint32_t index) {
  std::shared_ptr<Inbox> inbox;  // let go of outside the lock
  MutexLock lock(mutex_);
  const auto found = inboxes_.find({&link, index});
  if (found == inboxes_.end()) return;
  inbox = found->second;
  if (!inbox->suspended) epoll_ctl(epoll_, EPOLL_CTL_DEL, inbox->bells->fd(), nullptr);
  by_token_.erase(inbox->token);
  for (const auto& [id, served] : inbox->channels) {
    if (served.seat->channel.spin_us_ == kSpinForever) polled_channels_.fetch_sub(1);
  }
  inboxes_.erase(found);
}

void Dispatcher::SuspendInbox(transport::Link& link, std::uint32_t index) {
  MutexLock lock(mutex_);
  const auto found = inboxes_.find({&link, index});
  if (found == inboxes_.end() || std::exchange(found->second->suspended, true)) return;
  epoll_ctl(epoll_, EPOLL_CTL_DEL, found->second->bells->fd(), nullptr);
}

void Dispatcher::ResumeInbox(transport::Link& link, std::uint32_t index) {
  MutexLock lock(mutex_);
  const auto found = inboxes_.find({&link, index});
  if (found == inboxes_.end() || !std::exchange(found->second->suspended, false)) return;
  Inbox& inbox = *found->second;
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = inbox.token}};
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, inbox.bells->fd(), &event) != 0) {
    Log(LogLevel::kError, "a client's bells cannot be waited for any more");
  }
}

void Dispatcher::AddChannel(transport::Link& link, std::uint32_t index, wire::ChannelId id,
                            std::shared_ptr<Seat> seat, Monitor monitor) {
  MutexLock lock(mutex_);
  const auto found = inboxes_.find({&link, index});
  if (found == inboxes_.end()) return;  // the link is being taken down
  Inbox::Served& served = found->second->channels[static_cast<std::uint32_t>(id)];
  served = {.seat = std::move(seat), .monitor = std::move(monitor)};
  const std::uint64_t one = 1;
  if (served.seat->channel.spin_us_ == kSpinForever) {
    polled_channels_.fetch_add(1);
    KMCL_CHECK(write(wake_, &one, sizeof one) == sizeof one);
  }
  if (!served.monitor) return;
  if (served.monitor.pace == MonitorPace::kAnnounced &&
      served.monitor.page->latency(served.monitor.id) == 0) {
    return;
  }
  // It was never going to ring; or has asked another server's dispatcher, in whose place this one
  // comes, and rings no more.
  added_watches_.push_back({.seat = served.seat, .monitor = served.monitor});
  has_added_watches_.store(true, std::memory_order_release);
  KMCL_CHECK(write(wake_, &one, sizeof one) == sizeof one);
}

void Dispatcher::RemoveChannel(transport::Link& link, std::uint32_t index, wire::ChannelId id) {
  Inbox::Served served;  // let go of outside the lock
  MutexLock lock(mutex_);
  const auto found = inboxes_.find({&link, index});
  if (found == inboxes_.end()) return;
  auto& channels = found->second->channels;
  const auto entry = channels.find(static_cast<std::uint32_t>(id));
  if (entry == channels.end()) return;
  served = std::move(entry->second);
  channels.erase(entry);
  if (served.seat->channel.spin_us_ == kSpinForever) polled_channels_.fetch_sub(1);
}

void Dispatcher::Kick(Seat& seat) {
  if (seat.kicked.exchange(true, std::memory_order_acq_rel)) return;
  auto kept = seat.channel.weak_from_this().lock();
  if (kept == nullptr) return;  // it is being destroyed
  seat.kept_while_kicked = std::shared_ptr<Seat>(std::move(kept), &seat);
  Seat* head = kicks_.load(std::memory_order_relaxed);
  do {
    seat.next_kicked.store(head, std::memory_order_relaxed);
  } while (!kicks_.compare_exchange_weak(head, &seat, std::memory_order_seq_cst));
  if (sleeping_.load(std::memory_order_seq_cst)) {
    const std::uint64_t one = 1;
    KMCL_CHECK(write(wake_, &one, sizeof one) == sizeof one);
  }
}

void Dispatcher::TakeKicks() {
  if (kicks_.load(std::memory_order_relaxed) == nullptr) return;
  Seat* seat = kicks_.exchange(nullptr, std::memory_order_acquire);
  while (seat != nullptr) {
    Seat* const next = seat->next_kicked.load(std::memory_order_relaxed);
    auto kept = std::move(seat->kept_while_kicked);
    // From here on it may be kicked again; what led to the kick is visible to the turn that follows.
    seat->kicked.store(false, std::memory_order_seq_cst);
    MakeReady(std::move(kept));
    seat = next;
  }
}

void Dispatcher::MakeReady(std::shared_ptr<Seat> seat) {
  if (seat->ready) return;
  seat->ready = true;
  seat->active_at_ns = now_ns_;
  ready_.push_back(std::move(seat));
}

void Dispatcher::TakeBells(Inbox& inbox, const transport::ChannelSet& rung) {
  for (std::size_t word = 0; word < rung.size(); ++word) {
    for (std::uint64_t bits = rung[word]; bits != 0; bits &= bits - 1) {
      const auto id = static_cast<std::uint32_t>(word * 64) +
                      static_cast<std::uint32_t>(std::countr_zero(bits));
      const auto found = inbox.channels.find(id);
      if (found == inbox.channels.end()) continue;  // no such channel here: a stray bell
      const Inbox::Served& served = found->second;
      served.seat->channel.engine().CountBell();
      MakeReady(served.seat);
      if (served.monitor) WatchIfWanted(served);
    }
  }
}

void Dispatcher::WatchIfWanted(const Inbox::Served& served) {
  if (served.monitor.pace == MonitorPace::kUnannounced) return;  // watched from the beginning
  if (served.monitor.page->latency(served.monitor.id) == 0) return;
  const auto is_same = [&](const Watch& each) {
    return each.seat == served.seat && each.monitor == served.monitor;
  };
  if (std::ranges::any_of(watches_, is_same)) return;
  watches_.push_back({.seat = served.seat, .monitor = served.monitor});
}

void Dispatcher::TakeAddedWatches() {
  has_added_watches_.store(false, std::memory_order_relaxed);
  MutexLock lock(mutex_);
  for (Watch& each : added_watches_) watches_.push_back(std::move(each));
  added_watches_.clear();
}

void Dispatcher::LookAtMonitors() {
  for (std::size_t i = 0; i < watches_.size();) {
    if (LookAt(watches_[i])) {
      ++i;
    } else {
      std::swap(watches_[i], watches_.back());
      watches_.pop_back();
    }
  }
}

bool Dispatcher::LookAt(Watch& watch) {
  Seat* const seat = watch.seat.get();
  if (seat->channel.seat_.load(std::memory_order_relaxed) != seat) return false;  // closed
  const bool announced = watch.monitor.pace == MonitorPace::kAnnounced;
  const std::uint16_t latency = announced ? watch.monitor.page->latency(watch.monitor.id) : 0;
  if (announced && latency == 0) return false;  // a bell has come, or will
  if (now_ns_ < watch.next_look_ns) return true;
  if (watch.monitor.page->TakePending(watch.monitor.id)) {
    watch.found_at_ns = now_ns_;
    MakeReady(watch.seat);
  }
  const std::chrono::nanoseconds quiet(now_ns_ - watch.found_at_ns);
  watch.next_look_ns = now_ns_ + (announced ? MonitorPage::IntervalOf(latency)
                                            : MonitorPage::UnannouncedInterval(quiet))
                                     .count();
  return true;
}

std::int64_t Dispatcher::SleepTime() const {
  std::int64_t time = blocked_.empty() ? -1 : kBlockedPollNs;
  if (watches_.empty()) return time;
  for (const Watch& watch : watches_) {
    const std::int64_t left = std::max<std::int64_t>(0, watch.next_look_ns - now_ns_);
    if (time < 0 || left < time) time = left;
  }
  return time;
}

void Dispatcher::WaitForBells(std::int64_t timeout_ns) {
  epoll_event events[32];
  if (timeout_ns > 0) {
    // epoll_wait counts in milliseconds.
    pollfd any{.fd = epoll_, .events = POLLIN, .revents = 0};
    const timespec timeout{.tv_sec = timeout_ns / 1'000'000'000,
                           .tv_nsec = timeout_ns % 1'000'000'000};
    if (ppoll(&any, 1, &timeout, nullptr) == 0) return;
  }
  const int count = epoll_wait(epoll_, events, 32, timeout_ns < 0 ? -1 : 0);
  for (int i = 0; i < count; ++i) {
    const std::uint64_t token = events[i].data.u64;  // copied: it is not aligned there
    if (token == 0) {
      std::uint64_t ignored = 0;
      (void)!read(wake_, &ignored, sizeof ignored);  // kicks are taken in any case
      continue;
    }
    // Under the lock: an inbox that was suspended is not looked at any more.
    MutexLock lock(mutex_);
    const auto found = by_token_.find(token);
    if (found == by_token_.end() || found->second->suspended) continue;
    TakeBells(*found->second, found->second->bells->Collect());
  }
}

// While channels are ready: bells of the others, without a system call, some inboxes at a time.
void Dispatcher::PeekBells() {
  MutexLock lock(mutex_);
  const std::size_t count = std::min(inboxes_.size(), kInboxesPerRound);
  auto next = inboxes_.upper_bound(last_peeked_);
  for (std::size_t i = 0; i < count; ++i, ++next) {
    if (next == inboxes_.end()) next = inboxes_.begin();
    last_peeked_ = next->first;
    if (!next->second->suspended) TakeBells(*next->second, next->second->bells->Collect());
  }
}

// How often to look at the channel's ring once it is empty; 0: let the peer ring.
std::uint32_t Dispatcher::SpinsFor(const Seat& seat) const {
  const std::uint32_t spin_us = seat.channel.spin_us_;
  std::int64_t window_ns = 0;
  if (spin_us == kSpinForever) {
    window_ns = ready_.size() == 1 ? INT64_MAX : kPolledAmongOthersNs;
  } else if (options_.wakeup.count() == 0) {
    return 0;  // the only processor is the sender's, too
  } else if (spin_us == kSpinAdaptive) {
    window_ns = judge_.Pays() ? judge_.window().count() : 0;
  } else {
    window_ns = std::int64_t{spin_us} * 1000;
  }
  if (now_ns_ - seat.active_at_ns >= window_ns) return 0;
  return std::max<std::uint32_t>(1, kSpinsPerRound / static_cast<std::uint32_t>(ready_.size()));
}

bool Dispatcher::RunTurn(Seat& seat, bool& any_news) {
  seat.in_turn.store(Seat::InTurn::kYes, std::memory_order_seq_cst);
  bool stays_ready = false;
  if (seat.channel.seat_.load(std::memory_order_seq_cst) == &seat) {
    channel::Channel& engine = seat.channel.engine();
    const channel::Turn turn = engine.Dispatch(SpinsFor(seat));
    stays_ready = turn == channel::Turn::kMore || turn == channel::Turn::kEmpty;
    const std::uint64_t activity = engine.activity();
    if (turn == channel::Turn::kMore || activity != seat.seen_activity) {
      seat.seen_activity = activity;
      seat.active_at_ns = now_ns_;
      any_news = true;
    }
    if (!seat.blocked && engine.must_poll()) {
      seat.blocked = true;
      blocked_.push_back(std::shared_ptr<Seat>(seat.channel.shared_from_this(), &seat));
    }
  }
  if (seat.in_turn.exchange(Seat::InTurn::kNo) == Seat::InTurn::kAwaited) {
    seat.in_turn.notify_all();
  }
  return stays_ready;
}

bool Dispatcher::RunReady() {
  // Channels may become ready while others have their turn; they are appended and run next round.
  const std::size_t count = ready_.size();
  std::size_t kept = 0;
  bool any_news = false;
  for (std::size_t i = 0; i < count; ++i) {
    Seat& seat = *ready_[i];
    if (RunTurn(seat, any_news)) {
      if (kept != i) ready_[kept] = std::move(ready_[i]);
      ++kept;
    } else {
      seat.ready = false;
    }
  }
  ready_.erase(ready_.begin() + static_cast<std::ptrdiff_t>(kept),
               ready_.begin() + static_cast<std::ptrdiff_t>(count));
  return any_news;
}

void Dispatcher::RetryBlocked() {
  for (auto& seat : std::exchange(blocked_, {})) {
    seat->blocked = false;
    MakeReady(std::move(seat));
  }
}

void Dispatcher::Sleep() {
  const bool looked = std::exchange(looking_, false);
  if (looked) {
    judge_.OnVain();
    Count(vain_);
  }
  const std::int64_t from_ns = Now();
  // Announce the sleep, then look for kicks that did not see the announcement.
  sleeping_.store(true, std::memory_order_seq_cst);
  if (kicks_.load(std::memory_order_seq_cst) == nullptr) {
    Count(sleeps_);
    WaitForBells(SleepTime());
  }
  sleeping_.store(false, std::memory_order_relaxed);
  now_ns_ = active_at_ns_ = Now();
  TakeKicks();
  if (ready_.empty()) return;  // the time was up
  Count(wakeups_);
  if (!looked) judge_.OnWoken(std::chrono::nanoseconds(now_ns_ - from_ns));
}

void Dispatcher::Rest() {
  looking_ = true;
  if (options_.wakeup.count() != 0 && now_ns_ - active_at_ns_ < kLookAloneNs) {
    if (ready_.empty()) channel::Relax();
    return;
  }
  Count(yields_);
  sched_yield();
}

void Dispatcher::Run() {
  wdk::current_irql = wdk::kDispatchLevel;
  while (!stopping_.load(std::memory_order_relaxed)) {
    now_ns_ = Now();
    TakeKicks();
    if (has_added_watches_.load(std::memory_order_relaxed)) TakeAddedWatches();
    if (!watches_.empty()) LookAtMonitors();
    if (ready_.empty() && polled_channels_.load(std::memory_order_relaxed) == 0) {
      Sleep();
      RetryBlocked();
      continue;
    }
    const bool any_news = RunReady();
    PeekBells();
    if (++rounds_ % kRoundsPerRetry == 0) RetryBlocked();
    if (any_news) {
      if (std::exchange(looking_, false)) {
        judge_.OnFound();
        Count(found_);
      }
      active_at_ns_ = now_ns_;
    } else if (!ready_.empty() || polled_channels_.load(std::memory_order_relaxed) != 0) {
      Rest();
    }
  }
  ready_.clear();
  blocked_.clear();
  watches_.clear();
}

DispatchCounters Dispatcher::counters() const {
  return {.sleeps = sleeps_.load(std::memory_order_relaxed),
          .wakeups = wakeups_.load(std::memory_order_relaxed),
          .found = found_.load(std::memory_order_relaxed),
          .vain = vain_.load(std::memory_order_relaxed),
          .yields = yields_.load(std::memory_order_relaxed)};
}

}  // namespace kmcl::endpoint
