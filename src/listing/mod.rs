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
use crate::mta::timing::Timing;
use crate::mta::trouble::{Status, Trouble};
use crate::mta::{Facts, Kind, Wanted};
use crate::queue::Summary;

pub(crate) use lister::Lister;
pub(crate) use session::Session;

/// How long version and settings may take after the listing.
pub(crate) const INQUIRY_PATIENCE: Duration = Duration::from_secs(2);

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
    with_timing(context, facts)
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
