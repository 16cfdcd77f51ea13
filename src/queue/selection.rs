//! The rows that one page shows: the first `k` in the order of any number of messages, found in one pass.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::mem;

use serde::{Deserialize, Serialize};

use super::order::Place;
use super::overflow::{NotKept, Overflow};
use super::row::WHOLE_BYTES;
use super::{Clocks, Filter, Message, Order, Row};
use crate::system::ScratchFile;

/// The most rows that are held in memory, where they usually take some two MiB. Where there are more up to the end of
/// the page that is asked for, they go to disk: never for a page beyond the end of a queue that fits.
const HELD_LIMIT: usize = 5000;

/// The most memory that these may take, in bytes; where they take more, they go to disk, too.
const HELD_BYTES: usize = 4 << 20;

/// The memory that the rows of a page may take together, in bytes, where they are abridged.
const PAGE_BYTES: usize = 2 << 20;

/// Why there are no rows of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NoRows {
    /// The whole rows would take too much memory.
    #[error("they take more than {} MiB", WHOLE_BYTES >> 20)]
    TooLong,
    /// The rows up to the end of the page do not fit into memory and could not be kept on disk.
    #[error("{0}")]
    NotKept(NotKept),
}

/// The page that is asked for, out of all messages that match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Page number, from 1.
    pub page: usize,
    /// Rows a page, 1 to 1000.
    pub per_page: usize,
}

impl Window {
    /// How many pages `matched` messages fill; an empty result is one empty page.
    pub(crate) fn pages(self, matched: u64) -> u64 {
        matched.div_ceil(self.per_page as u64).max(1)
    }

    /// How many rows come before the page.
    pub(crate) fn first(self) -> usize {
        (self.page - 1).saturating_mul(self.per_page)
    }

    /// How many rows there are up to the end of the page.
    pub(super) fn end(self) -> usize {
        self.first().saturating_add(self.per_page)
    }
}

/// Collects the rows of one page while the messages pass by, in bounded memory.
pub struct Selection {
    filter: Filter,
    order: Option<Order>,
    window: Window,
    /// The file for rows that don't fit into memory, as long as all of them do.
    overflow: Option<ScratchFile>,
    /// The memory that a row may take, in bytes; `None` where rows stay whole.
    longest: Option<usize>,
    /// [`HELD_LIMIT`].
    held_limit: usize,
    kept: Kept,
    matched: u64,
    clocks: Clocks,
}

/// The rows up to the end of the page.
enum Kept {
    /// The rows, and the memory that they take together, in bytes.
    InMemory(BinaryHeap<Candidate>, usize),
    OnDisk(Result<Overflow, NotKept>),
}

impl Selection {
    /// An empty selection. Without an order, messages stay in the mail server's order. Rows that don't fit into memory go
    /// to the file `overflow`; without it such a page ends in `NoRows::NotKept`.
    pub fn new(
        filter: Filter,
        order: Option<Order>,
        window: Window,
        clocks: impl Into<Clocks>,
        overflow: Option<ScratchFile>,
    ) -> Self {
        let kept = Kept::InMemory(BinaryHeap::new(), 0);
        Selection {
            filter,
            order,
            window,
            overflow,
            longest: None,
            held_limit: HELD_LIMIT,
            kept,
            matched: 0,
            clocks: clocks.into(),
        }
    }

    /// Cuts very long rows, for a page that is made in memory.
    #[must_use]
    pub fn abridged(mut self) -> Self {
        self.longest = Some(PAGE_BYTES / self.window.per_page);
        self
    }

