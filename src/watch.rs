//! What `bartleby watch` does by itself: looks at the primary and at the queue, and runs the queue once when the
//! primary has come back and mail waits.

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::context::Context;
use crate::flush::{self, Asker, Care, Refusal};
use crate::mta::trouble::Trouble;
use crate::primary::Primary;
use crate::queue::Target;
use crate::report::{self, Stock};
use crate::state::{Condition, Flush, Records, StateError, Transition};
use crate::system::log;
use crate::text::{count, local_time};

/// How long after a look the next one is due.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);

/// Who asked for a queue run, in the log.
pub(crate) const BY: &str = "watch, as the primary is back";

/// Queue runs of our own within this time, in seconds, make the next one wait: a primary that goes up and down is
/// not to get the whole queue each time.
const REMEMBERED: i64 = 12 * 60 * 60;

/// How long the second one within that time waits after the first, in seconds; each further one waits twice as long.
const BACK_OFF: i64 = 5 * 60;

/// None waits longer, in seconds.
const LONGEST_BACK_OFF: i64 = 4 * 60 * 60;

/// How many flushes are looked at for that.
const LOOKED_AT: u32 = 200;

/// What was done, or left alone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// The queue was run.
    Flushed(u64),
    /// Nothing was to be done: why.
    Nothing(&'static str),
    /// It is too soon: seconds to wait.
    BackOff(i64),
}

/// How many changes of the primaries are said one by one, the latest.
const NEWS_SHOWN: usize = 10;

/// Why a look came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WatchError {
    /// Without a memory it can't be known what has changed.
    #[error("there is nowhere to remember anything: {0}")]
    NoRecords(StateError),
    /// What is remembered can't be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The queue could not be listed, or not be run.
    #[error("{} {}", .0, .0.remedy())]
    Trouble(#[from] Trouble),
    /// The queue was not run.
    #[error(transparent)]
    Refused(Refusal),
    /// There is no primary to look at.
    #[error(
        "it is not known which server is the primary; name it in /etc/bartleby.toml: [primary] hosts = [\"primary.example.com\"]"
    )]
    NoPrimary,
    /// The same, with what else is new.
    #[error("{news}; {error}")]
    WithNews {
        /// How the primaries have changed.
        news: String,
        /// Why the look came to nothing.
        error: Box<WatchError>,
    },
}

/// Looks once, takes a sample of the queue, and runs it where it is time. Returns a line that says so.
///
/// # Errors
/// [`WatchError`]
pub(crate) fn once(context: &Context) -> Result<String, WatchError> {
    let records = context.records.as_ref().map_err(|reason| WatchError::NoRecords(reason.clone()))?;
    records.room()?;
    let looked = look_and_run(context, records);
    // Even where the rest failed, a primary that went down or came back is news.
    let news = news(records, &context.clock.zone);
    match looked {
        Ok(said) => Ok(news.into_iter().chain([said]).collect::<Vec<_>>().join("; ")),
        Err(error) if news.is_empty() => Err(error),
        Err(error) => Err(WatchError::WithNews { news: news.join("; "), error: Box::new(error) }),
    }
}

/// How the primaries have changed since the last look, in words: what `watch` saw itself just now, and what a view of
/// the page saw before it.
fn news(records: &Records, zone: &TimeZone) -> Vec<String> {
    let unnoticed = records.transitions_unnoticed().unwrap_or_else(|error| {
        log(&error.to_string());
        Vec::new()
    });
    if let Some(Err(error)) = unnoticed.last().map(|last| records.notice(last.number)) {
        log(&format!("{error}; so the same changes of the primary are said again next time"));
    }
    let earlier = unnoticed.len().saturating_sub(NEWS_SHOWN);
    let left_out = (earlier > 0).then(|| count(earlier as u64, "earlier change", "earlier changes"));
    let in_words = |change: &Transition| {
        let became = match change.condition {
            Condition::Up => "came back",
            Condition::Busy => "put mail off",
            Condition::Down | Condition::Unknown => "went down",
        };
        format!("{} {became} at {} (seen by {})", change.host, local_time(change.at, zone), change.seen_by)
    };
    left_out.into_iter().chain(unnoticed[earlier..].iter().map(in_words)).collect()
}

