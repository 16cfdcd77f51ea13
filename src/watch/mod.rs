//! What `bartleby watch` does by itself: looks at the primary and at the queue, and runs the queue once when the
//! primary has come back and mail waits.
//!
//! Nobody looks on, so it is careful: it wants to see the primary up several times in a row, asks it for some of the
//! recipients, and runs one message first. Whatever speaks against the run stops it until a later look.

mod events;
mod notify;

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::context::Context;
use crate::flush::{self, Asker, Care, End, Heard, Refusal, Run};
use crate::mta::trouble::Trouble;
use crate::primary::Primary;
use crate::queue::Target;
use crate::report::disk::{Filesystem, Level};
use crate::report::{self, Stock};
use crate::state::{Condition, Flush, Records, StateError, Tally, Transition, Watching};
use crate::system::log;
use crate::text::{count, local_time};
use events::{NotRunYet, Seen, Unlisted, Waiting};

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

/// How many looks in a row must find a primary up that is back.
const GOOD_LOOKS: u64 = 3;

/// Looks with more time between them are not in a row, in seconds.
const IN_A_ROW: i64 = 60 * 60;

/// What was done, or left alone.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// The queue was run.
    Flushed(u64),
    /// Nothing was to be done: why.
    Nothing(&'static str),
    /// It was seen back this many times in a row, which is not enough yet.
    GoodLooks(u64),
    /// It is too soon: seconds to wait.
    BackOff(i64),
    /// Something spoke against the run: what, and seconds until it is tried again.
    Stopped(String, i64),
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
    #[error("{} {}", .0, crate::text::one_line(&.0.remedy()))]
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
    records.note_look();
    let mut seen = Seen::default();
    let looked = look_and_run(context, records, &mut seen);
    // Even where the rest failed, a primary that went down or came back is news.
    let news = news(records, &context.clock.zone);
    notify::announce(context, records, seen);
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

fn look_and_run(context: &Context, records: &Records, seen: &mut Seen) -> Result<String, WatchError> {
    let stock = report::stock(context);
    seen.queue = Some(
        stock
            .as_ref()
            .map(waiting)
            .map_err(|trouble| Unlisted { message: trouble.to_string(), remedy: trouble.remedy() }),
    );
    let Stock { messages, held, primary, .. } = stock?;
    let primaries = &primary.primaries;
    if primaries.is_empty() {
        return Err(WatchError::NoPrimary);
    }
    let states = primaries.iter().map(|primary| format!("{} is {}", primary.host, primary.state.as_str()));
    let found =
        format!("{}; {} in the queue", states.collect::<Vec<_>>().join(", "), count(messages, "message", "messages"));
    let is_up = |primary: &&Primary| primary.is_up() == Some(true);
    let up: Vec<_> = primaries.iter().filter(is_up).map(|primary| primary.host.as_str()).collect();
    let since = primaries.iter().filter(is_up).filter_map(|primary| primary.since).max();
    let watching = records.watching()?;
    let is_back = records.is_back(&up)?;
    if !is_back && watching.good > 0 {
        records.keep_watching(&Watching { good: 0, ..watching.clone() })?;
    }
    let done = match (is_back, messages.saturating_sub(held)) {
        (false, _) if up.is_empty() => Done::Nothing("the primary does not take mail"),
        (false, _) => Done::Nothing("the queue was run since the primary came back, or it was never seen down"),
        (true, 0) => {
            records.welcome_back()?;
            Done::Nothing("the primary is back, and nothing waits")
        }
        (true, _) => {
            let watching = looked(watching, primary.seen.unwrap_or(context.clock.now), since);
            records.keep_watching(&watching)?;
            if watching.good < GOOD_LOOKS {
                Done::GoodLooks(watching.good)
            } else {
                run(context, records, watching, context.clock.now, seen)?
            }
        }
    };
    if matches!(done, Done::Flushed(_) | Done::Nothing(_)) {
        seen.not_run = NotRunYet::Nothing;
    }
    let outcome = match done {
        Done::Flushed(number) => format!("the primary is back: queue run {number} was started"),
        Done::Nothing(reason) => reason.to_owned(),
        Done::GoodLooks(good) => format!(
            "the primary is back, seen {good} of {GOOD_LOOKS} times in a row; then it is asked whether it would take the mail"
        ),
        Done::BackOff(seconds) => {
            format!("the primary is back, but goes up and down: the next queue run is due in {seconds} s")
        }
        Done::Stopped(why, seconds) => {
            format!("the primary is back, and the queue is not run: {why} The next try is due in {seconds} s")
        }
    };
    Ok(format!("{found}; {outcome}"))
}

/// What a listing shows, for the events.
fn waiting(stock: &Stock) -> Waiting {
    let is_critical = |filesystem: &&Filesystem| filesystem.level == Level::Critical;
    let of_one =
        |filesystem: &Filesystem| (filesystem.mount.clone(), filesystem.usage.bytes_available, filesystem.usage.bytes);
    let critical = stock.filesystems.iter().filter(is_critical).map(of_one).collect();
    Waiting { messages: stock.messages, returns: stock.returns, critical }
}

/// What is remembered after a look at a primary that is back: seen at that time, and up since then.
fn looked(before: Watching, seen: i64, since: Option<i64>) -> Watching {
    // What several looks share was seen once.
    let is_shared = seen == before.seen;
    let has_gone_down = since.is_some_and(|since| since > before.seen);
    let is_in_a_row = (0..=IN_A_ROW).contains(&(seen - before.seen)) && !has_gone_down;
    let good = match before.good {
        good if is_in_a_row && is_shared => good.max(1),
        good if is_in_a_row => good + 1,
        _ => 1,
    };
    Watching { good, seen, ..before }
}

fn run(
    context: &Context,
    records: &Records,
    watching: Watching,
    now: i64,
    seen: &mut Seen,
) -> Result<Done, WatchError> {
    let wait = stopped_for(&watching, now);
    if wait > 0 {
        return Ok(Done::Stopped(watching.why, wait));
    }
    let wait = back_off(&records.flushes(LOOKED_AT)?, now);
    if wait > 0 {
        return Ok(Done::BackOff(wait));
    }
    let done = carefully(context, records, seen);
    // What speaks against it may have taken a while to say so.
    let now = jiff::Timestamp::now().as_second();
    match done {
        Ok(Ok(number)) => {
            records.keep_watching(&Watching::default())?;
            Ok(Done::Flushed(number))
        }
        Ok(Err(why)) => {
            let is_recent = now - watching.stopped <= REMEMBERED;
            let stops = if is_recent { watching.stops + 1 } else { 1 };
            let stopped = Watching { stops, stopped: now, why, ..watching };
            records.keep_watching(&stopped)?;
            let wait = stopped_for(&stopped, now);
            Ok(Done::Stopped(stopped.why, wait))
        }
        Err(Refusal::UnderWay) => Ok(Done::Nothing("the queue is being run already")),
        Err(Refusal::CoolDown(_)) => Ok(Done::Nothing("the queue was run a moment ago")),
        Err(Refusal::Impossible(trouble)) => Err(trouble.into()),
        Err(refusal) => Err(WatchError::Refused(refusal)),
    }
}

/// Asks the primary, runs one message where that can be done, and then the whole queue. Returns the number of the last
/// run, or why the queue was not run as a whole.
fn carefully(context: &Context, records: &Records, seen: &mut Seen) -> Result<Result<u64, String>, Refusal> {
    let heard = match flush::rehearse(context) {
        Ok(heard) => heard,
        Err(Refusal::Rehearsed(not_run)) => {
            let why = not_run.to_string();
            seen.not_run = NotRunYet::Asked(not_run);
            return Ok(Err(why));
        }
        Err(refusal) => return Err(refusal),
    };
    let Heard { said, oldest_accepted } = heard;
    let first = oldest_accepted.map(|message| Target::Id(message.id));
    let first = match first.map(|target| flush::start(context, &target, Asker::here(BY), &Care::Rehearse)) {
        Some(Ok(first)) => first,
        Some(Err(refusal @ (Refusal::UnderWay | Refusal::CoolDown(_)))) => return Err(refusal),
        // It can't be run alone.
        Some(Err(_)) | None => {
            let all = flush::start(context, &Target::All, Asker::here(BY), &Care::Rehearsed(said))?;
            return Ok(Ok(all.flush.number));
        }
    };
    let Run { flush: first, notes } = first;
    let said = match first_delivered(flush::follow(context, &first, notes.as_ref(), |_| ())) {
        Ok(told) => [said.as_deref(), Some(told)].into_iter().flatten().collect::<Vec<_>>().join(" "),
        Err(why) => return Ok(Err(format!("one message was tried first ({}), and {why}.", first.target))),
    };
    let care = Care::GoesOn(Some(said));
    match flush::start(context, &Target::All, Asker::here(BY), &care) {
        Ok(run) => Ok(Ok(run.flush.number)),
        // That was all.
        Err(Refusal::NotQueued(_) | Refusal::Held { .. }) => {
            // Where this can't be noted, the queue is run again.
            let _ = records.welcome_back();
            Ok(Ok(first.number))
        }
        Err(refusal) => Err(refusal),
    }
}

/// Whether the message that was tried first was delivered, so that the others may follow: what is said of it, or else why
/// not. Where the mail log can't be read, that it has left the queue must do, unless it was seen going back.
fn first_delivered(end: Option<End>) -> Result<&'static str, String> {
    let Some(End { outcome, returned }) = end else { return Err("what came of it is not known".into()) };
    let left = outcome.messages_left;
    match outcome.tally {
        Some(Tally { returned, reason, .. }) if returned > 0 && reason.is_empty() => {
            Err("it went back to its sender".into())
        }
        Some(Tally { returned, reason, .. }) if returned > 0 => Err(format!("it went back to its sender: {reason}")),
        _ if left > 0 && outcome.why.is_empty() => Err("it still waits".into()),
        _ if left > 0 => Err(format!("it still waits, {}", outcome.why)),
        Some(Tally { double_bounces, .. }) if double_bounces > 0 => {
            Err("it was refused for good, and has no sender to return to".into())
        }
        Some(Tally { unrecorded, not_looked_up, .. }) if unrecorded + not_looked_up > 0 => {
            Err("it left the queue, but the mail log does not say that it was delivered".into())
        }
        Some(_) => Ok("One message was tried first, and was delivered."),
        None if returned > 0 => Err("it was seen going back to its sender".into()),
        None => Ok(
            "One message was tried first and left the queue. The mail log can't be read, so it is not known whether it was delivered.",
        ),
    }
}

