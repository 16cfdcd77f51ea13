//! What is left of a number of messages: counted while a listing passes by.

use std::collections::{HashMap, HashSet};

use crate::queue::{Cause, Message, State, Target};
use crate::state::{Outcome, Waited};

/// Different reasons that are counted one by one; further ones count together.
const DISTINCT_LIMIT: usize = 64;

/// Reasons that are named.
const NAMED: usize = 3;

/// What keeps a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Why {
    /// A cause that is known.
    Cause(Cause),
    /// A reason in the mail server's words.
    Words(String),
    /// It was tried so short a time ago that the run passed it over.
    TooYoung,
    /// One of many others.
    Other,
}

impl Why {
    fn of(reason: &str) -> Why {
        Cause::of(reason).map_or_else(|| Why::Words(reason.to_owned()), Why::Cause)
    }

    fn words(&self) -> String {
        match self {
            Why::Cause(cause) => cause.because().to_owned(),
            Why::Words(words) => format!("because of “{words}”"),
            Why::TooYoung => "passed over, as they were tried too short a time ago".to_owned(),
            Why::Other => "for other reasons".to_owned(),
        }
    }
}

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
pub(crate) struct Remainder {
    target: Option<Target>,
    waited: Waited,
    /// Messages that still wait.
    pub(crate) messages: u64,
    /// Recipients that still wait.
    pub(crate) recipients: u64,
    /// Of the messages, those that wait for an administrator.
    pub(crate) held: u64,
    /// Of the messages, those that the mail server says it returns to their senders.
    pub(crate) being_returned: u64,
    /// Of the messages, those that are being delivered now.
    pub(crate) in_delivery: u64,
    /// Messages by what keeps them.
    reasons: HashMap<Why, u64>,
}

impl Remainder {
    /// Nothing counted yet.
    pub(crate) fn of(target: Option<Target>, waited: Waited) -> Remainder {
        Remainder {
            target,
            waited,
            messages: 0,
            recipients: 0,
            held: 0,
            being_returned: 0,
            in_delivery: 0,
            reasons: HashMap::new(),
        }
    }

    /// Looks at one message. Returns whether it counts.
    pub(crate) fn add(&mut self, message: &Message<'_>) -> bool {
        let is_meant = self.target.as_ref().is_some_and(|target| target.holds(message));
        if !is_meant || !self.waited.holds(message) {
            return false;
        }
        self.messages += 1;
        self.held += u64::from(message.is_on_hold());
        self.being_returned += u64::from(message.being_returned);
        let is_tried = matches!(message.state, State::Active | State::Incoming);
        self.in_delivery += u64::from(is_tried);
        let mut reasons = HashSet::new();
        for recipient in message.recipients.iter().filter(|recipient| !recipient.delivered) {
            self.recipients += 1;
            // Of what is being tried, it is the reason of an earlier attempt.
            reasons.extend(recipient.reason.as_deref().filter(|_| !is_tried).map(Why::of));
        }
        if message.too_young {
            // It was not tried, whatever it waited for before.
            reasons = [Why::TooYoung].into();
        }
        for reason in reasons {
            let known = self.reasons.contains_key(&reason) || self.reasons.len() < DISTINCT_LIMIT;
            *self.reasons.entry(if known { reason } else { Why::Other }).or_default() += 1;
        }
        true
    }

    /// Why they wait: `2 because a mailbox was full, 1 because the connection was refused, 4 are being tried`.
    pub(crate) fn why(&self) -> String {
        let uncounted = self.reasons.get(&Why::Other).copied().unwrap_or_default();
        let named = self.reasons.iter().filter(|(why, _)| **why != Why::Other);
        let mut reasons: Vec<_> = named.map(|(why, count)| (why.words(), *count)).collect();
        reasons.sort_by(|(a_text, a), (b_text, b)| b.cmp(a).then_with(|| a_text.cmp(b_text)));
        let named = reasons.iter().take(NAMED).map(|(text, count)| format!("{count} {text}"));
        let more = reasons.iter().skip(NAMED).map(|(_, count)| count).sum::<u64>() + uncounted;
        let more = (more > 0).then(|| format!("{more} {}", Why::Other.words()));
        let tried = match self.in_delivery {
            0 => None,
            1 => Some("1 is being tried".to_owned()),
            several => Some(format!("{several} are being tried")),
        };
        named.chain(more).chain(tried).collect::<Vec<_>>().join(", ")
    }

