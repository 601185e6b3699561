#include "transport/uio/device_events.h"

#include <linux/netlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

#include "errno_text.h"
#include "log.h"

namespace kmcl::transport::uio {
namespace {

constexpr std::uint32_t kKernelGroup = 1;  // group 2 is udev's

}  // namespace

DeviceEvents DeviceEvents::Listen() {
  Descriptor socket(
      ::socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = kKernelGroup;
  if (!socket ||
      bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    Log(LogLevel::kWarning, "uio: devices that come later will not be seen: %s",
        ErrnoText(errno).words());
    socket.Reset();
  }
  return DeviceEvents(std::move(socket));
}

bool DeviceEvents::Take() {
  bool concerns_us = false;
  std::array<char, 8192> event;
  while (socket_) {
    sockaddr_nl sender{};
    socklen_t sender_bytes = sizeof sender;
    const ssize_t bytes = recvfrom(socket_.get(), event.data(), event.size(), 0,
                                   reinterpret_cast<sockaddr*>(&sender), &sender_bytes);
    if (bytes < 0 && errno == ENOBUFS) {
      concerns_us = true;  // some were lost
      continue;
    }
    if (bytes < 0) break;
    // Only the kernel's word counts. What names the bus, or a channel in user space's hands, is
    // looked into; sysfs then says what has become of it.
    if (sender.nl_pid != 0) continue;
    const std::string_view text(event.data(), static_cast<std::size_t>(bytes));
    concerns_us |= text.find("VMBUS") != text.npos || text.find("vmbus") != text.npos ||
                   text.find("SUBSYSTEM=uio") != text.npos;
  }
  return concerns_us;
}

}  // namespace kmcl::transport::uio
