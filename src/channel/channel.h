// One end of one channel: KMCL's rules about what happens when (reference sections 4 to 6).
//
// A channel is driven from three sides. Its owner (the C edge) configures it, asks for state changes and
// sends packets, from any thread. The endpoint lends it turns: state callbacks and passive deliveries on
// passive threads, deliveries on its dispatch thread. The bus, by way of the endpoint, tells it of opens
// and closes. It calls its Handler, never under a lock, and asks for turns through Turns.
//
// It knows no control protocol and no thread: what the bus has to be told comes back from RunState.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "channel/config.h"
#include "channel/handler.h"
#include "channel/lifecycle.h"
#include "channel/packet.h"
#include "channel/packet_pool.h"
#include "channel/raw_queue.h"
#include "channel/receiver.h"
#include "channel/restorer.h"
#include "channel/saver.h"
#include "channel/sender.h"
#include "channel/synchronous_wait.h"
#include "mutex.h"
#include "result.h"
#include "transport/link.h"

namespace kmcl::channel {

// What the endpoint carries out on the bus between two state steps.
enum class BusRequest : std::uint8_t {
  kAcceptOpen,  // EvtChannelOpened succeeded
  kRejectOpen,  // it did not; the rings are not used any more
  kSayClose,    // client: the server learns of the close now, EvtChannelClosed comes next
  kDetach,      // EvtChannelClosed has returned; the rings are not used any more
  kLeave,       // server: revoke the offer; client: stop waiting
};

struct Counters {
  SenderCounters sender;
  ReceiverCounters receiver;
  std::uint64_t bells_rung = 0;
};

// External data that a synchronous request takes along (Packet::external, Packet::transfer).
struct ExternalData {
  std::span<const std::byte> header;
  void* transfer = nullptr;
  bool accepted = false;  // out: Handler::OnExternalDone has been or will be called for it
};

class Channel {
 public:
  // Both outlive the channel.
  Channel(Side side, Handler& handler, Turns& turns);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  Side side() const { return side_; }
  Handler& handler() const { return handler_; }

  // ---- The owner's side.

  // The Init window: from construction to the first Enable that was confirmed. nullptr when closed.
  Config* config_in_init_window() KMCL_EXCLUDES(mutex_);
  const Config& config() const { return config_; }

  // kNotDisabled, kOutOfMemory (of packets to keep ready). The endpoint then puts the channel on the bus
  // and says how that went: ConfirmEnable closes the Init window; UndoEnable leaves it as it was.
  [[nodiscard]] Result<void> Enable() KMCL_EXCLUDES(mutex_);
  void ConfirmEnable() KMCL_EXCLUDES(mutex_);
  void UndoEnable() KMCL_EXCLUDES(mutex_);
  void Disable() KMCL_EXCLUDES(mutex_);  // blocks until kDisabled
  void Start() KMCL_EXCLUDES(mutex_);
  void Pause() KMCL_EXCLUDES(mutex_);  // blocks while running and draining
  bool is_disabled() const KMCL_EXCLUDES(mutex_);
  bool is_enabled() const KMCL_EXCLUDES(mutex_);  // and nothing has led on from there: no open, no leaving
  bool is_open() const KMCL_EXCLUDES(mutex_);

  // In the Init window: the owner works on the rings itself (raw_queue.h). Packets and sends are refused
  // (kDisabled), and OnPacket is never called. kOutOfMemory, kOutOfDescriptors; again: no change.
  [[nodiscard]] Result<void> MakeRaw();
  RawQueue* raw() { return raw_.get(); }  // nullptr unless the channel is raw
  // A call of the raw queue has failed: if the peer broke the ring, the channel ends.
  void OnRawError(Error error);

  // Packets. AllocatePacket gives nullptr without memory, and beyond the maximum of packets, which
  // binds the owner's packets only. FreePacket: only for those, and idle ones. ForgetPacket: instead of
  // it, for one that the owner made itself.
  Packet* AllocatePacket() { return packets_.Take(PacketPool::For::kOwner); }
  void ForgetPacket(Packet& packet) { packets_.Forget(packet); }
  void FreePacket(Packet& packet) { packets_.Free(packet); }
  std::uint32_t packet_object_bytes() const { return packets_.object_bytes(); }
  Packet* InitializePacket(void* memory) { return packets_.Initialize(memory); }

