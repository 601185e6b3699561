#include "cli/byte_pipe.h"

#include <errno.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <system_error>
#include <utility>

#include "cli/main_wait.h"

namespace kmcl::cli {
namespace {

// The most that other implementations put into one pipe packet, and take (VMBus reference 2).
constexpr UINT32 kPacketBytes = 16384;
constexpr std::size_t kWindow = 32;     // packets between the reader and the ring
constexpr UINT32 kRingPages = 1 + 128;  // 512 KiB each way
constexpr std::size_t kPipeAtom =
    4096;  // PIPE_BUF: a pipe that is writable takes as much without waiting
constexpr auto kOpenWithin = std::chrono::seconds(10);
constexpr auto kGoodbyeWithin = std::chrono::seconds(10);
constexpr std::uint64_t kOne = 1;

BytePipe& Self(VMBCHANNEL channel) {
  return *static_cast<BytePipe*>(VmbChannelGetPointer(channel));
}

std::string SystemSays(const char* what) {
  return fmt::format("{}: {}", what, std::generic_category().message(errno));
}

bool IsRegularFile(int descriptor) {
  struct stat status{};
  return fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
}

// Has somebody at its other end who may go away.
bool HasReader(int descriptor) {
  struct stat status{};
  return fstat(descriptor, &status) == 0 && (S_ISFIFO(status.st_mode) || S_ISSOCK(status.st_mode));
}

}  // namespace

Outcome<std::unique_ptr<BytePipe>> BytePipe::Prepare(const BytePipePlan& plan) {
  std::unique_ptr<BytePipe> self(new BytePipe(plan));
  self->stop_ = eventfd(0, EFD_CLOEXEC);
  self->nudge_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (self->stop_ < 0 || self->nudge_ < 0) {
    return Fail(kExitFailure, SystemSays("cannot make an eventfd"));
  }
  if (HasReader(plan.output)) self->watched_output_ = plan.output;
  return self;
}

BytePipe::~BytePipe() {
  Close();
  slots_.clear();
  if (channel_ != nullptr) VmbChannelCleanup(channel_);
  if (stop_ >= 0) close(stop_);
  if (nudge_ >= 0) close(nudge_);
}

// ---- The channel.

NTSTATUS BytePipe::Allocate(PDEVICE_OBJECT device_object, Role role) {
  role_ = role;
  const NTSTATUS allocated =
      VmbChannelAllocate(device_object, role == Role::kServer ? TRUE : FALSE, &channel_);
  if (!NT_SUCCESS(allocated)) return allocated;
  VmbChannelSetPointer(channel_, this);
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelPostStarted = [](VMBCHANNEL channel) {
    Self(channel).started_.store(true, std::memory_order_release);
    MainWait::Get().Wake();
  };
  callbacks.EvtChannelSuspend = [](VMBCHANNEL channel) { Self(channel).NoteLost(); };
  callbacks.EvtChannelClosed = [](VMBCHANNEL channel) { Self(channel).NoteLost(); };
  for (const NTSTATUS status :
       {VmbChannelInitSetStateChangeCallbacks(channel_, &callbacks),
        VmbChannelInitSetProcessPacketCallbacks(channel_, OnPacket, nullptr),
        VmbChannelInitSetMaximumPacketSize(channel_, kPacketBytes),
        VmbChannelInitSetFlags(channel_, VMBUS_CHANNEL_INIT_FLAG_IS_PIPE)}) {
    if (!NT_SUCCESS(status)) return status;
  }
  VmbChannelSetIncomingProcessingAtPassive(channel_, TRUE);
  return STATUS_SUCCESS;
}

NTSTATUS BytePipe::Enable() {
  for (std::size_t i = 0; i < kWindow; ++i) {
    auto slot = std::make_unique<Slot>();
    slot->owner = this;
    slot->packet.reset(VmbPacketAllocate(channel_));
    if (!slot->packet) return STATUS_INSUFFICIENT_RESOURCES;
    VmbPacketSetPointer(slot->packet.get(), slot.get());
    VmbPacketSetCompletionRoutine(slot->packet.get(), OnSent);
    free_.push_back(slot.get());
    slots_.push_back(std::move(slot));
  }
  return VmbChannelEnable(channel_);
}

NTSTATUS BytePipe::Offer(KMCL_SERVER server, HANDLE partition) {
  NTSTATUS status = Allocate(KmclServerDeviceObject(server), Role::kServer);
  if (!NT_SUCCESS(status)) return status;
  for (const NTSTATUS each :
       {VmbServerChannelInitSetFlags(channel_, VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE),
        VmbServerChannelInitSetVmbusHandle(channel_, partition),
        VmbServerChannelInitSetTargetInterfaceId(channel_, plan_.interface_type,
                                                 plan_.instance.value_or(plan_.interface_type))}) {
    if (!NT_SUCCESS(each)) return each;
  }
  status = Enable();
  if (NT_SUCCESS(status)) VmbChannelStart(channel_);
  return status;
}

Outcome<void> BytePipe::Connect(const ClientBus& bus) {
  NTSTATUS status = Allocate(KmclClientDeviceObject(bus.client()), Role::kClient);
  const auto on_failure = [](VMBCHANNEL channel, NTSTATUS why) {
    Self(channel).open_failure_.store(why, std::memory_order_release);
    MainWait::Get().Wake();
  };
  if (NT_SUCCESS(status)) {
    status = VmbClientChannelInitSetRingBufferPageCount(channel_, kRingPages, kRingPages);
  }
  if (NT_SUCCESS(status)) {
    status = VmbClientChannelInitSetTargetPnp(
        channel_, &plan_.interface_type, plan_.instance ? &*plan_.instance : nullptr, on_failure);
  }
  if (NT_SUCCESS(status)) status = Enable();
  if (!NT_SUCCESS(status)) return Fail(kExitFailure, "cannot make the channel", status);
  MainWait& wait = MainWait::Get();
  const bool settled = wait.UntilTime(std::chrono::steady_clock::now() + kOpenWithin, [this] {
    return started_.load(std::memory_order_acquire) || lost_.load(std::memory_order_acquire) ||
           open_failure_.load(std::memory_order_acquire) != STATUS_SUCCESS;
  });
  if (wait.interrupted()) return Fail(kExitInterrupted, "interrupted");
  if (!started_.load(std::memory_order_acquire)) {
    const bool connected = KmclClientIsConnected(bus.client()) != FALSE;
    return Fail(connected && settled ? kExitFailure : kExitLost, "the channel does not open",
                open_failure_.load(std::memory_order_acquire));
  }
  return {};
}

void BytePipe::Close() {
  if (std::exchange(closed_, true)) return;
  stopping_.store(true, std::memory_order_release);
  if (stop_ >= 0) (void)!write(stop_, &kOne, sizeof kOne);
  {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  }
  if (reader_.joinable()) reader_.join();
  if (channel_ != nullptr) VmbChannelDisable(channel_);
}

void BytePipe::NoteLost() {
  if (stopping_.load(std::memory_order_acquire)) return;
  lost_.store(true, std::memory_order_release);
  {
    const std::lock_guard lock(mutex_);
    changed_.notify_all();
  }
  MainWait::Get().Wake();
}

// The first one counts.
void BytePipe::NoteFailure(std::string message, NTSTATUS status) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = Failure{kExitFailure, std::move(message), status};
  }
  MainWait::Get().Wake();
}

