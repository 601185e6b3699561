#include "cli/round_trips.h"

#include <algorithm>
#include <cstring>

#include "cli/main_wait.h"
#include "devices/echo_protocol.h"

namespace kmcl::cli {
namespace {

using devices::EchoHeader;
using devices::EchoKind;

// Different in every packet, so that an answer that belongs to another transaction is noticed.
void Stamp(std::vector<std::byte>& payload, std::uint64_t index) {
  const std::size_t room = payload.size() - sizeof(EchoHeader);
  std::memcpy(payload.data() + sizeof(EchoHeader), &index, std::min(room, sizeof(index)));
}

void FillPattern(std::vector<std::byte>& payload, std::uint64_t seed) {
  for (std::size_t at = sizeof(EchoHeader); at < payload.size(); ++at) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    payload[at] = static_cast<std::byte>(seed >> 56);
  }
}

}  // namespace

RoundTrips::RoundTrips(std::span<ClientChannel* const> channels, const RoundTripPlan& plan)
    : channels_(channels.begin(), channels.end()), plan_(plan) {
  if (plan.keep_log) {
    log_.emplace(plan.count);
  }
}

Outcome<std::unique_ptr<RoundTrips>> RoundTrips::Prepare(std::span<ClientChannel* const> channels,
                                                         const RoundTripPlan& plan) {
  std::unique_ptr<RoundTrips> self(new RoundTrips(channels, plan));
  for (std::size_t i = 0; i < plan.window * channels.size(); ++i) {
    auto slot = std::make_unique<Slot>();
    slot->owner = self.get();
    slot->channel = channels[i % channels.size()];
    slot->packet.reset(VmbPacketAllocate(slot->channel->handle()));
    if (!slot->packet) {
      return Fail(kExitFailure, "no memory for packets", STATUS_INSUFFICIENT_RESOURCES);
    }
    VmbPacketSetPointer(slot->packet.get(), slot.get());
    VmbPacketSetCompletionRoutine(slot->packet.get(), OnCompletion);
    slot->payload.resize(plan.packet_bytes);
    const EchoHeader header{static_cast<std::uint32_t>(EchoKind::kData),
                            plan.packet_bytes - static_cast<std::uint32_t>(sizeof(EchoHeader))};
    std::memcpy(slot->payload.data(), &header, sizeof(header));
    FillPattern(slot->payload, i + 1);
    self->slots_.push_back(std::move(slot));
  }
  return self;
}

void RoundTrips::Start() {
  started_ = Clock::now();
  next_send_ = started_;
  if (plan_.interval.count() > 0) {
    SendOnTime();
    return;
  }
  for (const auto& slot : slots_) {
    SendNext(*slot);
  }
}

bool RoundTrips::AnyLost() const {
  return std::ranges::any_of(channels_, [](const ClientChannel* each) { return each->lost(); });
}

std::uint64_t RoundTrips::completed(const ClientChannel& channel) const {
  std::uint64_t sum = 0;
  for (const auto& slot : slots_) {
    sum += slot->channel == &channel ? slot->completed : 0;
  }
  return sum;
}

bool RoundTrips::Done() const {
  if (in_flight_.load(std::memory_order_acquire) > 0) {
    return false;
  }
  return next_index_.load(std::memory_order_acquire) >= plan_.count ||
         stopping_.load(std::memory_order_acquire);
}

bool RoundTrips::WaitForEnd(std::chrono::milliseconds at_most) {
  MainWait& wait = MainWait::Get();
  auto until = Clock::now() + at_most;
  if (plan_.at_most.count() > 0) {
    until = std::min(until, started_ + plan_.at_most);
  }
  if (plan_.interval.count() > 0 && !stopping_.load(std::memory_order_acquire)) {
    until = std::min(until, next_send_);
  }
  wait.UntilTime(until, [this] { return AnyLost() || Done(); });
  if (AnyLost() || wait.interrupted()) {
    stopping_.store(true, std::memory_order_release);
    return true;
  }
  if (plan_.at_most.count() > 0 && Clock::now() >= started_ + plan_.at_most) {
    stopping_.store(true, std::memory_order_release);
    // What is in flight comes back within a round trip; a server that keeps it is waited for by the
    // next calls.
    return Done();
  }
  if (plan_.interval.count() > 0) {
    SendOnTime();
  }
  return Done();
}

