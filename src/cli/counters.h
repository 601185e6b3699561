// KMCL's channel counters, added up and shown.
#pragma once

#include <kmcl/endpoint.h>

#include <string>

#include "cli/output.h"

namespace kmcl::cli {

// Adds `more` to `sum`, counter by counter.
void Add(KMCL_CHANNEL_COUNTERS& sum, const KMCL_CHANNEL_COUNTERS& more);

double MeanBatch(const KMCL_CHANNEL_COUNTERS& counters);  // packets received per batch
double BellsPerThousandPackets(const KMCL_CHANNEL_COUNTERS& counters);  // rung, per packet sent

// Every counter, and the two ratios.
Json ToJson(const KMCL_CHANNEL_COUNTERS& counters);
// A few lines, indented by two.
std::string DescribeCounters(const KMCL_CHANNEL_COUNTERS& counters);

}  // namespace kmcl::cli
