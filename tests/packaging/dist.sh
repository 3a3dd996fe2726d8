#!/bin/sh
# The archive of `meson dist` builds and tests by itself, without the repository around it. Random cases (suite property) are
# left to the tree it was made of, unless all are asked for. Built with clang where it is here: the tree is built with cc.
# Usage: dist.sh BUILD_ROOT WORK_FOLDER [all]
set -eu
build=$1
work=$2
if [ "${3-}" = all ]; then set --; else set -- --no-suite property; fi
command -v git >/dev/null || { echo "skipped: git is not installed"; exit 77; }
rm -rf "$work"
mkdir -p "$work"
meson dist -C "$build" --no-tests --allow-dirty --formats gztar >"$work/dist.log" 2>&1 || {
  grep -q 'only works on version-controlled\|Dist currently only works' "$work/dist.log" && {
    echo "skipped: this is no git checkout"
    exit 77
  }
  cat "$work/dist.log"
  exit 1
}
tar -xf "$(ls "$build"/meson-dist/*.tar.gz)" -C "$work"
if command -v clang++ >/dev/null; then export CC=clang CXX=clang++; else echo "skipped: clang is not installed"; fi
meson setup "$work/build" "$work"/kvsift-* -Dbindings=disabled >"$work/setup.log"
ninja -C "$work/build" >"$work/build.log" || { tail -50 "$work/build.log"; exit 1; }
# Its own packaging tests would begin all over.
meson test -C "$work/build" --print-errorlogs --no-suite packaging "$@"
