#!/bin/bash
# Builds the CUDA backend on a machine with a GPU, runs its tests and benchmarks there, and leaves the results as JSON.
# Takes less than ten minutes; what does not fit is left out and said so.
#
#     tests/cuda/run_on_device.sh [FOLDER]    results go to FOLDER, else to $OUT, else to ./results
#
# What matters most comes first: correctness, the figures, then the sanitizers. KVSIFT_CUDA_STAGES='bench|sdpa' runs those stages
# alone (tests, decode, offloaded_decode, bench, sdpa, offload, compress, ncu, ncu_source, memcheck, racecheck).
# With KVSIFT_CUDA_MOCK=1 everything runs on the tests' emulator instead: that tries this script where there is no GPU.
# KVSIFT_CUDA_BUILD names the build folder (build-cuda). Ends with 77 and one line where there is no device.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
results=${1:-${OUT:-results}}
build=${KVSIFT_CUDA_BUILD:-$root/build-cuda}
mock=${KVSIFT_CUDA_MOCK:-0}
cuda_home=${CUDA_HOME:-/usr/local/cuda}
limit=570
began=$SECONDS
left() { echo $((limit - (SECONDS - began))); }
# stage NAME SECONDS COMMAND...: runs it within what is left, and notes how it ended.
stages=()
stage() {
  local name=$1 most=$2 from=$SECONDS status=0
  shift 2
  [[ $name =~ ^(${KVSIFT_CUDA_STAGES:-.*})$ ]] || return 0
  [ "$most" -lt "$(left)" ] || most=$(left)
  echo "== $name"
  if [ "$most" -lt 5 ]; then
    status=124
  else
    timeout "$most" "$@" || status=$?
  fi
  [ $status -ne 124 ] || echo "$name: did not end in time"
  stages+=("{\"stage\": \"$name\", \"status\": $status, \"seconds\": $((SECONDS - from))}")
  return $status
}

probe=$(mktemp -d)
trap 'rm -rf "$probe"' EXIT
cat >"$probe/probe.c" <<'C'
#include <dlfcn.h>
int main(void) {
  void *driver = dlopen("libcuda.so.1", RTLD_NOW);
  int (*init)(unsigned) = driver ? (int (*)(unsigned))dlsym(driver, "cuInit") : 0;
  int (*count)(int *) = driver ? (int (*)(int *))dlsym(driver, "cuDeviceGetCount") : 0;
  int devices = 0;
  return !(init && count && init(0) == 0 && count(&devices) == 0 && devices > 0);
}
C
if [ "$mock" = 0 ] && { ! cc -o "$probe/probe" "$probe/probe.c" -ldl || ! "$probe/probe"; }; then
  echo "run_on_device.sh: skipped: no CUDA device on this machine (KVSIFT_CUDA_MOCK=1 tries the script on the emulator)"
  exit 77
fi
export PATH=$PATH:$cuda_home/bin
mkdir -p "$results" || exit 1
results=$(cd "$results" && pwd)

tests=enabled
if ! pkg-config --exists cmocka && [ "$(id -u)" -eq 0 ]; then
  # Without a network apt-get would try for minutes.
  timeout 15 sh -c 'apt-get update -q && apt-get install -y -q --no-install-recommends libcmocka-dev' >/dev/null 2>&1
fi
if ! pkg-config --exists cmocka; then
  echo "skipped: the tests, for want of cmocka (PKG_CONFIG_PATH may name one); the benchmarks run"
  tests=disabled
fi

build_all() {
  local options=(-Dcuda=enabled "-Dtests=$tests" -Dexamples=auto)
  if [ -f "$build/build.ninja" ]; then
    meson setup --reconfigure "$build" "$root" "${options[@]}" >/dev/null || return 1
  else
    meson setup "$build" "$root" "${options[@]}" >/dev/null || return 1
  fi
  if [ $tests = disabled ]; then
    ninja -C "$build" --quiet libkvsift.a examples/decode/decode || return 1
    bench=$probe
    cd "$root/tests/cuda" || return 1
    local with=(-O2 -I"$root/include" -isystem "$cuda_home/include" gpu.c "$build/libkvsift.a" -ldl -lm -lpthread)
    cc -o "$bench/bench_device" bench_device.c bench_world.c "${with[@]}" || return 1
    cc -o "$bench/bench_offload" bench_offload.c bench_offload_steps.c "${with[@]}" || return 1
    cc -o "$bench/bench_compress" bench_compress.c "${with[@]}" || return 1
  else
    # shellcheck disable=SC2046
    ninja -C "$build" --quiet examples/decode/decode $(python3 "$root/tests/cuda/run_tests.py" --build "$build" --targets) ||
      return 1
    bench=$build/tests/cuda
  fi
}
bench=
from=$SECONDS
echo "== build"
build_all || { echo "run_on_device.sh: the build failed"; exit 1; }
stages+=("{\"stage\": \"build\", \"status\": 0, \"seconds\": $((SECONDS - from))}")

