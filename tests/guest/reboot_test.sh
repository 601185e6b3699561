#!/usr/bin/env bash
# A guest that reboots finds the bus again, and so does one after a panic; what is typed at the console reaches it.
# With --no-reboot the machine ends instead, and says so by its exit code.
#   reboot_test.sh VMBUS PARTS
# shellcheck disable=SC2016  # what the guest does is for its shell to expand
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/guest/expect.sh
source "$here/expect.sh"

life='insmod /modules/hv_vmbus.ko
dmesg | grep "Vmbus version"
await_offers 1
ls /sys/bus/vmbus/devices | sed "s/^/device /"
echo "ready?"
read -r word
case $word in
  reboot) reboot -f ;;
  panic) echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger ;;
esac'
guest "$1" "$2" --answer reboot --answer panic --answer power-off "$life" -- --device echo
expect_count 'Vmbus version:5\.3' 3
expect_count '^device ' 3
expect_count 'the guest is on the bus, version 5\.3' 3
expect_count 'the guest was reset' 2
expect_line 'the guest powered off'
((failures == 0)) || finish

guest "$1" "$2" 'reboot -f' -- --no-reboot
expect_count 'the guest was reset' 1
finish 4
