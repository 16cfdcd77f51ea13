//! What `bartleby watch` does by itself: looks at the primary and at the queue, and runs the queue once when the
//! primary has come back and mail waits.

use std::ffi::OsString;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::flush::{self, Refusal};
use crate::queue::State;
use crate::report;
use crate::request::{Asked, Format, Target};
use crate::sandbox::worker;
use crate::state::{Condition, Flush, Records, SeenBy, StateError, Transition};
use crate::system;
use crate::text::{count, local_time};

/// How long after a look the next one is due.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// Who asked for a queue run, in the log.
pub const BY: &str = "watch, as the primary is back";

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
pub enum Done {
    /// The queue was run.
    Flushed(u64),
    /// Nothing was to be done: why.
    Nothing(&'static str),
    /// It is too soon: seconds to wait.
    BackOff(i64),
}

/// How many changes of the primaries are said one by one, the latest.
const NEWS_SHOWN: usize = 10;

/// The word that makes this program look.
pub const WORKER: &str = "run-look";

/// How long a look may take besides the listing.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a look found.
#[derive(Debug, Serialize, Deserialize)]
struct Seen {
    /// The primaries and the queue in words.
    told: String,
    /// The primaries that take mail.
    up: Vec<String>,
    /// Messages that a queue run would deliver.
    waiting: u64,
}

/// Looks once. Returns what to tell, on one line.
///
/// # Errors
/// What kept it from looking, or from running the queue.
pub fn once(context: &Context) -> Result<String, String> {
    let records =
        context.records.as_ref().map_err(|reason| format!("there is nowhere to remember anything: {reason}"))?;
    records.room().map_err(in_words)?;
    let looked = look_and_run(context, records);
    // Even where the rest failed, a primary that went down or came back is news.
    let news = news(records, &context.clock.zone);
    let with_news = |said| news.into_iter().chain([said]).collect::<Vec<_>>().join("; ");
    match looked {
        Ok(said) => Ok(with_news(said)),
        Err(said) => Err(with_news(said)),
    }
}

/// How the primaries have changed since the last look, in words: what `watch` saw itself just now, and what a view of
/// the page saw before it.
fn news(records: &Records, zone: &TimeZone) -> Vec<String> {
    let unnoticed = records.transitions_unnoticed().unwrap_or_else(|error| {
        system::log(&error.to_string());
        Vec::new()
    });
    if let Some(Err(error)) = unnoticed.last().map(|last| records.notice(last.number)) {
        system::log(&format!("{error}; so the same changes of the primary are said again next time"));
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

fn look_and_run(context: &Context, records: &Records) -> Result<String, String> {
    // What reads the listing can start no queue run.
    let look = worker::again(&context.config, WORKER, &[]);
    let seen = look.and_then(|look| worker::ask(&look, context.config.mta.deadline + PATIENCE));
    let Seen { told, up, waiting } = seen.unwrap_or_else(|trouble| Err(trouble.to_string()))?;
    let up: Vec<_> = up.iter().map(String::as_str).collect();
    let done = match (records.is_back(&up).map_err(in_words)?, waiting) {
        (false, _) if up.is_empty() => Done::Nothing("the primary does not take mail"),
        (false, _) => Done::Nothing("the queue was run since the primary came back, or it was never seen down"),
        (true, 0) => {
            records.welcome_back().map_err(in_words)?;
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
    Ok(format!("{told}; {outcome}"))
}

/// The process that looks, and takes a sample of the queue. Its word is the configuration's file.
pub fn work(words: &[OsString]) {
    let Ok((config, _)) = worker::told(words) else { return };
    worker::answer(&look_once(&Context::of(SeenBy::Watch, config)));
}

fn look_once(context: &Context) -> Result<Seen, String> {
    let looked = report::look(context, &Asked::of(Format::Text), &mut |_| Ok(()));
    let (report, _) = looked.map_err(|error| error.to_string())?;
    if let Some(trouble) = &report.listing.trouble {
        return Err(format!("{trouble} {}", trouble.remedy()));
    }
    let primaries = &report.outlook.primaries;
    if primaries.is_empty() {
        let remedy = "name it in /etc/bartleby.toml: [primary] hosts = [\"primary.example.com\"]";
        return Err(format!("it is not known which server is the primary; {remedy}"));
    }
    let states = primaries.iter().map(|primary| format!("{} is {}", primary.host, primary.state.as_str()));
    let summary = &report.listing.summary;
    Ok(Seen {
        told: format!(
            "{}; {} in the queue",
            states.collect::<Vec<_>>().join(", "),
            count(summary.messages, "message", "messages")
        ),
        up: primaries.iter().filter(|primary| primary.up == Some(true)).map(|primary| primary.host.clone()).collect(),
        waiting: summary.messages - summary.state(State::Held),
    })
}

fn in_words(error: StateError) -> String {
    error.to_string()
}

fn run(context: &Context, records: &Records, now: i64) -> Result<Done, String> {
    let wait = back_off(&records.flushes(LOOKED_AT).map_err(in_words)?, now);
    if wait > 0 {
        return Ok(Done::BackOff(wait));
    }
    match flush::start(context, &Target::All, BY.to_owned()) {
        Ok(flush) => Ok(Done::Flushed(flush.number)),
        Err(Refusal::UnderWay) => Ok(Done::Nothing("the queue is being run already")),
        Err(Refusal::CoolDown(_)) => Ok(Done::Nothing("the queue was run a moment ago")),
        Err(Refusal::Impossible(trouble)) => Err(format!("{trouble} {}", trouble.remedy())),
        Err(refusal) => Err(refusal.to_string()),
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
        let flush = |started, by: &str| Flush {
            number: 1,
            started,
            target: "all".into(),
            by: by.into(),
            messages: None,
            recipients: None,
            exit: None,
            outcome: None,
        };
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
