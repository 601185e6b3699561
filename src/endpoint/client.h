// The client's end of a bus: one connection, the offers it received, the channels bound to them, and the
// threads.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bus/client.h"
#include "endpoint/bus_thread.h"
#include "endpoint/client_channel.h"
#include "endpoint/dispatcher.h"
#include "endpoint/message_port.h"
#include "endpoint/passive_pool.h"
#include "mutex.h"
#include "result.h"
#include "transport/link.h"

namespace kmcl::endpoint {

struct ClientOptions {
  std::string address;
  std::uint32_t dispatch_threads = 1;
  std::uint32_t spin_us = kSpinAdaptive;
  std::vector<std::uint32_t> processors;  // the only one of each dispatch thread; empty: any
  std::uint64_t maximum_memory = std::uint64_t{4} << 30;
  wire::Version newest = wire::Version::kCopper;
  // For a version and the offers, from a server that has taken the connection and neither answers nor
  // dies.
  std::chrono::milliseconds connect_time{10'000};
};

struct OfferView {
  bus::Offer offer;
  bool in_use = false;
};

class Client {
 public:
  // Returns once all offers that stand have arrived. kAddressMalformed, kAddressUnreachable,
  // kPermissionDenied, kHandshakeRefused, kPeerGone, kNotConnected (no answer for connect_time),
  // kVersionRefused, kOutOfMemory, kOutOfDescriptors.
  [[nodiscard]] static Result<std::unique_ptr<Client>> Connect(const ClientOptions& options);
  // Disables channels that are left over, leaves the bus. Not from a callback.
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  std::shared_ptr<ClientChannel> MakeChannel(channel::Handler& handler);
  // By channel id.
  std::vector<OfferView> Offers();
  bool is_connected() const { return connected_.load(std::memory_order_relaxed); }
  // Any thread; as long as the client.
  const std::shared_ptr<transport::ClientLink>& link() const { return link_; }
  std::uint32_t version() const { return version_.load(std::memory_order_relaxed); }

  // For its channels; any thread but the bus thread.
  [[nodiscard]] Result<void> Add(const std::shared_ptr<ClientChannel>& channel);
  void SayOpened(ClientChannel& channel);
  void SayClose(ClientChannel& channel);
  // Takes the channel off the bus, however far it is; ClientChannel::SetOffBus says when that is done.
  void Release(ClientChannel& channel);
  // For GPADLs of a channel's driver (client_gpadls.cc); the channel waits for what comes of it.
  [[nodiscard]] Result<wire::GpadlId> Describe(ClientChannel& channel,
                                               const wire::GpaRangeList& ranges,
                                               bus::GpadlAccess access);
  [[nodiscard]] Result<void> TakeBack(ClientChannel& channel, wire::GpadlId gpadl);
  // Whether the channel stands as it did when it was opened.
  bool IsOpen(ClientChannel& channel);
  std::optional<wire::PageNumber> PageOf(const void* address) const {
    return link_->PageOf(address);
  }
  // The primary leaves: closes its sub-channels that are bound, and binds no others.
  void CloseSubchannels(ClientChannel& primary);
  // In units of 100 ns: how late the server may notice what the channel sends; 0: it is rung. Gives the
  // value before; kChannelState: not open.
  [[nodiscard]] Result<std::uint16_t> SetLatency(ClientChannel& channel, std::uint16_t latency);
  // Asks for a channel by name (hvsock); any thread. kMessageNotInVersion: below 4.0;
  // kNotConnected.
  [[nodiscard]] Result<void> RequestConnect(const wire::Guid& endpoint, const wire::Guid& service,
                                            const wire::Guid& silo);
  // Who hears of refusals, on the bus thread; the one before has heard its last when this returns.
  using RefusedHandler = std::function<void(const bus::client::TlConnectFailed&)>;
  void SetRefusedHandler(RefusedHandler handler);
  // Dispatch threads, and so processors that the server may interrupt.
  std::uint32_t processor_count() const { return options_.dispatch_threads; }

 private:
  struct StandingOffer {
    bus::Offer offer;
    std::shared_ptr<ClientChannel> bound;
    bool rescinded = false;
  };

