//! The three clocks of a queue: since when the primary is down, by when what waits is tried again, and when the first of it
//! goes back to its sender.

use std::borrow::Cow;

use super::{Report, history};
use crate::mta::timing::{Gap, Hinted, Lifetime, Retry};
use crate::queue::{Cutoff, Deadlines, Lifetimes, State};
use crate::text::{at_most, weekday_time};

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
            Lifetimes::NotBefore { .. } | Lifetimes::Each(_) => Some(ReturnKind::NotBefore),
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

/// How soon somebody must act, lest mail goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// Nobody must.
    None,
    /// Less than a quarter of the lifetime is left.
    Warning,
    /// Less than a day is left, or nothing is tried again.
    Alarm,
}

/// Less than this is an alarm, in seconds.
const DAY: i64 = 24 * 60 * 60;

/// The part of the lifetime, one in so many, that is left when it is a warning.
const QUARTER: i64 = 4;

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// The disk of the queue is full in so many seconds, if it goes on as today, and nothing has gone back before.
    FullDisk(i64),
    /// Mail goes back; the disk is full so many seconds from now.
    Return(i64),
}

impl Report {
    /// How many messages wait that are not held.
    pub(crate) fn not_held(&self) -> u64 {
        let summary = &self.listing.summary;
        summary.messages.saturating_sub(summary.state(State::Held))
    }

    /// Whether anything waits that is tried again or goes back. Of a listing that is not complete nothing is claimed: what
    /// was not read may go back first.
    pub(crate) fn has_clocks(&self) -> bool {
        let deadlines = &self.listing.summary.deadlines;
        self.listing.trouble.is_none() && (self.not_held() > 0 || deadlines.first.is_some())
    }

    /// When the first of what waits goes back; `None` where nothing waits that goes back, or nothing is known of it.
    pub(crate) fn first_return(&self) -> Option<FirstReturn> {
        let summary = &self.listing.summary;
        let Deadlines { first, next, overdue, .. } = summary.deadlines;
        let kind = ReturnKind::of(&summary.lifetimes()).unwrap_or(ReturnKind::NotBefore);
        first.filter(|_| self.has_clocks()).map(|at| FirstReturn { at, kind, overdue, next })
    }

