#!/usr/bin/env bash
# A stock Debian kernel boots, has all of its CPUs and its memory, hears what is typed, and powers off.
#   boot_test.sh VMBUS PARTS CPUS
# shellcheck disable=SC2016,SC2119  # what the guest does is for its shell to expand
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/guest/expect.sh
source "$here/expect.sh"

guest "$1" "$2" 'echo "cpus $(nproc)"
echo "memory $(awk "/MemTotal/ { print \$2 }" /proc/meminfo)"
dmesg | grep -E "BUG|WARNING|Oops|RTC|Detected.*TSC|tsc:" || true
date +%Y' -- --cpus "$3" --memory 320M
expect_line "cpus $3"
expect_line "$(date +%Y)"
expect_line 'the guest powered off'
expect_no_line 'BUG:'
expect_no_line 'WARNING:'
memory=$(sed -n 's/^memory //p' "$said")
((memory > 200000 && memory < 327680)) || complain "the guest has $memory KiB of memory"
finish
