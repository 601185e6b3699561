// Servers and clients with many echo channels, and what is common to all limits' tests.
#pragma once

#include <kmcl/endpoint.h>
#include <kmcl/kmcl.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>

namespace kmcl::limits {

inline constexpr GUID kEchoType = {
    0xb7a0c2d4, 0x3e18, 0x4f76, {0x9d, 0x21, 0x58, 0x0c, 0xe4, 0x6f, 0x13, 0xaa}};
GUID InstanceOf(std::uint32_t number);

// An address of this process and its children, and the directory it is in; gone with it.
class Address {
 public:
  Address();
  ~Address();
  Address(const Address&) = delete;
  Address& operator=(const Address&) = delete;
  const char* text() const { return text_.c_str(); }

 private:
  std::string directory_;
  std::string text_;
};

// Counted up on any thread, waited for with a deadline of two minutes.
class Count {
 public:
  void Add();
  bool WaitFor(std::uint32_t target);
  std::uint32_t value();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::uint32_t value_ = 0;
};

struct ChannelOptions {
  std::uint32_t maximum_packet_bytes = 64;
  std::uint32_t ring_pages = 4;
  // A server's: packets are completed by another thread, after the callback has returned.
  bool completes_late = false;
};

// A server that offers echo channels numbered from 0. Everything but the constructor and the counts
// is called on one thread.
class EchoServer {
 public:
  // `first_offers` channels are offered to every client as it arrives.
  EchoServer(const char* address, const KMCL_ENDPOINT_OPTIONS& options, std::uint32_t first_offers,
             const ChannelOptions& channels);
  ~EchoServer();
  EchoServer(const EchoServer&) = delete;
  EchoServer& operator=(const EchoServer&) = delete;

  NTSTATUS status() const { return status_; }
  // Of the first offer that failed; STATUS_SUCCESS if none has.
  NTSTATUS offer_status() const { return offer_status_; }

  // Offers one more channel to the client that arrived last.
  NTSTATUS Offer();
  std::uint32_t offer_count() const { return static_cast<std::uint32_t>(channels_.size()); }
  VMBCHANNEL channel(std::uint32_t number) const { return channels_[number].handle; }
  // Takes all channels back. After the clients have gone.
  void CleanUp();

  Count& arrived() { return arrived_; }
  Count& gone() { return gone_; }
  Count& opened() { return opened_; }
  Count& closed() { return closed_; }
  Count& packets() { return packets_; }

 private:
  struct Offered {
    HANDLE partition = nullptr;
    VMBCHANNEL handle = nullptr;
  };

  NTSTATUS Configure(VMBCHANNEL channel, HANDLE partition, std::uint32_t number);
  NTSTATUS OfferTo(KMCL_SERVER server, HANDLE partition);
  static EchoServer& Of(VMBCHANNEL channel);
  void OnPacket(VMBPACKETCOMPLETION packet, PVOID buffer, UINT32 bytes);
  void CompleteLate();

  struct Late {
    VMBPACKETCOMPLETION packet;
    PVOID buffer;  // the library's until the packet is completed
    UINT32 bytes;
  };

  const std::uint32_t first_offers_;
  const ChannelOptions options_;
  KMCL_SERVER server_ = nullptr;
  NTSTATUS status_;
  NTSTATUS offer_status_ = STATUS_SUCCESS;
  HANDLE last_partition_ = nullptr;
  std::deque<Offered> channels_;
  std::uint32_t next_instance_ = 0;
  Count arrived_, gone_, opened_, closed_, packets_;

  std::mutex late_mutex_;
  std::condition_variable late_changed_;
  std::deque<Late> late_;
  bool stopping_ = false;
  std::thread late_thread_;
};

// A client's echo channel.
class EchoChannel {
 public:
  // Enables it; status() says how that went.
  EchoChannel(KMCL_CLIENT client, std::uint32_t number, bool any_instance,
              const ChannelOptions& options, Count& started);
  ~EchoChannel();
  EchoChannel(const EchoChannel&) = delete;
  EchoChannel& operator=(const EchoChannel&) = delete;

  NTSTATUS status() const { return status_; }
  VMBCHANNEL handle() const { return handle_; }
  // One transaction of `bytes` bytes whose answer must be the question.
  NTSTATUS Ask(std::uint32_t bytes);

 private:
  NTSTATUS Configure(std::uint32_t number, bool any_instance, const ChannelOptions& options);

  Count& started_;
  VMBCHANNEL handle_ = nullptr;
  NTSTATUS status_;
};

KMCL_ENDPOINT_OPTIONS DefaultOptions();

}  // namespace kmcl::limits