    /// Counts a message that passes the filter, and keeps it if it may be on the page.
    pub fn offer(&mut self, message: &Message<'_>) {
        if !self.filter.matches(message, &self.clocks) {
            return;
        }
        let place = Place::of(message, self.order, &self.clocks.lifetimes, self.matched);
        self.matched += 1;
        let window = self.kept_window();
        if self.order.is_none() && self.matched <= self.window.first() as u64 {
            // It comes before the page, and nothing that follows pushes it back.
            return;
        }
        let longest = self.longest;
        let row = || longest.map_or_else(|| Row::whole(message), |longest| Row::abridged(message, longest));
        match &mut self.kept {
            Kept::InMemory(rows, bytes) => {
                if rows.len() < window.end() {
                    let candidate = Candidate { place, row: row() };
                    *bytes += candidate.size();
                    rows.push(candidate);
                } else if let Some(mut worst) = rows.peek_mut()
                    && place < worst.place
                {
                    let candidate = Candidate { place, row: row() };
                    *bytes = *bytes + candidate.size() - worst.size();
                    *worst = candidate;
                }
                if *bytes > HELD_BYTES || rows.len() > self.held_limit {
                    let rows = mem::take(rows);
                    self.kept = Kept::OnDisk(self.on_disk(rows));
                }
            }
            Kept::OnDisk(kept) => {
                if let Ok(overflow) = kept
                    && let Err(error) = overflow.push(place, &row())
                {
                    // Closes the file, which gives its room back.
                    *kept = Err(error.into());
                }
            }
        }
    }

    /// The page, as one of the rows that are kept: without an order those before it need not be.
    fn kept_window(&self) -> Window {
        Window { page: if self.order.is_none() { 1 } else { self.window.page }, ..self.window }
    }

    /// Moves the rows to disk, where those that follow go, too.
    fn on_disk(&mut self, rows: BinaryHeap<Candidate>) -> Result<Overflow, NotKept> {
        let mut overflow = Overflow::new(self.overflow.take().ok_or(NotKept::NoFile)?);
        rows.into_iter().try_for_each(|Candidate { place, row }| overflow.push(place, &row))?;
        Ok(overflow)
    }

    /// How many messages passed the filter, shown or not.
    pub fn matched(&self) -> u64 {
        self.matched
    }

    /// The rows of the page, in order.
    ///
    /// # Errors
    /// Why the rows could not be put together.
    pub fn into_rows(self) -> Result<Vec<Row>, NoRows> {
        let window = self.kept_window();
        if self.matched <= self.window.first() as u64 {
            return Ok(Vec::new());
        }
        let rows = match self.kept {
            Kept::InMemory(rows, _) => {
                let sorted = rows.into_sorted_vec().into_iter().skip(window.first());
                Some(sorted.map(|candidate| candidate.row).collect())
            }
            Kept::OnDisk(kept) => {
                let mut left = WHOLE_BYTES;
                let has_room = |row: &Row| {
                    left = left.saturating_sub(row.size());
                    left > 0
                };
                let page = |overflow: Overflow| overflow.page(window, has_room).map_err(NotKept::from);
                kept.and_then(page).map_err(NoRows::NotKept)?
            }
        };
        let may_lack = self.longest.is_some();
        rows.filter(|rows: &Vec<Row>| may_lack || rows.iter().all(|row| row.left_out == 0)).ok_or(NoRows::TooLong)
    }
}

struct Candidate {
    place: Place,
    row: Row,
}

impl Candidate {
    /// The memory that it takes, in bytes, more or less.
    fn size(&self) -> usize {
        size_of::<Place>() + self.place.text_bytes() + self.row.size()
    }
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
    use std::fs::File;

    use nix::sys::stat::fstat;

    use super::*;
    use crate::queue::{Plan, Recipient, State};

