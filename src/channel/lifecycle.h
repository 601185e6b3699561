// What a channel does next: the state model of KMCL (reference 4.1 to 4.5) as a plain value.
//
// Two axes. Connection: disabled, enabled (offered, or waiting for an offer), open. Run: paused, active.
// The user and the bus set wishes (On... functions) at any time and from any thread; the state worker
// asks Next() for one step at a time, carries it out, and says Done(). Every callback is a step, so no two
// state callbacks of a channel overlap, and a wish that arrives while a step runs waits for its end.
//
// Not locked: the channel's state lock guards it. No callback, no clock, no I/O.
#pragma once

#include <cstdint>

namespace kmcl::channel {

enum class Side : std::uint8_t { kServer, kClient };

class Lifecycle {
 public:
  // Where the channel is. A phase with a step is left by Done() of that step.
  enum class Phase : std::uint8_t {
    kDisabled,       // not on the bus
    kEnabled,        // offered or waiting; server: also after the client has closed ("Stopped")
    kOpening,        // EvtChannelOpened runs
    kAccepting,      // the open stands; the bus is told
    kRejecting,      // EvtChannelOpened refused; the bus is told, rings go
    kPaused,         // open, incoming queue off
    kStarting,       // EvtChannelStarted runs
    kPostStarting,   // the queue is on; EvtChannelPostStarted runs
    kActive,         // open, incoming queue on
    kSuspending,     // queue off; EvtChannelSuspend runs
    kPauseDraining,  // waits until no incoming packet is outstanding, then kPaused
    kCancelling,     // outgoing packets are being completed with "removed"
    kCloseDraining,  // waits until no incoming packet is outstanding, then closes
    kSayingClose,    // client: the server is told before EvtChannelClosed
    kClosing,        // EvtChannelClosed runs
    kDetaching,      // rings and bus let go of each other
    kFailing,        // client: EvtChannelPnpFailure runs
    kLeaving,        // the offer is revoked, or the wait for one ends
  };

  // What the state worker shall do.
  enum class Step : std::uint8_t {
    kNone,         // nothing until the next wish
    kOpened,       // callback; Done(whether it succeeded)
    kAccept,       // tell the bus that the open stands
    kReject,       // tell the bus that it does not; let go of the rings
    kStarted,      // outgoing ring on; callback
    kPostStarted,  // incoming queue on; callback
    kSuspend,      // incoming queue off; callback; outgoing data off
    kCancel,       // complete outgoing packets with "removed"
    kSayClose,     // tell the server
    kClosed,       // callback
    kDetach,       // let go of the rings; tell the bus
    kFail,         // callback
    kLeave,        // revoke the offer, or stop waiting; complete what is queued with "removed"
  };

  explicit Lifecycle(Side side) : side_(side), run_wanted_(side == Side::kClient) {}

  Phase phase() const { return phase_; }
  Side side() const { return side_; }

  // Wishes of the user. OnEnable requires kDisabled; UndoEnable takes it back, unless whoever disabled
  // meanwhile has led it on already.
  // News of an earlier life that came late does not count.
  void OnEnable() {
    phase_ = Phase::kEnabled;
    close_wanted_ = open_pending_ = failure_pending_ = false;
  }
  void UndoEnable() {
    if (phase_ != Phase::kEnabled) return;
    phase_ = Phase::kDisabled;
    if (disable_wanted_) BecomeDisabled();  // whoever disabled meanwhile waits for that
  }
  void OnDisable() { disable_wanted_ = true; }
  void OnStart() { run_wanted_ = true; }
  void OnPause() { run_wanted_ = false; }

  // Whether the bus may attach rings now. While the last ones are being let go of, the bus already
  // knows of it and the client may open again.
  bool may_open() const {
    if (disable_wanted_ || open_pending_) return false;
    return phase_ == Phase::kEnabled ||
           (side_ == Side::kServer && (phase_ == Phase::kDetaching || phase_ == Phase::kRejecting));
  }

  // News from the bus. OnOpen: rings are attached. OnClose: the other end closed, rescinded or died, or
  // broke a ring. OnFailure (client): the offer was there, but could not be opened.
  void OnOpen() { open_pending_ = true; }
  void OnClose() { close_wanted_ = true; }
  void OnFailure() { failure_pending_ = true; }

