//! Follows a queue run until its messages are gone or the queue has settled.

use std::collections::VecDeque;
use std::thread;
use std::time::{Duration, Instant};

use super::Notes;
use crate::context::Context;
use crate::listing::count::Count;
use crate::state::{Flush, Outcome, Pace, Records, Tally};

/// The queue has settled when nothing is being delivered, and nothing has left it for this long.
const SETTLED_AFTER: Duration = Duration::from_secs(15);

/// A run is no longer followed when nothing has left for this long, though something is being delivered.
pub(crate) const UNMOVED: Duration = Duration::from_secs(10 * 60);

/// The longest time for which a run is followed.
pub(crate) const FOLLOWED: Duration = Duration::from_secs(6 * 60 * 60);

/// How long after a look the next one follows at least, in a run that has lasted for a while.
const SELDOM: Duration = Duration::from_secs(15);

/// A run is no longer followed when the queue could not be listed for this long.
const BLIND: Duration = Duration::from_secs(60);

/// Follows a run, and records its outcome, in the end by what was noted before it. `seen` gets the outcome of each
/// listing.
pub(crate) fn follow(
    context: &Context,
    flush: &Flush,
    notes: Option<&Notes>,
    mut seen: impl FnMut(&Outcome),
) -> Option<End> {
    let begun = Instant::now();
    let mut progress = Progress::begin(begun);
    // Mail leaves from the start of the run on, which may have been a moment ago.
    let since = u64::try_from(jiff::Timestamp::now().as_second() - flush.started).unwrap_or(0);
    let started = begun.checked_sub(Duration::from_secs(since)).unwrap_or(begun);
    let mut speed = Speed::begin(started, flush.recipients);
    loop {
        let looked = Instant::now();
        let left = Count::of_flush(context, flush);
        let took = looked.elapsed();
        let is_taken = context.records.as_ref().is_ok_and(Records::is_taken);
        let command = if is_taken { Command::UnderWay } else { Command::Ended };
        let stage = progress.stage(&left, command, Instant::now());
        if left.trouble.is_none() {
            let sampled = jiff::Timestamp::now().as_second();
            let pace = speed.pace(left.recipients, looked, sampled);
            let (left, tally) = if stage == Stage::GoesOn { (left, None) } else { judged(context, flush, notes, left) };
            let outcome = Outcome {
                sampled,
                messages_left: left.messages,
                recipients_left: left.recipients,
                why: left.why,
                settled: stage == Stage::Settled,
                tally,
                pace: pace.filter(|_| stage == Stage::GoesOn),
                left_later: 0,
            };
            if let Ok(records) = &context.records {
                if flush.number > 0 && matches!(records.flush(flush.number), Ok(None)) {
                    // It was not run after all.
                    return None;
                }
                // The disk may have filled up meanwhile; then the page shows its own count.
                let _ = records.add_outcome(flush.number, &outcome);
            }
            seen(&outcome);
            if stage != Stage::GoesOn {
                return Some(End { outcome, returned: progress.returned });
            }
        } else if stage == Stage::GivenUp {
            return None;
        }
        // A slow listing must not keep the mail server from its work.
        let least = if begun.elapsed() < UNMOVED { Duration::from_secs(1) } else { SELDOM };
        thread::sleep((took * 4).max(least));
    }
}

/// What is left at the end of a run, and what became of the rest. Where nothing has left, no log need be read.
fn judged(context: &Context, flush: &Flush, notes: Option<&Notes>, left: Count) -> (Count, Option<Tally>) {
    if flush.recipients == Some(left.recipients) {
        return (left, Some(Tally::default()));
    }
    match notes.and_then(|notes| notes.judge(context, flush)) {
        Some((left, tally)) => (left, Some(tally)),
        None => (left, None),
    }
}

/// The end of a run.
pub(crate) struct End {
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// Messages that were seen on their way back to their senders, at least so many.
    pub(crate) returned: u64,
}

/// How fast a run goes: how many recipients have left within the last minute.
struct Speed {
    /// How many were left, and when that was seen: one that is at least a minute old, if there is one, and all later ones.
    seen: VecDeque<(Instant, u64)>,
    fastest: u64,
}

/// Over what the speed is measured.
const MINUTE: Duration = Duration::from_secs(60);

/// In less time no speed is known.
const TOO_SHORT: Duration = Duration::from_secs(5);

impl Speed {
    fn begin(now: Instant, recipients: Option<u64>) -> Speed {
        Speed { seen: recipients.into_iter().map(|left| (now, left)).collect(), fastest: 0 }
    }

    /// Takes note of what is left at `now`, which is `clock` in seconds since 1970.
    fn pace(&mut self, left: u64, now: Instant, clock: i64) -> Option<Pace> {
        self.seen.push_back((now, left));
        let is_old = |seen: &(Instant, u64)| now.duration_since(seen.0) >= MINUTE;
        while self.seen.get(1).is_some_and(is_old) {
            self.seen.pop_front();
        }
        let (since, before) = *self.seen.front()?;
        let took = now.duration_since(since).as_secs();
        if took < TOO_SHORT.as_secs() {
            return None;
        }
        let per_minute = before.saturating_sub(left) * MINUTE.as_secs() / took;
        self.fastest = self.fastest.max(per_minute);
        let seconds = (left * MINUTE.as_secs()).checked_div(per_minute);
        let done_about = seconds.and_then(|seconds| clock.checked_add_unsigned(seconds));
        Some(Pace { per_minute, fastest: self.fastest, done_about })
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its messages are gone, or the queue has settled.
    Settled,
    /// The queue is listed again.
    GoesOn,
    /// It is no longer followed.
    GivenUp,
}

/// The command that runs the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    UnderWay,
    Ended,
}

