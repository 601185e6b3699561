// What a running `vmbus vm` can be asked about its guest (docs/vmbus.md lists the requests).
#pragma once

#include <atomic>

#include "cli/control_socket.h"
#include "cli/guest_devices.h"
#include "cli/output.h"

namespace kmcl::cli {

// Does what `request` says and tells how it went: {"ok": true, ...} or {"ok": false, "error":
// TEXT}. May wait for the guest, until the devices are stopped. A copy ends when its client is
// done.
Json AnswerGuestRequest(GuestDevices& devices, const ControlSocket::Request& request);

}  // namespace kmcl::cli
