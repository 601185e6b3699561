#include "busy_channel.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace kmcl::kill {
namespace {

constexpr std::int64_t kPatienceNs = 10'000'000'000;

#define KMCL_RETURN_UNLESS_SUCCESS(call) \
  if (const NTSTATUS status = (call); status != STATUS_SUCCESS) return status

}  // namespace

GUID InstanceOf(std::uint32_t index) {
  GUID instance = kBusyType;
  instance.Data1 = index;
  return instance;
}

BusyChannel::BusyChannel(const Plan& plan, std::uint32_t index, Surroundings& around)
    : plan_(plan), index_(index), around_(around) {}

BusyChannel::~BusyChannel() {
  if (handle_ != nullptr) {
    CheckAccounts();
    for (Slot& slot : slots_) VmbPacketFree(slot.packet);
    VmbChannelCleanup(handle_);
  }
  if (signal_ >= 0) close(signal_);
}

BusyChannel& BusyChannel::Of(VMBCHANNEL channel) {
  return *static_cast<BusyChannel*>(VmbChannelGetPointer(channel));
}

void BusyChannel::Fault(const std::string& what) {
  around_.faults.Add("channel " + std::to_string(index_) + ": " + what);
}

NTSTATUS BusyChannel::Allocate(PDEVICE_OBJECT device, HANDLE partition) {
  if (partition == nullptr) {
    signal_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (signal_ < 0) return STATUS_INSUFFICIENT_RESOURCES;
  }
  KMCL_RETURN_UNLESS_SUCCESS(
      VmbChannelAllocate(device, static_cast<BOOLEAN>(partition != nullptr), &handle_));
  VmbChannelSetPointer(handle_, this);
  KMCL_RETURN_UNLESS_SUCCESS(Configure(partition));
  return MakeSlots();
}

NTSTATUS BusyChannel::Configure(HANDLE partition) {
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelOpened = [](VMBCHANNEL channel) {
    Of(channel).OnOpened();
    return STATUS_SUCCESS;
  };
  callbacks.EvtChannelStarted = [](VMBCHANNEL channel) { Of(channel).OnStarted(); };
  callbacks.EvtChannelSuspend = [](VMBCHANNEL channel) { Of(channel).OnSuspend(); };
  callbacks.EvtChannelClosed = [](VMBCHANNEL channel) { Of(channel).OnClosed(); };
  KMCL_RETURN_UNLESS_SUCCESS(VmbChannelInitSetStateChangeCallbacks(handle_, &callbacks));
  KMCL_RETURN_UNLESS_SUCCESS(
      VmbChannelInitSetProcessPacketCallbacks(handle_, ProcessPacket, nullptr));
  KMCL_RETURN_UNLESS_SUCCESS(
      VmbChannelInitSetMaximumPacketSize(handle_, plan_.longest_payload_bytes));
  KMCL_RETURN_UNLESS_SUCCESS(VmbChannelInitSetClientContextSize(handle_, sizeof(bool)));
  const GUID instance = InstanceOf(index_);
  is_server_ = partition != nullptr;
  if (is_server_) {
    KMCL_RETURN_UNLESS_SUCCESS(
        VmbServerChannelInitSetSaveRestorePacketCallbacks(handle_, SavePacket, RestorePacket));
    KMCL_RETURN_UNLESS_SUCCESS(VmbServerChannelInitSetVmbusHandle(handle_, partition));
    return VmbServerChannelInitSetTargetInterfaceId(handle_, kBusyType, instance);
  }
  KMCL_RETURN_UNLESS_SUCCESS(
      VmbClientChannelInitSetRingBufferPageCount(handle_, plan_.ring_pages, plan_.ring_pages));
  return VmbClientChannelInitSetTargetPnp(
      handle_, &kBusyType, &instance,
      [](VMBCHANNEL channel, NTSTATUS) { Of(channel).OnFailure(); });
}

NTSTATUS BusyChannel::MakeSlots() {
  if (index_ == kEchoIndex) return STATUS_SUCCESS;
  Random random(plan_.seed * 1000 + index_);
  for (std::uint32_t i = 0; i < plan_.transactions_per_channel + plan_.plain_per_channel; ++i) {
    Slot& slot = slots_.emplace_back();
    slot.channel = this;
    slot.packet = VmbPacketAllocate(handle_);
    if (slot.packet == nullptr) return STATUS_INSUFFICIENT_RESOURCES;
    slot.wants_completion = i < plan_.transactions_per_channel;
    slot.random = Random(random.Next());
    slot.number = std::uint64_t{i} << kSlotShift;
    VmbPacketSetPointer(slot.packet, &slot);
    VmbPacketSetCompletionRoutine(slot.packet, PacketDone);
  }
  return STATUS_SUCCESS;
}

