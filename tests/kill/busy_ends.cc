#include "busy_ends.h"

#include <poll.h>

#include <algorithm>
#include <chrono>

namespace kmcl::kill {
BusyServer::~BusyServer() { KmclServerDestroy(server_); }

KMCL_ENDPOINT_OPTIONS BusyServer::Options() {
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.DispatchThreads = 2;
  options.Context = this;
  options.PartitionArrived = [](PVOID context, KMCL_SERVER server, HANDLE partition) {
    static_cast<BusyServer*>(context)->OnArrived(server, partition);
  };
  options.PartitionGone = [](PVOID context, KMCL_SERVER, HANDLE partition) {
    static_cast<BusyServer*>(context)->OnGone(partition);
  };
  return options;
}

NTSTATUS BusyServer::Create(const std::string& address) {
  const KMCL_ENDPOINT_OPTIONS options = Options();
  return KmclServerCreate(address.c_str(), &options, &server_);
}

void BusyServer::SetPlan(const Plan& plan) {
  const std::lock_guard lock(mutex_);
  plan_ = plan;
}

void BusyServer::SetVisitor(pid_t visitor) {
  const std::lock_guard lock(mutex_);
  visitor_ = visitor;
}

void BusyServer::SetEchoOnly() {
  const std::lock_guard lock(mutex_);
  echo_only_ = true;
}

void BusyServer::SetEchoToo() {
  const std::lock_guard lock(mutex_);
  echo_too_ = true;
}

void BusyServer::OnArrived(KMCL_SERVER server, HANDLE partition) {
  KMCL_PARTITION_INFORMATION information{};
  if (KmclPartitionQuery(partition, &information) != STATUS_SUCCESS) {
    around_.faults.Add("a partition cannot be queried");
  }
  Guest guest;
  guest.partition = partition;
  Plan plan;
  bool echo = false;
  bool echo_too = false;
  {
    const std::lock_guard lock(mutex_);
    plan = plan_;
    echo_too = echo_too_;
    echo = echo_only_ || information.ProcessId == static_cast<UINT32>(visitor_);
  }
  if (echo) {
    Offer(guest, server, EchoPlan(), kEchoIndex);
  } else {
    guest.cleans_up_late = plan.cleans_up_late;
    for (std::uint32_t index = 0; index < plan.channel_count; ++index) {
      Offer(guest, server, plan, index);
    }
    if (echo_too) Offer(guest, server, EchoPlan(), kEchoIndex);
  }
  const std::lock_guard lock(mutex_);
  guests_.push_back(std::move(guest));
}

void BusyServer::Offer(Guest& guest, KMCL_SERVER server, const Plan& plan, std::uint32_t index) {
  auto channel = std::make_unique<BusyChannel>(plan, index, around_);
  NTSTATUS status = channel->Allocate(KmclServerDeviceObject(server), guest.partition);
  if (status == STATUS_SUCCESS) status = channel->Enable();
  if (status == STATUS_SUCCESS) {
    VmbChannelStart(channel->handle());
  } else if (status != STATUS_NO_SUCH_DEVICE) {  // the client is gone already
    around_.faults.Add(std::string("a channel cannot be offered: ") + KmclStatusName(status));
  }
  guest.channels.push_back(std::move(channel));
}

void BusyServer::CleanUp(Guest& guest) {
  for (const auto& channel : guest.channels) VmbChannelDisable(channel->handle());
  guest.channels.clear();
}

void BusyServer::OnGone(HANDLE partition) {
  std::unique_lock lock(mutex_);
  const auto found = std::find_if(guests_.begin(), guests_.end(),
                                  [&](const Guest& each) { return each.partition == partition; });
  if (found == guests_.end() || found->gone) {
    return around_.faults.Add("a partition is gone that is not there");
  }
  if (!found->cleans_up_late) {
    Guest leaving;
    leaving.channels.swap(found->channels);
    lock.unlock();
    CleanUp(leaving);
    lock.lock();
  }
  found->gone = true;
  changed_.notify_all();
}

void BusyServer::Disable() {
  const std::lock_guard lock(mutex_);
  for (Guest& guest : guests_) {
    for (const auto& channel : guest.channels) VmbChannelDisable(channel->handle());
  }
}

bool BusyServer::WaitUntilAlone() {
  std::unique_lock lock(mutex_);
  const bool alone = changed_.wait_for(lock, std::chrono::seconds(10), [this] {
    return std::all_of(guests_.begin(), guests_.end(), [](const Guest& each) { return each.gone; });
  });
  if (!alone) return false;
  std::list<Guest> gone = std::move(guests_);
  guests_.clear();
  lock.unlock();
  for (Guest& guest : gone) CleanUp(guest);
  return true;
}

BusyClient::~BusyClient() {
  Disable();
  channels_.clear();
  KmclClientDestroy(client_);
}

NTSTATUS BusyClient::Open(const std::string& address, const Plan& plan) {
  plan_ = plan;
  KMCL_ENDPOINT_OPTIONS options;
  KmclEndpointOptionsInit(&options);
  options.DispatchThreads = plan.client_dispatch_threads;
  options.SpinMicroseconds = plan.client_spin_us;
  NTSTATUS status = KmclClientConnect(address.c_str(), &options, &client_);
  for (std::uint32_t index = 0; status == STATUS_SUCCESS && index < plan.channel_count; ++index) {
    channels_.push_back(std::make_unique<BusyChannel>(plan, index, around_));
    status = channels_.back()->Allocate(KmclClientDeviceObject(client_), nullptr);
    if (status == STATUS_SUCCESS) status = channels_.back()->Enable();
  }
  return status;
}

void BusyClient::Cycle(int until_fd) {
  for (std::size_t turn = 0;; ++turn) {
    BusyChannel& channel = *channels_[turn % channels_.size()];
    if (!channel.WaitForEvents(plan_.packets_per_cycle, until_fd)) {
      return around_.faults.Add("a channel that was opened again carries nothing");
    }
    pollfd until{until_fd, POLLIN, 0};
    if (poll(&until, 1, 0) != 0) return;
    VmbChannelDisable(channel.handle());
    const NTSTATUS status = channel.Enable();
    if (status == STATUS_NO_SUCH_DEVICE) return;  // the server is gone
    if (status != STATUS_SUCCESS) {
      return around_.faults.Add(std::string("a channel cannot be opened again: ") +
                                KmclStatusName(status));
    }
  }
}

bool BusyClient::WaitUntilClosed() {
  return std::all_of(channels_.begin(), channels_.end(),
                     [](const auto& channel) { return channel->WaitUntilClosed(); });
}

void BusyClient::Disable() {
  for (const auto& channel : channels_) {
    if (channel->handle() != nullptr) VmbChannelDisable(channel->handle());
  }
}

bool BusyClient::StillWorks() {
  return std::all_of(channels_.begin(), channels_.end(), [](const auto& channel) {
    return channel->WaitForEvents(20, -1) && channel->is_open();
  });
}

NTSTATUS Visit(const std::string& address) {
  KMCL_CLIENT client = nullptr;
  NTSTATUS status = KmclClientConnect(address.c_str(), nullptr, &client);
  if (status != STATUS_SUCCESS) return status;
  const GUID instance = InstanceOf(kEchoIndex);
  VMBCHANNEL channel = nullptr;
  status = VmbChannelAllocate(KmclClientDeviceObject(client), FALSE, &channel);
  if (status == STATUS_SUCCESS) {
    status = VmbClientChannelInitSetTargetPnp(channel, &kBusyType, &instance, nullptr);
  }
  if (status == STATUS_SUCCESS) status = VmbChannelEnable(channel);
  if (status == STATUS_SUCCESS) {
    std::uint64_t question = 0x1122334455667788;
    std::uint64_t answer = 0;
    UINT32 answer_bytes = sizeof answer;
    LARGE_INTEGER timeout;
    timeout.QuadPart = -10 * 10'000'000LL;  // 10 s
    status = VmbChannelSendSynchronousRequest(channel, &question, sizeof question, nullptr,
                                              VMBUS_CHANNEL_FORMAT_FLAG_WAIT_FOR_COMPLETION,
                                              &answer, &answer_bytes, &timeout);
    if (status == STATUS_SUCCESS && answer != question) status = STATUS_UNSUCCESSFUL;
  }
  if (channel != nullptr) {
    VmbChannelDisable(channel);
    VmbChannelCleanup(channel);
  }
  KmclClientDestroy(client);
  return status;
}

}  // namespace kmcl::kill
