// The bus of the guest that we run in, as its kernel shows it.
#pragma once

#include <kmcl/uio.h>

#include <string>
#include <vector>

#include "cli/outcome.h"

namespace kmcl::cli {

// By channel id. kExitLost: we are in no guest.
Outcome<std::vector<KMCL_UIO_DEVICE>> GuestBusDevices();

// The device with this instance GUID, or the only one of the interface with this name or GUID.
Outcome<KMCL_UIO_DEVICE> FindGuestDevice(const std::string& text);

}  // namespace kmcl::cli
