#!/usr/bin/env bash
# docs/api.md says what is true: each function of the public headers stands in its table, under the header
# that declares it; each function, callback, rule and documented status has tests, and they exist.
#   api_table_test.sh BUILD-DIRECTORY
# shellcheck disable=SC2016  # backquotes are the page's
set -euo pipefail
program=$1/tests/contract/contract_test
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Suite.Name of each test, without the names of instantiations and parameters.
[[ -x $program ]] || { echo "$program is not built" && exit 1; }
"$program" --gtest_list_tests | awk '
  /^[^ ]/ { suite = $1; sub(/^[^\/]*\//, "", suite); sub(/\/.*/, ".", suite) }
  /^  / { name = $1; sub(/\/.*/, "", name); print suite name }' | sort -u >"$work/tests"

# HEADER FUNCTION, and FUNCTION STATUS, as the headers have them: statuses stand in the comment before a
# declaration, each on a line of its own.
for header in include/kmcl/*.h; do
  awk -v header="${header#include/kmcl/}" -v functions="$work/functions" -v statuses="$work/statuses" '
    /^\/\*/ { count = 0; comment = 1 }
    comment && /^ \*   STATUS_[A-Z0-9_]+/ { match($2, /^[A-Z0-9_]+/); found[++count] = substr($2, 1, RLENGTH) }
    /\*\// { comment = 0; next }
    comment { next }
    { sub(/\/\*.*/, "") }
    /^(typedef|#)/ { next }
    match($0, /(^|[^A-Za-z_])Vmb[A-Za-z]+\(/) && /^[A-Za-z_]/ {
      name = substr($0, RSTART, RLENGTH); gsub(/[^A-Za-z]/, "", name)
      print header, name >>functions
      for (i = 1; i <= count; i++)
        if (found[i] != "STATUS_SUCCESS") print name, found[i] >>statuses
      count = 0
    }' "$header"
done
sort -u "$work/functions" -o "$work/functions"
sort -u "$work/statuses" -o "$work/statuses"

rules="2.4 2.5 3.4 4.1 4.2a 4.2b 4.2c 4.2d 4.2e $(echo S{1..12} C{1..11} C4b B{1..14})
  $(echo 4.5{a..i} 4.6{a..e} 4.7.{1..6} 4.8a 4.8b 5.1{a..c} 5.2a 5.2b 5.3{a..c} 5.4a 5.4b 5.5 5.6{a..g} 5.7{a..c})
  $(echo 6.1{a..c} 6.3{a..c} 6.4 6.5 6.6{a..c} 7.{1..5} 8.{1..6} 9.{2..7})"

check() { # PAGE: prints what is wrong with it
  local page=$1
  # Cells without blanks and backquotes, a section's rows together: SECTION|first|second|...
  awk -F' *[|] *' -v OFS='|' '
    /^## / { section = $0; sub(/^## /, "", section); next }
    /^\| / && $2 != "#" && $2 !~ /^(-+|rule|function)$/ {
      line = section
      for (i = 2; i < NF; i++) line = line OFS $i
      gsub(/`/, "", line); print line
    }' "$page" >"$work/rows"

  # The 73 functions and 11 callbacks, numbered; nothing twice.
  [[ $(awk -F'|' '$1 == "Functions" { print $2 }' "$work/rows") == "$(seq 73)" ]] ||
    echo "the functions are not numbered 1 to 73"
  [[ $(awk -F'|' '$1 == "Callbacks" { print $2 }' "$work/rows") == "$(seq 11)" ]] ||
    echo "the callbacks are not numbered 1 to 11"
  awk -F'|' '$1 == "Statuses" { print $2 " " $3; next } { print ($1 == "Rules" ? $2 : $3) }' "$work/rows" |
    sort | uniq -d | sed 's/$/: has two rows/'

  # What the headers declare and the page does not know, and the other way round.
  awk -F'|' '$1 == "Functions" && $3 ~ /^Vmb/ { print $4, $3 }' "$work/rows" | sort >"$work/listed"
  comm -23 "$work/functions" "$work/listed" | sed 's/$/: declared, but has no row under that header/'
  comm -13 "$work/functions" "$work/listed" | sed 's/$/: has a row, but is not declared/'
  awk -F'|' '$1 == "Statuses" { print $2, $3 }' "$work/rows" | sort >"$work/listed"
  comm -23 "$work/statuses" "$work/listed" | sed 's/$/: documented, but has no row/'
  comm -13 "$work/statuses" "$work/listed" | sed 's/$/: has a row, but no header documents it/'
  local rule
  for rule in $rules; do
    grep -q "^Rules|$rule|" "$work/rows" || echo "rule $rule has no row"
  done

  # Tests: at least one in each row, and all of them there. A star at the end stands for any rest.
  awk -F'|' -v tests="$work/tests" '
    BEGIN { while ((getline name <tests) > 0) known[name] = 1 }
    { what = $1 == "Statuses" ? $2 " " $3 : $1 == "Rules" ? "rule " $2 : $3 }
    $NF == "" { print what ": no test"; next }
    {
      split($NF, wanted, " ")
      for (i in wanted) {
        word = wanted[i]; hit = word in known
        if (sub(/\*$/, "", word)) for (name in known) if (index(name, word) == 1) { hit = 1; break }
        if (!hit) print what ": no such test: " wanted[i]
      }
    }' "$work/rows"
}

failures=0
while IFS= read -r line; do
  printf 'docs/api.md: %s\n' "$line"
  failures=$((failures + 1))
done < <(check docs/api.md)

# The check itself: each way in which the page can go wrong is noticed.
expect_complaint() { # SED-SCRIPT COMPLAINT
  sed "$1" docs/api.md >"$work/page"
  if [[ $(check "$work/page") != *"$2"* ]]; then
    printf 'not noticed: %s (wanted: %s)\n' "$1" "$2"
    failures=$((failures + 1))
  fi
}
expect_complaint '/`VmbPacketSend` | kmcl.h/d' 'kmcl.h VmbPacketSend: declared, but has no row'
expect_complaint 's/`VmbPacketSend` | kmcl.h/`VmbPacketSend` | nt.h/' 'nt.h VmbPacketSend: has a row, but is not declared'
expect_complaint 's/`VmbPacketFree`/`VmbPacketDrop`/' 'VmbPacketDrop: has a row, but is not declared'
expect_complaint '/`VmbChannelEnable` | STATUS_NO_SUCH_DEVICE/d' 'VmbChannelEnable STATUS_NO_SUCH_DEVICE: documented'
expect_complaint '/^| B4 /d' 'rule B4 has no row'
expect_complaint 's/BatchRules.B4\*/BatchRules.B40*/' 'rule B4: no such test'
expect_complaint 's/^\(| 11 | `EvtChannelPnpFailure` |\).*/\1 `ClientStates.C4` |/' 'EvtChannelPnpFailure: no such test'
expect_complaint 's/^\(| B4 .*|\).*|$/\1 |/' 'rule B4: no test'
expect_complaint '/^| 12 | `VmbChannelInitSetFlags`/p' 'VmbChannelInitSetFlags: has two rows'

((failures == 0)) || exit 1
echo "docs/api.md: $(wc -l <"$work/functions") functions, $(wc -l <"$work/statuses") statuses, $(wc -l <"$work/tests") tests"
