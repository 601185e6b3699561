#include "channel/raw_queue.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <new>
#include <utility>

namespace kmcl::channel {
namespace {

// Counters have one writer at a time; a plain increment without a locked instruction is enough.
void Count(std::atomic<std::uint64_t>& counter, std::uint64_t amount = 1) {
  counter.store(counter.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
}

}  // namespace

// ---- One direction.

Result<void> RawQueue::Direction::Enter() {
  if (inside.exchange(true, std::memory_order_seq_cst)) {
    return std::unexpected(Error::kChannelState);
  }
  if (!open.load(std::memory_order_seq_cst)) {
    Leave();
    return std::unexpected(Error::kDeviceRemoved);
  }
  return {};
}

void RawQueue::Direction::Stop() {
  open.store(false, std::memory_order_seq_cst);
  // A call is a copy of a packet at most; nobody sleeps in here.
  while (inside.load(std::memory_order_seq_cst)) sched_yield();
  Signal();
}

void RawQueue::Direction::Signal() {
  const std::uint64_t one = 1;
  (void)!write(fd, &one, sizeof one);  // fails only when it is readable for ever already
}

void RawQueue::Direction::Drain() {
  std::uint64_t ignored = 0;
  (void)!read(fd, &ignored, sizeof ignored);
}

// From Enter to Leave.
class RawQueue::Visit {
 public:
  explicit Visit(Direction& direction) : direction_(direction), entered_(direction.Enter()) {}
  ~Visit() {
    if (entered_) direction_.Leave();
  }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;
  explicit operator bool() const { return entered_.has_value(); }
  std::unexpected<Error> error() const { return std::unexpected(entered_.error()); }

