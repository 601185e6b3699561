// One run: a process of its own, so that each begins the same, and none can harm another.
#pragma once

#include "plan.h"
#include "report.h"
#include "scheduler.h"

namespace kmcl::sim {

// Once, before the first run: makes what the library makes once in a process.
void PrepareRuns();
Report RunInChild(const Plan& plan, const Schedule& schedule, std::size_t print_notes);

}  // namespace kmcl::sim