NTSTATUS BusyChannel::Enable() {
  over_ = false;
  return VmbChannelEnable(handle_);
}

// ---- State callbacks.

void BusyChannel::OnOpened() {
  if (open_.exchange(true)) Fault("opened twice");
}

void BusyChannel::OnStarted() {
  if (!open_) Fault("started, but not open");
  if (running_.exchange(true)) Fault("started twice");
  for (Slot& slot : slots_) TrySend(slot);
}

void BusyChannel::OnSuspend() {
  if (!running_.exchange(false)) Fault("suspended, but not started");
  const std::int64_t killed = around_.killed_ns->load();
  const std::int64_t now = NowNs();
  if (killed == 0 || now < killed) return;
  std::int64_t not_yet = 0;
  around_.noticed_ns.compare_exchange_strong(not_yet, now);
}

void BusyChannel::OnClosed() {
  if (running_) Fault("closed, but not suspended");
  if (!open_.exchange(false)) Fault("closed, but not open");
  const std::uint64_t retired = retired_;
  const std::uint64_t delivered = delivered_;
  if (delivered != retired) {
    Fault("closed while " + std::to_string(delivered - retired) + " packets are outstanding");
  }
  over_ = true;
  Signal();
}

void BusyChannel::OnFailure() {
  over_ = true;
  Signal();
}

// ---- Packets.

void BusyChannel::ProcessPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                                UINT32 bytes, UINT32) {
  Of(channel).OnPacket(packet, buffer, bytes);
}

void BusyChannel::OnPacket(VMBPACKETCOMPLETION packet, const void* buffer, UINT32 bytes) {
  if (!running_) Fault("a packet is delivered, but the channel is not started");
  const Retirement retirement = plan_.retirement(index_);
  if (retirement == Retirement::kDeferred) {
    bool& deferred = *static_cast<bool*>(VmbChannelPacketGetClientContext(packet));
    if (!deferred) {
      deferred = true;
      VmbChannelPacketDeferToPassive(packet);
      return;
    }
  }
  // All words of a packet are its number.
  const auto* const words = static_cast<const std::uint64_t*>(buffer);
  if (bytes < sizeof *words) return Fault("a packet of " + std::to_string(bytes) + " bytes");
  const std::uint64_t number = words[0];
  if (words[bytes / sizeof *words - 1] != number) Fault("a packet is torn");

  if (around_.ledger != nullptr && index_ != kEchoIndex) {
    // Where the client's channels stay open, all that it sends arrives, as long as anybody serves
    // it.
    const bool gaps = plan_.cycles || !is_server_;
    if (const char* const wrong = around_.ledger->Deliver(is_server_, index_, number, gaps)) {
      Fault(wrong);
    }
  }
  ++delivered_;
  around_.kill_switch.OnPacket();
  CountEvent();
  if (retirement == Retirement::kOtherThread) {
    around_.retirer.Add(packet, number, [this] { ++retired_; });
    return;
  }
  ++retired_;
  std::uint64_t answer = number;
  VmbChannelPacketComplete(packet, &answer, sizeof answer);
}

void BusyChannel::PacketDone(VMBPACKET packet, NTSTATUS status, PVOID buffer, UINT32 bytes) {
  Slot& slot = *static_cast<Slot*>(VmbPacketGetPointer(packet));
  slot.channel->OnDone(slot, status, buffer, bytes);
}

void BusyChannel::OnDone(Slot& slot, NTSTATUS status, const void* buffer, UINT32 bytes) {
  Account& account = slot.wants_completion ? transactions_ : plain_;
  const bool success = status == STATUS_SUCCESS;
  if (success) {
    ++account.completed;
    if (slot.wants_completion && (bytes != sizeof slot.number ||
                                  *static_cast<const std::uint64_t*>(buffer) != slot.number)) {
      Fault("a transaction is completed with another one's answer");
    }
  } else {
    ++account.cancelled;
    if (status != STATUS_DEVICE_REMOVED) {
      Fault(std::string("a packet ends with ") + KmclStatusName(status));
    }
  }
  const bool wants_completion = slot.wants_completion;
  if (!slot.in_flight.exchange(false)) Fault("a packet is completed that was not sent");
  if (!success || !wants_completion) return;

  around_.kill_switch.OnCompletion();
  CountEvent();
  TrySend(slot);
  // Plain packets are often done before their send returns; sending them from their own routine
  // would go ever deeper.
  for (std::size_t i = plan_.transactions_per_channel; i < slots_.size(); ++i) TrySend(slots_[i]);
}

