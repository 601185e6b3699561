// One end of a channel, driven through the public functions, and the model of what it was promised:
// every accepted packet is delivered once and in order and completed exactly once; callbacks come
// in pairs, never together, never under a lock.
#pragma once

#include <kmcl/endpoint.h>
#include <kmcl/kmcl.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "plan.h"
#include "retirer.h"
#include "scheduler.h"
#include "shares.h"

namespace kmcl::sim {

class End;
class RawOwner;

// All ends that ever were, by their numbers, which packets carry.
class Model {
 public:
  explicit Model(const Plan& the_plan) : plan(the_plan) {}
  const Plan& plan;
  std::vector<End*> ends;
  std::vector<End*> successors;  // that have the numbers of others
  std::uint64_t delivered = 0;
  std::uint64_t completed = 0;
  std::uint64_t described = 0;    // packets whose memory the server had
  std::uint64_t successions = 0;  // saved channels that came back
  std::uint64_t restored = 0;     // packets with them
  std::uint64_t handovers = 0;
  std::uint64_t orphaned = 0;  // of those, whose new process died
  std::uint64_t in_place = 0;   // packets that a raw channel's owner took
  std::uint64_t shared = 0;     // GPADLs
  std::uint64_t worked_on = 0;  // times that a server used one
  std::uint64_t in_batches = 0;
  // Processes that write where they must not: what comes of that is theirs alone.
  std::array<bool, kMostProcesses> hostile{};
};

GUID TypeOfChannels();
GUID InstanceOf(std::uint32_t index);

class End {
 public:
  // A sub-channel's has a primary, which is made before it and outlives it.
  End(Model& model, Retirer& retirer, std::uint32_t process, std::uint32_t index, bool server,
      End* primary);
  // Of a server that was handed over: the same end, in another process.
  End(End& predecessor, Retirer& retirer, std::uint32_t process, End* primary);

  // A server's for `partition`, a client's for nullptr.
  NTSTATUS Allocate(PDEVICE_OBJECT device, HANDLE partition);
  NTSTATUS Enable();
  // Waits until it is torn down, and checks what was promised for then.
  void Disable();
  // Frees packets and channel, which is disabled.
  void Cleanup();
  void Start();
  void Pause();
  // Pauses a server's channel, saves it and goes on; or, if it is `succeeded`, ends it and goes on
  // with another one that the save was restored into. Nobody else may use the end meanwhile.
  void Save(bool succeeded);

  // For a handover: it stays paused until it is resumed, or goes on in another process. Nothing: it
  // is disabled.
  std::vector<std::vector<std::byte>> SaveForHandover();
  void ForgetSave();  // its packets end with it
  void ResumeAfterHandover();
  // False: it cannot be.
  bool RestoreForHandover(std::vector<std::vector<std::byte>>& save);
  // What it has goes on elsewhere.
  void Abandon() { abandoned_ = true; }
  // It does not.
  void TakeUp() { abandoned_ = false; }

  void Send(std::uint32_t count);
  // A synchronous request, which may name shared memory.
  struct Asked {
    std::uint32_t timeout_us = 0;
    bool wants_completion = true;
    Share* share = nullptr;
  };
  NTSTATUS Request(const Asked& asked);
  // Shares memory, has the server work on it, and mostly takes it back.
  void UseShare(std::uint32_t timeout_us);
  void SetQuota(std::uint32_t quota);
  void SetPassive(bool passive);
  // As many as there are packets for, in one call.
  void SendBatch(std::uint32_t count);
  // What it and its bus say of themselves.
  void Ask();
  void SetLatency(std::uint32_t latency);
  void SetBudget(std::uint32_t percent);

  // Nothing is on its way any more, as far as that can be said of this end.
  bool IsSettled() const;
  bool is_up() const { return started_; }
  bool is_open() const { return open_; }
  bool has_failed() const { return failed_; }
  bool is_subchannel() const { return primary_ != nullptr; }
  End* primary() const { return primary_; }
  bool is_raw() const { return raw_ != nullptr; }
  bool is_spoilt() const { return spoilt_; }
  // Those that are not gone.
  const std::vector<End*>& subchannels() const { return subchannels_; }
  std::string Describe() const;

