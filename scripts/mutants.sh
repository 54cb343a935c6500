#!/usr/bin/env bash
# Tests the torture test: builds payrelay with a deliberate bug, and it must find it; and without any, and it must not.
#
#   scripts/mutants.sh              every patch of tests/torture/mutants, with the seeds 1 to 5
#   scripts/mutants.sh M3 M6        these
#
# The bugs are patches, applied to a copy of the tree and built there; one that no longer applies fails. A patch names
# the profile that is to find it, within ten minutes. SEEDS="1 2" and DURATION=60 (seconds) change what is run; what
# each run said goes to OUT [default: a temporary directory]. The last line is the result.
set -euo pipefail
cd "$(dirname "$0")/.."

export TORTURE_BUILD=debug
read -ra seeds <<<"${SEEDS:-1 2 3 4 5}"
duration="${DURATION:-60}"
limit=600
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out="${OUT:-$work/out}"
mkdir -p "$out" "$work/tree"

say() { printf '%s\n' "$*"; }
stop() { say "$*"; exit 1; }

# What is built without our own sources is the same there and here.
target="${CARGO_TARGET_DIR:-target}/debug"
scripts/torture.sh run --help >/dev/null || stop "failed: the torture test cannot be built"
mkdir -p "$work/target/debug/deps"
cp -a "$target/.fingerprint" "$target/build" "$work/target/debug/"
find "$target/deps" -maxdepth 1 \( -name '*.rlib' -o -name '*.rmeta' -o -name '*.so' -o -name '*.d' \) \
  -exec cp -a -t "$work/target/debug/deps" {} +
cp -a Cargo.toml Cargo.lock src tests "$work/tree/"

# Builds the tree as it now is, as program $1.
build() {
  (cd "$work/tree" && CARGO_TARGET_DIR="$work/target" cargo build --locked --quiet) || stop "failed: $1 cannot be built"
  cp "$work/target/debug/payrelay" "$work/$1"
}

# Runs program $1 in profile $2 with seed $3; the exit status is the torture test's.
run() {
  local log="$out/$1-$2-$3.log" status=0
  timeout "$4" scripts/torture.sh run --profile "$2" --seed "$3" --duration "$duration" --server "$work/$1" \
    --out "$out/$1-$2-$3" >"$log" 2>&1 || status=$?
  [ "$status" = 1 ] || [ "$status" = 3 ] || rm -rf "${out:?}/$1-$2-$3"
  return "$status"
}

patches=()
for name in "${@:-M}"; do
  for patch in tests/torture/mutants/"$name"*.patch; do
    [ -e "$patch" ] || stop "failed: there is no mutant $name"
    patches+=("$patch")
  done
done

found=0
wanted=0
declare -A ran=()
for patch in "${patches[@]}"; do
  name=$(basename "$patch" .patch)
  profile=$(sed -n 's/^profile: //p' "$patch")
  (cd "$work/tree" && git apply "$OLDPWD/$patch") || stop "failed: $name no longer applies"
  build "$name"
  (cd "$work/tree" && git apply --reverse "$OLDPWD/$patch")
  wanted=$((wanted + 1))
  start=$SECONDS
  result="not found"
  for seed in "${seeds[@]}"; do
    left=$((limit - SECONDS + start))
    [ "$left" -gt 0 ] || break
    status=0
    ran["$profile $seed"]=1
    run "$name" "$profile" "$seed" "$left" || status=$?
    if [ "$status" = 1 ] || [ "$status" = 3 ]; then
      result="found with seed $seed of $profile after $((SECONDS - start)) s"
      found=$((found + 1))
      break
    fi
  done
  say "$name: $result: $(tail -n 1 "$out/$name-$profile-$seed.log" 2>/dev/null)"
done

build unmutated
passed=0
for pair in "${!ran[@]}"; do
  read -r profile seed <<<"$pair"
  status=0
  run unmutated "$profile" "$seed" "$limit" || status=$?
  [ "$status" != 0 ] || passed=$((passed + 1))
  say "unmutated: $(tail -n 1 "$out/unmutated-$profile-$seed.log" 2>/dev/null)"
done

say "$found of $wanted mutants found; without a mutant $passed of ${#ran[@]} runs are valid"
[ "$found" = "$wanted" ] && [ "$passed" = "${#ran[@]}" ]
