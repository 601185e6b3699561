// One end of a channel in pipe mode, coupled to two descriptors: what is read from one is sent,
// what arrives is written to the other.
//
// The stream of each direction is its packets' bytes; where one packet ends means nothing. An empty
// packet is the end of the stream. So that no end leaves while the other still has something to
// read, the server answers the end of both streams with a second empty packet ("I have
// everything"), the client answers that with its own, and only then does the server revoke the
// channel (docs/vmbus.md).
#pragma once

#include <kmcl/endpoint.h>
#include <kmcl/kmcl.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "cli/client_channel.h"
#include "cli/outcome.h"

namespace kmcl::cli {

struct BytePipePlan {
  GUID interface_type{};
  std::optional<GUID> instance;  // a client may take any
  int input = 0;
  int output = 1;
};

class BytePipe {
 public:
  // kExitFailure for want of descriptors.
  static Outcome<std::unique_ptr<BytePipe>> Prepare(const BytePipePlan& plan);
  // Closes the channel.
  ~BytePipe();
  BytePipe(const BytePipe&) = delete;
  BytePipe& operator=(const BytePipe&) = delete;

  // Once, one of the two. Offers the channel to `partition` (the main or the bus thread), or looks
  // for it and waits until it is open (the main thread).
  NTSTATUS Offer(KMCL_SERVER server, HANDLE partition);
  Outcome<void> Connect(const ClientBus& bus);

  // Moves the bytes, on the main thread: until both streams have ended and both ends know it,
  // something failed, the other end has gone, or the user interrupted. A server waits for its
  // client first. Closes the channel.
  Outcome<void> Run();

  // The channel has been Active. Any thread; the main thread is woken.
  bool started() const { return started_.load(std::memory_order_acquire); }
  std::uint64_t bytes_sent() const { return bytes_sent_.load(std::memory_order_relaxed); }
  std::uint64_t bytes_received() const { return bytes_received_.load(std::memory_order_relaxed); }
  KMCL_CHANNEL_COUNTERS Counters() const;

 private:
  enum class Role : std::uint8_t { kServer, kClient };
  struct Slot {
    BytePipe* owner = nullptr;
    PacketHandle packet;
  };

  explicit BytePipe(const BytePipePlan& plan) : plan_(plan) {}
  NTSTATUS Allocate(PDEVICE_OBJECT device_object, Role role);
  NTSTATUS Enable();
  void Close();

  // State callbacks and completion routines.
  static VOID OnPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer,
                       UINT32 buffer_bytes, UINT32 flags);
  static VOID OnSent(VMBPACKET packet, NTSTATUS status, PVOID buffer, UINT32 buffer_bytes);
  void NoteLost();
  void NoteFailure(std::string message, NTSTATUS status = STATUS_SUCCESS);
  void Finish();

  // The thread that reads. It also learns when nobody reads our output any more: there may be nothing
  // to write for a long time.
  void ReadAndSend();
  // Waits until there is something to read (-1: for ever). False: Close, or nobody reads the output.
  bool WaitForInput(int descriptor);
  Slot* TakeFreeSlot();
  bool Send(Slot& slot, std::span<std::byte> bytes);

  // The callback that writes; at PASSIVE_LEVEL, so it may wait for whoever reads the output.
  void Receive(std::span<const std::byte> bytes);
  void ReceiveEnd();
  bool WriteAll(std::span<const std::byte> bytes);

  // Waits until `descriptor` is ready for `events`, or until Close; false then.
  bool WaitFor(int descriptor, short events) const;
  bool SendEmpty();
  void ConfirmIfBothEnded();

  const BytePipePlan plan_;
  Role role_ = Role::kClient;
  VMBCHANNEL channel_ = nullptr;
  int stop_ = -1;   // readable from Close on
  int nudge_ = -1;  // readable when watched_output_ has changed
  std::atomic<int> watched_output_{-1};
  bool closed_ = false;
  std::thread reader_;
  std::vector<std::unique_ptr<Slot>> slots_;

  std::atomic<bool> stopping_{false};
  std::atomic<bool> started_{false};
  std::atomic<bool> lost_{false};
  std::atomic<bool> finished_{
      false};  // both streams have ended, and we know that the other end knows
  std::atomic<NTSTATUS> open_failure_{STATUS_SUCCESS};
  std::atomic<std::uint64_t> bytes_sent_{0};
  std::atomic<std::uint64_t> bytes_received_{0};

  // The receiving callback's.
  int empty_packets_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  // Under mutex_.
  std::vector<Slot*> free_;
  bool sending_end_ = false;  // the other end may answer before the send has returned
  bool sent_end_ = false;
  bool received_end_ = false;
  bool confirmed_ = false;
  std::optional<Failure> failure_;
};

}  // namespace kmcl::cli
