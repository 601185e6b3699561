// A watched channel: follows the driver's callbacks, and hands it objects that the library refuses,
// so that every use of them is looked at (verifier.h). It has no members of its own: what is known
// about it is in the registry.
#pragma once

#include "api/objects.h"

namespace kmcl::api::verifier {

class VerifiedChannel final : public ChannelObject {
 public:
  using ChannelObject::ChannelObject;

  bool OnOpened() override;
  void OnClosed() override;
  void OnSuspend() override;
  void OnStarted() override;
  void OnPostStarted() override;
  void OnConnectFailed(Error error) override;
  void OnPacket(channel::IncomingPacket& packet) override;
  void OnBatchEnd(std::uint32_t packets) override;
  void OnPacketDone(channel::Packet& packet, channel::Outcome outcome,
                    std::span<std::byte> reply) override;
  channel::Packet* OnAllocatePacket() override;
  bool OnNotOutstanding(channel::IncomingPacket& packet, Retire as,
                        std::span<const std::byte> reply) override;
};

// "the server's channel \"echo\"".
std::string NameOf(VMBCHANNEL channel);
// Tells which GPADLs were not given back (V11): EvtVmbChannelClosed has returned.
void ReportGpadlsLeft(VMBCHANNEL channel);
// Tells what was written after it was freed (V21); with `channel`, after a look at all that it has
// freed.
void ReportDamage(const void* channel);

}  // namespace kmcl::api::verifier
