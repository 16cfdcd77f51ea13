//! `bartleby as-root` by itself, without sudo or doas: who may ask it, and what it refuses before it has asked any mail
//! server. With these, and with real mail servers, it is tried in the lab.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const LIST: &[u8] = b"{\"do\":\"list\"}\n";

/// A copy of the program that only this user can write to, and that every user may run.
struct Copy {
    folder: TempDir,
}

impl Copy {
    fn new() -> Copy {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let copy = Copy { folder };
        // By another process: a program that is open for writing here, and so in what another test starts, can't be run.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_bartleby")).arg(copy.path()).status().unwrap();
        assert!(copied.success());
        fs::set_permissions(copy.path(), Permissions::from_mode(0o755)).unwrap();
        copy
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("bartleby")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.path());
        command.arg("as-root").env_clear();
        command
    }
}

/// What comes of a request: the status, and what is said on standard error. Nothing is printed.
fn ask(command: &mut Command, request: &[u8]) -> (Option<i32>, String) {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    // It need not be taken to its end.
    let _ = child.stdin.take().unwrap().write_all(request);
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    assert!(stdout.is_empty(), "{}", String::from_utf8_lossy(&stdout));
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        // libtest does not capture this.
        let _ = writeln!(std::io::stderr(), "\n*** What as-root does for root is SKIPPED: this is not root ***\n");
    }
    is_root
}

#[test]
fn nobody_but_root_may_ask() {
    let copy = Copy::new();
    let mut command = copy.command();
    if nix::unistd::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    for request in [LIST, b"nonsense\n", b""] {
        let (status, said) = ask(&mut command, request);
        assert_eq!(status, Some(77), "{said}");
        assert!(said.starts_with("bartleby: as-root: only root can do this"), "{said}");
    }
}

#[test]
fn no_argument_is_taken() {
    let copy = Copy::new();
    for argument in ["list", "--help", "--version", "-x", "--", ""] {
        let (status, said) = ask(copy.command().arg(argument), LIST);
        let is_refused = status == Some(64) || (argument == "--" && status != Some(0));
        assert!(is_refused, "{argument}: {status:?} {said}");
    }
}

#[test]
fn what_is_not_in_the_grammar_is_refused_at_once() {
    if !is_root() {
        return;
    }
    let copy = Copy::new();
    let begun = Instant::now();
    for (request, words) in [
        (&b""[..], "not one whole line"),
        (b"{\"do\":\"list\"}", "not one whole line"),
        (b"{\"do\":\"list\"}\n{\"do\":\"list\"}\n", "more than one line"),
        (b"{\"do\":\"list\"}\n\0", "more than one line"),
        (b"{\"do\":\"list\"}\0\n", "not understood"),
        (b"{\"do\":\"delete\",\"ids\":[\"A\"]}\n", "unknown variant"),
        (b"{\"do\":\"show\",\"id\":\"A\"}\n", "unknown variant"),
        (b"{\"do\":\"list\",\"config\":\"/tmp/x\"}\n", "unknown field"),
        (b"{\"do\":\"run\",\"target\":\"id:-f\"}\n", "no plain name"),
        (b"{\"do\":\"run\",\"target\":\"id:--\"}\n", "no plain name"),
        (b"{\"do\":\"reasons\",\"ids\":[\"-Mrm\"]}\n", "a queue id that can't be one"),
        (b"{\"do\":\n", "not understood"),
        (&vec![b'x'; 1 << 20], "longer than 65536 bytes"),
        (&vec![b'\n'; 1 << 20], "longer than 65536 bytes"),
        (&[b"[".repeat(60_000), b"\n".to_vec()].concat(), "not understood"),
    ] {
        let (status, said) = ask(&mut copy.command(), request);
        let shown = String::from_utf8_lossy(&request[..request.len().min(60)]);
        assert_eq!(status, Some(64), "{shown}: {said}");
        assert!(said.starts_with("bartleby: as-root: ") && said.contains(words), "{shown}: {said}");
        assert!(said.lines().count() == 1 && said.len() < 400, "{said}");
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "it waits for more: {:?}", begun.elapsed());
}

#[test]
fn a_program_that_others_can_write_to_refuses() {
    if !is_root() {
        return;
    }
    let copy = Copy::new();
    let (program, folder) = (copy.path(), copy.folder.path().to_owned());
    let is_refused = |path: &Path| {
        let (status, said) = ask(&mut copy.command(), LIST);
        let expected = format!("root runs no program that another user can change, and {} ", path.display());
        assert!(status == Some(77) && said.contains(&expected), "{status:?} {said}");
    };
    for path in [&program, &folder] {
        chown(path, Some(65534), None).unwrap();
        is_refused(path);
        chown(path, Some(0), None).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o757)).unwrap();
        is_refused(path);
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let (status, said) = ask(&mut copy.command(), b"\n");
    assert_eq!(status, Some(64), "it is the request again: {said}");
}
