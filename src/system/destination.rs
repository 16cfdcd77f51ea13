//! Where an answer is sent: standard output, whatever that is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc::{O_NOCTTY, O_NONBLOCK};
use nix::sys::stat::{SFlag, fstat};

/// How much is written to a pipe or socket at once, in bytes: once poll(2) has said that there is room, so much never
/// blocks (`PIPE_BUF`, pipe(7)).
pub(super) const PIECE: usize = 4096;

/// How much is written elsewhere at once, in bytes.
pub(super) const CHUNK: usize = 256 * 1024;

/// Where it goes.
pub(super) struct Destination {
    pub to: OwnedFd,
    /// How much is written at once, in bytes.
    pub piece: usize,
    /// Whether a reader who is slow can hold up a write for which poll(2) saw no room.
    pub blocks: bool,
}

impl Destination {
    /// Standard output. A pipe or a terminal (which Ctrl-S stops) is opened again, so that no write waits: `O_NONBLOCK`
    /// on what others share with us would hold for them, too.
    ///
    /// # Errors
    /// It is not open.
    pub fn stdout() -> io::Result<Destination> {
        let stdout = io::stdout();
        let kind =
            fstat(&stdout).map_or(SFlag::empty(), |found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT);
        let shared = |piece, blocks| Ok(Destination { to: stdout.as_fd().try_clone_to_owned()?, piece, blocks });
        match kind {
            // Where there is no /proc, or the pipe is another user's, it is the shared one.
            SFlag::S_IFIFO | SFlag::S_IFCHR => again().map_or_else(
                |_| shared(PIECE, true),
                |own| Ok(Destination { to: own.into(), piece: CHUNK, blocks: false }),
            ),
            SFlag::S_IFREG => shared(CHUNK, false),
            _ => shared(PIECE, true),
        }
    }
}

fn again() -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(O_NONBLOCK | O_NOCTTY).open("/proc/self/fd/1")
}
