//! The releases of Debian that the lab's machines run: this machine's own, and others, each in a root that
//! debootstrap(8) makes once.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Names the releases, separated by spaces.
const RELEASES: &str = "BARTLEBY_RELEASES";

/// A release of Debian.
pub struct Release {
    /// Its codename, as debootstrap knows it.
    name: String,
    /// Whether it is this machine's own.
    own: bool,
}

impl Release {
    /// Those that `BARTLEBY_RELEASES` names; else this machine's.
    pub fn all() -> Vec<Release> {
        let own = own();
        let asked = env::var(RELEASES).unwrap_or_default();
        let mut names: Vec<&str> = asked.split_whitespace().collect();
        if names.is_empty() {
            names.push(&own);
        }
        names.into_iter().map(|name| Release { name: name.to_owned(), own: name == own }).collect()
    }

    /// Its codename.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its layers are kept, below the folder of all.
    pub fn folder(&self, kept: &Path) -> PathBuf {
        if self.own { kept.to_owned() } else { kept.join(&self.name) }
    }

    /// Whether there can be a root of it here, or why not.
    pub fn possible(&self) -> Result<(), String> {
        let found = self.own || Command::new("debootstrap").arg("--version").output().is_ok();
        found.then_some(()).ok_or_else(|| format!("a root of Debian {} needs debootstrap", self.name))
    }

    /// A file of this project for its lab: recorded output is that of its own version, where that differs from
    /// Debian 12's.
    pub fn brings(&self, kept: &Path, file: &str) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        let version = fs::read_to_string(self.root(kept).join("etc/debian_version")).unwrap();
        let major = version.split('.').next().unwrap_or_default();
        let own = source.join(file.replace("tests/fixtures/", &format!("tests/fixtures-debian{major}/")));
        if own.exists() { own } else { source.join(file) }
    }

    /// Its root: this machine's, or the one that is kept, made if it is not there yet.
    pub fn root(&self, kept: &Path) -> PathBuf {
        if self.own {
            return PathBuf::from("/");
        }
        let folder = self.folder(kept);
        fs::create_dir_all(&folder).unwrap();
        let root = folder.join("root");
        let lock = File::create(folder.join("root.lock")).unwrap();
        lock.lock().unwrap();
        if !root.exists() {
            let unfinished = folder.join("root.new");
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished).unwrap();
            }
            // What debootstrap mounts ends with the namespace.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]);
            command.args(["--mount-proc", "debootstrap", "--variant=minbase", &self.name]).arg(&unfinished);
            let output = command.output().unwrap();
            let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "debootstrap {}: {}\n{out}\n{err}", self.name, output.status);
            fs::rename(&unfinished, &root).unwrap();
        }
        root
    }
}

/// This machine's codename, os-release(5).
fn own() -> String {
    let file = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = file.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.unwrap_or("this release").trim_matches('"').to_owned()
}
