// How a busy server goes over to another process.
#include <kmcl/handover.h>

#include <cstring>

#include "busy_ends.h"

namespace kmcl::kill {
namespace {

// What stands before each channel's bytes.
struct SavedChannel {
  std::uint64_t partition = 0;  // its handle
  std::uint64_t index = 0;
  std::uint64_t bytes = 0;
};

}  // namespace

NTSTATUS BusyServer::HandOver(int socket, const std::function<void(Step)>& at) {
  at_ = [at](Step step) {
    at(step);
    return STATUS_SUCCESS;
  };
  KMCL_HANDOVER_OPTIONS options;
  KmclHandOverOptionsInit(&options);
  options.Context = this;
  options.Save = [](PVOID context, KMCL_SERVER, const VOID** state, SIZE_T* bytes) {
    BusyServer& self = *static_cast<BusyServer*>(context);
    const NTSTATUS status = self.Save();
    *state = self.saved_.data();
    *bytes = self.saved_.size();
    return status;
  };
  options.Resume = [](PVOID context, KMCL_SERVER) {
    BusyServer& self = *static_cast<BusyServer*>(context);
    self.at_(Step::kResumeBegun);
    const std::lock_guard lock(self.mutex_);
    for (Guest& guest : self.guests_) {
      for (const auto& channel : guest.channels) VmbChannelStart(channel->handle());
    }
  };
  return KmclServerHandOver(server_, socket, &options);
}

NTSTATUS BusyServer::Save() {
  at_(Step::kSaveBegun);
  saved_.clear();
  const std::lock_guard lock(mutex_);
  for (Guest& guest : guests_) {
    if (guest.gone) continue;
    for (const auto& channel : guest.channels) {
      const std::size_t begin = saved_.size();
      saved_.resize(begin + sizeof(SavedChannel));
      if (const NTSTATUS status = channel->Save(saved_); status != STATUS_SUCCESS) return status;
      const SavedChannel head = {.partition = reinterpret_cast<std::uint64_t>(guest.partition),
                                 .index = channel->index(),
                                 .bytes = saved_.size() - begin - sizeof(SavedChannel)};
      std::memcpy(saved_.data() + begin, &head, sizeof head);
    }
  }
  at_(Step::kSaveEnded);
  return STATUS_SUCCESS;
}

NTSTATUS BusyServer::TakeOver(int socket, const std::function<NTSTATUS(Step)>& at) {
  at_ = at;
  KMCL_TAKEOVER_OPTIONS options;
  KmclTakeOverOptionsInit(&options);
  options.Context = this;
  options.Restore = [](PVOID context, KMCL_SERVER server, const VOID* state, SIZE_T bytes) {
    return static_cast<BusyServer*>(context)->Restore(server, static_cast<const std::byte*>(state),
                                                      bytes);
  };
  const KMCL_ENDPOINT_OPTIONS endpoint = Options();
  return KmclServerTakeOver(socket, &endpoint, &options, &server_);
}

NTSTATUS BusyServer::Restore(KMCL_SERVER server, const std::byte* state, std::size_t bytes) {
  at_(Step::kRestoreBegun);
  std::vector<std::byte> left(state, state + bytes);
  std::span<std::byte> rest = left;
  while (!rest.empty()) {
    SavedChannel head;
    if (rest.size() < sizeof head) return STATUS_DATA_ERROR;
    std::memcpy(&head, rest.data(), sizeof head);
    rest = rest.subspan(sizeof head);
    if (rest.size() < head.bytes) return STATUS_DATA_ERROR;
    HANDLE const partition = reinterpret_cast<HANDLE>(head.partition);
    const Plan plan = head.index == kEchoIndex ? EchoPlan() : plan_;
    auto channel =
        std::make_unique<BusyChannel>(plan, static_cast<std::uint32_t>(head.index), around_);
    BusyChannel& made = *channel;
    {
      // PartitionGone finds it from here on.
      const std::lock_guard lock(mutex_);
      if (guests_.empty() || guests_.back().partition != partition) {
        guests_.emplace_back().partition = partition;
      }
      guests_.back().channels.push_back(std::move(channel));
    }
    NTSTATUS status = made.Allocate(KmclServerDeviceObject(server), partition);
    if (status == STATUS_SUCCESS) status = made.Restore(rest.first(head.bytes));
    if (status == STATUS_SUCCESS) status = made.Enable();
    if (status != STATUS_SUCCESS) return status;
    VmbChannelStart(made.handle());
    rest = rest.subspan(head.bytes);
  }
  return at_(Step::kRestoreEnded);
}

}  // namespace kmcl::kill
