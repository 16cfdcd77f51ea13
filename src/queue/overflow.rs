//! Where the rows in front of a page deep in a long queue are kept: on disk, so that memory does not grow with the
//! queue.
//!
//! This is an external merge sort over one file that is given, already open, and used with pread(2) and pwrite(2)
//! alone. Each row is appended as it comes; its [`Entry`], the place in the order and where the row lies, stays in
//! memory until the entries take [`GATHERED_BYTES`] and are appended in their order, as a run. For the page the runs
//! are merged up to its end, and of the rows only its own are read back.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::mem;
use std::ops::Range;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::order::Place;
use super::{Message, Row, Window};
use crate::system::ScratchFile;

/// The memory that the entries of one run take before they are sorted and written, in bytes, more or less.
const GATHERED_BYTES: usize = 1 << 20;

/// The memory that all readers of a merge may take together, in bytes. Where the runs need more, they are merged
/// in several passes.
const MERGE_BYTES: usize = 2 << 20;

/// How many bytes are read, or written, at a time.
const BUFFER: usize = 8 << 10;

/// Why rows could not be kept on disk and read back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum NotKept {
    /// No file was given.
    #[error("there is no file to keep them in")]
    NoFile,
    /// The file could not be written or read, for example because its disk is full; these are the system's words.
    #[error("{0}")]
    File(String),
}

impl From<io::Error> for NotKept {
    fn from(error: io::Error) -> NotKept {
        NotKept::File(error.to_string())
    }
}

/// Rows on disk, each with its place in the order.
pub(super) struct Overflow {
    file: Rc<ScratchFile>,
    out: BufWriter<Tail>,
    gathered: Vec<Entry>,
    /// The memory that these take, in bytes.
    gathered_bytes: usize,
    runs: Vec<Run>,
    limits: Limits,
}

/// [`GATHERED_BYTES`] and [`MERGE_BYTES`]; tests take less.
#[derive(Clone, Copy)]
struct Limits {
    gathered: usize,
    merge: usize,
}

/// Where a row stands in the order, and where it lies in the file.
#[derive(PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Entry {
    place: Place,
    bytes: (u64, u64),
}

/// Entries in their order, one a line.
struct Run {
    bytes: Range<u64>,
    /// How long its longest line is, in bytes.
    longest: usize,
}

impl Overflow {
    /// Keeps rows in `file`, which is open for reading and writing, from its beginning on.
    pub(super) fn new(file: ScratchFile) -> Overflow {
        Overflow::within(Limits { gathered: GATHERED_BYTES, merge: MERGE_BYTES }, file)
    }

    fn within(limits: Limits, file: ScratchFile) -> Overflow {
        let file = Rc::new(file);
        let out = BufWriter::with_capacity(BUFFER, Tail { file: Rc::clone(&file), end: 0 });
        Overflow { file, out, gathered: Vec::new(), gathered_bytes: 0, runs: Vec::new(), limits }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Those of writing. The rows are of no use after one.
    pub(super) fn push(&mut self, place: Place, row: &Row) -> io::Result<()> {
        let start = position(&self.out);
        // An arrival beyond the calendar has no form in the message's own JSON.
        serde_json::to_writer(&mut self.out, &(row.message.arrival, row.left_out, &row.message))?;
        self.gathered_bytes += size_of::<Entry>() + place.text_bytes();
        self.gathered.push(Entry { place, bytes: (start, position(&self.out)) });
        if self.gathered_bytes < self.limits.gathered { Ok(()) } else { self.end_run() }
    }

    fn end_run(&mut self) -> io::Result<()> {
        self.gathered_bytes = 0;
        self.gathered.sort_unstable();
        self.runs.push(write_run(&mut self.out, self.gathered.drain(..).map(Ok))?);
        Ok(())
    }

    /// The rows of a page in the order of their places, or `None` as soon as `has_room` denies one of them.
    ///
    /// # Errors
    /// Those of writing and reading.
    pub(super) fn page(
        mut self,
        window: Window,
        mut has_room: impl FnMut(&Row) -> bool,
    ) -> io::Result<Option<Vec<Row>>> {
        self.end_run()?;
        self.gathered = Vec::new();
        while fitting(&self.runs, self.limits.merge) < self.runs.len() {
            self.merge_in_batches(window.end())?;
        }
        self.out.flush()?;
        let mut rows = Vec::new();
        for entry in Merge::of(&self.file, &self.runs)?.take(window.end()).skip(window.first()) {
            let (start, end) = entry?.bytes;
            let part = Part { file: &self.file, bytes: start..end };
            let (arrival, left_out, message): (_, _, Message<'static>) =
                serde_json::from_reader(BufReader::with_capacity(BUFFER, part))?;
            let row = Row { message: Message { arrival, ..message }, left_out };
            if !has_room(&row) {
                return Ok(None);
            }
            rows.push(row);
        }
        Ok(Some(rows))
    }

    /// One pass: as many runs as can be read at a time become one, then the next ones. Of each, only the first `end`
    /// entries can be on the page or before it.
    fn merge_in_batches(&mut self, end: usize) -> io::Result<()> {
        let runs = mem::take(&mut self.runs);
        let mut rest = runs.as_slice();
        while !rest.is_empty() {
            let (batch, others) = rest.split_at(fitting(rest, self.limits.merge));
            self.out.flush()?;
            let merged = Merge::of(&self.file, batch)?.take(end);
            self.runs.push(write_run(&mut self.out, merged)?);
            rest = others;
        }
        Ok(())
    }
}

/// How many of the runs, from the first on, can be read at a time within `most` bytes: two at the least, where there
/// are two, as nothing would be merged otherwise.
fn fitting(runs: &[Run], most: usize) -> usize {
    let mut left = most;
    let fits = |run: &&Run| {
        let rest = left.checked_sub(run.memory());
        left = rest.unwrap_or_default();
        rest.is_some()
    };
    runs.iter().take_while(fits).count().max(2).min(runs.len())
}

fn write_run(out: &mut BufWriter<Tail>, entries: impl Iterator<Item = io::Result<Entry>>) -> io::Result<Run> {
    let start = position(out);
    let (mut end, mut longest) = (start, 0);
    for entry in entries {
        serde_json::to_writer(&mut *out, &entry?)?;
        out.write_all(b"\n")?;
        let line = position(out) - end;
        longest = longest.max(usize::try_from(line).unwrap_or(usize::MAX));
        end += line;
    }
    Ok(Run { bytes: start..end, longest })
}

impl Run {
    /// The memory that its reader takes, in bytes: a buffer, a line (which may have twice the room that it needs), and
    /// the entry that was read from one.
    fn memory(&self) -> usize {
        BUFFER.saturating_add(self.longest.saturating_mul(3))
    }
}

/// The end of a file, where everything is appended.
struct Tail {
    file: Rc<ScratchFile>,
    end: u64,
}

impl Write for Tail {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.end)?;
        self.end += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the next byte will lie in the file.
fn position(out: &BufWriter<Tail>) -> u64 {
    out.get_ref().end + out.buffer().len() as u64
}

/// A part of a file, read from its beginning to its end.
struct Part<'f> {
    file: &'f ScratchFile,
    bytes: Range<u64>,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.bytes.end - self.bytes.start).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.bytes.start)?;
        if read == 0 && most > 0 {
            // The file is shorter than what was written to it: rows would be missing without a word.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.bytes.start += read as u64;
        Ok(read)
    }
}

