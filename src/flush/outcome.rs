//! What comes of a flush: which of the messages that waited then still wait, and why.

use std::collections::{HashMap, HashSet};

use crate::queue::{Cause, Message, State};
use crate::request::Target;
use crate::state::{Flush, Outcome, Records, Waited};

/// Different reasons that are counted one by one; further ones count as "other reasons".
const DISTINCT_LIMIT: usize = 64;

/// Reasons that are told.
const TOLD: usize = 3;

impl Waited {
    fn holds(&self, message: &Message<'_>) -> bool {
        match self {
            Waited::Ids(ids) => ids.contains(&*message.id),
            // What the server gives no arrival for can only be counted as having been there.
            Waited::By(instant) => message.arrival.is_none_or(|arrival| arrival <= *instant),
        }
    }
}

/// Counts what is left of a flush while a listing passes by. What came in after the flush was started
/// does not count.
pub struct Remainder {
    target: Option<Target>,
    waited: Waited,
    /// Messages that still wait.
    pub messages: u64,
    /// Recipients that still wait.
    pub recipients: u64,
    /// Of the messages, those that are held.
    pub held: u64,
    /// Of the messages, those that are being delivered now.
    pub in_delivery: u64,
    /// Messages by what keeps them.
    reasons: HashMap<String, u64>,
}

impl Remainder {
    /// Nothing counted yet.
    pub fn of(target: &str, waited: Waited) -> Remainder {
        Remainder {
            target: target.parse().ok(),
            waited,
            messages: 0,
            recipients: 0,
            held: 0,
            in_delivery: 0,
            reasons: HashMap::new(),
        }
    }

    /// Looks at one message. Returns whether it counts.
    pub fn add(&mut self, message: &Message<'_>) -> bool {
        let is_meant = self.target.as_ref().is_some_and(|target| target.holds(message));
        if !is_meant || !self.waited.holds(message) {
            return false;
        }
        self.messages += 1;
        self.held += u64::from(message.state == State::Held);
        self.in_delivery += u64::from(matches!(message.state, State::Active | State::Incoming));
        let mut reasons = HashSet::new();
        for recipient in message.recipients.iter().filter(|recipient| !recipient.delivered) {
            self.recipients += 1;
            if let Some(reason) = recipient.reason.as_deref() {
                reasons.insert(match Cause::of(reason) {
                    Some(cause) => cause.short(),
                    None => reason,
                });
            }
        }
        for reason in reasons {
            let known = self.reasons.contains_key(reason) || self.reasons.len() < DISTINCT_LIMIT;
            *self.reasons.entry(if known { reason } else { "other reasons" }.to_owned()).or_default() += 1;
        }
        true
    }

    /// Why they wait: `mailbox full (2), connection refused (1)`.
    pub fn why(&self) -> String {
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by(|(a_text, a), (b_text, b)| b.cmp(a).then_with(|| a_text.cmp(b_text)));
        let told: Vec<_> = reasons.iter().take(TOLD).map(|(text, count)| format!("{text} ({count})")).collect();
        let more: u64 = reasons.iter().skip(TOLD).map(|(_, count)| **count).sum();
        let more = (more > 0).then(|| format!("other reasons ({more})"));
        told.into_iter().chain(more).collect::<Vec<_>>().join(", ")
    }

    /// As it is put on record.
    pub fn outcome(&self, sampled: i64, settled: bool) -> Outcome {
        Outcome { sampled, messages_left: self.messages, recipients_left: self.recipients, why: self.why(), settled }
    }
}

/// A flush on record, looked at once more.
pub struct Followed {
    flush: Flush,
    remainder: Remainder,
}

impl Followed {
    /// The flush of this number, if it is on record.
    pub fn find(records: &Records, number: u64) -> Option<Followed> {
        let flush = records.flush(number).ok()??;
        let remainder = Remainder::of(&flush.target, records.waited(&flush));
        Some(Followed { flush, remainder })
    }

    /// Looks at one message of a listing.
    pub fn add(&mut self, message: &Message<'_>) {
        self.remainder.add(message);
    }

    /// The flush and what came of it, as a listing of `now` tells that may be `complete`. What is on record
    /// as its end stays so, but for what has left the queue since.
    pub fn outcome(self, now: i64, complete: bool) -> (Flush, Outcome) {
        let left = self.remainder.messages;
        let outcome = match self.flush.outcome.clone().filter(|outcome| outcome.settled) {
            Some(settled) if complete && left < settled.messages_left => self.remainder.outcome(now, true),
            Some(settled) => settled,
            // Where the queue could not be listed, that none of them was seen says nothing.
            None => self.remainder.outcome(now, left == 0 && complete),
        };
        (self.flush, outcome)
    }
}

