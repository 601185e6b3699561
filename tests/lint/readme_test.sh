#!/usr/bin/env bash
# README.md, CONTRIBUTING.md and docs/vmm.md say what is true: quoted code stands in the file it is quoted from, links
# lead somewhere, and each script/test command in them selects at least one test.
#   readme_test.sh BUILD-DIRECTORY
set -euo pipefail
build=$1
cd "$(dirname "$0")/../.."
failures=0
complain() {
  printf '%s\n' "$*"
  failures=$((failures + 1))
}

# A block after <!-- quoted: FILE --> stands in FILE word for word.
for page in README.md docs/vmm.md; do
  quoted=0
  while IFS= read -r file; do
    quoted=$((quoted + 1))
    block=$(awk -v mark="<!-- quoted: $file -->" '
      $0 == mark { wanted = 1; next }
      wanted == 1 && /^```/ { wanted = 2; next }
      wanted == 2 && /^```/ { exit }
      wanted == 2 { print }' "$page")
    if [[ -z $block ]]; then
      complain "$page: no code after the mark for $file"
    elif [[ $'\n'$(<"$file")$'\n' != *$'\n'"$block"$'\n'* ]]; then
      complain "$page: the code quoted from $file is not in it"
    fi
  done < <(sed -n 's/^<!-- quoted: \(.*\) -->$/\1/p' "$page")
  ((quoted >= 1)) || complain "$page: quotes no file"
done

for page in README.md CONTRIBUTING.md; do
  while IFS= read -r target; do
    [[ $target =~ ^(https?:|#) || -e ${target%%#*} ]] || complain "$page: dead link to $target"
  done < <(grep -oE '\]\([^)]+\)' "$page" | sed -E 's/^\]\(//; s/\)$//')

  while IFS= read -r script; do
    [[ -x $script ]] || complain "$page: $script is not there, or cannot be run"
  done < <(grep -oE '(script/[a-z][a-z-]*|\.ci/run)' "$page" | sort -u)

  selections=0
  while read -r option pattern; do
    selections=$((selections + 1))
    count=$(ctest --test-dir "$build" --show-only "$option" "$pattern" |
      sed -n 's/^Total Tests: //p')
    ((count > 0)) || complain "$page: 'script/test $option $pattern' selects no test"
  done < <(grep -oE 'script/test -[RL] [A-Za-z_0-9|.]+' "$page" | sed 's/^script.test //' | sort -u)
  ((selections > 0)) || complain "$page: names no test selection"

  while IFS= read -r preset; do
    grep -q "\"name\": \"$preset\"" CMakePresets.json || complain "$page: no preset $preset"
  done < <(grep -oE -e '--preset [a-z]+' "$page" | sed 's/^--preset //' | sort -u)
done
exit $((failures > 0))
