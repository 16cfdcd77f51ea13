//! What is on its way to standard output, at the pace of its reader: what can't be sent yet waits in memory, and then
//! in a file without a name, so that nobody else waits for a reader who is slow.

use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::O_NONBLOCK;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statvfs::fstatvfs;

use super::poll::{WRITABLE, ready};
use super::unlinked_file;

/// How much waits in memory, in bytes.
const HELD: usize = 1024 * 1024;

/// How much is written to a pipe or socket at once, in bytes: once poll(2) has said that there is room, so much never
/// blocks (`PIPE_BUF`, pipe(7)).
const PIECE: usize = 4096;

/// How much is written elsewhere, and read from the file, at once, in bytes.
const CHUNK: usize = 256 * 1024;

/// How long a reader may take nothing at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// One part in so many of a filesystem is left free: the mail queue may be on it.
const RESERVE: u64 = 20;

/// Bytes on their way to standard output.
///
/// They become whole piece by piece ([`Output::seal`]): what was not sealed can be taken back, and is never sent.
pub(crate) struct Output {
    destination: Destination,
    /// Behind what was sent: first this, then what the file holds, then this tail, where the file took no more.
    memory: Vec<u8>,
    file: Option<Overflow>,
    tail: Vec<u8>,
    folder: Option<PathBuf>,
    has_room: bool,
    /// Bytes of `memory` that were sent already.
    sent: usize,
    /// Bytes at the end that are not sealed.
    open: usize,
    /// Whether nothing is to be sent yet.
    held_back: bool,
    /// When the reader last took something, or was first offered it.
    progress: Instant,
}

/// Where it goes.
struct Destination {
    to: OwnedFd,
    /// How much is written at once.
    piece: usize,
    /// Whether a reader who is slow can hold up a write for which poll(2) saw no room.
    blocks: bool,
}

impl Destination {
    /// Standard output. Of a pipe, an open file description of our own that never blocks: to change the one that
    /// others share with us (fcntl(2), `O_NONBLOCK`) would surprise them.
    fn stdout() -> io::Result<Destination> {
        let stdout = io::stdout();
        let kind =
            fstat(&stdout).map_or(SFlag::empty(), |found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT);
        let shared = |piece, blocks| Ok(Destination { to: stdout.as_fd().try_clone_to_owned()?, piece, blocks });
        match kind {
            SFlag::S_IFIFO => {
                let own = File::options().write(true).custom_flags(O_NONBLOCK).open("/proc/self/fd/1");
                // Where there is no /proc, or the pipe is another user's.
                own.map_or_else(
                    |_| shared(PIECE, true),
                    |own| Ok(Destination { to: own.into(), piece: CHUNK, blocks: false }),
                )
            }
            SFlag::S_IFREG | SFlag::S_IFCHR => shared(CHUNK, false),
            _ => shared(PIECE, true),
        }
    }
}

/// The file, and how much of it was read back.
struct Overflow {
    file: File,
    read: u64,
    written: u64,
}

impl Output {
    /// Nothing so far. What does not fit into memory goes to a file in `folder`, where there is one.
    ///
    /// # Errors
    /// Standard output is not open.
    pub(crate) fn new(folder: Option<&Path>) -> io::Result<Self> {
        Ok(Output {
            destination: Destination::stdout()?,
            memory: Vec::new(),
            file: None,
            tail: Vec::new(),
            folder: folder.map(Path::to_owned),
            has_room: true,
            sent: 0,
            open: 0,
            held_back: false,
            progress: Instant::now(),
        })
    }

    /// The same, of which nothing is sent before it is known what stands in front, see [`Output::release`].
    ///
    /// # Errors
    /// As [`Output::new`].
    pub(crate) fn held_back(folder: Option<&Path>) -> io::Result<Self> {
        Ok(Output { held_back: true, ..Output::new(folder)? })
    }

    /// Whether nothing is to be sent yet.
    pub(crate) fn is_held_back(&self) -> bool {
        self.held_back
    }

    /// Whether so much is held back that it is time to release it.
    pub(crate) fn is_full(&self) -> bool {
        self.held_back && self.len() - self.open as u64 > HELD as u64
    }

    /// Lets it go, behind these bytes.
    pub(crate) fn release(&mut self, front: &[u8]) {
        self.memory.splice(self.sent..self.sent, front.iter().copied());
        self.held_back = false;
        self.progress = Instant::now();
    }

    /// Forgets all that was not sent.
    pub(crate) fn clear(&mut self) {
        (self.memory, self.tail, self.file) = (Vec::new(), Vec::new(), None);
        (self.sent, self.open, self.has_room) = (0, 0, true);
    }

