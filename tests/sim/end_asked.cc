// What an end and its bus say of themselves while others use them, and what is set meanwhile.
#include <cstring>

#include "end.h"

namespace kmcl::sim {

void End::Ask() {
  AskCounters();
  GUID instance{};
  {
    const InLibrary library("VmbChannelGetInterfaceInstance", number);
    VmbChannelGetInterfaceInstance(handle_, &instance);
  }
  const GUID mine = InstanceOf(is_subchannel() ? primary_->index : index);
  const GUID none{};
  if (std::memcmp(&instance, &mine, sizeof mine) != 0 &&
      (server || std::memcmp(&instance, &none, sizeof none) != 0)) {
    Wrong("another channel's instance");
  }
  PDEVICE_OBJECT target = nullptr, parent = nullptr;
  {
    const InLibrary library("VmbChannelGetTargetDeviceObject", number);
    target = VmbChannelGetTargetDeviceObject(handle_);
    parent = VmbChannelGetParentDeviceObject(handle_);
  }
  if (parent != device_ || (target != nullptr && (server || target != device_))) {
    Wrong("another bus's device object");
  }
  if (server) return AskServer();
  UINT64 address = 1, bytes = 1;
  const InLibrary library("VmbChannelGetMmioSpace", number);
  VmbChannelGetMmioSpace(handle_, &address, &bytes);
  if (address != 0 || bytes != 0) Wrong("address space that nobody reserved");
}

void End::AskServer() {
  const InLibrary library("VmbConvertVmbusHandleToKernelHandle", number);
  if (Choices().OneIn(2)) KmclChannelForceExternalDataPending(handle_, Choices().Between(1, 3));
  HANDLE copy = nullptr;
  const NTSTATUS status = VmbConvertVmbusHandleToKernelHandle(partition_, &copy);
  if (status == STATUS_SUCCESS) {
    KMCL_PARTITION_INFORMATION information{};
    const NTSTATUS queried = KmclPartitionQuery(copy, &information);
    if (queried != STATUS_SUCCESS) Wrong("a copy of a partition's handle is none");
    if (ZwClose(copy) != STATUS_SUCCESS) Wrong("a partition's handle is not closed");
    return;
  }
  const bool may_be = (gone && status == STATUS_INVALID_HANDLE) ||
                      (model_.plan.refusals && status == STATUS_INSUFFICIENT_RESOURCES);
  if (!may_be) Wrong(std::string("a partition's handle is not copied: ") + KmclStatusName(status));
}

void End::AskCounters() {
  const KMCL_CHANNEL_COUNTERS before = counters_;
  KMCL_CHANNEL_COUNTERS now{};
  now.Size = sizeof now;
  {
    const InLibrary library("KmclChannelQueryCounters", number);
    if (KmclChannelQueryCounters(handle_, &now) != STATUS_SUCCESS) Wrong("no counters");
  }
  using Counter = UINT64 KMCL_CHANNEL_COUNTERS::*;
  static constexpr Counter kGrow[] = {&KMCL_CHANNEL_COUNTERS::PacketsSent,
                                      &KMCL_CHANNEL_COUNTERS::BytesSent,
                                      &KMCL_CHANNEL_COUNTERS::CompletionsSent,
                                      &KMCL_CHANNEL_COUNTERS::PacketsReceived,
                                      &KMCL_CHANNEL_COUNTERS::BytesReceived,
                                      &KMCL_CHANNEL_COUNTERS::CompletionsReceived,
                                      &KMCL_CHANNEL_COUNTERS::CompletionsUnexpected,
                                      &KMCL_CHANNEL_COUNTERS::Batches,
                                      &KMCL_CHANNEL_COUNTERS::BellsRung,
                                      &KMCL_CHANNEL_COUNTERS::BellsReceived,
                                      &KMCL_CHANNEL_COUNTERS::RingFull,
                                      &KMCL_CHANNEL_COUNTERS::TransactionsStarted,
                                      &KMCL_CHANNEL_COUNTERS::TransactionsCompleted,
                                      &KMCL_CHANNEL_COUNTERS::TransactionsCancelled,
                                      &KMCL_CHANNEL_COUNTERS::Publications};
  for (const Counter counter : kGrow) {
    if (now.*counter < before.*counter) Wrong("a counter goes back");
  }
  // What only we see yet of our own counting, the next one who asks has to see, too.
  FlushStores();
  counters_ = now;
}

// ---- What is set while others use it.

void End::SetLatency(std::uint32_t latency) {
  if (server) return;
  UINT16 before = 0;
  const InLibrary library("VmbChannelSetInterruptLatency", number);
  const NTSTATUS status =
      VmbChannelSetInterruptLatency(handle_, static_cast<UINT16>(latency), &before);
  if (status != STATUS_SUCCESS && status != STATUS_INVALID_DEVICE_STATE) {
    Wrong(std::string("no latency: ") + KmclStatusName(status));
  }
}

void End::SetBudget(std::uint32_t percent) {
  const InLibrary library("VmbChannelSetAllowableDpcCpuUsage", number);
  if (VmbChannelSetAllowableDpcCpuUsage(handle_, percent) != STATUS_SUCCESS) Wrong("no budget");
}

void End::SetQuota(std::uint32_t quota) {
  const InLibrary library;
  VmbChannelSetTransactionQuota(handle_, quota);
}

void End::SetPassive(bool passive) {
  const InLibrary library;
  VmbChannelSetIncomingProcessingAtPassive(handle_, static_cast<BOOLEAN>(passive));
}

}  // namespace kmcl::sim