unset KVSIFT_CUDA_DRIVER KVSIFT_CUBLASLT
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$cuda_home/lib64 # where cuBLASLt is, if nowhere else
quick=() few=()
if [ "$mock" != 0 ]; then
  [ $tests = enabled ] || { echo "run_on_device.sh: the emulator needs the tests"; exit 1; }
  export KVSIFT_CUDA_DRIVER=$build/tests/cuda/libkvsift_mock_cuda.so KVSIFT_TEST_SEED=3
  export KVSIFT_CUBLASLT=$build/tests/cuda/libkvsift_mock_cublas.so
  quick=(--quick) few=(--tokens 4)
fi

run_tests=(python3 "$root/tests/cuda/run_tests.py" --build "$build")
sanitizer=$(command -v compute-sanitizer || ls /opt/nvidia/compute-sanitizer/compute-sanitizer 2>/dev/null)
worst=0
[ $tests = disabled ] || stage tests 150 "${run_tests[@]}" --json "$results/tests.json" || worst=1

# Names the cuBLASLt it multiplies with, and ends with 1 where the text is not the CPU's.
stage decode 40 "$build/examples/decode/decode" --device cuda ${few[@]+"${few[@]}"} || worst=1
stage offloaded_decode 40 "$build/examples/decode/decode" --device cuda --offload host --fast-blocks 8 --budget 48 --sink 8 \
  --local 16 ${few[@]+"${few[@]}"} || worst=1

stage bench 120 "$bench/bench_device" ${quick[@]+"${quick[@]}"} --seconds 80 --json "$results/bench.json" || worst=1
if [ "$mock" = 0 ] && [ -f "$results/bench.json" ] && python3 -c 'import torch' 2>/dev/null; then
  stage sdpa 60 python3 "$root/tests/cuda/bench_sdpa.py" --bench "$results/bench.json" --json "$results/sdpa.json" || worst=1
else
  echo "skipped: the comparison with PyTorch (no torch, no figures, or no device)"
fi
stage offload 75 "$bench/bench_offload" ${quick[@]+"${quick[@]}"} --seconds 50 --json "$results/offload.json" || worst=1
stage compress 20 "$bench/bench_compress" ${quick[@]+"${quick[@]}"} --json "$results/compress.json" || worst=1

ncu=$(command -v ncu || ls /opt/nvidia/nsight-compute/*/ncu 2>/dev/null | tail -1)
if [ "$mock" = 0 ] && [ -n "$ncu" ]; then
  # profile METHOD TOKENS OPTIONS...: a step's kernels without a graph; of a prompt's there are too many.
  profile() {
    local method=$1 tokens=$2
    shift 2
    "$ncu" --clock-control none --csv "$@" "$bench/bench_device" --once --tokens "$tokens" --budget 1024 --method "$method"
  }
  limiters() {
    local method status=0
    for method in 'full' 'full, tensor cores' 'page-stats + moments, per KV head' 'page-stats + moments, per KV head, tensor cores' \
      'attention-predictor-fast' 'attention-predictor-bf16, per KV head'; do
      echo "# $method"
      profile "$method" 32768 --section SpeedOfLight --section Occupancy --section LaunchStats --launch-count 8 \
        --kernel-name 'regex:(page_scores|choose|reduce|attend|predictor_(convolve|mean|plan))' || status=1
    done >"$results/ncu.csv"
    return $status
  }
  # Where the warps of a step's kernels wait, instruction by instruction.
  sources() {
    local lines=(--cache-control none --section SourceCounters --page source) status=0
    profile 'full, tensor cores' 131072 "${lines[@]}" --kernel-name regex:attend_tensor --launch-skip 2 --launch-count 2 \
      >"$results/ncu_source_full.csv" || status=1
    profile 'page-stats + moments, per KV head, tensor cores' 131072 "${lines[@]}" --launch-count 6 \
      --kernel-name 'regex:(page_scores|choose|attend)' >"$results/ncu_source.csv" || status=1
    return $status
  }
  export -f profile limiters sources
  export ncu bench results
  stage ncu 60 bash -c limiters || worst=1
  stage ncu_source 40 bash -c sources || worst=1
else
  echo "skipped: each kernel's limiter (no ncu, or no device)"
fi

if [ $tests = enabled ] && [ -n "$sanitizer" ] && [ "$mock" = 0 ]; then
  for tool in memcheck racecheck; do
    # One random case each: a sanitizer makes a kernel tens of times slower.
    KVSIFT_TEST_SEED=3 stage $tool 90 "${run_tests[@]}" --json "$results/$tool.json" --only 'probe|methods|store|tensor|policy/' \
      --wrapper "$sanitizer --tool $tool --error-exitcode 9" || worst=1
  done
else
  echo "skipped: compute-sanitizer (not here, no tests, or no device)"
fi

{
  printf '{\n  "commit": "%s",\n  "emulated": %s,\n  "seconds": %d,\n  "stages": [\n    ' \
    "$(git -C "$root" rev-parse --short HEAD 2>/dev/null || echo unknown)" "$([ "$mock" = 0 ] && echo false || echo true)" \
    $((SECONDS - began))
  (IFS=,; echo "${stages[*]}") | sed 's/},{/},\n    {/g'
  printf '  ]\n}\n'
} >"$results/summary.json"
echo "run_on_device.sh: $((SECONDS - began)) s, results in $results"
exit $worst
