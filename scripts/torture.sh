#!/usr/bin/env bash
# The torture test: real nodes and a real Redis, broken on purpose by a plan drawn from a seed, and a check of every
# answer and every frame afterwards. The last line is the result in one sentence.
#
#   scripts/torture.sh --seed 7 --duration 120 --profile gate      one run (also: soak, store, hostile, rollback)
#   scripts/torture.sh check DIR                                   checks a stored history again
#   scripts/torture.sh sum DIR...                                  adds up the results of many runs
#
# Exit status: 0 valid, 1 a promise of safety was broken, 3 something took too long or too much, 2 the run itself
# failed or proves nothing. TORTURE_BUILD=debug runs the build of the tests instead of the release.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v redis-server >/dev/null || { echo "redis-server is missing: scripts/test.sh installs it"; exit 2; }
flags=(--locked --quiet)
[ "${TORTURE_BUILD:-release}" = debug ] || flags+=(--release)
# Each client and each sender of a run is a thread or two in the nodes, and a link of a proxy in the test.
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true
case "${1:-}" in
  run | check | sum) ;;
  *) set -- run "$@" ;;
esac
# Not through `cargo test`, which has an exit status of its own.
binary=$(cargo test "${flags[@]}" --test torture --no-run --message-format=json |
  sed -n 's/.*"name":"torture".*"executable":"\([^"]*\)".*/\1/p')
exec "$binary" "$@"
