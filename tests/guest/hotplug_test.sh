#!/usr/bin/env bash
# A device comes and goes 200 times while the guest runs and another one is in use: Linux's driver finds it and agrees
# with it each time. Nothing of that stays at the host.
#   hotplug_test.sh VMBUS PARTS
# shellcheck disable=SC2016,SC2119  # what the machines do is for their shells to expand
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/guest/expect.sh
source "$here/expect.sh"

rounds=200
beside='host() {
  pid=$(pidof vmbus | tr " " "\n" | sort -n | head -n 1)
  # What a thread leaves to the next one comes and goes: stacks, and the arenas of the allocator.
  echo "$1: $(ls /proc/$pid/fd | wc -l) descriptors, $(grep -c memfd /proc/$pid/maps) mappings of guest memory"
}
plug() {
  round=0
  while [ $round -lt $1 ]; do
    echo "{\"request\":\"device-add\",\"device\":\"shutdown\"}"
    echo "{\"request\":\"device-await\",\"device\":\"shutdown\"}"
    echo "{\"request\":\"device-remove\",\"device\":\"shutdown\"}"
    round=$((round + 1))
  done | vmbus guest requests | sort | uniq -c | sed "s/^ */answers: /"
}
beats() { vmbus guest status | sed -n "s/.* beats=\([0-9]*\).*/\1/p"; }
echo "{\"request\":\"device-await\",\"device\":\"heartbeat\"}" | vmbus guest requests
host before
before=$(beats)
plug ROUNDS
echo "beats meanwhile: $(($(beats) - before))"
host after
vmbus guest device add echo
vmbus guest device add timesync --wait
vmbus guest device list
type go-on'
guest "$1" "$2" --beside "${beside/ROUNDS/$rounds}" 'insmod /modules/hv_vmbus.ko
insmod /modules/hv_utils.ko
read -r word
echo "heard $word"
await 3 find /sys/bus/vmbus/devices -type l
echo "agreed $(dmesg | grep -c "Shutdown IC version") times"
ls /sys/bus/vmbus/devices | sed "s/^/device /"
dmesg | grep -E "WARNING|BUG:|hung" || true' -- --device heartbeat=50
expect_line "host: answers: $((3 * rounds)) .*\"ok\":true"
expect_line "agreed $rounds times"
expect_count '^device ' 3
expect_line 'timesync.*: ready'
expect_line 'echo.*: offered'
expect_no_line 'WARNING:|BUG:|hung'
expect_line 'heard go-on'
expect_line 'the guest powered off'
beats=$(sed -n 's/^host: beats meanwhile: //p' "$said")
((beats > 20)) || complain "$beats heartbeats while the other device came and went"
[[ $(sed -n 's/^host: before: //p' "$said") == "$(sed -n 's/^host: after: //p' "$said")" ]] ||
  complain "something has stayed at the host: $(grep -E '^host: (before|after)' "$said")"
finish
