//! Who has the queue listed for all who look at the same time: a branch that outlives the request that started it.
//!
//! It runs the lister at full speed, puts what that prints into files without a name, one for each part, and notes beside
//! them how the lister began and ended. The guests (`guest`) read these files while they grow, and are locked into the
//! first part as long as they do: nobody who reads slowly, or leaves, holds others up, and when all have left, the lister is
//! stopped. The host ends when nobody else may share the listing.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::Lister;
use super::session::PartEnd;
use crate::context::Context;
use crate::mta::trouble::Trouble;
use crate::state::{AGAIN, Invitation, Records, SHARED_FOR, now};
use crate::system::poll::{READABLE, Watched, ready};
use crate::system::process::{Argv, Ending, PIPE};
use crate::system::{EndingSignals, ScratchFile};

/// How much of a part is still read when its lister was stopped, in bytes: more than a pipe holds.
const REMAINDER: u64 = 4 * PIPE as u64;

/// The most that is kept of a part, in bytes: what more than a million messages take. Nobody who reads holds the lister up,
/// so that one which goes mad would fill the disk.
const MOST: u64 = 512 << 20;

/// A listing that took no longer is not worth sharing: the next one costs less than a host does.
pub(crate) const QUICK: Duration = Duration::from_millis(50);

/// How often it is looked whether guests are left, and whether others may still come.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long it waits for more where only a little has come, so that it does not wake for every few lines.
const MORE: Duration = Duration::from_millis(1);

/// What is noted, each in a line: a letter and what belongs to it.
#[derive(Debug)]
pub(super) enum Note {
    /// The listing has begun, at this time in nanoseconds since 1970.
    Begun(u64),
    /// It will not begin.
    Refused(Trouble),
    /// How the next part ended.
    End(Box<PartEnd>),
    /// All is in the files that will be, after so long.
    Ended(Duration),
    /// It can't be shared to its end: each guest is to list alone.
    Lost,
}

impl Note {
    fn line(&self) -> Vec<u8> {
        let (letter, words) = match self {
            Note::Begun(began) => (b'b', began.to_string().into_bytes()),
            Note::Refused(trouble) => (b'r', serde_json::to_vec(trouble).unwrap_or_default()),
            Note::End(end) => (b'p', serde_json::to_vec(end).unwrap_or_default()),
            Note::Ended(took) => (b'e', took.as_nanos().to_string().into_bytes()),
            Note::Lost => (b'l', Vec::new()),
        };
        [&[letter], words.as_slice(), b"\n"].concat()
    }

    /// What stands in a line; one that makes no sense is as good as none.
    pub(super) fn of(line: &[u8]) -> Note {
        let [letter, words @ ..] = line.trim_ascii_end() else { return Note::Lost };
        let number = || str::from_utf8(words).ok()?.parse::<u64>().ok();
        let note = match letter {
            b'b' => number().map(Note::Begun),
            b'e' => number().map(Duration::from_nanos).map(Note::Ended),
            b'r' => serde_json::from_slice(words).ok().map(Note::Refused),
            b'p' => serde_json::from_slice(words).ok().map(Note::End),
            _ => None,
        };
        note.unwrap_or(Note::Lost)
    }
}

/// What a listing is shared by.
pub(super) struct Files {
    /// Locked as long as the host is there.
    pub(super) notes: ScratchFile,
    pub(super) parts: Vec<ScratchFile>,
}

impl Files {
    /// What stands for them, the notes first.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        [&self.notes].into_iter().chain(&self.parts).map(AsFd::as_fd).collect()
    }
}

/// The host, as long as it is one.
struct House<'a> {
    records: &'a Records,
    files: &'a Files,
    signals: Option<EndingSignals>,
    invitation: Option<&'a Invitation>,
    /// How long the notes and the parts are, in bytes.
    noted: u64,
    lengths: Vec<u64>,
    /// When the listing began, in nanoseconds since 1970.
    began: u64,
    looked: Instant,
}

/// Why it ends early: it is to end, all guests have left, or there is no room for the listing.
struct Stop;

/// Has the queue listed by these commands.
pub(super) fn serve(context: &Context, invitation: &Invitation, files: &Files, commands: &[Argv]) {
    let Ok(records) = &context.records else { return };
    invitation.invite(&files.descriptors());
    let (signals, lengths) = (EndingSignals::hold_back(), vec![0; files.parts.len()]);
    let invitation = Some(invitation);
    let looked = Instant::now();
    let mut house = House { records, files, signals, invitation, noted: 0, lengths, began: u64::MAX, looked };
    if house.list(context, commands, Instant::now()).is_err() {
        house.note(&Note::Lost);
    }
    house.invites_nobody();
}

