// One end of a channel that is kept busy both ways, with a record of every packet that was accepted
// and of every callback. Both ends are of this class, in both processes.
#pragma once

#include <kmcl/endpoint.h>
#include <kmcl/kmcl.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <vector>

#include "faults.h"
#include "kill_switch.h"
#include "ledger.h"
#include "plan.h"
#include "retirer.h"

namespace kmcl::kill {

inline constexpr GUID kBusyType = {
    0x6f1c7d0e, 0x91b4, 0x4c0a, {0x8e, 0x52, 0x14, 0xd9, 0x3b, 0x70, 0xa6, 0x2d}};
// The instance whose number an echo channel has: it sends nothing by itself.
inline constexpr std::uint32_t kEchoIndex = 255;
GUID InstanceOf(std::uint32_t index);

// What the channels of one process share. Outlives them.
struct Surroundings {
  Faults faults;
  KillSwitch kill_switch;
  Retirer retirer;
  // Of all processes of this run; nullptr where two clients would write in the same places.
  Ledger* ledger = nullptr;
  // When the kill was, or 0; and when a channel of ours first heard of it.
  std::atomic<std::int64_t>* killed_ns = nullptr;
  std::atomic<std::int64_t> noticed_ns{0};
};

class BusyChannel {
 public:
  BusyChannel(const Plan& plan, std::uint32_t index, Surroundings& around);
  // Checks the accounts, and frees the packets and the channel, which is disabled.
  ~BusyChannel();
  BusyChannel(const BusyChannel&) = delete;
  BusyChannel& operator=(const BusyChannel&) = delete;

  // Allocates and configures the channel: a server's for `partition`, a client's for nullptr.
  NTSTATUS Allocate(PDEVICE_OBJECT device, HANDLE partition);
  NTSTATUS Enable();
  VMBCHANNEL handle() const { return handle_; }
  std::uint32_t index() const { return index_; }

  // A server's: pauses and saves it, appending to `state`; and makes this channel, which was
  // allocated, the one that was saved.
  NTSTATUS Save(std::vector<std::byte>& state);
  NTSTATUS Restore(std::span<std::byte> state);

  // Waits until `more` packets or completions have come since now, until it is over, or until
  // `other_fd` is readable. False when nothing of it happened for ten seconds.
  bool WaitForEvents(std::uint32_t more, int other_fd);
  // Waits until the channel is closed, if it was opened. False after ten seconds.
  bool WaitUntilClosed();
  bool is_open() const { return open_; }

  // Transactions, over all channels of this process.
  static std::uint64_t total_accepted() { return total_accepted_.load(); }
  static std::uint64_t total_cancelled() { return total_cancelled_.load(); }

 private:
  struct Slot {
    BusyChannel* channel = nullptr;
    VMBPACKET packet = nullptr;
    bool wants_completion = false;
    Random random{0};
    std::atomic<std::uint64_t> number{0};  // of what was sent last
    std::atomic<bool> in_flight{false};
  };
  // Sends of one kind. What was accepted is what was completed and what was cancelled.
  struct Account {
    std::atomic<std::uint64_t> accepted{0};
    std::atomic<std::uint64_t> completed{0};
    std::atomic<std::uint64_t> cancelled{0};
    std::uint64_t restored = 0;  // of those accepted: another process had sent them
  };

  static BusyChannel& Of(VMBCHANNEL channel);
  static EVT_VMB_CHANNEL_PROCESS_PACKET ProcessPacket;
  static EVT_VMB_PACKET_COMPLETION_ROUTINE PacketDone;
  static EVT_VMB_CHANNEL_SAVE_PACKET SavePacket;
  static EVT_VMB_CHANNEL_RESTORE_PACKET RestorePacket;
  NTSTATUS Configure(HANDLE partition);
  NTSTATUS MakeSlots();
  void OnOpened();
  void OnStarted();
  void OnSuspend();
  void OnClosed();
  void OnFailure();
  void OnPacket(VMBPACKETCOMPLETION packet, const void* buffer, UINT32 bytes);
  void OnDone(Slot& slot, NTSTATUS status, const void* buffer, UINT32 bytes);
  void TrySend(Slot& slot);
  void CountEvent();
  void Signal();
  template <typename Condition>
  bool WaitUntil(Condition condition, int other_fd);
  void CheckAccounts();
  void Fault(const std::string& what);

  static inline std::atomic<std::uint64_t> total_accepted_{0};
  static inline std::atomic<std::uint64_t> total_cancelled_{0};

  const Plan plan_;
  const std::uint32_t index_;
  bool is_server_ = false;
  Surroundings& around_;
  VMBCHANNEL handle_ = nullptr;
  int signal_ = -1;  // a client's, for whoever waits: an eventfd
  std::deque<Slot> slots_;

  // Written by callbacks.
  Account transactions_;
  Account plain_;
  std::atomic<std::uint64_t> delivered_{0};
  std::atomic<std::uint64_t> retired_{0};
  std::atomic<std::uint64_t> events_{0};
  std::atomic<std::uint64_t> goal_{0};
  std::atomic<bool> open_{false};
  std::atomic<bool> running_{false};  // between EvtVmbChannelStarted and Suspend
  std::atomic<bool> over_{false};     // closed, or could not be opened
};

}  // namespace kmcl::kill
