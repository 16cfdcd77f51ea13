//! The commands that list the queue, from their start until each has printed its first byte.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use crate::context::Context;
use crate::mta::as_root::Request;
use crate::mta::trouble::Trouble;
use crate::system::poll::{HANGUP, READABLE, ready};
use crate::system::process::{self, Argv, Ending, Exit, Running};
use crate::system::{Audience, EndingSignals};

/// The part of the deadline, one in so many, that is left for the listing itself where others list: a request that gets a
/// place later than that would take the mail server for slow.
const LEAST: u32 = 4;

/// The commands under way, of which nothing has been read.
pub(crate) struct Lister {
    pub(super) started: Instant,
    pub(super) deadline: Instant,
    pub(super) parts: Vec<Part>,
    /// The place among those that list, until it has ended. Each command has it, too, as its standard input: one that
    /// can't be stopped keeps it, so that no more than the places can hang. No mail server's lister reads its input;
    /// `as-root` does, and finds its request there.
    pub(super) place: Option<File>,
    /// So that a signal that ends this process ends the commands first, which are dropped before this.
    pub(super) signals: Option<EndingSignals>,
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

impl Lister {
    /// Starts the commands: all as one by the rule for root, each by a rule of its own, or plainly; a configured command
    /// is run as it stands. Nobody who has left is waited for while others list.
    ///
    /// # Errors
    /// That there is no mail server to ask, or [`Trouble::Crowded`].
    pub(crate) fn start(context: &Context, audience: Audience<'_>) -> Result<Lister, Trouble> {
        let source = context.source.as_ref().map_err(Trouble::clone)?;
        let started = Instant::now();
        let after = context.config.mta.deadline - context.config.mta.deadline / LEAST;
        let place =
            context.records.as_ref().map_or(Ok(None), |records| records.listing_place(started + after, audience));
        let place = place.map_err(|_| Trouble::Crowded { after })?;
        let deadline = started + context.config.mta.deadline;
        let signals = EndingSignals::hold_back();
        let own = context.config.mta.list_command.is_empty();
        let by_a_rule = |command: &Argv| {
            let prefix = own.then(|| context.by_its_own_rule(command)).flatten();
            prefix.map_or_else(|| command.clone(), |prefix| prefix.and(command))
        };
        // By that rule, all would be one listing.
        let as_one = own && !source.mta.tells_parts_apart();
        let commands = match as_one.then(|| context.by_the_one_rule(&Request::List {})).flatten() {
            Some(whole) => vec![whole],
            None => source.commands.iter().map(by_a_rule).collect(),
        };
        let parts = commands.into_iter().map(|command| Part::start(context, command, place.as_ref())).collect();
        Ok(Lister { started, deadline, parts, place, signals })
    }

    /// Waits for the first byte of each command, which is not read. One that says nothing but that it does not know
    /// this form of the listing is started in the form for an older mail server. The wait ends at the deadline, and
    /// when nobody is left who wants to know.
    pub(crate) fn wait_for_first_bytes(&mut self, context: &Context, client: Option<BorrowedFd<'_>>) {
        let own = context.config.mta.list_command.is_empty();
        for part in &mut self.parts {
            part.wait_for_first_byte(self.deadline, client, self.signals.as_ref());
            // Root does that by itself, see `cli::as_root`.
            let source = context.source.as_ref().ok().filter(|_| own && part.command.input().is_empty());
            if let (Some(Ok(exit)), Some(source)) = (&part.end, source)
                && let Some(older) = source.mta.older_list_command(&part.command, exit)
            {
                *part = Part::start(context, older, self.place.as_ref());
                part.wait_for_first_byte(self.deadline, client, self.signals.as_ref());
            }
        }
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
