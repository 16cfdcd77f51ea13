//! Who has the queue listed for all who look at the same time: a branch that outlives the request that started it.
//!
//! It runs the lister at full speed, and puts what that prints into files without a name. Each guest (`guest`) gets these
//! open for reading, an empty line whenever there is more in them, and how the lister ended. Nobody who reads slowly, or
//! leaves, holds others up; when all have left, the lister is stopped. The host ends when nobody else may share the listing.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use serde::{Deserialize, Serialize};

use super::Lister;
use super::session::PartEnd;
use crate::context::Context;
use crate::mta::trouble::Trouble;
use crate::state::{AGAIN, OpenDoor, Records, SHARED_FOR};
use crate::system::passing::{is_of_this_user, send};
use crate::system::poll::{READABLE, WRITABLE, Watched, ready};
use crate::system::process::{Argv, Ending, PIPE};
use crate::system::{EndingSignals, ScratchFile};

/// How much of a part is still read when its lister was stopped, in bytes: more than a pipe holds.
const REMAINDER: u64 = 4 * PIPE as u64;

/// How many guests there are at a time: more than requests.
const MOST_GUESTS: usize = 128;

/// How long a guest may take for the last words.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// What a guest is told, each a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    /// The listing has begun, at this time in seconds since 1970; for each of its parts there is a file.
    Begun { began: i64 },
    /// It will not begin.
    Refused(Trouble),
    /// There is no room to share it: each guest is to list alone.
    NoRoom,
    /// All is in the files that will be. So long it took, and so its parts ended.
    Ended { took: Duration, ends: Vec<PartEnd> },
}

/// The guests, and the door at which others come.
struct House<'a> {
    door: &'a OpenDoor,
    signals: Option<EndingSignals>,
    guests: Vec<Guest>,
    /// What each guest is told first, and the files that it is handed with that.
    greeting: Vec<u8>,
    files: Vec<File>,
    /// And at last.
    farewell: Vec<u8>,
}

struct Guest {
    stream: UnixStream,
    greeted: bool,
    /// What it is still to be told.
    unsaid: Vec<u8>,
}

/// Why it ends.
#[derive(PartialEq, Eq)]
enum Stop {
    /// A signal has arrived that is to end this process.
    Signal,
    /// All guests have left.
    Deserted,
}

/// Has the queue listed by these commands, for the first guest and all who come. `asked` is when the first one came.
pub(super) fn serve(context: &Context, door: &OpenDoor, first: UnixStream, commands: Vec<Argv>, asked: Instant) {
    let signals = EndingSignals::hold_back();
    let mut house =
        House { door, signals, guests: Vec::new(), greeting: Vec::new(), files: Vec::new(), farewell: Vec::new() };
    house.admit(first);
    // Whatever stops it: nobody else is let in, and its guests see that it has gone.
    let _ = house.list(context, commands, asked);
    house.door.close();
    house.admit_all();
    house.take_leave();
}

