//! Programs that must not compile: each file of tests/compile_fail names the error it must fail with in its first line.
//! `fn main` of a file ends with a part marked `// fails`; without it the file must compile, so that it fails for no other
//! reason.
use std::path::{Path, PathBuf};
use std::process::Command;

/// This crate as cargo has built it for this test: the newest, where there are several.
fn library() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let built = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = |p: &PathBuf| {
        let name = p.file_name().unwrap().to_str().unwrap_or("");
        name.starts_with("libkvsift-") && name.ends_with(".rlib")
    };
    built
        .filter(named)
        .max_by_key(|p| p.metadata().unwrap().modified().unwrap())
        .expect("no libkvsift-*.rlib")
}

/// What the compiler says; nothing where the program compiles.
fn compile(name: &str, text: &str) -> Option<String> {
    let library = library();
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&program, text).unwrap();
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()))
        .args(["--edition", "2021", "--crate-type", "bin", "--emit", "metadata", "-A", "warnings"])
        .arg("--extern")
        .arg(format!("kvsift={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", library.parent().unwrap().display()))
        .args(["--out-dir", env!("CARGO_TARGET_TMPDIR")])
        .arg(&program)
        .output()
        .unwrap();
    (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap())
}

#[test]
fn misuse_does_not_compile() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compile_fail");
    let mut programs = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.lines().next().unwrap().trim_start_matches("// ");
        let good: String =
            text.lines().filter(|line| !line.ends_with("// fails")).fold(String::new(), |a, l| a + l + "\n");
        if let Some(words) = compile(name, &good) {
            panic!("{name} does not compile even without its failing lines:\n{words}");
        }
        let words = compile(name, &text).unwrap_or_else(|| panic!("{name} compiles"));
        assert!(words.contains(&format!("error[{code}]")), "{name} fails otherwise than by {code}:\n{words}");
        programs += 1;
    }
    assert!(programs >= 14, "{programs} programs");
}