/// The outcome in a sentence. A message that left the queue was delivered or returned to its sender;
/// which of the two, the queue can't tell.
pub fn sentence(flush: &Flush, outcome: &Outcome) -> String {
    let left = outcome.messages_left;
    let why = if outcome.why.is_empty() { String::new() } else { format!(": {}", outcome.why) };
    let wait = if left == 1 { "waits" } else { "wait" };
    match flush.messages {
        None => format!("{left} of the messages from before still {wait}{why}"),
        Some(0) => "nothing waited".into(),
        Some(1) if left == 0 => "it has left the queue".into(),
        Some(all) if left == 0 => format!("all {all} have left the queue"),
        Some(1) if outcome.settled => format!("nothing moved, it still waits{why}"),
        Some(all) if left >= all && outcome.settled => format!("nothing moved, all {all} still wait{why}"),
        Some(all) => format!("{} of {all} have left the queue, {left} still {wait}{why}", all.saturating_sub(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Recipient, State};

    fn message(id: &str, arrival: i64, reasons: &[&str]) -> Message<'static> {
        Message {
            id: id.to_owned().into(),
            state: State::Deferred,
            mta_state: "deferred".into(),
            size: None,
            arrival: Some(arrival),
            sender: None,
            recipients: reasons
                .iter()
                .map(|reason| Recipient {
                    address: "a@example.com".into(),
                    reason: Some(reason.to_string().into()),
                    delivered: false,
                })
                .collect(),
        }
    }

    fn flush(messages: Option<u64>) -> Flush {
        Flush {
            number: 1,
            started: 100,
            target: "all".into(),
            by: String::new(),
            messages,
            recipients: None,
            exit: None,
            outcome: None,
        }
    }

    #[test]
    fn only_what_was_there_counts_and_reasons_are_grouped() {
        let mut remainder = Remainder::of("all", Waited::By(100));
        remainder.add(&message("A", 50, &["x 452 4.2.2 over quota", "y: over quota"]));
        remainder.add(&message("B", 100, &["connect to [192.0.2.1]:25: Connection timed out"]));
        remainder.add(&message("C", 101, &["came in meanwhile"]));
        assert_eq!((remainder.messages, remainder.recipients), (2, 3));
        assert_eq!(remainder.why(), "connection timed out (1), mailbox full (1)", "messages, each once for a cause");
        let outcome = remainder.outcome(110, false);
        assert_eq!(
            sentence(&flush(Some(40)), &outcome),
            "38 of 40 have left the queue, 2 still wait: connection timed out (1), mailbox full (1)"
        );
    }

    #[test]
    fn ids_tell_better_than_times_what_was_there() {
        let mut remainder = Remainder::of("all", Waited::Ids(["A".to_owned(), "B".to_owned()].into()));
        let active = Message { state: State::Active, ..message("B", 200, &[]) };
        for message in [message("A", 200, &["x"]), active, message("C", 50, &["came in meanwhile"])] {
            remainder.add(&message);
        }
        assert_eq!((remainder.messages, remainder.recipients, remainder.in_delivery), (2, 1, 1));
        assert_eq!(remainder.why(), "x (1)");
    }

    #[test]
    fn what_leaves_the_queue_after_the_end_of_a_flush_is_told_too() {
        let settled = Outcome { messages_left: 2, settled: true, ..Outcome::default() };
        let left = |ids: &[&str], complete| {
            let remainder = Remainder::of("all", Waited::Ids(["A".to_owned(), "B".to_owned()].into()));
            let flush = Flush { outcome: Some(settled.clone()), ..flush(Some(2)) };
            let mut followed = Followed { flush, remainder };
            ids.iter().for_each(|id| followed.add(&message(id, 1, &[])));
            followed.outcome(300, complete).1.messages_left
        };
        assert_eq!(left(&["A", "B"], true), 2);
        assert_eq!(left(&["B"], true), 1);
        assert_eq!(left(&[], true), 0);
        assert_eq!(left(&[], false), 2, "an incomplete listing takes nothing back");
    }

    #[test]
    fn a_part_is_judged_by_itself() {
        let mut remainder = Remainder::of("id:B", Waited::By(100));
        remainder.add(&message("A", 50, &["x"]));
        remainder.add(&message("B", 50, &["y"]));
        assert_eq!((remainder.messages, remainder.why().as_str()), (1, "y (1)"));
        let mut remainder = Remainder::of("domain:example.org", Waited::By(100));
        remainder.add(&message("A", 50, &["x"]));
        assert_eq!(remainder.messages, 0);
    }

    #[test]
    fn every_outcome_has_its_sentence() {
        let left = |messages_left, settled| Outcome {
            sampled: 0,
            messages_left,
            recipients_left: 0,
            why: String::new(),
            settled,
        };
        assert_eq!(sentence(&flush(Some(3)), &left(0, true)), "all 3 have left the queue");
        assert_eq!(sentence(&flush(Some(3)), &left(3, true)), "nothing moved, all 3 still wait");
        assert_eq!(sentence(&flush(Some(3)), &left(3, false)), "0 of 3 have left the queue, 3 still wait");
        assert_eq!(sentence(&flush(None), &left(1, true)), "1 of the messages from before still waits");
        assert_eq!(sentence(&flush(Some(0)), &left(0, true)), "nothing waited");
        assert_eq!(sentence(&flush(Some(1)), &left(0, true)), "it has left the queue");
        assert_eq!(sentence(&flush(Some(1)), &left(1, true)), "nothing moved, it still waits");
    }

    #[test]
    fn many_different_reasons_take_bounded_memory() {
        let mut remainder = Remainder::of("all", Waited::By(100));
        for n in 0..1000 {
            remainder.add(&message("A", 1, &[&format!("reason {n}")]));
        }
        assert!(remainder.reasons.len() <= DISTINCT_LIMIT + 1);
        assert!(remainder.why().contains("other reasons (93"), "{}", remainder.why());
    }
}
