#!/usr/bin/env bash
# Tries mutated input, drawn from a seed: 100,000 of each kind against the decoders, 5,000 of each over real sockets and a
# real Redis. The last line is the result.
#
#   scripts/hostile.sh [--seed N] [--count N] [--sockets N] [--debug]
#
# With --debug the program is built so that it also notices sums that overflow and assumptions that do not hold.
set -euo pipefail
cd "$(dirname "$0")/.."

seed=$(date +%s)
count=100000
sockets=5000
profile=(--release)
while [ "$#" -gt 0 ]; do
  case "$1" in
    --seed | --count | --sockets)
      [[ "${2:-}" =~ ^[0-9]+$ ]] || { echo "$1 takes a number" >&2; exit 2; }
      declare "${1#--}=$2"
      shift 2
      ;;
    --debug)
      profile=()
      shift
      ;;
    *)
      echo "usage: scripts/hostile.sh [--seed N] [--count N] [--sockets N] [--debug]" >&2
      exit 2
      ;;
  esac
done

export HOSTILE_SEED="$seed"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0
# The names of these tests all have the word in them.
HOSTILE_COUNT="$count" cargo test "${profile[@]}" --locked --lib hostile -- --nocapture >"$log" 2>&1 || failed=1
HOSTILE_SOCKETS="$sockets" cargo test "${profile[@]}" --locked --test promises hostile_mutations:: -- --nocapture >>"$log" 2>&1 || failed=1

if [ "$failed" = 1 ]; then
  cat "$log"
  echo "hostile: FAILED with seed $seed"
  exit 1
fi
grep -oE 'hostile: .*; seed .*' "$log" | sort
awk -v seed="$seed" '/hostile: .* tried/ { match($0, /: [0-9]+ tried/); n += substr($0, RSTART + 2) + 0; kinds++ }
  END { printf "hostile: %d inputs of %d kinds, seed %s: no crash, no panic, none took 5 s, nothing stored that should not be\n", n, kinds, seed }' "$log"
