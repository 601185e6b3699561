#!/usr/bin/env bash
# Sockets of Linux' hv_sock and Unix sockets of the host's: 64 MiB each way, 200 connections at once, ends that leave
# abruptly, and a guest that dies in the middle and comes again.
#   vsock_test.sh VMBUS PARTS VSOCK_PEER
# shellcheck disable=SC2016,SC2119  # what the machines do is for their shells to expand
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/guest/expect.sh
source "$here/expect.sh"

bytes=$((${VSOCK_MEBIBYTES:-64} << 20))
beside='v=$folder/vsock
serve() {
  name=$1
  shift
  vsock_peer "$@" | sed "s/^/$name: /" &
}
serve large exchange unix-listen:${v}_1000 BYTES 2 1
serve many echo unix-listen:${v}_1001 200
serve left drain unix-listen:${v}_1002
serve unread flood unix-listen:${v}_1003
serve leaving leave unix-listen:${v}_1004 100000
serve after exchange unix-listen:${v}_1005 100000 4 3
serve write-to-dead flood unix-listen:${v}_1006
serve read-of-dead drain unix-listen:${v}_1007
serve reborn exchange unix-listen:${v}_1008 100000 8 7
await_said "listening at 3000"
vsock_peer exchange guest:$v:3000 300000 6 5
await_said "listening at 3001"
vsock_peer many guest:$v:3001 20
vmbus guest status
await_said "nobody listens"
vsock_peer drain guest:$v:3999
wait'
life='insmod /modules/hv_vmbus.ko
insmod /modules/vsock.ko
insmod /modules/hv_sock.ko
now() { cut -d. -f1 /proc/uptime; }
echo "ready?"
read -r word
case $word in
  first)
    from=$(now)
    vsock_peer exchange vsock:2:1000 BYTES 1 2
    echo "large: $(($(now) - from)) s"
    from=$(now)
    vsock_peer many vsock:2:1001 200
    echo "many: $(($(now) - from)) s"
    vsock_peer exchange vsock-listen:3000 200000 5 6
    vsock_peer echo vsock-listen:3001 20
    timeout 1 vsock_peer drain vsock:2:1999
    vsock_peer leave vsock:2:1002 100000 &
    left=$!
    vsock_peer leave vsock:2:1003 1000
    vsock_peer flood vsock:2:1004 | sed "s/^/to one that leaves: /" &
    written=$!
    echo "nobody listens"
    kill -9 $left
    wait $written
    vsock_peer exchange vsock:2:1005 100000 3 4
    tries=0
    while [ -n "$(ls /sys/bus/vmbus/devices)" ] && [ $tries -lt 200 ]; do
      tries=$((tries + 1))
      usleep 100000
    done
    echo "left behind: $(ls /sys/bus/vmbus/devices | wc -l)"
    mkfifo /tmp/drain /tmp/flood
    vsock_peer drain vsock:2:1006 >/tmp/drain &
    vsock_peer flood vsock:2:1007 >/tmp/flood &
    read -r word </tmp/drain
    read -r word </tmp/flood
    dmesg | grep -E "WARNING|BUG:" || true
    echo 1 >/proc/sys/kernel/sysrq
    echo c >/proc/sysrq-trigger ;;
  second) vsock_peer exchange vsock:2:1008 100000 7 8 ;;
esac'
guest "$1" "$2" --limit 420 --program "$3" --beside "${beside//BYTES/$bytes}" --answer first --answer second \
  "${life//BYTES/$bytes}" -- --device 'vsock=/tmp/vsock'

# exchanged NAME SENT RECEIVED: by the guest, and what the host has to say of it has the digests the other way round.
exchanged() {
  local digests
  digests=$(sed -nE "s/^exchanged $2 $3 ([0-9a-f]{16}) ([0-9a-f]{16})\$/\2 \1/p" "$said" | head -n 1)
  expect_line "^host: ${1:+$1: }exchanged $3 $2 ${digests:-?}\$"
}
exchanged large "$bytes" "$bytes"
expect_line '^host: many: 200 connections are open'
expect_line '^200 of 200 connections were answered'
exchanged '' 200000 300000
expect_line '^20 connections are open'
expect_line '^host: 20 of 20 connections were answered'
expect_line '^host: vsock: connections=[0-9]+ from_guest=201 from_host=21 refused=[01] broken=0'
expect_line 'vsock: the guest asks for port 1999: there is no socket'
expect_line '^host: vsock_peer failed: no answer to CONNECT'
# Each end notices that the other one has gone.
expect_line '^host: left: drained [1-9][0-9]*: the end'
expect_line '^host: unread: flooded: (Broken pipe|Connection reset by peer)'
# A writer that waits for room when its channel goes is told ENOMEM by Linux 6.1.
expect_line '^to one that leaves: flooded: (Broken pipe|Connection reset by peer|Cannot allocate memory)'
exchanged after 100000 100000
expect_line '^left behind: 0'
expect_no_line 'WARNING:|BUG:'
# The guest dies: so do its connections, and the next one's work.
expect_line '^host: write-to-dead: flooded: (Broken pipe|Connection reset by peer)'
expect_line '^host: read-of-dead: drained [0-9]+: the end'
expect_line 'the guest was reset'
expect_line '^host: reborn: exchanged 100000 100000'
expect_no_line 'WRONG BYTES'
expect_no_line 'NEVER SAID'
expect_line 'the guest powered off'
grep -E '^(large|many): ' "$said" || true
finish
