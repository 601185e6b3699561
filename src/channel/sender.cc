#include "channel/sender.h"

#include <cstring>
#include <utility>

#include "log.h"
#include "wire/pipe.h"
#include "wire/ring_layout.h"

namespace kmcl::channel {
namespace {

void CopyInto(std::byte* buffer, std::span<const std::byte> data) {
  // The owner may complete a packet with a part of the packet itself.
  if (!data.empty()) std::memmove(buffer, data.data(), data.size());
}

std::byte* BufferOf(Outgoing& item) {
  return item.kind == Outgoing::Kind::kData ? static_cast<Packet&>(item).buffer()
                                            : static_cast<IncomingPacket&>(item).buffer();
}

// What stands in front of the payload: the description of external data.
std::span<const std::byte> HeaderOf(const Outgoing& item) {
  return item.kind == Outgoing::Kind::kData ? static_cast<const Packet&>(item).external
                                            : std::span<const std::byte>{};
}

}  // namespace

void Sender::Attach(ring::OutgoingRing ring, std::shared_ptr<transport::Doorbell> bell,
                    bool peer_rings_for_space) {
  MutexLock lock(mutex_);
  ring_.emplace(std::move(ring));
  bell_ = std::move(bell);
  broken_ = false;
  space_bell_requested_ = false;
  synchronous_aborted_ = false;
  must_poll_.store(!peer_rings_for_space, std::memory_order_relaxed);
}

void Sender::Detach() {
  MutexLock lock(mutex_);
  is_plain_ = false;
  ring_.reset();
  bell_.reset();
}

void Sender::set_pipe(bool pipe) {
  MutexLock lock(mutex_);
  pipe_ = pipe;
  is_plain_ = false;
}

void Sender::SetMode(Mode mode, Effects& effects) {
  MutexLock lock(mutex_);
  KMCL_CHECK(mode == Mode::kDisabled || mode == Mode::kHolding || ring_.has_value());
  mode_ = mode;
  FlushLocked(effects);
}

bool Sender::MayPlace(Outgoing::Kind kind) const {
  if (broken_) return false;
  return mode_ == Mode::kRunning || (mode_ == Mode::kPaused && kind == Outgoing::Kind::kCompletion);
}

// The client chose the size of the ring; it need not hold everything that we allow.
bool Sender::FitsRing(std::size_t header_bytes, std::size_t data_bytes) const {
  const std::size_t prefix = pipe_ ? sizeof(wire::PipeHeader) : 0;
  return ring::OutgoingRing::PacketBytes(header_bytes, prefix + data_bytes) <=
         ring_->maximum_packet_bytes();
}

// Writes one item; the caller publishes.
Sender::Placed Sender::Place(Outgoing& item, std::span<const std::byte> data, Effects& effects) {
  const bool is_data = item.kind == Outgoing::Kind::kData;
  const std::span<const std::byte> header = HeaderOf(item);
  if (!FitsRing(header.size(), data.size())) {
    if (is_data) return Placed::kTooLong;
    // The transaction has to end all the same.
    Log(LogLevel::kWarning, "a completion of %zu bytes does not fit the ring: sent without data",
        data.size());
    data = {};
  }
  const bool wants_completion = is_data && static_cast<Packet&>(item).wants_completion;
  ring::PacketParts parts{};
  parts.type = !is_data         ? wire::PacketType::kCompletion
               : header.empty() ? wire::PacketType::kDataInBand
                                : wire::PacketType::kDataUsingGpaDirect;
  parts.header = header;
  parts.flags = wants_completion ? wire::kPacketFlagCompletionRequested : std::uint16_t{0};
  parts.transaction_id = static_cast<std::uint64_t>(
      !is_data ? item.transaction_id
               : wants_completion ? transactions_.next_id() : wire::TransactionId{0});
  parts.payload = data;
  const wire::PipeHeader pipe_header{wire::PipePacketType::kData,
                                     static_cast<std::uint32_t>(data.size())};
  if (is_data && pipe_) parts.prefix = std::as_bytes(std::span(&pipe_header, 1));

  const auto outcome = ring_->Write(parts);
  if (!outcome) {
    broken_ = true;
    effects.broken = outcome.error();
    return Placed::kBroken;
  }
  if (*outcome == ring::WriteOutcome::kFull) return Placed::kFull;

  if (!is_data) {
    ++counters_.completions;
    return Placed::kYes;
  }
  ++counters_.packets;
  counters_.bytes += data.size();
  if (wants_completion) {
    auto& packet = static_cast<Packet&>(item);
    transactions_.Enter(packet);
    packet.state.store(Packet::State::kInFlight, std::memory_order_relaxed);
  }
  return Placed::kYes;
}

// A packet without completion is done once it is in the ring. `item` is in no queue.
void Sender::FinishPlaced(Outgoing& item, Effects& effects) {
  if (item.kind == Outgoing::Kind::kCompletion) {
    Retire(static_cast<IncomingPacket&>(item), effects);
    return;
  }
  auto& packet = static_cast<Packet&>(item);
  if (packet.wants_completion) return;
  packet.state.store(Packet::State::kEnding, std::memory_order_relaxed);
  effects.done.Push(packet);
}

void Sender::Retire(IncomingPacket& packet, Effects& effects) {
  packet.next_free = effects.retired;
  effects.retired = &packet;
}

// Also what callbacks have sent before, and was to be published together.
void Sender::Publish(Effects& effects) {
  ++counters_.publications;
  if (ring_->Publish() == ring::Bell::kRing) {
    ++counters_.bells;
    effects.bell = bell_;
  }
}

void Sender::RingAndUnlock() {
  ++counters_.bells;
  const std::shared_ptr<transport::Doorbell> bell = bell_;
  mutex_.Unlock();
  bell->Ring();
}

std::uint32_t Sender::SendPlainBatch(std::span<const PlainSend> sends, bool wants_completion,
                                     bool hold, Plain& how) {
  using Length = ring::OutgoingRing::Length;
  std::uint32_t placed = 0;
  mutex_.Lock();
  for (const PlainSend& send : sends) {
    const bool went = wants_completion
                          ? PlacePlain<true, Length::kAny>(*send.packet, send.data, send.bytes)
                          : PlacePlain<false, Length::kAny>(*send.packet, send.data, send.bytes);
    if (!went) break;
    ++placed;
    if (!wants_completion) {
      send.packet->state.store(Packet::State::kEnding, std::memory_order_relaxed);
    }
  }
  if (placed == 0) {
    mutex_.Unlock();
    how = Plain::kNo;
    return 0;
  }
  how = PublishAndUnlock(hold) ? Plain::kHeld : Plain::kPublished;
  return placed;
}

void Sender::PublishHeld() {
  mutex_.Lock();
  // Somebody else may have published it, or the ring is broken.
  if (!ring_.has_value() || !ring_->has_unpublished()) return mutex_.Unlock();
  PublishAndUnlock(false);
}

void Sender::Queue(Outgoing& item, std::span<const std::byte> data) {
  CopyInto(BufferOf(item), data);
  item.queued_bytes = static_cast<std::uint32_t>(data.size());
  if (item.kind == Outgoing::Kind::kData) {
    static_cast<Packet&>(item).state.store(Packet::State::kQueued, std::memory_order_relaxed);
    item.transaction_id = {};  // the peer has not seen it
  }
  queue_.Push(item);
  is_plain_ = false;
  has_queued_.store(true, std::memory_order_relaxed);
}

// The ring has no room for `item`. True when there is room after all.
bool Sender::WaitForSpace(const Outgoing& item, Effects& effects) {
  if (must_poll_.load(std::memory_order_relaxed)) {
    effects.poll = true;
    return false;
  }
  const std::uint32_t prefix = pipe_ ? sizeof(wire::PipeHeader) : 0;
  const auto room = ring_->RequestSpaceBell(
      ring::OutgoingRing::PacketBytes(HeaderOf(item).size(), prefix + item.queued_bytes));
  if (!room) {
    broken_ = true;
    effects.broken = room.error();
    return false;
  }
  space_bell_requested_ = !*room;
  return *room;
}

Result<void> Sender::Accept(Packet& packet, bool wants_completion) {
  if (mode_ == Mode::kDisabled) return std::unexpected(Error::kDisabled);
  if (packet.state.load(std::memory_order_relaxed) != Packet::State::kIdle) {
    return std::unexpected(Error::kPacketInFlight);
  }
  if (packet.waiter != nullptr && synchronous_aborted_) {
    return std::unexpected(Error::kDeviceRemoved);
  }
  packet.wants_completion = wants_completion;
  return {};
}

Result<void> Sender::Send(Packet& packet, std::span<const std::byte> data, bool wants_completion,
                          Effects& effects) {
  MutexLock lock(mutex_);
  if (auto accepted = Accept(packet, wants_completion); !accepted) return accepted;
  if (wants_completion) ++counters_.transactions_started;

  if (queue_.empty() && MayPlace(Outgoing::Kind::kData)) {
    const Placed placed = Place(packet, data, effects);
    if (placed == Placed::kYes) {
      Publish(effects);
      Settle();
      FinishPlaced(packet, effects);
      return {};
    }
    if (placed == Placed::kTooLong) {
      if (wants_completion) --counters_.transactions_started;
      return std::unexpected(Error::kPacketTooLong);
    }
    if (placed == Placed::kFull) ++counters_.ring_full;
  }
  Queue(packet, data);
  FlushLocked(effects);
  return {};
}

Result<void> Sender::SendNow(Packet& packet, std::span<const std::byte> data, bool wants_completion,
                             Effects& effects) {
  MutexLock lock(mutex_);
  if (auto accepted = Accept(packet, wants_completion); !accepted) return accepted;
  if (!queue_.empty() || !MayPlace(Outgoing::Kind::kData)) {
    return std::unexpected(Error::kWouldBlock);
  }
  const Placed placed = Place(packet, data, effects);
  if (placed == Placed::kTooLong) return std::unexpected(Error::kPacketTooLong);
  if (placed != Placed::kYes) return std::unexpected(Error::kWouldBlock);
  if (wants_completion) ++counters_.transactions_started;
  Publish(effects);
  FinishPlaced(packet, effects);
  return {};
}

bool Sender::Complete(IncomingPacket& packet, std::span<const std::byte> reply, Effects& effects) {
  MutexLock lock(mutex_);
  if (mode_ == Mode::kDisabled || mode_ == Mode::kHolding || broken_) return false;
  packet.kind = Outgoing::Kind::kCompletion;
  if (queue_.empty()) {
    const Placed placed = Place(packet, reply, effects);
    if (placed == Placed::kYes) {
      Publish(effects);
      Settle();
      return false;
    }
    if (placed == Placed::kBroken) return false;
    ++counters_.ring_full;
  }
  // While the channel is paused it passes the packets that wait, but no earlier completion.
  Queue(packet, reply);
  FlushLocked(effects);
  return true;
}

void Sender::Flush(Effects& effects) {
  if (!has_queued()) return;
  MutexLock lock(mutex_);
  FlushLocked(effects);
}

void Sender::FlushLocked(Effects& effects) {
  // What was held counts as written: the peer decides by what it can see when we ask it for room.
  bool wrote = ring_.has_value() && ring_->has_unpublished();
  Outgoing* before = nullptr;  // a packet that stays while completions behind it go out
  for (Outgoing* item = queue_.front(); item != nullptr && !broken_;) {
    Outgoing* const after = item->next;
    if (!MayPlace(item->kind)) {
      if (mode_ != Mode::kPaused) break;
      before = item;
      item = after;
      continue;
    }
    const Placed placed = Place(*item, {BufferOf(*item), item->queued_bytes}, effects);
    if (placed == Placed::kBroken) break;
    if (placed == Placed::kFull) {
      // Make what we wrote visible first: it may be what the peer waits for to free space.
      if (wrote) Publish(effects);
      wrote = false;
      if (WaitForSpace(*item, effects)) continue;
      break;
    }
    queue_.Unlink(before, item);
    if (placed == Placed::kTooLong) {
      auto& packet = static_cast<Packet&>(*item);
      packet.state.store(Packet::State::kEnding, std::memory_order_relaxed);
      if (packet.wants_completion) ++counters_.transactions_cancelled;
      effects.too_long.Push(packet);
    } else {
      wrote = true;
      FinishPlaced(*item, effects);
    }
    item = after;
  }
  if (wrote) Publish(effects);
  if (queue_.empty()) {
    has_queued_.store(false, std::memory_order_relaxed);
    if (space_bell_requested_ && ring_.has_value() && !broken_) {
      ring_->WithdrawSpaceBell();
      space_bell_requested_ = false;
    }
  }
  Settle();
}

Packet* Sender::TakeCompleted(wire::TransactionId id) {
  MutexLock lock(mutex_);
  Packet* packet = transactions_.Take(id);
  if (packet == nullptr) {
    ++counters_.unexpected_completions;
    return nullptr;
  }
  packet->state.store(Packet::State::kEnding, std::memory_order_relaxed);
  ++counters_.transactions_completed;
  return packet;
}

bool Sender::Cancel(Packet& packet) {
  MutexLock lock(mutex_);
  switch (packet.state.load(std::memory_order_relaxed)) {
    case Packet::State::kIdle:
    case Packet::State::kEnding:
      return false;
    case Packet::State::kQueued:
      KMCL_CHECK(queue_.Remove(packet));
      break;
    case Packet::State::kInFlight:
      KMCL_CHECK(transactions_.Take(packet.transaction_id) == &packet);
      break;
  }
  if (packet.wants_completion) ++counters_.transactions_cancelled;
  packet.state.store(Packet::State::kIdle, std::memory_order_relaxed);
  return true;
}

void Sender::AbortSynchronous(Effects& effects) {
  MutexLock lock(mutex_);
  synchronous_aborted_ = true;
  effects.outcome = Outcome::kRemoved;
  for (Packet* packet = transactions_.oldest(); packet != nullptr;) {
    Packet* const next = packet->newer;
    if (packet->waiter != nullptr) {
      transactions_.Take(packet->transaction_id);
      packet->state.store(Packet::State::kEnding, std::memory_order_relaxed);
      ++counters_.transactions_cancelled;
      effects.done.Push(*packet);
    }
    packet = next;
  }
  Outgoing* before = nullptr;
  for (Outgoing* item = queue_.front(); item != nullptr;) {
    Outgoing* const next = item->next;
    auto* packet = item->kind == Outgoing::Kind::kData ? static_cast<Packet*>(item) : nullptr;
    if (packet != nullptr && packet->waiter != nullptr) {
      queue_.Unlink(before, item);
      packet->state.store(Packet::State::kEnding, std::memory_order_relaxed);
      if (packet->wants_completion) ++counters_.transactions_cancelled;
      effects.done.Push(*packet);
    } else {
      before = item;
    }
    item = next;
  }
  has_queued_.store(!queue_.empty(), std::memory_order_relaxed);
}

void Sender::AllowSynchronous() {
  MutexLock lock(mutex_);
  synchronous_aborted_ = false;
}

void Sender::CancelAll(Effects& effects) {
  MutexLock lock(mutex_);
  effects.outcome = Outcome::kRemoved;
  // Whatever is in flight was sent before whatever is queued.
  while (Packet* packet = transactions_.TakeOldest()) {
    packet->state.store(Packet::State::kEnding, std::memory_order_relaxed);
    ++counters_.transactions_cancelled;
    effects.done.Push(*packet);
  }
  while (Outgoing* item = queue_.Pop()) {
    if (item->kind == Outgoing::Kind::kCompletion) {
      Retire(static_cast<IncomingPacket&>(*item), effects);
      continue;
    }
    auto& packet = static_cast<Packet&>(*item);
    packet.state.store(Packet::State::kEnding, std::memory_order_relaxed);
    if (packet.wants_completion) ++counters_.transactions_cancelled;
    effects.done.Push(packet);
  }
  has_queued_.store(false, std::memory_order_relaxed);
}

Sender::Inventory Sender::TakeInventory() const {
  MutexLock lock(mutex_);
  Inventory inventory;
  inventory.last_transaction = transactions_.last_id();
  inventory.in_flight.reserve(transactions_.size());
  for (Packet* packet = transactions_.oldest(); packet != nullptr; packet = packet->newer) {
    inventory.in_flight.push_back(packet);
  }
  inventory.queued.reserve(queue_.size());
  for (Outgoing* item = queue_.front(); item != nullptr; item = item->next) {
    inventory.queued.push_back(item);
  }
  return inventory;
}

Sender::Mode Sender::mode() const {
  MutexLock lock(mutex_);
  return mode_;
}

void Sender::Restore(std::span<Packet* const> in_flight, OutgoingQueue& queued,
                     std::uint64_t last_transaction, Effects& effects) {
  MutexLock lock(mutex_);
  KMCL_CHECK(transactions_.size() == 0);
  for (Packet* packet : in_flight) {
    transactions_.Reenter(*packet);
    packet->state.store(Packet::State::kInFlight, std::memory_order_relaxed);
  }
  transactions_.KeepBelow(last_transaction);
  counters_.transactions_started += in_flight.size();
  for (const Outgoing* item = queued.front(); item != nullptr; item = item->next) {
    if (item->kind == Outgoing::Kind::kData && static_cast<const Packet*>(item)->wants_completion) {
      ++counters_.transactions_started;
    }
  }
  queue_.Prepend(queued);
  has_queued_.store(!queue_.empty(), std::memory_order_relaxed);
  FlushLocked(effects);
}

void Sender::ReserveTransactions(std::uint32_t packets) {
  MutexLock lock(mutex_);
  transactions_.Reserve(packets);
}

SenderCounters Sender::counters() const {
  MutexLock lock(mutex_);
  SenderCounters counters = counters_;
  counters.queued = queue_.size();
  return counters;
}

}  // namespace kmcl::channel
