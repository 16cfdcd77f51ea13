//! One listing of the queue: starts the mail server's lister and passes its messages on while it runs.

pub mod count;
pub mod reasons;

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::context::{Context, Source};
use crate::mta::trouble::{Status, Trouble};
use crate::mta::{Facts, Inquiry, Kind, Wanted, privilege};
use crate::queue::{Message, Summary};
use crate::sandbox::Cage;
use crate::system::EndingSignals;
use crate::system::process::{self, Argv, Output, Running};

/// How long version and settings may take after the listing.
const INQUIRY_PATIENCE: Duration = Duration::from_secs(2);

/// What is known after a listing, however it ended.
pub struct Listing {
    /// Why the listing is not the whole queue; `None` if it is.
    pub trouble: Option<Trouble>,
    /// Totals of what was read.
    pub summary: Summary,
    /// Which mail server, if one was found.
    pub kind: Option<Kind>,
    /// Its version and settings.
    pub facts: Facts,
    /// The command lines that listed.
    pub command: String,
    /// When it was started, in seconds since 1970.
    pub sampled: i64,
    /// How long it took.
    pub took: Duration,
}

impl Listing {
    /// How the listing ended.
    pub fn status(&self) -> Status {
        self.trouble.as_ref().map_or(Status::Ok, Trouble::status)
    }
}

/// A listing under way, of which nothing has been read. `P` is what there is of each command.
pub struct Begun<'a, P> {
    context: &'a Context,
    reader: Option<BorrowedFd<'a>>,
    started: Instant,
    deadline: Instant,
    listing: Listing,
    parts: Vec<(Argv, Result<P, Trouble>)>,
    inquiry: Option<Inquiry>,
    /// Our place among those that list.
    _place: Option<File>,
    /// So that a signal that ends this process ends what lists first.
    _signals: Option<EndingSignals>,
}

/// Begins to list the queue, and to ask for all that is known of the mail server. The listing ends early when `reader`,
/// the far end of our answer, hangs up.
pub fn begin<'a>(context: &'a Context, reader: Option<BorrowedFd<'a>>) -> Begun<'a, Running> {
    begin_wanting(context, reader, Wanted::Everything)
}

/// The same, for a caller who wants to know less of the mail server.
pub fn begin_wanting<'a>(context: &'a Context, reader: Option<BorrowedFd<'a>>, wanted: Wanted) -> Begun<'a, Running> {
    let Context { config, clock, .. } = context;
    let started = Instant::now();
    let deadline = started + config.mta.deadline;
    let listing = Listing {
        trouble: None,
        summary: Summary::new(clock.now),
        kind: None,
        facts: Facts::default(),
        command: String::new(),
        sampled: clock.now,
        took: Duration::ZERO,
    };
    let mut begun = Begun {
        context,
        reader,
        started,
        deadline,
        listing,
        parts: Vec::new(),
        inquiry: None,
        _place: None,
        _signals: None,
    };
    let source = match &context.source {
        Ok(source) => source,
        Err(trouble) => {
            begun.listing.trouble = Some(trouble.clone());
            return begun;
        }
    };
    begun.listing.kind = Some(source.mta.kind());
    match context.records.as_ref().map_or(Ok(None), |records| records.listing_place(deadline)) {
        Ok(place) => begun._place = place,
        Err(_) => {
            begun.listing.trouble = Some(Trouble::Crowded { after: config.mta.deadline });
            return begun;
        }
    }
    begun._signals = EndingSignals::hold_back();
    begun.parts = source.commands.iter().map(|command| begun.start(command)).collect();
    begun.inquiry = Some(source.mta.inquire(wanted));
    begun
}

impl<'a> Begun<'a, Running> {
    /// Starts one command: by a sudo or doas rule where there is one for it, else plainly. A configured command is
    /// run as it stands.
    fn start(&self, command: &Argv) -> (Argv, Result<Running, Trouble>) {
        let own = self.context.config.mta.list_command.is_empty();
        let prefix = own.then(|| privilege::prefix(command, &self.context.account)).flatten();
        let command = prefix.map_or(command.clone(), |prefix| prefix.and(command));
        let running = process::start(&command).map_err(Trouble::from);
        (command, running)
    }