/// Seconds until the queue is tried again after something spoke against it.
fn stopped_for(watching: &Watching, now: i64) -> i64 {
    let is_known = watching.stops > 0 && (now - REMEMBERED..=now).contains(&watching.stopped);
    if is_known { (watching.stopped + pause(watching.stops - 1) - now).max(0) } else { 0 }
}

/// How long it is waited after so many others before.
fn pause(before: u64) -> i64 {
    (BACK_OFF << before.min(20)).min(LONGEST_BACK_OFF)
}

/// Seconds until the next queue run of our own, by the log, the latest flush first.
fn back_off(log: &[Flush], now: i64) -> i64 {
    let own = || log.iter().filter(|flush| flush.by == BY && (now - REMEMBERED..=now).contains(&flush.started));
    let Some(last) = own().next() else { return 0 };
    let before = own().skip(1).filter(|flush| flush.target == "all").count() as u64;
    (last.started + pause(before) - now).max(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Outcome;

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

    #[test]
    fn the_others_follow_only_when_the_first_message_was_delivered() {
        let end = |messages_left, tally, returned| {
            let why = if messages_left > 0 { "1 because a mailbox was full".into() } else { String::new() };
            Some(End { outcome: Outcome { messages_left, tally, why, ..Outcome::default() }, returned })
        };
        let tally = |delivered, returned, unrecorded| {
            let reason = if returned > 0 { "550 5.1.1 unknown user".to_owned() } else { String::new() };
            Some(Tally { delivered, returned, unrecorded, reason, ..Tally::default() })
        };
        for (end, expected) in [
            (end(0, tally(1, 0, 0), 0), Ok("One message was tried first, and was delivered.")),
            (end(0, tally(1, 1, 0), 0), Err("it went back to its sender: 550 5.1.1 unknown user")),
            (end(0, tally(0, 0, 1), 0), Err("it left the queue, but the mail log does not say that it was delivered")),
            (end(1, tally(0, 0, 0), 0), Err("it still waits, 1 because a mailbox was full")),
            (end(1, tally(1, 0, 0), 0), Err("it still waits, 1 because a mailbox was full")),
            (end(1, None, 0), Err("it still waits, 1 because a mailbox was full")),
            (end(0, None, 1), Err("it was seen going back to its sender")),
            (None, Err("what came of it is not known")),
        ] {
            assert_eq!(first_delivered(end), expected.map_err(str::to_owned));
        }
        assert!(first_delivered(end(0, None, 0)).unwrap().contains("not known whether it was delivered"));
    }

    #[test]
    fn only_looks_of_their_own_that_follow_each_other_make_a_primary_good() {
        let mut watching = Watching::default();
        let mut good = |seen, since| {
            watching = looked(watching.clone(), seen, Some(since));
            watching.good
        };
        assert_eq!([good(1000, 990), good(1060, 990), good(1060, 990), good(1120, 990)], [1, 2, 2, 3]);
        assert_eq!(good(1180, 1150), 1, "it was down in between");
        assert_eq!(good(1180 + IN_A_ROW + 1, 1150), 1, "nobody looked for long");
        assert_eq!(good(500, 400), 1, "the clock was set back");
    }

    #[test]
    fn what_spoke_against_a_run_makes_the_next_one_wait_longer_each_time() {
        let stopped = |stops, stopped| Watching { stops, stopped, ..Watching::default() };
        let now = 1_000_000;
        assert_eq!(stopped_for(&Watching::default(), now), 0);
        assert_eq!(stopped_for(&stopped(1, now - 10), now), BACK_OFF - 10);
        assert_eq!(stopped_for(&stopped(3, now), now), 4 * BACK_OFF);
        assert_eq!(stopped_for(&stopped(99, now), now), LONGEST_BACK_OFF);
        assert_eq!(stopped_for(&stopped(3, now - REMEMBERED - 1), now), 0);
        assert_eq!(stopped_for(&stopped(3, now + 100), now), 0, "the clock was set back");
    }
}
