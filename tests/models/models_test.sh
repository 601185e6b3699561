#!/usr/bin/env bash
# Has Spin try every interleaving of the models: whole they hold, and with each of their faults they do not.
#   models_test.sh
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
for command in spin gcc; do
  command -v "$command" >/dev/null || { echo "there is no $command: install what script/bootstrap --list names" && exit 77; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failures=0
options=()

complain() {
  echo "NOT SO: $*"
  failures=$((failures + 1))
}

# try NAME HOLDS|FAILS [VARIABLE=VALUE]...
try() {
  local name=$1 wanted=$2 found
  shift 2
  env "$@" ./pan -m100000 -w22 "${options[@]}" >said || true
  found=unclear
  ! grep -qE 'errors: 0$' said || found=HOLDS
  ! grep -qE 'errors: [1-9][0-9]*$' said || found=FAILS
  # Not all was seen: neither outcome counts.
  ! grep -qE 'max search depth too small|out of memory|aborted' said || found=unclear
  if [[ $found != "$wanted" ]]; then
    cat said
    complain "$name: $found, not $wanted"
  else
    echo "$name: $found$(sed -nE 's/^ *([0-9]+) states, stored$/, \1 states/p' said)"
  fi
}


# make MODEL: the program that tries everything. FAULTS: what can be planted, each "NAME NUMBER".
make() {
  spin -a "$here/$1.pml"
  gcc -O2 -w -DSAFETY -DNOCLAIM -DCOLLAPSE -o pan pan.c
  mapfile -t FAULTS < <(
    sed -n '/^#define NO_FAULT/,/^byte fault/s/^#define \([A-Z0-9_]*\) \([1-9][0-9]*\).*/\1 \2/p' "$here/$1.pml")
}

make ring
((${#FAULTS[@]} == 16)) || complain "${#FAULTS[@]} faults in ring.pml, not 16"
try ring HOLDS
try 'ring, stubborn writer' HOLDS STUBBORN=1
for fault in "${FAULTS[@]}"; do
  try "ring, ${fault% *}" FAILS "FAULT=${fault#* }"
done
try 'ring, stubborn writer, R7_EARLY' FAILS FAULT=5 STUBBORN=1

make channel
options=(-E) # what an end must be, the model says itself
((${#FAULTS[@]} == 23)) || complain "${#FAULTS[@]} faults in channel.pml, not 23"
try 'channel, twice' HOLDS OFFERS=2 ENABLES=2
try 'channel, a packet' HOLDS SENDS=1
try 'channel, packets' HOLDS STEADY=1 SENDS=2 PEEKS=1
try 'channel, a death' HOLDS MORTAL=1
if [[ -n ${KMCL_MODELS_MORE:-} ]]; then # minutes, and a gigabyte
  try 'channel, an answer' HOLDS ANSWERS=1 PEEKS=1
  try 'channel, a packet and both twice' HOLDS SENDS=1 OFFERS=2 ENABLES=2
  try 'channel, a packet and a death' HOLDS SENDS=1 MORTAL=1
  try 'channel, packets and answers' HOLDS STEADY=1 SENDS=2 ANSWERS=1
fi
# The smallest world in which each can be seen; the others need no more than one life.
declare -A worlds=(
  [REFUSE_AND_FORGET]='STEADY=1 MORTAL=1' [NO_END_AT_DEATH]='STEADY=1 MORTAL=1' [SEND_UNLOCKED]='SENDS=1'
  [BELL_RELAXED]='STEADY=1 SENDS=1' [FLAG_LAST]='STEADY=1 SENDS=1' [EDGE_LAST]='STEADY=1 SENDS=2 PEEKS=1'
  [NO_START_TURN]='STEADY=1 SENDS=1' [LISTEN_LAST]='STEADY=1 SENDS=1' [NO_ANNOUNCEMENT]='OFFERS=2'
  [NO_OPEN_WHILE_DETACHING]='ENABLES=2'
)
for fault in "${FAULTS[@]}"; do
  read -ra world <<<"${worlds[${fault% *}]:-}"
  try "channel, ${fault% *}" FAILS "FAULT=${fault#* }" "${world[@]}"
done
exit "$((failures > 0))"
