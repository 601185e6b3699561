#include "endpoint/channel_end.h"

#include <algorithm>
#include <utility>

#include "endpoint/dispatcher.h"

namespace kmcl::endpoint {

ChannelEnd::ChannelEnd(channel::Side side, channel::Handler& handler, PassivePool& pool)
    : engine_(side, handler, *this),
      state_(pool, [this] { RunState(); }),
      passive_(pool, [this] { engine_.DeliverPassive(); }) {}

void ChannelEnd::SetPrimary(ChannelEnd& primary) {
  if (primary_.get() == &primary) return;
  {
    MutexLock lock(family_mutex_);
    std::erase_if(primary.subchannels_, [](const auto& each) {
      const auto sub = each.lock();
      return sub == nullptr || sub->is_retired();
    });
    primary.subchannels_.push_back(weak_from_this());
    subchannel_index_ = ++primary.last_subchannel_;
  }
  primary_ = primary.shared_from_this();
}

std::shared_ptr<ChannelEnd> ChannelEnd::SubchannelAfter(std::uint16_t index) const {
  std::shared_ptr<ChannelEnd> lowest;
  MutexLock lock(family_mutex_);
  for (const auto& each : subchannels_) {
    auto sub = each.lock();
    if (sub == nullptr || sub->is_retired() || sub->primary_.get() != this) continue;
    if (sub->subchannel_index_ <= index) continue;
    if (lowest == nullptr || sub->subchannel_index_ < lowest->subchannel_index_) lowest.swap(sub);
  }
  return lowest;
}

void ChannelEnd::RequestDispatch() {
  Seat* const seat = seat_.load(std::memory_order_acquire);
  if (seat != nullptr) seat->dispatcher.Kick(*seat);
}

void ChannelEnd::RequestPassive() {
  if (!orphaned_.load(std::memory_order_relaxed)) passive_.Request(weak_from_this().lock());
}

void ChannelEnd::RequestState() {
  if (!orphaned_.load(std::memory_order_relaxed)) state_.Request(weak_from_this().lock());
}

void ChannelEnd::RunState() {
  while (const auto request = engine_.RunState()) {
    CarryOut(*request);
    if (*request == channel::BusRequest::kDetach || *request == channel::BusRequest::kLeave) {
      engine_.handler().OnDetached();
    }
  }
}

void ChannelEnd::BeginDispatch(Dispatcher& dispatcher, std::shared_ptr<transport::Link> link,
                               std::uint32_t inbox, wire::ChannelId id, Monitor monitor) {
  MutexLock lock(dispatch_mutex_);
  link_ = std::move(link);
  inbox_ = inbox;
  id_ = id;
  spin_us_ = engine_.config().spin_us.value_or(dispatcher.spin_us());
  auto found = std::ranges::find_if(
      seats_, [&](const auto& seat) { return &seat->dispatcher == &dispatcher; });
  if (found == seats_.end()) {
    found = seats_.insert(found, std::make_unique<Seat>(*this, dispatcher));
  }
  Seat* const seat = found->get();
  seat_.store(seat, std::memory_order_seq_cst);
  dispatcher.AddChannel(*link_, inbox_, id_, std::shared_ptr<Seat>(shared_from_this(), seat),
                        std::move(monitor));
  link_->ListenTo(id_, true);
}

void ChannelEnd::EndDispatch() {
  Seat* seat = nullptr;
  {
    MutexLock lock(dispatch_mutex_);
    seat = seat_.exchange(nullptr, std::memory_order_seq_cst);
    if (seat == nullptr) return;
    link_->ListenTo(id_, false);
    seat->dispatcher.RemoveChannel(*link_, inbox_, id_);
    link_.reset();
  }
  using InTurn = Seat::InTurn;
  InTurn turn = seat->in_turn.load(std::memory_order_seq_cst);
  while (turn != InTurn::kNo) {
    // Only a turn that is known to be awaited has somebody to wake: most are not.
    if (turn == InTurn::kAwaited || seat->in_turn.compare_exchange_strong(turn, InTurn::kAwaited)) {
      seat->in_turn.wait(InTurn::kAwaited);
      turn = seat->in_turn.load(std::memory_order_seq_cst);
    }
  }
}

}  // namespace kmcl::endpoint
