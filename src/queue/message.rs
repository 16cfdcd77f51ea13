//! A queued message as every mail server has it: its state, its recipients, and the words for its instants.

use std::borrow::Cow;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The state of a message, in words that all mail servers share. The server's own word is kept
/// beside it in [`Message::mta_state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has just arrived; the queue manager has not looked at it yet (Postfix: `maildrop`, `incoming`).
    Incoming,
    /// It is being delivered now.
    Active,
    /// At least one attempt failed; the next one is scheduled.
    Deferred,
    /// It waits for an administrator (Postfix hold, Exim frozen, sendmail quarantined).
    Held,
}

impl State {
    /// Every state, in the order in which a message passes through them.
    pub const ALL: [State; 4] = [State::Incoming, State::Active, State::Deferred, State::Held];

    /// The word used in requests and in JSON.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Incoming => "incoming",
            State::Active => "active",
            State::Deferred => "deferred",
            State::Held => "held",
        }
    }
}

/// One message that waits in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<'a> {
    /// The queue id, unique among the messages that wait at one time.
    pub id: Cow<'a, str>,
    /// Its state.
    pub(crate) state: State,
    /// The mail server's own word or mark for the state.
    pub mta_state: Cow<'a, str>,
    /// Size in bytes as the server gives it; `None` where it gives none.
    pub size: Option<u64>,
    /// When it came in, in seconds since 1970-01-01T00:00:00Z; `None` where the server does not give it.
    #[serde(serialize_with = "serialize_instant", deserialize_with = "deserialize_instant")]
    pub(crate) arrival: Option<i64>,
    /// The envelope sender; empty for the null sender (RFC 5321, section 4.5.5), `None` where the
    /// server does not give it. Text that the server cut short ends in `…`.
    pub sender: Option<Cow<'a, str>>,
    /// The envelope recipients in the server's order.
    pub recipients: Vec<Recipient<'a>>,
    /// Whether the server says that it returns the message to its sender, now or at the next attempt.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) being_returned: bool,
    /// Whether it was tried so short a time ago that the server's queue runs pass it over (sendmail's `MinQueueAge`).
    #[serde(skip)]
    pub(crate) too_young: bool,
    /// Which of several instances of the mail server has it, by the instance's name; `None` where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<Cow<'a, str>>,
    /// What is to become of it.
    #[serde(default, skip_serializing_if = "Plan::is_unknown")]
    pub plan: Plan,
}

/// What is to become of a message, as far as its listing says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// How often it was tried; `None` where the server does not give it.
    pub attempts: Option<u64>,
    /// When it is tried next, in seconds since 1970; `None` where the server does not give it. It may lie in the past:
    /// then it is due.
    pub next_attempt: Option<i64>,
    /// Whether the server holds it back for now, and may return it as soon as it does so no longer.
    pub(crate) held_back: bool,
    /// Whether only some of its recipients are held, so that the others may go back.
    pub(crate) partly_held: bool,
}

impl Plan {
    fn is_unknown(&self) -> bool {
        *self == Plan::default()
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// One envelope recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient<'a> {
    /// The address, without angle brackets. Text that the server cut short ends in `…`.
    pub address: Cow<'a, str>,
    /// Why it still waits, in the server's words; `None` where the server does not give it.
    pub reason: Option<Cow<'a, str>>,
    /// Whether the server has no more to do for this recipient: its copy was delivered, or was refused for good (Exim
    /// lists such recipients too).
    pub delivered: bool,
    /// When the attempt that the reason is of ended, in seconds since 1970; `None` where the server does not say.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "serialize_instant",
        deserialize_with = "deserialize_instant"
    )]
    pub(crate) last_attempt: Option<i64>,
}

impl Message<'_> {
    /// Whether it waits for an administrator, so that a run should pass it over: what the server itself holds back for now
    /// does not.
    pub(crate) fn is_on_hold(&self) -> bool {
        self.state == State::Held && !self.plan.held_back
    }

    /// The same message, independent of the text it was read from.
    pub fn into_owned(self) -> Message<'static> {
        Message {
            id: own(self.id),
            state: self.state,
            mta_state: own(self.mta_state),
            being_returned: self.being_returned,
            too_young: self.too_young,
            instance: self.instance.map(own),
            size: self.size,
            arrival: self.arrival,
            sender: self.sender.map(own),
            recipients: self.recipients.into_iter().map(Recipient::into_owned).collect(),
            plan: self.plan,
        }
    }
}

impl Recipient<'_> {
    /// The same recipient, independent of the text it was read from.
    pub(crate) fn into_owned(self) -> Recipient<'static> {
        Recipient {
            address: own(self.address),
            reason: self.reason.map(own),
            delivered: self.delivered,
            last_attempt: self.last_attempt,
        }
    }

    /// The domain that this recipient's mail goes to, as `domain_of` has it.
    pub(crate) fn domain(&self) -> &str {
        domain_of(&self.address)
    }
}

