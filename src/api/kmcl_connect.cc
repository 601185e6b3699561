// Channels that a client asks for by name (kmcl/connect.h).

#include <kmcl/connect.h>

#include <algorithm>
#include <new>
#include <utility>

#include "api/init_window.h"
#include "api/objects.h"
#include "api/status_map.h"
#include "wire/pipe.h"

using namespace kmcl;
using namespace kmcl::api;

static_assert(KMCL_CONNECT_REQUESTS_PER_SECOND == endpoint::ConnectGate::kPerSecond);
static_assert(sizeof(KMCL_CONNECT_OFFER_DATA) == 28);

namespace {

endpoint::Client* ClientOf(KMCL_CLIENT client) {
  const DeviceBinding* const binding = BindingOf(KmclClientDeviceObject(client));
  return binding == nullptr ? nullptr : binding->client;
}

}  // namespace

NTSTATUS KmclPartitionSetConnectCallback(HANDLE Partition, PFN_KMCL_CONNECT_REQUEST Callback,
                                         PVOID Context) {
  const auto partition = FindPartition(Partition);
  if (partition == nullptr) return STATUS_INVALID_HANDLE;
  try {
    endpoint::Partition::ConnectHandler handler;
    if (Callback != nullptr) {
      handler = [Callback, Context, Partition](const bus::server::TlConnect& asked) {
        const KMCL_CONNECT_REQUEST request = {.EndpointId = ToC(asked.endpoint_id),
                                              .ServiceId = ToC(asked.service_id),
                                              .SiloId = ToC(asked.silo_id)};
        return NT_SUCCESS(Callback(Context, Partition, &request));
      };
    }
    partition->bus().Call([&] { partition->SetConnectHandler(std::move(handler)); });
    return STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

NTSTATUS KmclPartitionRefuseConnect(HANDLE Partition, const KMCL_CONNECT_REQUEST* Request) {
  const auto partition = FindPartition(Partition);
  if (partition == nullptr) return STATUS_INVALID_HANDLE;
  if (Request == nullptr) return STATUS_INVALID_PARAMETER_2;
  try {
    Result<void> refused;
    partition->bus().Call([&] {
      refused = partition->RefuseConnect(FromC(Request->EndpointId), FromC(Request->ServiceId));
    });
    return refused ? STATUS_SUCCESS : STATUS_INVALID_DEVICE_STATE;
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

NTSTATUS KmclServerChannelInitSetOfferData(VMBCHANNEL Channel, const VOID* Data, ULONG Length) {
  if (ConfigOf(Channel, Kind::kServer) == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Data == nullptr && Length != 0) return STATUS_INVALID_PARAMETER_2;
  auto& user_defined = ChannelObject::From(Channel).server()->setup().offer.user_defined;
  static_assert(VMBUS_SERVER_CHANNEL_INIT_MAXIMUM_OFFER_DATA == wire::kUserDefinedBytes);
  if (Length > user_defined.size()) return STATUS_INVALID_PARAMETER_3;
  user_defined = {};
  std::copy_n(static_cast<const std::byte*>(Data), Length, user_defined.begin());
  return STATUS_SUCCESS;
}

NTSTATUS KmclClientSetConnectRefusedCallback(KMCL_CLIENT Client, PFN_KMCL_CONNECT_REFUSED Callback,
                                             PVOID Context) {
  endpoint::Client* const client = ClientOf(Client);
  if (client == nullptr) return STATUS_INVALID_PARAMETER_1;
  try {
    endpoint::Client::RefusedHandler handler;
    if (Callback != nullptr) {
      handler = [Callback, Context](const bus::client::TlConnectFailed& refused) {
        const KMCL_CONNECT_REQUEST request = {.EndpointId = ToC(refused.endpoint_id),
                                              .ServiceId = ToC(refused.service_id),
                                              .SiloId = {}};
        Callback(Context, &request, refused.status);
      };
    }
    client->SetRefusedHandler(std::move(handler));
    return STATUS_SUCCESS;
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}

NTSTATUS KmclClientRequestConnect(KMCL_CLIENT Client, const KMCL_CONNECT_REQUEST* Request) {
  endpoint::Client* const client = ClientOf(Client);
  if (client == nullptr) return STATUS_INVALID_PARAMETER_1;
  if (Request == nullptr) return STATUS_INVALID_PARAMETER_2;
  try {
    const auto asked = client->RequestConnect(FromC(Request->EndpointId), FromC(Request->ServiceId),
                                              FromC(Request->SiloId));
    if (asked) return STATUS_SUCCESS;
    return asked.error() == Error::kMessageNotInVersion ? STATUS_REVISION_MISMATCH
                                                        : StatusOf(asked.error());
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}
