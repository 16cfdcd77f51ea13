//! Ways to start the program that more than one subject takes.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::machine::{Answer, Machine};

const FORM: (&str, &[u8]) = ("CONTENT_TYPE", b"application/x-www-form-urlencoded");

pub fn post(machine: &Machine, length: &str, body: &[u8], more: &[(&str, &[u8])]) -> Answer {
    let variables =
        [&[("REQUEST_METHOD", &b"POST"[..]), ("CONTENT_LENGTH", length.as_bytes()), FORM][..], more].concat();
    let mut child = machine.cgi(&variables).stdin(Stdio::piped()).spawn().unwrap();
    // The program may have answered already.
    let _ = child.stdin.take().unwrap().write_all(body);
    Answer::of(child.wait_with_output().unwrap())
}

/// The same command, started by another program with the words in front.
pub fn behind(words: &[&str], command: &Command) -> Command {
    let mut behind = Command::new(words[0]);
    behind.args(&words[1..]).arg(command.get_program()).env_clear();
    behind.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    behind
}

/// The program as it is started from a terminal. What runs in the background ignores some signals, which is inherited.
pub fn interruptible(machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = behind(&["env", "--default-signal"], &machine.command());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
