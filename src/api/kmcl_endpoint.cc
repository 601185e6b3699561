// Endpoints for programs (kmcl/endpoint.h).

#include <kmcl/endpoint.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <utility>

#include "api/objects.h"
#include "api/server_object.h"
#include "api/status_map.h"
#include "api/verifier.h"
#include "log.h"
#include "mutex.h"
#include "wire/version.h"

using namespace kmcl;
using namespace kmcl::api;

struct KMCL_CLIENT_OBJECT {
  DEVICE_OBJECT device{};
  DeviceBinding binding;
  std::unique_ptr<endpoint::Client> client;
};

namespace kmcl::api {
namespace {

bool MayDestroy(const DeviceBinding& binding, const char* function, const void* caller) {
  if (KMCL_VERIFIER_ON && !verifier::MayDestroy(binding, function, caller)) return false;
  return !IsForbiddenInCallback(function);
}

// The address, or KMCL_BUS; empty when there is neither.
std::string AddressOf(const char* address) {
  if (address == nullptr) address = std::getenv("KMCL_BUS");
  return address == nullptr ? std::string() : std::string(address);
}

NTSTATUS CreateServer(const std::string& address, const KMCL_ENDPOINT_OPTIONS& options,
                      KMCL_SERVER* server) {
  auto object = std::make_unique<KMCL_SERVER_OBJECT>();
  object->options = options;
  // Clients may arrive before Create returns: the object is whole by then, but for `server`.
  auto created = endpoint::Server::Create(ServerOptionsOf(options, address), EventsOf(*object));
  if (!created) return StatusOf(created.error());
  object->server = std::move(*created);
  *server = object.release();
  return STATUS_SUCCESS;
}

NTSTATUS ConnectClient(const std::string& address, const KMCL_ENDPOINT_OPTIONS& options,
                       KMCL_CLIENT* client) {
  auto object = std::make_unique<KMCL_CLIENT_OBJECT>();
  auto connected = endpoint::Client::Connect(
      {.address = address,
       .dispatch_threads = options.DispatchThreads,
       .spin_us = options.SpinMicroseconds,
       .processors = ProcessorsOf(options),
       .maximum_memory = options.MaximumDonatedMemory,
       .newest = options.MaximumVersion == 0 ? wire::kVersionsNewestFirst.front()
                                             : wire::Version{options.MaximumVersion}});
  if (!connected) return StatusOf(connected.error());
  object->client = std::move(*connected);
  object->binding.client = object->client.get();
  InitDevice(object->device, object->binding);
  *client = object.release();
  return STATUS_SUCCESS;
}

}  // namespace
}  // namespace kmcl::api

VOID KmclEndpointOptionsInit(PKMCL_ENDPOINT_OPTIONS Options) {
  *Options = {};
  Options->Size = sizeof *Options;
  Options->DispatchThreads = 1;
  Options->SpinMicroseconds = KMCL_SPIN_ADAPTIVE;
  Options->MaximumPartitions = 1024;
  Options->MaximumPartitionMemory = UINT64{4} << 30;
  Options->MaximumDonatedMemory = UINT64{4} << 30;
}

