//! How much waited, and how much room there was, in the last days.

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::database::{as_signed, as_unsigned};
use super::{Records, StateError};

/// For how long samples are kept, in seconds: eight days.
const SAMPLES_KEPT: i64 = 8 * 24 * 60 * 60;

/// How far samples older than a day are apart, in seconds.
const THINNED_TO: i64 = 15 * 60;

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
    /// day one each [`THINNED_TO`], and none older than [`SAMPLES_KEPT`].
    ///
    /// # Errors
    /// As [`Records::record`].
    pub(crate) fn add_sample(&self, sample: &Sample) -> Result<Vec<Sample>, StateError> {
        self.with_database(|database| {
            // One transaction takes the file's lock once.
            let transaction = database.unchecked_transaction()?;
            let samples = add_sample(&transaction, sample)?;
            transaction.commit().map(|()| samples)
        })
    }
}

fn add_sample(database: &Connection, sample: &Sample) -> rusqlite::Result<Vec<Sample>> {
    let minute = sample.taken - sample.taken.rem_euclid(60);
    let known = database.query_row("SELECT 1 FROM sample WHERE taken = ?1", [minute], |_| Ok(())).optional()?;
    if known.is_none() {
        database.execute(
            "INSERT INTO sample (taken, messages, recipients, bytes, free) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                minute,
                as_signed(sample.messages),
                as_signed(sample.recipients),
                sample.bytes.map(as_signed),
                sample.free.map(as_signed)
            ],
        )?;
        database.execute(
            "DELETE FROM sample WHERE taken < ?1 OR taken > ?2",
            [sample.taken - SAMPLES_KEPT, sample.taken],
        )?;
        database.execute(
            // By ranges of the key, as this is done at nearly every look.
            "DELETE FROM sample WHERE taken < ?1 AND EXISTS (SELECT 1 FROM sample AS other
             WHERE other.taken >= sample.taken - sample.taken % ?2 AND other.taken < sample.taken)",
            [sample.taken - 24 * 60 * 60, THINNED_TO],
        )?;
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::records;

    #[test]
    fn samples_are_kept_for_some_days() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let sample = |taken| Sample { taken, messages: 2, recipients: 3, bytes: None, free: Some(9) };
        let start = 100 * THINNED_TO;
        let add = |seconds| records.add_sample(&sample(start + seconds)).unwrap();
        let after = [0, 59, 60, 60, 125].map(add);
        assert_eq!(after[4], [sample(start), sample(start + 60), sample(start + 120)]);
        assert_eq!(add(2 * 24 * 60 * 60).len(), 2, "a day later, one of each quarter of an hour is left");
        assert_eq!(add(60 + SAMPLES_KEPT).len(), 2, "the first is too old");
        assert_eq!(add(-start), [sample(0)], "after the clock was set back, what was the future is gone");
    }
}
