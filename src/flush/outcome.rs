//! The outcome of a queue run, by which of its messages a listing still holds.

use crate::listing::remainder::Remainder;
use crate::queue::Message;
use crate::state::{Flush, Outcome, Pace, Records, SentBack, Tally};
use crate::text::{count, duration, short};

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
        let outcome = match self.flush.outcome.clone() {
            Some(settled) if settled.settled && all_seen && left < settled.messages_left => Outcome {
                settled: true,
                left_later: settled.recipients_left.saturating_sub(so_far.recipients_left),
                tally: settled.tally,
                ..so_far
            },
            Some(settled) if settled.settled => settled,
            // Where the listing is not whole, a message that was not seen may still wait.
            last => {
                let settled = left == 0 && all_seen;
                let pace = last.filter(|last| !settled && now - last.sampled <= FRESH).and_then(|last| last.pace);
                Outcome { settled, pace, ..so_far }
            }
        };
        (self.flush, outcome)
    }
}

/// How long a pace that was measured is shown, in seconds.
const FRESH: i64 = 60;

/// The outcome in a sentence. Where the mail log was read, it says what became of each recipient. Without it, a message
/// that left the queue was delivered, or it was returned to its sender; the queue does not show which.
pub(crate) fn sentence(flush: &Flush, outcome: &Outcome) -> String {
    const GONE: &str = "gone from here: delivered, or returned to the sender";
    let left = outcome.messages_left;
    let why = if outcome.why.is_empty() { String::new() } else { format!(": {}", outcome.why) };
    if flush.restarted {
        return restarted(flush, left, &why);
    }
    if let Some(tally) = outcome.tally.as_ref().filter(|tally| tally.left() > 0) {
        return by_log(flush, outcome, tally, &why);
    }
    let wait = if left == 1 { "waits" } else { "wait" };
    let gone = flush.messages.map(|all| all.saturating_sub(left));
    let are = if gone == Some(1) { "is" } else { "are" };
    let recipients = flush.recipients.unwrap_or_default();
    let recipients_gone = recipients.saturating_sub(outcome.recipients_left);
    match (flush.messages, gone.unwrap_or_default()) {
        (None, _) => format!("{left} of the messages from before still {wait}{why}"),
        (Some(0), _) => "nothing waited".into(),
        (Some(1), 1) => format!("it is {GONE}"),
        (Some(all), _) if left == 0 => format!("all {all} are {GONE}"),
        (Some(all), 0) if outcome.settled && recipients_gone > 0 => {
            let are = if recipients_gone == 1 { "is" } else { "are" };
            let (messages, wait) = if all == 1 { ("message", "waits") } else { ("messages", "wait") };
            format!("{recipients_gone} of {recipients} recipients {are} {GONE}; {all} {messages} still {wait}{why}")
        }
        (Some(1), _) if outcome.settled => format!("it could not be delivered and still waits{why}"),
        (Some(all), 0) if outcome.settled => format!("none could be delivered; all {all} still wait{why}"),
        (Some(all), gone) if outcome.settled => format!("{gone} of {all} {are} {GONE}; {left} still {wait}{why}"),
        (Some(all), gone) => format!("{gone} of {all} so far; {left} still {wait}{why}"),
    }
}

/// What is known of a run in the middle of which the machine was restarted.
fn restarted(flush: &Flush, left: u64, why: &str) -> String {
    let all = flush.messages.map(|all| format!(" of {all}")).unwrap_or_default();
    let wait = if left == 1 { "waits" } else { "wait" };
    format!(
        "this machine was restarted in the middle of it, so what it delivered is not known; {left}{all} still {wait}{why}"
    )
}

/// `38 delivered, 2 returned to the sender (550 5.1.1 unknown user), 3 still waiting`: recipients.
fn by_log(flush: &Flush, outcome: &Outcome, tally: &Tally, why: &str) -> String {
    let Tally { delivered, returned, double_bounces, unrecorded, not_looked_up, reason, .. } = tally;
    let reason = if reason.is_empty() { String::new() } else { format!(" ({})", short(reason)) };
    let parts = [
        (*delivered, format!("{delivered} delivered")),
        (*returned, format!("{returned} returned to the sender{reason}")),
        (*double_bounces, format!("{double_bounces} refused for good, with no sender to return to")),
        (*unrecorded, format!("{unrecorded} left without a record in the mail log")),
        (*not_looked_up, format!("{not_looked_up} left, but not all was looked up in the mail log")),
        (outcome.left_later, format!("{} left later", outcome.left_later)),
        (outcome.recipients_left, format!("{} still waiting{why}", outcome.recipients_left)),
    ];
    let parts: Vec<_> = parts.into_iter().filter(|(count, _)| *count > 0).map(|(_, words)| words).collect();
    let several = flush.recipients.filter(|_| flush.messages != flush.recipients);
    let of = several.map(|recipients| format!("of {recipients} recipients: ")).unwrap_or_default();
    format!("{of}{}", parts.join(", "))
}

