// One event at a client: the machine it happens to, and the actions it leads to. Lives on the stack
// for one call of an On... function. Private to the machine.
//
// client_connection.cc  contact, unload, reconnect, and the end
// client_channels.cc    offers and rescinds; open, close, modify
// client_gpadls.cc      GPADLs
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <utility>
#include <variant>

#include "bus/client.h"
#include "wire/message_codec.h"
#include "wire/messages.h"

namespace kmcl::bus {

class Client::Event {
 public:
  // Invariants are checked here and in TakeActions, in a debug build: by a walk over everything, so
  // only while there is little to walk over.
  explicit Event(Client& client) : client_(client) { CheckAtDoor(); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void OnMessage(std::span<const std::byte> bytes);
  void OnPeerGone();
  Result<void> OnConnect(const ClientOptions& options);
  Result<void> OnReconnect();
  Result<void> OnUnload();
  Result<wire::GpadlId> OnCreateGpadl(wire::ChannelId id, const wire::GpaRangeList& ranges,
                                      GpadlAccess access);
  Result<void> OnTeardownGpadl(wire::ChannelId id, wire::GpadlId gpadl_id);
  Result<void> OnOpen(wire::ChannelId id, const OpenRequest& request);
  Result<void> OnClose(wire::ChannelId id);
  Result<void> OnModify(wire::ChannelId id, wire::ProcessorIndex target_vp);
  Result<void> OnReleaseChannel(wire::ChannelId id);
  Result<void> OnTlConnect(const wire::TlConnectRequest& request);

  ClientActions TakeActions() {
    CheckAtDoor();
    return std::move(actions_);
  }

 private:
  void CheckAtDoor() const {
#ifndef NDEBUG
    if (client_.channels_.size() <= 64) client_.CheckInvariants();
#endif
  }

  using Channels = std::map<wire::ChannelId, client::Channel>;
  using Gpadls = std::map<wire::GpadlId, client::GpadlState>;

  // Every message that a server may send; the state decides what comes of it.
  void On(const wire::OfferChannel& message);
  void On(const wire::RescindChannelOffer& message);
  void On(const wire::AllOffersDelivered& message);
  void On(const wire::OpenChannelResult& message);
  void On(const wire::GpadlCreated& message);
  void On(const wire::GpadlTorndown& message);
  void On(const wire::VersionResponse& message);
  void On(const wire::UnloadComplete& message);
  void On(const wire::CloseReservedResponse& message);
  void On(const wire::TlConnectResult& message);
  void On(const wire::ModifyChannelResponse& message);
  void On(const wire::ModifyConnectionResponse& message);
  void On(const wire::PauseResponse& message);

  // The connection.
  client::connection_state::Connected* connected() {
    return std::get_if<client::connection_state::Connected>(&client_.connection_);
  }
  // What decides how a message from the server reads, which outlasts the connection by the UNLOAD.
  wire::Agreed ReadingRules() const;
  void Contact(wire::Version version, bool reconnect);
  void ContactRefused(Error reason);
  void RescindAll();
  void ForgetAll();

  // Channels.
  // kNotConnected or kChannelUnknown.
  Result<Channels::iterator> Find(wire::ChannelId id);
  // Answers whoever waits on the channel with a failure, and withdraws the offer.
  void Rescind(wire::ChannelId id, client::Channel& channel);
  void Erase(Channels::iterator channel);

  // GPADLs.
  Gpadls::iterator Erase(client::Channel& channel, Gpadls::iterator gpadl);

  template <typename M>
  void Send(const M& message) {
    if (connected() == nullptr) return;
    actions_.push_back(client::SendMessage{wire::Encode(message, client_.agreed())});
  }

  // Says that the message at hand was not followed. The last thing its handler does.
  void Refuse(Error rule);
  // As Refuse, for what a correct server may send: does not count towards Broken.
  void RefuseCrossing(Error rule);

  Client& client_;
  ClientActions actions_;
  Report report_;  // about the message at hand
};

namespace client {

bool IsRescinded(const ChannelState& state);

}  // namespace client

}  // namespace kmcl::bus
