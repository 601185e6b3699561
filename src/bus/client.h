// The client's end of the control protocol: message or local event in, actions out.
//
// A plain value: no thread, no clock, no I/O, no pointers to the outside. It may be copied and
// compared. It belongs to the endpoint's bus thread. The server is not trusted either: its answers
// must match what was asked, its offers must make sense, and what does not is reported and dropped.
// docs/bus-protocol.md has the states, and the answer to every message in every state.
//
// A channel's way: OfferArrived, OnCreateGpadl (GpadlResult), OnOpen (OpenResult), OnClose,
// OnTeardownGpadl (GpadlTornDown: only now the memory is ours again). And after OfferRescinded:
// OnClose if it was open, OnTeardownGpadl for what is left (done at once), OnReleaseChannel.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include "bus/client_actions.h"
#include "bus/client_state.h"
#include "result.h"
#include "wire/gpa_range.h"
#include "wire/ids.h"
#include "wire/version.h"

namespace kmcl::bus {

struct ClientOptions {
  wire::Version newest = wire::Version::kCopper;  // asked for first; then the next lower ones
  wire::Version oldest = wire::Version::kV1;
  wire::FeatureFlags features;  // wanted, from 6.0
  wire::Guid client_id;         // who we are, if features has kClientId
  wire::ProcessorIndex target_message_vp{};
  std::uint8_t vtl = 0;
  // Addresses of pages of ours for monitors (VMBus reference 3.8): both or neither.
  std::uint64_t parent_to_child_monitor_page = 0;
  std::uint64_t child_to_parent_monitor_page = 0;

  friend bool operator==(const ClientOptions&, const ClientOptions&) = default;
};

struct OpenRequest {
  wire::GpadlId ring{};               // created, and of this channel
  std::uint32_t downstream_page = 0;  // where the server-to-client control page stands
  wire::ProcessorIndex target_vp{};   // whom the server interrupts, or kNoInterrupt
  wire::UserDefined user_data{};
};

// What we say that the server may do with a GPADL. It can do everything.
enum class GpadlAccess : bool { kReadWrite, kReadOnly };

class Client {
 public:
  Client() = default;

  // ---- From the server.

  // Any bytes whatsoever.
  ClientActions OnMessage(std::span<const std::byte> bytes);

  // The link died, or the endpoint ends it. Whoever waits is answered with a failure, every channel
  // is rescinded; what is owed after a rescind still is, but nothing is sent. Does nothing the
  // second time.
  ClientActions OnPeerGone();

  // ---- From the endpoint. What a rescinded channel is owed may be done at any time, connected or
  // not. An error changes nothing. Besides those named below:
  //   kNotConnected    not connected (any more)
  //   kChannelUnknown  no such channel
  //   kChannelState    the channel's state has no place for the request
  //   kRequestPending  an earlier request has to be answered first
  //   kGpadlUnknown    no such GPADL on this channel

  // Asks for a version, the newest first, then for the offers. Ends in Connected or ConnectRefused.
  //   kAlreadyConnected  not idle
  //   kVersionUnknown    options name a version that is not in the table, or newest < oldest
  [[nodiscard]] Result<ClientActions> OnConnect(const ClientOptions& options);

  // Ends the connection and makes it anew, in the version that was agreed on. Once the server has
  // let go of everything: failures for all who wait, OfferRescinded and ChannelForgotten for every
  // channel, then Connected or ConnectRefused. Also while unloading; then there is no Unloaded.
  [[nodiscard]] Result<ClientActions> OnReconnect();

  // Leaves the bus. Once the server has let go of everything: failures for all who wait,
  // OfferRescinded for every channel, then Unloaded. In version 0.13 the server does not say when
  // that is: Unloaded comes at once, and the memory is ours only after the end of the link.
  [[nodiscard]] Result<ClientActions> OnUnload();

  struct GpadlOutcome {
    wire::GpadlId gpadl{};
    ClientActions actions;
  };
  // Describes memory of ours to the server. The memory is the server's to use until GpadlTornDown,
  // a failing GpadlResult, a rescind, or the end of the connection.
  //   kGpadlTooLarge      more than 2 GiB, or more than 8,190 pages and not in one range
  //   kGpaRangeMalformed  not a list of ranges that a server would accept
  [[nodiscard]] Result<GpadlOutcome> OnCreateGpadl(wire::ChannelId channel,
                                                   const wire::GpaRangeList& ranges,
                                                   GpadlAccess access = GpadlAccess::kReadWrite);
  // Asks for memory back. On a rescinded channel that is done at once.
  //   kGpadlState  being torn down already, or the ring of an open channel
  [[nodiscard]] Result<ClientActions> OnTeardownGpadl(wire::ChannelId channel, wire::GpadlId gpadl);

  //   kGpadlState  the ring is not created yet, or being torn down
  [[nodiscard]] Result<ClientActions> OnOpen(wire::ChannelId channel, const OpenRequest& request);
  // Closes an open channel. There is no answer: the barrier is the teardown of the ring's GPADL.
  // A ModifyResult still to come arrives before, as a failure.
  [[nodiscard]] Result<ClientActions> OnClose(wire::ChannelId channel);
  // Has the server interrupt another processor. Below 5.3 it does not say when that is done, and
  // ModifyResult comes at once.
  //   kMessageNotInVersion  below 4.1
  //   kFieldOutOfRange      kNoInterrupt
  [[nodiscard]] Result<ClientActions> OnModify(wire::ChannelId channel,
                                               wire::ProcessorIndex target_vp);
  // Gives the id of a rescinded channel back; whatever GPADLs it has left are gone with it.
  [[nodiscard]] Result<ClientActions> OnReleaseChannel(wire::ChannelId channel);

  // Asks for an hvsock channel: an offer with these two ids, TlConnectFailed, or nothing.
  //   kMessageNotInVersion  below 4.0
  [[nodiscard]] Result<ClientActions> OnTlConnect(const wire::Guid& endpoint_id,
                                                  const wire::Guid& service_id,
                                                  const std::optional<wire::Guid>& silo_id);

  // ---- What can be seen.

  // Without version unless connected.
  wire::Agreed agreed() const;
  bool broken() const;
  // Every record that refers to another one fits it. Costs a walk over everything; tests call it
  // after each step.
  void CheckInvariants() const;

  friend bool operator==(const Client&, const Client&) = default;

 private:
  friend class ClientTestPeer;
  class Event;  // one call of an On... function, with the actions it collects: client_event.h

  ClientOptions options_;
  client::ConnectionState connection_;
  std::map<wire::ChannelId, client::Channel> channels_;
  std::map<wire::GpadlId, wire::ChannelId> gpadl_owners_;  // GPADL_TORNDOWN names no channel
  std::uint32_t next_gpadl_ = 1;
  std::uint32_t next_open_ = 1;
  std::uint32_t refusals_ = 0;
};

}  // namespace kmcl::bus
