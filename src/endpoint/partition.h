// One client as its server sees it: its link, its bus machine, and the channels offered to it. Nothing of
// one partition is reachable from another.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>

#include "bus/server.h"
#include "bus/server_snapshot.h"
#include "endpoint/bus_thread.h"
#include "endpoint/connect_gate.h"
#include "endpoint/dispatcher.h"
#include "endpoint/message_port.h"
#include "endpoint/partition_pages.h"
#include "endpoint/server_channel.h"
#include "endpoint/server_gpadls.h"
#include "log_limit.h"
#include "result.h"
#include "transport/link.h"
#include "transport/transfer.h"

namespace kmcl::endpoint {

// Everything but number(), peer(), version() and pages() belongs to the bus thread.
class Partition : public std::enable_shared_from_this<Partition> {
 public:
  // What the server that owns the partition wants to know.
  struct Events {
    std::function<void(Partition&)> on_ready;     // the handshake is done
    std::function<void(Partition&)> on_arrived;   // a version was agreed on, for the first time
    std::function<void(Partition&)> on_finished;  // gone, and every channel has let go of it; last
  };

  Partition(BusThread& bus, std::shared_ptr<transport::Link> link, std::uint64_t number,
            const bus::ServerLimits& limits, Events events);

  std::uint64_t number() const { return number_; }
  transport::PeerIdentity peer() const { return peer_; }
  // major << 16 | minor; 0 before one was agreed on.
  std::uint32_t version() const { return version_.load(std::memory_order_relaxed); }
  BusThread& bus() { return bus_; }
  // What the MDLs over this client's memory are made with. Any thread.
  PartitionPages& pages() { return pages_; }

  // Starts to listen. Inboxes are spread over `dispatchers`, which outlive the partition's channels.
  [[nodiscard]] Result<void> Open(std::span<const std::unique_ptr<Dispatcher>> dispatchers);
  // Ends the connection, for a reason that the client may read if it has not been served yet.
  void End(const char* reason);
  bool is_ready() const { return ready_; }
  bool is_gone() const { return gone_; }
  bool has_arrived() const { return version() != 0; }

  // For its channels.
  [[nodiscard]] Result<void> Offer(const std::shared_ptr<ServerChannel>& channel);
  void CarryOut(ServerChannel& channel, channel::BusRequest request);
  void OnRestored(ServerChannel& channel);
  void OnReleased(const ServerGpadls::Released& gpadl);

  // Who is asked when the client wants a channel by name (hvsock). False: it is refused. Without a
  // handler everything is.
  using ConnectHandler = std::function<bool(const bus::server::TlConnect&)>;
  void SetConnectHandler(ConnectHandler handler) { connect_handler_ = std::move(handler); }
  // kNotConnected: the client has left, or connects anew.
  [[nodiscard]] Result<void> RefuseConnect(const wire::Guid& endpoint, const wire::Guid& service);

  // Handing over (partition_handover.cc). Export: kChannelState when a channel was not saved, and the
  // errors of transport::Link::Export; Resume follows then too.
  void Freeze();
  [[nodiscard]] Result<void> Export(transport::Transfer& transfer);
  void Resume();
  void Leave();
  // kSaveMalformed, kSaveVersion, and the errors of transport::ImportLink.
  [[nodiscard]] static Result<std::shared_ptr<Partition>> Import(BusThread& bus,
                                                                 transport::Transfer transfer,
                                                                 const bus::ServerLimits& limits,
                                                                 Events events);
  // kOutOfMemory; then it ends.
  [[nodiscard]] Result<void> Begin(std::span<const std::unique_ptr<Dispatcher>> dispatchers);

 private:
  struct OfferedChannel {
    // Null while the offer is vacant: its channel was saved and disabled, and its successor has not
    // come yet (partition_succession.cc). The client does not notice.
    std::shared_ptr<ServerChannel> channel;
    bus::OfferKey key;
    std::shared_ptr<ServerGpadls> gpadls = std::make_shared<ServerGpadls>();
    // The rings that the client has open, as it opened them.
    struct Rings {
      wire::GpadlId gpadl{};
      std::uint32_t downstream_page = 0;
      wire::ProcessorIndex target_vp{};
    };
    std::optional<Rings> rings;
    // An open that came while the offer was vacant, and waits.
    std::optional<bus::server::OpenChannel> waiting_open;

