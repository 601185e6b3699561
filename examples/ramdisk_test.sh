#!/usr/bin/env bash
# The RAM disk survives: 10,000 random reads and writes are verified against a model while the client pauses
# and restarts the disk, and the server is replaced by another process 50 times.
#   ramdisk_test.sh SERVER CLIENT [OPERATIONS [HANDOVERS]]
set -euo pipefail
server=$1
client=$2
operations=${3:-10000}
handovers=${4:-50}
work=$(mktemp -d)
serving=
client_process=
clean_up() {
  [[ -z $client_process ]] || kill -KILL "$client_process" 2>/dev/null || true
  [[ -z $serving ]] || kill -KILL "$serving" 2>/dev/null || true
  rm -rf "$work"
}
trap clean_up EXIT
export KMCL_BUS=unix:$work/bus

fail() {
  printf '%s\n' "$*" "the servers said:" >&2
  cat "$work/server" >&2
  printf '%s\n' "the client said:" >&2
  cat "$work/client" >&2
  exit 1
}

# All servers write to one pipe, and its end is the end of the last one.
next_server() { # WHAT
  local word
  read -r -t 60 word serving <&3 || fail "$1: no server"
  [[ $word == serving && $serving =~ ^[0-9]+$ ]] || fail "$1: a server said '$word $serving'"
}

mkfifo "$work/servers" "$work/answers" "$work/until"
"$server" "$work/image" >"$work/servers" 2>"$work/server" &
serving=$!
exec 3<"$work/servers"
next_server 'the first server'

"$client" "$operations" "${KMCL_SEED:-1}" <"$work/until" >"$work/answers" 2>"$work/client" &
client_process=$!
exec 4>"$work/until" 5<"$work/answers"
read -r -t 60 line <&5 || fail 'the client does not work'
[[ $line == working ]] || fail "the client's first line is '$line'"

for ((i = 1; i <= handovers; i++)); do
  before=$serving
  kill -USR1 "$serving" || fail "handover $i: the server is gone"
  next_server "handover $i"
  [[ $serving != "$before" ]] || fail "handover $i: it is the same process"
done

exec 4>&-
read -r -t 60 line <&5 || fail 'the client says nothing'
status=0
wait "$client_process" || status=$?
client_process=
((status == 0)) || fail "the client ended with $status: $line"
echo "$line, $handovers handovers"
done_operations=${line%% *}
((done_operations >= operations)) || fail "only $done_operations operations"

kill -TERM "$serving"
serving=
if read -r -t 60 line <&3; then fail "a server said '$line'"; fi
[[ ! -s $work/server && ! -s $work/client ]] || fail 'somebody complained'
[[ ! -e $work/bus ]] || fail 'the last server left its socket behind'
