#!/usr/bin/env bash
# script/soak refuses what makes no sense, and reports what failed, also when it is interrupted.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

failures=0
complain() {
  echo "NOT SO: $*"
  failures=$((failures + 1))
}
# refused ARGUMENT...
refused() {
  local status=0
  script/soak "$@" >"$work/said" 2>&1 || status=$?
  ((status == 2)) || complain "script/soak $*: exit code $status, not 2"
  grep -q '^script/soak: ' "$work/said" || complain "script/soak $* does not say why"
}

refused
refused 0
refused ten
refused 1 2
refused 1 --only nothing
refused 1 --report
refused 1 --seed 0
refused 1 --often
script/soak --help >"$work/said"
grep -q 'MINUTES' "$work/said" || complain '--help says nothing'
script/soak --list >"$work/said"
grep -q '^sim ' "$work/said" || complain '--list has no sim'

# A tree of its own with a program that fails at once, and then never ends.
mkdir -p "$work/tree/script" "$work/tree/build/release/tests/kill"
cp script/soak "$work/tree/script"
program=$work/tree/build/release/tests/kill/kill_test
cat >"$program" <<'END'
#!/usr/bin/env bash
if [[ -e $0.was ]]; then
  kill -INT "$PPID"
  exec sleep 1000
fi
touch "$0.was"
echo 'again with: kill_test --seed 7'
exit 1
END
chmod +x "$program"
status=0
timeout 60 "$work/tree/script/soak" 1 --no-build --seed 5 --only kill --only sim --report "$work/report" \
  >"$work/said" 2>&1 || status=$?
cat "$work/said"
((status == 1)) || complain "a failure leads to exit code $status, not 1"
for format in md json; do
  [[ -s $work/report/report.$format ]] || complain "there is no report.$format"
  grep -q -e 'kill_test --seed 7' "$work/report/report.$format" ||
    complain "report.$format does not say how it fails again"
  grep -q 'skipped: .*kmcl_sim is not built' "$work/report/report.$format" ||
    complain "report.$format does not say what was skipped"
done
grep -q '"interrupted": true' "$work/report/report.json" || complain 'report.json does not say that it was interrupted'
if command -v python3 >/dev/null; then
  python3 -m json.tool "$work/report/report.json" >/dev/null || complain 'report.json is no JSON'
fi
exit "$((failures > 0))"
