#!/bin/sh
# The decode loop on the stand-ins for a device: the CPU's text, with products by cuBLASLt and without it; and each of
# cuBLASLt's calls failing, which ends the program with the call's name.
# Usage: decode_test.sh DECODE
set -eu
decode=$1
text() { "$decode" --device cuda --tokens 4 --sink 8 --local 16 --budget 48 "$@" 2>&1; }
must_say() { # what it printed, a pattern
  printf '%s\n' "$1" | grep -q "$2" || { printf '%s\nlacks: %s\n' "$1" "$2"; exit 1; }
}

said=$(text) || true
must_say "$said" "products by the tests' stand-in for cuBLASLt"
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
