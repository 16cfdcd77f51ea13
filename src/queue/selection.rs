//! The rows that one page shows: the best `k` of any number of messages, in one pass.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::path::Path;

use rusqlite::types::Value as Sql;

use super::spool::Spool;
use super::{Filter, Message};

/// The most rows that are held in memory, in some two MiB; where more stand before the end of the page that
/// is asked for, they go to a [`Spool`].
const HELD_LIMIT: usize = 5000;

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

/// Which of the ordered matches to keep: `per_page` of them from page `page` (counted from 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Page number, from 1.
    pub page: usize,
    /// Rows a page, 1 to 1000.
    pub per_page: usize,
}

impl Window {
    /// How many pages `matched` messages fill; an empty result is one empty page.
    pub fn pages(self, matched: u64) -> u64 {
        matched.div_ceil(self.per_page as u64).max(1)
    }

    /// How many rows stand before it.
    pub fn first(self) -> usize {
        (self.page - 1).saturating_mul(self.per_page)
    }

    /// How many rows stand before its end.
    fn end(self) -> usize {
        self.first().saturating_add(self.per_page)
    }
}

/// Collects the rows of one page while the messages pass by, in bounded memory.
pub struct Selection {
    filter: Filter,
    order: Option<Order>,
    window: Window,
    kept: Kept,
    matched: u64,
    now: i64,
}

/// The rows up to the end of the page.
enum Kept {
    InMemory(BinaryHeap<Candidate>),
    OnDisk(Result<Spool, String>),
}

impl Selection {
    /// An empty selection. Without an order, messages stay in the mail server's order. Ages
    /// are counted back from `now`, in seconds since 1970. For a page deep in the queue it takes a private `folder`.
    pub fn new(filter: Filter, order: Option<Order>, window: Window, now: i64, folder: Option<&Path>) -> Self {
        let deep = window.end() > HELD_LIMIT;
        let spool = |folder: &Path| Spool::new(folder).map_err(|error| error.to_string());
        let on_disk = || folder.map_or_else(|| Err("there is no folder of our own".into()), spool);
        let kept = if deep { Kept::OnDisk(on_disk()) } else { Kept::InMemory(BinaryHeap::new()) };
        Selection { filter, order, window, kept, matched: 0, now }
    }

    /// Takes note of a message, and keeps it if it may be on the page.
    pub fn offer(&mut self, message: &Message<'_>) {
        if !self.filter.matches(message, self.now) {
            return;
        }
        let value = self.value(message);
        let number = self.matched;
        self.matched += 1;
        match &mut self.kept {
            Kept::InMemory(rows) => {
                let place = Place { value, arrived: number };
                if rows.len() < self.window.end() {
                    rows.push(Candidate { place, message: message.clone().into_owned() });
                } else if let Some(mut worst) = rows.peek_mut()
                    && place < worst.place
                {
                    *worst = Candidate { place, message: message.clone().into_owned() };
                }
            }
            Kept::OnDisk(Ok(spool)) => spool.push(value.into(), message),
            Kept::OnDisk(Err(_)) => {}
        }
    }

    /// How many messages passed the filter, shown or not.
    pub fn matched(&self) -> u64 {
        self.matched
    }

    /// The rows of the page, in order.
    ///
    /// # Errors
    /// Why a page deep in the queue could not be put together: a full disk, say.
    pub fn into_rows(self) -> Result<Vec<Message<'static>>, String> {
        match self.kept {
            Kept::InMemory(rows) => {
                let sorted = rows.into_sorted_vec().into_iter().skip(self.window.first());
                Ok(sorted.map(|candidate| candidate.message).collect())
            }
            Kept::OnDisk(spool) => {
                // Numbers are turned round when they are read, texts are not.
                let descending = self
                    .order
                    .is_some_and(|order| order.reversed && !matches!(order.key, SortKey::Age | SortKey::Size));
                spool.and_then(|spool| spool.page(self.window, descending).map_err(|error| error.to_string()))
            }
        }
    }

    fn value(&self, message: &Message<'_>) -> Value {
        let Some(order) = self.order else { return Value::Unordered };
        let text = |text: &str| Value::text(text, order.reversed);
        match order.key {
            // The youngest has the latest arrival: age runs against it.
            SortKey::Age => Value::number(message.arrival.map(|arrival| -arrival), order.reversed),
            SortKey::Size => Value::number(message.size.and_then(|size| i64::try_from(size).ok()), order.reversed),
            SortKey::Sender => text(message.sender.as_deref().unwrap_or_default()),
            SortKey::Domain => text(message.recipients.first().map_or("", |recipient| recipient.domain())),
            SortKey::Id => text(&message.id),
        }
    }
}

/// A message's place in the order; messages of equal value stay in the mail server's order.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    value: Value,
    arrived: u64,
}

