//! A listing that is shared with others: what a request does that reads the bytes of the host's lister (`host`).
//!
//! Each request has a reader of its own, which reads a pipe as it would the lister's. What comes into the host's file is
//! passed on from there, at that reader's pace.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::unistd::pipe2;

use super::host::{self, Said};
use super::session::{Broken, PartEnd, Supply};
use crate::context::Context;
use crate::system::passing::{MOST_FILES, receive};
use crate::system::poll::{READABLE, WRITABLE, Watched, ready};
use crate::system::process::{self, Argv, Ending, PIPE};
use crate::system::{Account, Audience, EndingSignals, pass_on};

/// The least room for what is listed, in bytes: a long queue's listing.
const LEAST_ROOM: u64 = 64 << 20;

/// How much later than the lister the host is given up.
const GRACE: Duration = Duration::from_secs(3);

/// How much of the host's words is kept at the most, in bytes: what its commands say, 16 KiB each, in JSON.
const LONGEST: usize = 4 << 20;

/// What the listing of one part is passed on by.
struct Part {
    file: File,
    /// How far it was passed on.
    at: u64,
    /// How long it is, as far as it was looked at.
    length: u64,
    /// The pipe to the reader, until all was passed on, or the reader wants no more.
    pipe: Option<File>,
    /// The reader's end of it.
    output: File,
}

/// One who shares a listing.
pub(crate) struct Guest {
    host: UnixStream,
    /// Whether the host may still say something.
    listens: bool,
    unread: Vec<u8>,
    files: Vec<OwnedFd>,
    deadline: Instant,
    /// When the listing was begun, in seconds since 1970.
    began: i64,
    parts: Vec<Part>,
    /// How the parts ended, which the reader is still to be told.
    ends: VecDeque<PartEnd>,
    /// How long the listing took, once it has ended.
    took: Option<Duration>,
    lost: bool,
    /// As a lister has it: a signal is dealt with by who attends to the reader.
    signals: Option<EndingSignals>,
}

impl Guest {
    /// Joins those who look at the same queue, or has it listed for them; `None` where nothing can be shared.
    pub(super) fn join_or_begin(context: &Context, commands: &[Argv]) -> Option<Guest> {
        if !context.seen_by.may_share() || !(1..=MOST_FILES).contains(&commands.len()) {
            return None;
        }
        let (records, scratch) = (context.records.as_ref().ok()?, context.scratch.as_ref()?);
        let door = records.door(identity(context, commands));
        if let Some(host) = door.knock() {
            return Guest::of(context, host);
        }
        if scratch.room() < LEAST_ROOM {
            return None;
        }
        let gate = door.gate()?;
        if let Some(host) = door.knock() {
            return Guest::of(context, host);
        }
        let asked = Instant::now();
        let door = door.open(&gate)?;
        let (host, first) = UnixStream::pair().ok()?;
        let kept: Vec<_> = door.descriptors().into_iter().chain([first.as_fd()]).collect();
        let begun = process::branch_off(&context.free, &kept, |_| {
            if let Ok(first) = first.try_clone() {
                host::serve(context, &door, first, commands.to_vec(), asked);
            }
        });
        drop(gate);
        if begun.is_err() {
            door.close();
            return None;
        }
        Guest::of(context, host)
    }

    fn of(context: &Context, host: UnixStream) -> Option<Guest> {
        Some(Guest {
            host,
            listens: true,
            unread: Vec::new(),
            files: Vec::new(),
            deadline: Instant::now() + context.config.mta.deadline + GRACE,
            began: context.clock.now,
            parts: Vec::new(),
            ends: VecDeque::new(),
            took: None,
            lost: false,
            signals: EndingSignals::hold_back(),
        })
    }

    /// When the listing was begun, in seconds since 1970.
    pub(super) fn began(&self) -> i64 {
        self.began
    }