void BytePipe::Finish() {
  finished_.store(true, std::memory_order_release);
  MainWait::Get().Wake();
}

KMCL_CHANNEL_COUNTERS BytePipe::Counters() const {
  KMCL_CHANNEL_COUNTERS counters{};
  counters.Size = sizeof(counters);
  if (channel_ == nullptr || !NT_SUCCESS(KmclChannelQueryCounters(channel_, &counters))) return {};
  return counters;
}

// ---- The main thread.

Outcome<void> BytePipe::Run() {
  MainWait& wait = MainWait::Get();
  const auto failed = [this] {
    const std::lock_guard lock(mutex_);
    return failure_.has_value();
  };
  const auto is = [](const std::atomic<bool>& flag) {
    return flag.load(std::memory_order_acquire);
  };
  wait.Until([&] { return is(started_) || is(lost_) || failed(); });
  if (is(started_)) {
    reader_ = std::thread([this] { ReadAndSend(); });
    wait.Until([&] { return is(finished_) || is(lost_) || failed(); });
    if (is(finished_) && role_ == Role::kClient) {
      // The server goes on when it has read our last word; it has everything already.
      wait.UntilTime(std::chrono::steady_clock::now() + kGoodbyeWithin, [&] { return is(lost_); });
    }
  }
  const bool interrupted = wait.interrupted();
  Close();
  if (is(finished_)) return {};
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return std::unexpected(*failure_);
  }
  if (interrupted) return Fail(kExitInterrupted, "interrupted");
  return Fail(kExitLost, "the other end has gone", STATUS_DEVICE_REMOVED);
}