/// The entries of several runs in their order.
struct Merge<'f> {
    runs: Vec<Reader<'f>>,
    /// The next entry of each run, with the run's number.
    next: BinaryHeap<Reverse<(Entry, usize)>>,
}

impl<'f> Merge<'f> {
    fn of(file: &'f ScratchFile, runs: &[Run]) -> io::Result<Merge<'f>> {
        let reader = |run: &Run| Reader {
            lines: BufReader::with_capacity(BUFFER, Part { file, bytes: run.bytes.clone() }),
            line: Vec::new(),
        };
        let mut merge = Merge { runs: runs.iter().map(reader).collect(), next: BinaryHeap::new() };
        for (number, run) in merge.runs.iter_mut().enumerate() {
            merge.next.extend(run.entry()?.map(|entry| Reverse((entry, number))));
        }
        Ok(merge)
    }

    fn entry(&mut self) -> io::Result<Option<Entry>> {
        let Some(mut first) = self.next.peek_mut() else { return Ok(None) };
        let Reverse((entry, number)) = &mut *first;
        match self.runs[*number].entry()? {
            Some(following) => Ok(Some(mem::replace(entry, following))),
            None => Ok(Some(PeekMut::pop(first).0.0)),
        }
    }
}

impl Iterator for Merge<'_> {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        self.entry().transpose()
    }
}

/// A run as it is read.
struct Reader<'f> {
    lines: BufReader<Part<'f>>,
    line: Vec<u8>,
}

