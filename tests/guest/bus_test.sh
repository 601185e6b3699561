#!/usr/bin/env bash
# Linux takes the machine for a Hyper-V host's, connects to the bus, and sees what is offered to it; again after its
# driver was unloaded and loaded ten times.
#   bus_test.sh VMBUS PARTS CPUS SYNIC [MEMORY_IN_MIB]
# shellcheck disable=SC2016,SC2119  # what the guest does is for its shell to expand
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/guest/expect.sh
source "$here/expect.sh"

memory=${5:-512}
guest "$1" "$2" 'awk "/MemTotal/ { print \"memory \" \$2 }" /proc/meminfo
dmesg | grep "Hypervisor detected"
insmod /modules/hv_vmbus.ko
dmesg | grep "Vmbus version"
list() {
  await_offers 2
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
insmod /modules/hv_utils.ko
await 1 agreed_services
agreed_services
dmesg | grep -E "WARNING|BUG:|unchecked MSR" || true' \
  -- --cpus "$3" --device echo,heartbeat --synic "$4" --memory "${memory}M"
expect_line 'Hypervisor detected: Microsoft Hyper-V'
expect_line 'Vmbus version:5.3'
echo_class='\{799d7bf1-[0-9a-f-]+\}'
expect_count "^first $echo_class" 1
expect_count "^last $echo_class" 1
expect_line 'connected 11 times'
expect_line 'Heartbeat IC version' # whose rings are at the end of the memory
seen=$(sed -n 's/^memory //p' "$said")
((seen > memory * 700 && seen < memory * 1024)) || complain "the guest has $seen KiB of memory"
expect_no_line 'round .* failed'
expect_no_line 'WARNING:|BUG:|unchecked MSR'
expect_line 'the guest powered off'
finish