 private:
  Direction& direction_;
  const Result<void> entered_;
};

// ---- The channel's side.

Result<std::unique_ptr<RawQueue>> RawQueue::Create(Turns& turns) {
  std::unique_ptr<RawQueue> queue(new (std::nothrow) RawQueue(turns));
  if (queue == nullptr) return std::unexpected(Error::kOutOfMemory);
  queue->incoming_.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  queue->outgoing_.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (queue->incoming_.fd < 0 || queue->outgoing_.fd < 0) {
    return std::unexpected(Error::kOutOfDescriptors);
  }
  return queue;
}

RawQueue::~RawQueue() {
  if (incoming_.fd >= 0) close(incoming_.fd);
  if (outgoing_.fd >= 0) close(outgoing_.fd);
}

void RawQueue::Attach(ring::IncomingRing incoming, ring::OutgoingRing outgoing,
                      std::shared_ptr<transport::Doorbell> bell, bool peer_rings_for_space) {
  incoming_ring_.emplace(std::move(incoming));
  outgoing_ring_.emplace(std::move(outgoing));
  bell_ = std::move(bell);
  must_poll_ = !peer_rings_for_space;
  space_requested_ = false;
}

void RawQueue::Detach() {
  KMCL_CHECK(!incoming_.open.load(std::memory_order_relaxed) &&
             !outgoing_.open.load(std::memory_order_relaxed));
  incoming_ring_.reset();
  outgoing_ring_.reset();
  bell_.reset();
}

void RawQueue::Start() {
  KMCL_CHECK(incoming_ring_.has_value() && outgoing_ring_.has_value());
  for (Direction* const direction : {&incoming_, &outgoing_}) {
    direction->armed.store(false, std::memory_order_relaxed);
    direction->Drain();
    direction->open.store(true, std::memory_order_seq_cst);
  }
}

void RawQueue::StopIncoming() {
  incoming_.Stop();
  outgoing_.Signal();  // who sleeps for space learns it too, while writing may go on
}

void RawQueue::StopOutgoing() {
  outgoing_.Stop();
  // What was read in place ends here, after Suspend: from now on the peer may write over it.
  RingIf(incoming_ring_->Release(), bells_rung_for_space_);
}

void RawQueue::OnBell() {
  for (Direction* const direction : {&incoming_, &outgoing_}) {
    // seq_cst: what the peer did before it rang is seen by who wakes, and who arms after this finds
    // it.
    if (direction->armed.exchange(false, std::memory_order_seq_cst)) direction->Signal();
  }
}

// ---- The owner's side.

bool RawQueue::IsCorrupt(Error error) {
  return error != Error::kDeviceRemoved && error != Error::kChannelState &&
         error != Error::kBufferTooSmall && error != Error::kRequestPending &&
         error != Error::kPacketTooLong && error != Error::kSystemCall;
}

void RawQueue::RingIf(ring::Bell bell, std::atomic<std::uint64_t>& count) {
  if (bell != ring::Bell::kRing) return;
  Count(count);
  bell_->Ring();
}

void RawQueue::CountReceived(const ring::IncomingPacket& packet) {
  if (packet.type == wire::PacketType::kCompletion) {
    Count(completions_received_);
  } else {
    Count(packets_received_);
    Count(bytes_received_, packet.payload.size());
  }
}

Result<std::optional<ring::IncomingPacket>> RawQueue::Peek() {
  const Visit visit(incoming_);
  if (!visit) return visit.error();
  incoming_ring_->Mask();
  // Also asks for the memory of the packet that will come (IncomingRing::Empty).
  if (incoming_ring_->Empty()) return std::nullopt;
  return incoming_ring_->PeekInPlace();
}

Result<std::optional<ring::IncomingPacket>> RawQueue::Read(std::span<std::byte> buffer) {
  const Visit visit(incoming_);
  if (!visit) return visit.error();
  incoming_ring_->Mask();
  if (incoming_ring_->Empty()) return std::nullopt;
  const auto bytes = incoming_ring_->PeekBytes();
  if (!bytes) return std::unexpected(bytes.error());
  if (!*bytes) return std::nullopt;
  if (**bytes > buffer.size()) return std::unexpected(Error::kBufferTooSmall);
  auto packet = incoming_ring_->Read(buffer);
  if (packet && *packet) CountReceived(**packet);
  return packet;
}

Result<void> RawQueue::Skip() {
  const Visit visit(incoming_);
  if (!visit) return visit.error();
  if (!incoming_ring_->has_peeked()) return std::unexpected(Error::kRequestPending);
  const auto packet = incoming_ring_->PeekInPlace();
  if (!packet) return std::unexpected(packet.error());
  CountReceived(**packet);
  incoming_ring_->Skip();
  return {};
}

Result<void> RawQueue::Release() {
  const Visit visit(incoming_);
  if (!visit) return visit.error();
  RingIf(incoming_ring_->Release(), bells_rung_for_space_);
  return {};
}

Result<ring::WriteOutcome> RawQueue::Write(const ring::PacketParts& parts) {
  const Visit visit(outgoing_);
  if (!visit) return visit.error();
  const auto outcome = outgoing_ring_->Write(parts);
  if (!outcome) return outcome;
  if (*outcome == ring::WriteOutcome::kFull) {
    Count(ring_full_);
    return outcome;
  }
  if (std::exchange(space_requested_, false)) outgoing_ring_->WithdrawSpaceBell();
  if (parts.type == wire::PacketType::kCompletion) {
    Count(completions_sent_);
  } else {
    Count(packets_sent_);
    Count(bytes_sent_, parts.payload.size());
  }
  return outcome;
}

Result<void> RawQueue::Flush() {
  const Visit visit(outgoing_);
  if (!visit) return visit.error();
  RingIf(outgoing_ring_->Publish(), bells_rung_);
  return {};
}

Result<RawQueue::OutgoingUse> RawQueue::QueryOutgoing() {
  const Visit visit(outgoing_);
  if (!visit) return visit.error();
  const auto untaken = outgoing_ring_->UntakenBytes();
  if (!untaken) return std::unexpected(untaken.error());
  return OutgoingUse{.ring_bytes = outgoing_ring_->data_bytes(), .untaken_bytes = *untaken};
}

Result<bool> RawQueue::ArmIncoming() {
  const Visit visit(incoming_);
  if (!visit) return visit.error();
  RingIf(incoming_ring_->Release(), bells_rung_for_space_);
  // A direction that is still armed was not signalled since; otherwise an old signal may wait.
  if (!incoming_.armed.load(std::memory_order_seq_cst)) incoming_.Drain();
  incoming_.armed.store(true, std::memory_order_seq_cst);
  const auto still_empty = incoming_ring_->UnmaskAndCheck();
  if (!still_empty) return std::unexpected(still_empty.error());
  if (*still_empty) return false;
  incoming_ring_->Mask();
  return true;
}

Result<bool> RawQueue::ArmOutgoing(std::size_t payload_bytes) {
  bool poll = false;
  {
    const Visit visit(outgoing_);
    if (!visit) return visit.error();
    RingIf(outgoing_ring_->Publish(), bells_rung_);
    if (!outgoing_.armed.load(std::memory_order_seq_cst)) outgoing_.Drain();
    outgoing_.armed.store(true, std::memory_order_seq_cst);
    const auto fits =
        outgoing_ring_->RequestSpaceBell(ring::OutgoingRing::PacketBytes(0, payload_bytes));
    if (!fits) return std::unexpected(fits.error());
    space_requested_ = !*fits;
    if (*fits) return true;
    poll = must_poll_;
  }
  if (poll) turns_.RequestDispatch();  // whoever gives the turns asks must_poll()
  return false;
}

// Nobody falls asleep once StopIncoming has begun, for space neither: its caller may wait for the
// owner's thread. The second look is for a signal of it that ArmOutgoing has drained.
Result<bool> RawQueue::Arm(const Wish& wish) {
  bool ready = false;
  if (wish.outgoing) {
    const auto armed = ArmOutgoing(wish.payload_bytes);
    if (!armed) return armed;
    ready = *armed;
  }
  if (wish.incoming) {
    const auto armed = ArmIncoming();
    if (!armed) return armed;
    ready = ready || *armed;
  }
  if (!incoming_.open.load(std::memory_order_seq_cst)) {
    return std::unexpected(Error::kDeviceRemoved);
  }
  return ready;
}

Result<bool> RawQueue::Wait(const Wish& wish,
                            std::optional<std::chrono::steady_clock::time_point> deadline) {
  using std::chrono::nanoseconds;
  for (;;) {
    const auto ready = Arm(wish);
    if (!ready || *ready) return ready;
    pollfd fds[2];
    nfds_t count = 0;
    if (wish.incoming) fds[count++] = {.fd = incoming_.fd, .events = POLLIN, .revents = 0};
    if (wish.outgoing) fds[count++] = {.fd = outgoing_.fd, .events = POLLIN, .revents = 0};
    timespec left{};
    if (deadline) {
      const auto wait =
          std::chrono::duration_cast<nanoseconds>(*deadline - std::chrono::steady_clock::now());
      if (wait.count() <= 0) return false;
      left.tv_sec = static_cast<time_t>(wait.count() / 1'000'000'000);
      left.tv_nsec = static_cast<long>(wait.count() % 1'000'000'000);
    }
    const int woken = ppoll(fds, count, deadline ? &left : nullptr, nullptr);
    if (woken < 0 && errno != EINTR) return std::unexpected(Error::kSystemCall);
    if (woken == 0) return false;
  }
}

RawCounters RawQueue::counters() const {
  const auto get = [](const std::atomic<std::uint64_t>& counter) {
    return counter.load(std::memory_order_relaxed);
  };
  return {.packets_sent = get(packets_sent_),
          .bytes_sent = get(bytes_sent_),
          .completions_sent = get(completions_sent_),
          .ring_full = get(ring_full_),
          .packets_received = get(packets_received_),
          .bytes_received = get(bytes_received_),
          .completions_received = get(completions_received_),
          .bells_rung = get(bells_rung_) + get(bells_rung_for_space_)};
}

}  // namespace kmcl::channel