// Whoever finds the slot idle while the channel runs may send from it.
void BusyChannel::TrySend(Slot& slot) {
  if (!running_ || slot.in_flight.exchange(true)) return;
  std::array<std::uint64_t, 512> words;
  const std::uint32_t longest = plan_.longest_payload_bytes / sizeof words[0];
  // Short ones mostly, so that they overtake nothing and still meet a full ring.
  const std::uint32_t count =
      slot.random.Between(1, slot.random.Between(0, 2) == 0 ? longest : std::min(longest, 8u));
  std::fill_n(words.begin(), count, ++slot.number);

  Account& account = slot.wants_completion ? transactions_ : plain_;
  ++account.accepted;  // its routine may be called before VmbPacketSend returns
  const NTSTATUS status =
      VmbPacketSend(slot.packet, words.data(), count * sizeof words[0], nullptr,
                    slot.wants_completion ? VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION : 0);
  if (status == STATUS_SUCCESS) return;
  --account.accepted;
  slot.in_flight = false;
  // Disabled meanwhile, by another thread.
  if (status != STATUS_INVALID_DEVICE_STATE) {
    Fault(std::string("a send is refused: ") + KmclStatusName(status));
  }
}

// ---- Waiting.

void BusyChannel::CountEvent() {
  if (++events_ == goal_) Signal();
}

void BusyChannel::Signal() {
  if (signal_ < 0) return;
  const std::uint64_t one = 1;
  if (write(signal_, &one, sizeof one) != sizeof one) Fault("an event cannot be signalled");
}

template <typename Condition>
bool BusyChannel::WaitUntil(Condition condition, int other_fd) {
  const std::int64_t deadline = NowNs() + kPatienceNs;
  while (!condition()) {
    pollfd waits[] = {{signal_, POLLIN, 0}, {other_fd, POLLIN, 0}};
    const std::int64_t left_ms = (deadline - NowNs()) / 1'000'000;
    if (left_ms <= 0 || poll(waits, 2, static_cast<int>(left_ms)) == 0) return condition();
    if (waits[1].revents != 0) return true;
    std::uint64_t ignored = 0;
    (void)!read(signal_, &ignored, sizeof ignored);
  }
  return true;
}

bool BusyChannel::WaitForEvents(std::uint32_t more, int other_fd) {
  const std::uint64_t goal = events_ + more;
  goal_ = goal;
  return WaitUntil([&] { return events_ >= goal || over_; }, other_fd);
}

bool BusyChannel::WaitUntilClosed() {
  return WaitUntil([this] { return !open_; }, -1);
}

// ---- Afterwards.

// The channel is disabled: nothing is in flight, and the library has counted as we have.
void BusyChannel::CheckAccounts() {
  const auto expect = [this](const char* what, std::uint64_t is, std::uint64_t should_be) {
    if (is != should_be) {
      Fault(std::string(what) + ": " + std::to_string(is) + ", expected " +
            std::to_string(should_be));
    }
  };
  expect("open after it was disabled", open_, 0);
  expect("running after it was disabled", running_, 0);
  for (const Slot& slot : slots_) expect("packets still in flight", slot.in_flight, 0);
  expect("transactions completed and cancelled", transactions_.completed + transactions_.cancelled,
         transactions_.accepted);
  expect("plain packets sent and cancelled", plain_.completed + plain_.cancelled, plain_.accepted);
  expect("packets retired", retired_, delivered_);

  KMCL_CHANNEL_COUNTERS counters{};
  counters.Size = sizeof counters;
  if (KmclChannelQueryCounters(handle_, &counters) != STATUS_SUCCESS) {
    return Fault("the counters cannot be read");
  }
  // Counters are not saved, and a restored transaction was counted where it was sent.
  if (transactions_.restored == 0) {
    expect("TransactionsStarted", counters.TransactionsStarted, transactions_.accepted);
    expect("TransactionsCompleted", counters.TransactionsCompleted, transactions_.completed);
    expect("TransactionsCancelled", counters.TransactionsCancelled, transactions_.cancelled);
  }
  expect("Outstanding", counters.Outstanding, 0);
  expect("Queued", counters.Queued, 0);
  expect("PacketsReceived", counters.PacketsReceived, delivered_);
  total_accepted_ += transactions_.accepted;
  total_cancelled_ += transactions_.cancelled;
}

}  // namespace kmcl::kill