  const std::uint32_t number;
  const std::uint32_t process;
  const std::uint32_t index;
  const bool server;
  std::uint32_t users = 0;         // threads of the test that are inside
  bool state_taken = false;        // a thread pauses it, or opens it again
  bool taken_whole = false;        // a thread wants it for itself
  bool spoils = false;             // the next packet is found malformed
  bool offered = false;            // it has been enabled, and may be used
  bool gone = false;               // nobody is to use it any more
  bool dead = false;               // its process was killed
  bool hostile = false;            // it, or the other end: what it carries is anything
  std::uint32_t peer_process = 0;  // a server's: of the client, over a socket

  ~End();

 private:
  friend class RawOwner;
  friend class Retirer;
  struct Message {
    bool wants_completion = false;
    bool accepted = false;
    bool may_vanish = false;  // refused, or cancelled before it was in the ring
    std::uint32_t delivered = 0;
    std::uint32_t completed = 0;
    std::uint32_t session = 0;
    NTSTATUS status = STATUS_PENDING;
  };
  // Messages in the order of their sends. One thread at a time sends from each.
  struct Stream {
    bool busy = false;
    std::deque<Message> messages;
  };
  struct Slot {
    End* end = nullptr;
    std::uint32_t number = 0;
    VMBPACKET packet = nullptr;
    bool in_flight = false;
    bool is_saved = false;  // its packet is a saved channel's, and goes on in the next one
    std::uint32_t stream = 0;
    std::uint64_t id = 0;
    std::vector<std::uint64_t> memory;  // that its packet describes
  };
  // What has come from one stream of the other end.
  struct Incoming {
    std::uint64_t next = 0;
  };
  static constexpr std::uint32_t kStreams = 6;
  // What an answer is to a packet's name.
  static constexpr std::uint64_t kAnswerKey = 0x5A5A'0FF0'3C3C'9669;
  // Of a packet's name: its second word is a GPADL's handle, the third which share that is.
  static constexpr std::uint64_t kCarries = std::uint64_t{1} << 47;
  // What the server makes of each word of memory that a packet describes.
  static constexpr std::uint64_t kWritten = 0x3366'CC99'5AA5'0FF0;
  // Deliveries are marked by this when they come for the second time.
  struct PacketContext {
    std::uint64_t deferred;
  };

  static End& Of(VMBCHANNEL channel);
  static EVT_VMB_CHANNEL_OPENED Opened;
  static EVT_VMB_CHANNEL_CLOSED Closed;
  static EVT_VMB_CHANNEL_STARTED Started;
  static EVT_VMB_CHANNEL_POST_STARTED PostStarted;
  static EVT_VMB_CHANNEL_SUSPEND Suspend;
  static EVT_VMB_CHANNEL_PROCESS_PACKET ProcessPacket;
  static EVT_VMB_CHANNEL_PROCESSING_COMPLETE ProcessingComplete;
  static EVT_VMB_PACKET_COMPLETION_ROUTINE PacketDone;
  static EVT_VMB_CHANNEL_PNP_FAILURE PnpFailure;
  static EVT_VMB_CHANNEL_SAVE_PACKET SavePacket;
  static EVT_VMB_CHANNEL_RESTORE_PACKET RestorePacket;