  // kDisabled, kPacketInFlight, kPacketTooLong. On success the completion routine will be called once.
  [[nodiscard]] Result<void> Send(Packet& packet, std::span<const std::byte> data,
                                  bool wants_completion);
  // Sends and waits, until `deadline` if there is one. Fills `reply` and says how many bytes the
  // completion had. kCancelled (deadline), kDeviceRemoved, kDisabled, kPacketTooLong, kOutOfMemory.
  [[nodiscard]] Result<std::size_t> Request(
      std::span<const std::byte> data, bool wants_completion, std::span<std::byte> reply,
      std::optional<std::chrono::steady_clock::time_point> deadline,
      ExternalData* external = nullptr);
  // Never waits: kWouldBlock unless there is room in the ring now. With a completion wanted, one that
  // is there already is taken, else kCancelled.
  [[nodiscard]] Result<std::size_t> RequestNow(std::span<const std::byte> data,
                                               bool wants_completion, std::span<std::byte> reply,
                                               ExternalData* external = nullptr);

  // Send for the edge's most frequent case: data in band, from a packet of the owner's that nobody
  // waits for. When no completion is wanted, the packet stays idle and the caller then calls its
  // completion routine; else it may have ended already. False: nothing has happened, and Send says
  // why. Length::kShort: data of at most kShortBytes, for which nothing in it is a call.
  using Length = ring::OutgoingRing::Length;
  static constexpr std::uint32_t kShortBytes = ring::kInlineCopyBytes;
  template <bool kWantsCompletion, Length kLength>
  [[nodiscard, gnu::always_inline]] bool SendPlain(Packet& packet, const std::byte* data,
                                                   std::uint32_t bytes) {
    const auto sent =
        sender_.SendPlain<kWantsCompletion, kLength>(packet, data, bytes, receiver_.MayHold());
    if (sent == Sender::Plain::kHeld) [[unlikely]]
      receiver_.NoteHeld();
    return sent != Sender::Plain::kNo;
  }

  // The same for several, which the peer sees at once: how many of them have gone, from the first
  // on. Those that want no completion the caller makes idle before it calls their routines.
  using PlainSend = Sender::PlainSend;
  [[nodiscard]] std::uint32_t SendPlainBatch(std::span<const PlainSend> sends,
                                             bool wants_completion) {
    auto how = Sender::Plain::kNo;
    const std::uint32_t sent =
        sender_.SendPlainBatch(sends, wants_completion, receiver_.MayHold(), how);
    if (how == Sender::Plain::kHeld) receiver_.NoteHeld(sent);
    return sent;
  }

  // Received packets. Complete: any thread, once. False: not outstanding (a second completion).
  bool Complete(IncomingPacket& packet, std::span<const std::byte> reply);
  // Complete for the edge's most frequent case. False: nothing has happened.
  bool CompletePlain(IncomingPacket& packet) { return receiver_.RetirePlain(packet); }
  // Defer: only inside OnPacket. Fail: until the packet is completed. False: not (any more) possible.
  bool Defer(IncomingPacket& packet) {
    return receiver_.Defer(packet) ||
           handler_.OnNotOutstanding(packet, Handler::Retire::kDefer, {});
  }
  bool Fail(IncomingPacket& packet) {
    return receiver_.Fail(packet) || handler_.OnNotOutstanding(packet, Handler::Retire::kFail, {});
  }
  void SetQuota(std::uint32_t quota) { receiver_.SetQuota(quota); }
  void SetPassive(bool required) { receiver_.SetPassive(required); }
  // Of a processor, in percent, for packet callbacks at dispatch level.
  void SetDispatchShare(std::uint32_t percent) { receiver_.SetDispatchShare(percent); }

  // For tests: how long callbacks may take before what they send is not held any more (ticks.h).
  // While nothing is delivered.
  void SetHoldTime(std::uint64_t ticks) { receiver_.SetHoldTime(ticks); }

  Counters counters() const;

