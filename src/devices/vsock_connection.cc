#include "devices/vsock_connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <utility>

namespace kmcl::devices {
namespace {

// Before other connections have their turn.
constexpr int kPacketsPerTurn = 64;
// The guest's ring is given back in portions: it is woken for a part of it, not for each packet.
constexpr std::uint32_t kReleaseBytes = 16 * 1024;

constexpr std::uint32_t kPipeData = 1;
constexpr std::uint32_t kPacketOverhead = 24;  // of each packet in a ring, beside its payload
constexpr std::uint32_t kEndBytes = kPacketOverhead + kVsockHeaderBytes;
constexpr std::uint32_t kUnusedBytes = 8;                // of each ring
constexpr std::uint32_t kMostPayload = 0xFFFF * 8 - 16;  // of a packet in any ring
// For a ring that is larger than any packet, where no request for room can mean "all taken".
constexpr std::chrono::milliseconds kLookAgain{100};
// An offer is not left standing longer than this many times the patience, whatever else the guest
// opens meanwhile.
constexpr int kMostPatience = 6;

void PutHeader(std::span<std::byte> packet, std::size_t bytes) {
  const std::uint32_t header[2] = {kPipeData, static_cast<std::uint32_t>(bytes)};
  std::memcpy(packet.data(), header, sizeof(header));
}

NTSTATUS WriteRaw(VMBCHANNEL channel, std::span<const std::byte> packet) {
  return KmclRawWrite(channel, KMCL_RAW_DATA, 0, 0, const_cast<std::byte*>(packet.data()),
                      static_cast<UINT32>(packet.size()));
}

VsockConnection* Of(VMBCHANNEL channel) {
  return static_cast<VsockConnection*>(VmbChannelGetPointer(channel));
}

}  // namespace

VsockConnection::VsockConnection(Settings settings, HostSocket socket)
    : settings_(std::move(settings)), offered_(Clock::now()), socket_(std::move(socket)) {}

NTSTATUS VsockConnection::Offer() {
  VMBCHANNEL raw = nullptr;
  if (const NTSTATUS status = VmbChannelAllocate(settings_.device_object, TRUE, &raw);
      !NT_SUCCESS(status)) {
    return status;
  }
  channel_.reset(raw);
  VmbChannelSetPointer(raw, this);
  UNICODE_STRING name{};
  RtlInitUnicodeString(&name, reinterpret_cast<PCWSTR>(u"hvsock"));
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks{};
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelOpened = OnOpened;
  callbacks.EvtChannelStarted = OnStarted;
  callbacks.EvtChannelSuspend = OnSuspend;
  callbacks.EvtChannelClosed = OnSuspend;  // one that closes at once is never started
  KMCL_CONNECT_OFFER_DATA data{};
  data.ForClientAccept = is_host_initiated() ? 1 : 0;
  data.Version = 1;
  const NTSTATUS steps[] = {
      VmbServerChannelInitSetVmbusHandle(raw, settings_.partition),
      VmbServerChannelInitSetTargetInterfaceId(raw, settings_.service, settings_.endpoint),
      VmbChannelInitSetFriendlyName(raw, &name),
      VmbChannelInitSetFlags(raw, VMBUS_CHANNEL_INIT_FLAG_IS_PIPE),
      VmbServerChannelInitSetFlags(raw,
                                   VMBUS_SERVER_CHANNEL_INIT_FLAG_OFFER_AS_PIPE |
                                       VMBUS_SERVER_CHANNEL_INIT_FLAG_ENUMERATE_DEVICE_INTERFACE |
                                       VMBUS_SERVER_CHANNEL_INIT_FLAG_TLNPI_PROVIDER_OFFER),
      KmclServerChannelInitSetOfferData(raw, &data, sizeof(data)),
      KmclChannelInitSetRaw(raw),
      VmbChannelInitSetStateChangeCallbacks(raw, &callbacks),
  };
  for (const NTSTATUS status : steps) {
    if (!NT_SUCCESS(status)) {
      return status;
    }
  }
  const NTSTATUS status = OfferServerChannel(raw);
  if (NT_SUCCESS(status)) {
    {
      const std::lock_guard lock(mutex_);
      made_ = true;
    }
    settings_.ring(number());
  }
  return status;
}

void VsockConnection::Leave() {
  {
    const std::lock_guard lock(mutex_);
    leaving_ = true;
  }
  settings_.ring(number());
}

// ---- On KMCL's threads.

// The guest's connect() returns when this has, so the host's listener is there by then.
NTSTATUS VsockConnection::OnOpened(VMBCHANNEL channel) {
  VsockConnection* const self = Of(channel);
  {
    const std::lock_guard lock(self->mutex_);
    if (self->leaving_ || self->failed_ || self->suspended_) {
      return STATUS_DEVICE_REMOVED;
    }
  }
  if (self->is_host_initiated()) {
    return STATUS_SUCCESS;
  }
  auto connected = HostSocket::Connect(self->settings_.path, self->settings_.times.connect);
  {
    const std::lock_guard lock(self->mutex_);
    if (connected) {
      self->socket_ = std::move(*connected);
      return STATUS_SUCCESS;
    }
    self->Fail(self->settings_.path + ": " + std::generic_category().message(connected.error()));
  }
  self->settings_.ring(self->number());
  return STATUS_UNSUCCESSFUL;
}

VOID VsockConnection::OnStarted(VMBCHANNEL channel) {
  VsockConnection* const self = Of(channel);
  {
    const std::lock_guard lock(self->mutex_);
    self->started_ = true;
  }
  self->settings_.ring(self->number());
}

// When it returns nobody looks into the rings any more.
VOID VsockConnection::OnSuspend(VMBCHANNEL channel) {
  VsockConnection* const self = Of(channel);
  {
    const std::lock_guard lock(self->mutex_);
    self->suspended_ = true;
    self->unsent_ = {};
  }
  self->settings_.ring(self->number());
}

// ---- On the device's thread.

void VsockConnection::OnSocketEvents(std::uint32_t events) {
  const std::lock_guard lock(mutex_);
  host_gone_ = host_gone_ || (events & (EPOLLHUP | EPOLLERR)) != 0;
}

VsockConnection::Outcome VsockConnection::Pump(Clock::time_point now, Clock::time_point progress,
                                               std::span<std::byte> scratch) {
  const std::lock_guard lock(mutex_);
  const auto is_lost = [this] { return leaving_ || failed_ || suspended_; };
  Outcome outcome;
  bool more = false;
  if (!made_) {
    return outcome;
  }
  if (!started_) {
    outcome.deadline = Expire(now, progress);
  } else if (!is_lost()) {
    outcome.opened = !std::exchange(opened_, true);
    if (outcome.opened) {
      Begin();
    }
    // Each way goes on whatever becomes of the other.
    const bool more_to_host = !is_lost() && ToHost();
    const bool more_to_guest = !is_lost() && ToGuest(scratch);
    more = more_to_host || more_to_guest;
    outcome.deadline = is_lost() ? std::nullopt : LookAfter(now);
  }
  if (is_lost() || IsOver()) {
    outcome.turn = Turn::kEnded;
  } else if (more) {
    outcome.turn = Turn::kMore;
  }
  return outcome;
}

VsockConnection::Clock::time_point VsockConnection::Expire(Clock::time_point now,
                                                           Clock::time_point progress) {
  const auto until = std::min(std::max(offered_, progress) + settings_.times.patience,
                              offered_ + kMostPatience * settings_.times.patience);
  if (now >= until) {
    Fail("the guest has not opened the offer");
  }
  return until;
}

void VsockConnection::Begin() {
  UINT32 ring_bytes = 0;
  UINT32 untaken = 0;
  if (!Check(KmclRawQueryOutgoing(channel_.get(), &ring_bytes, &untaken))) {
    return;
  }
  // Two packets find room in any ring, so that one can be written while the other is read.
  const std::size_t half = (ring_bytes - kUnusedBytes) / 2 - kPacketOverhead - kVsockHeaderBytes;
  chunk_ = std::min(half / 8 * 8, kVsockMostBytes);
  // Linux leaves the end in its ring.
  drained_payload_ =
      std::min(ring_bytes - kUnusedBytes - kEndBytes - kPacketOverhead, kMostPayload);
  const std::string& greeting = settings_.greeting;
  if (!greeting.empty() && send(socket(), greeting.data(), greeting.size(),
                                MSG_DONTWAIT | MSG_NOSIGNAL) != ssize_t(greeting.size())) {
    host_gone_ = true;
  }
}

bool VsockConnection::ToHost() {
  for (int packets = 0; packets < kPacketsPerTurn; ++packets) {
    if (!has_packet_) {
      KMCL_RAW_PACKET packet{};
      NTSTATUS status = KmclRawPeek(channel_.get(), &packet);
      if (status == STATUS_NO_MORE_ENTRIES) {
        unreleased_ = 0;
        status = KmclRawArm(channel_.get(), KMCL_RAW_INCOMING, 0);
        if (status == STATUS_MORE_PROCESSING_REQUIRED) {
          continue;
        }
        Check(status);
        return false;
      }
      if (!Check(status) || !Take(packet)) {
        return false;
      }
    }
    if (!SendToHost()) {
      Release();
      return false;
    }
    if (!Check(KmclRawSkip(channel_.get()))) {
      return false;
    }
    has_packet_ = false;
    if (unreleased_ >= kReleaseBytes) {
      Release();
    }
  }
  Release();
  return true;
}

void VsockConnection::Release() {
  unreleased_ = 0;
  Check(KmclRawRelease(channel_.get()));
}

// The guest can change its bytes at any time: the header is read once, and the data only handed on.
bool VsockConnection::Take(const KMCL_RAW_PACKET& packet) {
  if (guest_end_) {
    Fail("the guest sent a packet after its end");
    return false;
  }
  if (packet.Type != KMCL_RAW_DATA || packet.PayloadLength < kVsockHeaderBytes) {
    Fail("the guest sent a packet of type " + std::to_string(packet.Type) + " and " +
         std::to_string(packet.PayloadLength) + " bytes");
    return false;
  }
  auto* const payload = static_cast<std::byte*>(packet.Payload);
  const auto header = std::bit_cast<std::array<std::uint32_t, 2>>(
      std::atomic_ref(*static_cast<std::uint64_t*>(packet.Payload))
          .load(std::memory_order_relaxed));
  const std::uint32_t bytes = header[1];
  if (header[0] != kPipeData || bytes > kVsockMostBytes ||
      bytes > packet.PayloadLength - kVsockHeaderBytes) {
    Fail("the guest sent a pipe header of type " + std::to_string(header[0]) + " for " +
         std::to_string(bytes) + " bytes");
    return false;
  }
  has_packet_ = true;
  unreleased_ += packet.PayloadLength + kPacketOverhead;
  unsent_ = {payload + kVsockHeaderBytes, bytes};
  if (bytes == 0) {
    guest_end_ = true;
    shutdown(socket(), SHUT_WR);
  }
  return true;
}

// False: the host's socket takes no more now.
bool VsockConnection::SendToHost() {
  while (!unsent_.empty() && !host_gone_) {
    const ssize_t sent =
        send(socket(), unsent_.data(), unsent_.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      unsent_ = unsent_.subspan(static_cast<std::size_t>(sent));
      bytes_to_host_ += static_cast<std::uint64_t>(sent);
    } else if (errno == EAGAIN) {
      return false;
    } else if (errno != EINTR) {
      host_gone_ = true;
    }
  }
  if (!unsent_.empty()) {
    unsent_ = {};  // nobody is there to have it
    dropped_ = true;
  }
  return true;
}

bool VsockConnection::ToGuest(std::span<std::byte> scratch) {
  for (int packets = 0; packets < kPacketsPerTurn; ++packets) {
    if (!waiting_.empty()) {
      if (!Write(waiting_)) {
        return false;
      }
      waiting_.clear();
      continue;
    }
    if (end_sent_) {
      Drain();
      return false;
    }
    if (host_end_) {
      waiting_.resize(kVsockHeaderBytes);
      PutHeader(waiting_, 0);
      end_sent_ = true;
      continue;
    }
    const ssize_t got = recv(socket(), scratch.data() + kVsockHeaderBytes, chunk_, MSG_DONTWAIT);
    if (got > 0) {
      const auto packet = scratch.first(kVsockHeaderBytes + static_cast<std::size_t>(got));
      PutHeader(packet, static_cast<std::size_t>(got));
      bytes_to_guest_ += static_cast<std::uint64_t>(got);
      const NTSTATUS status = WriteRaw(channel_.get(), packet);
      if (status == STATUS_BUFFER_OVERFLOW) {
        waiting_.assign(packet.begin(), packet.end());
      } else if (!Check(status)) {
        return false;
      }
    } else if (got == 0) {
      host_end_ = true;
    } else if (errno == EAGAIN) {
      Check(KmclRawFlush(channel_.get()));
      return false;
    } else if (errno != EINTR) {
      host_end_ = host_gone_ = true;
    }
  }
  Check(KmclRawFlush(channel_.get()));
  return true;
}

bool VsockConnection::Write(std::span<const std::byte> packet) {
  for (;;) {
    NTSTATUS status = WriteRaw(channel_.get(), packet);
    if (status != STATUS_BUFFER_OVERFLOW) {
      return Check(status);
    }
    status = KmclRawArm(channel_.get(), KMCL_RAW_OUTGOING, static_cast<UINT32>(packet.size()));
    if (status != STATUS_MORE_PROCESSING_REQUIRED) {
      Check(status);
      return false;
    }
  }
}

// The end was written. Once the guest has taken what came before it, nothing is lost by a rescind.
void VsockConnection::Drain() {
  if (end_taken_) {
    return;
  }
  const NTSTATUS status = KmclRawArm(channel_.get(), KMCL_RAW_OUTGOING, drained_payload_);
  if (status == STATUS_MORE_PROCESSING_REQUIRED) {
    end_taken_ = Untaken() <= kEndBytes;
  } else {
    Check(status);
  }
}

std::uint32_t VsockConnection::Untaken() {
  UINT32 ring_bytes = 0;
  UINT32 untaken = 0;
  return Check(KmclRawQueryOutgoing(channel_.get(), &ring_bytes, &untaken)) ? untaken : 0;
}

// The guest has closed its direction, and takes nothing of what waits for it: it has closed the
// socket, most likely. Or it goes on writing to a program that has gone, and does not read that.
// Any other guest may take as long as it likes.
std::optional<VsockConnection::Clock::time_point> VsockConnection::LookAfter(
    Clock::time_point now) {
  const bool is_draining = end_sent_ && !end_taken_;
  std::optional<Clock::time_point> deadline;
  if (is_draining && drained_payload_ == kMostPayload) {
    deadline = now + kLookAgain;
  }
  if (!(guest_end_ || dropped_) || (waiting_.empty() && !is_draining)) {
    linger_since_.reset();
    return deadline;
  }
  const std::uint32_t untaken = Untaken();
  if (!linger_since_ || untaken != linger_untaken_) {
    linger_since_ = now;
    linger_untaken_ = untaken;
  } else if (now >= *linger_since_ + settings_.times.linger) {
    Fail(std::string(guest_end_ ? "the guest has closed" : "the host's program has gone") +
         ", and the guest leaves " + std::to_string(untaken) + " bytes of its ring unread");
  }
  const auto until = *linger_since_ + settings_.times.linger;
  return deadline ? std::min(*deadline, until) : until;
}

bool VsockConnection::IsOver() const {
  return end_sent_ && end_taken_ && (guest_end_ || host_gone_);
}

// False: the rings are not to be used any more.
bool VsockConnection::Check(NTSTATUS status) {
  if (NT_SUCCESS(status)) {
    return true;
  }
  if (status == STATUS_DEVICE_REMOVED) {
    leaving_ = true;  // the guest has gone; the suspend is on its way
  } else {
    Fail(KmclStatusName(status));
  }
  return false;
}

std::string VsockConnection::fault() {
  const std::lock_guard lock(mutex_);
  return fault_;
}

void VsockConnection::Fail(std::string why) {
  if (!std::exchange(failed_, true)) {
    fault_ = std::move(why);
  }
}

}  // namespace kmcl::devices
