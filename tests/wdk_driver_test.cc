// The same source as C++.
#include "wdk_driver_test.c"  // NOLINT(bugprone-suspicious-include)
