//! One listing of the queue: starts the mail server's lister and passes its messages on while it runs.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::mta::command;
use crate::mta::{Facts, Kind};
use crate::queue::{Message, Summary};
use crate::trouble::{Status, Trouble};

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
    /// The command line that listed.
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

/// Lists the queue: `found` gets each message as soon as it is read. The listing ends early when
/// `reader`, the far end of our answer, hangs up.
pub fn list(context: &Context, reader: Option<BorrowedFd<'_>>, found: &mut dyn FnMut(&Message<'_>)) -> Listing {
    let Context { config, account, clock, .. } = context;
    let started = Instant::now();
    let mut listing = Listing {
        trouble: None,
        summary: Summary::new(clock.now),
        kind: None,
        facts: Facts::default(),
        command: String::new(),
        sampled: clock.now,
        took: Duration::ZERO,
    };
    let source = match &context.source {
        Ok(source) => source,
        Err(trouble) => {
            listing.trouble = Some(trouble.clone());
            return listing;
        }
    };
    listing.kind = Some(source.mta.kind());
    listing.command = source.command.to_string();
    let deadline = started + config.mta.deadline;
    let inquiry = source.mta.inquire();
    let summary = &mut listing.summary;
    let mut count_and_pass_on = |message: &Message<'_>| {
        summary.add(message);
        found(message);
    };
    let outcome = command::start(&source.command).and_then(|running| {
        let mut parser = source.mta.parser(clock);
        let exit = running.lines(deadline, reader, |line| parser.line(line, &mut count_and_pass_on));
        parser.end(&source.command, &exit, account, &mut count_and_pass_on)
    });
    listing.trouble = outcome.err();
    listing.facts = inquiry.answer(deadline.min(Instant::now() + INQUIRY_PATIENCE));
    listing.took = started.elapsed();
    listing
}

/// Version and settings of the mail server, without a listing.
pub fn facts(context: &Context) -> Facts {
    let deadline = Instant::now() + INQUIRY_PATIENCE;
    context.source.as_ref().map_or_else(|_| Facts::default(), |source| source.mta.inquire().answer(deadline))
}
