// Making an end of a channel, and ending it.
#include "end.h"

#include <vector>

#include "raw_owner.h"

namespace kmcl::sim {

GUID TypeOfChannels() {
  return {0x2b8c61f4, 0x7d05, 0x4a4e, {0x9c, 0x13, 0x5f, 0x0e, 0xa2, 0x6b, 0x48, 0xd7}};
}
GUID InstanceOf(std::uint32_t index) {
  GUID instance = TypeOfChannels();
  instance.Data1 = index;
  return instance;
}

End::End(Model& model, Retirer& retirer, std::uint32_t of_process, std::uint32_t of_index,
         bool is_server, End* its_primary)
    : number(static_cast<std::uint32_t>(model.ends.size())),
      process(of_process),
      index(of_index),
      server(is_server),
      model_(model),
      retirer_(retirer),
      primary_(its_primary),
      all_streams_(std::make_shared<Streams>()),
      streams_(*all_streams_) {
  model.ends.push_back(this);
  if (primary_ != nullptr) primary_->subchannels_.push_back(this);
}

End::End(End& predecessor, Retirer& retirer, std::uint32_t of_process, End* its_primary)
    : number(predecessor.number),
      process(of_process),
      index(predecessor.index),
      server(true),
      peer_process(predecessor.peer_process),
      model_(predecessor.model_),
      retirer_(retirer),
      primary_(its_primary),
      spoilt_(predecessor.spoilt_),
      session_(predecessor.session_),
      to_send_(predecessor.to_send_),
      in_flight_(predecessor.in_flight_),
      all_streams_(predecessor.all_streams_),
      streams_(*all_streams_),
      slots_(predecessor.slots_.size()),
      peer_(predecessor.peer_),
      incoming_(predecessor.incoming_) {
  model_.successors.push_back(this);
  if (primary_ != nullptr) primary_->subchannels_.push_back(this);
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = predecessor.slots_[i];
    slots_[i].in_flight = slot.in_flight;
    slots_[i].stream = slot.stream;
    slots_[i].id = slot.id;
  }
}

End::~End() = default;

End& End::Of(VMBCHANNEL channel) { return *static_cast<End*>(VmbChannelGetPointer(channel)); }

void End::Wrong(const std::string& what) const {
  Fail("%s\n  at %s", what.c_str(), Describe().c_str());
}

std::string End::Describe() const {
  std::string text = std::string(server ? "the server's" : "client ") +
                     (server ? "" : std::to_string(process) + "'s") + " end " +
                     std::to_string(number) + " of channel " + std::to_string(index) +
                     (is_subchannel() ? ", a sub-channel" : "") + (enabled_ ? ", enabled" : "") +
                     (open_ ? ", open" : "") + (started_ ? ", started" : "") + ", session " +
                     std::to_string(session_) + ", in flight " + std::to_string(in_flight_) +
                     ", outstanding " + std::to_string(outstanding_);
  return text;
}

bool End::Fit(Slot& slot) {
  const InLibrary library;
  slot.packet = VmbPacketAllocate(handle_);
  if (slot.packet == nullptr) return false;
  VmbPacketSetPointer(slot.packet, &slot);
  VmbPacketSetCompletionRoutine(slot.packet, PacketDone);
  return true;
}

NTSTATUS End::Allocate(PDEVICE_OBJECT device, HANDLE partition) {
  const InLibrary library;
  device_ = device;
  partition_ = partition;
  handle_ = nullptr;
  counters_ = {};
  NTSTATUS status = VmbChannelAllocate(device, static_cast<BOOLEAN>(server), &handle_);
  if (status != STATUS_SUCCESS) return status;
  VmbChannelSetPointer(handle_, this);
  status = Configure(partition);
  const bool raw = model_.plan.IsRaw(index, server);
  if (status == STATUS_SUCCESS && raw) status = KmclChannelInitSetRaw(handle_);
  {
    const InTest test;
    if (!raw) slots_.resize(model_.plan.slots);
  }
  for (std::uint32_t i = 0; i < slots_.size(); ++i) {
    Slot& slot = slots_[i];
    slot.end = this;
    slot.number = i;
    // Those in flight come back with what was saved.
    if (status == STATUS_SUCCESS && !slot.in_flight && !Fit(slot)) {
      status = STATUS_INSUFFICIENT_RESOURCES;
    }
  }
  const InTest test;
  if (status == STATUS_SUCCESS && raw) raw_ = std::make_unique<RawOwner>(*this);
  if (status == STATUS_INSUFFICIENT_RESOURCES && model_.plan.refusals) Discard();
  return status;
}

