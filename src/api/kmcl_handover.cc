// One server process replaced by another (kmcl/handover.h).

#include <kmcl/handover.h>

#include <cstring>
#include <map>
#include <new>
#include <utility>
#include <vector>

#include "api/server_object.h"
#include "api/status_map.h"
#include "endpoint/handover.h"
#include "log.h"
#include "wire/byte_stream.h"

using namespace kmcl;
using namespace kmcl::api;

namespace {

using endpoint::HandoverSocket;

// What goes along with the endpoint's state: which handle each partition has, and the program's bytes.
struct Luggage {
  std::map<std::uint64_t, HANDLE> partitions;
  std::span<const std::byte> program;
};

std::vector<std::byte> Pack(const Luggage& luggage) {
  wire::ByteWriter out;
  out.Put(static_cast<std::uint32_t>(luggage.partitions.size()));
  for (const auto& [number, handle] : luggage.partitions) {
    out.Put(number);
    out.Put(static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(handle)));
  }
  out.PutBlock(luggage.program);
  return out.Take();
}

Result<Luggage> Unpack(std::span<const std::byte> bytes) {
  wire::ByteReader in(bytes);
  Luggage luggage;
  const auto count = in.Get<std::uint32_t>();
  for (std::uint32_t i = 0; i < count && in.ok(); ++i) {
    const auto number = in.Get<std::uint64_t>();
    luggage.partitions[number] = reinterpret_cast<HANDLE>(in.Get<std::uint64_t>());
  }
  luggage.program = in.GetBlock();
  if (!in.AtEnd()) return std::unexpected(Error::kSaveMalformed);
  return luggage;
}

NTSTATUS StatusOfHandover(Error error) {
  return error == Error::kWouldBlock ? STATUS_DEVICE_NOT_READY : StatusOf(error);
}

NTSTATUS HandOver(KMCL_SERVER_OBJECT& object, const HandoverSocket& socket,
                  const KMCL_HANDOVER_OPTIONS& options) {
  endpoint::Server& server = *object.server;
  server.Freeze();
  const auto give_up = [&](NTSTATUS status, const char* why) {
    socket.Refuse(why);
    // Starts take effect with the second; nothing a client has done meanwhile comes before them.
    options.Resume(options.Context, &object);
    server.Resume();
    return status;
  };
  const VOID* state = nullptr;
  SIZE_T state_bytes = 0;
  const NTSTATUS saved = options.Save(options.Context, &object, &state, &state_bytes);
  if (!NT_SUCCESS(saved)) return give_up(saved, "the old server could not be saved");
  auto exported = server.Export();
  if (!exported) {
    return give_up(StatusOf(exported.error()), "the old server cannot be handed over");
  }
  Luggage luggage;
  {
    MutexLock lock(object.mutex);
    luggage.partitions = object.partitions;
  }
  luggage.program = {static_cast<const std::byte*>(state), state_bytes};
  if (const auto given = socket.Give(*exported, Pack(luggage), options.Timeout); !given) {
    return give_up(StatusOfHandover(given.error()), "the new server was not ready in time");
  }
  {
    MutexLock lock(object.mutex);
    object.left = true;
  }
  server.Leave();
  return STATUS_SUCCESS;
}

// The handles of a server that is being taken over, until it is kept or given up.
class TakenHandles {
 public:
  TakenHandles() = default;
  ~TakenHandles() {
    for (auto& [handle, before] : before_) SetPartitionHandle(handle, std::move(before));
  }
  TakenHandles(const TakenHandles&) = delete;
  TakenHandles& operator=(const TakenHandles&) = delete;

  void Take(HANDLE handle, std::shared_ptr<endpoint::Partition> partition) {
    before_[handle] = SetPartitionHandle(handle, std::move(partition));
  }
  void Keep() { before_.clear(); }

 private:
  std::map<HANDLE, std::shared_ptr<endpoint::Partition>> before_;
};

