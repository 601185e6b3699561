// The server's end of the control protocol, for one client: message or local event in, actions out.
//
// A plain value: no thread, no clock, no I/O, no pointers to the outside. It may be copied and
// compared. It belongs to the endpoint's bus thread. The client is taken to be hostile: whatever it
// sends, the answer is the protocol's refusal, a dropped message, or the end of this one connection
// (Broken). docs/bus-protocol.md has the states, and the answer to every message in every state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <source_location>
#include <span>

#include "bus/offer.h"
#include "bus/server_actions.h"
#include "bus/server_state.h"
#include "result.h"
#include "wire/ids.h"
#include "wire/monitor_page.h"
#include "wire/version.h"

namespace kmcl::bus {

// The monitor of a channel, where there are monitors: the first channels have one.
constexpr std::optional<std::uint8_t> MonitorOf(wire::ChannelId channel) {
  const auto number = static_cast<std::uint32_t>(channel);
  if (number < 1 || number > wire::kMonitorCount) return std::nullopt;
  return static_cast<std::uint8_t>(number - 1);
}

enum class Monitors : std::uint8_t {
  kNone,
  // Channels whose offer asks for one (wire::kOfferRequestMonitoredNotification), for clients that
  // do not say how soon their bits are to be looked at.
  kAsked,
  kAll,  // for clients that do
};

// What one client may have. Exceeding a limit is answered with the protocol's failure.
struct ServerLimits {
  std::uint32_t channels = wire::kMaximumChannelId;  // offers at a time, revoked ones included
  std::uint32_t gpadls_per_channel = 1024;
  std::uint32_t gpadls = 32'768;  // of all channels; bounds our records of them
  // Of all channels; 4 GiB. Counted from the header on, so that lists which are still arriving hold
  // no more of ours than 16 bytes for each.
  std::uint64_t gpadl_pages = 1u << 20;
  std::uint32_t incomplete_gpadls = 64;  // of all channels
  wire::Version newest = wire::Version::kCopper;
  wire::Version oldest = wire::Version::kV1;
  // Granted to a client that wants them. Never granted, whatever stands here: server-specified
  // monitor pages, because we have none.
  wire::FeatureFlags features = wire::Feature::kModifyConnection | wire::Feature::kClientId |
                                wire::FeatureFlags(wire::Feature::kPauseResume);
  // Which channels of clients that give the pages have monitors.
  Monitors monitors = Monitors::kNone;
  // How many messages of one connection are refused, crossings apart, before it is Broken; nothing:
  // it never is.
  std::optional<std::uint32_t> refusals = kMaximumRefusals;
  std::uint8_t vtl = 0;  // a client that names another one finds no server there

  friend bool operator==(const ServerLimits&, const ServerLimits&) = default;
};

class Server {
 public:
  explicit Server(const ServerLimits& limits);

  // ---- From the client.

  // Any bytes whatsoever.
  ServerActions OnMessage(std::span<const std::byte> bytes);

  // The link died, or the endpoint ends it. Closes and releases everything, then Finished. Nothing
  // is sent from here on. Does nothing the second time.
  ServerActions OnPeerGone();

  // ---- From the endpoint. An error changes nothing and means that the event has no place in the
  // state: kChannelUnknown, kGpadlUnknown, kChannelState, kGpadlState. An answer that a device
  // gives late, after OnRevoke, ends there; the caller may ignore it.

  struct OfferOutcome {
    wire::ChannelId channel{};
    ServerActions actions;
  };
  // Offers a channel: now, or as soon as the client has asked for offers. The id is the lowest free
  // one and stays with the offer over reconnects, until the offer is revoked and ChannelReleased.
  // A client below 2.4 is never told of ids beyond 255, nor of sub-channels. While the client still
  // holds the id of a revoked offer with the same key, it is told of the new one only afterwards.
  //   kOfferDuplicate      the key is offered already (and not revoked)
  //   kOfferWithoutPrimary a sub-channel whose primary is not offered
  //   kChannelIdsExhausted no id is free
  //   kPeerGone            after OnPeerGone or Broken
  [[nodiscard]] Result<OfferOutcome> OnOffer(const OfferParameters& parameters);

  // Withdraws an offer, in any state. The device has let go of the channel's rings and of all its
  // GPADLs before this is called, and owes nothing for it any more. The client gets its pending
  // answers, then RESCIND. ChannelReleased follows, at once or when the client gives the id back;
  // after a reset or OnPeerGone that counts as given back.
  [[nodiscard]] Result<ServerActions> OnRevoke(wire::ChannelId channel);

  // Answers OpenChannel. Status 0: open. Otherwise the client is told so, and may try again.
  [[nodiscard]] Result<ServerActions> OnOpenResult(wire::ChannelId channel, std::uint32_t status);
  // Answers CloseChannel.
  [[nodiscard]] Result<ServerActions> OnCloseDone(wire::ChannelId channel);
  // Answers GpadlComplete. Otherwise than with 0 the device keeps nothing of it.
  [[nodiscard]] Result<ServerActions> OnGpadlResult(wire::ChannelId channel, wire::GpadlId gpadl,
                                                    std::uint32_t status);
  // Answers ReleaseGpadl.
  [[nodiscard]] Result<ServerActions> OnGpadlReleased(wire::ChannelId channel, wire::GpadlId gpadl);
  // Answers ModifyChannel.
  [[nodiscard]] Result<ServerActions> OnModifyDone(wire::ChannelId channel, std::uint32_t status);
  // Answers TlConnect with a refusal. Without effect below 4.1, whose clients cannot be told.
  //   kNotConnected  no version is agreed on
  [[nodiscard]] Result<ServerActions> OnTlConnectFailed(const wire::Guid& endpoint_id,
                                                        const wire::Guid& service_id,
                                                        std::uint32_t status);

  // ---- What can be seen.

  // Without version unless connected.
  wire::Agreed agreed() const;
  // The address of the page by which the client signals; 0 without one.
  std::uint64_t monitor_page() const;
  // The monitor of a channel that is offered, if it has one.
  std::optional<std::uint8_t> monitor(wire::ChannelId channel) const;
  bool broken() const;
  // After OnPeerGone, once Finished was said.
  bool finished() const;
  // Every record that refers to another one fits it, and every count is right. Costs a walk over
  // everything; tests call it after each step.
  void CheckInvariants() const;
  // Where the first one that does not hold is asked for.
  std::optional<std::source_location> BrokenInvariant() const;

  friend bool operator==(const Server&, const Server&) = default;

 private:
  friend class ServerTestPeer;
  friend struct ServerSnapshot;
  class Event;  // one call of an On... function, with the actions it collects: server_event.h

  ServerLimits limits_;
  server::ConnectionState connection_;
  std::map<wire::ChannelId, server::Channel> channels_;
  // Which channel an incomplete GPADL belongs to: bodies do not say.
  std::map<wire::GpadlId, wire::ChannelId> incomplete_;
  std::uint64_t gpadl_pages_ = 0;  // sums over channels_
  std::uint32_t gpadl_count_ = 0;
  std::uint32_t refusals_ = 0;
};

}  // namespace kmcl::bus
