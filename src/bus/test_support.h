// What the tests of both machines share: shorthands for messages and offers, and actions in words.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "bus/client.h"
#include "bus/server.h"
#include "wire/message_codec.h"
#include "wire/messages.h"

namespace kmcl::bus {

// Looks into the machines.
class ServerTestPeer {
 public:
  static const server::ConnectionState& connection(const Server& s) { return s.connection_; }
  static const std::map<wire::ChannelId, server::Channel>& channels(const Server& s) {
    return s.channels_;
  }
  static std::uint64_t gpadl_pages(const Server& s) { return s.gpadl_pages_; }
  static std::uint32_t gpadl_count(const Server& s) { return s.gpadl_count_; }
  static std::size_t incomplete(const Server& s) { return s.incomplete_.size(); }
};

class ClientTestPeer {
 public:
  static const client::ConnectionState& connection(const Client& c) { return c.connection_; }
  static const std::map<wire::ChannelId, client::Channel>& channels(const Client& c) {
    return c.channels_;
  }
  static std::uint32_t next_gpadl(const Client& c) { return c.next_gpadl_; }
  static std::uint32_t next_open(const Client& c) { return c.next_open_; }
};

// Actions in words, separated by "; ". Messages by name, with "ok" or "fail" for their status.
std::string Describe(const ServerActions& actions);
std::string Describe(const ClientActions& actions);
template <typename Actions>
std::string Describe(const Result<Actions>& result) {
  if (!result) return std::string("error ") + ErrorName(result.error());
  return Describe(*result);
}

// The names of the states, "none" for a channel or GPADL that does not exist.
std::string ConnectionStateName(const Server& server);
std::string ChannelStateName(const Server& server, wire::ChannelId channel);
std::string GpadlStateName(const Server& server, wire::ChannelId channel, wire::GpadlId gpadl);
std::string ConnectionStateName(const Client& client);
std::string ChannelStateName(const Client& client, wire::ChannelId channel);
std::string GpadlStateName(const Client& client, wire::ChannelId channel, wire::GpadlId gpadl);

// The messages among the actions, read back.
std::vector<wire::ServerMessage> Sent(const ServerActions& actions);
std::vector<wire::ClientMessage> Sent(const ClientActions& actions);

// The first action or message of a type; fails the test if there is none.
template <typename T, typename Variant>
T First(const std::vector<Variant>& list) {
  for (const Variant& item : list) {
    if (const T* found = std::get_if<T>(&item)) return *found;
  }
  ADD_FAILURE() << "not among the actions";
  return T{};
}

OfferParameters Device(std::uint32_t number, std::uint16_t subchannel_index = 0);
wire::GpaRangeList Pages(std::uint32_t page_count);

inline constexpr wire::ChannelId kChannel{1};
inline constexpr wire::GpadlId kRing{7};
inline constexpr wire::OpenId kOpenId{99};

// A server with everything around it played by the test.
class ServerHarness {
 public:
  explicit ServerHarness(const ServerLimits& limits = {}) : server(limits) {}

  // From the client.
  template <typename M>
  ServerActions Tell(const M& message) {
    return server.OnMessage(wire::Encode(message, rules));
  }
  ServerActions Contact(wire::Version version, wire::FeatureFlags wanted = {});
  // Contact that succeeds, and REQUEST_OFFERS.
  void Connect(wire::Version version = wire::Version::kIron, wire::FeatureFlags wanted = {});
  // All messages of a GPADL.
  ServerActions TellGpadl(wire::ChannelId channel, wire::GpadlId gpadl, std::uint32_t pages = 4);
  ServerActions TellOpen(wire::ChannelId channel, wire::GpadlId ring = kRing,
                         wire::ProcessorIndex target_vp = {});

  // What the device does. Each fails the test if the machine refuses.
  wire::ChannelId Offer(const OfferParameters& parameters);
  ServerActions Revoke(wire::ChannelId channel);
  // A GPADL that the device accepts.
  void Share(wire::ChannelId channel, wire::GpadlId gpadl = kRing);
  // Shares a ring and opens.
  void Open(wire::ChannelId channel = kChannel, wire::ProcessorIndex target_vp = {});

  Server server;
  wire::Agreed rules;  // how the client writes
};

// A client with everything around it played by the test.
class ClientHarness {
 public:
  template <typename M>
  ClientActions Tell(const M& message) {
    return client.OnMessage(wire::Encode(message, rules));
  }
  // VERSION_RESPONSE that accepts.
  ClientActions Accept();
  void Connect(wire::Version version = wire::Version::kIron, wire::FeatureFlags wanted = {});
  ClientActions TellOffer(wire::ChannelId channel, const OfferParameters& parameters);
  wire::GpadlId Create(wire::ChannelId channel);
  wire::GpadlId Share(wire::ChannelId channel);
  // The id of the latest OPEN_CHANNEL among the actions of OnOpen.
  wire::OpenId StartOpen(wire::ChannelId channel, wire::GpadlId ring,
                         wire::ProcessorIndex target_vp = {});
  wire::GpadlId Open(wire::ChannelId channel = kChannel, wire::ProcessorIndex target_vp = {});

  Client client;
  wire::Agreed rules;  // how the server writes
};

}  // namespace kmcl::bus
