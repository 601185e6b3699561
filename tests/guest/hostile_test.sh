#!/usr/bin/env bash
# A guest that does everything that it should not, on KVM's own interrupt controllers, whose signals need no exit; and
# one that behaves: none of its signals comes as an exit.
#   hostile_test.sh VMBUS PARTS BARE_GUEST
# shellcheck disable=SC2016,SC2119  # what the machines do is for their shells to expand
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/guest/expect.sh
source "$here/expect.sh"

guest "$1" "$2" --bare "$3" --cmdline 'seed=7 attacks=400' --beside 'vmbus vm --json --kernel /vmlinuz --cpus 1 \
    --memory 32M --device echo --synic kernel --control "" --cmdline "calm=1 seed=1 attacks=300"' \
  '' -- --cpus 2 --memory 32M --no-reboot --synic kernel --device echo,heartbeat=20,shutdown,timesync,kvp,vss,fcopy
expect_count '^(host: )?echoes (300|400)' 2
expect_line '^host: .*"signal_exits":0[,}]'
expect_line '^host: .*"synic":"kernel"'
expect_line 'refused so far'
expect_no_line 'FAILED'
expect_line 'the guest powered off'
lines=$(grep -c 'refused so far' "$said")
((lines < 200)) || complain "$lines lines about what was refused"
finish
