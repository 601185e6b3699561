// The client's end of a bus and of one channel on it, as the commands use them. Thin: it turns
// callbacks into state that the main thread can wait for, and statuses into sentences.
#pragma once

#include <kmcl/endpoint.h>
#include <kmcl/kmcl.h>

#include <atomic>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

#include "cli/outcome.h"

namespace kmcl::cli {

// How an end waits for packets: a word of the command line, and
// KMCL_ENDPOINT_OPTIONS.SpinMicroseconds.
enum class WaitMode { kPoll, kAdaptive, kSleep };
inline constexpr WaitMode kWaitModes[] = {WaitMode::kPoll, WaitMode::kAdaptive, WaitMode::kSleep};
const char* WaitName(WaitMode wait);
WaitMode WaitNamed(const std::string& name);  // one of theirs
ULONG SpinMicroseconds(WaitMode wait);

class ClientBus {
 public:
  // `named` may be empty: then it is the bus of the guest we run in, uio:. Where there is none, a
  // usage failure that names --bus and KMCL_BUS.
  static Outcome<std::unique_ptr<ClientBus>> Connect(const std::string& named,
                                                     WaitMode wait = WaitMode::kAdaptive);
  ~ClientBus() { KmclClientDestroy(client_); }
  ClientBus(const ClientBus&) = delete;
  ClientBus& operator=(const ClientBus&) = delete;

  KMCL_CLIENT client() const { return client_; }
  const std::string& address() const { return address_; }
  std::string VersionText() const;  // "6.0"
  std::vector<KMCL_OFFER> Offers() const;

 private:
  ClientBus(std::string address, KMCL_CLIENT client)
      : address_(std::move(address)), client_(client) {}

  std::string address_;
  KMCL_CLIENT client_;
};

struct FreePacket {
  void operator()(VMBPACKET packet) const { VmbPacketFree(packet); }
};
using PacketHandle = std::unique_ptr<std::remove_pointer_t<VMBPACKET>, FreePacket>;

class ClientChannel;

struct ClientChannelSettings {
  // A sub-channel of this one, which must outlive it, instead of an offer of the type.
  const ClientChannel* primary = nullptr;
  GUID interface_type{};
  const char* name = "";  // for messages: "the bus offers no NAME channel"
  UINT32 maximum_packet_bytes = 4096;
  UINT32 outgoing_pages = 0;  // 0 = KMCL's default; control page included
  UINT32 incoming_pages = 0;
};

class ClientChannel {
 public:
  // Opens the first offer of that type, or the first free sub-channel; returns when the channel is
  // Active. Fails as soon as that cannot happen any more, when interrupted, or after ten seconds.
  static Outcome<std::unique_ptr<ClientChannel>> Open(const ClientBus& bus,
                                                      const ClientChannelSettings& settings);
  // Closes it. The packets must have been freed.
  ~ClientChannel();
  ClientChannel(const ClientChannel&) = delete;
  ClientChannel& operator=(const ClientChannel&) = delete;

  VMBCHANNEL handle() const { return channel_; }

  // Closes the channel and waits for the end: every transaction has ended when it returns.
  void Close();

  // Whether the other end revoked the channel or died. Any thread; the main thread is woken.
  bool lost() const { return lost_.load(std::memory_order_acquire); }
  // For completion routines, which may hear of it first.
  void NoteStatus(NTSTATUS status) {
    if (status == STATUS_DEVICE_REMOVED) {
      NoteLost();
    }
  }
  // UnixTime() of the first notice; 0 before.
  double lost_at() const { return lost_at_.load(std::memory_order_acquire); }

  KMCL_CHANNEL_COUNTERS Counters() const;

 private:
  ClientChannel() = default;
  void NoteLost();

  VMBCHANNEL channel_ = nullptr;
  bool closed_ = false;  // the main thread's
  std::atomic<bool> started_{false};
  std::atomic<bool> closing_{false};  // by us: what ends now was not lost
  std::atomic<bool> lost_{false};
  std::atomic<double> lost_at_{0};
  std::atomic<NTSTATUS> open_failure_{STATUS_SUCCESS};
};

}  // namespace kmcl::cli
