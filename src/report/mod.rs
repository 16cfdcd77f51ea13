//! Everything that one answer is made from, and how it is made: the parent gathers what is known, the reader reads the
//! listing and writes the answer.

pub(crate) mod answer;
pub(crate) mod clocks;
pub(crate) mod disk;
pub(crate) mod drill;
pub(crate) mod history;
mod known;
mod reading;
pub(crate) mod receipt;

use std::io;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

pub use answer::{Answer, HasBody, answer};
pub(crate) use answer::{Stock, stock};

use crate::flush::MOST_MESSAGES;
use crate::flush::readiness::Readiness;
use crate::listing::Listing;
use crate::mta::trouble::Trouble;
use crate::primary::PrimaryStatus;
use crate::queue::{Clocks, Message, Row, Summary, Window};
use crate::report::disk::Filesystem;
use crate::state::{Flush, Outages, Outcome, Sample};
use crate::system::Body;
use crate::text;

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
    /// Why the sandbox does not hold in which it was read; `None` if it does.
    pub gap: Option<String>,
    /// The page that was asked for, and how many messages there are to choose from.
    pub selection: Option<(Window, u64)>,
    /// What is to be said of the reasons, where the mail server's listing holds none.
    pub note: Option<Note>,
    /// Why the messages' reasons are not known, where the mail server has them but keeps them.
    pub unexplained: Option<Trouble>,
    /// The filesystems, the queue's first.
    pub filesystems: Vec<Filesystem>,
    /// How much waited at other times, the oldest first.
    pub history: Vec<Sample>,
    /// What is known of the primaries.
    pub primary: PrimaryStatus,
    /// How long they were down.
    pub outages: Outages,
    /// Whether and when the queue can be run.
    pub flush: Readiness,
    /// The flush that was asked for, and what the listing says of it.
    pub followed: Option<(Flush, Outcome)>,
    /// The number of the flush that was asked for, where there is no record of it.
    pub unrecorded: Option<u64>,
}

/// What is to be said of reasons that a listing does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// A filter could not look at what it was to look at.
    Blind,
    /// Nothing else may be asked for them.
    NoReasons,
    /// All messages are listed, and so many are not asked for.
    Streamed,
}

impl Report {
    /// How many messages are held, so that a queue run passes them over.
    pub(crate) fn passed_over(&self) -> u64 {
        let Summary { messages, on_hold, .. } = self.listing.summary;
        let too_many = self.flush.held.one_by_one && messages - on_hold > MOST_MESSAGES as u64;
        if self.flush.held.all || too_many { 0 } else { on_hold }
    }

    /// How many messages are held, and are delivered by a queue run all the same.
    pub(crate) fn delivered_though_held(&self) -> u64 {
        self.listing.summary.on_hold - self.passed_over()
    }

    /// Whether a part of the queue can be run right now, and not all of it is held.
    pub(crate) fn offers_parts(&self) -> bool {
        self.flush.parts && self.flush.is_offered() && self.passed_over() < self.listing.summary.messages
    }

    /// An instant as people here read it, such as `2026-11-23 12:18:08+01:00`.
    pub(crate) fn local_time(&self, seconds: i64) -> String {
        text::local_time(seconds, &self.zone)
    }

    /// The same in few words, such as `12:18:08 today (CET)`.
    pub(crate) fn moment(&self, seconds: i64) -> String {
        text::moment(seconds, self.listing.sampling.started, &self.zone)
    }

    /// How long what came in at that instant has waited.
    pub fn waited(&self, arrival: i64) -> String {
        text::time_between(arrival, self.listing.sampling.started)
    }

    /// The same, for where there is little room.
    pub fn waited_briefly(&self, arrival: i64) -> String {
        text::short_time_between(arrival, self.listing.sampling.started)
    }

    /// How old something is, in seconds; never negative.
    pub(crate) fn age(&self, arrival: i64) -> i64 {
        self.listing.sampling.started.saturating_sub(arrival).max(0)
    }
}

/// What came of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The exit status of the command line, 0 for an answer over a whole listing.
    pub status: u8,
    /// Whether the answer will soon be another one: a queue run goes on.
    pub renew: bool,
    /// When the first of what waits goes back, in seconds since 1970, if less than a day is left; said for `watch` alone.
    pub returns: Option<i64>,
}

/// An output form: it is written while the messages come in.
///
/// The reader writes it, in the sandbox. Should the reader break off, the parent ends what there is, with a report that
/// says so: [`Form::end`] may then come without anything before it, or after any number of whole messages.
pub trait Form {
    /// Writes what comes before the first message. By the clocks a form can tell when each message goes back.
    ///
    /// # Errors
    /// Those of writing.
    fn begin(&mut self, _clocks: &Clocks, _to: &mut Body<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Writes one message.
    ///
    /// # Errors
    /// Those of writing.
    fn message(&mut self, _message: &Message<'_>, _to: &mut Body<'_>) -> io::Result<()> {
        Ok(())
    }

    /// Writes what comes after the last message; `rows` are those of the page that was asked for, if one was.
    ///
    /// # Errors
    /// Those of writing.
    fn end(&mut self, report: &Report, rows: &[Row], to: &mut Body<'_>) -> io::Result<()>;

    /// What comes of it.
    fn verdict(&self, report: &Report) -> Verdict;
}
