// A server that goes on in another process: what it takes along, and how it begins there.
#include <sys/epoll.h>

#include <utility>

#include "endpoint/server.h"
#include "log.h"
#include "wire/byte_stream.h"

namespace kmcl::endpoint {
namespace {

using wire::ByteReader;
using wire::ByteWriter;

constexpr std::uint32_t kStateVersion = 1;

void Append(transport::Transfer& to, transport::Transfer part) {
  for (auto& descriptor : part.descriptors) to.descriptors.push_back(std::move(descriptor));
}

}  // namespace

void Server::Freeze() {
  bus_->Call([this] {
    frozen_ = true;
    bus_->SetEvents(listener_token_, 0);
    for (auto& [number, partition] : partitions_) partition->Freeze();
  });
}

Result<transport::Transfer> Server::Export() {
  Result<transport::Transfer> exported;
  bus_->Call([&] { exported = ExportOnBus(); });
  return exported;
}

Result<transport::Transfer> Server::ExportOnBus() {
  transport::Transfer transfer;
  ByteWriter out;
  out.Put(kStateVersion);
  out.Put(next_number_);
  auto listener = listener_->Export();
  if (!listener) return std::unexpected(listener.error());
  out.PutBlock(listener->bytes);
  out.Put(static_cast<std::uint32_t>(listener->descriptors.size()));
  Append(transfer, std::move(*listener));

  std::vector<transport::Transfer> partitions;
  for (auto& [number, partition] : partitions_) {
    if (partition->is_gone()) continue;
    if (auto done = partition->Export(partitions.emplace_back()); !done) {
      if (done.error() != Error::kPeerGone) return std::unexpected(done.error());
      partitions.pop_back();  // its end is noticed here, or there by nobody: it is over
    }
  }
  out.Put(static_cast<std::uint32_t>(partitions.size()));
  for (auto& partition : partitions) {
    out.PutBlock(partition.bytes);
    out.Put(static_cast<std::uint32_t>(partition.descriptors.size()));
    Append(transfer, std::move(partition));
  }
  transfer.bytes = out.Take();
  return transfer;
}

void Server::Resume() {
  bus_->Call([this] {
    frozen_ = false;
    for (auto& [number, partition] : partitions_) partition->Resume();
    bus_->SetEvents(listener_token_, EPOLLIN);
  });
}

void Server::Leave() {
  bus_->Call([this] {
    if (listener_token_ != 0) bus_->Unwatch(std::exchange(listener_token_, 0));
    if (listener_ != nullptr) listener_->Leave();
    listener_.reset();
    // Each leaves the map by a task of its own.
    for (auto& [number, partition] : partitions_) partition->Leave();
  });
}

Result<std::unique_ptr<Server>> Server::TakeOver(transport::Transfer transfer,
                                                 const ServerOptions& options, Events events) {
  std::unique_ptr<Server> server(new Server(options, std::move(events)));
  if (auto made = server->MakeThreads(); !made) return std::unexpected(made.error());

  std::size_t taken = 0;
  ByteReader in(transfer.bytes);
  const auto next_part = [&] {
    transport::Transfer part;
    const auto bytes = in.GetBlock();
    part.bytes.assign(bytes.begin(), bytes.end());
    const auto count = in.Get<std::uint32_t>();
    if (count > transfer.descriptors.size() - taken) in.Fail();
    for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
      part.descriptors.push_back(std::move(transfer.descriptors[taken++]));
    }
    return part;
  };
  if (in.Get<std::uint32_t>() != kStateVersion) {
    return std::unexpected(in.ok() ? Error::kSaveVersion : Error::kSaveMalformed);
  }
  server->next_number_ = in.Get<std::uint64_t>();
  auto listener = transport::ImportListener(next_part());
  if (!listener) return std::unexpected(listener.error());
  server->listener_ = std::move(*listener);
  server->listener_->Leave();  // until it is ours

  const auto partition_count = in.Get<std::uint32_t>();
  Result<void> imported;
  for (std::uint32_t i = 0; i < partition_count && in.ok() && imported; ++i) {
    auto partition = Partition::Import(*server->bus_, next_part(), server->Limits(),
                                       server->PartitionEvents());
    if (!partition) {
      imported = std::unexpected(partition.error());
      break;
    }
    const std::uint64_t number = (*partition)->number();
    if (number >= server->next_number_ || server->partitions_.contains(number)) in.Fail();
    server->partitions_[number] = std::move(*partition);
  }
  if (imported && !in.AtEnd()) imported = std::unexpected(Error::kSaveMalformed);
  if (!imported) {
    server->partitions_.clear();
    return std::unexpected(imported.error());
  }
  {
    MutexLock lock(server->mutex_);
    server->present_ = static_cast<std::uint32_t>(server->partitions_.size());
  }
  server->events_.on_created(*server);
  return server;
}

std::vector<std::shared_ptr<Partition>> Server::Partitions() {
  std::vector<std::shared_ptr<Partition>> partitions;
  bus_->Call([&] {
    for (auto& [number, partition] : partitions_) partitions.push_back(partition);
  });
  return partitions;
}

void Server::Begin() {
  bus_->Call([this] {
    listener_->Own();
    for (auto& [number, partition] : partitions_) {
      if (!partition->Begin(dispatchers_)) partition->End("the server is out of memory");
    }
    auto token = bus_->Watch(listener_->fd(), EPOLLIN, [this](std::uint32_t) { OnConnect(); });
    if (token) {
      listener_token_ = *token;
    } else {
      Log(LogLevel::kError, "out of memory: no further clients can connect");
    }
  });
}

}  // namespace kmcl::endpoint
