// An open channel of a Linux guest: a descriptor of /dev/uioN, the rings that the kernel has made,
// and the words by which the host is signalled (VMBus reference 6.2, 6.3).
//
// The kernel opens the channel with the first descriptor and closes it with the last. So a channel
// is closed when its last owner lets go of it: the link, the mapping of its rings, and whoever
// holds a doorbell.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "result.h"
#include "transport/descriptor.h"
#include "transport/link.h"
#include "transport/uio/kernel_bus.h"
#include "transport/uio/kernel_rings.h"

namespace kmcl::transport::uio {

class KernelChannel {
 public:
  // Opens the device's channel, or one of its sub-channels, which the kernel has opened by itself
  // when its primary was. The control pages are the kernel's work, and the host may have begun to
  // write. kDriverNotBound: uio_hv_generic does not have the device. kDeviceBusy: another program,
  // or another channel of this one, has it. kDeviceRemoved: it has gone, or the host refuses.
  // kRingGeometry: the maps are not those of uio_hv_generic. kPermissionDenied, kOutOfMemory,
  // kOutOfDescriptors, kSystemCall (logged).
  [[nodiscard]] static Result<std::shared_ptr<KernelChannel>> Open(
      const KernelBus& bus, const BusDevice& device, const std::optional<Subchannel>& subchannel);

  wire::ChannelId id() const { return id_; }
  // For epoll: readable when the host has signalled, or the channel has gone.
  int fd() const { return node_.get(); }

  enum class Signal : std::uint8_t { kNone, kRung, kGone };
  // Takes what waits, and never does. A thread at a time. With kGone the rings are no more the
  // kernel's (KernelRings::Detach).
  Signal TakeSignal();

  // Signals the host. Any thread.
  void Ring();

  // Both rings, once; they keep `self` open. Before anybody takes signals.
  [[nodiscard]] static Result<RingMapping> MapRings(const std::shared_ptr<KernelChannel>& self);
  // Of one ring, control page included.
  std::uint32_t ring_pages() const { return ring_pages_; }

 private:
  KernelChannel(wire::ChannelId id, std::optional<std::uint8_t> monitor, Descriptor node)
      : id_(id), monitor_(monitor), node_(std::move(node)) {}
  [[nodiscard]] Result<void> MapMonitor();

  const wire::ChannelId id_;
  const std::optional<std::uint8_t> monitor_;
  const Descriptor node_;
  Descriptor ring_file_;  // of a sub-channel; the primary's rings are the node's first map
  std::uint32_t ring_pages_ = 0;
  std::weak_ptr<KernelRings> rings_;  // which hold this object
  Mapping interrupt_page_;            // with a monitor only
  Mapping monitor_page_;
};

}  // namespace kmcl::transport::uio
