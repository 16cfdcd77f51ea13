//! The clocks of a queue: when the first of its mail goes back, and by when it is tried again.

use super::Report;
use crate::mta::timing::{Gap, Lifetime, Retry};
use crate::queue::{Deadlines, Lifetimes, State};

/// When the first of what waits goes back to its sender. Instants are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FirstReturn {
    /// The first instant, which may lie in the past.
    pub(crate) at: i64,
    /// How exact it is.
    pub(crate) kind: ReturnKind,
    /// How many messages are past their time.
    pub(crate) overdue: u64,
    /// The first instant that lies in the future, where there is one.
    pub(crate) next: Option<i64>,
}

/// How exact an instant is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReturnKind {
    /// Not before it; then at the next attempt that fails.
    NotBefore,
    /// To the second, without another attempt.
    At,
    /// About then, with all mail for the same host.
    About,
}

impl ReturnKind {
    /// The word in JSON.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            ReturnKind::NotBefore => "not_before",
            ReturnKind::At => "at",
            ReturnKind::About => "about",
        }
    }

    /// How exact these are; `None` where nothing is known.
    pub(crate) fn of(lifetimes: &Lifetimes) -> Option<ReturnKind> {
        match lifetimes {
            Lifetimes::Unknown => None,
            Lifetimes::NotBefore { .. } => Some(ReturnKind::NotBefore),
            Lifetimes::At { .. } => Some(ReturnKind::At),
            Lifetimes::About { .. } => Some(ReturnKind::About),
        }
    }
}

/// By when what waits is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NextAttempt<'a> {
    /// Within so many seconds from now.
    pub(crate) within: i64,
    /// What says so.
    pub(crate) basis: &'a str,
}

impl Report {
    /// How many messages wait that are not held.
    fn not_held(&self) -> u64 {
        let summary = &self.listing.summary;
        summary.messages.saturating_sub(summary.state(State::Held))
    }

    /// When the first of what waits goes back; `None` where nothing waits that goes back, or nothing is known of it.
    pub(crate) fn first_return(&self) -> Option<FirstReturn> {
        let summary = &self.listing.summary;
        let Deadlines { first, next, overdue, .. } = summary.deadlines;
        let kind = ReturnKind::of(&summary.lifetimes()).unwrap_or(ReturnKind::NotBefore);
        first.map(|at| FirstReturn { at, kind, overdue, next })
    }

    /// Why it is not known when mail goes back, where something waits whose time is not known.
    pub(crate) fn return_gap(&self) -> Option<Gap> {
        if self.listing.summary.deadlines.unknown == 0 {
            return None;
        }
        match &self.listing.facts.timing.lifetime {
            Lifetime::Known { .. } => None,
            Lifetime::NotInForce { basis, file, step, .. } => Some(Gap {
                why: format!(
                    "{file} was changed after the mail server was started, so {basis} there may not be in force yet, and what \
                     is in force is not known"
                ),
                remedy: step.clone(),
            }),
            Lifetime::Unknown(gap) => Some(gap.clone()),
        }
    }

    /// By when what waits is tried again; `None` where nothing waits that is tried.
    ///
    /// # Errors
    /// Why that is not known.
    pub(crate) fn next_attempt(&self) -> Option<Result<NextAttempt<'_>, &Gap>> {
        if self.not_held() == 0 {
            return None;
        }
        match &self.listing.facts.timing.retry {
            Retry::Within { seconds, basis } => Some(Ok(NextAttempt { within: *seconds, basis })),
            Retry::Listed { basis } => {
                let next = self.listing.summary.deadlines.next_attempt?;
                Some(Ok(NextAttempt { within: (next - self.listing.sampling.started).max(0), basis }))
            }
            Retry::Unknown(gap) => Some(Err(gap)),
        }
    }
}
