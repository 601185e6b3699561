#include "api/server_object.h"

#include <cstddef>
#include <cstring>
#include <utility>

#include "wire/version.h"

namespace kmcl::api {
namespace {

constexpr ULONG kMostDispatchThreads = 16;  // the pairs of inboxes that a link can have

void OnArrived(KMCL_SERVER_OBJECT& object, std::shared_ptr<endpoint::Partition> partition) {
  const std::uint64_t number = partition->number();
  const HANDLE handle = AddPartitionHandle(std::move(partition));
  {
    MutexLock lock(object.mutex);
    object.partitions[number] = handle;
  }
  if (object.options.PartitionArrived != nullptr) {
    object.options.PartitionArrived(object.options.Context, &object, handle);
  }
}

void OnGone(KMCL_SERVER_OBJECT& object, const endpoint::Partition& partition) {
  HANDLE handle = nullptr;
  {
    MutexLock lock(object.mutex);
    const auto found = object.partitions.find(partition.number());
    KMCL_CHECK(found != object.partitions.end());
    handle = found->second;
    object.partitions.erase(found);
  }
  if (object.options.PartitionGone != nullptr) {
    object.options.PartitionGone(object.options.Context, &object, handle);
  }
  RemovePartitionHandle(handle, &partition);
}

}  // namespace

void InitDevice(DEVICE_OBJECT& device, DeviceBinding& binding) {
  device.Size = sizeof device;
  device.ReferenceCount = 1;
  device.KmclBinding = &binding;
}

bool TakeOptions(const KMCL_ENDPOINT_OPTIONS* given, KMCL_ENDPOINT_OPTIONS& options) {
  KmclEndpointOptionsInit(&options);
  if (given == nullptr) return true;
  // Programs of before DispatchProcessors have less.
  constexpr ULONG kShorter = offsetof(KMCL_ENDPOINT_OPTIONS, DispatchProcessors);
  if (given->Size != sizeof options && given->Size != kShorter) return false;
  std::memcpy(&options, given, given->Size);
  return options.DispatchThreads >= 1 && options.DispatchThreads <= kMostDispatchThreads &&
         options.MaximumPartitions >= 1 && options.MaximumPartitionMemory >= PAGE_SIZE &&
         options.MaximumDonatedMemory >= PAGE_SIZE &&
         (options.MaximumVersion == 0 || wire::IsKnown(wire::Version{options.MaximumVersion}));
}

std::vector<std::uint32_t> ProcessorsOf(const KMCL_ENDPOINT_OPTIONS& options) {
  if (options.DispatchProcessors == nullptr) return {};
  return {options.DispatchProcessors, options.DispatchProcessors + options.DispatchThreads};
}

endpoint::ServerOptions ServerOptionsOf(const KMCL_ENDPOINT_OPTIONS& options,
                                        const std::string& address) {
  return {.address = address,
          .dispatch_threads = options.DispatchThreads,
          .spin_us = options.SpinMicroseconds,
          .processors = ProcessorsOf(options),
          .maximum_partitions = options.MaximumPartitions,
          .maximum_partition_memory = options.MaximumPartitionMemory,
          .monitors = options.NoMonitors == FALSE ? bus::Monitors::kAll : bus::Monitors::kNone,
          .newest = options.MaximumVersion == 0 ? wire::kVersionsNewestFirst.front()
                                                : wire::Version{options.MaximumVersion}};
}

endpoint::Server::Events EventsOf(KMCL_SERVER_OBJECT& object) {
  return {.on_created =
              [&object](endpoint::Server& made) {
                object.binding.server = &made;
                InitDevice(object.device, object.binding);
              },
          .on_arrived =
              [&object](std::shared_ptr<endpoint::Partition> partition) {
                OnArrived(object, std::move(partition));
              },
          .on_gone =
              [&object](const std::shared_ptr<endpoint::Partition>& partition) {
                OnGone(object, *partition);
              }};
}

}  // namespace kmcl::api
