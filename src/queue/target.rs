//! The part of a queue that a flush is for.

use std::fmt;
use std::str::FromStr;

use super::Message;

/// What a flush is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The whole queue.
    All,
    /// The messages for one domain.
    Domain(String),
    /// One message, by its queue id.
    Id(String),
}

impl Target {
    /// Whether the message is of this part of the queue.
    pub fn holds(&self, message: &Message<'_>) -> bool {
        match self {
            Target::All => true,
            Target::Id(id) => *id == message.id,
            Target::Domain(name) => message.recipients.iter().any(|r| r.domain().eq_ignore_ascii_case(name)),
        }
    }
}

impl Target {
    /// Whether the name or id may stand in a command: nothing in it can be taken for an option, a
    /// pattern, or two words.
    pub fn is_plain(&self) -> bool {
        let is_plain = |word: &str| {
            !word.starts_with('-') && word.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
        };
        match self {
            Target::All => true,
            Target::Domain(word) | Target::Id(word) => is_plain(word),
        }
    }
}

impl FromStr for Target {
    type Err = ();

    /// The value of `flush`: nothing or `all`, `domain:NAME`, `id:ID`.
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
