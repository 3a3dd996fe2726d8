#!/bin/sh
# After a change of a public header: makes the Rust and Go declarations and the ABI's baseline from the headers. An
# incompatible change is refused unless it is asked for (--break). With --check it changes nothing, and fails where something
# is not up to date. Needs clang, bindgen 0.60 (with libclang), rustfmt and go; exits 77 where one is missing.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
rust=$root/bindings/rust/kvsift-sys/src/ffi.rs
go=$root/bindings/go/zlayout.go
for tool in clang bindgen rustfmt go gofmt; do
  command -v $tool >/dev/null || { echo "skipped: $tool is not installed"; exit 77; }
done
case $(bindgen --version) in
  *' 0.60.'*) ;;
  *) echo "skipped: the checked-in file is bindgen 0.60's, here is $(bindgen --version)"; exit 77 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cd "$work" # away from the crates' rustfmt.toml
bindgen --use-core --ctypes-prefix core::ffi --no-prepend-enum-name --size_t-is-usize --no-layout-tests \
  --allowlist-function 'kvsift_.*' --allowlist-type 'kvsift_.*' --allowlist-var 'KVSIFT_.*' \
  --no-doc-comments "$root/bindings/kvsift_all.h" -o "$work/ffi.rs" -- -I"$root/include"

missing=$(grep -o 'pub const KVSIFT_[A-Z0-9_]*' "$work/ffi.rs" | cut -d' ' -f3 | grep -v '^KVSIFT_VERSION_M\|_PATCH$' |
  while read -r name; do grep -q "C\.$name\b" "$root/bindings/go/ctypes.go" || echo "$name"; done)
[ -z "$missing" ] || { echo "not in bindings/go/ctypes.go: $missing"; exit 1; }

mkdir "$work/obj"
(cd "$root/bindings/go" && go tool cgo -objdir "$work/obj" -godefs -- -I"$root/include" ctypes.go) >"$work/godefs.go"
sed -E -f "$root/bindings/go/fields.sed" "$work/godefs.go" | gofmt >"$work/zlayout.go"

headers=$(cd "$root/include" && ls kvsift/*.h)
abi() { # command, options
  python3 "$root/tests/abi/abi.py" "$1" "$root/tests/abi/baseline.json" $headers -I "$root/include" ${2-}
}
if [ "${1-}" = --check ]; then
  abi check --current
  diff -u "$rust" "$work/ffi.rs" && diff -u "$go" "$work/zlayout.go" ||
    { echo "the bindings do not match the headers: run bindings/generate.sh"; exit 1; }
else
  [ "${1-}" = --break ] || abi check
  abi extract
  cp "$work/ffi.rs" "$rust"
  cp "$work/zlayout.go" "$go"
fi