  NTSTATUS Configure(HANDLE partition);
  // A packet of the channel for a slot that has none. False: there is no memory.
  bool Fit(Slot& slot);
  // Nothing to be seen of the channel must be left; then it goes.
  void Discard();
  // The parts of a save, as they were written. Empty: it could not be saved now.
  bool MayBeDisabled() const;
  std::vector<std::vector<std::byte>> WriteSave(bool succeeded);
  // False: the system refused.
  bool Restore(std::vector<std::vector<std::byte>>& save);
  void Pump();
  bool TrySend(Slot& slot);
  void RefuseSent(Slot& slot, Message& refused, NTSTATUS status);
  void AskCounters();
  void AskServer();
  NTSTATUS SendDescribed(Slot& slot, std::uint64_t* words, std::uint32_t bytes);
  // False: not yet, it is delivered again.
  bool TakeExternalData(VMBPACKETCOMPLETION packet, std::uint64_t name);
  void CheckWritten(const Slot& slot, std::uint64_t name) const;
  // Shared memory of a client's.
  Share* MakeShare();
  NTSTATUS CreateFromBuffer(Share& share, UINT32 flags);
  NTSTATUS CreateFromMdl(Share& share, UINT32 flags);
  NTSTATUS CreateFromPages(Share& share, UINT32 flags);
  void DeleteShare(Share& share);
  void ReceiveBack(Share& share);
  void GiveUpShares();
  void ReceiveLeftShares();
  // The same at its server, at PASSIVE_LEVEL.
  void WorkOn(UINT32 handle, Share* share, std::uint64_t name);
  void WorkOnView(SharedView& view, std::uint64_t name);
  void CheckUnmapped(const Share* share, NTSTATUS status, bool only_reads) const;
  SharedView* FindView(UINT32 handle);
  void EndView(UINT32 handle);
  void EndViews();
  std::uint32_t FreeStream() const;
  // What each word of a packet says.
  std::uint64_t NameOf(std::uint32_t stream, std::uint64_t id) const {
    return std::uint64_t{number} << 48 | std::uint64_t{stream} << 40 | id;
  }
  void CheckRequested(const Asked& asked, const Message& done, std::uint64_t name,
                      std::uint64_t answer) const;
  bool WasWorkedOn(const Share& share, std::uint64_t name) const;
  std::uint32_t Fill(std::uint64_t* words, std::uint32_t stream, std::uint64_t id);
  void OnPacket(VMBPACKETCOMPLETION packet, const std::uint64_t* words, UINT32 bytes,
                bool describes);
  void OnDone(Slot& slot, NTSTATUS status, const void* buffer, UINT32 bytes);
  // A packet that came: what it says.
  std::uint64_t CheckPacket(const std::uint64_t* words, std::uint32_t bytes);
  void CheckDelivery(End& from, std::uint32_t stream, std::uint64_t id);
  void BeginCallback(const char* what, bool state);
  void EndCallback(bool state);
  void Retired(VMBPACKETCOMPLETION packet, std::uint64_t answer);
  [[noreturn]] void Wrong(const std::string& what) const;

  Model& model_;
  Retirer& retirer_;
  VMBCHANNEL handle_ = nullptr;
  PDEVICE_OBJECT device_ = nullptr;
  HANDLE partition_ = nullptr;
  End* const primary_;
  std::vector<End*> subchannels_;
  bool abandoned_ = false;
  bool unused_ = false;  // it was restored, and could not be enabled
  bool ending_ = false;  // what is still in flight is given up by VmbChannelCleanup
  bool enabled_ = false;
  bool open_ = false;
  bool started_ = false;
  bool failed_ = false;
  // A packet was found malformed, in that session: nothing comes any more.
  bool spoilt_ = false;
  std::uint32_t spoilt_session_ = 0;
  bool in_state_callback_ = false;
  bool in_packet_callback_ = false;
  std::uint32_t session_ = 0;
  std::uint32_t to_send_ = 0;
  std::uint32_t pump_depth_ = 0;
  std::uint32_t in_flight_ = 0;
  KMCL_CHANNEL_COUNTERS counters_{};  // when it was asked last
  std::uint32_t saved_ = 0;           // packets that were saved, or restored, so far
  std::uint64_t outstanding_ = 0;
  std::uint64_t in_batch_ = 0;
  using Streams = std::array<Stream, kStreams>;
  const std::shared_ptr<Streams> all_streams_;  // of its successors, too
  Streams& streams_;
  std::deque<Slot> slots_;
  End* peer_ = nullptr;      // whose packets came in this session
  std::uint32_t fresh_ = 0;  // streams that have brought nothing in this session yet: a bit each
  std::array<Incoming, kStreams> incoming_;
  std::unique_ptr<RawOwner> raw_;
  bool closing_ = false;         // its end is being told, and it is not open again
  std::list<Share> shares_;      // all there ever were: a late packet may still name them
  std::list<SharedView> views_;  // of the client's
};

}  // namespace kmcl::sim
