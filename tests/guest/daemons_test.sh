#!/usr/bin/env bash
# Debian's daemons in the guest answer the host: the guest's system and addresses, pairs of text both ways, a file
# system frozen and thawed, a file copied in, another one not to its end, a reboot. With the interrupt controllers in
# user space, where the guest's clock is ours, too.
#   daemons_test.sh VMBUS PARTS PTP_OFFSET
# shellcheck disable=SC2016,SC2119  # what the guest does is for its shell to expand
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/guest/expect.sh
source "$here/expect.sh"

PATH=$PATH:/usr/sbin:/sbin
command -v mke2fs >/dev/null || { echo "no mke2fs: install what script/bootstrap --list names" && exit 77; }
"$here/parts" "$2"
work=$(mktemp -d)
trap 'rm -rf "$said" "$work"' EXIT
mke2fs -q -t ext4 -b 1024 -J size=1 "$work/disk.ext4" 6M
head -c 200001 /dev/urandom >"$work/payload"
digest=$(sha256sum <"$work/payload" | cut -d ' ' -f 1)

guest_commands='insmod /modules/hv_vmbus.ko
insmod /modules/brd.ko rd_nr=1 rd_size=8192
insmod /modules/dummy.ko numdummies=1
ip link set dummy0 address 00:15:5d:01:02:03 up
ip addr add 10.11.12.13/24 dev dummy0
mkdir -p /etc /disk /sbin /var/lib/hyperv
echo "NAME=\"A Guest of Ours\"" >/etc/os-release
echo "VERSION_ID=\"12.5\"" >>/etc/os-release
printf "#!/bin/sh\necho the guest is to reboot >/dev/console\nreboot -f\n" >/sbin/reboot
chmod +x /sbin/reboot
dd if=/files/disk.ext4 of=/dev/ram0 bs=64k 2>/dev/null
mount -t ext4 /dev/ram0 /disk
date -s "@$(($(date +%s) - 3600))" >/dev/null
insmod /modules/hv_utils.ko
for service in kvp vss fcopy; do
  await 1 find /dev/vmbus -name hv_$service
  hv_${service}_daemon
done
await 6 agreed_services
agreed_services | sed "s/.*hv_utils/driver/"
# Until the clock is the host s again: the driver sets it in the background.
tries=0
until ptp_offset /dev/ptp0 50000 >/tmp/offset 2>&1 || [ $tries -ge 100 ]; do
  tries=$((tries + 1))
  usleep 100000
done
echo "offset $(cat /tmp/offset)"
echo "pairs, please"
read -r word
echo "greeting is $(tr -d "\000" </var/lib/hyperv/.kvp_pool_0)"
echo "freeze, please"
read -r word
(dd if=/dev/zero of=/disk/written bs=4k count=1 conv=fsync 2>/dev/null; echo "the write is done") &
writer=$!
waits() { grep -lE "^State:.D" $(grep -l "^PPid:.$writer\$" /proc/[0-9]*/status 2>/dev/null) /proc/$writer/status; }
await 1 waits
[ -n "$(waits)" ] && echo "the write waits"
echo "thaw, please"
wait
stat -c "written: %s" /disk/written
echo "file, please"
read -r word
sha256sum /disk/in/payload
stat -c "mode %a" /disk/in/payload
echo "a long file, please"
await 1 find /disk/in -name long
echo "it comes"
read -r word
is_gone() { [ -e /disk/in/long ] || echo gone; }
await 1 is_gone
[ -n "$(is_gone)" ] && echo "it is gone"
echo "reboot, please"
read -r word'
host_commands='await_said "pairs, please"
echo "system $(vmbus guest kvp get OSName)"
echo "addresses $(vmbus guest kvp ip)"
vmbus guest --json kvp ip --adapter 00:15:5D:01:02:03
vmbus guest --json kvp list
vmbus guest kvp set greeting "hello, guest"
echo "greeting $(vmbus guest kvp get greeting --pool external)"
type go-on
await_said "freeze, please"
vmbus guest freeze && echo "it is frozen"
type go-on
await_said "thaw, please"
vmbus guest --json status
vmbus guest thaw && echo "it is thawed"
await_said "file, please"
vmbus guest kvp delete greeting
vmbus guest kvp get greeting --pool external
vmbus guest copy $files/payload /disk/in --create && echo "it is copied"
vmbus guest copy $files/payload /disk/in
type go-on
await_said "a long file, please"
vmbus guest copy $files/disk.ext4 /disk/in --name long &
await_said "it comes"
kill -INT $!
wait $!
echo "it ended with $?"
type go-on
await_said "reboot, please"
vmbus guest reboot && echo "it reboots"'
daemons=()
for service in kvp vss fcopy; do
  daemons+=(--program "$2/hv_${service}_daemon")
done
guest "$1" "$2" --program "$3" "${daemons[@]}" --file "$work/disk.ext4" --file "$work/payload" \
  --beside "$host_commands" "$guest_commands" \
  -- --device timesync,shutdown,kvp,vss,fcopy --synic user --no-reboot
expect_line 'driver: KVP IC version 4\.0'
expect_line 'driver: VSS IC version 5\.0'
expect_line 'driver: FCopy IC version 1\.1'
expect_line 'driver: TimeSync IC version 4\.0'
offset=$(sed -nE 's/^offset (-?[0-9]+) us.*/\1/p' "$said")
if [[ -z $offset ]] || ((offset > 50000 || offset < -50000)); then
  complain "the clocks are ${offset:-?} us apart"
fi

expect_line '^host: system A Guest of Ours'
expect_line '^host: addresses .*10\.11\.12\.13'
expect_line '^host: .*"adapter":"00:15:5D:01:02:03".*"addresses":\["10\.11\.12\.13'
expect_line '^host: .*"pairs":.*"OSMajorVersion":"12\.5"'
expect_line '^host: greeting hello, guest'
expect_line '^greeting is greetinghello, guest'
expect_line '^host: .*has no "greeting" in that pool'

expect_line '^host: it is frozen'
expect_line '^the write waits'
expect_line '^host: .*"file_systems":"frozen"'
expect_line '^host: it is thawed'
expect_line '^written: 4096'
# line_of REGEX: the number of the first that matches.
line_of() { awk -v what="$1" '$0 ~ what { print NR; exit }' "$said"; }
(($(line_of '^the write waits') + 0 < $(line_of '^the write is done') + 0)) || complain "the write did not wait for the thaw"

expect_count '^host: it is copied' 1
expect_line "^host: copied 200001 bytes, sha256 $digest"
expect_line "^$digest  /disk/in/payload"
expect_line '^host: .*0x80070050' # there is one of that name

expect_line '^host: vmbus guest: interrupted: it was cancelled'
expect_line '^host: it ended with 130'
expect_line '^it is gone'

expect_line '^host: it reboots'
expect_line '^the guest is to reboot'
expect_line 'the guest was reset'
finish 4
