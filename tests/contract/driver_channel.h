// One channel of a driver under test: its handle, its callbacks, and what they recorded.
#pragma once

#include <kmcl/endpoint.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>

#include "recorder.h"

namespace kmcl::contract {

class DriverChannel;

// A packet object of ours, found again through VmbPacketGetPointer.
struct DriverPacket {
  DriverChannel* channel = nullptr;
  VMBPACKET handle = nullptr;
  std::atomic<std::uint32_t> number = 0;  // of the payload sent last
  bool frees_itself = false;              // its routine frees it: one send only
  std::unique_ptr<std::byte[]> memory;    // of VmbPacketInitialize
};

// Any thread may use it. Callbacks run on the library's threads.
class DriverChannel {
 public:
  explicit DriverChannel(bool is_server) : is_server_(is_server) {}

  // Events: "Opened", "Closed", "Suspend", "Started", "PostStarted" (detail: irql, tid,
  // and what it answers),
  // "PnpFailure" (irql, status), "packet N" (detail: len, irql, flags, ctx), "deferred N", "failed
  // N", "batch COUNT" (irql), "done N STATUS" (len, answer, irql); "overlap" and "corrupt" never.
  Recorder& recorder() { return recorder_; }
  bool is_server() const { return is_server_; }

  VMBCHANNEL handle() const { return handle_; }
  // Stores the handle, and this channel as its pointer.
  void set_handle(VMBCHANNEL handle);

  // Callbacks to register for the channel with that handle.
  static VMB_CHANNEL_STATE_CHANGE_CALLBACKS StateCallbacks();
  static EVT_VMB_CHANNEL_PROCESS_PACKET ProcessPacket;
  static EVT_VMB_CHANNEL_PROCESSING_COMPLETE ProcessingComplete;
  static EVT_VMB_PACKET_COMPLETION_ROUTINE PacketDone;
  static EVT_VMB_CHANNEL_PNP_FAILURE PnpFailure;
  // Keep a packet's number. Events: "ask N", "keep N", "restore N".
  static EVT_VMB_CHANNEL_SAVE_PACKET SavePacket;
  static EVT_VMB_CHANNEL_RESTORE_PACKET RestorePacket;

  // What the packet callback does with packets: completes them at once, or keeps them for Complete.
  void set_hold(bool hold) { hold_ = hold; }
  // How long the packet callback keeps its processor busy.
  void set_burn_us(std::uint32_t time_us) { burn_us_ = time_us; }
  void set_answer_bytes(std::uint32_t bytes) { answer_bytes_ = bytes; }
  void set_context_bytes(std::uint32_t bytes) { context_bytes_ = bytes; }
  // What the save and restore callbacks answer, unless it is success.
  void set_save_status(NTSTATUS status) { save_status_ = status; }
  void set_restore_status(NTSTATUS status) { restore_status_ = status; }
  void set_opened_status(NTSTATUS status) { opened_status_ = status; }
  void set_external_read_only(bool read_only) { external_read_only_ = read_only; }
  void set_external_always(bool always) { external_always_ = always; }
  void DeferOnce(std::uint32_t number);  // one more deferral for packet `number`
  void FailAt(std::uint32_t number);

  // Completes a kept packet; false if there is none of that number.
  bool Complete(std::uint32_t number);
  bool Fail(std::uint32_t number);
  // Completes all that are kept, and from now on each packet at once.
  void CompleteAll();

 private:
  // A delivered packet that waits for Complete; the library keeps its payload until then.
  struct Held {
    VMBPACKETCOMPLETION packet = nullptr;
    std::span<const std::byte> payload;
  };

  static DriverChannel& Of(VMBCHANNEL channel);
  void State(const char* name, NTSTATUS answer = STATUS_SUCCESS);
  void Deliver(VMBPACKETCOMPLETION packet, const void* buffer, UINT32 bytes, UINT32 flags);
  // "external N" (status, mdls, bytes, offsets, hash) or, if the packet comes again, "pending N".
  bool LookAtExternalData(VMBPACKETCOMPLETION packet, std::uint32_t number);
  void Retire(VMBPACKETCOMPLETION packet, std::uint32_t number);
  std::string ContextDetail(VMBPACKETCOMPLETION packet, std::uint32_t number) const;
  // Takes a kept packet and checks that its payload has stayed what it was.
  VMBPACKETCOMPLETION Take(std::uint32_t number);
  void CheckHeld(std::uint32_t number, const Held& held);

  const bool is_server_;
  VMBCHANNEL handle_ = nullptr;
  Recorder recorder_;

  std::atomic<bool> hold_{false};
  std::atomic<bool> external_read_only_{false};
  std::atomic<bool> external_always_{false};  // fetch it from packets that have none, too
  std::atomic<std::uint32_t> burn_us_{0};
  std::atomic<std::uint32_t> answer_bytes_{16};
  std::atomic<std::uint32_t> context_bytes_{0};
  std::atomic<NTSTATUS> opened_status_{STATUS_SUCCESS};
  std::atomic<NTSTATUS> save_status_{STATUS_SUCCESS};
  std::atomic<NTSTATUS> restore_status_{STATUS_SUCCESS};
  std::atomic<int> state_callbacks_running_{0};
  std::atomic<int> packet_callbacks_running_{0};

  std::mutex mutex_;
  std::map<std::uint32_t, Held> held_;
  std::multiset<std::uint32_t> deferrals_;
  std::set<std::uint32_t> failures_;
};

}  // namespace kmcl::contract
