//! The tools that lead to root, and what is played to try them.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::faults;
use crate::rule::{self, PROGRAM, as_web_server};

const SUDO: &str = "/usr/bin/sudo";
const SUDO_RS: &str = "/usr/bin/sudo-rs";

/// What leads to root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// sudo.
    Sudo,
    /// sudo-rs in its place.
    SudoRs,
    /// doas.
    Doas,
}

impl Tool {
    /// Those that are here.
    pub fn all() -> Vec<Tool> {
        let mut tools = vec![Tool::Sudo, Tool::Doas];
        if Path::new(SUDO_RS).exists() {
            tools.push(Tool::SudoRs);
        } else {
            let _ = writeln!(io::stderr(), "\n*** This Debian has no sudo-rs: what is tried with it is SKIPPED ***\n");
        }
        tools
    }

    /// Installs the rule for it, and none for another.
    pub fn install(self) {
        rule::remove();
        match self {
            Tool::Sudo => rule::install(),
            Tool::Doas => rule::install_doas(),
            Tool::SudoRs => {
                // As Ubuntu has it.
                fs::rename(SUDO, format!("{SUDO}.ws")).unwrap();
                symlink(SUDO_RS, SUDO).unwrap();
                rule::install();
            }
        }
    }

    /// The command that starts root's program with these arguments.
    pub fn command(self, arguments: &[&str]) -> Command {
        let (program, words): (_, &[&str]) = match self {
            Tool::Sudo | Tool::SudoRs => ("sudo", &["-n", "--"]),
            Tool::Doas => ("doas", &["-n"]),
        };
        as_web_server(program, &[words, &[PROGRAM], arguments].concat())
    }

    /// Asks, as the web server's user. Whether all that is sent is taken does not matter.
    pub fn ask(self, request: &[u8]) -> Output {
        answer(&mut self.command(&["as-root"]), request)
    }

    /// What comes with this status.
    pub fn asked(self, request: &str, status: i32) -> String {
        let output = self.ask(format!("{request}\n").as_bytes());
        assert_eq!(output.status.code(), Some(status), "{self:?} {request}: {output:?}");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }
}

/// A program that hangs when it is to list, and heeds no request to end, until the real one is put back.
pub struct Hangs {
    program: String,
    real: String,
}

impl Hangs {
    /// Puts it there.
    pub fn in_place_of(program: &str) -> Hangs {
        let real = format!("{program}.real");
        fs::rename(program, &real).unwrap();
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n-j | -p | -bp* | 'show queue') trap '' TERM HUP; exec sleep 987 ;;\nesac\n\
             exec {real} \"$@\"\n"
        );
        faults::executable(program, &script);
        Hangs { program: program.to_owned(), real }
    }
}

impl Drop for Hangs {
    fn drop(&mut self) {
        // Also for what the lab shows of the queue when a test has failed.
        fs::rename(&self.real, &self.program).unwrap();
    }
}

/// Where a program of the mail server's really is.
pub fn found(program: &OsStr) -> String {
    let program = Path::new("/usr/sbin").join(program);
    fs::canonicalize(program).unwrap().into_os_string().into_string().unwrap()
}

/// What comes of a command that gets this input.
pub fn answer(command: &mut Command, request: &[u8]) -> Output {
    let streams = [Stdio::piped(), Stdio::piped(), Stdio::piped()];
    let [input, output, errors] = streams;
    let mut child = command.stdin(input).stdout(output).stderr(errors).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(request);
    child.wait_with_output().unwrap()
}
