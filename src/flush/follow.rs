//! Follows a queue run until its messages are gone or the queue has settled.

use std::thread;
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::listing::count::Count;
use crate::state::{Flush, Outcome, Records};

/// The queue has settled when nothing is being delivered, and nothing has left it for this long.
const SETTLED_AFTER: Duration = Duration::from_secs(15);

/// The longest time for which a run is followed.
pub(crate) const FOLLOWED: Duration = Duration::from_secs(10 * 60);

/// A run is no longer followed when the queue could not be listed for this long.
const BLIND: Duration = Duration::from_secs(60);

/// Follows a run, and records its outcome. `seen` gets the outcome of each listing.
pub(crate) fn follow(context: &Context, flush: &Flush, mut seen: impl FnMut(&Outcome)) -> Option<End> {
    let mut progress = Progress::begin(Instant::now());
    loop {
        let looked = Instant::now();
        let sampled = jiff::Timestamp::now().as_second();
        let left = Count::of_flush(context, flush);
        let took = looked.elapsed();
        let is_taken = context.records.as_ref().is_ok_and(Records::is_taken);
        let command = if is_taken { Command::UnderWay } else { Command::Ended };
        let stage = progress.stage(&left, command, Instant::now());
        if left.trouble.is_none() {
            let outcome = Outcome {
                sampled,
                messages_left: left.messages,
                recipients_left: left.recipients,
                why: left.why,
                settled: stage == Stage::Settled,
                ..Outcome::default()
            };
            if let Ok(records) = &context.records {
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
        thread::sleep((took * 4).max(Duration::from_secs(1)));
    }
}

/// The end of a run.
pub(crate) struct End {
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// Messages that were seen on their way back to their senders, at least so many.
    pub(crate) returned: u64,
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
        let too_long = now.duration_since(self.begun) >= FOLLOWED;
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
    fn a_run_is_over_when_all_is_gone_or_nothing_moves_any_more() {
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
        assert_eq!(stages(&[(1, left(3, 1), Ended), (600, left(3, 1), Ended)])[1], Stage::GivenUp);
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
