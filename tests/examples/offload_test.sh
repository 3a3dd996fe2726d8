#!/bin/sh
# The short program of the store: what it says, what it refuses, and that its file is a new one that is gone afterwards.
# Usage: offload_test.sh OFFLOAD
set -eu
offload=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
file=$folder/cache.kv
must_say() { # what it printed, a pattern
  printf '%s\n' "$1" | grep -q -e "$2" || { printf '%s\nlacks: %s\n' "$1" "$2"; exit 1; }
  [ ! -e "$file" ] || { echo "cache.kv is still there"; exit 1; }
}
must_pass() { # a pattern, options
  pattern=$1
  shift
  said=$("$offload" --file "$file" "$@" 2>&1) || { printf '%s\nfailed: %s\n' "$said" "$*"; exit 1; }
  must_say "$said" "$pattern"
}
must_fail() { # the sentence, options
  sentence=$1
  shift
  if said=$("$offload" --file "$file" "$@" 2>&1); then
    printf '%s\nwas not refused: %s\n' "$said" "$*"
    exit 1
  fi
  must_say "$said" "$sentence"
}
must_pass "^usage: offload" --help
must_pass "every output is bit for bit that of the cache in memory"
must_pass "[1-9][0-9]* events in" --late-blocks 0 --trace "$folder/trace.json"
must_fail "^offload: --fast-blocks is \"x\"; expected a whole number, at most 4296\$" --fast-blocks x
must_fail "^offload: --late-blocks needs a value\$" --late-blocks
must_fail "^offload: there is no option --fats-blocks; --help lists them\$" --fats-blocks 9
must_fail "fast_blocks is 2, sink and local tokens and the open block need at least" --fast-blocks 2
must_fail "$folder/no/trace.json" --trace "$folder/no/trace.json"
echo precious >"$folder/model.gguf"
must_fail "^offload: .*model.gguf is there already; expected the path of a new file\$" --file "$folder/model.gguf"
[ "$(cat "$folder/model.gguf")" = precious ] || { echo "model.gguf was touched"; exit 1; }
