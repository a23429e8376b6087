#!/usr/bin/env bash
# Does what the README says on a machine that has only Go, git and a Docker engine: clones this repository
# anew, runs the demo, and runs the tests. Ends with 0 when all of it worked.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
dir=$(mktemp -d)
trap 'chmod -R u+w "$dir"; rm -rf "$dir"' EXIT

echo "== clone"
git clone -q "$here" "$dir/fairlead"
cd "$dir/fairlead"
export GOCACHE="$dir/cache" # nothing that was built before counts

echo "== go tool task demo"
go tool task demo 2>&1 | tee "$dir/demo.log"
shown() {
  grep -qE "$1" "$dir/demo.log" || { echo "the demo did not show: $1" >&2; exit 1; }
}
shown '^== The page at the Service.s address, http://[0-9.]+/: .*Hello from Fairlead'
shown '^Plan: [0-9]+ to add, [0-9]+ to change, [0-9]+ to destroy\.$'
shown '^== Requests during the rollout: [1-9][0-9]*, failed: 0$'

echo "== go tool task test"
go tool task test

echo "== accepted"