    /// Waits until the listing has begun, as long as somebody is there. Returns whether it has; else it is not shared.
    ///
    /// # Errors
    /// [`Broken`]: the lister that is shared could not be started, or nobody is left to answer.
    pub(super) fn wait_for_beginning(&mut self, audience: Audience<'_>) -> Result<bool, Broken> {
        while self.parts.is_empty() {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let [client, signals] = audience.watched();
            let own = self.signals.as_ref().map(AsFd::as_fd);
            let found = ready(&[client, signals, (own, READABLE), (Some(self.host.as_fd()), READABLE)], left);
            let [hung_up, arrived, own, at_host] = found[..] else { return Ok(false) };
            match () {
                () if !arrived.is_empty() || !own.is_empty() => {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                () if !hung_up.is_empty() => return Err(io::ErrorKind::BrokenPipe.into()),
                () if !at_host.is_empty() => match self.listen() {
                    Some(Said::Refused(trouble)) => return Err(Broken::Reader(trouble)),
                    Some(_) => return Ok(false),
                    None => {}
                },
                () => {}
            }
            if self.parts.is_empty() && (!self.listens || left.is_zero()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes what the host has said, and returns what ends it all.
    fn listen(&mut self) -> Option<Said> {
        let mut buffer = [0; 4096];
        loop {
            match receive(&self.host, &mut buffer, &mut self.files) {
                Ok(length) if length > 0 && self.unread.len() < LONGEST => {
                    self.unread.extend_from_slice(&buffer[..length]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => {
                    self.listens = false;
                    break;
                }
            }
        }
        while let Some(end) = memchr::memchr(b'\n', &self.unread) {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            match serde_json::from_slice(&line) {
                // That there is more.
                _ if line == b"\n" => {}
                Ok(Said::Begun { began }) if self.parts.is_empty() => {
                    self.began = began;
                    match self.files.drain(..).map(Part::of).collect() {
                        Ok(parts) => self.parts = parts,
                        Err(_) => return Some(Said::NoRoom),
                    }
                }
                Ok(Said::Ended { took, ends }) if ends.len() == self.parts.len() && self.took.is_none() => {
                    (self.took, self.ends) = (Some(took), ends.into());
                    self.listens = false;
                }
                Ok(said @ (Said::Refused(_) | Said::NoRoom)) => return Some(said),
                _ => return Some(Said::NoRoom),
            }
        }
        self.parts.iter_mut().for_each(Part::look);
        self.settle();
        None
    }

    /// Closes the pipes through which nothing more will come, or sees that the end is missing.
    fn settle(&mut self) {
        self.lost |= !self.listens && self.took.is_none();
        if self.took.is_some() {
            self.parts.iter_mut().for_each(Part::close_at_end);
        }
    }
}

impl Supply for Guest {
    fn outputs(&self) -> Vec<Option<&File>> {
        self.parts.iter().map(|part| Some(&part.output)).collect()
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn signals(&self) -> Option<&EndingSignals> {
        self.signals.as_ref()
    }

    fn watched(&self) -> Vec<Watched<'_>> {
        let host = (Some(self.host.as_fd()).filter(|_| self.listens), READABLE);
        [host].into_iter().chain(self.parts.iter().map(Part::watched)).collect()
    }

    fn attend(&mut self, found: &[PollFlags]) {
        let [at_host, of_parts @ ..] = found else { return };
        if !at_host.is_empty() && self.listen().is_some() {
            self.lost = true;
        }
        for (part, ready) in self.parts.iter_mut().zip(of_parts) {
            self.lost |= !ready.is_empty() && part.pass_on().is_err();
        }
        self.settle();
    }

    fn next_end(&mut self) -> Option<PartEnd> {
        let told = self.parts.len().checked_sub(self.ends.len())?;
        let is_over = self.took.is_some() && self.parts.get(told)?.pipe.is_none();
        if is_over { self.ends.pop_front() } else { None }
    }

    fn took(&mut self) -> Option<Duration> {
        self.took.filter(|_| self.ends.is_empty())
    }

    fn is_lost(&self) -> bool {
        self.lost
    }

    fn end(&mut self, _: Ending) {
        self.lost |= self.took.is_none();
    }
}

impl Part {
    /// One whose bytes come into this file.
    fn of(file: OwnedFd) -> io::Result<Part> {
        let file = File::from(file);
        let found = file.metadata()?;
        if !found.is_file() || found.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (output, pipe) = pipe2(OFlag::O_CLOEXEC)?;
        // Nobody waits for the reader to read. A larger pipe is a matter of speed alone.
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let _ = fcntl(&pipe, FcntlArg::F_SETPIPE_SZ(PIPE as i32));
        Ok(Part { file, at: 0, length: found.len(), pipe: Some(pipe.into()), output: output.into() })
    }

    /// Looks how long the file is.
    fn look(&mut self) {
        self.length = self.file.metadata().map_or(self.length, |found| found.len());
    }

    /// The pipe, while there is something to pass on.
    fn watched(&self) -> Watched<'_> {
        (self.pipe.as_ref().filter(|_| self.at < self.length).map(AsFd::as_fd), WRITABLE)
    }

    /// Passes on what the pipe has room for.
    ///
    /// # Errors
    /// The file can't be read.
    fn pass_on(&mut self) -> io::Result<()> {
        let Some(pipe) = &self.pipe else { return Ok(()) };
        let most = usize::try_from(self.length - self.at).map_or(PIPE, |left| left.min(PIPE));
        match pass_on(&self.file, self.at, pipe, most) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => self.at += length as u64,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            // The reader has ended, which its other streams show.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.pipe = None,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Closes the pipe where all was passed on of a file that grows no longer.
    fn close_at_end(&mut self) {
        if self.at >= self.length {
            self.pipe = None;
        }
    }
}

/// A number that two listings have in common only where they are the same: of this program, by a user with the same rights,
/// by the same commands and programs, on the same machine.
fn identity(context: &Context, commands: &[Argv]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let account = &context.account;
    (env!("CARGO_PKG_VERSION"), account.uid, account.bound, Account::groups(), &context.host).hash(&mut hasher);
    context.source.as_ref().ok().map(|source| source.mta.kind().name()).hash(&mut hasher);
    (context.config.mta.deadline, commands).hash(&mut hasher);
    // A namespace has no times of its own.
    fs::metadata("/proc/self/ns/mnt").ok().map(|found| (found.dev(), found.ino())).hash(&mut hasher);
    for file in [Path::new("/proc/self/exe")].into_iter().chain(commands.iter().flat_map(Argv::files)) {
        let identity = |found: fs::Metadata| {
            (found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec(), found.ctime_nsec())
        };
        fs::metadata(file).ok().map(identity).hash(&mut hasher);
    }
    hasher.finish()
}
