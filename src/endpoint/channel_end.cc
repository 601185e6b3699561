#include "endpoint/channel_end.h"

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

std::vector<std::shared_ptr<ChannelEnd>> ChannelEnd::Subchannels() const {
  std::vector<std::shared_ptr<ChannelEnd>> subchannels;
  MutexLock lock(family_mutex_);
  for (const auto& each : subchannels_) {
    auto sub = each.lock();
    if (sub != nullptr && !sub->is_retired() && sub->primary_.get() == this) {
      subchannels.push_back(std::move(sub));
    }
  }
  return subchannels;
}

void ChannelEnd::RequestDispatch() {
  Dispatcher* const dispatcher = dispatcher_.load(std::memory_order_acquire);
  if (dispatcher != nullptr) dispatcher->Kick(*this);
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
  dispatcher_.store(&dispatcher, std::memory_order_seq_cst);
  dispatcher.AddChannel(*link_, inbox_, id_, shared_from_this(), std::move(monitor));
  link_->ListenTo(id_, true);
}

void ChannelEnd::EndDispatch() {
  {
    MutexLock lock(dispatch_mutex_);
    Dispatcher* const dispatcher = dispatcher_.exchange(nullptr, std::memory_order_seq_cst);
    if (dispatcher == nullptr) return;
    link_->ListenTo(id_, false);
    dispatcher->RemoveChannel(*link_, inbox_, id_);
    link_.reset();
  }
  while (in_turn_.load(std::memory_order_seq_cst)) in_turn_.wait(true, std::memory_order_seq_cst);
}

}  // namespace kmcl::endpoint
