#!/bin/sh
# Each public header compiles by itself, twice in one file, in each language and with each compiler that is here.
# Usage: headers.sh INCLUDE_FOLDER HEADER...
set -eu
include=$1
shift
runs=0
try() { # compiler, language, standard, header
  printf '#include <%s>\n#include <%s>\nint kvsift_headers_unused;\n' "$4" "$4" |
    "$1" -x "$2" -std="$3" -Wall -Wextra -Wpedantic -Werror -fsyntax-only -I"$include" - || {
    echo "$4 does not compile as $3 with $1"
    exit 1
  }
  runs=$((runs + 1))
}
for header in "$@"; do
  for cc in gcc clang; do
    command -v $cc >/dev/null || { echo "skipped: $cc is not installed"; continue; }
    try $cc c c99 "$header"
    try $cc c c11 "$header"
  done
  for cxx in g++ clang++; do
    command -v $cxx >/dev/null || { echo "skipped: $cxx is not installed"; continue; }
    try $cxx c++ c++11 "$header"
    try $cxx c++ c++17 "$header"
  done
done
echo "$runs compilations"
test $runs -gt 0
