//! Answers in their several forms, all made from the same [`Report`].

pub mod check;
pub mod csv;
pub mod doctor;
pub mod html;
pub mod json;
pub mod openmetrics;
pub mod sentences;
pub mod text;

use jiff::tz::TimeZone;

use crate::context::Context;
use crate::flush::{Readiness, Rules};
use crate::listing::Listing;
use crate::mta::trouble::Trouble;
use crate::primary::Outlook;
use crate::queue::{Message, State, Window};
use crate::report::disk::{self, Filesystem, Mounts};
use crate::sandbox::Cage;
use crate::state::{Flush, Outcome, Sample};

/// The program's name and version.
pub const PROGRAM: &str = concat!("bartleby ", env!("CARGO_PKG_VERSION"));

/// Everything that an answer may tell, but the messages.
pub struct Report {
    /// This machine's name.
    pub host: String,
    /// What the configuration calls this queue, if anything.
    pub label: Option<String>,
    /// The zone in which times are shown to people.
    pub zone: TimeZone,
    /// The user this program runs as.
    pub user: String,
    /// The listing.
    pub listing: Listing,
    /// Why the cage does not hold in which it was read; `None` if it does.
    pub gap: Option<String>,
    /// The page that was asked for, and how many messages there are to choose from.
    pub selection: Option<(Window, u64)>,
    /// What is to be said of the reasons, where the mail server's listing holds none.
    pub note: Option<&'static str>,
    /// Why the messages' reasons are not told, where the mail server has them but keeps them.
    pub unexplained: Option<Trouble>,
    /// The filesystems, the queue's first.
    pub filesystems: Vec<Filesystem>,
    /// How much waited at other times, the oldest first.
    pub history: Vec<Sample>,
    /// What is known of the primaries.
    pub outlook: Outlook,
    /// Whether and when the queue can be run.
    pub flush: Readiness,
    /// The flush that was asked for, and what the listing tells of it.
    pub followed: Option<(Flush, Outcome)>,
}

impl Report {
    /// Gathers what there is to tell besides the listing.
    pub fn gather(
        context: &Context,
        listing: Listing,
        cage: &Cage,
        selection: Option<(Window, u64)>,
        mounts: &Mounts,
        rules: &Rules,
    ) -> Report {
        Report {
            host: context.host.clone(),
            label: context.config.mta.label.clone(),
            zone: context.clock.zone.clone(),
            user: context.account.name.clone(),
            filesystems: disk::filesystems(mounts, listing.facts.queue_directory.as_deref(), &context.config.disk),
            flush: Readiness::find(context, &listing.facts, rules),
            gap: cage.gap().map(str::to_owned),
            note: None,
            history: Vec::new(),
            unexplained: None,
            outlook: Outlook::default(),
            followed: None,
            selection,
            listing,
        }
    }

    /// How many messages are held, so that a queue run passes them over.
    pub fn passed_over(&self) -> u64 {
        if self.flush.held[0] { 0 } else { self.listing.summary.state(State::Held) }
    }

    /// Whether a part of the queue can be run right now, and not all of it is held.
    pub fn offers_parts(&self) -> bool {
        self.flush.parts && self.flush.is_offered() && self.passed_over() < self.listing.summary.messages
    }

    /// An instant as people here read it, such as `2026-11-23 12:18:08+01:00`.
    pub fn local_time(&self, seconds: i64) -> String {
        crate::text::local_time(seconds, &self.zone)
    }

    /// How old something is, in seconds; never negative.
    pub fn age(&self, arrival: i64) -> i64 {
        self.listing.sampled.saturating_sub(arrival).max(0)
    }
}

/// A form that is written while the messages come in.
pub trait Streamed {
    /// Writes one message.
    ///
    /// # Errors
    /// Those of writing.
    fn message(&mut self, message: &Message<'_>) -> std::io::Result<()>;

    /// Writes what comes after the last message.
    ///
    /// # Errors
    /// Those of writing.
    fn end(&mut self, report: &Report) -> std::io::Result<()>;
}