bool BytePipe::WaitFor(int descriptor, short events) const {
  pollfd look[] = {{.fd = descriptor, .events = events, .revents = 0},
                   {.fd = stop_, .events = POLLIN, .revents = 0}};
  while (poll(look, 2, -1) < 0 && errno == EINTR) {
  }
  return look[1].revents == 0;
}

// ---- Out.

bool BytePipe::WaitForInput(int descriptor) {
  for (;;) {
    pollfd look[] = {{.fd = descriptor, .events = POLLIN, .revents = 0},
                     {.fd = stop_, .events = POLLIN, .revents = 0},
                     {.fd = nudge_, .events = POLLIN, .revents = 0},
                     {.fd = watched_output_, .events = 0, .revents = 0}};
    if (poll(look, std::size(look), -1) < 0) continue;
    if (look[1].revents != 0) return false;
    if (look[2].revents != 0) {
      std::uint64_t ignored = 0;
      (void)!read(nudge_, &ignored, sizeof ignored);
      continue;
    }
    if (look[3].revents != 0) {
      NoteFailure("cannot write the output: nobody reads it any more");
      return false;
    }
    return true;
  }
}

void BytePipe::ReadAndSend() {
  std::vector<std::byte> buffer(kPacketBytes);
  for (;;) {
    Slot* const slot = TakeFreeSlot();
    if (slot == nullptr || !WaitForInput(plan_.input)) return;
    const ssize_t got = read(plan_.input, buffer.data(), buffer.size());
    if (got < 0 && errno != EINTR && errno != EAGAIN) {
      NoteFailure(SystemSays("cannot read the input"));
      return;
    }
    if (got == 0) break;
    if (got < 0) {
      const std::lock_guard lock(mutex_);
      free_.push_back(slot);
      continue;
    }
    if (!Send(*slot, {buffer.data(), static_cast<std::size_t>(got)})) return;
    bytes_sent_.fetch_add(static_cast<std::uint64_t>(got), std::memory_order_relaxed);
  }
  {
    const std::lock_guard lock(mutex_);
    sending_end_ = true;
  }
  if (!SendEmpty()) return;
  {
    const std::lock_guard lock(mutex_);
    sent_end_ = true;
  }
  ConfirmIfBothEnded();
  (void)WaitForInput(-1);
}

// Waits for room: a slot is free again when its packet is in the ring. nullptr when all is over.
BytePipe::Slot* BytePipe::TakeFreeSlot() {
  std::unique_lock lock(mutex_);
  const auto over = [this] {
    return stopping_.load(std::memory_order_acquire) || lost_.load(std::memory_order_acquire);
  };
  changed_.wait(lock, [&] { return !free_.empty() || over(); });
  if (over()) return nullptr;
  Slot* const slot = free_.back();
  free_.pop_back();
  return slot;
}

