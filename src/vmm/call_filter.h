// Takes from this process all system calls that a running machine does not need: whatever a guest
// might make its host do, it starts no program, opens no file, and reaches no network (seccomp(2)).
#pragma once

#include "vmm/outcome.h"

namespace kmcl::vmm {

// With which the process ends when it makes a call that was taken from it.
inline constexpr int kForbiddenCallExit = 5;

// False where a program cannot live with the filter: sanitizers open files when they report.
bool CanRestrictCalls();

// For all threads, those there are and those to come, for good. Left are: reading, writing and
// waiting on descriptors that are open; Unix sockets; memory that is never executable; threads; and
// KVM's requests. Opening a file fails with EACCES, as the C library tries that of its own accord.
// A thread that makes another call says its number on standard error, calls `last_words` (unless
// null) within the signal handler, and ends the process with the code above.
Outcome<void> RestrictCalls(void (*last_words)());

}  // namespace kmcl::vmm
