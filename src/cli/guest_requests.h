// What a running `vmbus vm` can be asked about its guest (docs/vmbus.md lists the requests).
#pragma once

#include <atomic>

#include "cli/guest_devices.h"
#include "cli/output.h"

namespace kmcl::cli {

// Does what `request` says and tells how it went: {"ok": true, ...} or {"ok": false, "error":
// TEXT}. `descriptor` is the file to copy, or -1. May wait for the guest, until the devices are
// stopped.
Json AnswerGuestRequest(GuestDevices& devices, const Json& request, int descriptor);

}  // namespace kmcl::cli