bool BytePipe::Send(Slot& slot, std::span<std::byte> bytes) {
  const NTSTATUS status =
      VmbPacketSend(slot.packet.get(), bytes.data(), static_cast<UINT32>(bytes.size()), nullptr, 0);
  return NT_SUCCESS(status);  // otherwise the channel is going, which Suspend tells
}

VOID BytePipe::OnSent(VMBPACKET packet, NTSTATUS, PVOID, UINT32) {
  auto& slot = *static_cast<Slot*>(VmbPacketGetPointer(packet));
  BytePipe& self = *slot.owner;
  const std::lock_guard lock(self.mutex_);
  self.free_.push_back(&slot);
  self.changed_.notify_one();
}

bool BytePipe::SendEmpty() {
  VMBPACKET const packet = VmbPacketAllocate(channel_);  // frees itself
  if (packet == nullptr) {
    NoteFailure("no memory for a packet", STATUS_INSUFFICIENT_RESOURCES);
    return false;
  }
  if (NT_SUCCESS(VmbPacketSend(packet, nullptr, 0, nullptr, 0))) return true;
  VmbPacketFree(packet);
  return false;
}

// The server's second empty packet. The client's follows from it, in ReceiveEnd.
void BytePipe::ConfirmIfBothEnded() {
  {
    const std::lock_guard lock(mutex_);
    if (role_ == Role::kClient || !sent_end_ || !received_end_ || confirmed_) return;
    confirmed_ = true;
  }
  SendEmpty();
}

// ---- In.

VOID BytePipe::OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                        UINT32 buffer_bytes, UINT32 /*flags*/) {
  BytePipe& self = Self(channel);
  if (buffer_bytes == 0) {
    self.ReceiveEnd();
  } else {
    self.Receive({static_cast<const std::byte*>(buffer), buffer_bytes});
  }
  VmbChannelPacketComplete(packet, nullptr, 0);
}

void BytePipe::Receive(std::span<const std::byte> bytes) {
  if (empty_packets_ > 0) {
    NoteFailure("the other end sent more after the end of its stream");
    return;
  }
  if (WriteAll(bytes)) bytes_received_.fetch_add(bytes.size(), std::memory_order_relaxed);
}

void BytePipe::ReceiveEnd() {
  switch (++empty_packets_) {
    case 1:
      // Whoever reads our output learns of the end now, not when we go; the thread that watches it
      // holds it open no longer.
      watched_output_ = -1;
      if (close(plan_.output) != 0) NoteFailure(SystemSays("cannot write the output"));
      (void)!write(nudge_, &kOne, sizeof kOne);
      {
        const std::lock_guard lock(mutex_);
        received_end_ = true;
        if (failure_) return;  // do not confirm what was not written
      }
      ConfirmIfBothEnded();
      return;
    case 2: {
      bool in_turn = false;
      {
        const std::lock_guard lock(mutex_);
        in_turn = !failure_ && (role_ == Role::kClient ? sending_end_ : confirmed_);
      }
      if (!in_turn) {
        NoteFailure("the other end confirmed what it cannot have");
      } else if (role_ == Role::kServer || SendEmpty()) {
        Finish();
      }
      return;
    }
    default:
      NoteFailure("the other end goes on after its last word");
  }
}

bool BytePipe::WriteAll(std::span<const std::byte> bytes) {
  // Never stuck in write: Ctrl-C must end this. A regular file does not make us wait.
  const std::size_t at_most = IsRegularFile(plan_.output) ? bytes.size() : kPipeAtom;
  while (!bytes.empty()) {
    if (!WaitFor(plan_.output, POLLOUT)) return false;
    const ssize_t put = write(plan_.output, bytes.data(), std::min(bytes.size(), at_most));
    if (put < 0 && errno != EINTR && errno != EAGAIN) {
      NoteFailure(SystemSays("cannot write the output"));
      return false;
    }
    if (put > 0) bytes = bytes.subspan(static_cast<std::size_t>(put));
  }
  return true;
}

}  // namespace kmcl::cli