    /// Why it is not known when mail goes back, where something waits whose time is not known.
    pub(crate) fn return_gap(&self) -> Option<Gap> {
        if !self.has_clocks() || self.listing.summary.deadlines.unknown == 0 {
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

    /// The domains that the mail server has given up (Exim): all their hosts have failed for longer than it tries, so that it
    /// takes new mail for them only to return it. That is so whether anything waits or not.
    pub(crate) fn given_up(&self) -> Vec<&str> {
        let Lifetime::Known { lifetimes: Lifetimes::About { cutoffs, .. }, .. } = &self.listing.facts.timing.lifetime
        else {
            return Vec::new();
        };
        let now = self.listing.sampling.started;
        let is_over = |of: &&Cutoff| of.failing_since.is_some_and(|since| since.saturating_add(of.seconds) <= now);
        cutoffs.iter().filter(is_over).map(|of| of.domain.as_str()).collect()
    }

    /// By when what waits is tried again; `None` where nothing waits that is tried.
    ///
    /// # Errors
    /// Why that is not known.
    pub(crate) fn next_attempt(&self) -> Option<Result<NextAttempt<'_>, Cow<'_, Gap>>> {
        if !self.has_clocks() || self.not_held() == 0 {
            return None;
        }
        match &self.listing.facts.timing.retry {
            Retry::Within { hinted: Some(Hinted { at, basis, .. }), .. } if self.hints_hold() => {
                Some(Ok(NextAttempt { within: (at - self.listing.sampling.started).max(0), basis }))
            }
            Retry::Within { seconds, basis, since, .. } => {
                let oldest = self.listing.summary.oldest;
                let earlier = since
                    .and_then(|since| Some((since.at, since.unknown_until(oldest, self.listing.sampling.started)?)));
                Some(match earlier {
                    Some((since, until)) => Err(Cow::Owned(self.put_off_by_earlier_settings(*seconds, since, until))),
                    None => Ok(NextAttempt { within: *seconds, basis }),
                })
            }
            Retry::Listed { basis } => {
                let next = self.listing.summary.deadlines.next_attempt?;
                Some(Ok(NextAttempt { within: (next - self.listing.sampling.started).max(0), basis }))
            }
            Retry::Unknown(gap) => Some(Err(Cow::Borrowed(gap))),
        }
    }

    fn hints_hold(&self) -> bool {
        let newest = self.listing.summary.newest;
        let now = self.listing.sampling.started;
        matches!(&self.listing.facts.timing.retry, Retry::Within { hinted: Some(hinted), .. } if hinted.holds(newest, now))
    }

    /// Why it is not known when all of it is tried again.
    fn put_off_by_earlier_settings(&self, seconds: i64, since: i64, until: i64) -> Gap {
        let when = |at: i64| weekday_time(at, &self.zone);
        Gap {
            why: format!(
                "the mail server's settings have been in force only since {}, and mail that was put off before that waits \
                 as the earlier ones said; any other is tried again within {}",
                when(since),
                at_most(seconds)
            ),
            remedy: format!("Nothing need be done: it is known from {} on at the latest.", when(until)),
        }
    }

    /// Since when no primary has answered, as far as was seen, in seconds since 1970; `None` where one does, or that is not
    /// known.
    pub(crate) fn down_since(&self) -> Option<i64> {
        let primaries = &self.primary.primaries;
        if primaries.is_empty() || primaries.iter().any(|primary| primary.is_up() != Some(false)) {
            return None;
        }
        let since = |host: &str| self.outages.lasting(host).map(|outage| outage.down);
        primaries.iter().filter_map(|primary| since(&primary.host).or(primary.since)).max()
    }

    /// When the first of what waits for the primaries goes back, if that is an alarm: less than a day is left.
    pub(crate) fn returns_within_a_day(&self) -> Option<i64> {
        let first = self.listing.summary.first_return(|domain| self.primary.may_be_for(domain))?;
        let is_near = first.saturating_sub(self.listing.sampling.started) < DAY;
        Some(first).filter(|_| is_near && self.urgency() == Urgency::Alarm)
    }

    /// Whether a primary accepts mail.
    pub(crate) fn has_primary_up(&self) -> bool {
        self.primary.primaries.iter().any(|primary| primary.is_up() == Some(true))
    }

    /// How soon somebody must act. What waits for other domains than the primary's, mostly notices to senders who do not
    /// exist, is no reason to.
    pub(crate) fn urgency(&self) -> Urgency {
        let timing = &self.listing.facts.timing;
        if !self.has_clocks() {
            return Urgency::None;
        }
        if timing.stopped.is_some() {
            return Urgency::Alarm;
        }
        let now = self.listing.sampling.started;
        let summary = &self.listing.summary;
        let is_up = self.has_primary_up();
        let is_about = ReturnKind::of(&summary.lifetimes()) == Some(ReturnKind::About);
        match (summary.first_return(|domain| self.primary.may_be_for(domain)), &timing.lifetime) {
            // The host that decides does not fail.
            _ if is_about && is_up => Urgency::None,
            (Some(at), _) if at.saturating_sub(now) < DAY => Urgency::Alarm,
            (Some(at), Lifetime::Known { seconds, .. }) if at.saturating_sub(now) < seconds / QUARTER => {
                Urgency::Warning
            }
            _ => Urgency::None,
        }
    }

    /// Seconds until the queue's filesystem is full, if it goes on as today; `None` where it does not fill, or more than
    /// a year is left.
    pub(crate) fn seconds_until_full(&self) -> Option<i64> {
        const YEAR: i64 = 365 * DAY;
        let queue = self.filesystems.iter().find(|filesystem| filesystem.queue)?;
        let now = self.listing.sampling.started;
        history::seconds_until_full(&self.history, now, queue.usage.bytes_available?).filter(|seconds| *seconds < YEAR)
    }

    /// What comes first: the full disk, or the first return. `None` where either is not in sight.
    pub(crate) fn comes_first(&self) -> Option<First> {
        let full = self.seconds_until_full()?;
        let left = self.first_return()?.at.saturating_sub(self.listing.sampling.started);
        Some(if full < left { First::FullDisk(full) } else { First::Return(full) })
    }
}
