//! A listing that is shared with others: what a request does that reads what the host (`host`) has listed.
//!
//! Each request has a reader of its own, which follows the host's files while they grow, and ends where the notes beside
//! them say that the listing has.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::host::{self, Files, Note};
use super::session::{Broken, PartEnd, Supply};
use crate::context::Context;
use crate::state::{Meeting, Records};
use crate::system::poll::{READABLE, Watched, ready};
use crate::system::process::{self, Argv, Ending};
use crate::system::{Account, Audience, EndingSignals, Scratch};

/// The least room for what is listed, in bytes: a long queue's listing.
const LEAST_ROOM: u64 = 64 << 20;

/// The most parts: each is a file that is open.
const MOST_PARTS: usize = 32;

/// How much later than the lister the host is given up.
const GRACE: Duration = Duration::from_secs(3);

/// How much of the notes is read at the most, in bytes: what the commands say, 16 KiB each, in JSON.
const LONGEST: usize = 4 << 20;

/// How often the notes are looked at: the longer the listing takes, the less often.
const SOON: Duration = Duration::from_millis(1);
const LATER: Duration = Duration::from_millis(20);

/// One who shares a listing.
pub(crate) struct Guest {
    notes: File,
    /// How far the notes were read, in bytes.
    read: u64,
    /// What the reader reads. The first is locked, for others to read, so that the host sees that somebody is there.
    parts: Vec<File>,
    came: Instant,
    deadline: Instant,
    /// When the listing was begun, in nanoseconds since 1970.
    began: Option<u64>,
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
    pub(super) fn join_or_begin(context: &Context, identity: u64, commands: &[Argv]) -> Option<Guest> {
        let (records, scratch) = (context.records.as_ref().ok()?, context.scratch.as_ref()?);
        if !(1..=MOST_PARTS).contains(&commands.len()) {
            return None;
        }
        let invitation = match records.meet(identity) {
            Meeting::Host(files) if files.len() == commands.len() + 1 => return Guest::join(context, records, files),
            Meeting::Host(_) | Meeting::Stranger => return None,
            Meeting::Nobody(invitation) => invitation,
        };
        let files = files(scratch, commands.len())?;
        let opened = [&files.notes].into_iter().chain(&files.parts).map(|file| file.for_reading().ok());
        let guest = Guest::of(context, opened.collect::<Option<_>>()?)?;
        let own = [invitation.as_fd()].into_iter().chain(records.for_listing());
        let kept: Vec<_> = own.chain(files.descriptors()).collect();
        let serve = |_| host::serve(context, &invitation, &files, commands);
        process::branch_off(&context.free, &kept, serve).ok().map(|()| guest)
    }

    /// Joins the host of these files, where its listing may still be shared.
    fn join(context: &Context, records: &Records, files: Vec<File>) -> Option<Guest> {
        let mut guest = Guest::of(context, files)?;
        let said = guest.listen();
        let is_of_now = guest.began.is_none_or(|began| records.is_of_now(began));
        (said.is_none() && !guest.lost && is_of_now).then_some(guest)
    }

    /// A guest with these files, the notes first.
    fn of(context: &Context, files: Vec<File>) -> Option<Guest> {
        let mut files = files.into_iter();
        let (notes, parts) = (files.next()?, files.collect::<Vec<_>>());
        // Where that can't be had, nobody is left, and the host is about to end.
        parts.first()?.try_lock_shared().ok()?;
        Some(Guest {
            notes,
            read: 0,
            parts,
            came: Instant::now(),
            deadline: Instant::now() + context.config.mta.deadline + GRACE,
            began: None,
            ends: VecDeque::new(),
            took: None,
            lost: false,
            signals: EndingSignals::hold_back(),
        })
    }

    /// When the listing was begun, in seconds since 1970.
    pub(super) fn began(&self) -> Option<i64> {
        i64::try_from(self.began? / 1_000_000_000).ok()
    }