    /// Adds bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.open += bytes.len();
        if self.sent > CHUNK {
            self.memory.drain(..self.sent);
            self.sent = 0;
        }
        let in_file = self.file.as_ref().is_some_and(|file| file.read < file.written);
        if !self.tail.is_empty() {
            self.tail.extend_from_slice(bytes);
        } else if !in_file && self.memory.len() - self.sent + bytes.len() <= HELD {
            self.memory.extend_from_slice(bytes);
        } else if self.spill(bytes).is_err() {
            self.tail.extend_from_slice(bytes);
            self.has_room = false;
        }
    }

    fn spill(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            let folder = self.folder.as_deref().ok_or(io::ErrorKind::NotFound)?;
            self.file = Some(Overflow { file: unlinked_file(folder)?, read: 0, written: 0 });
        }
        let Some(Overflow { file, written, .. }) = &mut self.file else { return Ok(()) };
        let room = fstatvfs(&*file)?;
        if room.blocks_available().saturating_mul(RESERVE as _) < room.blocks() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all_at(bytes, *written)?;
        *written += bytes.len() as u64;
        Ok(())
    }

    /// Adds bytes that make all that was added whole. Where nothing else waits, they are sent at once, as far as the
    /// reader takes them.
    ///
    /// # Errors
    /// As [`Output::send`].
    pub(crate) fn push_whole(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        if self.len() == 0 && !self.held_back && !self.destination.blocks {
            while !rest.is_empty() {
                match nix::unistd::write(&self.destination.to, rest) {
                    Ok(length) => rest = &rest[length..],
                    Err(Errno::EAGAIN) => break,
                    Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            self.progress = Instant::now();
        }
        if !rest.is_empty() {
            self.push(rest);
        }
        self.seal();
        Ok(())
    }

    /// Whether more can be added without taking memory; where not, it is time to wait for the reader.
    pub(crate) fn has_room(&self) -> bool {
        self.has_room
    }

    /// Makes all that was added whole.
    pub(crate) fn seal(&mut self) {
        if !self.is_ready() {
            self.progress = Instant::now();
        }
        self.open = 0;
    }

    /// Takes back what was added since it was sealed.
    pub(crate) fn take_back(&mut self) {
        let mut left = mem::take(&mut self.open);
        let in_tail = left.min(self.tail.len());
        self.tail.truncate(self.tail.len() - in_tail);
        left -= in_tail;
        if let Some(Overflow { read, written, .. }) = &mut self.file {
            let in_file = (left as u64).min(*written - *read);
            *written -= in_file;
            left -= in_file as usize;
        }
        self.memory.truncate(self.memory.len() - left);
    }

    /// Bytes that wait to be sent, those that are not sealed included.
    pub(crate) fn len(&self) -> u64 {
        let in_file = self.file.as_ref().map_or(0, |file| file.written - file.read);
        (self.memory.len() - self.sent + self.tail.len()) as u64 + in_file
    }

    /// Whether something is ready to be sent.
    pub(crate) fn is_ready(&self) -> bool {
        !self.held_back && self.len() > self.open as u64
    }

    /// When this program's patience with its reader ends: something is ready, and nothing was taken for a minute.
    pub(crate) fn stalls_at(&self) -> Option<Instant> {
        self.is_ready().then(|| self.progress + PATIENCE)
    }

    /// Sends a piece. To be called when there is room for one.
    ///
    /// # Errors
    /// Those of write(2): the reader has left, say.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        if self.sent == self.memory.len() {
            self.refill()?;
        }
        let ready = (self.len() - self.open as u64).min(self.destination.piece as u64) as usize;
        let piece = &self.memory[self.sent..][..ready.min(self.memory.len() - self.sent)];
        match nix::unistd::write(&self.destination.to, piece) {
            Ok(length) => {
                self.sent += length;
                self.progress = Instant::now();
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Brings what is next to memory.
    fn refill(&mut self) -> io::Result<()> {
        self.memory.clear();
        self.sent = 0;
        match &mut self.file {
            Some(Overflow { file, read, written }) if *read < *written => {
                let length = (*written - *read).min(CHUNK as u64);
                self.memory.resize(length as usize, 0);
                file.read_exact_at(&mut self.memory, *read)?;
                *read += length;
            }
            _ => {
                if let Some(Overflow { file, read, written }) = &mut self.file {
                    (*read, *written) = (0, 0);
                    // Gives the room back; where it can't be, it is used again.
                    let _ = file.set_len(0);
                }
                mem::swap(&mut self.memory, &mut self.tail);
                self.has_room = true;
            }
        }
        Ok(())
    }

    /// Sends all that is sealed. A signal that ends this process meanwhile does so.
    ///
    /// # Errors
    /// As [`Output::send`]; [`io::ErrorKind::TimedOut`]: the reader took nothing for a minute.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        while let Some(until) = self.stalls_at() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let writable = ready(&[(Some(self.destination.to.as_fd()), WRITABLE)], left);
            if writable.iter().any(|found| !found.is_empty()) {
                self.send()?;
            }
        }
        Ok(())
    }
}