impl House<'_> {
    fn list(&mut self, context: &Context, commands: Vec<Argv>, asked: Instant) -> Result<(), Stop> {
        let Ok(records) = &context.records else { return Ok(()) };
        let Some(place) = self.wait_for_place(context, records, asked)? else { return Ok(()) };
        let file = |_: &Argv| context.scratch.as_ref()?.file().ok();
        let Some(files) = commands.iter().map(file).collect::<Option<Vec<ScratchFile>>>() else {
            self.says(&Said::NoRoom);
            return Ok(());
        };
        let Ok(handed) = files.iter().map(ScratchFile::for_reading).collect() else {
            self.says(&Said::NoRoom);
            return Ok(());
        };
        self.door.marks_beginning();
        let (begun, began) = (Instant::now(), jiff::Timestamp::now().as_second());
        let mut lister = Lister::of_place(context, commands, place, asked);
        self.files = handed;
        self.greeting = line(&Said::Begun { began });
        self.guests.iter_mut().for_each(|guest| guest.greet(&self.greeting, &self.files));
        let kept = self.keep(context, &mut lister, &files);
        let ends = lister.into_ends();
        let is_good = ends.iter().all(|end| end.end.as_ref().is_ok_and(|exit| exit.success()));
        if !kept? {
            self.says(&Said::NoRoom);
            return Ok(());
        }
        self.farewell = line(&Said::Ended { took: asked.elapsed(), ends });
        for guest in &mut self.guests {
            guest.hears(&self.farewell);
        }
        // Why a listing failed may be mended meanwhile.
        while is_good && begun.elapsed() < SHARED_FOR {
            match self.attend(&[], SHARED_FOR.saturating_sub(begun.elapsed())) {
                Err(Stop::Deserted) | Ok(_) => {}
                Err(stop) => return Err(stop),
            }
        }
        Ok(())
    }

    /// Waits for a place among those that list; `None` where there is none, as the guests have been told.
    fn wait_for_place(
        &mut self,
        context: &Context,
        records: &Records,
        asked: Instant,
    ) -> Result<Option<Option<File>>, Stop> {
        let after = Lister::patience(context);
        loop {
            if let Ok(place) = records.free_listing_place() {
                return Ok(Some(place));
            }
            if asked.elapsed() >= after {
                self.says(&Said::Refused(Trouble::Crowded { after }));
                return Ok(None);
            }
            // Who comes meanwhile waits, too.
            self.door.marks_beginning();
            self.attend(&[], AGAIN)?;
        }
    }

    /// Puts what the lister prints into the files, until all of its commands have ended. Returns whether there was room.
    fn keep(&mut self, context: &Context, lister: &mut Lister, files: &[ScratchFile]) -> Result<bool, Stop> {
        let mut lengths = vec![0; files.len()];
        while lister.parts.iter().any(|part| part.end.is_none()) {
            let left = lister.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                for ((part, file), length) in lister.parts.iter_mut().zip(files).zip(&mut lengths) {
                    let output = part.running.as_ref().and_then(|running| running.stdout().try_clone().ok());
                    part.end(lister.deadline, Ending::Deadline);
                    if !drain(output, file, length) {
                        return Ok(false);
                    }
                }
                break;
            }
            let watched: Vec<Watched<'_>> = lister.parts.iter().flat_map(|part| part.watched(READABLE)).collect();
            let found = match self.attend(&watched, left) {
                Ok(found) => found,
                Err(stop) => {
                    // Who comes now has it listed anew.
                    self.door.close();
                    lister.end_parts(Ending::ReaderGone);
                    return Err(stop);
                }
            };
            let mut has_more = false;
            for (((part, ready), file), length) in
                lister.parts.iter_mut().zip(found.chunks(2)).zip(files).zip(&mut lengths)
            {
                let [out, err] = ready else { continue };
                part.hears(*err);
                if !out.is_empty() {
                    match part.running.as_ref().map(|running| file.take_from(running.stdout(), *length, PIPE)) {
                        Some(Ok(0)) | None => part.prints = false,
                        Some(Ok(taken)) => {
                            *length += taken as u64;
                            has_more = true;
                        }
                        Some(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                        Some(Err(_)) => {
                            lister.end_parts(Ending::ReaderGone);
                            return Ok(false);
                        }
                    }
                }
                if part.running.is_some() && !part.prints && !part.says {
                    part.end(lister.deadline, Ending::Exited);
                    if *length == 0 {
                        part.try_older(context, lister.place.as_ref());
                    }
                }
            }
            if has_more {
                self.guests.iter_mut().for_each(Guest::is_woken);
            }
        }
        Ok(true)
    }

    /// Waits until one of these is ready, or so long, and attends to the guests meanwhile. Returns what each is ready for.
    fn attend(&mut self, more: &[Watched<'_>], time: Duration) -> Result<Vec<PollFlags>, Stop> {
        let own = [
            (self.signals.as_ref().map(AsFd::as_fd), READABLE),
            (Some(self.door.listener.as_fd()).filter(|_| self.guests.len() < MOST_GUESTS), READABLE),
        ];
        let guests = self.guests.iter().map(|guest| {
            let wants = if guest.unsaid.is_empty() { READABLE } else { READABLE | WRITABLE };
            (Some(guest.stream.as_fd()), wants)
        });
        let watched: Vec<Watched<'_>> = more.iter().copied().chain(own).chain(guests).collect();
        let mut found = ready(&watched, time);
        let of_others = found.split_off(more.len());
        let [arrived, at_door, of_guests @ ..] = of_others.as_slice() else { return Ok(found) };
        if !arrived.is_empty() {
            return Err(Stop::Signal);
        }
        let had_guests = !self.guests.is_empty();
        let mut of_guests = of_guests.iter();
        self.guests.retain_mut(|guest| guest.stays(of_guests.next().copied().unwrap_or(PollFlags::empty())));
        if !at_door.is_empty() || (had_guests && self.guests.is_empty()) {
            self.admit_all();
        }
        if had_guests && self.guests.is_empty() { Err(Stop::Deserted) } else { Ok(found) }
    }

    /// Lets in who waits at the door, if it is this user's.
    fn admit_all(&mut self) {
        while self.guests.len() < MOST_GUESTS
            && let Ok((stream, _)) = self.door.listener.accept()
        {
            if is_of_this_user(&stream) {
                self.admit(stream);
            }
        }
    }

    fn admit(&mut self, stream: UnixStream) {
        let mut guest = Guest { stream, greeted: false, unsaid: Vec::new() };
        if !self.greeting.is_empty() {
            guest.greet(&self.greeting, &self.files);
        }
        guest.hears(&self.farewell);
        self.guests.push(guest);
    }

    fn says(&mut self, said: &Said) {
        self.farewell = line(said);
        for guest in &mut self.guests {
            guest.hears(&self.farewell);
        }
    }

    /// Waits for a moment until each guest has heard all.
    fn take_leave(&mut self) {
        let until = Instant::now() + LAST_MOMENT;
        self.guests.retain(|guest| !guest.unsaid.is_empty());
        while !self.guests.is_empty() && Instant::now() < until {
            let watched: Vec<Watched<'_>> =
                self.guests.iter().map(|guest| (Some(guest.stream.as_fd()), WRITABLE)).collect();
            let found = ready(&watched, until.saturating_duration_since(Instant::now()));
            let mut found = found.iter();
            self.guests.retain_mut(|guest| {
                guest.stays(found.next().copied().unwrap_or(PollFlags::empty())) && !guest.unsaid.is_empty()
            });
        }
    }
}

