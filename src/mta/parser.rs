//! What the parsers of listings have in common.

use std::borrow::Cow;

use jiff::tz::TimeZone;

use super::Kind;
use super::trouble::Trouble;
use crate::queue::Message;
use crate::system::Account;
use crate::system::process::{Argv, Exit};

/// Reads a listing, line by line.
pub trait Parser {
    /// Reads one line, given without its line feed, and passes on each message that is now complete.
    fn line(&mut self, line: &[u8], found: &mut dyn FnMut(&Message<'_>));

    /// Passes on the last message, and says whether the listing was the whole queue.
    ///
    /// # Errors
    /// Why it was not, by what was printed and how the command ended. The messages that were passed on stay true.
    fn end(
        &mut self,
        command: &Argv,
        exit: &Exit,
        account: &Account,
        found: &mut dyn FnMut(&Message<'_>),
    ) -> Result<(), Trouble>;
}

/// The time and zone that listings without year or zone are read by.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The present, in seconds since 1970.
    pub now: i64,
    /// The machine's zone.
    pub zone: TimeZone,
}

/// A line as text. Nearly every line is UTF-8 already, and to check that is quicker than to replace what is not.
pub(super) fn text(line: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(line).map_or_else(|_| String::from_utf8_lossy(line), Cow::Borrowed)
}

/// Counts the lines that a parser could not read.
#[derive(Debug, Default)]
pub(super) struct Malformed {
    count: u64,
    first: Option<(u64, String)>,
}

impl Malformed {
    const SHOWN: usize = 120;

    pub(super) fn note(&mut self, line: u64, text: &[u8]) {
        self.count += 1;
        if self.first.is_none() {
            let start = &text[..text.len().min(Self::SHOWN)];
            self.first = Some((line, String::from_utf8_lossy(start).into_owned()));
        }
    }

    /// The verdict on a listing whose command ended so. Lines that made no sense say more than a bad end.
    pub(super) fn verdict(&self, mta: Kind, end: Result<(), Trouble>) -> Result<(), Trouble> {
        match (&self.first, end) {
            (Some((line, text)), Ok(()) | Err(Trouble::Ended { .. })) => {
                Err(Trouble::NotUnderstood { mta, count: self.count, line: *line, text: text.clone() })
            }
            (_, end) => end,
        }
    }
}
