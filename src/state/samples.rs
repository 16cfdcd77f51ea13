//! How much waited, and how much room there was, in the last days.
//!
//! A view takes a sample, and waits for no disk: the samples stand in a file of their own, which is changed where it
//! stands and not synced. What a power failure leaves of it is each sample that is whole.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::Records;
use super::database::as_unsigned;

/// For how long samples are kept, in seconds: eight days.
const SAMPLES_KEPT: i64 = 8 * DAY;

/// A day, in seconds.
const DAY: i64 = 24 * 60 * 60;

/// How far samples older than a day are apart, in seconds.
const THINNED_TO: i64 = 15 * 60;

/// The file: the samples, the oldest first, each as six numbers of eight bytes (little-endian): when it was taken,
/// messages, recipients, bytes, bytes free, and a checksum of these.
const FILE: &str = "samples.table";
const LENGTH: usize = 48;

/// The most samples that are read: more than are kept.
const MOST: usize = 4096;

/// What stands there for a number that is not known.
const UNKNOWN: u64 = u64::MAX;

/// How much waited at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When it was taken, in seconds since 1970.
    pub(crate) taken: i64,
    /// Messages.
    pub(crate) messages: u64,
    /// Recipients.
    pub(crate) recipients: u64,
    /// Bytes; `None` where the mail server gives no sizes.
    pub(crate) bytes: Option<u64>,
    /// Bytes free on the filesystem of the queue.
    pub(crate) free: Option<u64>,
}

impl Records {
    /// Takes note of how much waits, and returns all that was noted, the oldest first: one sample a minute, after a
    /// day one each [`THINNED_TO`], and none older than [`SAMPLES_KEPT`]. Where it can't be noted (the disk is full, or
    /// somebody else is about to), it is not among them.
    pub(crate) fn add_sample(&self, sample: &Sample) -> Vec<Sample> {
        let Ok(file) = self.folder.file(FILE) else { return Vec::new() };
        let minute = sample.taken - sample.taken.rem_euclid(60);
        let known = read(&file);
        if known.iter().any(|known| known.taken == minute) || file.try_lock().is_err() {
            return known;
        }
        // Somebody may have done so in between.
        let mut samples = read(&file);
        if samples.is_empty() {
            samples = self.samples_of_earlier_version();
        }
        let known = samples.clone();
        samples.retain(|known| known.taken != minute);
        samples.push(Sample { taken: minute, ..sample.clone() });
        let samples = thinned(samples, sample.taken);
        if write(&file, &samples).is_ok() { samples } else { known }
    }

    /// An earlier version kept them in the database.
    fn samples_of_earlier_version(&self) -> Vec<Sample> {
        if !self.has_database() {
            return Vec::new();
        }
        self.with_database(of_table).unwrap_or_default()
    }
}

fn of_table(database: &Connection) -> rusqlite::Result<Vec<Sample>> {
    let mut query = database.prepare("SELECT taken, messages, recipients, bytes, free FROM sample ORDER BY taken")?;
    let samples = query.query_map([], |row| {
        Ok(Sample {
            taken: row.get(0)?,
            messages: as_unsigned(row.get(1)?),
            recipients: as_unsigned(row.get(2)?),
            bytes: row.get::<_, Option<i64>>(3)?.map(as_unsigned),
            free: row.get::<_, Option<i64>>(4)?.map(as_unsigned),
        })
    })?;
    samples.collect()
}

/// What is kept of them at this time. What seems to be of the future was taken before the clock was set back.
fn thinned(samples: Vec<Sample>, now: i64) -> Vec<Sample> {
    let mut kept: Vec<Sample> = Vec::new();
    for sample in samples.into_iter().filter(|sample| (now - SAMPLES_KEPT..=now).contains(&sample.taken)) {
        let part = |sample: &Sample| sample.taken.div_euclid(THINNED_TO);
        let is_repeated = kept.last().is_some_and(|last| part(last) == part(&sample));
        if sample.taken >= now - DAY || !is_repeated {
            kept.push(sample);
        }
    }
    kept
}

