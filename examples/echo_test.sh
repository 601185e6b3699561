#!/usr/bin/env bash
# The two example programs talk to each other, as README.md says they do.
#   echo_test.sh SERVER CLIENT
set -euo pipefail
server=$1
client=$2
work=$(mktemp -d)
server_process=
clean_up() {
  [[ -z $server_process ]] || kill -KILL "$server_process" 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT
export KMCL_BUS=unix:$work/bus

fail() {
  printf '%s\n' "$*" "the server said:" >&2
  cat "$work/errors" >&2
  exit 1
}

mkfifo "$work/output"
"$server" >"$work/output" 2>"$work/errors" &
server_process=$!
exec 3<"$work/output"
read -r line <&3 || fail 'the server ended before it served'
[[ $line == serving ]] || fail "the server's first line is '$line'"

answer=$("$client") || fail 'the first client failed'
[[ $answer == 'Hello over VMBus.' ]] || fail "the first client got '$answer'"
answer=$("$client" 'seven b') || fail 'the second client failed'
[[ $answer == 'seven b' ]] || fail "the second client got '$answer'"

kill -TERM "$server_process"
status=0
wait "$server_process" || status=$?
server_process=
((status == 0)) || fail "the server ended with $status"
[[ ! -s $work/errors ]] || fail 'the server complained'
[[ ! -e $work/bus ]] || fail 'the server left its socket behind'

if "$client" 2>"$work/errors"; then fail 'a client without a server succeeded'; fi
grep -q STATUS_OBJECT_NAME_NOT_FOUND "$work/errors" || fail 'the reason is not named'
