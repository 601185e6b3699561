#!/usr/bin/env bash
# Every shell script of the tree passes shellcheck.
set -euo pipefail
cd "$(dirname "$0")/../.."
if ! command -v shellcheck >/dev/null; then
  echo 'shellcheck is not installed (script/bootstrap --ci installs it)'
  exit 77
fi
scripts=()
while IFS= read -r file; do
  IFS= read -r first <"$file" || true
  if [[ $first =~ ^'#!'.*sh ]]; then
    scripts+=("$file")
  fi
done < <(find . \( -path ./.git -o -path './build*' \) -prune -o -type f \
  \( -perm -u+x -o -name '*.sh' \) -print | sort)
if ((${#scripts[@]} == 0)); then
  echo 'found no shell script to check'
  exit 1
fi
shellcheck --external-sources "${scripts[@]}"