impl House<'_> {
    fn list(&mut self, context: &Context, commands: &[Argv], asked: Instant) -> Result<(), Stop> {
        let after = Lister::patience(context);
        let place = loop {
            if let Ok(place) = self.records.free_listing_place() {
                break place;
            }
            if asked.elapsed() >= after {
                self.note(&Note::Refused(Trouble::Crowded { after }));
                return Ok(());
            }
            self.wait(&[], AGAIN)?;
            self.look_for_guests()?;
        };
        let begun = Instant::now();
        self.began = now();
        self.note(&Note::Begun(self.began));
        let mut lister = Lister::of_place(context, commands.to_vec(), place, asked);
        let kept = self.keep(context, &mut lister);
        let ends = lister.into_ends();
        kept?;
        let is_good = ends.iter().all(|end| end.end.as_ref().is_ok_and(|exit| exit.success()));
        ends.into_iter().map(|end| Note::End(Box::new(end))).for_each(|end| self.note(&end));
        self.note(&Note::Ended(asked.elapsed()));
        if is_good && begun.elapsed() < QUICK {
            self.invitation.take().into_iter().for_each(Invitation::was_quick);
        }
        // Why a listing failed may be mended meanwhile.
        while is_good && self.invitation.is_some() {
            self.wait(&[], SHARED_FOR.saturating_sub(begun.elapsed()))?;
        }
        Ok(())
    }

    /// Puts what the lister prints into the files, until all of its commands have ended.
    fn keep(&mut self, context: &Context, lister: &mut Lister) -> Result<(), Stop> {
        let mut buffer = vec![0; PIPE];
        while lister.parts.iter().any(|part| part.end.is_none()) {
            let left = lister.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.cut(lister, &mut buffer);
            }
            let watched: Vec<Watched<'_>> = lister.parts.iter().flat_map(|part| part.watched(READABLE)).collect();
            let found = self.wait(&watched, left)?;
            self.look_for_guests()?;
            let mut most = PIPE;
            for (place, ready) in found.chunks(2).enumerate() {
                let ([out, err], Some(part)) = (ready, lister.parts.get_mut(place)) else { continue };
                part.hears(*err);
                if !out.is_empty()
                    && let Some(running) = &part.running
                {
                    let length = self.take(running.stdout(), place, &mut buffer)?;
                    part.prints = length > 0;
                    most = if part.prints { most.min(length) } else { most };
                }
                if part.running.is_some() && !part.prints && !part.says {
                    part.end(lister.deadline, Ending::Exited);
                    if self.lengths.get(place) == Some(&0) {
                        part.try_older(context, lister.place.as_ref());
                    }
                }
            }
            if most < PIPE / 4 {
                thread::sleep(MORE);
            }
        }
        Ok(())
    }

    /// Ends the parts at the deadline, and takes what they have printed by then.
    fn cut(&mut self, lister: &mut Lister, buffer: &mut [u8]) -> Result<(), Stop> {
        for place in 0..lister.parts.len() {
            let Some(part) = lister.parts.get_mut(place) else { break };
            let output = part.running.as_ref().and_then(|running| running.stdout().try_clone().ok());
            part.end(lister.deadline, Ending::Deadline);
            let Some(output) = output else { continue };
            let mut left = REMAINDER;
            while left > 0
                && !ready(&[(Some(output.as_fd()), READABLE)], Duration::ZERO).iter().all(PollFlags::is_empty)
            {
                match self.take(&output, place, buffer)? {
                    0 => break,
                    length => left = left.saturating_sub(length as u64),
                }
            }
        }
        Ok(())
    }

    /// Takes what a pipe holds into the file of this part. Returns how much it was, in bytes; nothing at the end.
    fn take(&mut self, mut output: impl Read, place: usize, buffer: &mut [u8]) -> Result<usize, Stop> {
        let (Some(file), Some(at)) = (self.files.parts.get(place), self.lengths.get_mut(place)) else {
            return Err(Stop);
        };
        let length = loop {
            match output.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(|_| Stop)?,
            }
        };
        let bytes = buffer.get(..length).filter(|_| *at < MOST).ok_or(Stop)?;
        file.write_all_at(bytes, *at).map_err(|_| Stop)?;
        *at += length as u64;
        Ok(length)
    }

    /// Adds to the notes. Where there is no room for that, the guests see that the host has gone.
    fn note(&mut self, note: &Note) {
        let line = note.line();
        if self.files.notes.write_all_at(&line, self.noted).is_ok() {
            self.noted += line.len() as u64;
        }
    }

    /// Waits until one of these is ready, at most so long and not beyond the next look. Returns what each is ready for.
    fn wait(&mut self, watched: &[Watched<'_>], time: Duration) -> Result<Vec<PollFlags>, Stop> {
        let mut all = vec![(self.signals.as_ref().map(AsFd::as_fd), READABLE)];
        all.extend_from_slice(watched);
        let mut found = ready(&all, time.min(LOOK_EVERY));
        if !found.remove(0).is_empty() {
            return Err(Stop);
        }
        if self.began != u64::MAX && !self.records.is_of_now(self.began) {
            self.invites_nobody();
        }
        Ok(found)
    }

    /// Looks from time to time whether a guest is left. Where none is, nobody joins any longer.
    fn look_for_guests(&mut self) -> Result<(), Stop> {
        if self.looked.elapsed() < LOOK_EVERY {
            return Ok(());
        }
        self.looked = Instant::now();
        if self.files.parts.first().is_some_and(ScratchFile::try_lock) { Err(Stop) } else { Ok(()) }
    }

    fn invites_nobody(&mut self) {
        self.invitation.take().into_iter().for_each(Invitation::end);
    }
}