NTSTATUS End::Configure(HANDLE partition) {
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS callbacks;
  VMB_CHANNEL_STATE_CHANGE_CALLBACKS_INIT(&callbacks);
  callbacks.EvtChannelOpened = Opened;
  callbacks.EvtChannelClosed = Closed;
  callbacks.EvtChannelSuspend = Suspend;
  callbacks.EvtChannelStarted = Started;
  callbacks.EvtChannelPostStarted = PostStarted;
  NTSTATUS status = VmbChannelInitSetStateChangeCallbacks(handle_, &callbacks);
  if (status != STATUS_SUCCESS) return status;
  status = VmbChannelInitSetProcessPacketCallbacks(handle_, ProcessPacket, ProcessingComplete);
  if (status != STATUS_SUCCESS) return status;
  status = VmbChannelInitSetMaximumPacketSize(handle_, model_.plan.payload_bytes);
  if (status != STATUS_SUCCESS) return status;
  status = VmbChannelInitSetClientContextSize(handle_, sizeof(PacketContext));
  if (status != STATUS_SUCCESS) return status;
  if (is_subchannel()) {
    status = VmbChannelInitSetPrimaryChannel(handle_, primary_->handle_);
    if (status != STATUS_SUCCESS) return status;
  }
  const GUID type = TypeOfChannels();
  const GUID instance = InstanceOf(is_subchannel() ? primary_->index : index);
  if (server) {
    status = VmbServerChannelInitSetVmbusHandle(handle_, partition);
    if (status != STATUS_SUCCESS) return status;
    status = VmbServerChannelInitSetSaveRestorePacketCallbacks(handle_, SavePacket, RestorePacket);
    if (status != STATUS_SUCCESS) return status;
    return VmbServerChannelInitSetTargetInterfaceId(handle_, type, instance);
  }
  status = VmbClientChannelInitSetRingBufferPageCount(handle_, model_.plan.ring_pages,
                                                      model_.plan.ring_pages);
  if (status != STATUS_SUCCESS) return status;
  return VmbClientChannelInitSetTargetPnp(handle_, &type, &instance, PnpFailure);
}

NTSTATUS End::Enable() {
  failed_ = false;
  NTSTATUS status = STATUS_SUCCESS;
  enabled_ = true;  // callbacks may come before it returns
  {
    const InLibrary library("VmbChannelEnable", number);
    status = VmbChannelEnable(handle_);
  }
  if (is_subchannel()) {
    // Its primary may have been disabled meanwhile, and it with that.
    enabled_ = status == STATUS_SUCCESS;
  } else if (status != STATUS_SUCCESS && status != STATUS_INVALID_DEVICE_STATE) {
    enabled_ = false;
  }
  return status;
}

void End::Disable() {
  {
    const InLibrary library("VmbChannelDisable", number);
    VmbChannelDisable(handle_);
  }
  // Another thread may have enabled it since, but only the first actor does that, and it is here.
  if (!is_subchannel() && (open_ || started_)) Wrong("a channel was disabled and is still open");
  enabled_ = spoilt_ = false;
  if (!server) return ReceiveLeftShares();
  // And nobody can enable one of these as long as their primary is not.
  for (End* const sub : subchannels_) {
    if (sub->open_ || sub->started_) sub->Wrong("its primary was disabled and it is still open");
    sub->enabled_ = sub->spoilt_ = false;
  }
}

void End::Cleanup() {
  if (handle_ == nullptr) return;
  if (outstanding_ != 0) Wrong("packets are outstanding at the end");
  if (is_subchannel()) std::erase(primary_->subchannels_, this);
  if (!subchannels_.empty()) Wrong("a primary goes before its sub-channels");
  Discard();
  if (abandoned_) return;
  for (Slot& slot : slots_) {
    if (slot.in_flight) Wrong("a packet is in flight after its channel has gone");
  }
  for (const Stream& stream : streams_) {
    for (const Message& message : stream.messages) {
      if (message.accepted && message.completed != 1) {
        Wrong("an accepted packet was completed " + std::to_string(message.completed) + " times");
      }
    }
  }
  slots_.clear();
}

void End::Discard() {
  if (raw_ != nullptr) {
    raw_->Stop();
    raw_.reset();
  }
  const InLibrary library("VmbChannelCleanup", number);
  KMCL_CHANNEL_COUNTERS counters{};
  counters.Size = sizeof counters;
  if (KmclChannelQueryCounters(handle_, &counters) != STATUS_SUCCESS) Wrong("no counters");
  if (counters.Outstanding != 0 || counters.Queued != 0 ||
      counters.TransactionsStarted !=
          counters.TransactionsCompleted + counters.TransactionsCancelled) {
    Wrong("the counters do not add up");
  }
  ending_ = true;
  for (Slot& slot : slots_) {
    // What was restored into a channel that was never enabled is given up by its cleanup.
    if (slot.packet == nullptr || (unused_ && slot.in_flight)) continue;
    VmbPacketFree(slot.packet);
    slot.packet = nullptr;
  }
  VmbChannelCleanup(handle_);
  ending_ = false;
  handle_ = nullptr;
}

void End::Start() {
  const InLibrary library("VmbChannelStart", number);
  VmbChannelStart(handle_);
}
void End::Pause() {
  const InLibrary library("VmbChannelPause", number);
  VmbChannelPause(handle_);
}

}  // namespace kmcl::sim
