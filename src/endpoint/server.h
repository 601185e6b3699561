// The server's end of a bus: listens, makes a partition of each client, and owns the threads.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "endpoint/bus_thread.h"
#include "endpoint/dispatcher.h"
#include "endpoint/partition.h"
#include "endpoint/passive_pool.h"
#include "endpoint/server_channel.h"
#include "log_limit.h"
#include "mutex.h"
#include "result.h"
#include "transport/link.h"
#include "transport/transfer.h"
#include "wire/version.h"

namespace kmcl::endpoint {

struct ServerOptions {
  std::string address;
  std::uint32_t dispatch_threads = 1;
  std::uint32_t spin_us = kSpinAdaptive;
  std::vector<std::uint32_t> processors;  // the only one of each dispatch thread; empty: any
  std::uint32_t maximum_partitions = 1024;
  std::uint64_t maximum_partition_memory = std::uint64_t{4} << 30;
  // Refused messages after which a client is disconnected; nothing: never.
  std::optional<std::uint32_t> maximum_refusals = bus::kMaximumRefusals;
  bus::Monitors monitors = bus::Monitors::kAll;
  wire::Version newest = wire::Version::kCopper;
  wire::Version oldest = wire::Version::kV1;
};

class Server {
 public:
  struct Events {
    // Before the first client can arrive, on the creating thread.
    std::function<void(Server&)> on_created;
    // On the bus thread; offers are made from here.
    std::function<void(std::shared_ptr<Partition>)> on_arrived;
    // On a passive thread, once for each partition that arrived, after its channels were closed.
    std::function<void(std::shared_ptr<Partition>)> on_gone;
  };

  // kAddressMalformed, kAddressInUse, kPermissionDenied, kOutOfMemory, kOutOfDescriptors.
  [[nodiscard]] static Result<std::unique_ptr<Server>> Create(const ServerOptions& options,
                                                              Events events);
  // With a listener that has been made already; the options' address counts for nothing.
  [[nodiscard]] static Result<std::unique_ptr<Server>> Create(
      std::unique_ptr<transport::Listener> listener, const ServerOptions& options, Events events);
  // Disconnects every client, waits until on_gone has returned for each, disables channels that are left
  // over. Not from a callback.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  std::shared_ptr<ServerChannel> MakeChannel(channel::Handler& handler);

  // Handing over to another process (server_handover.cc), one call at a time, not on the bus thread.
  // Freeze: no client is accepted or heard from now on. Export: every channel has been saved; nothing
  // of the clients' is touched any more. Then Leave: they are another process's, and on_gone comes
  // for each; or Resume, also after a failed Export: everything goes on.
  //   kChannelState     a channel was not saved
  //   kSaveUnsupported  a local bus
  //   kOutOfDescriptors
  void Freeze();
  [[nodiscard]] Result<transport::Transfer> Export();
  void Resume();
  void Leave();
  // The other process: a server that does not serve before Begin. Its partitions' channels can be
  // made, restored and enabled meanwhile; nothing of that reaches a client. Leave gives it up.
  // kSaveMalformed, kSaveVersion, kOutOfMemory, kOutOfDescriptors, ...
  [[nodiscard]] static Result<std::unique_ptr<Server>> TakeOver(transport::Transfer transfer,
                                                                const ServerOptions& options,
                                                                Events events);
  std::vector<std::shared_ptr<Partition>> Partitions();
  void Begin();

 private:
  Server(const ServerOptions& options, Events events)
      : options_(options), events_(std::move(events)) {}

  [[nodiscard]] Result<void> MakeThreads();
  Result<transport::Transfer> ExportOnBus();
  bus::ServerLimits Limits() const;
  Partition::Events PartitionEvents();
  void OnConnect();
  void ListenLater();
  bool MakeRoom();
  void OnPartitionReady(Partition& partition);
  void OnPartitionFinished(Partition& partition);
  void DisableLeftovers();

  const ServerOptions options_;
  const Events events_;
  std::unique_ptr<BusThread> bus_;
  std::unique_ptr<PassivePool> pool_;
  std::vector<std::unique_ptr<Dispatcher>> dispatchers_;

  // The bus thread's.
  std::unique_ptr<transport::Listener> listener_;
  BusThread::Token listener_token_ = 0;
  std::map<std::uint64_t, std::shared_ptr<Partition>> partitions_;  // by number
  std::uint64_t next_number_ = 1;
  bool frozen_ = false;
  bool listens_later_ = false;
  LogLimit unaccepted_;

  // One strand for each partition that is being told about.
  struct Farewell {
    Farewell(PassivePool& pool, std::function<void()> run) : strand(pool, std::move(run)) {}
    Strand strand;
  };

  Mutex mutex_;
  CondVar changed_;
  std::uint32_t present_ KMCL_GUARDED_BY(mutex_) = 0;  // partitions whose end was not told yet
  std::list<std::weak_ptr<ServerChannel>> made_ KMCL_GUARDED_BY(mutex_);
};

}  // namespace kmcl::endpoint
