// The one place that turns errors and outcomes into NTSTATUS.
#pragma once

#include <kmcl/nt.h>

#include "channel/packet.h"
#include "result.h"

namespace kmcl::api {

NTSTATUS StatusOf(Error error);
NTSTATUS StatusOf(channel::Outcome outcome);

}  // namespace kmcl::api
