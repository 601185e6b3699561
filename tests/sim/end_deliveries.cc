// What an end is given, and what it does with it.
#include <span>

#include "end.h"

namespace kmcl::sim {

void End::ProcessPacket(VMBCHANNEL channel, VMBPACKETCOMPLETION packet, PVOID buffer, UINT32 bytes,
                        UINT32 flags) {
  End& self = Of(channel);
  const InTest test;
  self.BeginCallback("a packet", false);
  self.OnPacket(packet, static_cast<const std::uint64_t*>(buffer), bytes,
                (flags & VMBUS_CHANNEL_PROCESS_PACKET_FLAG_EXTERNAL_DATA) != 0);
  self.EndCallback(false);
}

void End::OnPacket(VMBPACKETCOMPLETION packet, const std::uint64_t* words, UINT32 bytes,
                   bool describes) {
  if (!started_) Wrong("a packet is delivered to a channel that is not started");
  if (spoilt_ && spoilt_session_ == session_) {
    Wrong("a packet is delivered after one that was found malformed");
  }
  Retirement retirement = model_.plan.retirement;
  if (retirement == Retirement::kMixed) {
    retirement = static_cast<Retirement>(Choices().Between(0, 2));
  }
  auto& context = *static_cast<PacketContext*>(VmbChannelPacketGetClientContext(packet));
  if (retirement == Retirement::kDeferred && context.deferred == 0) {
    context.deferred = 1;
    Note("defers a packet");
    const InLibrary library;
    return VmbChannelPacketDeferToPassive(packet);
  }
  if (hostile) {
    if (describes && !TakeExternalData(packet, 0)) return;
    ++outstanding_;
    ++in_batch_;
    // Whatever the handle is: it may be tried.
    if (server && bytes >= 24 && (words[0] & kCarries) != 0) {
      return retirer_.Add({.end = this, .packet = packet, .handle = static_cast<UINT32>(words[1])});
    }
    if (retirement == Retirement::kLater) return retirer_.Add({.end = this, .packet = packet});
    return Retired(packet, 0);
  }
  if (describes && (bytes < 8 || !TakeExternalData(packet, words[0]))) return;
  const std::uint64_t name = CheckPacket(words, bytes);
  if (spoils) {
    spoils = false;
    spoilt_ = true;
    spoilt_session_ = session_;
    ++in_batch_;
    Note("end %llu finds a packet malformed", number);
    const InLibrary library;
    return VmbChannelPacketFail(packet);
  }
  ++outstanding_;
  ++in_batch_;
  Retirer::Item item{.end = this, .packet = packet, .name = name, .answer = name ^ kAnswerKey};
  if ((words[0] & kCarries) != 0) {
    const auto& shares = model_.ends[name >> 48]->shares_;
    item.handle = static_cast<UINT32>(words[1]);
    item.share =
        const_cast<Share*>(&*std::next(shares.begin(), static_cast<std::ptrdiff_t>(words[2])));
    return retirer_.Add(item);
  }
  if (retirement == Retirement::kLater) return retirer_.Add(item);
  Retired(packet, item.answer);
}

std::uint64_t End::CheckPacket(const std::uint64_t* words, std::uint32_t bytes) {
  if (bytes < 8 || bytes % 8 != 0) Wrong("a packet of " + std::to_string(bytes) + " bytes");
  const std::uint64_t name = words[0] & ~kCarries;
  const bool carries = words[0] != name;
  for (std::uint32_t i = carries ? 3 : 0; i < bytes / 8; ++i) {
    if (words[i] != words[0]) Wrong("a packet is torn");
  }
  const std::uint64_t from = name >> 48;
  const auto stream = static_cast<std::uint32_t>(name >> 40 & 0xFF);
  const std::uint64_t id = name & 0xFF'FFFF'FFFF;
  if (carries && (!server || bytes != 24)) Wrong("a packet carries what was not sent");
  if (from >= model_.ends.size() || stream >= kStreams) Wrong("a packet from nobody");
  CheckDelivery(*model_.ends[from], stream, id);
  Note("packet %llu.%llu of end %llu is delivered", stream, id, from);
  ++model_.delivered;
  return name;
}

void End::CheckDelivery(End& from, std::uint32_t stream, std::uint64_t id) {
  // Which of several sub-channels meet is the client's choice.
  const bool paired = from.index == index || (from.is_subchannel() && is_subchannel());
  if (from.server == server || !paired ||
      (server && !model_.plan.local && from.process != peer_process)) {
    Wrong("a packet of another channel");
  }
  if (from.server && peer_ != nullptr && peer_ != &from && (fresh_ & 1u << 31) == 0) {
    Wrong("packets of two ends in one session");
  }
  auto& messages = from.streams_[stream].messages;
  if (id >= messages.size()) Wrong("a packet that was never sent");
  Message& message = messages[id];
  if (message.delivered++ != 0) Wrong("a packet is delivered twice");
  if (peer_ != &from) {
    incoming_ = {};
    peer_ = &from;
    fresh_ = ~0u;
  }
  fresh_ &= ~(1u << 31);
  Incoming& incoming = incoming_[stream];
  if (id < incoming.next) Wrong("a packet comes after one that was sent later");
  // A session may end with packets in the ring; within one there are no holes.
  if ((fresh_ & 1u << stream) == 0) {
    for (std::uint64_t hole = incoming.next; hole < id; ++hole) {
      if (!messages[hole].may_vanish) {
        Wrong("packet " + std::to_string(hole) + " of stream " + std::to_string(stream) +
              " is missing before " + std::to_string(id));
      }
    }
  }
  fresh_ &= ~(1u << stream);
  incoming.next = id + 1;
}

void End::Retired(VMBPACKETCOMPLETION packet, std::uint64_t answer) {
  if (outstanding_-- == 0) Wrong("a packet is retired that is not outstanding");
  {
    const InLibrary library;
    VmbChannelPacketComplete(packet, &answer, sizeof answer);
  }
  Changed();
}

void End::ProcessingComplete(VMBCHANNEL channel, UINT32 count) {
  End& self = Of(channel);
  const InTest test;
  self.BeginCallback("the end of a batch", false);
  if (count != self.in_batch_) {
    self.Wrong("a batch of " + std::to_string(self.in_batch_) + " is said to be of " +
               std::to_string(count));
  }
  self.in_batch_ = 0;
  self.EndCallback(false);
}

}  // namespace kmcl::sim