    // A channel uses the client's rings, and answers for them.
    bool IsAttended() const { return channel != nullptr && channel->ring_gpadl_.has_value(); }
  };

  void OnReady();
  void OnMessage(std::span<const std::byte> message);
  void OnGone();
  void Apply(bus::ServerActions actions);
  void Apply(Result<bus::ServerActions> actions);
  OfferedChannel* Find(wire::ChannelId id);
  template <typename Function>
  void ForEachInbox(Function function) {
    if (!ready_) return;
    // One that was imported and has not begun uses none.
    if (dispatchers_.empty()) return;
    for (std::uint32_t index = 0; index < link_->bell_count(); ++index) {
      function(*dispatchers_[(number_ + index) % dispatchers_.size()], index);
    }
  }

  // One for each action of the machine.
  void Do(bus::server::SendMessage& action);
  void Do(bus::server::VersionAgreed& action);
  void Do(bus::server::ConnectionReset& action);
  void Do(bus::server::OpenChannel& action);
  void Do(bus::server::CloseChannel& action);
  void Do(bus::server::GpadlComplete& action);
  void Do(bus::server::ReleaseGpadl& action);
  void Do(bus::server::ModifyChannel& action);
  void Do(bus::server::ChannelReleased& action);
  void Do(bus::server::TlConnect& action);
  void Do(bus::server::Finished& action);
  void Do(bus::Refused& action);
  void Do(bus::Broken& action);

  Result<void> TryOpen(const bus::server::OpenChannel& open);
  enum class Attachment : std::uint8_t { kOpen, kRestored };
  Result<void> Attach(wire::ChannelId id, OfferedChannel& offered,
                      const OfferedChannel::Rings& rings, Attachment attachment);

  // Succession: offers whose channel was saved, and the channels that follow (partition_succession.cc).
  std::optional<wire::ChannelId> FindVacant(const bus::OfferKey& key) const;
  void Occupy(wire::ChannelId id, const std::shared_ptr<ServerChannel>& channel);
  void Vacate(ServerChannel& channel);
  void LetGo(ServerChannel& channel, channel::BusRequest request);
  void Reattach(wire::ChannelId id);
  void Renew(wire::ChannelId id);
  void CloseUnattended(wire::ChannelId id, OfferedChannel& offered);
  void RefuseWaitingOpens();
  // The ring, if the client has asked for it meanwhile: to be given back once the machine knows
  // that the channel does not use it.
  [[nodiscard]] std::optional<wire::GpadlId> Detached(ServerChannel& channel);
  void GiveBack(wire::ChannelId id, wire::GpadlId ring);
  // What the driver has left mapped when the channel was closed.
  void EndMappings(ServerChannel& channel);
  Monitor MonitorFor(wire::ChannelId id);

  BusThread& bus_;
  const std::uint64_t number_;
  const transport::PeerIdentity peer_;
  const Events events_;
  std::atomic<std::uint32_t> version_{0};

  PartitionPages pages_;
  std::shared_ptr<transport::Link> link_;
  MessagePort port_;
  std::span<const std::unique_ptr<Dispatcher>> dispatchers_;
  bus::Server machine_;
  const MonitorPace monitor_pace_;
  std::shared_ptr<MonitorPage> monitor_page_;  // from the first open on
  std::uint64_t monitor_address_ = 0;
  std::map<wire::ChannelId, OfferedChannel> channels_;
  std::deque<bus::ServerAction> actions_;  // still to be carried out
  bool applying_ = false;
  bool ready_ = false;
  bool gone_ = false;
  std::vector<ServerGpadls::Released> released_;  // while exported or holding, to be told later
  bool exported_ = false;  // another process may serve this client already
  bool holding_ = false;   // imported, and not ours yet
  LogLimit refused_;
  LogLimit refused_opens_;
  LogLimit refused_gpadls_;
  LogLimit resets_;
  LogLimit refused_connects_;
  ConnectHandler connect_handler_;
  ConnectGate connect_gate_;
};

}  // namespace kmcl::endpoint
