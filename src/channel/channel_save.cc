// Saving a channel, and making one of what was saved (KMCL reference 9).
#include <algorithm>
#include <new>
#include <utility>

#include "channel/callback_scope.h"
#include "channel/channel.h"
#include "log.h"

namespace kmcl::channel {

// ---- Save.

Result<void> Channel::BeginSave(const ChannelName& name) {
  if (raw_ != nullptr) return std::unexpected(Error::kSaveUnsupported);
  saved::Begin begin;
  {
    MutexLock lock(mutex_);
    while (lifecycle_.save_gate() == Lifecycle::SaveGate::kBusy) changed_.Wait(mutex_);
    if (lifecycle_.save_gate() != Lifecycle::SaveGate::kReady) {
      return std::unexpected(Error::kChannelState);
    }
    lifecycle_.BeginSave();
    save_busy_ =
        true;  // who disables waits, and does not end packets that are being looked through
    begin = {.name = name,
             .maximum_packet_bytes = config_.maximum_packet_bytes,
             .pipe = config_.pipe,
             .open = lifecycle_.open(),
             .run_wanted = lifecycle_.run_wanted(),
             .failed = false,
             .rings = {},
             .last_transaction = 0,
             .items = 0};
    if (begin.open) begin.rings = rings_;
    saved_ = false;
  }
  mode_before_save_ = sender_.mode();
  // Without rings nothing moves anyway.
  if (begin.open) SetSenderMode(Sender::Mode::kFrozen);
  const IncomingPacket* deferred = nullptr;
  if (begin.open) {
    begin.failed = receiver_.has_failed();
    deferred = receiver_.deferred();
  }
  std::unique_ptr<Saver> saver;
  try {
    saver = std::make_unique<Saver>(begin, sender_.TakeInventory(), deferred);
  } catch (const std::bad_alloc&) {
  }
  {
    MutexLock lock(mutex_);
    saver_ = std::move(saver);
    if (saver_ != nullptr) {
      save_busy_ = false;
      changed_.NotifyAll();
      return {};
    }
  }
  GoOnAsBeforeSave();
  return std::unexpected(Error::kOutOfMemory);
}

std::expected<SaveProgress, SaveFailure> Channel::ContinueSave(std::span<std::byte> buffer) {
  Saver* saver = nullptr;
  {
    MutexLock lock(mutex_);
    if (saver_ == nullptr || save_busy_ || saver_->over()) {
      return std::unexpected(SaveFailure{Error::kChannelState});
    }
    save_busy_ = true;
    saver = saver_.get();
  }
  std::expected<SaveProgress, SaveFailure> progress =
      std::unexpected(SaveFailure{Error::kOutOfMemory});
  {
    CallbackScope in_callback;
    try {
      progress = saver->Continue(handler_, buffer);
    } catch (const std::bad_alloc&) {
    }
  }
  MutexLock lock(mutex_);
  save_busy_ = false;
  changed_.NotifyAll();
  return progress;
}

void Channel::EndSave() {
  std::unique_ptr<Saver> saver;
  {
    MutexLock lock(mutex_);
    while (save_busy_) changed_.Wait(mutex_);
    if (saver_ == nullptr) return;
    saver = std::move(saver_);
    lifecycle_.EndSave();
    // Not if it goes on now, by a wish that waited for the end.
    saved_ = saver->complete() && lifecycle_.save_gate() == Lifecycle::SaveGate::kReady;
    // What a complete save holds is the successor's to send: nothing moves until somebody starts it
    // here.
    if (saved_) return;
    lifecycle_.BeginSave();
    save_busy_ = true;
  }
  GoOnAsBeforeSave();
}

void Channel::GoOnAsBeforeSave() {
  SetSenderMode(mode_before_save_);
  {
    MutexLock lock(mutex_);
    lifecycle_.EndSave();
    save_busy_ = false;
    changed_.NotifyAll();
  }
  turns_.RequestState();
}

bool Channel::is_saved() const {
  MutexLock lock(mutex_);
  return saved_;
}

bool Channel::HoldSaved() {
  MutexLock lock(mutex_);
  if (!saved_) return false;
  lifecycle_.BeginSave();
  return true;
}

void Channel::ReleaseHold() {
  {
    MutexLock lock(mutex_);
    if (saver_ == nullptr && !save_busy_) lifecycle_.EndSave();
    saved_ = saved_ && lifecycle_.save_gate() == Lifecycle::SaveGate::kReady;
  }
  turns_.RequestState();
}

// ---- Restore.

bool Channel::MayRestore() const {
  return lifecycle_.phase() == Lifecycle::Phase::kDisabled ||
         (lifecycle_.awaits_open() && !was_opened_);
}

std::expected<Channel::Restored, SaveFailure> Channel::Restore(const ChannelName& name,
                                                               std::span<const std::byte> buffer) {
  if (raw_ != nullptr) return std::unexpected(SaveFailure{Error::kSaveUnsupported});
  std::unique_ptr<Restorer> restorer;
  {
    MutexLock lock(mutex_);
    const bool complete = restorer_ != nullptr && restorer_->complete();
    if (side_ != Side::kServer || restore_busy_ || complete || !MayRestore()) {
      return std::unexpected(SaveFailure{Error::kChannelState});
    }
    restore_busy_ = true;
    restorer = std::move(restorer_);
  }
  std::expected<Restored, SaveFailure> restored = std::unexpected(SaveFailure{Error::kOutOfMemory});
  try {
    if (restorer == nullptr) restorer = std::make_unique<Restorer>();
    restored = RestoreInto(*restorer, name, buffer);
  } catch (const std::bad_alloc&) {
  }
  std::unique_ptr<Restorer> rejected;
  {
    MutexLock lock(mutex_);
    restore_busy_ = false;
    if (restored && !MayRestore()) restored = std::unexpected(SaveFailure{Error::kChannelState});
    if (restored) {
      restorer_ = std::move(restorer);
      if (*restored == Restored::kComplete && restorer_->begin().run_wanted) lifecycle_.OnStart();
    } else {
      rejected = std::move(restorer);
    }
  }
  if (rejected != nullptr) EndRestored(std::move(rejected));
  return restored;
}

std::expected<Channel::Restored, SaveFailure> Channel::RestoreInto(
    Restorer& restorer, const ChannelName& name, std::span<const std::byte> buffer) {
  const auto steps = restorer.Read(
      buffer,
      {.name = name, .maximum_packet_bytes = config_.maximum_packet_bytes, .pipe = config_.pipe});
  if (!steps) return std::unexpected(SaveFailure{steps.error()});
  for (const Restorer::Step& step : *steps) {
    if (const auto* begin = std::get_if<saved::Begin>(&step)) restorer.Do(*begin);
    if (const auto* item = std::get_if<saved::CompletionItem>(&step)) restorer.Do(*item);
    if (const auto* item = std::get_if<saved::DeferredItem>(&step)) restorer.Do(*item);
    const auto* const packet = std::get_if<Restorer::PacketStep>(&step);
    if (packet == nullptr) continue;
    const auto ask = [&](Restorer* whose, const Restorer::PacketStep* what) {
      MutexLock lock(mutex_);
      const bool done = restorer.asked_step_was_done();
      restorer.Ask(what);
      restoring_ = whose;
      return done;
    };
    ask(&restorer, packet);
    std::int32_t status = 0;
    {
      CallbackScope in_callback;
      status = handler_.OnRestorePacket(packet->library, packet->driver);
    }
    const bool done = ask(nullptr, nullptr);
    if (status < 0) return std::unexpected(SaveFailure{Error::kCallbackFailed, status});
    if (!done) return std::unexpected(SaveFailure{Error::kChannelState});
  }
  return restorer.complete() ? Restored::kComplete : Restored::kMore;
}

Result<void> Channel::RestorePacket(Packet& packet, std::span<const std::byte> library) {
  MutexLock lock(mutex_);
  if (restoring_ == nullptr || packet.channel != this) {
    return std::unexpected(Error::kPacketInFlight);
  }
  return restoring_->AddPacket(packet, library);
}

void Channel::EndRestored(std::unique_ptr<Restorer> restored) {
  const auto end = [this](Packet& packet) {
    packet.state.store(Packet::State::kEnding, std::memory_order_relaxed);
    FinishPacket(handler_, packet, Outcome::kRemoved, {});
  };
  for (Packet* packet : restored->in_flight) end(*packet);
  for (const auto& item : restored->queued) {
    if (Packet* const* packet = std::get_if<Packet*>(&item)) end(**packet);
  }
}

void Channel::DropRestored() {
  {
    MutexLock lock(mutex_);
    if (restorer_ != nullptr) abandoned_.push_back(std::move(restorer_));
  }
  EndAbandoned();
}

void Channel::EndAbandoned() {
  std::vector<std::unique_ptr<Restorer>> abandoned;
  {
    MutexLock lock(mutex_);
    abandoned.swap(abandoned_);
  }
  for (auto& each : abandoned) EndRestored(std::move(each));
}

void Channel::AbandonRestored() {
  {
    MutexLock lock(mutex_);
    if (restorer_ == nullptr) return;
    abandoned_.push_back(std::move(restorer_));
  }
  turns_.RequestState();
}

// ---- A restored channel on the bus.

std::optional<Channel::RestoredChannel> Channel::restored() const {
  MutexLock lock(mutex_);
  if (restorer_ == nullptr || !restorer_->complete()) return std::nullopt;
  return RestoredChannel{.open = restorer_->begin().open, .rings = restorer_->begin().rings};
}

Result<void> Channel::AttachRestored(const transport::RingMapping& rings,
                                     std::shared_ptr<transport::Doorbell> bell,
                                     const RingName& name) {
  std::unique_ptr<Restorer> restored;
  {
    MutexLock lock(mutex_);
    if (auto attached = Attach(rings, RingOrigin::kPeers, std::move(bell), name); !attached) {
      return attached;
    }
    restored = std::move(restorer_);
    reattached_ = true;
  }
  const auto reinstated = Reinstate(*restored);
  if (reinstated) return {};
  DetachRings();
  MutexLock lock(mutex_);
  restorer_ = std::move(restored);
  reattached_ = false;
  return reinstated;
}

void Channel::QueueRestored() {
  std::unique_ptr<Restorer> restored;
  {
    MutexLock lock(mutex_);
    restored = std::move(restorer_);
  }
  if (Reinstate(*restored)) return;
  {
    MutexLock lock(mutex_);
    restorer_ = std::move(restored);
  }
  AbandonRestored();
}

Result<void> Channel::Reinstate(Restorer& restored) {
  if (restored.begin().maximum_packet_bytes != config_.maximum_packet_bytes ||
      restored.begin().pipe != config_.pipe) {
    return std::unexpected(Error::kSaveMalformed);
  }
  IncomingPacket* made = nullptr;  // everything that needs memory comes first
  const auto make = [&](std::size_t bytes) {
    IncomingPacket* const packet = receiver_.MakePacket(static_cast<std::uint32_t>(bytes));
    if (packet != nullptr) {
      packet->next_free = made;
      made = packet;
    }
    return packet;
  };
  const auto give_back = [&] {
    while (made != nullptr) receiver_.Recycle(*std::exchange(made, made->next_free));
    return std::unexpected(Error::kOutOfMemory);
  };
  OutgoingQueue queued;
  for (auto& item : restored.queued) {
    if (Packet** packet = std::get_if<Packet*>(&item)) {
      queued.Push(**packet);
      continue;
    }
    const auto& completion = std::get<Restorer::Completion>(item);
    IncomingPacket* const packet = make(completion.data.size());
    if (packet == nullptr) return give_back();
    packet->transaction_id = wire::TransactionId{completion.transaction};
    packet->queued_bytes = static_cast<std::uint32_t>(completion.data.size());
    std::copy(completion.data.begin(), completion.data.end(), packet->buffer());
    queued.Push(*packet);
  }
  IncomingPacket* deferred = nullptr;
  if (restored.deferred) {
    const Restorer::Deferred& from = *restored.deferred;
    deferred = make(from.header.size() + from.payload.size());
    if (deferred == nullptr) return give_back();
    deferred->transaction_id = wire::TransactionId{from.item.transaction};
    deferred->wants_completion = from.item.wants_completion;
    deferred->external_data = from.item.external_data;
    deferred->header = {deferred->buffer(), from.header.size()};
    deferred->payload = {deferred->buffer() + from.header.size(), from.payload.size()};
    std::copy(from.header.begin(), from.header.end(), deferred->header.begin());
    std::copy(from.payload.begin(), from.payload.end(), deferred->payload.begin());
  }
  if (restored.begin().open) receiver_.Restore(deferred, restored.begin().failed);
  Sender::Effects effects;
  sender_.Restore(restored.in_flight, queued, restored.begin().last_transaction, effects);
  Carry(effects);
  restored.in_flight.clear();
  restored.queued.clear();
  return {};
}

bool Channel::TakeReattached() {
  MutexLock lock(mutex_);
  return std::exchange(reattached_, false);
}

}  // namespace kmcl::channel
