//! A machine of its own for the built program: a configuration, a state directory, a mail server
//! that is played by recorded output.
#![allow(dead_code, reason = "not every test uses all of it")]

use std::fs::{self, File};
use std::ops::Deref;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

/// A machine of its own: a configuration, a state directory, a lister and a flusher.
pub struct Machine {
    folder: TempDir,
}

/// What is remembered, which is this test's alone until it is dropped.
pub struct Database {
    connection: Connection,
    _lock: File,
}

impl Deref for Database {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// A flush is watched by a worker that outlives the request: it ends with its machine.
impl Drop for Machine {
    fn drop(&mut self) {
        self.kill_all();
    }
}

impl Machine {
    /// A machine whose lister prints a recorded listing.
    pub fn with_fixture(case: &str) -> Machine {
        let fixture = |ending: &str| {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/fixtures")
                .join(format!("{case}.{ending}"))
                .display()
                .to_string()
        };
        let (stdout, stderr, rc) = (fixture("stdout"), fixture("stderr"), fs::read_to_string(fixture("rc")).unwrap());
        let kind = case.split('/').next().unwrap();
        Machine::with_lister(kind, &format!("cat {stdout}; cat {stderr} >&2; exit {rc}"))
    }

    /// A machine whose lister is a shell script.
    pub fn with_lister(kind: &str, script: &str) -> Machine {
        let machine = Machine { folder: tempfile::tempdir().unwrap() };
        fs::write(machine.path("list"), format!("#!/bin/sh\n{script}\n")).unwrap();
        // Counts its runs.
        fs::write(machine.path("flush"), format!("#!/bin/sh\necho run >> {}\n", machine.path("flushed").display()))
            .unwrap();
        for program in ["list", "flush"] {
            fs::set_permissions(machine.path(program), fs::Permissions::from_mode(0o755)).unwrap();
        }
        machine.configure(kind, "");
        machine
    }

    pub fn configure(&self, kind: &str, more: &str) {
        let text = format!(
            "[mta]\nkind = \"{kind}\"\nlist_command = [\"{}\"]\nflush_command = [\"{}\"]\n{more}\n[state]\ndirectory = \"{}\"\n",
            self.path("list").display(),
            self.path("flush").display(),
            self.path("state").display()
        );
        fs::write(self.path("bartleby.toml"), text).unwrap();
    }

    /// Kills every process that has to do with this machine: the worker of a flush, and what that starts meanwhile.
    pub fn kill_all(&self) {
        while self.kill_those_seen() > 0 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn kill_those_seen(&self) -> usize {
        let folder = self.folder.path().as_os_str().as_bytes();
        let is_ours = |process: &fs::DirEntry| {
            // One that has ended and waits for its parent no longer has a command line.
            let read = |name| fs::read(process.path().join(name)).unwrap_or_default();
            // A lister holds its place as its standard input.
            let input = fs::read_link(process.path().join("fd/0")).unwrap_or_default().into_os_string().into_vec();
            // A branch of the program has its command line, and its environment.
            [read("cmdline"), read("environ"), input]
                .iter()
                .any(|words| words.windows(folder.len()).any(|part| part == folder))
        };
        let ours = fs::read_dir("/proc").unwrap().flatten().filter(is_ours);
        let pids: Vec<i32> = ours.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect();
        for pid in &pids {
            // It may have ended meanwhile.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
        }
        pids.len()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The database, to be changed: nobody else changes it meanwhile. A view notes what it saw behind its answer, in a
    /// copy that takes the place of the database, so that a change made beside it would be lost.
    pub fn database(&self) -> Database {
        let lock = File::options().write(true).open(self.path("state/database.lock")).unwrap();
        lock.lock().unwrap();
        Database { connection: Connection::open(self.path("state/bartleby.db")).unwrap(), _lock: lock }
    }

    pub fn flushes(&self) -> usize {
        fs::read_to_string(self.path("flushed")).unwrap_or_default().lines().count()
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bartleby"));
        command.env_clear().env("BARTLEBY_CONFIG", self.path("bartleby.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn cgi(&self, variables: &[(&str, &[u8])]) -> Command {
        let mut command = self.command();
        for (name, value) in [
            ("GATEWAY_INTERFACE", &b"CGI/1.1"[..]),
            ("REQUEST_METHOD", b"GET"),
            ("SERVER_PROTOCOL", b"HTTP/1.1"),
            // A name that no stranger can have.
            ("HTTP_HOST", b"mx2.test"),
            ("REMOTE_ADDR", b"192.0.2.7"),
            ("BARTLEBY_ACCESS", b"granted"),
        ]
        .iter()
        .chain(variables)
        {
            command.env(name, std::ffi::OsStr::from_bytes(value));
        }
        command
    }

    pub fn ask(&self, variables: &[(&str, &[u8])]) -> Answer {
        Answer::of(self.cgi(variables).output().unwrap())
    }

    pub fn get(&self, query: &str) -> Answer {
        self.ask(&[("QUERY_STRING", query.as_bytes())])
    }

    pub fn json(&self) -> (u16, Value) {
        let answer = self.get("format=json");
        (answer.status, serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body)))
    }
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
    pub log: String,
}

impl Answer {
    pub fn of(output: Output) -> Answer {
        let text = String::from_utf8(output.stdout).unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!log.contains("panicked"), "{log}");
        assert_eq!(output.status.code(), Some(0), "{log}{text}");
        let text = text.replacen("\r\n\r\n", "\n\n", 1);
        let (head, body) = text.split_once("\n\n").unwrap_or_else(|| panic!("no head: {text}{log}"));
        let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap()[..3].parse().unwrap();
        Answer { status, head: head.to_lowercase().replace('\r', ""), body: body.to_owned(), log }
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub fn assert_safe_headers(&self) {
        let policy = self.field("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(self.field("x-content-type-options"), Some("nosniff"));
        assert_eq!(self.field("x-frame-options"), Some("deny"));
        assert_eq!(self.field("cross-origin-resource-policy"), Some("same-origin"));
        assert_eq!(self.field("referrer-policy"), Some("same-origin"));
        assert_eq!(self.field("cache-control"), Some("no-store"));
    }
}
