//! What this program asks of the operating system about itself: who it runs as and where.
//!
//! A static glibc has no name service switch, so user names are read from `/etc/passwd` alone.

pub mod process;
mod unlinked;

pub(crate) use unlinked::unlinked_file;

use std::env;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use jiff::tz::TimeZone;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{geteuid, gethostname};
use serde::{Deserialize, Serialize};

/// The user this program runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Numeric user id.
    pub uid: u32,
    /// Login name, or the number where `/etc/passwd` has none.
    pub name: String,
    /// Whether this process, and what it starts, can't gain rights by set-user-id or set-group-id bits (prctl(2)).
    pub bound: bool,
}

impl Account {
    /// The effective user of this process. To be asked before the cage is entered, which binds it.
    pub fn current() -> Account {
        let uid = geteuid().as_raw();
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = name_in_passwd(&passwd, uid).unwrap_or_else(|| uid.to_string());
        Account { uid, name, bound: nix::sys::prctl::get_no_new_privs().unwrap_or_default() }
    }

    /// Whether this is root.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// The login name of `uid` in text of the form of passwd(5).
fn name_in_passwd(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// This machine's host name, `localhost` where it has none.
pub fn host_name() -> String {
    gethostname().ok().and_then(|name| name.into_string().ok()).filter(|n| !n.is_empty()).unwrap_or("localhost".into())
}

/// This machine's time zone, UTC where it has none. (jiff's own search reads the whole zone database
/// first, which takes longer than all the rest of a request.)
pub fn time_zone() -> TimeZone {
    let rules = fs::read("/etc/localtime").ok();
    rules.and_then(|rules| TimeZone::tzif("local", &rules).ok()).unwrap_or(TimeZone::UTC)
}

/// The path of this program, to start it once more; `None` where neither `/proc` nor the name that it was
/// called by tells.
pub fn own_program() -> Option<PathBuf> {
    /// That name may lead from the first working directory.
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let itself = PathBuf::from("/proc/self/exe");
        if itself.exists() { Some(itself) } else { fs::canonicalize(env::args_os().next()?).ok() }
    };
    FOUND.get_or_init(find).clone()
}

/// Moves to the root folder: whatever is started from here stands in nobody's way. (To let each command move
/// instead takes fork(2) with all its copying, in place of posix_spawn(3).)
pub fn leave_working_directory() {
    own_program();
    // One that has no root folder has nothing to run either.
    let _ = env::set_current_dir("/");
}

/// Closes every descriptor that the web server left open but the three standard ones, so that no
/// program started from here inherits any. To be called first in `main`, before anything is opened.
pub fn close_inherited_descriptors() {
    let listed: Option<Vec<i32>> = fs::read_dir("/proc/self/fd")
        .ok()
        .map(|entries| entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect());
    for descriptor in listed.unwrap_or_else(|| (3..256).collect()) {
        if descriptor > 2 {
            // An error means that it was not open, as the listing's own no longer is.
            let _ = nix::unistd::close(descriptor);
        }
    }
}

/// Closes the standard streams, so that whoever waits for their end waits no longer. They lead to
/// nowhere from then on, as what is opened next would otherwise take their place.
pub fn close_standard_streams() {
    if let Ok(nowhere) = fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        // An error leaves them open, which only keeps somebody waiting.
        let _ = nix::unistd::dup2_stdin(&nowhere);
        let _ = nix::unistd::dup2_stdout(&nowhere);
        let _ = nix::unistd::dup2_stderr(&nowhere);
    }
}

/// Holds the signals that end this process back, in this thread and in those that it starts, until dropped: so
/// that what is under way can be ended first.
pub struct EndingSignals {
    before: SigSet,
    arrived: SignalFd,
}

impl EndingSignals {
    /// `None` where the system has no room for it: then such a signal ends this process alone.
    pub fn hold_back() -> Option<EndingSignals> {
        let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
        let arrived = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).ok()?;
        Some(EndingSignals { before: signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok()?, arrived })
    }
}

/// Can be read from once a signal has arrived.
impl AsFd for EndingSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
    }
}

impl Drop for EndingSignals {
    fn drop(&mut self) {
        // It can't fail: the mask was in force before.
        let _ = self.before.thread_set_mask();
    }
}

/// Writes a line to standard error: the web server's error log, or the terminal.
pub fn log(line: &str) {
    // Where that can't be written to, there is nobody to tell.
    let _ = writeln!(io::stderr(), "bartleby: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_names_come_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n";
        assert_eq!(name_in_passwd(passwd, 33).as_deref(), Some("www-data"));
        assert_eq!(name_in_passwd(passwd, 34), None);
        assert_eq!(name_in_passwd("", 0), None);
    }
}
