#!/usr/bin/env bash
# Linux' own drivers agree with the integration services, the guest lives by the host's count, it gets the host's time
# however far it was from it, and it reboots and powers off when it is told to.
#   services_test.sh VMBUS PARTS PTP_OFFSET [RELEASE_OF_DEBIAN LINUX_VERSION]
# shellcheck disable=SC2016,SC2119  # what the guest does is for its shell to expand
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/guest/expect.sh
source "$here/expect.sh"

kernel=()
if (($# > 3)); then
  "$here/parts" "$2-$4" "$4" || exit $?
  kernel=(--kernel "$2-$4")
fi
# Microseconds.
tolerance=50000
guest_commands='echo "kernel $(uname -r)"
insmod /modules/hv_vmbus.ko
insmod /modules/ptp.ko 2>/dev/null
mkdir /sbin
for word in poweroff reboot; do
  printf "#!/bin/sh\necho the guest is to $word >/dev/console\n$word -f\n" >/sbin/$word
  chmod +x /sbin/$word
done
microseconds() { adjtimex | awk "/tv_sec/ { s = \$2 } /tv_usec/ { u = \$2 } END { printf \"%d%06d\\n\", s, u }"; }
put_off() { date -s "@$(($(date +%s) + $1))" >/dev/null; }
# Until the clock is the host s again: the driver sets it in the background.
await_time() {
  tries=0
  until ptp_offset /dev/ptp0 TOLERANCE >/tmp/offset 2>&1 || [ $tries -ge 100 ]; do
    tries=$((tries + 1))
    usleep 100000
  done
  echo "offset $1 $(cat /tmp/offset)"
}
put_off -3600
insmod /modules/hv_utils.ko
await 3 agreed_services
agreed_services | sed "s/.*hv_utils/driver/"
cat /sys/class/ptp/*/clock_name | sed "s/^/clock /"
ls -l /dev/ptp0 | sed "s/^/device /"
await_time opened
put_off 3600
ptp_offset /dev/ptp0 TOLERANCE | sed "s/^/offset drifted /"
echo "set my clock"
read -r word
await_time asked
echo "what is the time"
read -r word
echo "guest has $(microseconds)"
echo "what is the time now"
read -r word
echo "go on"
read -r word'
host_commands='microseconds() { adjtimex | awk "/tv_sec/ { s = \$2 } /tv_usec/ { u = \$2 } END { printf \"%d%06d\\n\", s, u }"; }
await_said "set my clock" && vmbus guest time && type go-on
await_said "what is the time" && echo "before $(microseconds)" && type go-on
await_said "what is the time now" && echo "after $(microseconds)" && type go-on
await_said "heartbeat: ok"
await_said "go on" && vmbus guest --json status && vmbus guest shutdown --wait'
guest "$1" "$2" "${kernel[@]}" --program "$3" --beside "$host_commands" "${guest_commands//TOLERANCE/$tolerance}" \
  -- --device heartbeat,timesync,shutdown
expect_line "^kernel ${5:-}"
expect_line 'driver: Heartbeat IC version 3\.0'
expect_line 'driver: Shutdown IC version 3\.2'
expect_line 'driver: TimeSync IC version 4\.0'
expect_line '^clock hyperv'
expect_line '^device c.*/dev/ptp0$'
expect_line 'heartbeat: ok'
# offset WHEN: the microseconds between the guest's clock and the host's.
offset() { sed -nE "s/^offset $1 (-?[0-9]+) us.*/\\1/p" "$said"; }
# expect_near WHEN NUMBER [TOLERANCE]
expect_near() {
  local seen most=${3:-$tolerance}
  seen=$(offset "$1")
  if [[ -z $seen ]] || ((seen - $2 > most || $2 - seen > most)); then
    complain "$1: the clocks are ${seen:-?} us apart, not $2"
  fi
}
expect_near opened 0
expect_near drifted -3600000000 2000000 # the clock was set in whole seconds
expect_near asked 0
# The guest's own view of the host's clock is one thing, the host's clock another.
before=$(sed -nE 's/^host: before //p' "$said")
guest=$(sed -nE 's/^guest has //p' "$said")
after=$(sed -nE 's/^host: after //p' "$said")
if ((before - tolerance > guest || guest > after + tolerance)); then
  complain "the guest's clock stands at $guest between the host's $before and $after"
fi
expect_line '^host: .*"heartbeat":"ok"'
expect_line '^host: .*"syncs":[2-9]'
expect_line '^the guest is to poweroff'
expect_line '^host: done'
expect_line 'the guest powered off'
finish