impl Reader<'_> {
    fn entry(&mut self) -> io::Result<Option<Entry>> {
        self.line.clear();
        if self.lines.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&self.line)?))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use nix::unistd::ftruncate;

    use super::*;
    use crate::queue::{Lifetimes, Order, Plan, Recipient, State};

    fn file() -> ScratchFile {
        ScratchFile::within(tempfile::tempdir().unwrap().path())
    }

    fn row(number: u64) -> Row {
        // Senders repeat, some ages and sizes are unknown, and what strangers write may hold anything.
        let value = number * 7919 % 61;
        let message = Message {
            id: format!("Q{number}").into(),
            state: State::Deferred,
            mta_state: "deferred".into(),
            being_returned: false,
            too_young: false,
            instance: None,
            size: (!value.is_multiple_of(5)).then_some(value),
            arrival: (!value.is_multiple_of(7)).then_some(1_795_434_300 - value as i64),
            sender: Some(format!("É{value}\n\0\"@example.org").into()),
            recipients: vec![Recipient {
                address: "a@example.com".into(),
                reason: None,
                delivered: true,
                last_attempt: None,
            }],
            plan: Plan { attempts: Some(value), ..Plan::default() },
        };
        Row { message, left_out: number as usize % 3 }
    }

    fn place(row: &Row, order: Option<Order>, number: u64) -> Place {
        Place::of(&row.message, order, &Lifetimes::Unknown, number)
    }

    /// Three readers at a time, so that a dozen runs take more than one pass.
    const SMALL: Limits = Limits { gathered: 2 << 10, merge: 4 * BUFFER };

    fn filled(limits: Limits, order: Option<Order>, rows: u64) -> Overflow {
        let mut overflow = Overflow::within(limits, file());
        for number in 0..rows {
            let row = row(number);
            overflow.push(place(&row, order, number), &row).unwrap();
        }
        overflow
    }

    fn page(overflow: Overflow, page: usize, per_page: usize) -> Vec<Row> {
        overflow.page(Window { page, per_page }, |_| true).unwrap().unwrap()
    }

    #[test]
    fn many_runs_are_merged_in_the_order_of_memory_and_equal_values_stay_as_they_came() {
        for sort in [None, Some("age"), Some("-age"), Some("-size"), Some("sender"), Some("-sender"), Some("domain")] {
            let order = sort.map(|word| Order::from_word(word).unwrap());
            let mut sorted: Vec<_> = (0..700).map(|number| (place(&row(number), order, number), row(number))).collect();
            sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
            let sorted: Vec<_> = sorted.into_iter().map(|(_, row)| row).collect();
            for (number, size) in [(1, 700), (1, 1), (2, 300), (7, 100), (70, 10)] {
                let overflow = filled(SMALL, order, 700);
                assert!(overflow.runs.len() > 9, "{}", overflow.runs.len());
                assert!(fitting(&overflow.runs, SMALL.merge) < 4, "several passes");
                let window = Window { page: number, per_page: size };
                let expected = &sorted[window.first()..(window.first() + size).min(700)];
                assert!(page(overflow, number, size) == expected, "{sort:?}, page {number} of {size}");
            }
        }
    }

    #[test]
    fn a_page_beyond_the_end_is_empty() {
        assert_eq!(page(filled(SMALL, None, 300), 4, 100), []);
        assert_eq!(page(filled(SMALL, None, 250), 3, 100).len(), 50, "the last one may be short");
        assert_eq!(page(filled(SMALL, None, 10), usize::MAX, 1000), []);
        assert_eq!(page(Overflow::new(file()), 1, 100), []);
    }

    #[test]
    fn a_row_comes_back_as_it_was_even_with_an_arrival_that_no_calendar_has() {
        let mut odd = row(1);
        odd.message.arrival = Some(i64::MAX);
        odd.left_out = usize::MAX;
        let mut overflow = Overflow::new(file());
        overflow.push(place(&odd, None, 0), &odd).unwrap();
        assert_eq!(page(overflow, 1, 1), [odd]);
    }

    #[test]
    fn a_page_ends_with_the_first_row_that_has_no_room() {
        let mut left = 5;
        let has_room = |_: &Row| {
            left -= 1;
            left > 0
        };
        let rows = filled(SMALL, None, 100).page(Window { page: 1, per_page: 100 }, has_room).unwrap();
        assert_eq!(rows, None);
        assert_eq!(left, 0, "no further row was read");
    }

    #[test]
    fn the_readers_of_a_merge_take_bounded_memory_however_many_runs_there_are() {
        let runs = |count: usize, longest| -> Vec<Run> { (0..count).map(|_| Run { bytes: 0..1, longest }).collect() };
        for (count, longest) in [(1, 100), (2, 100), (100_000, 100), (100_000, 100_000), (3, usize::MAX), (0, 0)] {
            let runs = runs(count, longest);
            let fitting = fitting(&runs, MERGE_BYTES);
            let memory = runs[..fitting].iter().fold(0_usize, |sum, run| sum.saturating_add(run.memory()));
            assert!(memory <= MERGE_BYTES || fitting == 2, "{fitting} readers take {memory} bytes");
            assert!(fitting >= count.min(2), "every pass makes progress");
        }
        assert!(fitting(&runs(1000, 100), MERGE_BYTES) > 200, "a million messages take one pass");
    }

    #[test]
    fn a_disk_without_room_is_an_error_while_rows_are_added_or_when_the_page_is_put_together() {
        let full =
            || Overflow::new(ScratchFile::of(OpenOptions::new().read(true).write(true).open("/dev/full").unwrap()));
        assert_eq!(page(full(), 1, 1), [], "without a row nothing is written");
        let mut few = full();
        few.push(place(&row(0), None, 0), &row(0)).unwrap();
        let error = few.page(Window { page: 1, per_page: 1 }, |_| true).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        let mut many = full();
        let error = (0..1000).find_map(|number| many.push(place(&row(number), None, number), &row(number)).err());
        assert_eq!(error.unwrap().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_file_that_was_cut_is_an_error_and_not_a_shorter_queue() {
        let file = file();
        let mut overflow = Overflow::within(SMALL, file.try_clone().unwrap());
        (0..300).for_each(|number| overflow.push(place(&row(number), None, number), &row(number)).unwrap());
        ftruncate(&file, 100).unwrap();
        let error = overflow.page(Window { page: 1, per_page: 300 }, |_| true).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData), "{error}");
    }
}
