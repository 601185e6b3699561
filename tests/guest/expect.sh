# shellcheck shell=bash disable=SC2154  # $here is the test's
# What the guest tests have in common: run a guest, look at what it said.

said=$(mktemp)
trap 'rm -f "$said"' EXIT
failures=0

complain() {
  echo "NOT SO: $*"
  failures=$((failures + 1))
}

# guest VMBUS PARTS COMMANDS [-- ARGUMENT OF vmbus vm]...: runs it; what it said is in $said. Ends the test where
# there can be no guest.
guest() {
  local vmbus=$1 parts=$2 status=0
  shift 2
  "$here/guest" --vmbus "$vmbus" --parts "$parts" "$@" >"$said" || status=$?
  if ((status == 77)); then
    tail -n 1 "$said"
    exit 77
  fi
  exit_code=$status
}

# A regular expression that a line, or part of one, matches; or none does.
expect_line() { grep -qE -- "$1" "$said" || complain "no line says: $1"; }
expect_no_line() { ! grep -E -- "$1" "$said" || complain "a line says: $1"; }
# expect_count REGEX NUMBER
expect_count() {
  local seen
  seen=$(grep -cE -- "$1" "$said" || true)
  ((seen == $2)) || complain "$seen lines say $1, not $2"
}

# finish [EXIT CODE]: of vmbus vm; 0 unless said otherwise.
finish() {
  ((exit_code == ${1:-0})) || complain "vmbus vm exited with $exit_code"
  ((failures == 0)) || cat "$said"
  exit "$((failures > 0))"
}