/// A line for each recipient whose mail went back, with the reason, and one for those that are not listed.
pub(crate) fn sent_back(tally: &Tally) -> Vec<String> {
    let line = |one: &SentBack| {
        let why = if one.reason.is_empty() { String::new() } else { format!(": {}", one.reason) };
        format!("returned to the sender: {}, for {}{why}", one.id, one.recipient)
    };
    let mut lines: Vec<_> = tally.sent_back.iter().map(line).collect();
    let unlisted = tally.unlisted();
    if unlisted > 0 && !lines.is_empty() {
        lines.push(format!("and {}", count(unlisted, "other", "others")));
    }
    lines
}

/// How fast a run goes and when it is done, for who reads it at `now`, in seconds since 1970:
/// `30 recipients a minute, done in about 4 minutes`.
pub(crate) fn pace(pace: Pace, now: i64) -> String {
    let Pace { per_minute, fastest, done_about } = pace;
    if per_minute == 0 {
        return "nothing has left within the last minute".into();
    }
    let recipients = if per_minute == 1 { "recipient" } else { "recipients" };
    let done = done_about.map(|at| format!(", done in about {}", duration(at.saturating_sub(now).max(1))));
    let slower =
        if pace.is_slower() { format!("; it has become slower, from {fastest} a minute") } else { String::new() };
    format!("{per_minute} {recipients} a minute{}{slower}", done.unwrap_or_default())
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
    fn what_leaves_the_queue_after_the_end_of_a_flush_is_counted_too() {
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
        let remainder = Remainder::of(Some(Target::All), Waited::Ids(["A".to_owned(), "B".to_owned()].into()));
        let tally = Some(Tally { delivered: 38, ..Tally::default() });
        let settled = Outcome { recipients_left: 2, tally: tally.clone(), ..settled.clone() };
        let mut followed = Followed { flush: Flush { outcome: Some(settled), ..flush(Some(40)) }, remainder };
        followed.add(&message("A", 1, &["x"]));
        let outcome = followed.outcome(300, Seen::All).1;
        assert_eq!((outcome.tally, outcome.left_later, outcome.recipients_left), (tally, 1, 1));
    }

    #[test]
    fn the_log_says_who_got_the_mail() {
        let tally = |delivered, returned, unrecorded, reason: &str| {
            Some(Tally { delivered, returned, unrecorded, reason: reason.into(), ..Tally::default() })
        };
        let of = |recipients| Flush { recipients: Some(recipients), ..flush(Some(43)) };
        let outcome = |tally, recipients_left, left_later| Outcome {
            settled: true,
            messages_left: recipients_left,
            recipients_left,
            left_later,
            tally,
            ..Outcome::default()
        };
        for (flush, outcome, expected) in [
            (
                of(43),
                outcome(tally(38, 2, 0, "550 5.1.1 unknown user"), 3, 0),
                "38 delivered, 2 returned to the sender (550 5.1.1 unknown user), 3 still waiting",
            ),
            (of(43), outcome(tally(43, 0, 0, ""), 0, 0), "43 delivered"),
            (of(43), outcome(tally(0, 43, 0, ""), 0, 0), "43 returned to the sender"),
            (
                of(50),
                outcome(tally(40, 0, 1, ""), 9, 0),
                "of 50 recipients: 40 delivered, 1 left without a record in the mail log, 9 still waiting",
            ),
            (of(43), outcome(tally(38, 0, 0, ""), 3, 2), "38 delivered, 2 left later, 3 still waiting"),
            (
                of(43),
                outcome(Some(Tally { delivered: 40, double_bounces: 1, not_looked_up: 2, ..Tally::default() }), 0, 0),
                "40 delivered, 1 refused for good, with no sender to return to, 2 left, but not all was looked up in \
                 the mail log",
            ),
            (of(43), outcome(tally(0, 0, 0, ""), 43, 0), "none could be delivered; all 43 still wait"),
            // Without a log nothing is called delivered.
            (of(43), outcome(None, 0, 0), "all 43 are gone from here: delivered, or returned to the sender"),
            (
                of(50),
                outcome(None, 43, 0),
                "7 of 50 recipients are gone from here: delivered, or returned to the sender; 43 messages still wait",
            ),
        ] {
            assert_eq!(sentence(&flush, &outcome), expected);
        }
        let restarted = Flush { restarted: true, ..of(43) };
        assert_eq!(
            sentence(&restarted, &outcome(None, 1, 0)),
            "this machine was restarted in the middle of it, so what it delivered is not known; 1 of 43 still waits"
        );
    }

    #[test]
    fn the_pace_says_when_it_is_done_and_that_it_became_slower() {
        let at = |per_minute, fastest, done_about| pace(Pace { per_minute, fastest, done_about }, 1000);
        assert_eq!(at(30, 40, Some(1250)), "30 recipients a minute, done in about 4 minutes");
        assert_eq!(
            at(1, 40, Some(1020)),
            "1 recipient a minute, done in about 20 seconds; it has become slower, from 40 a minute"
        );
        assert_eq!(at(0, 40, None), "nothing has left within the last minute");
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
