// Behind KMCL_SERVER.
#pragma once

#include <kmcl/endpoint.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "api/objects.h"
#include "endpoint/server.h"
#include "mutex.h"

struct KMCL_SERVER_OBJECT {
  DEVICE_OBJECT device{};
  kmcl::api::DeviceBinding binding;
  KMCL_ENDPOINT_OPTIONS options{};
  kmcl::Mutex mutex;
  // The handles that PartitionArrived was given.
  std::map<std::uint64_t, HANDLE> partitions KMCL_GUARDED_BY(mutex);
  bool left KMCL_GUARDED_BY(mutex) = false;  // handed over
  std::unique_ptr<kmcl::endpoint::Server> server;  // goes first: its last callbacks use the rest
};

namespace kmcl::api {

void InitDevice(DEVICE_OBJECT& device, DeviceBinding& binding);

// Copies the options, or the defaults. False: something is out of range.
bool TakeOptions(const KMCL_ENDPOINT_OPTIONS* given, KMCL_ENDPOINT_OPTIONS& options);
// Those that its dispatch threads are bound to; none if they are not.
std::vector<std::uint32_t> ProcessorsOf(const KMCL_ENDPOINT_OPTIONS& options);
endpoint::ServerOptions ServerOptionsOf(const KMCL_ENDPOINT_OPTIONS& options,
                                        const std::string& address);
// `object` outlives the server.
endpoint::Server::Events EventsOf(KMCL_SERVER_OBJECT& object);

}  // namespace kmcl::api
