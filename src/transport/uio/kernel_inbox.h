// Where the signals of open channels arrive, for one dispatch thread: an epoll over the channels'
// descriptors.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "mutex.h"
#include "result.h"
#include "transport/descriptor.h"
#include "transport/link.h"
#include "transport/uio/kernel_channel.h"

namespace kmcl::transport::uio {

class KernelInbox final : public BellInbox {
 public:
  using OnGone = std::function<void(wire::ChannelId)>;

  // `on_gone` is called by Collect, once for a channel that the kernel has taken away.
  // kOutOfDescriptors, kOutOfMemory.
  [[nodiscard]] static Result<std::unique_ptr<KernelInbox>> Create(OnGone on_gone);

  // Any thread, also while Collect runs. A channel is in one inbox at most.
  [[nodiscard]] Result<void> Add(std::shared_ptr<KernelChannel> channel) KMCL_EXCLUDES(mutex_);
  void Remove(wire::ChannelId id) KMCL_EXCLUDES(mutex_);

  // An epoll in the reader's epoll: each signal passes through both as an edge.
  int fd() const override { return epoll_.get(); }
  // With system calls, unlike others: the kernel counts signals where we cannot look.
  ChannelSet Collect() override KMCL_EXCLUDES(mutex_);

 private:
  KernelInbox(Descriptor epoll, OnGone on_gone)
      : epoll_(std::move(epoll)), on_gone_(std::move(on_gone)) {}

  const Descriptor epoll_;
  const OnGone on_gone_;
  Mutex mutex_;
  std::map<wire::ChannelId, std::shared_ptr<KernelChannel>> channels_ KMCL_GUARDED_BY(mutex_);
};

}  // namespace kmcl::transport::uio
