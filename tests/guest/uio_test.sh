#!/usr/bin/env bash
# A program in the guest uses the bus through the kernel's own uio_hv_generic: it sees the devices, takes one, exchanges
# packets with the host, and is told when the host takes the device away.
# With Linux from 6.10 on also a channel without a monitor, and one in pipe mode.
#   uio_test.sh VMBUS PARTS [RELEASE_OF_DEBIAN LINUX_VERSION]
# shellcheck disable=SC2016,SC2119  # what the machines do is for their shells to expand
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/guest/expect.sh
source "$here/expect.sh"

kernel=()
echo_again='echo'
pipe=''
if (($# > 2)); then
  "$here/parts" "$2-$3" "$3" || exit $?
  kernel=(--kernel "$2-$3")
  # Not from the beginning: without a monitor Linux 6.12 does not bear sub-channels (docs/transports.md).
  echo_again=echo=unmonitored
  # The heartbeat device speaks first, and in a pipe: a header, then what versions it knows.
  pipe='vmbus bind Heartbeat; echo "bound a pipe: $?"
vmbus cat --type Heartbeat </dev/null | head -c 20 | od -A n -t x1 -v
vmbus unbind Heartbeat'
fi
[[ -x $1-static ]] || { echo "there is no $1-static: it is built where libcrypto.a is" && exit 77; }
# When the guest's driver takes up the heartbeat, its ping is at work: the sign for taking the device away. Each
# request for it waits a while, and then says no.
beside='in_use() { echo "{\"request\":\"device-await\",\"device\":\"heartbeat\"}" | vmbus guest requests; }
until in_use >/dev/null; do vmbus guest status >/dev/null || break; done
vmbus guest device remove echo
vmbus guest device add ECHO
type again'
beside=${beside/ECHO/$echo_again}

guest "$1" "$2" "${kernel[@]}" --program "$1-static" --beside "$beside" 'echo "kernel $(uname -r)"
vmbus() { vmbus-static "$@"; }
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
# The host takes sub-channels away when their primary closes.
only_primary() { [ "$(ls /sys/bus/vmbus/devices/81bd0cb9-*/channels | wc -l)" -eq 1 ] && echo one; }
for round in 1 2; do
  vmbus ping --count 2000 --sub-channels 3; echo "pinged with sub-channels: $?"
  await 1 only_primary
  echo "channels left: $(ls /sys/bus/vmbus/devices/81bd0cb9-*/channels | wc -l)"
done
vmbus ping --count 1000 --sub-channels 1 --wait poll; echo "pinged polling: $?"
vmbus perf --sizes 64,4096 --wait sleep --seconds 0.3; echo "measured: $?"
vmbus perf --sizes 64 --mode roundtrip --wait poll --seconds 0.3; echo "measured polling: $?"
vmbus unbind echo; echo "unbound again: $?"
'"$pipe"'
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
vmbus status echo
vmbus ping --count 100 --json; echo "pinged $word: $?"
vmbus ping --count 200 --size 16000 --window 8; echo "pinged $word with many: $?"
dmesg | grep -E "WARNING|BUG:|hung" || true' -- --device heartbeat,echo
((${#kernel[@]} == 0)) || expect_line "^kernel ${4/./\\.}"
expect_line '^uio: speaks VMBus 5\.3 and offers 2 channels'
expect_line '^[0-9]+ +echo +799d7bf1-.* 81bd0cb9-'
expect_line 'vmbus bind echo'
expect_line '^unbound: 1'
expect_line '^echo 81bd0cb9-[0-9a-f-]+: /dev/uio0'
expect_line '^[0-9]+ +echo .* uio_hv_generic +/dev/uio0 +closed +[0-9]+ +68\.0 KiB'
for step in bound pinged 'pinged with many' measured 'measured polling' 'unbound again' 'pinged again' \
  'pinged again with many'; do
  expect_line "^$step: 0"
done
expect_count '^pinged with sub-channels: 0' 2
expect_count '^channels left: 1' 2
expect_line '^pinged polling: 0'
for number in 1 2 3; do
  expect_count "^sub-channel $number: [1-9]" $((number == 1 ? 3 : 2))
done
if [[ -n $pipe ]]; then
  expect_line '^bound a pipe: 0'
  # Neither framework nor version yet, and type 0: a negotiation.
  expect_line '^ ?00 00 00 00 00 00 00 00 00 00 '
  expect_line '^[0-9]+ +echo .* uio_hv_generic +/dev/uio[0-9]+ +closed +- '
fi
expect_line '"transactions":\{"accepted":1000,"completed":1000,'
expect_line '^stream +sleep +4096 '
expect_line '^roundtrip +poll +64 '
expect_line 'the other end has gone'
expect_line '^rescinded: 3'
expect_no_line 'WARNING:|BUG:|hung'
expect_line 'the guest powered off'
finish
