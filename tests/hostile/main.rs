//! What strangers, careless users and name servers can put into the values that the built program prints: nothing of
//! it may act, in a shell, on a terminal or anywhere else.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../machine/mod.rs"]
mod machine;

mod configuration;
mod folders;
mod names;
mod printable;
mod remedies;
mod tables;

use std::process::{Command, Stdio};

/// A value that a shell must see as one word.
const SPECIAL: &str = "it's; id >pwned; echo '";

/// The same, with characters that act on a terminal or can't be seen.
const ODD: &str = "it's; id >pwned; echo '\n\u{1b}[31m\u{202e}x";

/// This test as root; `false`, loudly, where it is not.
fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: only root can mount, and be several users");
    }
    is_root
}

/// A script run as root among mounts of its own; what it prints on either stream.
fn among_own_mounts(script: &str) -> String {
    let output = Command::new("unshare").args(["--mount", "sh", "-c", script]).stdin(Stdio::null()).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

/// A word in single quotes, for scripts of these tests.
fn word(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
