// One event at a server: the machine it happens to, and the actions it leads to. Lives on the stack
// for one call of an On... function. Private to the machine.
//
// server_connection.cc  contact, offers on request, unload, pause, and the reset behind them
// server_offers.cc      offers, revokes, and ids given back
// server_channels.cc    open, close, modify
// server_gpadls.cc      GPADLs
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <variant>

#include "bus/server.h"
#include "wire/message_codec.h"
#include "wire/messages.h"

namespace kmcl::bus {

class Server::Event {
 public:
  // Invariants are checked here and in TakeActions, in a debug build: by a walk over everything, so
  // only while there is little to walk over.
  explicit Event(Server& server) : server_(server) { CheckAtDoor(); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void OnMessage(std::span<const std::byte> bytes);
  void OnPeerGone();
  Result<wire::ChannelId> OnOffer(const OfferParameters& parameters);
  Result<void> OnRevoke(wire::ChannelId id);
  Result<void> OnOpenResult(wire::ChannelId id, std::uint32_t status);
  Result<void> OnCloseDone(wire::ChannelId id);
  Result<void> OnGpadlResult(wire::ChannelId id, wire::GpadlId gpadl_id, std::uint32_t status);
  Result<void> OnGpadlReleased(wire::ChannelId id, wire::GpadlId gpadl_id);
  Result<void> OnModifyDone(wire::ChannelId id, std::uint32_t status);
  Result<void> OnTlConnectFailed(const wire::TlConnectResult& result);

  ServerActions TakeActions() {
    CheckAtDoor();
    return std::move(actions_);
  }

 private:
  void CheckAtDoor() const {
#ifndef NDEBUG
    if (server_.channels_.size() <= 64) server_.CheckInvariants();
#endif
  }

  using Channels = std::map<wire::ChannelId, server::Channel>;
  using Gpadls = std::map<wire::GpadlId, server::Gpadl>;

  // Every message that a client may send; the state decides what comes of it.
  void On(const wire::RequestOffers& message);
  void On(const wire::OpenChannel& message);
  void On(const wire::CloseChannel& message);
  void On(const wire::GpadlHeader& message);
  void On(const wire::GpadlBody& message);
  void On(const wire::GpadlTeardown& message);
  void On(const wire::RelIdReleased& message);
  void On(const wire::InitiateContact& message);
  void On(const wire::Unload& message);
  void On(const wire::OpenReservedChannel& message);
  void On(const wire::CloseReservedChannel& message);
  void On(const wire::TlConnectRequest& message);
  void On(const wire::ModifyChannel& message);
  void On(const wire::ModifyConnection& message);
  void On(const wire::Pause& message);
  void On(const wire::Resume& message);

  // The connection.
  server::connection_state::Connected* connected() {
    return std::get_if<server::connection_state::Connected>(&server_.connection_);
  }
  bool Has(bool (*ability)(wire::Version)) {
    return connected() != nullptr && ability(connected()->version);
  }
  void Contact(const wire::InitiateContact& request);
  void BeginReset(server::connection_state::Resetting next);
  // Counts `answers` that a device has given, and ends the reset with the last one.
  void ResetAnswered(std::size_t answers);
  void FinishReset();

  // Offers.
  // The channel, if the client has been told of `id` and has not given it back; else end().
  Channels::iterator FindKnown(wire::ChannelId id);
  void AnnounceWaiting();
  void Announce(wire::ChannelId id, server::Channel& channel);
  void Erase(Channels::iterator channel);

  // Channels.
  void AskToOpen(server::Channel& channel, const wire::OpenChannel& request);
  void AnswerOpen(wire::ChannelId id, wire::OpenId open, std::uint32_t status);
  void AnswerModify(wire::ChannelId id, std::uint32_t status);
  // The client has let go of the whole channel, by REL_ID_RELEASED.
  void LetGo(wire::ChannelId id, server::Channel& channel);
  // By a reset. Returns how many answers the device owes.
  std::size_t Reset(wire::ChannelId id, server::Channel& channel);

  // GPADLs.
  static bool IsAccepted(const server::Channel& channel, wire::GpadlId id);
  Result<void> CheckHeader(const server::Channel& channel, const wire::GpadlHeader& message) const;
  // Adds range bytes to an incomplete GPADL, and asks the device once it is complete.
  void Receive(wire::ChannelId id, server::Channel& channel, Gpadls::iterator gpadl,
               std::span<const std::byte> ranges);
  void Complete(wire::ChannelId id, server::Channel& channel, Gpadls::iterator gpadl);
  void AnswerGpadl(wire::ChannelId id, wire::GpadlId gpadl_id, std::uint32_t status);
  Gpadls::iterator Erase(server::Channel& channel, Gpadls::iterator gpadl);
  // Nobody waits for an answer about `gpadl` any more. Returns the next one.
  Gpadls::iterator LetGo(wire::ChannelId id, server::Channel& channel, Gpadls::iterator gpadl);
  // Before a rescind: answers what the client waits for, keeps what it may still tear down.
  void Orphan(wire::ChannelId id, server::Channel& channel);

  // Gives a message to the client, or holds it during a pause. Nothing is sent unless connected.
  template <typename M>
  void Send(const M& message) {
    if (connected() == nullptr) return;
    SendBytes(wire::Encode(message, server_.agreed()));
  }
  void SendBytes(const wire::MessageBytes& bytes);
  // The few messages that belong to no connection.
  template <typename M>
  void SendAside(const M& message, const wire::Agreed& agreed) {
    actions_.push_back(server::SendMessage{wire::Encode(message, agreed)});
  }

  // Says that the message at hand was not followed. The last thing its handler does.
  void Refuse(Error rule);
  // As Refuse, for what a correct client may send: does not count towards Broken.
  void RefuseCrossing(Error rule);

  Server& server_;
  ServerActions actions_;
  Report report_;  // about the message at hand
};

namespace server {

// How many answers the device owes for a channel that the client has let go of.
std::size_t AnswersOwed(const Channel& channel);

}  // namespace server

}  // namespace kmcl::bus