  explicit Client(const ClientOptions& options) : options_(options) {}
  [[nodiscard]] Result<void> Start();
  // Where the pages for monitors are, parent to child first.
  [[nodiscard]] Result<wire::PageNumber> MakeMonitorPages();
  [[nodiscard]] Result<void> AwaitOffers() KMCL_EXCLUDES(mutex_);
  void Leave();
  void DisableLeftovers();

  void OnGone();
  void Apply(const bus::ClientActions& actions);
  void Do(bus::client::SendMessage& action);
  void Do(bus::client::Connected& action);
  void Do(bus::client::ConnectRefused& action);
  void Do(bus::client::OfferArrived& action);
  void Do(bus::client::OffersDelivered& action);
  void Do(bus::client::OfferRescinded& action);
  void Do(bus::client::ChannelForgotten& action);
  void Do(bus::client::OpenResult& action);
  void Do(bus::client::GpadlResult& action);
  void Do(bus::client::GpadlTornDown& action);
  void Do(bus::client::ModifyResult& action);
  void Do(bus::client::TlConnectFailed& action);
  void Do(bus::client::Unloaded& action);
  void Do(bus::Refused& action);
  void Do(bus::Broken& action);

  ClientChannel* BoundTo(wire::ChannelId id);
  void BindWaiting();
  // The free offer that the channel wants, or the end.
  std::map<wire::ChannelId, StandingOffer>::iterator FindOffer(const ClientChannel& channel);
  static bool IsPrimaryLeaving(const ClientChannel& channel);
  void Bind(StandingOffer& offer, const std::shared_ptr<ClientChannel>& channel);
  [[nodiscard]] Result<void> DescribeRings(ClientChannel& channel);
  [[nodiscard]] Result<void> OpenChannel(ClientChannel& channel);
  // The open came to nothing; `error` says why.
  void FailOpen(ClientChannel& channel, Error error);
  void Continue(ClientChannel& channel);
  void TearDown(ClientChannel& channel);
  bool HasOpen(const ClientChannel& channel) const;
  void OnDriverGpadlResult(ClientChannel& channel, const bus::client::GpadlResult& result);
  // What the driver has left is taken back; the actions are added to `actions`.
  void TakeBackLeftovers(ClientChannel& channel, bus::ClientActions& actions);
  // Leaves the offer, once nothing that was described is left.
  void UnbindIfDone(ClientChannel& channel);
  // The ring memory is ours again.
  void Unbind(ClientChannel& channel);
  void SettleConnect(Result<void> result) KMCL_EXCLUDES(mutex_);

  const ClientOptions options_;
  std::shared_ptr<transport::ClientLink> link_;
  std::unique_ptr<BusThread> bus_;
  std::unique_ptr<PassivePool> pool_;
  std::vector<std::unique_ptr<Dispatcher>> dispatchers_;
  std::shared_ptr<MonitorPage> monitor_page_;
  std::atomic<bool> connected_{false};
  std::atomic<std::uint32_t> version_{0};

  // The bus thread's.
  std::unique_ptr<MessagePort> port_;
  bus::Client machine_;
  std::deque<bus::ClientAction> actions_;
  bool applying_ = false;
  bool gone_ = false;
  std::map<wire::ChannelId, StandingOffer> offers_;
  std::list<std::shared_ptr<ClientChannel>> waiting_;
  // Opens that failed; decided on once all actions are done, because a rescind may explain it.
  struct FailedOpen {
    std::shared_ptr<ClientChannel> channel;
    Error error{};
  };
  std::vector<FailedOpen> failed_;
  std::uint32_t next_processor_ = 0;
  RefusedHandler refused_handler_;

  Mutex mutex_;
  CondVar changed_;
  std::optional<Result<void>> connect_result_ KMCL_GUARDED_BY(mutex_);
  bool unloaded_ KMCL_GUARDED_BY(mutex_) = false;
  std::list<std::weak_ptr<ClientChannel>> made_ KMCL_GUARDED_BY(mutex_);
};

}  // namespace kmcl::endpoint