NTSTATUS TakeOver(const HandoverSocket& socket, const KMCL_ENDPOINT_OPTIONS& endpoint_options,
                  const KMCL_TAKEOVER_OPTIONS& options, KMCL_SERVER* server) {
  auto offered = socket.AwaitState(options.Timeout);
  const auto fail = [&](NTSTATUS status) {
    socket.Refuse(KmclStatusName(status));
    return status;
  };
  if (!offered) return fail(StatusOfHandover(offered.error()));
  const auto luggage = Unpack(offered->luggage);
  if (!luggage) return fail(StatusOf(luggage.error()));
  TakenHandles handles;  // goes after the object: PartitionGone still finds them
  auto object = std::make_unique<KMCL_SERVER_OBJECT>();
  object->options = endpoint_options;
  auto taken = endpoint::Server::TakeOver(std::move(offered->server),
                                          ServerOptionsOf(endpoint_options, ""), EventsOf(*object));
  if (!taken) return fail(StatusOf(taken.error()));
  object->server = std::move(*taken);
  for (const auto& partition : object->server->Partitions()) {
    if (!partition->has_arrived()) continue;
    const auto found = luggage->partitions.find(partition->number());
    if (found == luggage->partitions.end()) {
      object->server->Leave();
      return fail(STATUS_DATA_ERROR);
    }
    handles.Take(found->second, partition);
    MutexLock lock(object->mutex);
    object->partitions[partition->number()] = found->second;
  }
  const auto program = luggage->program;
  NTSTATUS status = options.Restore(options.Context, object.get(), program.data(), program.size());
  if (NT_SUCCESS(status)) {
    const auto confirmed = socket.Confirm(options.Timeout);
    if (!confirmed) status = StatusOfHandover(confirmed.error());
  }
  if (!NT_SUCCESS(status)) {
    socket.Refuse(KmclStatusName(status));
    object->server->Leave();
    return status;
  }
  object->server->Begin();
  handles.Keep();
  *server = object.release();
  return STATUS_SUCCESS;
}

}  // namespace

VOID KmclHandOverOptionsInit(PKMCL_HANDOVER_OPTIONS Options) {
  *Options = {};
  Options->Size = sizeof *Options;
  Options->Timeout = 10'000;
}

NTSTATUS KmclServerHandOver(KMCL_SERVER Server, int Socket, const KMCL_HANDOVER_OPTIONS* Options) {
  if (Server == nullptr) return STATUS_INVALID_PARAMETER_1;
  const HandoverSocket socket(Socket);
  const auto peer = socket.CheckPeer();
  if (!peer && peer.error() != Error::kPermissionDenied) return STATUS_INVALID_PARAMETER_2;
  if (Options == nullptr || Options->Size != sizeof *Options || Options->Save == nullptr ||
      Options->Resume == nullptr) {
    return STATUS_INVALID_PARAMETER_3;
  }
  if (IsForbiddenInCallback("KmclServerHandOver")) return STATUS_INVALID_DEVICE_STATE;
  if (!peer) {
    socket.Refuse("this server belongs to another user");
    return STATUS_ACCESS_DENIED;
  }
  {
    MutexLock lock(Server->mutex);
    if (Server->left) return STATUS_INVALID_DEVICE_STATE;
  }
  return HandOver(*Server, socket, *Options);
}

VOID KmclTakeOverOptionsInit(PKMCL_TAKEOVER_OPTIONS Options) {
  *Options = {};
  Options->Size = sizeof *Options;
  Options->Timeout = 60'000;
}

NTSTATUS KmclServerTakeOver(int Socket, const KMCL_ENDPOINT_OPTIONS* Endpoint,
                            const KMCL_TAKEOVER_OPTIONS* Options, KMCL_SERVER* Server) {
  if (Server != nullptr) *Server = nullptr;
  const HandoverSocket socket(Socket);
  const auto peer = socket.CheckPeer();
  if (!peer && peer.error() != Error::kPermissionDenied) return STATUS_INVALID_PARAMETER_1;
  try {
    KMCL_ENDPOINT_OPTIONS endpoint_options;
    if (!TakeOptions(Endpoint, endpoint_options)) return STATUS_INVALID_PARAMETER_2;
    if (Options == nullptr || Options->Size != sizeof *Options || Options->Restore == nullptr) {
      return STATUS_INVALID_PARAMETER_3;
    }
    if (Server == nullptr) return STATUS_INVALID_PARAMETER_4;
    if (!peer) return STATUS_ACCESS_DENIED;
    return TakeOver(socket, endpoint_options, *Options, Server);
  } catch (const std::bad_alloc&) {
    return STATUS_INSUFFICIENT_RESOURCES;
  }
}
