//! Declarations of `<kvsift/kvsift.h>`, `<kvsift/balance.h>` and `<kvsift/store.h>`, as bindgen writes them
//! (`bindings/generate.sh`). The headers are the documentation. The crate `kvsift` is the safe layer.
//!
//! The library is found by, in this order: `KVSIFT_DIR` (a folder with `libkvsift.a`, or a prefix with `lib/libkvsift.a`),
//! pkg-config, and the source tree around this crate, which is then built with meson.
#![no_std]

#[allow(non_camel_case_types, non_upper_case_globals, dead_code)]
#[allow(clippy::all)]
#[rustfmt::skip]
mod ffi;
pub use ffi::*;
