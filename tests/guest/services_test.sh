#!/usr/bin/env bash
# Linux' own drivers agree with the integration services, and the guest lives by the host's count.
#   services_test.sh VMBUS PARTS
# shellcheck disable=SC2016,SC2119  # what the guest does is for its shell to expand
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/guest/expect.sh
source "$here/expect.sh"

guest "$1" "$2" --await 'heartbeat: ok' --answer go-on 'insmod /modules/hv_vmbus.ko
insmod /modules/hv_utils.ko
await 3 agreed_services
agreed_services | sed "s/.*hv_utils/driver/"
cat /sys/class/ptp/*/clock_name | sed "s/^/clock /"
read -r word
echo "heard $word"' -- --device heartbeat,timesync,shutdown
expect_line 'driver: Heartbeat IC version 3\.0'
expect_line 'driver: Shutdown IC version 3\.2'
expect_line 'driver: TimeSync IC version'
expect_line '^clock hyperv'
expect_line 'heartbeat: ok'
expect_line 'heard go-on'
expect_line 'the guest powered off'
finish
