//! The process: what its lister inherits, signals, and output that can't be written.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::machine::Machine;
use crate::start::interruptible;
use crate::wait::until;

#[test]
fn the_lister_gets_a_clean_environment_and_no_descriptors() {
    let machine = Machine::with_lister("postfix", ":");
    let seen = machine.path("seen");
    fs::write(machine.path("list"), format!("#!/bin/sh\n(env; ls -l /proc/$$/fd; cat) > {} 2>&1\n", seen.display()))
        .unwrap();
    fs::set_permissions(machine.path("list"), fs::Permissions::from_mode(0o755)).unwrap();
    // The shell passes on a descriptor that no one closed.
    let status = Command::new("/bin/sh")
        .args(["-c", "exec 9</etc/hostname; exec \"$0\"", env!("CARGO_BIN_EXE_bartleby")])
        .env_clear()
        .envs([
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("BARTLEBY_ACCESS", "granted"),
            ("LD_PRELOAD", ""),
            ("HTTP_PROXY", "evil"),
        ])
        .env("BARTLEBY_CONFIG", machine.path("bartleby.toml"))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let seen = fs::read_to_string(seen).unwrap();
    assert!(!seen.contains("HTTP_PROXY") && !seen.contains("GATEWAY") && seen.contains("LC_ALL=C"), "{seen}");
    assert!(!seen.contains("/etc/hostname"), "{seen}");
}

#[test]
fn a_signal_that_ends_the_program_ends_the_lister_too() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        // For a time of its own, by which it is known among the machine's processes.
        let time = (1_000_000 + std::process::id()).to_string();
        let machine = Machine::with_lister("postfix", &format!("exec sleep {time}"));
        let listers = || {
            let is_ours = |process: &fs::DirEntry| {
                fs::read(process.path().join("cmdline"))
                    .is_ok_and(|words| words == format!("sleep\0{time}\0").as_bytes())
                    && fs::read_link(process.path().join("cwd")).is_ok_and(|folder| folder == Path::new("/"))
            };
            fs::read_dir("/proc").unwrap().flatten().filter(is_ours).count()
        };
        let before = listers();
        let mut program = interruptible(&machine, &["list"]).spawn().unwrap();
        until("the lister is started", 120, || listers() > before);
        kill(Pid::from_raw(program.id() as i32), signal).unwrap();
        assert_eq!(program.wait().unwrap().signal(), Some(signal as i32));
        until("the lister has ended", 120, || listers() <= before);
    }
}

#[test]
fn what_can_not_be_written_is_no_success() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for arguments in [&["list"][..], &["list", "--format", "json"], &["--help"], &["doctor"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = machine.command().args(arguments).stdout(full).output().unwrap();
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"), "{arguments:?}: {output:?}");
    }
}
