#!/usr/bin/env bash
# Sockets of Linux' hv_sock and Unix sockets of the host's: 64 MiB each way, 200 connections at once, ends that leave
# abruptly, and a guest that dies in the middle and comes again.
#   vsock_test.sh VMBUS PARTS VSOCK_PEER
# shellcheck disable=SC2016  # what the machines do is for their shells to expand
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/guest/expect.sh
source "$here/expect.sh"

bytes=$((64 << 20))
beside='v=$folder/vsock
serve() { vsock_peer "$@" | sed "s/^/$1: /" & }
serve exchange unix-listen:${v}_1000 BYTES 2 1
serve echo unix-listen:${v}_1001 200
serve drain unix-listen:${v}_1002
serve flood unix-listen:${v}_1003
serve leave unix-listen:${v}_1004 100000
serve exchange unix-listen:${v}_1005 100000 4 3
serve flood unix-listen:${v}_1006
serve drain unix-listen:${v}_1007
await_said "listening at 3000"
vsock_peer exchange guest:$v:3000 3000000 6 5
await_said "listening at 3001"
vsock_peer many guest:$v:3001 20
vmbus guest status
await_said "nobody listens"
vsock_peer drain guest:$v:3999
wait'
life='insmod /modules/hv_vmbus.ko
insmod /modules/vsock.ko
insmod /modules/hv_sock.ko
# as before said WHAT COMMAND...
timed() {
  from=$(cut -d" " -f1 /proc/uptime)
  "$@"
  echo "$2 $3: from $from to $(cut -d" " -f1 /proc/uptime)"
}
echo "ready?"
read -r word
case $word in
  first)
    timed vsock_peer exchange vsock:2:1000 BYTES 1 2
    timed vsock_peer many vsock:2:1001 200
    vsock_peer exchange vsock-listen:3000 2000000 5 6
    vsock_peer echo vsock-listen:3001 20
    echo "a port without a socket:"
    vsock_peer drain vsock:2:1999
    echo "abrupt:"
    vsock_peer leave vsock:2:1003 100000
    vsock_peer leave vsock:2:1002 100000 &
    vsock_peer flood vsock:2:1004
    kill $!
    echo "nobody listens"
    vsock_peer exchange vsock:2:1005 100000 3 4
    for left in 1 2 3 4 5 6 7 8 9 10; do
      [ -z "$(ls /sys/bus/vmbus/devices)" ] || sleep 1
    done
    ls /sys/bus/vmbus/devices | sed "s/^/left behind: /"
    vsock_peer drain vsock:2:1006 &
    vsock_peer flood vsock:2:1007 &
    sleep 1
    echo 1 >/proc/sys/kernel/sysrq
    echo c >/proc/sysrq-trigger ;;
esac'
life=${life//BYTES/$bytes}
beside=${beside//BYTES/$bytes}
guest "$1" "$2" --program "$3" --beside "$beside" --answer first --answer second "$life" \
  -- --device 'vsock=/tmp/vsock'
finish
