#!/bin/sh
# The decode loop on the stand-ins for a device: the CPU's text, with products by cuBLASLt and without it, and from a store
# whose fast tier is a twelfth of the cache; each of cuBLASLt's calls failing, which ends the program with the call's name; and
# options that do not go together.
# Usage: decode_test.sh DECODE
set -eu
decode=$1
text() { "$decode" --device cuda --tokens 4 --sink 8 --local 16 --budget 48 "$@" 2>&1; }
must_say() { # what it printed, a pattern
  printf '%s\n' "$1" | grep -q -e "$2" || { printf '%s\nlacks: %s\n' "$1" "$2"; exit 1; }
}

answer_of() { # what it printed, the run's name
  printf '%s\n' "$1" | sed -n "s/^$2://p"
}

said=$(text) || true
must_say "$said" "products by the tests' stand-in for cuBLASLt"
must_say "$said" "same text  *yes"
resident=$(answer_of "$said" "on the device")

said=$(text --attention tensor --kv-type bf16) || true
must_say "$said" "same text  *yes"

said=$(KVSIFT_CUBLASLT=/nonexistent/libcublasLt.so text) || true
must_say "$said" "products on the CPU (no cuBLASLt: /nonexistent/libcublasLt.so could not be opened)"
must_say "$said" "same text  *yes"

# The 7th layout, plan and product are some matrix's; the 600th product is the answer's: the prompt has 13 * 43.
for call in Create:1 MatmulDescCreate:1 MatmulDescSetAttribute:1 MatmulPreferenceCreate:1 MatmulPreferenceSetAttribute:1 \
  MatrixLayoutCreate:1 MatrixLayoutCreate:7 MatmulAlgoGetHeuristic:7 Matmul:7 Matmul:600; do
  name=cublasLt${call%:*}
  if said=$(KVSIFT_MOCK_FAIL=$name:${call#*:}:3 text --no-compare); then
    printf '%s\n%s failed, and decode did not\n' "$said" "$call"
    exit 1
  fi
  must_say "$said" "decode: $name answered CUBLAS_STATUS_ALLOC_FAILED (3)\$"
done
must_say "$said" "on the device:"

offloaded() { text --offload host --fast-blocks 8 "$@"; }
some='[0-9.]*[1-9]' # more than 0.0

said=$(offloaded) || true
must_say "$said" "same text  *yes"
must_say "$said" "read a token  *$some[0-9.]* KB"
must_say "$said" "$some[0-9.]* % late"
for run in "all on the device" offloaded; do
  [ -n "$resident" ] && [ "$(answer_of "$said" "$run")" = "$resident" ] || {
    printf '%s\n"%s" answers otherwise than: %s\n' "$said" "$run" "$resident"
    exit 1
  }
done

said=$(offloaded --kv-type i8 --dense-layers 1) || true
must_say "$said" "same text  *yes"
must_say "$said" "read a token  *$some[0-9.]* KB"

said=$(offloaded --attention tensor --kv-type f16) || true
must_say "$said" "same text  *yes"

# AttentionPredictor's choice for the next token is fetched ahead.
prompt=$(printf 'The code of the green fox is %s. ' $(seq 1000 37 2400))
said=$(offloaded --method attention-predictor --tokens 6 --budget 64 --prompt "$prompt") || true
must_say "$said" "same text  *yes"
must_say "$said" "$some[0-9.]* % fetched ahead"

must_fail() { # the sentence, options
  sentence=$1
  shift
  if said=$(offloaded --no-compare "$@"); then
    printf '%s\nwas not refused: %s\n' "$said" "$*"
    exit 1
  fi
  must_say "$said" "$sentence\$"
}
must_fail "--device cuda offloads to host memory alone: --offload host, not cache.kv" --offload cache.kv
must_fail "--device cuda goes without --trace: the device's store keeps no times" --trace trace.json
must_fail "--device cuda goes without --dump-rows and --json" --json figures.json
must_fail "--offload goes without a coreset, whose rows lie all over the cache" --tail balance
must_fail "fast_blocks is 2, sink and local tokens and the open block need at least 4" --fast-blocks 2
must_fail "its 16 slots in fast memory are too few for what is wanted at once and the pinned tokens" --method full
KVSIFT_MOCK_FAIL=cuMemHostAlloc:2:2 must_fail "decode: no pinned memory for an arena of [0-9]* bytes"
KVSIFT_MOCK_FAIL=cuStreamWaitEvent:1000:700 must_fail "decode: on the device: .*cuStreamWaitEvent.*700.*"