/// What is compared. All values of one selection are of one variant, but for `Unknown`, which
/// comes last in either direction.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Unordered,
    Number(i64),
    Text(String),
    TextReversed(Reverse<String>),
    Unknown,
}

impl Value {
    fn number(number: Option<i64>, reversed: bool) -> Value {
        match number {
            Some(number) => Value::Number(if reversed { number.saturating_neg() } else { number }),
            None => Value::Unknown,
        }
    }

    fn text(text: &str, reversed: bool) -> Value {
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

struct Candidate {
    place: Place,
    message: Message<'static>,
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place.cmp(&other.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Recipient, State};

    fn message(id: &str, size: Option<u64>, arrival: Option<i64>) -> Message<'static> {
        Message {
            id: id.to_owned().into(),
            state: State::Deferred,
            mta_state: "deferred".into(),
            size,
            arrival,
            sender: Some(format!("{id}@example.org").into()),
            recipients: vec![Recipient { address: "a@example.com".into(), reason: None, delivered: false }],
        }
    }

    fn ids(sort: Option<&str>, page: usize, per_page: usize) -> Vec<String> {
        let order = sort.map(|word| Order::from_word(word).unwrap());
        let mut selection = Selection::new(Filter::default(), order, Window { page, per_page }, 0, None);
        for message in [
            message("c", Some(30), Some(100)),
            message("a", Some(10), Some(300)),
            message("d", None, None),
            message("b", Some(20), Some(200)),
        ] {
            selection.offer(&message);
        }
        assert_eq!(selection.matched(), 4);
        selection.into_rows().unwrap().into_iter().map(|m| m.id.into_owned()).collect()
    }

    #[test]
    fn without_an_order_the_servers_order_stays() {
        assert_eq!(ids(None, 1, 10), ["c", "a", "d", "b"]);
        assert_eq!(ids(None, 2, 2), ["d", "b"]);
        assert_eq!(ids(None, 9, 2), Vec::<String>::new());
    }

    #[test]
    fn each_key_orders_both_ways_and_the_unknown_comes_last() {
        assert_eq!(ids(Some("age"), 1, 10), ["a", "b", "c", "d"], "youngest first");
        assert_eq!(ids(Some("-age"), 1, 10), ["c", "b", "a", "d"], "oldest first");
        assert_eq!(ids(Some("size"), 1, 10), ["a", "b", "c", "d"]);
        assert_eq!(ids(Some("-size"), 1, 10), ["c", "b", "a", "d"]);
        assert_eq!(ids(Some("id"), 1, 10), ["a", "b", "c", "d"]);
        assert_eq!(ids(Some("-id"), 1, 10), ["d", "c", "b", "a"]);
        assert_eq!(ids(Some("-sender"), 1, 2), ["d", "c"]);
        assert_eq!(ids(Some("domain"), 1, 10), ["c", "a", "d", "b"], "equal values keep the server's order");
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        assert_eq!([ids(Some("id"), 1, 3), ids(Some("id"), 2, 3)].concat(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_page_deep_in_the_queue_is_the_same_from_disk() {
        let folder = tempfile::tempdir().unwrap();
        let all: Vec<_> = (0..HELD_LIMIT + 300)
            .map(|n| {
                let number = n as i64 * 7919 % 1009;
                let size = (n % 5 > 0).then_some(number as u64);
                let mut message = message(&format!("Q{n}"), size, size.map(|size| size as i64 - 500));
                message.sender = Some(format!("É{number}@example.org").into());
                message
            })
            .collect();
        for sort in [None, Some("age"), Some("-age"), Some("size"), Some("-size"), Some("sender"), Some("-sender")] {
            let order = sort.map(|word| Order::from_word(word).unwrap());
            let page = |kept: Option<Kept>| {
                let window = Window { page: HELD_LIMIT / 100 + 1, per_page: 100 };
                let mut selection = Selection::new(Filter::default(), order, window, 0, Some(folder.path()));
                assert!(matches!(selection.kept, Kept::OnDisk(Ok(_))));
                selection.kept = kept.unwrap_or(selection.kept);
                all.iter().for_each(|message| selection.offer(message));
                selection.into_rows().unwrap()
            };
            let on_disk = page(None);
            assert_eq!(on_disk.len(), 100);
            assert!(on_disk == page(Some(Kept::InMemory(BinaryHeap::new()))), "{sort:?}");
        }
    }

    #[test]
    fn where_rows_can_not_be_kept_there_is_no_page() {
        let window = Window { page: 1000, per_page: 1000 };
        let mut selection = Selection::new(Filter::default(), None, window, 0, None);
        selection.offer(&message("a", None, None));
        assert_eq!(selection.matched(), 1);
        assert!(selection.into_rows().is_err());
    }

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