    /// Waits for the first byte of each command, which is not read. One that says nothing but that it does not know
    /// this form of the listing is started in the form for an older mail server.
    pub fn at_first_byte(self) -> Begun<'a, Output> {
        let Begun { context, reader, started, deadline, listing, parts, inquiry, _place, _signals } = self;
        let output = |running: Result<Running, Trouble>| running.map(|running| running.output(deadline, reader));
        let own = context.config.mta.list_command.is_empty();
        let source = context.source.as_ref().ok().filter(|_| own);
        let begun = |(command, running)| {
            let output_of_it = output(running);
            let older = match &output_of_it {
                Ok(Output::Nothing(exit)) => source.and_then(|source| source.mta.older_list_command(exit)),
                _ => None,
            };
            match older {
                Some(older) => {
                    let output = output(process::start(&older).map_err(Trouble::from));
                    (older, output)
                }
                None => (command, output_of_it),
            }
        };
        let parts = parts.into_iter().map(begun).collect();
        Begun { context, reader, started, deadline, listing, parts, inquiry, _place, _signals }
    }
}

impl Begun<'_, Output> {
    /// Reads the listing to its end, in the cage: `found` gets each message as soon as it is read.
    pub fn read(self, _cage: &Cage, found: &mut dyn FnMut(&Message<'_>)) -> Listing {
        let Begun { context, reader, started, deadline, mut listing, parts, inquiry, .. } = self;
        let (Ok(source), Some(inquiry)) = (&context.source, inquiry) else { return listing };
        let summary = &mut listing.summary;
        let mut seen = Seen::default();
        let several = parts.len() > 1;
        let mask = context.config.privacy.mask;
        let mut count_and_pass_on = |message: &Message<'_>| {
            if several && !seen.is_new(&message.id) {
                return;
            }
            let masked = mask.map(|mask| mask.hide(message));
            let message = masked.as_ref().unwrap_or(message);
            summary.add(message);
            found(message);
        };
        let own = context.config.mta.list_command.is_empty();
        let mut commands = Vec::new();
        for (command, output) in parts {
            let mut parser = source.mta.parser(&context.clock);
            let listed = output.and_then(|output| {
                let exit = match output {
                    Output::Coming(running) => {
                        running.lines(deadline, reader, |line| parser.line(line, &mut count_and_pass_on))
                    }
                    Output::Nothing(exit) => exit,
                };
                parser.end(&command, &exit, &context.account, &mut count_and_pass_on)
            });
            let own_program = || source.mta.list_commands().first().map(Argv::program).unwrap_or_default();
            let listed = listed.map_err(|trouble| if own { trouble } else { trouble.of_configured(own_program()) });
            // The first trouble is told; what the other parts hold is shown all the same.
            listing.trouble = listing.trouble.or(listed.err());
            commands.push(command.to_string());
        }
        listing.trouble = listing.trouble.map(|trouble| trouble.after_messages(listing.summary.messages));
        if !source.mta.cuts_short() {
            // An ellipsis is then somebody's own.
            listing.summary.cut = 0;
        }
        listing.command = commands.join("; ");
        listing.facts = inquiry.answer(deadline.min(Instant::now() + INQUIRY_PATIENCE));
        listing.took = started.elapsed();
        listing
    }
}

/// The messages of a listing in several parts: one that moves from part to part meanwhile (sendmail's
/// submission queue, its quarantine) is listed twice. Of very long queues only the first are remembered.
#[derive(Default)]
struct Seen {
    ids: HashSet<u64>,
}

impl Seen {
    /// Messages that are remembered, in at most about one MiB.
    const LIMIT: usize = 50_000;

    fn is_new(&mut self, id: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let hash = hasher.finish();
        if self.ids.len() >= Self::LIMIT { !self.ids.contains(&hash) } else { self.ids.insert(hash) }
    }
}

/// What the mail server's settings say of running its queue, without a listing.
pub fn facts(context: &Context) -> Facts {
    let deadline = Instant::now() + INQUIRY_PATIENCE;
    let permissions = |source: &Source| source.mta.inquire(Wanted::Permissions).answer(deadline);
    context.source.as_ref().map(permissions).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_once_however_often_it_is_listed() {
        let mut seen = Seen::default();
        assert_eq!(["A1", "B2", "A1", "A1"].map(|id| seen.is_new(id)), [true, true, false, false]);
        let all = (0..Seen::LIMIT + 10).filter(|number| seen.is_new(&number.to_string())).count();
        assert_eq!(all, Seen::LIMIT + 10, "none is lost");
        assert!(seen.ids.len() <= Seen::LIMIT);
    }
}
