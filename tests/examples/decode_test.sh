#!/bin/sh
# The decode loop's command line: the README's answers, and options that are refused with a sentence.
# Usage: decode_test.sh DECODE
set -eu
decode=$1
must_say() { # what it printed, a pattern
  printf '%s\n' "$1" | grep -q -e "$2" || { printf '%s\nlacks: %s\n' "$1" "$2"; exit 1; }
}
must_fail() { # the sentence, options
  sentence=$1
  shift
  if said=$("$decode" "$@" 2>&1); then
    printf '%s\nwas not refused: %s\n' "$said" "$*"
    exit 1
  fi
  must_say "$said" "^decode: $sentence\$"
}

# The README's command: sparse attention answers as full attention does.
said=$("$decode" 2>&1)
must_say "$said" "The answers are the same."

must_fail "--tokens is 0; expected 1 or more" --tokens 0