/// Those that are whole and in their order.
fn read(file: &File) -> Vec<Sample> {
    let mut bytes = vec![0; MOST * LENGTH];
    let length = file.read_at(&mut bytes, 0).unwrap_or_default();
    let mut samples: Vec<Sample> = Vec::new();
    for sample in bytes[..length].as_chunks::<LENGTH>().0.iter().filter_map(of_bytes) {
        if samples.last().is_none_or(|last| last.taken < sample.taken) {
            samples.push(sample);
        }
    }
    samples
}

fn write(file: &File, samples: &[Sample]) -> io::Result<()> {
    let bytes: Vec<u8> = samples.iter().flat_map(to_bytes).collect();
    file.write_all_at(&bytes, 0)?;
    file.set_len(bytes.len() as u64)
}

fn to_bytes(sample: &Sample) -> [u8; LENGTH] {
    let known = |number: Option<u64>| number.unwrap_or(UNKNOWN);
    let Sample { taken, messages, recipients, bytes, free } = sample;
    let numbers = [taken.cast_unsigned(), *messages, *recipients, known(*bytes), known(*free)];
    let mut written = [0; LENGTH];
    let places = written.as_chunks_mut::<8>().0.iter_mut();
    places.zip(numbers.iter().chain([&checksum(&numbers)])).for_each(|(place, number)| *place = number.to_le_bytes());
    written
}

fn of_bytes(bytes: &[u8; LENGTH]) -> Option<Sample> {
    let mut numbers = [0; 6];
    let places = bytes.as_chunks::<8>().0.iter();
    numbers.iter_mut().zip(places).for_each(|(number, place)| *number = u64::from_le_bytes(*place));
    let [numbers @ .., sum] = numbers;
    let [taken, messages, recipients, bytes, free] = numbers;
    let known = |number: u64| (number != UNKNOWN).then_some(number);
    let sample = Sample { taken: taken.cast_signed(), messages, recipients, bytes: known(bytes), free: known(free) };
    (sum == checksum(&numbers)).then_some(sample)
}

/// FNV-1a, by numbers in place of bytes: it stays the same from one version of Rust to the next.
fn checksum(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0xcbf2_9ce4_8422_2325, |sum, number| (sum ^ number).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::records;

    fn sample(taken: i64) -> Sample {
        Sample { taken, messages: 2, recipients: 3, bytes: None, free: Some(9) }
    }

    #[test]
    fn samples_are_kept_for_some_days() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let start = 100 * THINNED_TO;
        let add = |seconds| records.add_sample(&sample(start + seconds));
        let after = [0, 59, 60, 60, 125].map(add);
        assert_eq!(after[4], [sample(start), sample(start + 60), sample(start + 120)]);
        assert_eq!(add(2 * DAY).len(), 2, "a day later, one of each quarter of an hour is left");
        assert_eq!(add(60 + SAMPLES_KEPT).len(), 2, "the first is too old");
        assert_eq!(add(-start), [sample(0)], "after the clock was set back, what was the future is gone");
        assert!(!records.has_database());
    }

    #[test]
    fn what_a_power_failure_leaves_is_each_sample_that_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        (1..6).for_each(|minute| _ = records.add_sample(&sample(minute * 60)));
        let file = records.folder.file(FILE).unwrap();
        file.write_all_at(&[0; 60], 40).unwrap();
        file.set_len(5 * LENGTH as u64 - 1).unwrap();
        assert_eq!(read(&file), [sample(4 * 60)]);
        file.write_all_at(&[0x42; 5000], 0).unwrap();
        assert_eq!(records.add_sample(&sample(600)), [sample(600)]);
    }

    #[test]
    fn who_finds_somebody_else_at_it_does_not_wait() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        records.add_sample(&sample(60));
        let other = records.folder.file(FILE).unwrap();
        other.try_lock().unwrap();
        assert_eq!(records.add_sample(&sample(120)), [sample(60)]);
        drop(other);
        assert_eq!(records.add_sample(&sample(120)).len(), 2);
    }

    #[test]
    fn the_longest_history_fits() {
        let all = thinned((0..20 * DAY / 60).map(|minute| sample(minute * 60)).collect(), 20 * DAY);
        assert!(all.len() > 2000 && all.len() < MOST, "{}", all.len());
    }
}
