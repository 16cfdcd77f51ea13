//! The package for Fedora and Red Hat: what its scripts say to SELinux is said of files that it has, and `make rpm` lays out
//! each file that it takes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// What stands between single quotes in the lines of a script that hold these words.
fn patterns(script: &str, words: &str) -> Vec<String> {
    let text = read(script);
    let lines = text.lines().filter(|line| line.contains(words));
    lines.map(|line| line.split('\'').nth(1).unwrap().to_owned()).collect()
}

#[test]
fn selinux_knows_the_program_and_the_state_folder_and_forgets_both() {
    let metadata = read("Cargo.toml");
    let said = patterns("rpm/post", "semanage fcontext -a");
    let [program, state] = said.as_slice() else { panic!("{said:?}") };
    assert!(metadata.contains(&format!("dest = \"{}\"", program.replace('\\', ""))), "{program}");
    assert!(
        read("rpm/post").contains(&format!("-o apache -g apache {}\n", state.trim_end_matches("(/.*)?"))),
        "{state}"
    );
    assert_eq!(patterns("rpm/postun", "semanage fcontext -d"), said);
    // The installer says the same of where it puts them.
    for kind in ["httpd_sys_script_exec_t", "httpd_sys_rw_content_t"] {
        assert!(read("rpm/post").contains(kind) && read("apache/site.sh").contains(kind), "{kind}");
    }
}

#[test]
fn every_file_of_the_package_is_laid_out() {
    let root = tempfile::tempdir().unwrap();
    let program = root.path().join("index.cgi");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    let rule = read("Makefile").split("\nrpm: all").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
    let install = rule.lines().find(|line| line.contains("DESTDIR=")).unwrap();
    let mut make = Command::new("make");
    make.arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(["-s", "install", "CARGO=/bin/false"]);
    make.args(install.split_whitespace().filter(|word| word.contains('=') && !word.starts_with("DESTDIR=")));
    make.arg(format!("DESTDIR={}", root.path().display())).arg(format!("PROGRAM={}", program.display()));
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
        make.env_remove(name);
    }
    let output = make.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let metadata = read("Cargo.toml");
    let sources = metadata.lines().filter_map(|line| line.split("source = \"target/package/rpm/").nth(1));
    let sources: Vec<_> = sources.map(|rest| rest.split(['"', '*']).next().unwrap().to_owned()).collect();
    assert!(sources.len() > 5, "{sources:?}");
    for source in sources.iter().filter(|source| !source.contains("systemd")) {
        assert!(root.path().join(source).exists(), "{source}");
    }
    for script in ["rpm/post", "rpm/postun"] {
        let read = Command::new("sh").arg("-n").arg(script).current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
        assert!(read.success(), "{script}");
    }
}
