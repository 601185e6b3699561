// A failure in as few steps as possible.
#pragma once

#include "plan.h"
#include "report.h"
#include "scheduler.h"

namespace kmcl::sim {

// Leaves out of the plan what the failure does not need, and preemptions that it does not need, and
// prints what remains and what happens then.
void PrintShrunk(Plan plan, Schedule schedule, const Report& failure);

}  // namespace kmcl::sim