    /// Waits until the listing has begun, as long as somebody is there. Returns whether it has; else it is not shared.
    ///
    /// # Errors
    /// [`Broken`]: the lister that is shared could not be started, or nobody is left to answer.
    pub(super) fn wait_for_beginning(&mut self, audience: Audience<'_>) -> Result<bool, Broken> {
        loop {
            if let Some(Note::Refused(trouble)) = self.listen() {
                return Err(Broken::Reader(trouble));
            }
            if self.began.is_some() || self.lost || Instant::now() >= self.deadline {
                return Ok(self.began.is_some() && !self.lost);
            }
            audience.wait(Duration::ZERO)?;
            let own = self.signals.as_ref().map(AsFd::as_fd);
            let [client, signals] = audience.watched();
            let found = ready(&[client, signals, (own, READABLE)], self.pause());
            if found.last().is_some_and(|own| !own.is_empty()) {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }

    /// How long it waits until it looks again.
    fn pause(&self) -> Duration {
        (self.came.elapsed() / 8).clamp(SOON, LATER)
    }

    /// Reads what was noted meanwhile. Returns what ends it all.
    fn listen(&mut self) -> Option<Note> {
        // Looked at first: what is noted after it has gone is nothing.
        let has_gone = self.notes.try_lock_shared().is_ok();
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        while bytes.len() < LONGEST
            && let Ok(length @ 1..) = self.notes.read_at(&mut chunk, self.read + bytes.len() as u64)
        {
            bytes.extend_from_slice(chunk.get(..length).unwrap_or_default());
        }
        let mut last = None;
        for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            self.read += line.len() as u64;
            match Note::of(line) {
                Note::Begun(began) if self.began.is_none() => self.began = Some(began),
                Note::End(end) if self.took.is_none() => self.ends.push_back(*end),
                Note::Ended(took) if self.ends.len() == self.parts.len() && self.took.is_none() => {
                    self.took = Some(took)
                }
                note @ Note::Refused(_) => last = Some(note),
                _ => self.lost = true,
            }
        }
        self.lost |= has_gone && self.took.is_none() && last.is_none();
        last
    }
}

/// Files to share a listing of so many parts by; `None` where there is no room for them.
fn files(scratch: &Scratch, parts: usize) -> Option<Files> {
    let file = |_| scratch.file().ok();
    let notes = Some(()).filter(|()| scratch.room() >= LEAST_ROOM).and_then(file)?;
    notes.try_lock().then_some(())?;
    Some(Files { notes, parts: (0..parts).map(|_| file(())).collect::<Option<_>>()? })
}

impl Supply for Guest {
    fn outputs(&self) -> Vec<Option<&File>> {
        self.parts.iter().map(Some).collect()
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn signals(&self) -> Option<&EndingSignals> {
        self.signals.as_ref()
    }

    fn watched(&self) -> Vec<Watched<'_>> {
        Vec::new()
    }

    fn read(&self) -> u64 {
        // The reader has the same open file, and so the same place in it.
        self.parts.iter().filter_map(|mut part| part.stream_position().ok()).sum()
    }

    fn pause(&self) -> Option<Duration> {
        self.took.is_none().then(|| Guest::pause(self))
    }

    fn attend(&mut self, _: &[PollFlags]) {
        if self.took.is_none() {
            self.lost |= self.listen().is_some();
        }
    }

    fn next_end(&mut self) -> Option<PartEnd> {
        self.took.and_then(|_| self.ends.pop_front())
    }

    fn took(&mut self) -> Option<Duration> {
        self.took
    }

    fn is_lost(&self) -> bool {
        self.lost
    }

    fn end(&mut self, _: Ending) {
        self.lost |= self.took.is_none();
    }
}

/// A number that two listings have in common only where they are the same: of this program, by a user with the same rights,
/// by the same commands and programs, on the same machine.
pub(super) fn identity(context: &Context, commands: &[Argv]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let account = &context.account;
    (env!("CARGO_PKG_VERSION"), account.uid, account.bound, Account::groups(), &context.host).hash(&mut hasher);
    context.source.as_ref().ok().map(|source| source.mta.kind().name()).hash(&mut hasher);
    (context.config.mta.deadline, commands).hash(&mut hasher);
    // A namespace has no times of its own.
    let namespaces = ["mnt", "pid"].map(|kind| format!("/proc/self/ns/{kind}"));
    for namespace in &namespaces {
        fs::metadata(namespace).ok().map(|found| (found.dev(), found.ino())).hash(&mut hasher);
    }
    for file in [Path::new("/proc/self/exe")].into_iter().chain(commands.iter().flat_map(Argv::files)) {
        let identity = |found: fs::Metadata| {
            (found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec(), found.ctime_nsec())
        };
        fs::metadata(file).ok().map(identity).hash(&mut hasher);
    }
    hasher.finish()
}
