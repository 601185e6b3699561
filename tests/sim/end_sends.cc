// What an end sends, and what becomes of it.
#include <kmcl/batch.h>

#include <algorithm>
#include <utility>

#include "end.h"

namespace kmcl::sim {
namespace {

constexpr std::size_t kMostWords = 4096 / 8;

}  // namespace

std::uint32_t End::FreeStream() const {
  for (std::uint32_t i = 0; i < kStreams; ++i) {
    if (!streams_[i].busy) return i;
  }
  return kStreams;
}

// Each packet says who sent it and what its place is; all further words repeat that.
std::uint32_t End::Fill(std::uint64_t* words, std::uint32_t stream, std::uint64_t id) {
  const std::uint32_t longest = model_.plan.payload_bytes / 8;
  const std::uint32_t count =
      Choices().Between(1, Choices().OneIn(3) ? longest : std::min(longest, 8u));
  std::fill_n(words, count, NameOf(stream, id));
  return count * 8;
}

void End::Send(std::uint32_t count) {
  to_send_ += count;
  if (is_raw()) return Changed();
  Pump();
}

void End::Pump() {
  // A completion routine that sends is called by a send that completes at once.
  if (pump_depth_ >= 3 || taken_whole || is_raw()) return;
  ++pump_depth_;
  // Until all are in flight: what completes at once may be idle again.
  for (bool sent = true; sent && to_send_ > 0;) {
    sent = false;
    for (std::size_t i = 0; to_send_ > 0 && !taken_whole && i < slots_.size(); ++i) {
      if (slots_[i].in_flight) continue;
      if (!TrySend(slots_[i])) break;
      sent = true;
    }
  }
  --pump_depth_;
  if (taken_whole) Changed();
}

bool End::TrySend(Slot& slot) {
  const std::uint32_t stream_index = FreeStream();
  if (stream_index == kStreams || !enabled_) return false;
  Stream& stream = streams_[stream_index];
  stream.busy = true;
  slot.in_flight = true;
  slot.stream = stream_index;
  slot.id = stream.messages.size();
  --to_send_;
  ++in_flight_;
  Message& message = stream.messages.emplace_back();
  message.wants_completion = Choices().Between(0, 99) < model_.plan.transactions;
  message.accepted = true;  // its routine may be called before the send returns
  message.session = session_;
  const bool wants = message.wants_completion;
  std::uint64_t words[kMostWords];
  const std::uint32_t bytes = Fill(words, stream_index, slot.id);
  const std::uint64_t id = slot.id;
  NTSTATUS status = STATUS_SUCCESS;
  if (wants && !server && model_.plan.external != 0 && !model_.plan.MayMeetRawServer(index) &&
      Choices().Between(0, 99) < model_.plan.external) {
    status = SendDescribed(slot, words, bytes);
  } else {
    const InLibrary library("VmbPacketSend", number);
    status = VmbPacketSend(slot.packet, words, bytes, nullptr,
                           wants ? VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION : 0);
  }
  stream.busy = false;
  if (status == STATUS_SUCCESS) return true;
  RefuseSent(slot, stream.messages[id], status);
  return false;
}

void End::SendBatch(std::uint32_t count) {
  const std::uint32_t stream_index = FreeStream();
  if (stream_index == kStreams || !enabled_ || is_raw()) return;
  Stream& stream = streams_[stream_index];
  stream.busy = true;
  const bool wants = Choices().Between(0, 99) < model_.plan.transactions;
  std::vector<Slot*> slots;
  std::vector<VMBPACKET> packets;
  std::deque<std::array<std::uint64_t, 8>> words;
  std::vector<PVOID> buffers;
  std::vector<UINT32> lengths;
  const std::uint64_t first = stream.messages.size();
  for (Slot& slot : slots_) {
    if (slots.size() == count) break;
    if (slot.in_flight) continue;
    slot.in_flight = true;
    slot.stream = stream_index;
    slot.id = stream.messages.size();
    ++in_flight_;
    Message& message = stream.messages.emplace_back();
    message.wants_completion = wants;
    message.accepted = true;
    message.session = session_;
    auto& payload = words.emplace_back();
    payload.fill(NameOf(stream_index, slot.id));
    slots.push_back(&slot);
    packets.push_back(slot.packet);
    buffers.push_back(payload.data());
    lengths.push_back(Choices().Between(1, payload.size()) * 8);
  }
  UINT32 sent = 0;
  NTSTATUS status = STATUS_SUCCESS;
  {
    const InLibrary library("KmclPacketSendBatch", number);
    status = KmclPacketSendBatch(packets.data(), buffers.data(), lengths.data(),
                                 static_cast<UINT32>(packets.size()),
                                 wants ? VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION : 0, &sent);
  }
  stream.busy = false;
  model_.in_batches += sent;
  if ((status == STATUS_SUCCESS) != (sent == slots.size())) {
    Wrong("of a batch of " + std::to_string(slots.size()) + " " + std::to_string(sent) +
          " are sent: " + KmclStatusName(status));
  }
  for (std::uint64_t i = sent; i < slots.size(); ++i) {
    RefuseSent(*slots[i], stream.messages[first + i], status);
  }
}

// A packet that was not sent, in the end.
void End::RefuseSent(Slot& slot, Message& refused, NTSTATUS status) {
  if (refused.completed != 0 || refused.delivered != 0) Wrong("a refused packet was sent");
  refused.accepted = false;
  refused.may_vanish = true;
  slot.in_flight = false;
  --in_flight_;
  slot.memory.clear();
  const bool may_be = model_.plan.refusals && status == STATUS_INSUFFICIENT_RESOURCES;
  if (status != STATUS_INVALID_DEVICE_STATE && !may_be) {
    Wrong(std::string("a send is refused: ") + KmclStatusName(status));
  }
}

NTSTATUS End::Request(const Asked& asked) {
  const std::uint32_t stream_index = FreeStream();
  if (stream_index == kStreams || !enabled_ || is_raw()) return STATUS_INVALID_DEVICE_STATE;
  Stream& stream = streams_[stream_index];
  stream.busy = true;
  const std::uint64_t id = stream.messages.size();
  Message& message = stream.messages.emplace_back();
  message.wants_completion = asked.wants_completion;
  message.accepted = true;
  message.may_vanish = true;  // unless it succeeds
  std::uint64_t words[kMostWords];
  std::uint32_t bytes = Fill(words, stream_index, id);
  const std::uint64_t name = words[0];
  if (Share* const share = asked.share) {
    const auto which =
        std::ranges::find_if(shares_, [share](const Share& each) { return &each == share; });
    words[0] |= kCarries;
    words[1] = share->handle;
    words[2] = static_cast<std::uint64_t>(std::distance(shares_.begin(), which));
    bytes = 24;
    share->Fill(name);
  }
  std::uint64_t answer = 0;
  UINT32 answer_bytes = sizeof answer;
  LARGE_INTEGER timeout;
  timeout.QuadPart = -std::int64_t{asked.timeout_us} * 10;
  NTSTATUS status = STATUS_SUCCESS;
  {
    const InLibrary library("VmbChannelSendSynchronousRequest", number);
    status = VmbChannelSendSynchronousRequest(
        handle_, words, bytes, nullptr,
        asked.wants_completion ? VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION : 0, &answer,
        &answer_bytes, &timeout);
  }
  Message& done = stream.messages[id];
  done.completed = 1;
  done.status = status;
  if (status == STATUS_SUCCESS) done.may_vanish = false;
  stream.busy = false;
  Note("request %llu ends with %#llx", id, static_cast<std::uint32_t>(status));
  CheckRequested(asked, done, name, answer_bytes == sizeof answer ? answer : 0);
  return status;
}

void End::CheckRequested(const Asked& asked, const Message& done, std::uint64_t name,
                         std::uint64_t answer) const {
  switch (done.status) {
    case STATUS_SUCCESS:
      if (hostile || !asked.wants_completion) return;
      if (done.delivered != 1) Wrong("a request was answered that was not delivered");
      if (answer != (name ^ kAnswerKey)) Wrong("a request got another one's answer");
      if (asked.share != nullptr && !WasWorkedOn(*asked.share, name)) {
        Wrong("what the server wrote into shared memory is not there");
      }
      return;
    case STATUS_BUFFER_TOO_SMALL:
      if (hostile) return;
      break;
    case STATUS_INSUFFICIENT_RESOURCES:
      if (model_.plan.refusals) return;
      break;
    case STATUS_BUFFER_OVERFLOW:  // with a time of 0: no room now
    case STATUS_CANCELLED:
    case STATUS_DEVICE_REMOVED:
    case STATUS_INVALID_DEVICE_STATE:
      return;
    default:
      break;
  }
  Wrong(std::string("a request ends with ") + KmclStatusName(done.status));
}

bool End::IsSettled() const { return to_send_ == 0 && in_flight_ == 0 && outstanding_ == 0; }

void End::PacketDone(VMBPACKET packet, NTSTATUS status, PVOID buffer, UINT32 bytes) {
  Slot& slot = *static_cast<Slot*>(VmbPacketGetPointer(packet));
  const InTest test;
  slot.end->OnDone(slot, status, buffer, bytes);
}

void End::OnDone(Slot& slot, NTSTATUS status, const void* buffer, UINT32 bytes) {
  if (Current().locks_held != 0) Wrong("a completion routine is called under a lock");
  if (!slot.in_flight) Wrong("a packet is completed that is not in flight");
  if (abandoned_) {
    if (status != STATUS_DEVICE_REMOVED) Wrong("a packet is completed that goes on elsewhere");
    slot.in_flight = false;
    return;
  }
  if (slot.is_saved) {
    // The saved channel's, which ends; the packet goes on in the channel that comes after it.
    if (status != STATUS_DEVICE_REMOVED) {
      Wrong(std::string("a saved packet ends with ") + KmclStatusName(status));
    }
    slot.is_saved = false;
    return;
  }
  Message& message = streams_[slot.stream].messages[slot.id];
  if (message.completed++ != 0) Wrong("a packet is completed twice");
  message.status = status;
  if (status == STATUS_SUCCESS) {
    if (message.wants_completion && !hostile) {
      const std::uint64_t name = NameOf(slot.stream, slot.id);
      if (message.delivered != 1) Wrong("a packet was completed that was not delivered");
      if (bytes != 8 || *static_cast<const std::uint64_t*>(buffer) != (name ^ kAnswerKey)) {
        Wrong("a packet is completed with another one's answer");
      }
      CheckWritten(slot, name);
    }
  } else if (status != STATUS_DEVICE_REMOVED) {
    Wrong(std::string("a packet ends with ") + KmclStatusName(status));
  }
  slot.memory.clear();
  Note("packet %llu.%llu is done: %#llx", slot.stream, slot.id, static_cast<std::uint32_t>(status));
  ++model_.completed;
  slot.in_flight = false;
  --in_flight_;
  if (ending_) {
    const InLibrary library;
    VmbPacketFree(std::exchange(slot.packet, nullptr));
  }
  Changed();
  if (status == STATUS_SUCCESS) Pump();
}

}  // namespace kmcl::sim