  // Saving. A save begins in a phase that nothing leads out of but a wish; wishes then wait for its
  // end. The owner who disables ends the save first.
  enum class SaveGate : std::uint8_t { kReady, kBusy, kRefused };
  SaveGate save_gate() const {
    switch (phase_) {
      case Phase::kEnabled:
        if (saving_ || disable_wanted_) return SaveGate::kRefused;
        return open_pending_ || failure_pending_ ? SaveGate::kBusy : SaveGate::kReady;
      case Phase::kPaused:
        if (saving_ || disable_wanted_) return SaveGate::kRefused;
        if (close_wanted_) return SaveGate::kBusy;
        return run_wanted_ ? SaveGate::kRefused : SaveGate::kReady;
      case Phase::kOpening:
      case Phase::kAccepting:
      case Phase::kRejecting:
      case Phase::kCancelling:
      case Phase::kCloseDraining:
      case Phase::kSayingClose:
      case Phase::kClosing:
      case Phase::kDetaching:
        return disable_wanted_ ? SaveGate::kRefused : SaveGate::kBusy;  // it passes
      case Phase::kDisabled:
      case Phase::kStarting:
      case Phase::kPostStarting:
      case Phase::kActive:
      case Phase::kSuspending:
      case Phase::kPauseDraining:
      case Phase::kFailing:
      case Phase::kLeaving:
        return SaveGate::kRefused;
    }
    return SaveGate::kRefused;
  }
  void BeginSave() { saving_ = true; }
  void EndSave() { saving_ = false; }
  bool saving() const { return saving_; }
  bool run_wanted() const { return run_wanted_; }
  // Enabled, and nothing has asked for an open or a close.
  bool awaits_open() const {
    return phase_ == Phase::kEnabled && !open_pending_ && !tearing_down() && !saving_;
  }

  // The next step, and the phase in which it runs. `drained` is asked when a drain waits.
  template <typename Drained>
  Step Next(Drained&& drained) {
    switch (phase_) {
      case Phase::kDisabled:
        return Step::kNone;
      case Phase::kEnabled:
        if (saving_) return Step::kNone;
        if (open_pending_ && tearing_down()) return Reject();
        if (open_pending_) return Enter(Phase::kOpening, Step::kOpened);
        if (failure_pending_) return Enter(Phase::kFailing, Step::kFail);
        if (disable_wanted_) return Enter(Phase::kLeaving, Step::kLeave);
        close_wanted_ = false;  // nothing was open
        return Step::kNone;
      case Phase::kPaused:
        if (saving_) return Step::kNone;
        if (tearing_down()) return Enter(Phase::kCancelling, Step::kCancel);
        if (run_wanted_) return Enter(Phase::kStarting, Step::kStarted);
        return Step::kNone;
      case Phase::kActive:
        if (tearing_down() || !run_wanted_) return Enter(Phase::kSuspending, Step::kSuspend);
        return Step::kNone;
      case Phase::kPauseDraining:
        if (tearing_down()) return Enter(Phase::kCancelling, Step::kCancel);
        if (!drained()) return Step::kNone;
        phase_ = Phase::kPaused;
        return Next(drained);
      case Phase::kCloseDraining:
        if (!drained()) return Step::kNone;
        if (side_ == Side::kClient) return Enter(Phase::kSayingClose, Step::kSayClose);
        return Enter(Phase::kClosing, Step::kClosed);
      case Phase::kOpening:
      case Phase::kAccepting:
      case Phase::kRejecting:
      case Phase::kStarting:
      case Phase::kPostStarting:
      case Phase::kSuspending:
      case Phase::kCancelling:
      case Phase::kSayingClose:
      case Phase::kClosing:
      case Phase::kDetaching:
      case Phase::kFailing:
      case Phase::kLeaving:
        break;
    }
    return pending_step_;
  }

