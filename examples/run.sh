#!/bin/sh
# Builds kvsift and runs the decode loop. Arguments go to it: examples/run.sh --method quest --budget 64
set -eu
cd "$(dirname "$0")/.."
root=$(pwd)

missing=""
need() { command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }
need meson meson
need ninja ninja-build
need cc gcc
need c++ g++
need pkg-config pkg-config
echo '#include <mimalloc.h>' | cc -E - >/dev/null 2>&1 || missing="$missing libmimalloc-dev"
if [ -n "$missing" ]; then
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "run.sh: please install:$missing" >&2
    exit 1
  fi
  as_root=""
  [ "$(id -u)" -eq 0 ] || as_root=sudo
  echo "run.sh: installing$missing" >&2
  $as_root apt-get update -q >&2
  # shellcheck disable=SC2086
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing libc6-dev >&2
fi

[ -f build/build.ninja ] || meson setup build >&2
ninja -C build examples/decode/decode >&2
cd - >/dev/null
exec "$root/build/examples/decode/decode" "$@"
