//! The commands that list the queue, from their start until each has printed its first byte.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::session::{PartEnd, Supply};
use crate::context::Context;
use crate::mta::as_root::Request;
use crate::mta::trouble::Trouble;
use crate::system::poll::{HANGUP, READABLE, Watched, ready};
use crate::system::process::{self, Argv, Ending, Exit, Running};
use crate::system::{Audience, EndingSignals};

/// The part of the deadline, one in so many, that is left for the listing itself where others list: a request that gets a
/// place later than that would take the mail server for slow.
const LEAST: u32 = 4;

/// The commands under way, of which nothing has been read.
pub(crate) struct Lister {
    started: Instant,
    pub(super) deadline: Instant,
    pub(super) parts: Vec<Part>,
    /// The place among those that list, until it has ended. Each command has it, too, as its standard input: one that
    /// can't be stopped keeps it, so that no more than the places can hang. No mail server's lister reads its input;
    /// `as-root` does, and finds its request there.
    pub(super) place: Option<File>,
    /// Of how many parts the reader was told how they ended.
    told: usize,
    /// So that a signal that ends this process ends the commands first, which are dropped before this.
    signals: Option<EndingSignals>,
}

/// One of the commands: each lists a part of the queue.
pub(crate) struct Part {
    pub(super) command: Argv,
    /// While it runs.
    pub(super) running: Option<Running>,
    /// Whether its output may still come.
    pub(super) prints: bool,
    /// Whether its error output may still say something.
    pub(super) says: bool,
    /// How it ended, or why it could not be started.
    pub(super) end: Option<Result<Exit, Trouble>>,
}

/// The commands that list: all as one by the rule for root, each by a rule of its own, or plainly; a configured command is
/// run as it stands.
///
/// # Errors
/// That there is no mail server to ask.
pub(super) fn commands(context: &Context) -> Result<Vec<Argv>, Trouble> {
    let source = context.source.as_ref().map_err(Trouble::clone)?;
    let own = context.config.mta.list_command.is_empty();
    let by_a_rule = |command: &Argv| {
        let prefix = own.then(|| context.by_its_own_rule(command)).flatten();
        prefix.map_or_else(|| command.clone(), |prefix| prefix.and(command))
    };
    // By that rule, all would be one listing.
    let as_one = own && !source.mta.tells_parts_apart();
    Ok(match as_one.then(|| context.by_the_one_rule(&Request::List {})).flatten() {
        Some(whole) => vec![whole],
        None => source.commands.iter().map(by_a_rule).collect(),
    })
}

impl Lister {
    /// Starts the commands, for this one reader. Nobody who has left is waited for while others list.
    ///
    /// # Errors
    /// That there is no mail server to ask, or [`Trouble::Crowded`].
    pub(crate) fn start(context: &Context, audience: Audience<'_>) -> Result<Lister, Trouble> {
        let commands = commands(context)?;
        let started = Instant::now();
        let after = Lister::patience(context);
        let place =
            context.records.as_ref().map_or(Ok(None), |records| records.listing_place(started + after, audience));
        let place = place.map_err(|_| Trouble::Crowded { after })?;
        Ok(Lister::of_its_own(context, commands, place, started))
    }

    /// Starts the commands in this place, for this one reader. It was asked for then.
    pub(super) fn of_its_own(context: &Context, commands: Vec<Argv>, place: Option<File>, asked: Instant) -> Lister {
        // Held back before there is something that a signal should end.
        let signals = EndingSignals::hold_back();
        Lister { signals, ..Lister::of_place(context, commands, place, asked) }
    }

    /// How long a place is waited for.
    pub(super) fn patience(context: &Context) -> Duration {
        context.config.mta.deadline - context.config.mta.deadline / LEAST
    }

    /// Starts the commands in this place, which was asked for then.
    pub(super) fn of_place(context: &Context, commands: Vec<Argv>, place: Option<File>, asked: Instant) -> Lister {
        let deadline = asked + context.config.mta.deadline;
        let parts = commands.into_iter().map(|command| Part::start(context, command, place.as_ref())).collect();
        Lister { started: asked, deadline, parts, place, told: 0, signals: None }
    }

    /// Waits for the first byte of each command, which is not read. One that says nothing but that it does not know
    /// this form of the listing is started in the form for an older mail server. The wait ends at the deadline, and
    /// when nobody is left who wants to know.
    pub(crate) fn wait_for_first_bytes(&mut self, context: &Context, client: Option<BorrowedFd<'_>>) {
        for part in &mut self.parts {
            part.wait_for_first_byte(self.deadline, client, self.signals.as_ref());
            if part.try_older(context, self.place.as_ref()) {
                part.wait_for_first_byte(self.deadline, client, self.signals.as_ref());
            }
        }
    }

    /// Ends those that have not ended by themselves.
    pub(super) fn end_parts(&mut self, ending: Ending) {
        self.parts.iter_mut().for_each(|part| part.end(self.deadline, ending));
    }

