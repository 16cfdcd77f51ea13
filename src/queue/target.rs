//! The part of a queue that a flush is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Message;

/// The messages that a flush is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The whole queue.
    All,
    /// The messages for one domain.
    Domain(String),
    /// One message, by its queue id.
    Id(String),
}

impl Target {
    /// Whether the message belongs to this part of the queue.
    pub(crate) fn holds(&self, message: &Message<'_>) -> bool {
        match self {
            Target::All => true,
            Target::Id(id) => *id == message.id,
            Target::Domain(name) => message.recipients.iter().any(|r| r.domain().eq_ignore_ascii_case(name)),
        }
    }

    /// Whether the name or id may be used in a command: nothing in it can be mistaken for an option, a pattern, or two
    /// words.
    pub(crate) fn is_plain(&self) -> bool {
        let is_plain = |word: &str| {
            !word.starts_with('-') && word.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
        };
        match self {
            Target::All => true,
            Target::Domain(word) | Target::Id(word) => is_plain(word),
        }
    }
}

/// Against what a queue run was asked for all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Despite {
    /// The primary refuses what waits.
    Refusals,
    /// Messages have waited for longer than the mail server keeps them, and the primary does not accept them now.
    Overdue,
}

impl Despite {
    /// Every one.
    pub(crate) const ALL: [Despite; 2] = [Despite::Refusals, Despite::Overdue];

    /// The word for `despite=`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Despite::Refusals => "refusals",
            Despite::Overdue => "overdue",
        }
    }
}

impl FromStr for Target {
    type Err = ();

    /// Reads the value of `flush`: nothing or `all`, `domain:NAME`, `id:ID`.
    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once(':') {
            None if text.is_empty() || text == "all" => Ok(Target::All),
            Some(("domain", name)) if !name.is_empty() => Ok(Target::Domain(name.to_ascii_lowercase())),
            Some(("id", id)) if !id.is_empty() => Ok(Target::Id(id.to_owned())),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::All => write!(to, "all"),
            Target::Domain(name) => write!(to, "domain:{name}"),
            Target::Id(id) => write!(to, "id:{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Recipient, State};

    #[test]
    fn the_words_of_a_target_are_read_as_they_are_written() {
        for word in ["all", "domain:example.com", "id:4F1A", "id:domain:x"] {
            assert_eq!(word.parse::<Target>().unwrap().to_string(), word);
        }
        assert_eq!("".parse(), Ok(Target::All));
        assert_eq!("domain:Example.COM".parse(), Ok(Target::Domain("example.com".into())));
        for word in ["id:", "domain:", "yes", ":", "All"] {
            assert_eq!(word.parse::<Target>(), Err(()), "{word}");
        }
    }

    #[test]
    fn no_name_that_a_command_could_take_for_something_else_is_plain() {
        let plain = |word: &str| [Target::Domain(word.into()), Target::Id(word.into())].map(|target| target.is_plain());
        for word in ["example.com", "4F1A", "1xVSDK-0002Gk-2p", "a_b", "müller.example"] {
            assert_eq!(plain(word), [true; 2], "{word}");
        }
        for word in ["-q", "a b", "*", "a;b", "a/b", "$x", "a\nb", "[192.0.2.1]"] {
            assert_eq!(plain(word), [false; 2], "{word}");
        }
        assert!(Target::All.is_plain());
    }

    #[test]
    fn a_message_is_of_every_domain_that_one_of_its_recipients_has() {
        let recipient = |address: &'static str| Recipient {
            address: address.into(),
            reason: None,
            delivered: false,
            last_attempt: None,
        };
        let message = Message {
            id: "4F1A".into(),
            state: State::Deferred,
            mta_state: "deferred".into(),
            being_returned: false,
            too_young: false,
            instance: None,
            size: None,
            arrival: None,
            sender: None,
            recipients: vec![recipient("larry@example.com"), recipient("moe@Example.ORG")],
            plan: crate::queue::Plan::default(),
        };
        let holds = |word: &str| word.parse::<Target>().unwrap().holds(&message);
        assert!(holds("all") && holds("domain:EXAMPLE.com") && holds("domain:example.org") && holds("id:4F1A"));
        assert!(!holds("domain:example") && !holds("domain:org") && !holds("id:4f1a") && !holds("id:4F1"));
    }
}
