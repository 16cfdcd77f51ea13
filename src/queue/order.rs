//! The orders that messages can be listed in, and the place of a message in one of them.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::{Lifetimes, Message};

/// The value that messages are ordered by. Unless the order is reversed, the smallest comes first: the youngest, the
/// smallest in bytes, the first in the alphabet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// When it goes back to its sender: the first comes first.
    Returns,
}

impl SortKey {
    /// Every key.
    pub const ALL: [SortKey; 6] =
        [SortKey::Age, SortKey::Size, SortKey::Sender, SortKey::Domain, SortKey::Id, SortKey::Returns];

    /// The word used in requests.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            SortKey::Age => "age",
            SortKey::Size => "size",
            SortKey::Sender => "sender",
            SortKey::Domain => "domain",
            SortKey::Id => "id",
            SortKey::Returns => "returns",
        }
    }
}

/// An order asked for with `sort=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The value to compare.
    pub key: SortKey,
    /// Whether the largest comes first (`-` before the key).
    pub reversed: bool,
}

impl Order {
    /// The order that `sort=` names, or `None` if the word is no such name.
    pub(crate) fn from_word(word: &str) -> Option<Order> {
        let (reversed, name) = match word.strip_prefix('-') {
            Some(name) => (true, name),
            None => (false, word),
        };
        let key = SortKey::ALL.into_iter().find(|key| key.as_str() == name)?;
        Some(Order { key, reversed })
    }

    /// The word for `sort=`.
    pub(crate) fn to_word(self) -> String {
        format!("{}{}", if self.reversed { "-" } else { "" }, self.key.as_str())
    }
}

/// A message's place in the order. Messages of equal value stay in the mail server's order. The order is the same in
/// memory and on disk.
#[derive(PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Place {
    value: Value,
    /// The message's number in the mail server's order.
    arrived: u64,
}

impl Place {
    /// The place of the message with the number `arrived` in the mail server's order, which stays as it is where there
    /// is no `order`. `lifetimes` say when it goes back.
    pub(super) fn of(message: &Message<'_>, order: Option<Order>, lifetimes: &Lifetimes, arrived: u64) -> Place {
        Place { value: order.map_or(Value::Unordered, |order| Value::of(message, order, lifetimes)), arrived }
    }

    /// The memory that its text takes besides the place itself, in bytes.
    pub(super) fn text_bytes(&self) -> usize {
        match &self.value {
            Value::Text(text) | Value::TextReversed(Reverse(text)) => text.len(),
            Value::Unordered | Value::Number(_) | Value::Unknown => 0,
        }
    }
}

/// The value that is compared. All values of one selection are of one variant, except for `Unknown`, which comes last
/// in either direction.
#[derive(PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Value {
    Unordered,
    Number(i64),
    Text(String),
    TextReversed(Reverse<String>),
    Unknown,
}

impl Value {
    fn of(message: &Message<'_>, order: Order, lifetimes: &Lifetimes) -> Value {
        match order.key {
            // The youngest has the latest arrival: age runs against it.
            SortKey::Age => Value::number(message.arrival.map(i64::saturating_neg), order),
            SortKey::Size => Value::number(message.size.and_then(|size| i64::try_from(size).ok()), order),
            SortKey::Sender => Value::text(message.sender.as_deref().unwrap_or_default(), order),
            SortKey::Domain => {
                Value::text(message.recipients.first().map_or("", |recipient| recipient.domain()), order)
            }
            SortKey::Id => Value::text(&message.id, order),
            SortKey::Returns => Value::number(lifetimes.returns(message).instant(), order),
        }
    }

    fn number(number: Option<i64>, order: Order) -> Value {
        match number {
            Some(number) => Value::Number(if order.reversed { number.saturating_neg() } else { number }),
            None => Value::Unknown,
        }
    }

    fn text(text: &str, order: Order) -> Value {
        let text = text.to_lowercase();
        if order.reversed { Value::TextReversed(Reverse(text)) } else { Value::Text(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_orders_are_read_and_written_alike() {
        for word in ["age", "-age", "size", "-domain", "id", "returns"] {
            assert_eq!(Order::from_word(word).unwrap().to_word(), word);
        }
        for word in ["", "-", "--age", "Age", "bogus"] {
            assert_eq!(Order::from_word(word), None, "{word}");
        }
    }
}