    fn message(id: &str, size: Option<u64>, arrival: Option<i64>) -> Message<'static> {
        Message {
            id: id.to_owned().into(),
            state: State::Deferred,
            mta_state: "deferred".into(),
            being_returned: false,
            too_young: false,
            instance: None,
            size,
            arrival,
            sender: Some(format!("{id}@example.org").into()),
            recipients: vec![Recipient {
                address: "a@example.com".into(),
                reason: None,
                delivered: false,
                last_attempt: None,
            }],
            plan: Plan::default(),
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
        selection.into_rows().unwrap().into_iter().map(|row| row.message.id.into_owned()).collect()
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
        let overflow = || Some(ScratchFile::within(folder.path()));
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
            let page = |held_limit: usize| {
                let window = Window { page: HELD_LIMIT / 100 + 1, per_page: 100 };
                let mut selection = Selection::new(Filter::default(), order, window, 0, overflow());
                selection.held_limit = held_limit;
                all.iter().for_each(|message| selection.offer(message));
                assert_eq!(
                    matches!(selection.kept, Kept::OnDisk(Ok(_))),
                    held_limit < 100 || sort.is_some() && held_limit == HELD_LIMIT
                );
                selection.into_rows().unwrap()
            };
            let in_memory = page(usize::MAX);
            assert_eq!(in_memory.len(), 100);
            assert!(page(HELD_LIMIT) == in_memory && page(50) == in_memory, "{sort:?}");
        }
    }

    fn with_recipients(id: &str, count: usize, reason: &str) -> Message<'static> {
        let recipient = |number: usize| Recipient {
            address: format!("r{number}@example.com").into(),
            reason: Some(format!("{number} {reason}").into()),
            delivered: false,
            last_attempt: None,
        };
        Message { recipients: (0..count).map(recipient).collect(), ..message(id, Some(1), None) }
    }

    #[test]
    fn a_message_that_takes_all_the_room_is_abridged_on_a_page_alone() {
        let window = Window { page: 1, per_page: 100 };
        let huge = with_recipients("huge", 50_000, "no");
        let long = with_recipients("long", 3, &"é".repeat(500_000));
        let short = with_recipients("short", 20, "Connection refused");
        let all = [huge, long, short];
        let rows = |selection: Selection| {
            let mut selection = selection;
            all.iter().for_each(|message| selection.offer(message));
            selection.into_rows()
        };
        let folder = tempfile::tempdir().unwrap();
        let overflow = || Some(ScratchFile::within(folder.path()));
        let new = || Selection::new(Filter::default(), None, window, 0, overflow());
        let page = rows(new().abridged()).unwrap();
        assert!(page.iter().map(Row::size).sum::<usize>() < PAGE_BYTES);
        assert_eq!(page[0].message.recipients.len() + page[0].left_out, 50_000);
        assert!(page[0].left_out > 0 && page[0].message.recipients.len() > 100);
        assert_eq!(page[1].left_out, 0, "a text that is too long is cut");
        assert!(page[1].message.recipients.iter().all(|r| r.reason.as_ref().unwrap().ends_with("é…")));
        assert_eq!((&page[2].message, page[2].left_out), (&all[2], 0));
        // The whole rows go to disk.
        let whole = rows(new()).unwrap();
        assert!(whole.iter().map(|row| &row.message).eq(&all));
    }

    #[test]
    fn a_message_longer_than_all_rows_may_be_is_never_held() {
        let reason = "no".repeat(1000);
        let recipients = vec![
            Recipient {
                address: "a@example.com".into(),
                reason: Some(reason.as_str().into()),
                delivered: false,
                last_attempt: None
            };
            20_000
        ];
        let longer = Message { recipients, ..message("longer", None, None) };
        let page = |page| {
            let window = Window { page, per_page: 1 };
            let mut selection = Selection::new(Filter::default(), None, window, 0, None);
            [&longer, &message("short", None, None)].into_iter().for_each(|message| selection.offer(message));
            assert!(matches!(&selection.kept, Kept::InMemory(_, held) if *held < 2000));
            selection.into_rows()
        };
        assert_eq!(page(1), Err(NoRows::TooLong));
        assert_eq!(page(2).unwrap()[0].message.id, "short");
    }

    #[test]
    fn rows_that_no_longer_fit_go_to_disk_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let overflow = || Some(ScratchFile::within(folder.path()));
        let all: Vec<_> = (0..300).map(|n| with_recipients(&format!("Q{:03}", n * 7919 % 300), 1, "x")).collect();
        let long: Vec<_> = (0..300).map(|n| with_recipients(&format!("Q{:03}", n * 7919 % 300), 300, "x")).collect();
        for sort in [None, Some("id"), Some("-id")] {
            let ids = |messages: &[Message<'_>]| {
                let order = sort.map(|word| Order::from_word(word).unwrap());
                let window = Window { page: 3, per_page: 70 };
                let mut selection = Selection::new(Filter::default(), order, window, 0, overflow());
                messages.iter().for_each(|message| selection.offer(message));
                let on_disk = matches!(selection.kept, Kept::OnDisk(_));
                (selection.into_rows().unwrap().into_iter().map(|row| row.message.id).collect::<Vec<_>>(), on_disk)
            };
            assert_eq!(ids(&long).0, ids(&all).0, "{sort:?}");
            // Without an order the rows before the page are not kept.
            assert_eq!((ids(&long).1, ids(&all).1), (sort.is_some(), false));
        }
    }

    #[test]
    fn where_rows_can_not_be_kept_there_is_no_page() {
        let window = Window { page: HELD_LIMIT / 1000 + 1, per_page: 1000 };
        let mut selection = Selection::new(Filter::default(), Order::from_word("id"), window, 0, None);
        (0..HELD_LIMIT + 1).for_each(|_| selection.offer(&message("a", None, None)));
        assert_eq!(selection.matched(), HELD_LIMIT as u64 + 1);
        assert!(selection.into_rows().is_err());
    }

    #[test]
    fn a_page_beyond_the_end_is_empty_and_writes_nothing_to_disk() {
        let folder = tempfile::tempdir().unwrap();
        for (order, page) in
            [(None, 2), (None, 4_000_000_000), (Order::from_word("-age"), 50), (Order::from_word("id"), 4_000_000_000)]
        {
            let file = ScratchFile::within(folder.path());
            let written = file.try_clone().unwrap();
            let window = Window { page, per_page: 1000 };
            let mut selection = Selection::new(Filter::default(), order, window, 0, Some(file));
            (0..900).for_each(|n| selection.offer(&message("a", None, Some(n))));
            assert_eq!((selection.matched(), selection.into_rows()), (900, Ok(Vec::new())));
            assert_eq!(fstat(&written).unwrap().st_size, 0, "page {page}");
        }
    }

    #[test]
    fn a_full_disk_is_an_error_in_the_systems_words_and_counting_goes_on() {
        let full = ScratchFile::of(File::options().read(true).write(true).open("/dev/full").unwrap());
        let window = Window { page: HELD_LIMIT / 1000 + 1, per_page: 1000 };
        let mut selection = Selection::new(Filter::default(), Order::from_word("id"), window, 0, Some(full));
        (0..HELD_LIMIT + 1000).for_each(|_| selection.offer(&message("a", None, None)));
        assert_eq!(selection.matched(), HELD_LIMIT as u64 + 1000);
        assert!(matches!(selection.kept, Kept::OnDisk(Err(_))), "nothing more is written");
        let why = selection.into_rows().unwrap_err();
        assert!(matches!(&why, NoRows::NotKept(NotKept::File(words)) if words.contains("No space left")), "{why}");
    }

    #[test]
    fn long_texts_that_are_only_compared_take_their_part_of_the_memory() {
        let long = "x".repeat(HELD_BYTES / 4);
        let window = Window { page: 1, per_page: 1000 };
        let order = Order::from_word("sender");
        let mut selection = Selection::new(Filter::default(), order, window, 0, None).abridged();
        for _ in 0..5 {
            selection.offer(&Message { sender: Some(long.as_str().into()), ..message("a", None, None) });
        }
        assert!(matches!(selection.kept, Kept::OnDisk(_)));
    }
}
