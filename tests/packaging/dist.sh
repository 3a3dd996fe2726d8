#!/bin/sh
# The archive of `meson dist` builds and tests by itself, without the repository around it.
# Usage: dist.sh BUILD_ROOT WORK_FOLDER
set -eu
build=$1
work=$2
git -C "$build" --version >/dev/null 2>&1 || { echo "skipped: git is not installed"; exit 77; }
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
meson setup "$work/build" "$work"/kvsift-* -Dexamples=disabled >"$work/setup.log"
ninja -C "$work/build" >"$work/build.log"
meson test -C "$work/build" --print-errorlogs
