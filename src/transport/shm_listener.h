// The shm transport's listening end: a socket in the file system, and who may own its name.
#pragma once

#include <memory>
#include <string>

#include "transport/link.h"

namespace kmcl::transport {

// See Listen. kAddressInUse: a live server owns the path, or the path's directory stays locked by
// somebody for five seconds. kAddressMalformed: the path is too long, or is a file but no socket.
[[nodiscard]] Result<std::unique_ptr<Listener>> ListenShm(const std::string& path);

}  // namespace kmcl::transport
