//! Finds libkvsift.a, or builds it.
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for name in ["KVSIFT_DIR", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "PKG_CONFIG_SYSROOT_DIR"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let folder = from_environment().or_else(from_pkg_config).unwrap_or_else(from_tree);
    println!("cargo:rerun-if-changed={}", folder.join("libkvsift.a").display());
    println!("cargo:rustc-link-search=native={}", folder.display());
    println!("cargo:rustc-link-lib=static=kvsift");
    println!("cargo:rustc-link-lib=dylib=m");
    println!("cargo:rustc-link-lib=dylib=pthread");
}

fn from_environment() -> Option<PathBuf> {
    let folder = PathBuf::from(env::var_os("KVSIFT_DIR")?);
    let found = [folder.clone(), folder.join("lib")].into_iter().find(|f| holds_library(f));
    Some(
        found.unwrap_or_else(|| panic!("KVSIFT_DIR is {}: no libkvsift.a there or in lib", folder.display())),
    )
}

fn from_pkg_config() -> Option<PathBuf> {
    let tool = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let wanted = format!("kvsift >= {version}");
    let output = Command::new(tool)
        .args(["--static", "--libs-only-L", "--keep-system-libs", &wanted])
        .output()
        .ok()?;
    if !output.status.success() {
        return None;
    }
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().filter_map(|w| w.strip_prefix("-L")).map(PathBuf::from).find(|f| holds_library(f))
}

/// The crate lies in bindings/rust/kvsift-sys of the source tree.
fn from_tree() -> PathBuf {
    let crate_folder = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let tree = crate_folder.join("../../..");
    let build = PathBuf::from(env::var_os("OUT_DIR").unwrap()).join("build");
    assert!(
        tree.join("include/kvsift/kvsift.h").is_file(),
        "libkvsift.a was not found: set KVSIFT_DIR, or PKG_CONFIG_PATH to where kvsift.pc is"
    );
    for folder in ["include", "src", "capi"] {
        println!("cargo:rerun-if-changed={}", tree.join(folder).display());
    }
    if !build.join("build.ninja").is_file() {
        let options = ["-Dwerror=false", "-Dtests=disabled", "-Dexamples=disabled", "-Dbindings=disabled"];
        run(Command::new("meson").arg("setup").args(options).arg(&build).arg(&tree));
    }
    run(Command::new("ninja").arg("-C").arg(&build).arg("libkvsift.a"));
    build
}

fn holds_library(folder: &Path) -> bool {
    folder.join("libkvsift.a").is_file()
}

fn run(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?} failed: {status}");
}
