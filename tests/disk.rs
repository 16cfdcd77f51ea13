//! A network mount that is dead, made with FUSE in a mount namespace of its own (as root; elsewhere
//! skipped, loudly): the page does not hang and says which mount does not answer.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod machine;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use machine::Machine;
use serde_json::Value;

#[test]
fn a_dead_network_mount_is_named_and_hangs_nothing() {
    if !nix::unistd::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
        std::io::stderr().write_all(b"SKIPPED: a dead mount takes root and /dev/fuse to make\n").unwrap();
        return;
    }
    let machine = Machine::with_fixture("postfix/mixed-json");
    let mount = machine.path("dead");
    std::fs::create_dir(&mount).unwrap();
    // The shell holds the filesystem's other end and never serves it. When it ends, so does the mount.
    let script = format!(
        "exec 9<>/dev/fuse && mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0,allow_other,subtype=sshfs dead {} \
         && BARTLEBY_CONFIG={} {} list --format json",
        mount.display(),
        machine.path("bartleby.toml").display(),
        env!("CARGO_BIN_EXE_bartleby")
    );
    let started = Instant::now();
    let output = Command::new("unshare").args(["--mount", "sh", "-c", &script]).stdin(Stdio::null()).output().unwrap();
    assert!(started.elapsed() < Duration::from_secs(30), "it hung");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["queue"]["messages"], 21);
    let filesystems = json["filesystems"].as_array().unwrap();
    let (dead, alive): (Vec<&Value>, Vec<&Value>) =
        filesystems.iter().partition(|filesystem| filesystem["mount"].as_str() == mount.to_str());
    assert_eq!((dead.len(), &dead[0]["level"], &dead[0]["bytes"]), (1, &"unknown".into(), &Value::Null));
    assert!(!alive.is_empty() && alive.iter().all(|filesystem| filesystem["bytes"].is_u64()), "{alive:?}");
}
