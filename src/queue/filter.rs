//! Which messages a reader asked to see.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Clocks, Due, Message, State};

/// The filters of a request; all that are set must hold. Text is compared without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// `q=`: text anywhere in the id, the sender, a recipient or a reason.
    pub(crate) text: Option<String>,
    /// `domain=`: the whole domain of a recipient.
    pub(crate) domain: Option<String>,
    /// `sender=`: text in the envelope sender; `<>` is the null sender.
    pub(crate) sender: Option<String>,
    /// `state=`.
    pub(crate) state: Option<State>,
    /// `reason=`: text in a recipient's reason.
    pub(crate) reason: Option<String>,
    /// `age=`: how long the message has waited.
    pub(crate) age: Option<Ages>,
    /// `returns=`: when it goes back to its sender.
    pub(crate) returns: Option<Due>,
}

/// A span of ages in minutes, such as `5-10` or `1280-`. It includes its first minute, but not its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ages {
    /// The least age, in whole minutes, from 0.
    pub(crate) from: i64,
    /// The age that is too old, in whole minutes, greater than `from`; `None` where no age is too old.
    pub(crate) to: Option<i64>,
}

impl Ages {
    fn hold(self, arrival: i64, now: i64) -> bool {
        let minutes = now.saturating_sub(arrival).max(0) / 60;
        self.from <= minutes && self.to.is_none_or(|to| minutes < to)
    }
}

impl FromStr for Ages {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (from, to) = text.split_once('-').ok_or(())?;
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| digits).ok_or(())
        };
        let ages = Ages { from: number(from)?, to: if to.is_empty() { None } else { Some(number(to)?) } };
        if ages.to.is_none_or(|to| ages.from < to) { Ok(ages) } else { Err(()) }
    }
}

impl fmt::Display for Ages {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}-", self.from)?;
        self.to.map_or(Ok(()), |end| write!(to, "{end}"))
    }
}

impl Filter {
    /// Whether every message passes.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// Whether the outcome depends on reasons.
    pub(crate) fn reads_reasons(&self) -> bool {
        self.reason.is_some() || self.text.is_some()
    }

    /// Whether the message passes all filters.
    pub fn matches(&self, message: &Message<'_>, clocks: &Clocks) -> bool {
        let Clocks { now, lifetimes } = clocks;
        self.age.is_none_or(|ages| message.arrival.is_some_and(|arrival| ages.hold(arrival, *now)))
            && self.returns.as_ref().is_none_or(|due| due.holds(lifetimes.returns(message), *now))
            && self.state.is_none_or(|state| state == message.state)
            && self
                .domain
                .as_deref()
                .is_none_or(|domain| message.recipients.iter().any(|r| r.domain().eq_ignore_ascii_case(domain)))
            && self.sender.as_deref().is_none_or(|wanted| sender_matches(message, wanted))
            && self.reason.as_deref().is_none_or(|text| reason_matches(message, text))
            && self.text.as_deref().is_none_or(|text| text_matches(message, text))
    }
}

fn sender_matches(message: &Message<'_>, wanted: &str) -> bool {
    match message.sender.as_deref() {
        Some("") => wanted == "<>",
        Some(sender) => contains(sender, wanted),
        None => false,
    }
}

fn reason_matches(message: &Message<'_>, text: &str) -> bool {
    message.recipients.iter().filter_map(|r| r.reason.as_deref()).any(|reason| contains(reason, text))
}

fn text_matches(message: &Message<'_>, text: &str) -> bool {
    contains(&message.id, text)
        || message.sender.as_deref().is_some_and(|sender| contains(sender, text))
        || message.recipients.iter().any(|r| contains(&r.address, text))
        || reason_matches(message, text)
}

/// Whether `text` contains `part`; letters of any script are compared without regard to case.
fn contains(text: &str, part: &str) -> bool {
    if text.is_ascii() && part.is_ascii() {
        let (text, part) = (text.as_bytes(), part.as_bytes());
        return part.is_empty() || text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part));
    }
    text.to_lowercase().contains(&part.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Plan, Recipient};

    fn message() -> Message<'static> {
        Message {
            id: "4F1A".into(),
            state: State::Deferred,
            mta_state: "deferred".into(),
            being_returned: false,
            too_young: false,
            instance: None,
            size: Some(1),
            arrival: None,
            sender: Some("Dürer@example.org".into()),
            recipients: vec![Recipient {
                address: "larry@Example.com".into(),
                reason: Some("Connection refused".into()),
                delivered: false,
                last_attempt: None,
            }],
            plan: Plan::default(),
        }
    }

    fn with(set: impl FnOnce(&mut Filter)) -> bool {
        let mut filter = Filter::default();
        set(&mut filter);
        filter.matches(&message(), &Clocks::from(0))
    }

    #[test]
    fn each_filter_looks_at_its_own_field_alone() {
        assert!(with(|f| f.text = Some("REFUSED".into())));
        assert!(with(|f| f.text = Some("4f1a".into())));
        assert!(with(|f| f.text = Some("DÜRER".into())));
        assert!(!with(|f| f.text = Some("moe".into())));
        assert!(with(|f| f.domain = Some("example.COM".into())));
        assert!(!with(|f| f.domain = Some("ample.com".into())), "a part of a domain is another domain");
        assert!(with(|f| f.sender = Some("example.org".into())));
        assert!(!with(|f| f.sender = Some("<>".into())));
        assert!(with(|f| f.state = Some(State::Deferred)));
        assert!(!with(|f| f.state = Some(State::Held)));
        assert!(with(|f| f.reason = Some("connection".into())));
        assert!(!with(|f| f.reason = Some("larry".into())));
    }

    #[test]
    fn the_null_sender_is_asked_for_with_empty_angle_brackets() {
        let null = Message { sender: Some("".into()), ..message() };
        let filter = Filter { sender: Some("<>".into()), ..Filter::default() };
        assert!(filter.matches(&null, &Clocks::from(0)));
        assert!(!filter.matches(&message(), &Clocks::from(0)));
    }

    #[test]
    fn ages_are_spans_of_minutes() {
        let ages = |text: &str| text.parse::<Ages>();
        let waits = |text: &str, seconds: i64| {
            let filter = Filter { age: Some(ages(text).unwrap()), ..Filter::default() };
            filter.matches(&Message { arrival: Some(1000), ..message() }, &Clocks::from(1000 + seconds))
        };
        assert!(waits("5-10", 300) && waits("5-10", 599) && !waits("5-10", 299) && !waits("5-10", 600));
        assert!(waits("1280-", 1280 * 60) && !waits("1280-", 0) && waits("0-5", -60));
        let unknown = Filter { age: Some(ages("0-").unwrap()), ..Filter::default() };
        assert!(!unknown.matches(&message(), &Clocks::from(0)), "a message without an arrival has no age");
        for text in ["", "-", "5", "-5", "10-5", "5-5", "a-b", "+1-2", "1--2", "99999999999999999999-"] {
            assert_eq!(ages(text), Err(()), "{text}");
        }
        assert_eq!([ages("5-10"), ages("1280-")].map(|ages| ages.unwrap().to_string()), ["5-10", "1280-"]);
    }
}
