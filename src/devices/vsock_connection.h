// One connection between a socket of the guest's (AF_VSOCK, hvsock) and a Unix socket of the
// host's: a channel of its own, and the bytes that go both ways (VMBus device reference 2).
//
// The guest's ring is the only buffer of the way to the host: its packets are sent from where they
// lie. On the other way at most one packet waits for room in the ring. So whoever does not read
// stops the one who writes, and a connection costs no more memory than that, whatever is sent.
//
// Threads. Pump, Look and the rest belong to the device's thread; KMCL's callbacks come on others
// and only leave word, but for Opened, which connects to the host's socket.
#pragma once

#include <kmcl/connect.h>
#include <kmcl/raw.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "devices/host_socket.h"
#include "devices/server_channel.h"

namespace kmcl::devices {

inline constexpr std::size_t kVsockHeaderBytes = 8;    // in front of each packet's bytes
inline constexpr std::size_t kVsockMostBytes = 16384;  // behind it; Linux takes no more

// What the device wants of its connections.
struct VsockTimes {
  // How long the guest may leave an offer unopened, since the last sign that it works on offers at
  // all. Nobody tells a host that nobody listens.
  std::chrono::milliseconds patience{5000};
  // How long a guest that has closed its direction may take none of what waits for it. One that
  // has closed the socket never will, and the two cannot be told apart: Linux gives up its socket
  // after 8 s, and leaves the channel open for the host to take away. The
  // same for a guest that writes to a program of the host's that has gone, and does not read.
  std::chrono::milliseconds linger{10000};
  // How long the host's listener may leave a connection waiting in its backlog.
  std::chrono::milliseconds connect{2000};
};

class VsockConnection {
 public:
  using Clock = std::chrono::steady_clock;

  struct Settings {
    std::uint64_t number = 0;
    PDEVICE_OBJECT device_object = nullptr;
    HANDLE partition = nullptr;
    GUID service{};
    GUID endpoint{};
    VsockTimes times;
    // The guest asked: the host's socket to connect to. Empty: the host did.
    std::string path;
    std::string greeting;  // sent to the host's socket once the guest has accepted
    // Word was left: Pump is wanted. Any thread, may be called within other locks of KMCL's.
    std::function<void(std::uint64_t number)> ring;
  };
  // `socket`: the host's that wants the connection; none if the guest does.
  VsockConnection(Settings settings, HostSocket socket);
  VsockConnection(const VsockConnection&) = delete;
  VsockConnection& operator=(const VsockConnection&) = delete;

  std::uint64_t number() const { return settings_.number; }
  HANDLE partition() const { return settings_.partition; }
  bool is_host_initiated() const { return settings_.path.empty(); }

  // Offers the channel. May be called on the bus thread. After a failure only destroy it.
  NTSTATUS Offer();
  // Ends it as soon as Pump is called. Any thread.
  void Leave();
  // Revokes the offer and waits until the channel is torn down. Not on the bus thread.
  void Revoke() { channel_.reset(); }

  // The device's thread. What epoll said of the host's socket (the events); then Pump.
  void OnSocketEvents(std::uint32_t events);
  enum class Turn : std::uint8_t {
    kAsleep,  // until one of the descriptors says so, word is left, or `deadline` has come
    kMore,    // others may go first
    kEnded,   // nothing more: watch it no longer, and Revoke
  };
  struct Outcome {
    Turn turn = Turn::kAsleep;
    bool opened = false;  // for the first time: watch the descriptors
    std::optional<Clock::time_point> deadline;
  };
  // `progress`: when the guest opened any connection last. `scratch`: for one packet.
  Outcome Pump(Clock::time_point now, Clock::time_point progress, std::span<std::byte> scratch);

  int socket() const { return socket_.get(); }
  int incoming() const { return KmclRawGetDescriptor(channel_.get(), KMCL_RAW_INCOMING); }
  int outgoing() const { return KmclRawGetDescriptor(channel_.get(), KMCL_RAW_OUTGOING); }

  // The device's own mark that Pump is not to be called any more.
  void SetEnded() { ended_ = true; }
  bool has_ended() const { return ended_; }
  // Once ended. Why, for people; empty when both ends had closed in order, or the guest has gone.
  std::string fault();
  bool was_opened() const { return opened_; }
  std::uint64_t bytes_to_host() const { return bytes_to_host_; }
  std::uint64_t bytes_to_guest() const { return bytes_to_guest_; }

 private:
  static NTSTATUS OnOpened(VMBCHANNEL channel);
  static VOID OnStarted(VMBCHANNEL channel);
  static VOID OnSuspend(VMBCHANNEL channel);

  // Under mutex_. ToHost and ToGuest: true, there is more to do at once.
  void Begin();
  bool ToHost();
  bool Take(const KMCL_RAW_PACKET& packet);
  bool SendToHost();
  void Release();
  bool ToGuest(std::span<std::byte> scratch);
  // False: there is no room, and the ring was asked for it; or the rings are lost.
  bool Write(std::span<const std::byte> packet);
  void Drain();
  std::uint32_t Untaken();
  // When to look again.
  Clock::time_point Expire(Clock::time_point now, Clock::time_point progress);
  std::optional<Clock::time_point> LookAfter(Clock::time_point now);
  bool Check(NTSTATUS status);
  void Fail(std::string why);
  bool IsOver() const;

  const Settings settings_;
  const Clock::time_point offered_;
  HostSocket socket_;  // the opening thread's until started_

  std::mutex mutex_;  // held while the rings are used: a suspend waits for that
  // Under mutex_.
  bool made_ = false;  // Offer is done: nothing ends before that
  bool started_ = false;
  bool opened_ = false;     // Pump has seen started_
  bool suspended_ = false;  // the rings are gone, or are going
  bool leaving_ = false;
  bool failed_ = false;
  bool host_end_ = false;   // the host's socket has no more to say
  bool host_gone_ = false;  // and does not listen either
  bool guest_end_ = false;  // the guest has no more to say
  bool end_sent_ = false;   // the guest is told of host_end_, by what waits or was written
  bool end_taken_ = false;  // and has taken all that came before
  std::span<const std::byte> unsent_;  // of the guest's packet, in the ring
  bool has_packet_ = false;
  bool dropped_ = false;               // some of the guest's bytes, as the host's socket had gone
  std::uint32_t unreleased_ = 0;       // ring bytes read since the last release
  std::vector<std::byte> waiting_;     // a packet for which the guest's ring had no room
  std::size_t chunk_ = 0;              // the most bytes of a packet to the guest
  std::uint32_t drained_payload_ = 0;  // there is room for it when all but the end was taken
  std::optional<Clock::time_point> linger_since_;
  std::uint32_t linger_untaken_ = 0;

  std::string fault_;

  // The device's thread's.
  bool ended_ = false;
  std::uint64_t bytes_to_host_ = 0;
  std::uint64_t bytes_to_guest_ = 0;

  ChannelHandle channel_;
};

}  // namespace kmcl::devices
