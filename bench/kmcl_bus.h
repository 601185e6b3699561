// A bus between the two ends of a row, through the public headers alone: a server that offers
// channels, and a client that opens them. Everything a row does with them it does in the callbacks
// it gives.
#pragma once

#include <kmcl/endpoint.h>

#include <functional>
#include <semaphore>
#include <string>

#include "rows.h"

namespace kmcl::bench {

// How dispatch threads wait: kPoll never sleeps, kSleep sleeps at once, kWindow looks for 50 us and
// then sleeps, kAdaptive is what a program gets that says nothing (docs/waiting.md).
enum class Wait : std::uint8_t { kPoll, kSleep, kWindow, kAdaptive };

struct BusShape {
  Wait wait = Wait::kPoll;
  ULONG channels = 1;
  UINT32 largest_packet = 4096;
  UINT32 ring_pages = 65;  // 256 KiB and the control page
  bool raw = false;        // kmcl/raw.h: nothing is sent or received by the library itself
};

// One end of a channel, as callbacks find it (VmbChannelGetPointer).
struct ChannelEnd {
  void* owner = nullptr;
  VMBCHANNEL channel = nullptr;
  ULONG index = 0;
};

// A name for a bus between processes or within one. In the process that forks.
std::string NewAddress(bool local);

class BusServer {
 public:
  // Offers its channels to the one client that comes. `owner` is for the callbacks. `prepare` may
  // use the Init window.
  BusServer(Stage& stage, const std::string& address, const BusShape& shape, void* owner,
            PFN_VMB_CHANNEL_PROCESS_PACKET on_packet, std::function<void(VMBCHANNEL)> prepare = {});
  ~BusServer();
  BusServer(const BusServer&) = delete;
  BusServer& operator=(const BusServer&) = delete;

  KMCL_SERVER server() const { return server_; }

 private:
  static VOID OnArrival(PVOID context, KMCL_SERVER server, HANDLE partition);
  static VOID OnGone(PVOID context, KMCL_SERVER server, HANDLE partition);

  Stage& stage_;
  const BusShape shape_;
  void* const owner_;
  const PFN_VMB_CHANNEL_PROCESS_PACKET on_packet_;
  const std::function<void(VMBCHANNEL)> prepare_;
  std::vector<ChannelEnd> ends_;
  KMCL_SERVER server_ = nullptr;
  std::binary_semaphore gone_{0};
};

class BusClient {
 public:
  // Connects, opens all channels, and waits until the server has answered on each (not if they are
  // raw). `prepare` may use the Init window.
  BusClient(Stage& stage, const std::string& address, const BusShape& shape, void* owner,
            const std::function<void(VMBCHANNEL)>& prepare = {});
  ~BusClient();
  BusClient(const BusClient&) = delete;
  BusClient& operator=(const BusClient&) = delete;

  VMBCHANNEL channel(std::size_t index = 0) const { return ends_[index].channel; }
  std::size_t count() const { return ends_.size(); }

 private:
  std::vector<ChannelEnd> ends_;
  KMCL_CLIENT client_ = nullptr;
};

// The first packet on each channel: the server completes it, and counts nothing.
inline constexpr std::uint64_t kHello = std::uint64_t{1} << 62;
// In the server's packet callback. True: it was the first packet, and is dealt with.
inline bool AnsweredHello(VMBPACKETCOMPLETION packet, const void* buffer, UINT32 bytes) {
  std::uint64_t word = 0;
  if (bytes != sizeof(word)) return false;
  std::memcpy(&word, buffer, sizeof(word));
  if (word != kHello) return false;
  VmbChannelPacketComplete(packet, nullptr, 0);
  return true;
}

inline void Require(Stage& stage, NTSTATUS status, std::string_view what) {
  if (NT_SUCCESS(status)) return;
  stage.Fail(std::string(what) + ": " + KmclStatusName(status));
}

}  // namespace kmcl::bench
