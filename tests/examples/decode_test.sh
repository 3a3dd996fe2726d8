#!/bin/sh
# The decode loop's command line: the README's answers, and options that are refused with a sentence.
# Usage: decode_test.sh DECODE
set -eu
decode=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
small() { "$decode" --tokens 4 --sink 8 --local 16 --budget 48 "$@" 2>&1; }
must_say() { # what it printed, a pattern
  printf '%s\n' "$1" | grep -q -e "$2" || { printf '%s\nlacks: %s\n' "$1" "$2"; exit 1; }
}
must_pass() { # a command; what it prints is then in $said
  said=$("$@" 2>&1) || { printf '%s\nfailed: %s\n' "$said" "$*"; exit 1; }
}
must_fail() { # the sentence, options
  sentence=$1
  shift
  if said=$(small "$@"); then
    printf '%s\nwas not refused: %s\n' "$said" "$*"
    exit 1
  fi
  must_say "$said" "decode: $sentence\$"
}

# The README's command: sparse attention answers as full attention does.
must_pass "$decode"
must_say "$said" "The answers are the same."

must_fail "--tokens is 0; expected 1 or more" --tokens 0

# A store's file is a new one, and is gone afterwards.
stored() { small --fast-blocks 8 --offload "$@"; }
none_left() { [ ! -e "$folder/cache.kv" ] || { echo "cache.kv is still there"; exit 1; }; }
must_pass stored "$folder/cache.kv"
must_say "$said" "same text  *yes"
none_left
must_fail ".*fast_blocks is 2, sink and local tokens and the open block need at least 4" --fast-blocks 2 \
  --offload "$folder/cache.kv"
none_left
must_fail ".*slots in fast memory are too few.*" --method full --fast-blocks 8 --offload "$folder/cache.kv"
none_left
echo precious >"$folder/model.gguf"
must_fail ".*model.gguf is there already; expected the path of a new file" --offload "$folder/model.gguf"
[ "$(cat "$folder/model.gguf")" = precious ] || { echo "model.gguf was touched"; exit 1; }

# What goes together with a store, and what does not.
must_pass stored host --no-compare
must_say "$said" "read a token"
case $said in *"all in memory"*) echo "--no-compare compared"; exit 1 ;; esac
must_fail "--offload goes without --json, whose figures are those of a cache in memory" --offload host \
  --json "$folder/figures.json"
must_fail "--offload goes without --dump-rows, which reads the whole cache" --offload host --dump-rows "$folder/rows"
must_fail "--dump-rows goes without --json: it stops before there are figures" --dump-rows "$folder/rows" \
  --json "$folder/figures.json"

# A choice without a query whose tail needs the next token's keys cannot be made ahead.
must_pass stored host --method attention-predictor --tail moments
must_say "$said" "same text  *yes"
must_pass stored host --method attention-predictor
must_say "$said" "same text  *yes"

# A late cap: what is not there in time is left out, and the text may be another.
for place in host "$folder/cache.kv"; do
  must_pass stored "$place" --late-blocks 1 --tail moments
  must_say "$said" "same text  *\(yes\|no: --late-blocks left some of the cache out\)\$"
  must_pass stored "$place" --late-blocks 0 --method full
  must_say "$said" "0.0 % late, [0-9.]*[1-9][0-9.]* % too late"
  must_say "$said" "same text  *no: --late-blocks left some of the cache out"
  none_left
done
must_fail "--trace, --fast-blocks and --late-blocks need --offload" --late-blocks 4
must_fail "--device cuda goes without --late-blocks" --offload host --device cuda --late-blocks 4
