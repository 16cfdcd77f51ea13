//! What this program asks of the operating system.

mod account;
mod argv;
mod audience;
mod body;
mod destination;
mod exit;
mod group;
pub(crate) mod hosts;
mod input;
pub(crate) mod output;
pub(crate) mod poll;
pub mod process;
pub(crate) mod processes;
mod raw;
mod running;
mod signals;
mod stdin;
pub(crate) mod through;
pub(crate) mod trust;
mod unlinked;

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;

use jiff::tz::TimeZone;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::gethostname;

pub use account::Account;
pub(crate) use audience::{Audience, Until};
pub use body::Body;
pub(crate) use body::Seam;
pub use input::Input;
pub use raw::empty_environment;
pub(crate) use signals::EndingSignals;
pub use signals::{expect_children, forget_inherited_signals};
pub use unlinked::ScratchFile;
pub(crate) use unlinked::{Reserve, Scratch};

use crate::text::printable;

/// The right to open files, to start programs and to connect. `main` makes the only one of its process, each branch of
/// the process begins with one, and a sandbox takes it away for good: what must happen before a sandbox is entered
/// can't be forgotten, as afterwards it does not compile.
#[derive(Debug)]
pub struct Free(());

impl Free {
    /// The right of this process. To be called by `main` alone (and by tests, which play it).
    pub fn of_main() -> Free {
        Free(())
    }
}

/// This machine's host name, `localhost` where it has none.
pub(crate) fn host_name() -> String {
    gethostname().ok().and_then(|name| name.into_string().ok()).filter(|n| !n.is_empty()).unwrap_or("localhost".into())
}

/// Which start of this machine it runs since, as the kernel numbers them (random(4)); empty where it does not say.
pub(crate) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The addresses of this machine's interfaces, but those that every machine has.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let address = |storage: SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
    };
    let interfaces = getifaddrs().into_iter().flatten();
    interfaces.filter_map(|interface| address(interface.address?)).filter(|address| !address.is_loopback()).collect()
}

/// This machine's time zone, UTC where it has none. (jiff's own search reads the whole zone database
/// first, which takes longer than all the rest of a request.)
pub(crate) fn time_zone() -> TimeZone {
    let rules = fs::read("/etc/localtime").ok();
    rules.and_then(|rules| TimeZone::tzif("local", &rules).ok()).unwrap_or(TimeZone::UTC)
}

/// Moves to the root folder, so that what is started from here stands in nobody's way. (To let each command move
/// instead takes fork(2) with all its copying, in place of posix_spawn(3).)
pub fn leave_working_directory() {
    // A process that has no root folder has nothing to run either.
    let _ = std::env::set_current_dir("/");
}

/// Closes every descriptor that the web server left open but the three standard ones, so that no
/// program started from here inherits any. To be called first in `main`, before anything is opened.
pub fn close_inherited_descriptors() {
    close_all_but(&[]);
}

/// Closes every descriptor but the three standard ones and these.
fn close_all_but(kept: &[i32]) {
    let mut kept: Vec<u32> = kept.iter().filter_map(|kept| u32::try_from(*kept).ok()).chain([0, 1, 2]).collect();
    kept.sort_unstable();
    let ends = kept.iter().skip(1).map(|next| next.saturating_sub(1)).chain([u32::MAX]);
    let between = kept.iter().map(|kept| kept + 1).zip(ends).filter(|(first, last)| first <= last);
    for (first, last) in between {
        if raw::close_range(first, last).is_err() {
            return close_listed_but(&kept);
        }
    }
}

/// The same, for a kernel that can't close many at once.
fn close_listed_but(kept: &[u32]) {
    let listed: Option<Vec<u32>> = fs::read_dir("/proc/self/fd")
        .ok()
        .map(|entries| entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect());
    for descriptor in listed.unwrap_or_else(|| (3..256).collect()) {
        if !kept.contains(&descriptor) {
            // An error means that it was not open, as the listing's own no longer is.
            let _ = i32::try_from(descriptor).map(nix::unistd::close);
        }
    }
}

/// Closes the standard streams, so that nobody waits for their end any longer. They lead to
/// nowhere from then on, as what is opened next would otherwise take their place.
pub(crate) fn close_standard_streams() {
    if let Ok(nowhere) = fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        // An error leaves them open, which only keeps somebody waiting.
        let _ = nix::unistd::dup2_stdin(&nowhere);
        let _ = nix::unistd::dup2_stdout(&nowhere);
        let _ = nix::unistd::dup2_stderr(&nowhere);
    }
}

/// Makes standard error lead to nowhere where it is the same pipe or socket as standard output: some web servers (thttpd,
/// mini_httpd) would send every line of the log to the reader, in front of the answer.
pub fn keep_log_out_of_answer() {
    let place = |found: nix::sys::stat::FileStat| {
        let kind = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT;
        [SFlag::S_IFIFO, SFlag::S_IFSOCK].contains(&kind).then_some((found.st_dev, found.st_ino))
    };
    let (answer, log) = (fstat(io::stdout()).ok().and_then(place), fstat(io::stderr()).ok().and_then(place));
    if answer.is_some()
        && answer == log
        && let Ok(nowhere) = fs::OpenOptions::new().write(true).open("/dev/null")
    {
        // An error leaves it as it was.
        let _ = nix::unistd::dup2_stderr(&nowhere);
    }
}

/// Writes a line to standard error: the web server's error log, or the terminal. What strangers wrote is made
/// printable here, and nowhere else on the way.
pub(crate) fn log(line: &str) {
    // Where that can't be written to, there is nobody to tell.
    let _ = writeln!(io::stderr(), "bartleby: {}", printable(line));
}