    /// How they ended; their place is free.
    pub(super) fn into_ends(mut self) -> Vec<PartEnd> {
        self.end_parts(Ending::ReaderGone);
        let end = |part: Part| Some(PartEnd { command: part.command, end: part.end? });
        self.parts.into_iter().filter_map(end).collect()
    }
}

/// The reader has the outputs themselves.
impl Supply for Lister {
    fn outputs(&self) -> Vec<Option<&File>> {
        self.parts.iter().map(|part| part.running.as_ref().map(Running::stdout)).collect()
    }

    fn deadline(&self) -> Instant {
        self.deadline
    }

    fn signals(&self) -> Option<&EndingSignals> {
        self.signals.as_ref()
    }

    fn watched(&self) -> Vec<Watched<'_>> {
        self.parts.iter().flat_map(|part| part.watched(HANGUP)).collect()
    }

    fn attend(&mut self, found: &[PollFlags]) {
        for (part, ready) in self.parts.iter_mut().zip(found.chunks(2)) {
            let [out, err] = ready else { continue };
            part.prints &= out.is_empty();
            part.hears(*err);
            if !part.prints && !part.says {
                part.end(self.deadline, Ending::Exited);
            }
        }
    }

    fn next_end(&mut self) -> Option<PartEnd> {
        let Part { command, end, .. } = self.parts.get(self.told)?;
        let end = PartEnd { command: command.clone(), end: end.clone()? };
        self.told += 1;
        Some(end)
    }

    fn took(&mut self) -> Option<Duration> {
        let ended = self.told == self.parts.len();
        // Others may list from then on.
        self.place.take_if(|_| ended);
        ended.then(|| self.started.elapsed())
    }

    fn is_lost(&self) -> bool {
        false
    }

    fn end(&mut self, ending: Ending) {
        self.end_parts(ending);
    }
}

impl Part {
    fn start(context: &Context, command: Argv, place: Option<&File>) -> Part {
        let place = place.and_then(|place| place.try_clone().ok());
        match process::start_with(&context.free, &command, place) {
            Ok(running) => Part { command, running: Some(running), prints: true, says: true, end: None },
            Err(not_started) => {
                Part { command, running: None, prints: false, says: false, end: Some(Err(not_started.into())) }
            }
        }
    }

    /// Starts it in the form for an older mail server, where it has ended without a word but that it does not know this one.
    /// Returns whether that is so.
    pub(super) fn try_older(&mut self, context: &Context, place: Option<&File>) -> bool {
        // Root does that by itself, see `cli::as_root`.
        let own = context.config.mta.list_command.is_empty() && self.command.input().is_empty();
        let source = context.source.as_ref().ok().filter(|_| own);
        let older = match (&self.end, source) {
            (Some(Ok(exit)), Some(source)) => source.mta.older_list_command(&self.command, exit),
            _ => None,
        };
        older.map(|older| *self = Part::start(context, older, place)).is_some()
    }

    /// Its output, waited for in this way, and its error output, as long as they are open.
    pub(super) fn watched(&self, output: PollFlags) -> [Watched<'_>; 2] {
        let running = self.running.as_ref();
        [
            (running.filter(|_| self.prints).map(|running| running.stdout().as_fd()), output),
            (running.filter(|_| self.says).map(Running::stderr), READABLE),
        ]
    }

    /// Reads what it says, if it is ready for that.
    pub(super) fn hears(&mut self, error: PollFlags) {
        if let Some(running) = self.running.as_mut().filter(|_| !error.is_empty()) {
            self.says = running.read_stderr();
        }
    }

    /// Waits for its first byte, or its end; a signal that has arrived ends it, and is dealt with later.
    fn wait_for_first_byte(
        &mut self,
        deadline: Instant,
        client: Option<BorrowedFd<'_>>,
        signals: Option<&EndingSignals>,
    ) {
        while let Some(running) = &mut self.running {
            let left = deadline.saturating_duration_since(Instant::now());
            let watched = [
                (signals.map(AsFd::as_fd), READABLE),
                (client, HANGUP),
                (self.prints.then(|| running.stdout().as_fd()), READABLE),
                (self.says.then(|| running.stderr()), READABLE),
            ];
            let ready = ready(&watched, left);
            let [arrived, hung_up, out, err] = ready[..] else { return };
            if !err.is_empty() {
                self.says = running.read_stderr();
            }
            self.prints &= out.is_empty() || out.contains(READABLE);
            match () {
                () if !arrived.is_empty() || !hung_up.is_empty() => self.end(deadline, Ending::ReaderGone),
                () if out.contains(READABLE) => return,
                () if left.is_zero() => self.end(deadline, Ending::Deadline),
                () if !self.prints && !self.says => self.end(deadline, Ending::Exited),
                () => {}
            }
        }
    }

    /// Ends it, unless it has ended by itself.
    pub(super) fn end(&mut self, deadline: Instant, ending: Ending) {
        if let Some(running) = self.running.take() {
            self.end = Some(Ok(running.exit(deadline, ending)));
        }
    }
}
