#!/usr/bin/env bash
# Runs every test, installing first what they need and this machine lacks: redis-server.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v redis-server >/dev/null; then
  echo "redis-server is missing: installing it"
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -q
  # Without the service: the tests start their own on free ports.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends redis-server
fi

# The longest tests wait for time limits of the contract; more of them at once cost nothing.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-6}"
exec cargo test --locked "$@"