/// The progress of a run so far.
struct Progress {
    begun: Instant,
    /// When the queue was last listed, and when something last changed there.
    listed: Instant,
    moved: Instant,
    recipients: Option<u64>,
    returned: u64,
}

impl Progress {
    fn begin(now: Instant) -> Progress {
        Progress { begun: now, listed: now, moved: now, recipients: None, returned: 0 }
    }

    /// Takes note of what is left.
    fn stage(&mut self, left: &Count, command: Command, now: Instant) -> Stage {
        let too_long = now.duration_since(self.begun) >= FOLLOWED || now.duration_since(self.moved) >= UNMOVED;
        if left.trouble.is_some() {
            let blind = now.duration_since(self.listed) >= BLIND;
            return if too_long || blind { Stage::GivenUp } else { Stage::GoesOn };
        }
        self.listed = now;
        self.returned = self.returned.max(left.being_returned);
        if self.recipients.replace(left.recipients) != Some(left.recipients) {
            self.moved = now;
        }
        let at_rest =
            command == Command::Ended && left.in_delivery == 0 && now.duration_since(self.moved) >= SETTLED_AFTER;
        match () {
            () if left.messages == 0 || at_rest => Stage::Settled,
            () if too_long => Stage::GivenUp,
            () => Stage::GoesOn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mta::trouble::Trouble;
    use Command::{Ended, UnderWay};

    /// The stage after looks at so many seconds, each with what was left.
    fn stages(looks: &[(u64, Count, Command)]) -> Vec<Stage> {
        let begun = Instant::now();
        let mut progress = Progress::begin(begun);
        let at = |seconds| begun + Duration::from_secs(seconds);
        looks.iter().map(|(seconds, left, command)| progress.stage(left, *command, at(*seconds))).collect()
    }

    fn left(messages: u64, in_delivery: u64) -> Count {
        Count { messages, recipients: messages, in_delivery, ..Count::default() }
    }

    #[test]
    fn a_run_is_over_when_all_is_gone_or_nothing_moves() {
        use Stage::{GoesOn, Settled};
        assert_eq!(stages(&[(1, left(0, 0), Ended)]), [Settled]);
        assert_eq!(
            stages(&[(1, left(3, 0), Ended), (15, left(3, 0), Ended), (16, left(3, 0), Ended)]),
            [GoesOn, GoesOn, Settled]
        );
        let moves = [(1, left(3, 0), Ended), (15, left(2, 0), Ended), (29, left(2, 0), Ended), (30, left(2, 0), Ended)];
        assert_eq!(stages(&moves), [GoesOn, GoesOn, GoesOn, Settled]);
    }

    #[test]
    fn a_long_run_is_followed_while_it_moves() {
        let minutes = |minutes: u64| (60 * minutes, left(1000 - minutes, 1), UnderWay);
        let looks: Vec<_> = (0..120).map(minutes).collect();
        assert_eq!(stages(&looks), [Stage::GoesOn; 120]);
    }

    #[test]
    fn the_speed_is_that_of_the_last_minute_and_says_when_it_is_done() {
        let begun = Instant::now();
        let mut speed = Speed::begin(begun, Some(1000));
        let mut pace = |second: u64, left| speed.pace(left, begun + Duration::from_secs(second), 5000);
        assert_eq!(pace(2, 980), None, "nothing is known yet");
        assert_eq!(pace(30, 700), Some(Pace { per_minute: 600, fastest: 600, done_about: Some(5070) }));
        assert_eq!(pace(60, 400), Some(Pace { per_minute: 600, fastest: 600, done_about: Some(5040) }));
        let slow = pace(120, 300).unwrap();
        assert_eq!(slow, Pace { per_minute: 100, fastest: 600, done_about: Some(5180) });
        assert!(slow.is_slower());
        assert_eq!(pace(200, 300), Some(Pace { per_minute: 0, fastest: 600, done_about: None }), "it stands still");
        let mut unknown = Speed::begin(begun, None);
        assert_eq!(unknown.pace(10, begun, 0), None);
        assert!(unknown.pace(5, begun + Duration::from_secs(10), 0).is_some());
    }

    #[test]
    fn what_was_once_seen_going_back_stays_counted() {
        let begun = Instant::now();
        let mut progress = Progress::begin(begun);
        progress.stage(&Count { being_returned: 2, ..left(3, 0) }, Command::Ended, begun);
        progress.stage(&left(0, 0), Command::Ended, begun);
        assert_eq!(progress.returned, 2);
    }

    #[test]
    fn a_run_is_not_over_while_mail_is_being_delivered_or_its_command_runs() {
        assert_eq!(stages(&[(1, left(3, 1), Ended), (100, left(3, 1), Ended)]), [Stage::GoesOn; 2]);
        assert_eq!(stages(&[(1, left(3, 0), UnderWay), (100, left(3, 0), UnderWay)]), [Stage::GoesOn; 2]);
        assert_eq!(stages(&[(1, left(3, 1), Ended), (601, left(3, 1), Ended)])[1], Stage::GivenUp);
    }

    #[test]
    fn a_queue_that_can_not_be_listed_is_not_taken_for_an_empty_one() {
        let trouble = Trouble::Reader { how: "was killed by signal 6".into() };
        let blind = Count { trouble: Some(trouble), ..Count::default() };
        assert_eq!(
            stages(&[(1, blind.clone(), Ended), (59, blind.clone(), Ended), (60, blind, Ended)]),
            [Stage::GoesOn, Stage::GoesOn, Stage::GivenUp]
        );
    }
}
