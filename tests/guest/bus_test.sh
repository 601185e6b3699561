#!/usr/bin/env bash
# Linux takes the machine for a Hyper-V host's, connects to the bus, and sees what is offered to it; again after its
# driver was unloaded and loaded ten times.
#   bus_test.sh VMBUS PARTS CPUS SYNIC
# shellcheck disable=SC2016,SC2119  # what the guest does is for its shell to expand
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/guest/expect.sh
source "$here/expect.sh"

guest "$1" "$2" 'dmesg | grep "Hypervisor detected"
insmod /modules/hv_vmbus.ko
dmesg | grep "Vmbus version"
list() {
  await_offers 1
  for device in /sys/bus/vmbus/devices/*; do
    echo "$1 $(cat $device/class_id) $(cat $device/device_id)"
  done
}
list first
for round in 1 2 3 4 5 6 7 8 9 10; do
  rmmod hv_vmbus && insmod /modules/hv_vmbus.ko || echo "round $round failed"
done
list last
echo "connected $(dmesg | grep -c "Vmbus version:5.3") times"
grep -E "HYP|HVS" /proc/interrupts
dmesg | grep -E "WARNING|BUG:|unchecked MSR" || true' \
  -- --cpus "$3" --device echo --synic "$4"
expect_line 'Hypervisor detected: Microsoft Hyper-V'
expect_line 'Vmbus version:5.3'
echo_class='\{799d7bf1-[0-9a-f-]+\}'
expect_count "^first $echo_class" 1
expect_count "^last $echo_class" 1
expect_line 'connected 11 times'
expect_no_line 'round .* failed'
expect_no_line 'WARNING:|BUG:|unchecked MSR'
expect_line 'the guest powered off'
finish
