// A thread that plays DISPATCH_LEVEL: it waits for bells and gives channels their turns.
//
// A channel belongs to one dispatcher while it is open. Bells arrive by inbox, one for many
// channels; kicks are requests from this process. While a client asks for it, the monitor of its
// channel is looked at too, by a timed sleep. Between packets the thread looks into the rings that
// were busy last, for as long as their channels' policies say (channel/wait_policy.h), then sleeps.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <unordered_map>
#include <vector>

#include "channel/wait_policy.h"
#include "channel/wakeup_cost.h"
#include "endpoint/channel_end.h"
#include "endpoint/monitor_page.h"
#include "mutex.h"
#include "result.h"
#include "transport/link.h"

namespace kmcl::endpoint {

using channel::kSpinAdaptive;
using channel::kSpinForever;
using channel::kSpinNever;

struct DispatcherOptions {
  std::uint32_t spin_us = kSpinAdaptive;   // for channels that do not say
  std::optional<std::uint32_t> processor;  // the only one that the thread shall use
  // Zero: one processor is all there is.
  std::chrono::nanoseconds wakeup = channel::WakeupCost();
};

// Of the thread number `index` of a client's or server's.
template <typename EndpointOptions>
DispatcherOptions OptionsOf(const EndpointOptions& options, std::uint32_t index) {
  DispatcherOptions made{.spin_us = options.spin_us};
  if (index < options.processors.size()) made.processor = options.processors[index];
  return made;
}

// What the thread has done; each counts up.
struct DispatchCounters {
  std::uint64_t sleeps = 0;
  std::uint64_t wakeups = 0;  // ends of sleeps that had a cause: a bell or a kick
  std::uint64_t found = 0;    // waits that ended while it looked
  std::uint64_t vain = 0;     // looks that ended in sleep
  std::uint64_t yields = 0;   // times it lent its processor to others while it looked
  friend bool operator==(const DispatchCounters&, const DispatchCounters&) = default;
};

class Dispatcher {
 public:
  // kOutOfDescriptors, kOutOfMemory; kProcessorUnusable.
  [[nodiscard]] static Result<std::unique_ptr<Dispatcher>> Create(const DispatcherOptions& options);
  // Not from its own thread; no channel belongs to it any more.
  ~Dispatcher();
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  // Any thread. An inbox is watched from AddInbox to RemoveInbox, which may come while it is in use.
  [[nodiscard]] Result<void> AddInbox(std::shared_ptr<transport::Link> link, std::uint32_t index)
      KMCL_EXCLUDES(mutex_);
  void RemoveInbox(transport::Link& link, std::uint32_t index) KMCL_EXCLUDES(mutex_);
  // Between the two nothing is taken from the inbox, by whichever thread; its channels stay.
  void SuspendInbox(transport::Link& link, std::uint32_t index) KMCL_EXCLUDES(mutex_);
  void ResumeInbox(transport::Link& link, std::uint32_t index) KMCL_EXCLUDES(mutex_);
  void AddChannel(transport::Link& link, std::uint32_t index, wire::ChannelId id,
                  std::shared_ptr<Seat> seat, Monitor monitor = {}) KMCL_EXCLUDES(mutex_);
  void RemoveChannel(transport::Link& link, std::uint32_t index, wire::ChannelId id)
      KMCL_EXCLUDES(mutex_);

  // Gives the channel a turn soon. Any thread; a system call only if the dispatcher sleeps.
  void Kick(Seat& seat);

  // Any thread.
  std::uint32_t spin_us() const { return options_.spin_us; }
  DispatchCounters counters() const;

 private:
  using Key = std::pair<transport::Link*, std::uint32_t>;
  struct Inbox {
    std::shared_ptr<transport::Link> link;
    transport::BellInbox* bells = nullptr;
    std::uint64_t token = 0;
    bool suspended = false;
    struct Served {
      std::shared_ptr<Seat> seat;
      Monitor monitor;
    };
    std::unordered_map<std::uint32_t, Served> channels;
  };
  // A monitor whose client wants it looked at.
  struct Watch {
    std::shared_ptr<Seat> seat;
    Monitor monitor;
    std::int64_t next_look_ns = 0;
    std::int64_t found_at_ns = 0;  // the last bit
  };

  explicit Dispatcher(const DispatcherOptions& options)
      : options_(options), judge_(options.wakeup) {}
  void Run();
  void Sleep() KMCL_EXCLUDES(mutex_);
  // A round has brought nothing.
  void Rest();
  // Waits at most so long, or without limit if negative.
  void WaitForBells(std::int64_t timeout_ns) KMCL_EXCLUDES(mutex_);
  void PeekBells() KMCL_EXCLUDES(mutex_);
  void TakeBells(Inbox& inbox, const transport::ChannelSet& rung) KMCL_REQUIRES(mutex_);
  void TakeKicks();
  // Monitors: begun to be watched when a bell has come and the client asks for it, until it does no more.
  void WatchIfWanted(const Inbox::Served& served);
  void TakeAddedWatches() KMCL_EXCLUDES(mutex_);
  void LookAtMonitors();
  bool LookAt(Watch& watch);  // false: no longer
  std::int64_t SleepTime() const;
  void MakeReady(std::shared_ptr<Seat> seat);
  bool RunReady();  // whether anything came
  void RetryBlocked();
  // False when the channel leaves the ready list: it sleeps, or is stopped.
  bool RunTurn(Seat& seat, bool& any_news);
  std::uint32_t SpinsFor(const Seat& seat) const;

  const DispatcherOptions options_;
  int epoll_ = -1;
  int wake_ = -1;
  std::atomic<bool> stopping_{false};
  // Sleep handshake with Kick (seq_cst): sleeping_ then kicks_ here, kicks_ then sleeping_ there.
  std::atomic<bool> sleeping_{false};
  std::atomic<Seat*> kicks_{nullptr};

  // Channels that are never to be slept on.
  std::atomic<std::uint32_t> polled_channels_{0};

  Mutex mutex_;
  std::map<Key, std::shared_ptr<Inbox>> inboxes_ KMCL_GUARDED_BY(mutex_);
  std::unordered_map<std::uint64_t, std::shared_ptr<Inbox>> by_token_ KMCL_GUARDED_BY(mutex_);
  std::uint64_t next_token_ KMCL_GUARDED_BY(mutex_) = 1;  // 0 is wake_
  Key last_peeked_ KMCL_GUARDED_BY(mutex_){};
  std::vector<Watch> added_watches_ KMCL_GUARDED_BY(mutex_);
  std::atomic<bool> has_added_watches_{false};

  // The thread's own.
  std::vector<std::shared_ptr<Seat>> ready_;
  std::vector<std::shared_ptr<Seat>> blocked_;  // waiting for space a peer does not announce
  std::vector<Watch> watches_;
  std::int64_t now_ns_ = 0;
  std::int64_t active_at_ns_ = 0;  // something came
  bool looking_ = false;           // since then, rings have been found empty
  std::uint32_t rounds_ = 0;
  channel::SpinJudge judge_;

  // Written by the thread.
  std::atomic<std::uint64_t> sleeps_{0};
  std::atomic<std::uint64_t> wakeups_{0};
  std::atomic<std::uint64_t> found_{0};
  std::atomic<std::uint64_t> vain_{0};
  std::atomic<std::uint64_t> yields_{0};

  std::thread thread_;
};

}  // namespace kmcl::endpoint
