#!/usr/bin/env bash
# A program in the guest uses the bus through the kernel's own uio_hv_generic: it sees the devices, takes one, exchanges
# packets with the host, and is told when the host takes the device away.
#   uio_test.sh VMBUS PARTS
# shellcheck disable=SC2016,SC2119  # what the machines do is for their shells to expand
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/guest/expect.sh
source "$here/expect.sh"

[[ -x $1-static ]] || { echo "there is no $1-static: it is built where libcrypto.a is" && exit 77; }
# When the guest's driver takes up the heartbeat, its ping is at work: the sign for taking the device away. Each
# request for it waits a while, and then says no.
beside='in_use() { echo "{\"request\":\"device-await\",\"device\":\"heartbeat\"}" | vmbus guest requests; }
until in_use >/dev/null; do vmbus guest status >/dev/null || break; done
vmbus guest device remove echo
vmbus guest device add echo
type again'

guest "$1" "$2" --program "$1-static" --beside "$beside" 'vmbus() { vmbus-static "$@"; }
for module in hv_vmbus uio uio_hv_generic; do
  insmod /modules/$module.ko || echo "no $module"
done
await_offers 2
vmbus list
vmbus ping --count 1; echo "unbound: $?"
vmbus bind echo; echo "bound: $?"
vmbus status
vmbus ping --count 1000 --json; echo "pinged: $?"
vmbus ping --count 200 --size 16000 --window 8 --json; echo "pinged with many: $?"
vmbus perf --bus uio: --sizes 64,4096 --wait sleep --seconds 0.3; echo "measured: $?"
vmbus perf --bus uio: --sizes 64 --mode roundtrip --wait poll --seconds 0.3; echo "measured polling: $?"
vmbus unbind echo; echo "unbound again: $?"
vmbus status echo
vmbus bind echo
(vmbus ping --count 100000000 >/tmp/said 2>&1; echo "rescinded: $?" >>/tmp/said) &
is_open() { vmbus status echo | grep " open "; }
await 1 is_open
insmod /modules/hv_utils.ko
wait
grep -E "gone|rescinded" /tmp/said
read -r word
await_offers 2
vmbus bind echo
vmbus ping --count 100 --json; echo "pinged $word: $?"
dmesg | grep -E "WARNING|BUG:|hung" || true' -- --device heartbeat,echo
expect_line '^uio: speaks VMBus 5\.3 and offers 2 channels'
expect_line '^[0-9]+ +echo +799d7bf1-.* 81bd0cb9-'
expect_line 'vmbus bind echo'
expect_line '^unbound: 1'
expect_line '^echo 81bd0cb9-[0-9a-f-]+: /dev/uio0'
expect_line '^[0-9]+ +echo .* uio_hv_generic +/dev/uio0 +closed +[0-9]+ +68\.0 KiB'
for step in bound pinged 'pinged with many' measured 'measured polling' 'unbound again' 'pinged again'; do
  expect_line "^$step: 0"
done
expect_line '"transactions":\{"accepted":1000,"completed":1000,'
expect_line '^stream +sleep +4096 '
expect_line '^roundtrip +poll +64 '
expect_line 'the other end has gone'
expect_line '^rescinded: 3'
expect_no_line 'WARNING:|BUG:|hung'
expect_line 'the guest powered off'
finish
