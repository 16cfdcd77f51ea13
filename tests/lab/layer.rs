//! The packages of a mail server and of Apache, installed once and kept under `target`.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine;
use crate::mta::Mta;
use crate::release::Release;

/// Apache, and what the lab itself needs.
const COMMON: [&str; 2] = ["apache2", "iproute2"];

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/layer.sh");

/// The folder that the layers are kept in, and an empty one to mount on.
pub fn folders() -> (PathBuf, PathBuf) {
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab");
    let mountpoint = kept.join("root");
    fs::create_dir_all(&mountpoint).unwrap();
    (kept, mountpoint)
}

/// The archive with the packages of a mail server for a release, made if it is not there yet.
pub fn of(mta: &dyn Mta, release: &Release) -> PathBuf {
    let (kept, mountpoint) = folders();
    let (root, kept) = (release.root(&kept), release.folder(&kept));
    let wishes = mta.wishes().iter().map(|package| format!("?{package}"));
    let packages: Vec<_> = COMMON.iter().chain(mta.packages()).map(ToString::to_string).chain(wishes).collect();
    let prefix = format!("{}-", mta.layer());
    let archive = kept.join(format!("{prefix}{:016x}.tar", stamp(&packages, &root)));

    // The tests of one mail server run at the same time: one of them makes the layer.
    let lock = File::create(kept.join(format!("{}.lock", mta.layer()))).unwrap();
    lock.lock().unwrap();
    if !archive.exists() {
        remove_older(&kept, &prefix);
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "sh", SCRIPT])
            .args([&mountpoint, &root, &archive])
            .arg(machine::HOSTNAME)
            .args(packages);
        let output = command.output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "The packages could not be installed: {}\n{out}\n{err}", output.status);
    }
    archive
}

/// What a layer depends on: it lies over the packages of a root.
fn stamp(packages: &[String], root: &Path) -> u64 {
    let mut hasher = DefaultHasher::new();
    packages.hash(&mut hasher);
    for file in [&root.join("etc/debian_version"), &root.join("var/lib/dpkg/status"), Path::new(SCRIPT)] {
        fs::read(file).unwrap().hash(&mut hasher);
    }
    hasher.finish()
}

fn remove_older(kept: &Path, prefix: &str) {
    for entry in fs::read_dir(kept).unwrap().map(Result::unwrap) {
        // What follows is the stamp alone: the name of another layer may begin as this one's.
        if entry.file_name().to_string_lossy().strip_prefix(prefix).is_some_and(|stamp| !stamp.contains('-')) {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}