fn look_and_run(context: &Context, records: &Records) -> Result<String, WatchError> {
    let Stock { messages, held, primary } = report::stock(context)?;
    let primaries = &primary.primaries;
    if primaries.is_empty() {
        return Err(WatchError::NoPrimary);
    }
    let states = primaries.iter().map(|primary| format!("{} is {}", primary.host, primary.state.as_str()));
    let found =
        format!("{}; {} in the queue", states.collect::<Vec<_>>().join(", "), count(messages, "message", "messages"));
    let is_up = |primary: &&Primary| primary.is_up() == Some(true);
    let up: Vec<_> = primaries.iter().filter(is_up).map(|primary| primary.host.as_str()).collect();
    let done = match (records.is_back(&up)?, messages.saturating_sub(held)) {
        (false, _) if up.is_empty() => Done::Nothing("the primary does not take mail"),
        (false, _) => Done::Nothing("the queue was run since the primary came back, or it was never seen down"),
        (true, 0) => {
            records.welcome_back()?;
            Done::Nothing("the primary is back, and nothing waits")
        }
        (true, _) => run(context, records, context.clock.now)?,
    };
    let outcome = match done {
        Done::Flushed(number) => format!("the primary is back: queue run {number} was started"),
        Done::Nothing(reason) => reason.to_owned(),
        Done::BackOff(seconds) => {
            format!("the primary is back, but goes up and down: the next queue run is due in {seconds} s")
        }
    };
    Ok(format!("{found}; {outcome}"))
}

fn run(context: &Context, records: &Records, now: i64) -> Result<Done, WatchError> {
    let wait = back_off(&records.flushes(LOOKED_AT)?, now);
    if wait > 0 {
        return Ok(Done::BackOff(wait));
    }
    match flush::start(context, &Target::All, Asker::here(BY), &Care::Rehearse) {
        Ok(flush) => Ok(Done::Flushed(flush.number)),
        Err(Refusal::UnderWay) => Ok(Done::Nothing("the queue is being run already")),
        Err(Refusal::CoolDown(_)) => Ok(Done::Nothing("the queue was run a moment ago")),
        Err(Refusal::Impossible(trouble)) => Err(trouble.into()),
        Err(refusal) => Err(WatchError::Refused(refusal)),
    }
}

/// Seconds until the next queue run of our own, by the log, the latest flush first.
fn back_off(log: &[Flush], now: i64) -> i64 {
    let own = || log.iter().filter(|flush| flush.by == BY && (now - REMEMBERED..=now).contains(&flush.started));
    let Some(last) = own().next() else { return 0 };
    let doublings = u32::try_from(own().count() - 1).unwrap_or(u32::MAX).min(20);
    let pause = (BACK_OFF << doublings).min(LONGEST_BACK_OFF);
    (last.started + pause - now).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_that_goes_up_and_down_gets_the_queue_less_and_less_often() {
        let flush =
            |started, by: &str| Flush { number: 1, started, target: "all".into(), by: by.into(), ..Flush::default() };
        let now = 1_000_000;
        assert_eq!(back_off(&[], now), 0);
        assert_eq!(back_off(&[flush(now, "192.0.2.1")], now), 0, "a person's own");
        assert_eq!(back_off(&[flush(now - 10, BY)], now), BACK_OFF - 10);
        assert_eq!(back_off(&[flush(now - BACK_OFF, BY)], now), 0);
        assert_eq!(back_off(&[flush(now, BY), flush(now - 400, BY)], now), 2 * BACK_OFF);
        let many: Vec<_> = (0..150).map(|n| flush(now - n, BY)).collect();
        assert_eq!(back_off(&many, now), LONGEST_BACK_OFF);
        assert_eq!(back_off(&[flush(now - REMEMBERED - 1, BY)], now), 0);
        assert_eq!(back_off(&[flush(now + 5000, BY)], now), 0, "the clock was set back");
    }
}
