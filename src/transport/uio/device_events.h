// What the kernel announces of devices that come, go, or get a driver: its netlink "uevents".
#pragma once

#include "transport/descriptor.h"

namespace kmcl::transport::uio {

class DeviceEvents {
 public:
  // Without a descriptor where the kernel does not let us listen; logged.
  static DeviceEvents Listen();

  // Readable when something was announced; -1 without.
  int fd() const { return socket_.get(); }
  // Takes all that waits. Whether any of it may concern the bus, or was missed.
  bool Take();

 private:
  explicit DeviceEvents(Descriptor socket) : socket_(std::move(socket)) {}

  Descriptor socket_;
};

}  // namespace kmcl::transport::uio