  // Save and restore, of a server's channel (channel_save.cc; KMCL reference 9).
  // kChannelState: running, disabled, being saved; kOutOfMemory.
  [[nodiscard]] Result<void> BeginSave(const ChannelName& name) KMCL_EXCLUDES(mutex_);
  // kChannelState: no save is under way.
  [[nodiscard]] std::expected<SaveProgress, SaveFailure> ContinueSave(std::span<std::byte> buffer)
      KMCL_EXCLUDES(mutex_);
  void EndSave() KMCL_EXCLUDES(mutex_);
  // The last save was complete, and nothing has happened to the channel since.
  bool is_saved() const KMCL_EXCLUDES(mutex_);
  // Keeps a saved channel as it is, whatever is wished, until ReleaseHold or Disable. False: is_saved
  // does not hold.
  [[nodiscard]] bool HoldSaved() KMCL_EXCLUDES(mutex_);
  void ReleaseHold() KMCL_EXCLUDES(mutex_);

  enum class Restored : std::uint8_t { kMore, kComplete };
  // A failure leaves nothing behind: packets restored so far end with kRemoved.
  //   kChannelState, kSaveMalformed, kSaveVersion, kOutOfMemory, kCallbackFailed
  [[nodiscard]] std::expected<Restored, SaveFailure> Restore(const ChannelName& name,
                                                             std::span<const std::byte> buffer)
      KMCL_EXCLUDES(mutex_);
  // Inside Handler::OnRestorePacket. kPacketInFlight: outside, or not an idle packet of this channel;
  // kSaveMalformed: not what the handler was given, or too long for the packet object.
  [[nodiscard]] Result<void> RestorePacket(Packet& packet, std::span<const std::byte> library)
      KMCL_EXCLUDES(mutex_);
  // Ends restored packets that are not part of the channel yet, on this thread.
  void DropRestored() KMCL_EXCLUDES(mutex_);

  // ---- The endpoint's side.

  // Runs state steps until there is nothing to do (nullopt) or the bus has to be told something; then
  // carry that out and call again. One thread at a time, a passive one.
  std::optional<BusRequest> RunState() KMCL_EXCLUDES(mutex_);
  // A turn on the dispatch thread: what waits goes out, what came in is delivered. An empty ring is
  // looked at `spins` more times and stays masked; with 0 it is unmasked for the peer's next bell.
  Turn Dispatch(std::uint32_t spins);
  void DeliverPassive();
  // The peer cannot ring for space, and packets wait: dispatch again soon.
  bool must_poll() const { return raw_ != nullptr ? raw_->must_poll() : sender_.must_poll(); }
  void CountBell() { receiver_.CountBell(); }
  // Grows with each packet and completion received. For the dispatch thread.
  std::uint64_t activity() const { return receiver_.activity(); }

  // News from the bus; none of these block.
  // An open begins with rings (kRingGeometry, kRingIndexOutOfRange, or kChannelState at the wrong
  // time); it stands from OnOpen on, or is given up by DetachRings.
  enum class RingOrigin : std::uint8_t { kOurs, kPeers };  // who initialises the control pages
  [[nodiscard]] Result<void> AttachRings(const transport::RingMapping& rings, RingOrigin origin,
                                         std::shared_ptr<transport::Doorbell> bell,
                                         const RingName& name = {}) KMCL_EXCLUDES(mutex_);
  // Ends a save that has begun (save_busy_) and holds nothing any more.
  void GoOnAsBeforeSave() KMCL_EXCLUDES(mutex_);
  void DetachRings();

  // A restored channel has come onto the bus. What its save says about it: nullopt without a complete
  // one. `open`: it goes on with the client's `rings` by AttachRestored and OnOpen, or its restored
  // packets are given up by AbandonRestored, which a worker does. Otherwise QueueRestored.
  struct RestoredChannel {
    bool open = false;
    RingName rings;
  };
  std::optional<RestoredChannel> restored() const KMCL_EXCLUDES(mutex_);
  [[nodiscard]] Result<void> AttachRestored(const transport::RingMapping& rings,
                                            std::shared_ptr<transport::Doorbell> bell,
                                            const RingName& name) KMCL_EXCLUDES(mutex_);
  void QueueRestored() KMCL_EXCLUDES(mutex_);
  void AbandonRestored() KMCL_EXCLUDES(mutex_);