impl Guest {
    /// Hands it the files. One that can't take so little is not waited for: it sees no greeting, and lists alone.
    fn greet(&mut self, greeting: &[u8], files: &[File]) {
        let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
        self.greeted = send(&self.stream, greeting, &files).is_ok_and(|sent| sent == greeting.len());
        if !self.greeted {
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Is told something, as soon as it listens.
    fn hears(&mut self, said: &[u8]) {
        self.unsaid.extend_from_slice(said);
        self.speak();
    }

    /// Is told that there is more, unless it has not yet listened to that.
    fn is_woken(&mut self) {
        if self.greeted && self.unsaid.is_empty() {
            self.hears(b"\n");
        }
    }

    fn speak(&mut self) {
        while !self.unsaid.is_empty() {
            match send(&self.stream, &self.unsaid, &[]) {
                Ok(sent) => drop(self.unsaid.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It has gone, which is seen then, or it is to listen first.
                Err(_) => return,
            }
        }
    }

    /// Attends to it. Returns whether it is still there.
    fn stays(&mut self, found: PollFlags) -> bool {
        if found.contains(WRITABLE) {
            self.speak();
        }
        // A guest says nothing.
        let has_gone = found.intersects(READABLE | PollFlags::POLLHUP | PollFlags::POLLERR);
        !has_gone
    }
}

/// Takes what a stopped part has printed. Returns whether there was room.
fn drain(output: Option<File>, file: &ScratchFile, length: &mut u64) -> bool {
    let Some(output) = output else { return true };
    let most = *length + REMAINDER;
    while *length < most && !ready(&[(Some(output.as_fd()), READABLE)], Duration::ZERO).iter().all(PollFlags::is_empty)
    {
        match file.take_from(&output, *length, PIPE) {
            Ok(0) => break,
            Ok(taken) => *length += taken as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
    true
}

/// A line of JSON.
fn line(said: &Said) -> Vec<u8> {
    let mut line = serde_json::to_vec(said).unwrap_or_default();
    line.push(b'\n');
    line
}
