//! The outcome of a queue run, by which of its messages a listing still holds.

use crate::listing::remainder::Remainder;
use crate::queue::Message;
use crate::state::{Flush, Outcome, Records};

/// A run on record, whose messages are looked for in a listing.
pub(crate) struct Followed {
    flush: Flush,
    remainder: Remainder,
}

/// How much of a listing was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// The whole queue.
    All,
    /// A part of it: it was cut, or refused.
    Part,
}

impl Followed {
    /// The flush of this number, if it is on record.
    pub(crate) fn find(records: &Records, number: u64) -> Option<Followed> {
        let flush = records.flush(number).ok()??;
        let remainder = Remainder::of(flush.target.parse().ok(), records.waited(&flush));
        Some(Followed { flush, remainder })
    }

    /// Takes note of one message of a listing.
    pub(crate) fn add(&mut self, message: &Message<'_>) {
        self.remainder.add(message);
    }

    /// The flush and its outcome, by a listing of `now`, of which so much was seen. An end that is on record stays,
    /// except that messages may have left the queue since.
    pub(crate) fn outcome(self, now: i64, seen: Seen) -> (Flush, Outcome) {
        let left = self.remainder.messages;
        let all_seen = seen == Seen::All;
        let so_far = self.remainder.outcome(now);
        let outcome = match self.flush.outcome.clone().filter(|outcome| outcome.settled) {
            Some(settled) if all_seen && left < settled.messages_left => Outcome { settled: true, ..so_far },
            Some(settled) => settled,
            // Where the listing is not whole, a message that was not seen may still wait.
            None => Outcome { settled: left == 0 && all_seen, ..so_far },
        };
        (self.flush, outcome)
    }
}

/// The outcome in a sentence. A message that left the queue was delivered, or it was returned to its sender; the queue
/// does not show which.
pub(crate) fn sentence(flush: &Flush, outcome: &Outcome) -> String {
    const GONE: &str = "gone from here: delivered, or returned to the sender";
    let left = outcome.messages_left;
    let why = if outcome.why.is_empty() { String::new() } else { format!(": {}", outcome.why) };
    let wait = if left == 1 { "waits" } else { "wait" };
    let gone = flush.messages.map(|all| all.saturating_sub(left));
    let are = if gone == Some(1) { "is" } else { "are" };
    match (flush.messages, gone.unwrap_or_default()) {
        (None, _) => format!("{left} of the messages from before still {wait}{why}"),
        (Some(0), _) => "nothing waited".into(),
        (Some(1), 1) => format!("it is {GONE}"),
        (Some(all), _) if left == 0 => format!("all {all} are {GONE}"),
        (Some(1), _) if outcome.settled => format!("it could not be delivered and still waits{why}"),
        (Some(all), 0) if outcome.settled => format!("none could be delivered; all {all} still wait{why}"),
        (Some(all), gone) if outcome.settled => format!("{gone} of {all} {are} {GONE}; {left} still {wait}{why}"),
        (Some(all), gone) => format!("{gone} of {all} so far; {left} still {wait}{why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::remainder::tests::message;
    use crate::queue::Target;
    use crate::state::Waited;

    fn flush(messages: Option<u64>) -> Flush {
        Flush {
            number: 1,
            started: 100,
            target: "all".into(),
            by: String::new(),
            messages,
            recipients: None,
            ..Flush::default()
        }
    }

    #[test]
    fn what_left_and_what_waits_is_said_with_the_reasons() {
        let outcome = Outcome {
            messages_left: 2,
            why: "1 because a mailbox was full, 1 is being tried".into(),
            ..Outcome::default()
        };
        assert_eq!(
            sentence(&flush(Some(40)), &outcome),
            "38 of 40 so far; 2 still wait: 1 because a mailbox was full, 1 is being tried"
        );
    }

    #[test]
    fn what_leaves_the_queue_after_the_end_of_a_flush_is_told_too() {
        let settled = Outcome { messages_left: 2, settled: true, ..Outcome::default() };
        let left = |ids: &[&str], seen| {
            let remainder = Remainder::of(Some(Target::All), Waited::Ids(["A".to_owned(), "B".to_owned()].into()));
            let flush = Flush { outcome: Some(settled.clone()), ..flush(Some(2)) };
            let mut followed = Followed { flush, remainder };
            ids.iter().for_each(|id| followed.add(&message(id, 1, &[])));
            followed.outcome(300, seen).1.messages_left
        };
        assert_eq!(left(&["A", "B"], Seen::All), 2);
        assert_eq!(left(&["B"], Seen::All), 1);
        assert_eq!(left(&[], Seen::All), 0);
        assert_eq!(left(&[], Seen::Part), 2, "an incomplete listing takes nothing back");
    }

    #[test]
    fn every_outcome_has_its_sentence() {
        let left = |messages_left, settled| Outcome { messages_left, settled, ..Outcome::default() };
        let gone = "gone from here: delivered, or returned to the sender";
        for (messages, outcome, expected) in [
            (Some(3), left(0, true), format!("all 3 are {gone}")),
            (Some(3), left(3, true), "none could be delivered; all 3 still wait".into()),
            (Some(3), left(3, false), "0 of 3 so far; 3 still wait".into()),
            (Some(3), left(2, true), format!("1 of 3 is {gone}; 2 still wait")),
            (Some(3), left(1, true), format!("2 of 3 are {gone}; 1 still waits")),
            (None, left(1, true), "1 of the messages from before still waits".into()),
            (Some(0), left(0, true), "nothing waited".into()),
            (Some(1), left(0, true), format!("it is {gone}")),
            (Some(1), left(1, true), "it could not be delivered and still waits".into()),
        ] {
            assert_eq!(sentence(&flush(messages), &outcome), expected);
        }
    }
}