NTSTATUS KmclServerCreate(const char* Address, const KMCL_ENDPOINT_OPTIONS* Options,
                          KMCL_SERVER* Server) {
  if (Server != nullptr) *Server = nullptr;
  try {
    const std::string address = AddressOf(Address);
    if (address.empty()) return STATUS_INVALID_PARAMETER_1;
    KMCL_ENDPOINT_OPTIONS options;
    if (!TakeOptions(Options, options)) return STATUS_INVALID_PARAMETER_2;
    if (Server == nullptr) return STATUS_INVALID_PARAMETER_3;
    return CreateServer(address, options, Server);
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

VOID KmclServerDestroy(KMCL_SERVER Server) {
  if (Server == nullptr || !MayDestroy(Server->binding, "KmclServerDestroy", KMCL_CALLER)) return;
  CheckInterfaceReferences(Server->binding);
  delete Server;
}

PDEVICE_OBJECT KmclServerDeviceObject(KMCL_SERVER Server) {
  return Server == nullptr ? nullptr : &Server->device;
}

NTSTATUS KmclPartitionQuery(HANDLE Partition, PKMCL_PARTITION_INFORMATION Information) {
  const auto partition = FindPartition(Partition);
  if (partition == nullptr) return STATUS_INVALID_HANDLE;
  if (Information == nullptr) return STATUS_INVALID_PARAMETER_2;
  const auto peer = partition->peer();
  *Information = {.ProcessId = static_cast<UINT32>(peer.pid),
                  .UserId = peer.uid,
                  .GroupId = peer.gid,
                  .Version = partition->version(),
                  .Number = partition->number()};
  return STATUS_SUCCESS;
}

NTSTATUS KmclClientConnect(const char* Address, const KMCL_ENDPOINT_OPTIONS* Options,
                           KMCL_CLIENT* Client) {
  if (Client != nullptr) *Client = nullptr;
  try {
    const std::string address = AddressOf(Address);
    if (address.empty()) return STATUS_INVALID_PARAMETER_1;
    KMCL_ENDPOINT_OPTIONS options;
    if (!TakeOptions(Options, options)) return STATUS_INVALID_PARAMETER_2;
    if (Client == nullptr) return STATUS_INVALID_PARAMETER_3;
    return ConnectClient(address, options, Client);
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

VOID KmclClientDestroy(KMCL_CLIENT Client) {
  if (Client == nullptr || !MayDestroy(Client->binding, "KmclClientDestroy", KMCL_CALLER)) return;
  CheckInterfaceReferences(Client->binding);
  delete Client;
}

PDEVICE_OBJECT KmclClientDeviceObject(KMCL_CLIENT Client) {
  return Client == nullptr ? nullptr : &Client->device;
}

BOOLEAN KmclClientIsConnected(KMCL_CLIENT Client) {
  return Client != nullptr && Client->client->is_connected() ? TRUE : FALSE;
}

ULONG KmclClientVersion(KMCL_CLIENT Client) {
  return Client == nullptr ? 0 : Client->client->version();
}

NTSTATUS KmclClientQueryOffers(KMCL_CLIENT Client, PKMCL_OFFER Offers, ULONG Capacity,
                               PULONG Count) {
  if (Client == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Offers == nullptr && Capacity != 0) return STATUS_INVALID_PARAMETER_2;
  if (Count == nullptr) return STATUS_INVALID_PARAMETER_4;
  try {
    const auto standing = Client->client->Offers();
    *Count = static_cast<ULONG>(standing.size());
    for (ULONG i = 0; i < standing.size() && i < Capacity; ++i) {
      const bus::Offer& offer = standing[i].offer;
      Offers[i] = {.InterfaceType = ToC(offer.parameters.key.interface_type),
                   .InterfaceInstance = ToC(offer.parameters.key.instance),
                   .ChannelId = static_cast<UINT32>(offer.channel),
                   .SubChannelIndex = offer.parameters.key.subchannel_index,
                   .Flags = offer.parameters.flags,
                   .MmioMegabytes = offer.parameters.mmio_megabytes,
                   .MmioMegabytesOptional = offer.parameters.mmio_megabytes_optional,
                   .InUse = standing[i].in_use ? BOOLEAN{TRUE} : BOOLEAN{FALSE}};
    }
    return *Count > Capacity ? STATUS_BUFFER_TOO_SMALL : STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

NTSTATUS KmclChannelQueryCounters(VMBCHANNEL Channel, PKMCL_CHANNEL_COUNTERS Counters) {
  if (Channel == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Counters == nullptr || Counters->Size != sizeof *Counters) return STATUS_INVALID_PARAMETER_2;
  const channel::Counters counters = ChannelObject::From(Channel).engine().counters();
  const auto& sender = counters.sender;
  const auto& receiver = counters.receiver;
  *Counters = {.Size = sizeof *Counters,
               .Reserved = 0,
               .PacketsSent = sender.packets,
               .BytesSent = sender.bytes,
               .CompletionsSent = sender.completions,
               .PacketsReceived = receiver.packets,
               .BytesReceived = receiver.bytes,
               .CompletionsReceived = receiver.completions,
               .CompletionsUnexpected = sender.unexpected_completions,
               .Batches = receiver.batches,
               .BellsRung = counters.bells_rung,
               .BellsReceived = receiver.bells,
               .RingFull = sender.ring_full,
               .TransactionsStarted = sender.transactions_started,
               .TransactionsCompleted = sender.transactions_completed,
               .TransactionsCancelled = sender.transactions_cancelled,
               .Outstanding = receiver.outstanding,
               .Queued = sender.queued,
               .Publications = sender.publications};
  return STATUS_SUCCESS;
}
