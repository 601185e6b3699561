// An end is told of its channel's states.
#include "end.h"
#include "raw_owner.h"

namespace kmcl::sim {

void End::BeginCallback(const char* what, bool state) {
  bool& inside = state ? in_state_callback_ : in_packet_callback_;
  if (inside) Wrong(std::string(what) + " is told during another callback");
  if (dead) Wrong(std::string(what) + " is told to a dead process");
  if (Current().locks_held != 0) Wrong(std::string(what) + " is told under a lock");
  inside = true;
  const std::uint32_t slow = model_.plan.slow_us;
  if (slow != 0 && Choices().OneIn(state ? 3 : 20)) {
    WaitUntil([] { return false; }, NowNs() + Choices().Between(0, slow) * std::int64_t{1000},
              "a slow callback's end");
  }
}
void End::EndCallback(bool state) {
  (state ? in_state_callback_ : in_packet_callback_) = false;
  Changed();
}

NTSTATUS End::Opened(VMBCHANNEL channel) {
  End& self = Of(channel);
  const InTest test;
  self.BeginCallback("an open", true);
  if (self.open_) self.Wrong("opened twice");
  if (!self.server && self.is_subchannel() && !self.primary_->open_) {
    self.Wrong("opened before its primary");
  }
  self.open_ = true;
  self.closing_ = false;
  ++self.session_;
  self.fresh_ = ~0u;
  Note("end %llu is opened", self.number);
  self.EndCallback(true);
  return STATUS_SUCCESS;
}

void End::Started(VMBCHANNEL channel) {
  End& self = Of(channel);
  const InTest test;
  self.BeginCallback("a start", true);
  if (!self.open_) self.Wrong("started, but not open");
  if (self.started_) self.Wrong("started twice");
  self.started_ = true;
  Note("end %llu is started", self.number);
  if (self.is_raw()) self.raw_->OnStarted();
  self.Pump();
  self.EndCallback(true);
}

void End::PostStarted(VMBCHANNEL channel) {
  End& self = Of(channel);
  const InTest test;
  self.BeginCallback("the time after a start", true);
  if (!self.started_) self.Wrong("post-started, but not started");
  self.EndCallback(true);
}

void End::Suspend(VMBCHANNEL channel) {
  End& self = Of(channel);
  const InTest test;
  self.BeginCallback("a suspension", true);
  if (!self.started_) self.Wrong("suspended, but not started");
  if (self.in_packet_callback_) self.Wrong("suspended during a packet callback");
  if (self.is_raw()) self.raw_->OnSuspend();
  self.started_ = false;
  Note("end %llu is suspended", self.number);
  self.EndCallback(true);
}

void End::Closed(VMBCHANNEL channel) {
  End& self = Of(channel);
  const InTest test;
  self.BeginCallback("a close", true);
  if (self.started_) self.Wrong("closed, but not suspended");
  if (!self.open_) self.Wrong("closed, but not open");
  if (self.is_raw()) self.raw_->OnClosed();
  self.server ? self.EndViews() : self.GiveUpShares();
  if (self.outstanding_ != 0) self.Wrong("closed with packets outstanding");
  for (const End* const sub : self.subchannels_) {
    if (!self.server && sub->open_) sub->Wrong("its primary is closed before it");
  }
  self.open_ = false;
  Note("end %llu is closed", self.number);
  self.EndCallback(true);
}

void End::PnpFailure(VMBCHANNEL channel, NTSTATUS status) {
  End& self = Of(channel);
  const InTest test;
  self.BeginCallback("a failure", true);
  self.failed_ = true;
  Note("end %llu cannot be opened: %#llx", self.number, static_cast<std::uint32_t>(status));
  self.EndCallback(true);
}

}  // namespace kmcl::sim
