#!/bin/sh
# Installs to a prefix and lets each kind of consumer build and run against nothing else.
# Usage: install.sh SOURCE_ROOT BUILD_ROOT WORK_FOLDER [bindings]
set -eu
source=$1
build=$2
work=$3
bindings=${4-}
prefix=$work/prefix
rm -rf "$work"
mkdir -p "$work"
DESTDIR=$work/stage meson install -C "$build" --no-rebuild --quiet
config=$(find "$work/stage" -name kvsift.pc)
test -n "$config"
# kvsift.pc knows the configured prefix; the staged one is found by its sysroot.
configured=$(pkg-config --variable=prefix "$config")
mv "$work/stage$configured" "$prefix"
library=$(dirname "$(find "$prefix" -name libkvsift.a)")
sed -i "s|^prefix=.*|prefix=$prefix|" "$library/pkgconfig/kvsift.pc"
export PKG_CONFIG_PATH="$library/pkgconfig"
test "$(pkg-config --modversion kvsift)" = "$("$source/tools/version.sh")"

echo "C, by pkg-config"
${CC:-cc} -std=c11 "$source/examples/minimal.c" -o "$work/minimal" $(pkg-config --static --cflags --libs kvsift)
"$work/minimal" >"$work/expected"
test -s "$work/expected"
if ldd "$work/minimal" 2>/dev/null | grep -v 'linux-vdso\|ld-linux\|libc\.\|libm\.\|libpthread'; then
  echo "the program needs more than libc"
  exit 1
fi

if command -v cmake >/dev/null; then
  echo "C, by CMake"
  cmake -S "$source/tests/packaging" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$prefix" \
    -DSOURCE="$source/examples/minimal.c" >"$work/cmake.log"
  cmake --build "$work/cmake" >>"$work/cmake.log"
  "$work/cmake/consumer" | cmp - "$work/expected"
  mkdir "$work/newer"
  sed 's/kvsift 0.1/kvsift 9.0/' "$source/tests/packaging/CMakeLists.txt" >"$work/newer/CMakeLists.txt"
  if cmake -S "$work/newer" -B "$work/newer/build" -DCMAKE_PREFIX_PATH="$prefix" -DSOURCE=x.c >/dev/null 2>&1; then
    echo "CMake took this version for 9.0"
    exit 1
  fi
else
  echo "skipped: cmake is not installed"
fi

[ "$bindings" = bindings ] || { echo "skipped: Rust and Go consumers, bindings are not enabled"; exit 0; }
unset KVSIFT_DIR || true
if command -v cargo >/dev/null; then
  echo "Rust"
  # The crates alone, so that the tree around them cannot help.
  cp -r "$source/bindings/rust" "$work/rust"
  rm -rf "$work/rust/target"
  mkdir -p "$work/consumer/src"
  sed "s|RUST|$work/rust|" "$source/tests/packaging/consumer.toml" >"$work/consumer/Cargo.toml"
  cp "$source/bindings/rust/kvsift/examples/decode_step.rs" "$work/consumer/src/main.rs"
  (cd "$work/consumer" && cargo run --offline --quiet) >"$work/rust.out"
  grep -q 'list 3 reads' "$work/rust.out"
fi
if command -v go >/dev/null; then
  echo "Go"
  cp -r "$source/bindings/go" "$work/go"
  mkdir "$work/go-consumer"
  cp "$source/tests/packaging/consumer.go" "$work/go-consumer/main.go"
  (cd "$work/go-consumer" && export GOPROXY=off GOFLAGS=-mod=mod && go mod init consumer 2>/dev/null &&
    go mod edit -require kvsift.dev/kvsift@v0.0.0 -replace kvsift.dev/kvsift=../go && go run .) >"$work/go.out"
  grep -q 'token 1000 is read' "$work/go.out"
fi
