//! What the program is made of: no crate needs a newer Rust than Cargo.toml and README.md say; and how its tests are run.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

/// The crates of the locked graph, as far as this machine's kind needs them: those of the tests and the bench, too.
fn crates() -> Vec<Value> {
    let platform = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &platform])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let by_id: BTreeMap<_, _> =
        metadata["packages"].as_array().unwrap().iter().map(|package| (package["id"].as_str(), package)).collect();
    let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
    nodes.iter().map(|node| by_id[&node["id"].as_str()].clone()).collect()
}

/// `1.89` as numbers that compare.
fn version(text: &str) -> Vec<u64> {
    text.split('.').map(|number| number.parse().unwrap()).chain([0, 0]).take(3).collect()
}

#[test]
fn no_crate_needs_a_newer_rust_than_is_promised() {
    let promised = env!("CARGO_PKG_RUST_VERSION");
    let crates = crates();
    assert!(crates.len() > 50, "{}", crates.len());
    let text = |package: &'_ Value, key: &str| package[key].as_str().map(str::to_owned);
    let too_new: Vec<String> = crates
        .iter()
        .filter_map(|package| {
            let needed = text(package, "rust_version").filter(|needed| version(needed) > version(promised))?;
            Some(format!("{} {} needs Rust {needed}", text(package, "name")?, text(package, "version")?))
        })
        .collect();
    assert!(too_new.is_empty(), "Cargo.toml promises Rust {promised}: {too_new:#?}");
}

#[test]
fn the_readme_names_the_same_rust() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let named = readme.split("(Rust ").nth(1).and_then(|rest| rest.split(" or newer)").next());
    assert_eq!(named, Some(env!("CARGO_PKG_RUST_VERSION")));
}

/// `tests/all.sh` with a cargo and a test program that are played: what the first says, how the second ends when it is
/// run again, and how the lab ends, which says nothing. Whether it passed, and what it said.
fn all_tests(said: &str, again: &str, lab: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let program = script("program", &format!("echo \"again: $*\"\n{again}"));
    let said = said.replace("PROGRAM", program.to_str().unwrap());
    let cargo =
        script("cargo", &format!("case $* in *--lib*) ;; *) exit {lab} ;; esac\ncat <<'END'\n{said}\nEND\nexit 101"));
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/all.sh");
    let output = Command::new("sh").arg(all).env("CARGO", cargo).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn a_test_that_fails_is_run_again_and_named_or_fails_all() {
    let said = "     Running tests/x.rs (PROGRAM)\ntest fine ... ok\ntest in_a_module::slow ... FAILED\ntest result: FAILED. 1 passed";
    let (passed, text) = all_tests(said, "exit 0", "0");
    assert!(passed && text.contains("again: --exact in_a_module::slow\n"), "{text}");
    assert!(text.ends_with("They are tests to mend:\nin_a_module::slow\n"), "{text}");
    let (passed, text) = all_tests(said, "exit 101", "0");
    assert!(!passed && !text.contains("to mend"), "{text}");
    let broke_off = format!("{said}\n\nCaused by:\n  process didn't exit successfully: PROGRAM");
    let (passed, text) = all_tests(&broke_off, "exit 0", "0");
    assert!(!passed && text.contains("a test program broke off"), "{text}");
    let (passed, text) = all_tests("error: could not compile", "exit 0", "0");
    assert!(!passed && text.contains("something else than a test failed"), "{text}");
    let (passed, text) = all_tests(said, "exit 0", "101");
    assert!(!passed && text.contains("something else than a test failed"), "the lab did: {text}");
}

#[test]
fn the_lab_waits_for_the_apt_of_its_root() {
    let folder = tempfile::tempdir().unwrap();
    let dpkg = folder.path().join("root/var/lib/dpkg");
    fs::create_dir_all(&dpkg).unwrap();
    let lock = fs::File::create(dpkg.join("lock-frontend")).unwrap();
    lock.lock().unwrap();
    // What would install the packages: its first try fails.
    let tried = folder.path().join("tried");
    let played = folder.path().join("setpriv");
    fs::write(&played, format!("#!/bin/sh\n[ -e {0} ] || {{ : >{0}; exit 1; }}\n", tried.display())).unwrap();
    fs::set_permissions(&played, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), env::var("PATH").unwrap());
    let mut layer = Command::new("sh")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/layer.sh"))
        .args([folder.path(), &folder.path().join("root"), &folder.path().join("archive")])
        .args(["host.example.com", "postfix"])
        .env("PATH", path)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(layer.stderr.take().unwrap()).lines();
    let waits = told.next().unwrap().unwrap();
    assert!(waits.starts_with("layer.sh: waits for the apt that works on ") && !tried.exists(), "{waits}");
    drop(lock);
    assert_eq!(told.next().unwrap().unwrap(), "layer.sh: attempt 1 failed");
    assert!(layer.wait().unwrap().success() && told.next().is_none());
}
