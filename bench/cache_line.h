// The cache line that travels between two CPUs: the unit of everything that polls.
#pragma once

namespace kmcl::bench {

// Nanoseconds for a line to go to the other CPU and come back, as seen in about two milliseconds
// just now. The probe that tells whether a machine still is what it was before a cell.
double ProbeCacheLine(int near_cpu, int far_cpu);

void PinTo(int cpu);

}  // namespace kmcl::bench
