#!/usr/bin/env bash
# Runs every test, installing first what they need and this machine lacks: redis-server, and Lua with LuaSocket. The
# receivers in Python and Node.js are skipped, and named, where there is no python3 or node; so is Redis over TLS where
# there is no openssl, or a redis-server without TLS.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
lua5.4 -e 'require "socket"' 2>/dev/null || missing+=(lua5.4 lua-socket)
if [ "${#missing[@]}" -gt 0 ]; then
  echo "missing, so installing: ${missing[*]}"
  as_root=()
  [ "$(id -u)" = 0 ] || as_root=(sudo)
  "${as_root[@]}" apt-get update -q
  # Without Redis' service: the tests start their own on free ports.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

# Six tests at once may have more than a thousand sockets.
case "$(ulimit -n)" in
  unlimited | [4-9]??? | ?????*) ;;
  *) ulimit -S -n 4096 || true ;;
esac
# Many tests wait for time limits of the contract; more of them at once cost nothing.
export RUST_TEST_THREADS="${RUST_TEST_THREADS:-6}"
exec cargo test --locked "$@"
