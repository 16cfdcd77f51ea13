//! One listing of the queue: the mail server's lister, the reader of what it prints, and what is between them.
//!
//! `Lister` starts the commands. When each has begun to print, a `Session` branches off the reader, which enters the
//! sandbox before it reads the first byte (`reader`), and attends to both until the reader has answered.

pub(crate) mod count;
pub(crate) mod frame;
pub(crate) mod lines;
mod lister;
pub(crate) mod reader;
pub(crate) mod reasons;
pub(crate) mod remainder;
pub(crate) mod session;
pub(crate) mod tally;

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::context::{Context, Source};
use crate::mta::as_root::Request;
use crate::mta::timing::Timing;
use crate::mta::trouble::{Status, Trouble};
use crate::mta::{Facts, Kind, Wanted};
use crate::queue::Summary;
use crate::sandbox::worker::Worker;
use crate::sandbox::{Purpose, Sandbox};
use crate::system::Until;
use crate::system::process::{self, Ending};

pub(crate) use lister::Lister;
pub(crate) use session::Session;

/// How long version and settings may take after the listing.
pub(crate) const INQUIRY_PATIENCE: Duration = Duration::from_secs(2);

/// How much is read of what only root can read, in bytes.
const HINTS: usize = 4 << 20;

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
    /// How it was listed.
    pub sampling: Sampling,
}

/// How a queue was listed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampling {
    /// The command lines that listed.
    pub command: String,
    /// When they were started, in seconds since 1970.
    pub started: i64,
    /// How long they took.
    pub took: Duration,
}

impl Listing {
    /// A listing of which nothing was read, and why.
    pub(crate) fn of_nothing(context: &Context, trouble: Trouble) -> Listing {
        Listing {
            trouble: Some(trouble),
            summary: Summary::new(context.clock.now),
            kind: context.source.as_ref().ok().map(|source| source.mta.kind()),
            facts: Facts::default(),
            sampling: Sampling { started: context.clock.now, ..Sampling::default() },
        }
    }

    /// How the listing ended.
    pub(crate) fn status(&self) -> Status {
        self.trouble.as_ref().map_or(Status::Ok, Trouble::status)
    }
}

/// What the mail server's settings say, without a listing, as far as it is wanted.
pub(crate) fn facts(context: &Context, wanted: Wanted) -> Facts {
    let deadline = Instant::now() + INQUIRY_PATIENCE;
    let inquire = |source: &Source| source.mta.inquire(&context.free, wanted).answer(&context.free, deadline);
    let facts = context.source.as_ref().map(inquire).unwrap_or_default();
    let facts = if wanted == Wanted::Everything { with_hints(context, facts, deadline.into()) } else { facts };
    with_timing(context, facts)
}

/// The same with what only root can read of when mail is tried next: where this is root, or the one rule is there. Strangers
/// have a say in it, so it is read in the sandbox.
pub(crate) fn with_hints(context: &Context, facts: Facts, until: Until<'_>) -> Facts {
    let hints = || {
        let source = context.source.as_ref().ok().filter(|_| context.config.mta.list_command.is_empty())?;
        let command = source.mta.next_command(facts.queue_directory.as_deref()?)?;
        let is_root = context.account.is_root();
        let command = if is_root { command } else { context.by_the_one_rule(&Request::Next {})? };
        let (exit, output) = process::start(&context.free, &command).ok()?.collect_up_to(HINTS, until);
        let whole = exit.success() && exit.ending == Ending::Exited && output.len() < HINTS;
        let read = |free| {
            let _sandbox = Sandbox::enter(free, Purpose::Reading { room: 0 });
            source.mta.read_next(&String::from_utf8_lossy(&output))
        };
        let read = whole.then(|| Worker::begin(&context.free, INQUIRY_PATIENCE, read))?;
        Some((source, read.and_then(Worker::answer).ok()??))
    };
    match hints() {
        Some((source, hints)) => source.mta.with_hints(&context.free, facts, &hints, context.clock.now, until.deadline),
        None => facts,
    }
}

/// The same, with what the configuration says of the clocks in place of what the mail server does.
pub(crate) fn with_timing(context: &Context, facts: Facts) -> Facts {
    let mta = &context.config.mta;
    let found = facts.timing;
    let timing = match (&context.source, &mta.lifetime) {
        (Ok(source), Some(lifetime)) => {
            let seconds = lifetime.seconds;
            let basis = format!("[mta] lifetime = \"{}\"", lifetime.written);
            let found = if source.is_local(&mta.list_command) { found } else { Timing::of_elsewhere() };
            found.with_lifetime(source.mta.lifetimes(seconds), seconds, basis)
        }
        (Ok(source), None) if !source.is_local(&mta.list_command) => Timing::of_elsewhere(),
        _ => found,
    };
    Facts { timing, ..facts }
}
