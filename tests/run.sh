#!/bin/bash
# Installs what is missing, builds, and runs all tests: a release build, then address and undefined-behaviour sanitizers,
# then the thread sanitizer, then the CUDA backend where nvcc is. The last line adds all runs up.
#
#     tests/run.sh            what CI runs
#     tests/run.sh --long     also long fuzzing and soak runs, and NEON under qemu
set -euo pipefail
cd "$(dirname "$0")/.."
long=false
[ "${1:-}" = "--long" ] && long=true

missing=()
need() { command -v "$1" >/dev/null 2>&1 || missing+=("$2"); }
need meson meson
need ninja ninja-build
need cc gcc
need c++ g++
need clang clang
need pkg-config pkg-config
need python3 python3
need git git
need cmake cmake
need cargo cargo
need go golang-go
need bindgen bindgen
header() { echo "#include <$1>" | cc -E -x c -include stdarg.h -include stddef.h -include setjmp.h -include stdint.h - >/dev/null 2>&1 || missing+=("$2"); }
header mimalloc.h libmimalloc-dev
header cmocka.h libcmocka-dev
ls /usr/lib/llvm-*/lib/libclang.so* >/dev/null 2>&1 || missing+=(libclang-dev)
if $long; then
  need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
  need aarch64-linux-gnu-g++ g++-aarch64-linux-gnu
  need qemu-aarch64 qemu-user
  # Debian keeps libraries of another architecture beside its own, once that architecture is known to dpkg.
  [ -e /usr/lib/aarch64-linux-gnu/libcmocka.so ] || missing+=(libcmocka-dev:arm64)
fi
if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  echo "tests/run.sh: installing ${missing[*]}"
  if [[ ${missing[*]} == *:arm64* ]]; then "${as_root[@]}" dpkg --add-architecture arm64; fi
  "${as_root[@]}" apt-get update -q >/dev/null
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}" libc6-dev >/dev/null
fi

passed=0 failed=0 skipped=0
# run FOLDER SETUP_OPTIONS -- TEST_OPTIONS: configures, builds and tests one variant.
run() {
  local folder=$1 setup=() log
  shift
  while [ "$1" != "--" ]; do setup+=("$1"); shift; done
  shift
  echo "== $folder: meson setup ${setup[*]}"
  if [ -f "$folder/build.ninja" ]; then
    meson setup --reconfigure "$folder" "${setup[@]}" >/dev/null
  else
    meson setup "$folder" "${setup[@]}" >/dev/null
  fi
  ninja -C "$folder" --quiet
  log=$folder/meson-logs/run.txt
  meson test -C "$folder" --print-errorlogs --no-rebuild "$@" | tee "$log" || true
  count() { sed -n "s/^$1: *\([0-9]*\).*/\1/p" "$log" | tail -1; }
  local ok expected bad unexpected skip timeout
  ok=$(count Ok) expected=$(count 'Expected Fail') bad=$(count Fail) unexpected=$(count 'Unexpected Pass')
  skip=$(count Skipped) timeout=$(count Timeout)
  if [ -z "$ok" ]; then
    echo "tests/run.sh: no summary in $log" >&2
    bad=1
  fi
  passed=$((passed + ${ok:-0} + ${expected:-0}))
  failed=$((failed + ${bad:-0} + ${unexpected:-0} + ${timeout:-0}))
  skipped=$((skipped + ${skip:-0}))
}

run build -Dbindings=enabled -Dtests=enabled -Dexamples=enabled -Dlong_tests=$long --
# Sanitizers take libc's allocator over and slow bindings down: library and C tests only. Suite statistics does the same many times.
run build-asan -Db_sanitize=address,undefined -Dbuildtype=debugoptimized -Db_lundef=false -Dtests=enabled \
  -Dexamples=enabled -- --no-suite bindings --no-suite packaging --no-suite long --no-suite statistics --timeout-multiplier 4
run build-tsan -Db_sanitize=thread -Dbuildtype=debugoptimized -Db_lundef=false -Dtests=enabled -Dexamples=enabled -- \
  --timeout-multiplier 4 property/threads unit/store property/store
# CUDA: the kernels are compiled for devices, and run on the emulator behind a stand-in for the driver.
if command -v nvcc >/dev/null 2>&1 || [ -x "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc" ]; then
  run build-cuda -Dcuda=enabled -Dtests=enabled -Dexamples=enabled -- --suite cuda --timeout-multiplier 2
else
  echo "skipped: the CUDA backend (no nvcc)"
fi
if $long; then
  # Under emulation a few cases of each kind.
  KVSIFT_TEST_CASES=2 run build-arm --cross-file tests/aarch64.ini -Dexamples=disabled -Dtests=enabled -- \
    --suite conformance --suite property --suite unit --suite fault --no-suite statistics --timeout-multiplier 20
else
  echo "skipped: NEON under qemu, long fuzzing and soak runs (tests/run.sh --long)"
fi

echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
