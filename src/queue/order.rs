//! What messages are ordered by, and where in that order one stands.

use std::cmp::Reverse;

use rusqlite::types::Value as Sql;

/// What messages are ordered by. Unreversed, the smallest value comes first: the youngest, the
/// smallest, the first in the alphabet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// Time since arrival.
    Age,
    /// Size in bytes.
    Size,
    /// Envelope sender.
    Sender,
    /// Domain of the first recipient.
    Domain,
    /// Queue id.
    Id,
}

impl SortKey {
    /// Every key.
    pub const ALL: [SortKey; 5] = [SortKey::Age, SortKey::Size, SortKey::Sender, SortKey::Domain, SortKey::Id];

    /// The word used in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            SortKey::Age => "age",
            SortKey::Size => "size",
            SortKey::Sender => "sender",
            SortKey::Domain => "domain",
            SortKey::Id => "id",
        }
    }
}

/// An order asked for with `sort=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// What to compare.
    pub key: SortKey,
    /// Whether the largest comes first (`-` before the key).
    pub reversed: bool,
}

impl Order {
    /// The order that `sort=` names, or `None` if it names none.
    pub fn from_word(word: &str) -> Option<Order> {
        let (reversed, name) = match word.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, word),
        };
        let key = SortKey::ALL.into_iter().find(|key| key.as_str() == name)?;
        Some(Order { key, reversed })
    }

    /// The word for `sort=`.
    pub fn to_word(self) -> String {
        format!("{}{}", if self.reversed { "-" } else { "" }, self.key.as_str())
    }
}

/// A message's place in the order; messages of equal value stay in the mail server's order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) value: Value,
    pub(super) arrived: u64,
}

/// What is compared. All values of one selection are of one variant, but for `Unknown`, which
/// comes last in either direction.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Value {
    Unordered,
    Number(i64),
    Text(String),
    TextReversed(Reverse<String>),
    Unknown,
}

impl Value {
    pub(super) fn number(number: Option<i64>, reversed: bool) -> Value {
        match number {
            Some(number) => Value::Number(if reversed { number.saturating_neg() } else { number }),
            None => Value::Unknown,
        }
    }

    pub(super) fn text(text: &str, reversed: bool) -> Value {
        let text = text.to_lowercase();
        if reversed { Value::TextReversed(Reverse(text)) } else { Value::Text(text) }
    }
}

impl From<Value> for Sql {
    fn from(value: Value) -> Sql {
        match value {
            Value::Unordered => Sql::Integer(0),
            Value::Number(number) => Sql::Integer(number),
            Value::Text(text) | Value::TextReversed(Reverse(text)) => Sql::Text(text),
            Value::Unknown => Sql::Null,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_orders_are_read_and_written_alike() {
        for word in ["age", "-age", "size", "-domain", "id"] {
            assert_eq!(Order::from_word(word).unwrap().to_word(), word);
        }
        for word in ["", "-", "--age", "Age", "bogus"] {
            assert_eq!(Order::from_word(word), None, "{word}");
        }
    }
}
