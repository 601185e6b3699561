// One channel of an endpoint: the engine, and the turns it gets. What it means to be on the bus
// differs at the two ends and is left to ServerChannel and ClientChannel.
//
// Always held by shared pointers: a turn that was asked for keeps the channel until it was taken.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "channel/channel.h"
#include "endpoint/monitor_page.h"
#include "endpoint/passive_pool.h"
#include "mutex.h"
#include "result.h"
#include "transport/link.h"
#include "wire/ids.h"

namespace kmcl::endpoint {

class ChannelEnd;
class Dispatcher;

// A channel's place at one dispatcher, and what that keeps of it. When the channel is opened again
// another dispatcher may have it, while the one before still has a turn to give that was asked for
// in the meantime: it finds the place empty, and takes nothing from the turns at the new one.
struct Seat {
  Seat(ChannelEnd& its_channel, Dispatcher& its_dispatcher)
      : channel(its_channel), dispatcher(its_dispatcher) {}

  ChannelEnd& channel;
  Dispatcher& dispatcher;
  // A handshake with EndDispatch (seq_cst): in_turn then the channel's seat_ here, seat_ then
  // in_turn there.
  enum class InTurn : std::uint32_t { kNo, kYes, kAwaited };
  std::atomic<InTurn> in_turn{InTurn::kNo};
  std::atomic<bool> kicked{false};
  std::atomic<Seat*> next_kicked{nullptr};
  std::shared_ptr<Seat> kept_while_kicked;  // and with it the channel
  // The dispatcher's thread's.
  bool ready = false;    // in its list of ready channels
  bool blocked = false;  // in its list of channels that wait for space unannounced
  std::int64_t active_at_ns = 0;
  std::uint64_t seen_activity = 0;
};

class ChannelEnd : public channel::Turns, public std::enable_shared_from_this<ChannelEnd> {
 public:
  ChannelEnd(channel::Side side, channel::Handler& handler, PassivePool& pool);
  ~ChannelEnd() override = default;

  channel::Channel& engine() { return engine_; }

  // In the Init window. Makes this end a sub-channel of `primary`, an end of the same endpoint that
  // is no sub-channel itself; a later call replaces an earlier one.
  void SetPrimary(ChannelEnd& primary) KMCL_EXCLUDES(family_mutex_);
  bool is_subchannel() const { return primary_ != nullptr; }
  std::uint16_t subchannel_index() const { return subchannel_index_; }  // 0: it is none
  // Of those that have not been cleaned up the one with the lowest index above this; nullptr: there
  // is none. Allocates nothing: a driver may disable a channel without memory.
  std::shared_ptr<ChannelEnd> SubchannelAfter(std::uint16_t index) const
      KMCL_EXCLUDES(family_mutex_);

  // Puts the channel on the bus. kNotDisabled, kNotConfigured, kNoBus, kOfferDuplicate, ...; after
  // a failure the channel is disabled as before, and the Init window as it was.
  [[nodiscard]] virtual Result<void> Enable() = 0;
  // Takes it off the bus, and waits until it is torn down.
  virtual void Disable() { engine_.Disable(); }

  // The owner has cleaned the disabled channel up; its handler is gone. (Turns that were asked for
  // may keep this object a little longer; they find nothing to do.)
  void Retire() { retired_.store(true, std::memory_order_relaxed); }
  bool is_retired() const { return retired_.load(std::memory_order_relaxed); }
  // The endpoint goes and leaves this disabled channel behind: its owner forgot it.
  void Orphan() { orphaned_.store(true, std::memory_order_relaxed); }

  // Turns.
  void RequestDispatch() final;
  void RequestPassive() final;
  void RequestState() final;

 protected:
  ChannelEnd* primary() const { return primary_.get(); }

  // Carries out what the engine wants the bus to know, on a passive thread; may wait for the bus.
  virtual void CarryOut(channel::BusRequest request) = 0;

  // Which thread dispatches this channel, and watches its monitor if it has one, from before it is
  // open until its rings are gone. Both are called by the end that owns the bus; EndDispatch
  // returns once no dispatch turn runs any more.
  void BeginDispatch(Dispatcher& dispatcher, std::shared_ptr<transport::Link> link,
                     std::uint32_t inbox, wire::ChannelId id, Monitor monitor = {})
      KMCL_EXCLUDES(dispatch_mutex_);
  void EndDispatch() KMCL_EXCLUDES(dispatch_mutex_);

 private:
  friend class Dispatcher;

  void RunState();

  channel::Channel engine_;
  // Written in the Init window.
  std::shared_ptr<ChannelEnd> primary_;
  std::uint16_t subchannel_index_ = 0;
  inline static Mutex family_mutex_;  // every channel's: taken when one is set up or closed
  std::vector<std::weak_ptr<ChannelEnd>> subchannels_ KMCL_GUARDED_BY(family_mutex_);
  std::uint16_t last_subchannel_ KMCL_GUARDED_BY(family_mutex_) = 0;

  Strand state_;
  Strand passive_;

  std::atomic<bool> retired_{false};
  std::atomic<bool> orphaned_{false};
  // The owner may end what the bus thread is about to begin.
  Mutex dispatch_mutex_;
  std::shared_ptr<transport::Link> link_ KMCL_GUARDED_BY(dispatch_mutex_);
  std::uint32_t inbox_ KMCL_GUARDED_BY(dispatch_mutex_) = 0;
  wire::ChannelId id_ KMCL_GUARDED_BY(dispatch_mutex_){};

  // The current one; one for each dispatcher that it ever had.
  std::atomic<Seat*> seat_{nullptr};
  std::vector<std::unique_ptr<Seat>> seats_ KMCL_GUARDED_BY(dispatch_mutex_);
  std::uint32_t spin_us_ = 0;  // written before the dispatcher hears of the channel
};

}  // namespace kmcl::endpoint
