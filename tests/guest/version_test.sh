#!/usr/bin/env bash
# A guest that is granted no newer version of the protocol than this takes it, and finds its device.
#   version_test.sh VMBUS PARTS VERSION SYNIC
# shellcheck disable=SC2119
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/guest/expect.sh
source "$here/expect.sh"

guest "$1" "$2" 'insmod /modules/hv_vmbus.ko
dmesg | grep "Vmbus version"
await_offers 1
ls /sys/bus/vmbus/devices | sed "s/^/device /"' \
  -- --cpus 2 --device echo --max-version "$3" --synic "$4"
expect_line "Vmbus version:${3/./\\.}\$"
expect_line "the guest is on the bus, version ${3/./\\.}\$"
expect_count '^device ' 1
finish