    /// As it is put on record while the run may still go on.
    pub(crate) fn outcome(&self, sampled: i64) -> Outcome {
        let Remainder { messages, recipients, .. } = *self;
        Outcome { sampled, messages_left: messages, recipients_left: recipients, why: self.why(), ..Outcome::default() }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::queue::{Plan, Recipient};

    /// A deferred message, with a recipient for each of these reasons.
    pub(crate) fn message(id: &str, arrival: i64, reasons: &[&str]) -> Message<'static> {
        Message {
            id: id.to_owned().into(),
            state: State::Deferred,
            mta_state: "deferred".into(),
            being_returned: false,
            too_young: false,
            instance: None,
            size: None,
            arrival: Some(arrival),
            sender: None,
            recipients: reasons
                .iter()
                .map(|reason| Recipient {
                    address: "a@example.com".into(),
                    reason: Some(reason.to_string().into()),
                    delivered: false,
                    last_attempt: None,
                })
                .collect(),
            plan: Plan::default(),
        }
    }

    #[test]
    fn only_what_was_there_counts_and_reasons_are_grouped() {
        let mut remainder = Remainder::of(Some(Target::All), Waited::By(100));
        remainder.add(&message("A", 50, &["x 452 4.2.2 over quota", "y: over quota"]));
        remainder.add(&message("B", 100, &["connect to [192.0.2.1]:25: Connection timed out"]));
        remainder.add(&message("C", 101, &["came in meanwhile"]));
        assert_eq!((remainder.messages, remainder.recipients), (2, 3));
        assert_eq!(
            remainder.why(),
            "1 because a mailbox was full, 1 because the server did not answer in time",
            "messages, each once for a cause"
        );
    }

    #[test]
    fn ids_show_better_than_times_what_was_there() {
        let mut remainder = Remainder::of(Some(Target::All), Waited::Ids(["A".to_owned(), "B".to_owned()].into()));
        let active = Message { state: State::Active, ..message("B", 200, &["an earlier attempt's"]) };
        for message in [message("A", 200, &["x"]), active, message("C", 50, &["came in meanwhile"])] {
            remainder.add(&message);
        }
        assert_eq!((remainder.messages, remainder.recipients, remainder.in_delivery), (2, 2, 1));
        assert_eq!(remainder.why(), "1 because of “x”, 1 is being tried");
    }

    #[test]
    fn a_part_is_judged_by_itself() {
        let mut remainder = Remainder::of("id:B".parse().ok(), Waited::By(100));
        remainder.add(&message("A", 50, &["x"]));
        remainder.add(&message("B", 50, &["y"]));
        assert_eq!((remainder.messages, remainder.why().as_str()), (1, "1 because of “y”"));
        let mut remainder = Remainder::of("domain:example.org".parse().ok(), Waited::By(100));
        remainder.add(&message("A", 50, &["x"]));
        assert_eq!(remainder.messages, 0);
    }

    #[test]
    fn many_different_reasons_take_bounded_memory() {
        let mut remainder = Remainder::of(Some(Target::All), Waited::By(100));
        for n in 0..1000 {
            remainder.add(&message("A", 1, &[&format!("reason {n}")]));
        }
        assert!(remainder.reasons.len() <= DISTINCT_LIMIT + 1);
        assert!(remainder.why().ends_with(", 997 for other reasons"), "{}", remainder.why());
    }
}