fn own(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

/// The domain of an address, which begins after its last `@` (a local part may hold one in quotes, a domain can't:
/// RFC 5321, section 4.1.2). It is `…` where the server cut the address before its domain, and empty for a local name
/// without a domain.
fn domain_of(address: &str) -> &str {
    match memchr::memrchr(b'@', address.as_bytes()) {
        Some(at) if !address[at + 1..].contains('"') => &address[at + 1..],
        _ if address.ends_with('…') => "…",
        _ => "",
    }
}

/// The beginning of a text: at most `longest` bytes, and only whole characters.
pub(crate) fn beginning(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

/// An instant in seconds since 1970 as RFC 3339 text in UTC, `None` outside the years -9999 to 9999.
pub(crate) fn rfc3339(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|instant| instant.to_string())
}

/// Writes an instant that may not be known as `rfc3339` does, or as null.
///
/// # Errors
/// Those of the serializer.
fn serialize_instant<S: Serializer>(instant: &Option<i64>, to: S) -> Result<S::Ok, S::Error> {
    match instant.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()) {
        Some(instant) => to.collect_str(&instant),
        None => to.serialize_none(),
    }
}

/// Reads an instant as `serialize_instant` writes it: in seconds since 1970, or `None` where it was not known or lay
/// outside the years -9999 to 9999.
///
/// # Errors
/// Those of the deserializer, and that the text is no instant of RFC 3339.
fn deserialize_instant<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let text: Option<Cow<'_, str>> = Option::deserialize(from)?;
    let instant = |text: Cow<'_, str>| text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_second);
    text.map(instant).transpose().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(arrival: Option<i64>) -> Message<'static> {
        Message {
            id: "4F1A".into(),
            state: State::Held,
            mta_state: "hold\u{0}\n\u{202e}".into(),
            being_returned: true,
            too_young: false,
            instance: Some("postfix-out".into()),
            size: None,
            arrival,
            sender: Some("".into()),
            recipients: vec![
                Recipient {
                    address: "larry@example.com".into(),
                    reason: Some("“no”\t\\".into()),
                    delivered: true,
                    last_attempt: Some(1_795_434_300),
                },
                Recipient { address: "moe@example.com".into(), reason: None, delivered: false, last_attempt: None },
            ],
            plan: Plan { attempts: Some(3), next_attempt: Some(7), held_back: true, partly_held: true },
        }
    }

    #[test]
    fn a_message_is_the_same_after_it_was_sent_to_another_process() {
        for arrival in [None, Some(0), Some(-1), Some(1_795_434_300), Some(253_402_207_200), Some(-377_705_023_201)] {
            let text = serde_json::to_string(&message(arrival)).unwrap();
            assert_eq!(serde_json::from_str::<Message<'static>>(&text).unwrap(), message(arrival), "{text}");
        }
    }

    #[test]
    fn an_arrival_that_no_calendar_has_is_not_known_on_the_other_side() {
        for arrival in [i64::MIN, i64::MAX] {
            let text = serde_json::to_string(&message(Some(arrival))).unwrap();
            assert_eq!(serde_json::from_str::<Message<'static>>(&text).unwrap(), message(None));
        }
    }

    #[test]
    fn an_arrival_that_is_no_instant_is_an_error() {
        let text = serde_json::to_string(&message(Some(0))).unwrap();
        for wrong in ["\"yesterday\"", "\"\"", "0", "\"1970-01-01\""] {
            let wrong = text.replace("\"1970-01-01T00:00:00Z\"", wrong);
            assert!(serde_json::from_str::<Message<'static>>(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_domain_is_behind_the_last_at_sign() {
        assert_eq!(domain_of("larry@example.com"), "example.com");
        assert_eq!(domain_of(r#""a@b c"@example.com"#), "example.com");
        assert_eq!(domain_of("root"), "");
        assert_eq!(domain_of("x@example.c…"), "example.c…");
        assert_eq!(domain_of("a-very-long-local-part…"), "…");
        assert_eq!(domain_of(r#""cut@inside the quo"…"#), "…");
        assert_eq!(domain_of(""), "");
    }

    #[test]
    fn the_beginning_of_a_text_is_text() {
        let beginnings = [0, 1, 2, 3, 4, 9].map(|longest| beginning("aéz", longest));
        assert_eq!(beginnings, ["", "a", "a", "aé", "aéz", "aéz"]);
    }

    #[test]
    fn states_have_the_words_of_requests() {
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(serde_json::from_value::<State>(state.as_str().into()).unwrap(), state);
        }
        assert!(serde_json::from_value::<State>("bogus".into()).is_err());
    }
}
