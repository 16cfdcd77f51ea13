//! The same source gives the same program, wherever it is built: what is installed can be checked by who builds it anew.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Builds as a user does, and returns the program.
fn build(folder: &Path) -> Vec<u8> {
    let mut make = Command::new("make");
    make.args(["--silent", "all"]).current_dir(folder).env_clear();
    for name in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        make.envs(env::var_os(name).map(|value| (name, value)));
    }
    let output = make.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(folder.join("target/index.cgi")).unwrap()
}

/// Copies all but what is built and what git keeps.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (name, to) = (entry.file_name(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            if !["target", ".git", "corpus", "artifacts"].iter().any(|left_out| name == *left_out) {
                copy(&entry.path(), &to);
            }
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn two_folders_give_the_same_bytes() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let elsewhere = tempfile::tempdir().unwrap();
    let there = elsewhere.path().join("a-folder-of-another-length");
    copy(here, &there);
    let (one, other) = (build(here), build(&there));
    let differs = one.iter().zip(&other).position(|(a, b)| a != b);
    assert!(one == other, "{} and {} bytes, which differ at {differs:?}", one.len(), other.len());
}
