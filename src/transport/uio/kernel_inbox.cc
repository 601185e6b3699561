#include "transport/uio/kernel_inbox.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>
#include <vector>

namespace kmcl::transport::uio {

Result<std::unique_ptr<KernelInbox>> KernelInbox::Create(OnGone on_gone) {
  Descriptor epoll(epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) {
    return std::unexpected(errno == ENOMEM ? Error::kOutOfMemory : Error::kOutOfDescriptors);
  }
  return std::unique_ptr<KernelInbox>(new KernelInbox(std::move(epoll), std::move(on_gone)));
}

Result<void> KernelInbox::Add(std::shared_ptr<KernelChannel> channel) {
  MutexLock lock(mutex_);
  epoll_event event{.events = EPOLLIN, .data = {.u64 = std::to_underlying(channel->id())}};
  if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, channel->fd(), &event) != 0) {
    return std::unexpected(Error::kOutOfMemory);
  }
  channels_[channel->id()] = std::move(channel);
  return {};
}

void KernelInbox::Remove(wire::ChannelId id) {
  std::shared_ptr<KernelChannel> removed;  // let go of outside the lock
  MutexLock lock(mutex_);
  const auto found = channels_.find(id);
  if (found == channels_.end()) return;
  removed = std::move(found->second);
  epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, removed->fd(), nullptr);
  channels_.erase(found);
}

ChannelSet KernelInbox::Collect() {
  ChannelSet rung{};
  std::vector<wire::ChannelId> gone;
  {
    MutexLock lock(mutex_);
    // All that wait: what is left behind is no edge for the reader's epoll. A host that goes on
    // signalling does not hold us: what comes later is one.
    std::array<epoll_event, 32> events;
    std::size_t count = events.size();
    for (std::size_t left = channels_.size() + 1; left > 0 && count == events.size();
         left -= std::min(left, count)) {
      const int ready = epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
      count = static_cast<std::size_t>(std::max(ready, 0));
      for (std::size_t i = 0; i < count; ++i) {
        const auto id = static_cast<std::uint32_t>(events[i].data.u64);
        const auto found = channels_.find(wire::ChannelId{id});
        if (found == channels_.end()) continue;
        switch (found->second->TakeSignal()) {
          case KernelChannel::Signal::kNone:
            break;
          case KernelChannel::Signal::kRung:
            rung[id / 64] |= std::uint64_t{1} << id % 64;
            break;
          case KernelChannel::Signal::kGone:
            // It would be readable from now on.
            epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, found->second->fd(), nullptr);
            gone.push_back(found->second->id());
            channels_.erase(found);
            break;
        }
      }
    }
  }
  for (const wire::ChannelId id : gone) on_gone_(id);
  return rung;
}

}  // namespace kmcl::transport::uio
