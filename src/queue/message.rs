//! A queued message as every mail server has it: its state, its recipients, and the words for its instants.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};

/// Where a message stands, in words that all mail servers share. The server's own word is kept
/// beside it in [`Message::mta_state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Just arrived, not yet looked at by the queue manager (Postfix: `maildrop`, `incoming`).
    Incoming,
    /// Being delivered now.
    Active,
    /// At least one attempt failed; the next one is scheduled.
    Deferred,
    /// Waits for an administrator (Postfix hold, Exim frozen, sendmail quarantined).
    Held,
}

impl State {
    /// Every state, in the order in which a message passes through them.
    pub const ALL: [State; 4] = [State::Incoming, State::Active, State::Deferred, State::Held];

    /// The word used in requests and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Incoming => "incoming",
            State::Active => "active",
            State::Deferred => "deferred",
            State::Held => "held",
        }
    }

    /// The state that a request names, or `None` if it is no state.
    pub fn from_word(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// One message that waits in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message<'a> {
    /// The queue id, unique among the messages that wait at one time.
    pub id: Cow<'a, str>,
    /// Where it stands.
    pub state: State,
    /// The mail server's own word or mark for the state.
    pub mta_state: Cow<'a, str>,
    /// Size in bytes as the server gives it; `None` where it gives none.
    pub size: Option<u64>,
    /// When it came in, in seconds since 1970-01-01T00:00:00Z; `None` where the server does not tell.
    #[serde(serialize_with = "serialize_instant", skip_deserializing)]
    pub arrival: Option<i64>,
    /// The envelope sender; empty for the null sender (RFC 5321, section 4.5.5), `None` where the
    /// server does not tell. Text that the server cut short ends in `…`.
    pub sender: Option<Cow<'a, str>>,
    /// The envelope recipients in the server's order.
    pub recipients: Vec<Recipient<'a>>,
}

/// One envelope recipient of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient<'a> {
    /// The address, without angle brackets. Text that the server cut short ends in `…`.
    pub address: Cow<'a, str>,
    /// Why it still waits, in the server's words; `None` where the server does not tell.
    pub reason: Option<Cow<'a, str>>,
    /// Whether this recipient has its copy already (Exim lists such recipients too).
    pub delivered: bool,
}

impl Message<'_> {
    /// The same message, independent of the text it was read from.
    pub fn into_owned(self) -> Message<'static> {
        Message {
            id: own(self.id),
            state: self.state,
            mta_state: own(self.mta_state),
            size: self.size,
            arrival: self.arrival,
            sender: self.sender.map(own),
            recipients: self.recipients.into_iter().map(Recipient::into_owned).collect(),
        }
    }
}

impl Recipient<'_> {
    /// The same recipient, independent of the text it was read from.
    pub fn into_owned(self) -> Recipient<'static> {
        Recipient { address: own(self.address), reason: self.reason.map(own), delivered: self.delivered }
    }

    /// The domain this recipient's mail goes to, see [`domain_of`].
    pub fn domain(&self) -> &str {
        domain_of(&self.address)
    }
}

fn own(text: Cow<'_, str>) -> Cow<'static, str> {
    Cow::Owned(text.into_owned())
}

/// The domain of an address: what stands behind its last `@` (a local part may hold one in quotes,
/// a domain can't: RFC 5321, section 4.1.2). `…` where the server cut the address before its domain,
/// empty for a local name without a domain.
pub fn domain_of(address: &str) -> &str {
    match address.rfind('@') {
        Some(at) if !address[at + 1..].contains('"') => &address[at + 1..],
        _ if address.ends_with('…') => "…",
        _ => "",
    }
}

/// The beginning of a text: so many bytes at the most, and whole characters.
pub fn beginning(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or_default()]
}

/// An instant in seconds since 1970 as RFC 3339 text in UTC, `None` outside the years -9999 to 9999.
pub fn rfc3339(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|instant| instant.to_string())
}

/// An instant that may not be known, as [`rfc3339`] writes it.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_instant<S: Serializer>(instant: &Option<i64>, to: S) -> Result<S::Ok, S::Error> {
    match instant.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()) {
        Some(instant) => to.collect_str(&instant),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(State::from_word(state.as_str()), Some(state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(State::from_word("bogus"), None);
    }
}
