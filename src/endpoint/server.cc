#include "endpoint/server.h"

#include <sys/epoll.h>

#include <chrono>
#include <utility>

#include "log.h"
#include "wire/ids.h"

namespace kmcl::endpoint {
namespace {

// Clients that have connected but not shaken hands. Beyond that the oldest one makes room: whoever
// connects and stays silent cannot keep others out.
constexpr std::size_t kMostSilentClients = 64;
// After a client could not be accepted.
constexpr std::chrono::milliseconds kAcceptAgain{100};

}  // namespace

bus::ServerLimits Server::Limits() const {
  bus::ServerLimits limits;
  limits.gpadl_pages = options_.maximum_partition_memory / wire::kPageBytes;
  limits.refusals = options_.maximum_refusals;
  limits.monitors = options_.monitors;
  limits.newest = options_.newest;
  limits.oldest = options_.oldest;
  return limits;
}

Partition::Events Server::PartitionEvents() {
  return {.on_ready = [this](Partition& each) { OnPartitionReady(each); },
          .on_arrived = [this](Partition& each) { events_.on_arrived(each.shared_from_this()); },
          .on_finished = [this](Partition& each) { OnPartitionFinished(each); }};
}

Result<void> Server::MakeThreads() {
  auto pool = PassivePool::Create();
  if (!pool) return std::unexpected(pool.error());
  pool_ = std::move(*pool);
  for (std::uint32_t i = 0; i < options_.dispatch_threads; ++i) {
    auto dispatcher = Dispatcher::Create(OptionsOf(options_, i));
    if (!dispatcher) return std::unexpected(dispatcher.error());
    dispatchers_.push_back(std::move(*dispatcher));
  }
  auto bus = BusThread::Create();
  if (!bus) return std::unexpected(bus.error());
  bus_ = std::move(*bus);
  return {};
}

Result<std::unique_ptr<Server>> Server::Create(const ServerOptions& options, Events events) {
  auto listener = transport::Listen(options.address);
  if (!listener) return std::unexpected(listener.error());
  return Create(std::move(*listener), options, std::move(events));
}

Result<std::unique_ptr<Server>> Server::Create(std::unique_ptr<transport::Listener> listener,
                                               const ServerOptions& options, Events events) {
  std::unique_ptr<Server> server(new Server(options, std::move(events)));
  server->listener_ = std::move(listener);

  if (auto made = server->MakeThreads(); !made) return std::unexpected(made.error());

  server->events_.on_created(*server);
  Result<BusThread::Token> token;
  server->bus_->Call([&] {
    token = server->bus_->Watch(server->listener_->fd(), EPOLLIN,
                                [raw = server.get()](std::uint32_t) { raw->OnConnect(); });
    if (token) server->listener_token_ = *token;
  });
  if (!token) return std::unexpected(token.error());
  return server;
}

Server::~Server() {
  if (bus_ != nullptr) {
    bus_->Call([this] {
      bus_->Unwatch(listener_token_);
      listener_.reset();
      // Ending one may finish it, but it leaves the map by a task of its own.
      for (auto& [number, partition] : partitions_) partition->End("the server is going away");
    });
    {
      MutexLock lock(mutex_);
      while (present_ > 0) changed_.Wait(mutex_);
    }
    DisableLeftovers();
  }
  // Work that was asked for ends before the threads it uses: turns first, then the bus.
  pool_.reset();
  dispatchers_.clear();
  bus_.reset();
}

std::shared_ptr<ServerChannel> Server::MakeChannel(channel::Handler& handler) {
  auto channel = std::make_shared<ServerChannel>(handler, *pool_);
  MutexLock lock(mutex_);
  made_.remove_if([](const std::weak_ptr<ServerChannel>& each) { return each.expired(); });
  made_.push_back(channel);
  return channel;
}

void Server::DisableLeftovers() {
  std::list<std::weak_ptr<ServerChannel>> made;
  {
    MutexLock lock(mutex_);
    made.swap(made_);
  }
  for (const auto& each : made) {
    const auto channel = each.lock();
    if (channel == nullptr || channel->is_retired()) continue;
    Log(LogLevel::kError, "a server is destroyed before one of its channels was cleaned up");
    channel->engine().Disable();
    channel->Orphan();
  }
}

// ---- On the bus thread.

bool Server::MakeRoom() {
  std::size_t silent = 0;
  Partition* oldest_silent = nullptr;
  for (auto& [number, partition] : partitions_) {
    if (partition->is_ready()) continue;
    if (silent++ == 0) oldest_silent = partition.get();
  }
  if (silent >= kMostSilentClients) {
    Log(LogLevel::kWarning, "client %llu connected and says nothing: it makes room for others",
        static_cast<unsigned long long>(oldest_silent->number()));
    oldest_silent->End("too many clients are connecting");
  }
  return partitions_.size() - silent < options_.maximum_partitions;
}

void Server::OnConnect() {
  if (frozen_) return;  // the event was on its way when the handover began; the client waits
  // Without descriptors for a new client the listener refuses it by itself, or says so; then the
  // client waits.
  auto link = listener_->Accept();
  if (!link) {
    const auto count = link.error() == Error::kWouldBlock ? std::nullopt : unaccepted_.Count();
    if (count) {
      Log(LogLevel::kError, "cannot accept a client: %s; %llu times by now",
          ErrorName(link.error()), static_cast<unsigned long long>(*count));
    }
    return ListenLater();
  }
  if (*link == nullptr) return;
  if (!MakeRoom()) {
    Log(LogLevel::kWarning, "client of pid %d refused: all %u partitions are in use",
        static_cast<int>((*link)->peer().pid), options_.maximum_partitions);
    (*link)->Refuse("the server has as many clients as it may have");
    return;
  }
  const std::uint64_t number = next_number_++;
  auto partition = std::make_shared<Partition>(
      *bus_, std::shared_ptr<transport::Link>(std::move(*link)), number, Limits(),
      PartitionEvents());
  partitions_[number] = partition;
  {
    MutexLock lock(mutex_);
    ++present_;
  }
  if (!partition->Open(dispatchers_)) partition->End("the server is out of memory");
}

// A client that cannot be accepted keeps the socket readable, and the thread would never sleep.
// Nothing tells when there are descriptors again, ours or the system's: so the thread looks, and
// seldom.
void Server::ListenLater() {
  bus_->SetEvents(listener_token_, 0);
  if (std::exchange(listens_later_, true)) return;
  bus_->PostLater(kAcceptAgain, [this] {
    listens_later_ = false;
    if (listener_ != nullptr && !frozen_) bus_->SetEvents(listener_token_, EPOLLIN);
  });
}

void Server::OnPartitionReady(Partition& partition) {
  // Others may have become ready while this one was silent; MakeRoom counted neither.
  std::size_t ready = 0;
  for (const auto& [number, each] : partitions_) ready += each->is_ready() ? 1 : 0;
  if (ready > options_.maximum_partitions) {
    Log(LogLevel::kWarning, "client of pid %d refused: all %u partitions are in use",
        static_cast<int>(partition.peer().pid), options_.maximum_partitions);
    return partition.End("the server has as many clients as it may have");
  }
  Log(LogLevel::kInfo, "partition %llu: pid %d, uid %u",
      static_cast<unsigned long long>(partition.number()), static_cast<int>(partition.peer().pid),
      partition.peer().uid);
}

void Server::OnPartitionFinished(Partition& partition) {
  auto kept = partition.shared_from_this();
  partitions_.erase(partition.number());
  if (listener_ != nullptr && !frozen_) bus_->SetEvents(listener_token_, EPOLLIN);

  const auto told = [this] {
    MutexLock lock(mutex_);
    --present_;
    changed_.NotifyAll();
  };
  if (!kept->has_arrived()) return told();
  auto farewell = std::make_shared<Farewell>(*pool_, [this, kept, told] {
    events_.on_gone(kept);
    told();
  });
  farewell->strand.Request(farewell);
}

}  // namespace kmcl::endpoint