  void OnOpen() KMCL_EXCLUDES(mutex_);
  void OnClose() KMCL_EXCLUDES(mutex_);
  void OnConnectFailed(Error error) KMCL_EXCLUDES(mutex_);
  // A ring was found corrupt since the channel was opened.
  bool ring_broken() const { return ring_broken_.load(std::memory_order_relaxed); }

 private:
  // What one state step does: the callback's answer, or what the bus has to be told.
  struct StepResult {
    bool success = true;
    std::optional<BusRequest> request;
  };
  StepResult RunStep(Lifecycle::Step step) KMCL_EXCLUDES(mutex_);
  void SetSenderMode(Sender::Mode mode);
  void CancelOutgoing();
  void CancelAll();
  void EndAbandoned() KMCL_EXCLUDES(mutex_);
  bool TakeReattached() KMCL_EXCLUDES(mutex_);
  void AbortSynchronous();
  // Carries out what a sender's call left to do.
  void Carry(Sender::Effects& effects);
  void Break(Error error);
  Result<std::size_t> SendAndWait(Packet& packet, std::span<const std::byte> data,
                                  bool wants_completion, std::span<std::byte> reply,
                                  std::optional<std::chrono::steady_clock::time_point> deadline,
                                  ExternalData* external);
  // Takes a packet back that has not ended. False if it has, or is about to.
  bool Cancel(Packet& packet);
  [[nodiscard]] Result<void> Attach(const transport::RingMapping& rings, RingOrigin origin,
                                    std::shared_ptr<transport::Doorbell> bell, const RingName& name)
      KMCL_REQUIRES(mutex_);
  // Gives the engine what was restored. kOutOfMemory, kSaveMalformed (its settings have changed).
  [[nodiscard]] Result<void> Reinstate(Restorer& restored);
  // Ends what was restored with kRemoved.
  void EndRestored(std::unique_ptr<Restorer> restored);
  std::expected<Restored, SaveFailure> RestoreInto(Restorer& restorer, const ChannelName& name,
                                                   std::span<const std::byte> buffer);
  bool MayRestore() const KMCL_REQUIRES(mutex_);

  const Side side_;
  Handler& handler_;
  Turns& turns_;
  Config config_;

  mutable Mutex mutex_;
  CondVar changed_;
  Lifecycle lifecycle_ KMCL_GUARDED_BY(mutex_);
  bool init_window_open_ KMCL_GUARDED_BY(mutex_) = true;
  bool bus_request_made_ KMCL_GUARDED_BY(mutex_) = false;  // RunState owes the lifecycle a Done
  Error connect_error_ KMCL_GUARDED_BY(mutex_) = Error::kNoBus;

  // Save and restore.
  std::unique_ptr<Saver> saver_ KMCL_GUARDED_BY(mutex_);
  bool save_busy_ KMCL_GUARDED_BY(mutex_) = false;  // somebody is at saver_ without the lock
  bool saved_ KMCL_GUARDED_BY(mutex_) = false;
  Sender::Mode mode_before_save_ = Sender::Mode::kHolding;  // whoever saves
  std::unique_ptr<Restorer> restorer_ KMCL_GUARDED_BY(mutex_);
  bool restore_busy_ KMCL_GUARDED_BY(mutex_) = false;
  Restorer* restoring_ KMCL_GUARDED_BY(mutex_) = nullptr;  // while OnRestorePacket runs
  std::vector<std::unique_ptr<Restorer>> abandoned_ KMCL_GUARDED_BY(mutex_);
  RingName rings_ KMCL_GUARDED_BY(mutex_);
  bool was_opened_ KMCL_GUARDED_BY(mutex_) = false;   // since it was enabled
  bool reattached_ KMCL_GUARDED_BY(mutex_) = false;   // opening without a new open

  PacketPool packets_;
  Sender sender_;
  Receiver receiver_;
  std::unique_ptr<RawQueue> raw_;  // of a raw channel, whose sender and receiver never see a ring
  std::atomic<bool> ring_broken_{false};
  bool awake_ = false;  // the dispatch thread's: the last turn did not end in sleep
};

// Whether this thread runs inside a callback of some channel, where blocking calls are forbidden.
bool InCallback();

}  // namespace kmcl::channel