// Sends what is due, into slots that are free. A window that is full delays the send, it does not
// drop it.
void RoundTrips::SendOnTime() {
  while (Clock::now() >= next_send_ && !stopping_.load(std::memory_order_acquire)) {
    Slot& slot = *slots_[next_index_.load(std::memory_order_relaxed) % slots_.size()];
    if (slot.in_flight.load(std::memory_order_acquire)) {
      next_send_ = Clock::now() + plan_.interval;
      return;
    }
    if (!SendNext(slot)) {
      return;
    }
    next_send_ += plan_.interval;
  }
}

bool RoundTrips::SendNext(Slot& slot) {
  if (stopping_.load(std::memory_order_acquire)) {
    return false;
  }
  // Counted as in flight before the index is taken, so that Done() never sees neither.
  in_flight_.fetch_add(1, std::memory_order_acq_rel);
  std::uint64_t index = next_index_.load(std::memory_order_relaxed);
  do {
    if (index >= plan_.count) {
      in_flight_.fetch_sub(1, std::memory_order_acq_rel);
      return false;
    }
  } while (!next_index_.compare_exchange_weak(index, index + 1, std::memory_order_acq_rel));

  slot.index = index;
  Stamp(slot.payload, index);
  slot.in_flight.store(true, std::memory_order_relaxed);
  if (log_) {
    log_->OnSending(index);
  }
  slot.sent = Clock::now();
  const NTSTATUS status = VmbPacketSend(slot.packet.get(), slot.payload.data(),
                                        static_cast<UINT32>(slot.payload.size()), nullptr,
                                        VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION);
  if (!NT_SUCCESS(status)) {
    // The channel is going: the packet is still ours, and nothing will come for it.
    if (log_) {
      log_->OnRefused(index);
    }
    slot.in_flight.store(false, std::memory_order_release);
    stopping_.store(true, std::memory_order_release);
    in_flight_.fetch_sub(1, std::memory_order_acq_rel);
    return false;
  }
  return true;
}

VOID RoundTrips::OnCompletion(VMBPACKET packet, NTSTATUS status, PVOID buffer,
                              UINT32 buffer_bytes) {
  auto& slot = *static_cast<Slot*>(VmbPacketGetPointer(packet));
  slot.owner->Complete(slot, status, static_cast<const std::byte*>(buffer), buffer_bytes);
}

void RoundTrips::Complete(Slot& slot, NTSTATUS status, const std::byte* answer,
                          std::size_t answer_bytes) {
  const Clock::time_point now = Clock::now();
  if (log_) {
    log_->OnEnded(slot.index, NT_SUCCESS(status));
  }
  if (NT_SUCCESS(status)) {
    ++slot.completed;
    latencies_.Record(static_cast<std::uint64_t>((now - slot.sent).count()));
    if (answer_bytes < slot.payload.size() ||
        std::memcmp(answer, slot.payload.data(), slot.payload.size()) != 0) {
      mismatches_.fetch_add(1, std::memory_order_relaxed);
    }
  } else {
    slot.channel->NoteStatus(status);
    stopping_.store(true, std::memory_order_release);
  }
  last_end_ns_.store((now - started_).count(), std::memory_order_relaxed);
  ended_.fetch_add(1, std::memory_order_acq_rel);
  slot.in_flight.store(false, std::memory_order_release);
  if (plan_.interval.count() == 0 && NT_SUCCESS(status)) {
    SendNext(slot);
  }
  // Last: once nothing is in flight, this object may go.
  if (in_flight_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    MainWait::Get().Wake();
  }
}

std::optional<TransactionSums> RoundTrips::Sums() const {
  if (!log_) {
    return std::nullopt;
  }
  return log_->Sums();
}

double RoundTrips::seconds() const {
  return static_cast<double>(last_end_ns_.load(std::memory_order_relaxed)) / 1e9;
}

}  // namespace kmcl::cli
