//! What comes of a flush: which of the messages that waited then still wait, and why.

use std::collections::HashMap;

use crate::queue::{Cause, Message};
use crate::request::Target;
use crate::store::{Flush, Outcome};

/// Different reasons that are counted one by one; further ones count as "other reasons".
const DISTINCT_LIMIT: usize = 64;

/// Reasons that are told.
const TOLD: usize = 3;

/// Counts what is left of a flush while a listing passes by. What came in after the flush was started
/// does not count.
pub struct Remainder {
    target: Option<Target>,
    started: i64,
    /// Messages that still wait.
    pub messages: u64,
    /// Recipients that still wait.
    pub recipients: u64,
    reasons: HashMap<String, u64>,
}

impl Remainder {
    /// Nothing counted yet.
    pub fn of(target: &str, started: i64) -> Remainder {
        Remainder { target: target.parse().ok(), started, messages: 0, recipients: 0, reasons: HashMap::new() }
    }

    /// Looks at one message.
    pub fn add(&mut self, message: &Message<'_>) {
        let is_meant = self.target.as_ref().is_some_and(|target| target.holds(message));
        // What the server gives no arrival for can only be counted as having been there.
        if !is_meant || message.arrival.is_some_and(|arrival| arrival > self.started) {
            return;
        }
        self.messages += 1;
        for recipient in message.recipients.iter().filter(|recipient| !recipient.delivered) {
            self.recipients += 1;
            let Some(reason) = recipient.reason.as_deref() else { continue };
            let reason = match Cause::of(reason) {
                Some(cause) => cause.short(),
                None => reason,
            };
            let known = self.reasons.contains_key(reason) || self.reasons.len() < DISTINCT_LIMIT;
            *self.reasons.entry(if known { reason } else { "other reasons" }.to_owned()).or_default() += 1;
        }
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

/// The outcome in a sentence. A message that left the queue was delivered or returned to its sender;
/// which of the two, the queue can't tell.
pub fn sentence(flush: &Flush, outcome: &Outcome) -> String {
    let left = outcome.messages_left;
    let why = if outcome.why.is_empty() { String::new() } else { format!(": {}", outcome.why) };
    let wait = if left == 1 { "waits" } else { "wait" };
    match flush.messages {
        None => format!("{left} of the messages from before still {wait}{why}"),
        Some(0) => "nothing waited".into(),
        Some(all) if left == 0 => format!("all {all} have left the queue"),
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
        let mut remainder = Remainder::of("all", 100);
        remainder.add(&message("A", 50, &["x 452 4.2.2 over quota", "y: over quota"]));
        remainder.add(&message("B", 100, &["connect to [192.0.2.1]:25: Connection timed out"]));
        remainder.add(&message("C", 101, &["came in meanwhile"]));
        assert_eq!((remainder.messages, remainder.recipients), (2, 3));
        assert_eq!(remainder.why(), "mailbox full (2), connection timed out (1)");
        let outcome = remainder.outcome(110, false);
        assert_eq!(
            sentence(&flush(Some(40)), &outcome),
            "38 of 40 have left the queue, 2 still wait: mailbox full (2), connection timed out (1)"
        );
    }

    #[test]
    fn a_part_is_judged_by_itself() {
        let mut remainder = Remainder::of("id:B", 100);
        remainder.add(&message("A", 50, &["x"]));
        remainder.add(&message("B", 50, &["y"]));
        assert_eq!((remainder.messages, remainder.why().as_str()), (1, "y (1)"));
        let mut remainder = Remainder::of("domain:example.org", 100);
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
    }

    #[test]
    fn many_different_reasons_take_bounded_memory() {
        let mut remainder = Remainder::of("all", 100);
        (0..1000).for_each(|n| remainder.add(&message("A", 1, &[&format!("reason {n}")])));
        assert!(remainder.reasons.len() <= DISTINCT_LIMIT + 1);
        assert!(remainder.why().contains("other reasons (93"), "{}", remainder.why());
    }
}
