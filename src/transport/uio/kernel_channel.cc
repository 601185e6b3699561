#include "transport/uio/kernel_channel.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>
#include <utility>
#include <vector>

#include "errno_text.h"
#include "log.h"
#include "transport/memory_region.h"
#include "wire/ids.h"
#include "wire/monitor_page.h"

namespace kmcl::transport::uio {
namespace {

constexpr std::uint64_t kPageBytes = wire::kPageBytes;
// Maps of uio_hv_generic, in its order.
enum Map : std::size_t { kRingMap = 0, kInterruptMap = 1, kMonitorMap = 2 };
constexpr const char* kMapNames[] = {"txrx_rings", "int_page", "monitor_page"};
// Of the interrupt page, the half that guests write.
constexpr std::size_t kSendHalf = kPageBytes / 2;

Error ErrorOfOpen(const std::string& path) {
  const int error = errno;
  switch (error) {
    case EACCES:
    case EPERM:
      return Error::kPermissionDenied;
    case EMFILE:
    case ENFILE:
      return Error::kOutOfDescriptors;
    case ENOMEM:
      return Error::kOutOfMemory;
    case ENOENT:  // gone, or going
    case ENODEV:
    case ENXIO:
    case EIO:
      return Error::kDeviceRemoved;
    default:
      Log(LogLevel::kWarning, "uio: opening %s: %s", path.c_str(), ErrnoText(error).words());
      // The kernel gives EAGAIN, and others, for a host that says no.
      return error == EAGAIN ? Error::kDeviceRemoved : Error::kSystemCall;
  }
}

// A page of the kernel's. Present from now on: the kernel gives none any more once the device has
// gone.
Result<Mapping> MapPage(int node, std::size_t map) {
  void* const page = mmap(nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                          node, static_cast<off_t>(map * kPageBytes));
  if (page == MAP_FAILED) return std::unexpected(MemoryErrorFromErrno("mapping a page of the bus"));
  return Mapping(static_cast<std::byte*>(page), kPageBytes);
}

// How many pages the kernel has in a file of rings, which it maps from the beginning on, in part or
// whole, and refuses to map beyond the end. What sysfs says of the size of a sub-channel's is a
// constant, and no word of what the driver has made (Linux 6.1: 2 MiB a ring, whatever its primary
// has).
Result<std::uint64_t> MappablePages(int file, std::uint64_t at_most) {
  std::uint64_t fit = 0;
  std::uint64_t too_many = at_most + 1;
  while (too_many - fit > 1) {
    const std::uint64_t pages = fit + (too_many - fit) / 2;
    void* const mapped = mmap(nullptr, pages * kPageBytes, PROT_READ, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) {
      munmap(mapped, pages * kPageBytes);
      fit = pages;
    } else if (errno == ENODEV) {
      return std::unexpected(Error::kDeviceRemoved);  // the kernel has closed it
    } else {
      too_many = pages;
    }
  }
  return fit;
}

void SetBit(std::byte* bits, std::uint32_t bit) {
  std::atomic_ref(reinterpret_cast<std::uint32_t*>(bits)[bit / 32])
      .fetch_or(std::uint32_t{1} << bit % 32);
}

}  // namespace

Result<std::shared_ptr<KernelChannel>> KernelChannel::Open(
    const KernelBus& bus, const BusDevice& device, const std::optional<Subchannel>& subchannel) {
  if (!device.uio) return std::unexpected(Error::kDriverNotBound);
  const auto maps = bus.Maps(*device.uio);
  if (!maps) return std::unexpected(maps.error());
  for (std::size_t map = 0; map < std::size(kMapNames); ++map) {
    if (maps->size() > map && (*maps)[map].name == kMapNames[map]) continue;
    Log(LogLevel::kWarning, "uio: map %zu of %s is not called %s", map,
        bus.UioNode(*device.uio).c_str(), kMapNames[map]);
    return std::unexpected(Error::kRingGeometry);
  }
  const std::uint64_t ring_bytes = (*maps)[kRingMap].bytes / 2;
  if ((*maps)[kRingMap].bytes % (2 * kPageBytes) != 0 || ring_bytes > std::uint64_t{1} << 31) {
    return std::unexpected(Error::kRingGeometry);
  }

  const std::string path = bus.UioNode(*device.uio);
  Descriptor node(open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!node) return std::unexpected(ErrorOfOpen(path));
  // The kernel would let two programs write to the same rings. A sub-channel's lock is that on its
  // rings.
  Descriptor ring_file;
  if (subchannel) {
    const std::string ring = bus.RingFile(device.instance, subchannel->id);
    ring_file = Descriptor(open(ring.c_str(), O_RDWR | O_CLOEXEC));
    if (!ring_file) return std::unexpected(ErrorOfOpen(ring));
  }
  const int locked = subchannel ? ring_file.get() : node.get();
  if (flock(locked, LOCK_EX | LOCK_NB) != 0) return std::unexpected(Error::kDeviceBusy);

  const auto id = subchannel ? subchannel->id : device.id;
  const auto monitor = subchannel ? subchannel->monitor : device.monitor;
  std::shared_ptr<KernelChannel> channel(new KernelChannel(id, monitor, std::move(node)));
  channel->ring_file_ = std::move(ring_file);
  channel->ring_pages_ = static_cast<std::uint32_t>(ring_bytes / kPageBytes);
  if (subchannel) {
    constexpr std::uint64_t kMostPages = (std::uint64_t{1} << 25) / kPageBytes;
    const auto pages = MappablePages(channel->ring_file_.get(), 2 * kMostPages);
    if (!pages) return std::unexpected(pages.error());
    if (*pages < 4 || *pages % 2 != 0 || *pages == 2 * kMostPages) {
      return std::unexpected(Error::kRingGeometry);
    }
    channel->ring_pages_ = static_cast<std::uint32_t>(*pages / 2);
  }
  if (monitor) {
    if (auto mapped = channel->MapMonitor(); !mapped) return std::unexpected(mapped.error());
  }
  return channel;
}

Result<void> KernelChannel::MapMonitor() {
  if (*monitor_ >= wire::kMonitorCount || std::to_underlying(id_) > wire::kMaximumChannelId) {
    return std::unexpected(Error::kFieldOutOfRange);
  }
  auto interrupts = MapPage(fd(), kInterruptMap);
  if (!interrupts) return std::unexpected(interrupts.error());
  interrupt_page_ = std::move(*interrupts);
  auto monitors = MapPage(fd(), kMonitorMap);
  if (!monitors) return std::unexpected(monitors.error());
  monitor_page_ = std::move(*monitors);
  return {};
}

Result<RingMapping> KernelChannel::MapRings(const std::shared_ptr<KernelChannel>& self) {
  const int file = self->ring_file_ ? self->ring_file_.get() : self->fd();
  auto rings = KernelRings::Map(file, self->ring_pages_, self);
  if (!rings) return std::unexpected(rings.error());
  self->rings_ = *rings;
  return KernelRings::Views(std::move(*rings));
}

KernelChannel::Signal KernelChannel::TakeSignal() {
  std::int32_t count = 0;
  const ssize_t bytes = read(fd(), &count, sizeof count);
  if (bytes == sizeof count) return Signal::kRung;
  if (errno == EAGAIN || errno == EINTR) return Signal::kNone;
  if (const auto rings = rings_.lock()) rings->Detach();
  return Signal::kGone;
}

void KernelChannel::Ring() {
  if (!monitor_) {
    // Signals all channels of the device, and unmasks them: a bell too many is nothing bad.
    const std::int32_t on = 1;
    (void)!write(fd(), &on, sizeof on);  // a channel that has gone says so when it is read
    return;
  }
  // The first one for hosts that do not know from the monitor which channel it was.
  SetBit(interrupt_page_.base() + kSendHalf, std::to_underlying(id_));
  const std::size_t group = *monitor_ / wire::kMonitorsPerGroup;
  SetBit(monitor_page_.base() + offsetof(wire::MonitorPage, trigger_groups) +
             group * sizeof(wire::MonitorTriggerGroup),
         *monitor_ % wire::kMonitorsPerGroup);
}

}  // namespace kmcl::transport::uio
