#!/usr/bin/env bash
# Each fault that script/mutations plants still has its place in the sources.
set -euo pipefail
cd "$(dirname "$0")/../.."
script/mutations --check