  // The step that Next() named has been carried out. `success` matters for kOpened.
  void Done(bool success = true) {
    pending_step_ = Step::kNone;
    switch (phase_) {
      case Phase::kOpening:
        if (success) {
          open_pending_ = false;
          Enter(Phase::kAccepting, Step::kAccept);
        } else {
          Reject();
        }
        return;
      case Phase::kAccepting:
        phase_ = Phase::kPaused;
        return;
      case Phase::kRejecting:
        AfterDetach();
        return;
      case Phase::kStarting:
        // Every Started is paired with a Suspend, also when teardown began meanwhile; then the queue is
        // never switched on and PostStarted is skipped (reference 4.5).
        if (tearing_down()) {
          Enter(Phase::kSuspending, Step::kSuspend);
        } else {
          Enter(Phase::kPostStarting, Step::kPostStarted);
        }
        return;
      case Phase::kPostStarting:
        phase_ = Phase::kActive;
        return;
      case Phase::kSuspending:
        phase_ = Phase::kPauseDraining;
        return;
      case Phase::kCancelling:
        phase_ = Phase::kCloseDraining;
        return;
      case Phase::kSayingClose:
        Enter(Phase::kClosing, Step::kClosed);
        return;
      case Phase::kClosing:
        // Before the bus is told: a client may open, and close, again while Done is still to come.
        close_wanted_ = false;
        Enter(Phase::kDetaching, Step::kDetach);
        return;
      case Phase::kDetaching:
        AfterDetach();
        return;
      case Phase::kFailing:
        failure_pending_ = false;
        Enter(Phase::kLeaving, Step::kLeave);
        return;
      case Phase::kLeaving:
        BecomeDisabled();
        return;
      case Phase::kDisabled:
      case Phase::kEnabled:
      case Phase::kPaused:
      case Phase::kActive:
      case Phase::kPauseDraining:
      case Phase::kCloseDraining:
        return;  // no step runs in these
    }
  }

  // For those who wait. Running: from EvtChannelStarted until the drain after EvtChannelSuspend ended.
  bool running() const {
    switch (phase_) {
      case Phase::kStarting:
      case Phase::kPostStarting:
      case Phase::kActive:
      case Phase::kSuspending:
      case Phase::kPauseDraining:
        return true;
      case Phase::kCancelling:
      case Phase::kCloseDraining:
      case Phase::kDisabled:
      case Phase::kEnabled:
      case Phase::kOpening:
      case Phase::kAccepting:
      case Phase::kRejecting:
      case Phase::kPaused:
      case Phase::kSayingClose:
      case Phase::kClosing:
      case Phase::kDetaching:
      case Phase::kFailing:
      case Phase::kLeaving:
        return false;
    }
    return false;
  }
  // EvtChannelOpened has been called and EvtChannelClosed has not returned.
  bool open() const {
    return phase_ >= Phase::kOpening && phase_ <= Phase::kClosing && phase_ != Phase::kRejecting;
  }
  bool tearing_down() const { return disable_wanted_ || close_wanted_; }
  // Grows each time the channel becomes disabled.
  std::uint64_t times_disabled() const { return times_disabled_; }

 private:
  Step Enter(Phase phase, Step step) {
    phase_ = phase;
    pending_step_ = step;
    return step;
  }

  // As for kDetaching: what the bus says from here on is about the next open.
  Step Reject() {
    open_pending_ = close_wanted_ = false;
    return Enter(Phase::kRejecting, Step::kReject);
  }

  void AfterDetach() {
    if (side_ == Side::kClient) {
      Enter(Phase::kLeaving, Step::kLeave);  // a client's Closed is transient (reference 4.1)
    } else {
      phase_ = Phase::kEnabled;
    }
  }

  void BecomeDisabled() {
    phase_ = Phase::kDisabled;
    run_wanted_ = side_ == Side::kClient;
    disable_wanted_ = close_wanted_ = open_pending_ = failure_pending_ = false;
    ++times_disabled_;
  }

  Side side_;
  Phase phase_ = Phase::kDisabled;
  Step pending_step_ = Step::kNone;
  bool run_wanted_;
  bool disable_wanted_ = false;
  bool close_wanted_ = false;
  bool open_pending_ = false;
  bool failure_pending_ = false;
  bool saving_ = false;
  std::uint64_t times_disabled_ = 0;
};

}  // namespace kmcl::channel
