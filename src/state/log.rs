//! The log of flushes, with what came of them.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::database::{as_signed, as_unsigned};
use super::outcome::{self, Outcome};
use super::{Records, StateError, Turn};
use crate::queue::Despite;
use crate::system;

/// How many flushes are kept.
const KEPT: u64 = 1000;

/// For how many of them it is kept which messages waited.
const IDS_KEPT: u64 = 10;

/// How much room the ids of the messages that waited may take, in bytes: 50,000 ids of 40 characters.
const IDS_ROOM: usize = 2 << 20;

/// A flush on record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flush {
    /// Its number, counted from 1; the `N` of `?flushed=N`.
    pub(crate) number: u64,
    /// When it was started, in seconds since 1970.
    pub(crate) started: i64,
    /// What was flushed: `all`, `domain:NAME` or `id:ID`.
    pub(crate) target: String,
    /// Who asked: an address, a login name, or both.
    pub(crate) by: String,
    /// Messages of the target that waited then; `None` where the queue could not be listed.
    pub(crate) messages: Option<u64>,
    /// Recipients that waited then.
    pub(crate) recipients: Option<u64>,
    /// How the flush command ended; `None` while it runs.
    pub(crate) exit: Option<String>,
    /// What came of it, as far as it was watched.
    pub(crate) outcome: Option<Outcome>,
    /// Against what it was asked for all the same.
    pub(crate) despite: Option<Despite>,
    /// What the primary said before it, in a sentence or two; `None` where it was not asked.
    pub(crate) rehearsal: Option<String>,
    /// Whether this machine was restarted before the end of it was seen.
    pub(crate) restarted: bool,
}

/// Which messages were there when a flush was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// Those with these queue ids.
    Ids(HashSet<String>),
    /// Those that came in by then, in seconds since 1970: where there were too many ids to remember, or
    /// they are no longer kept. Mail that came in just then may count wrongly.
    By(i64),
}

impl Records {
    /// The last flushes, the latest first.
    ///
    /// # Errors
    /// Why the log can't be read. One that was never written is empty.
    pub(crate) fn flushes(&self, limit: u32) -> Result<Vec<Flush>, StateError> {
        if !self.has_database() {
            return Ok(Vec::new());
        }
        let boot = system::boot();
        self.with_database(|database| {
            let query = format!("SELECT {} ORDER BY flush.number DESC LIMIT ?1", columns());
            database.prepare(&query)?.query_map([limit], flush(&boot))?.collect()
        })
    }

    /// The flushes that were started in this time, both ends in seconds since 1970 and in it, the earliest first; `limit` at
    /// most, the earliest ones.
    ///
    /// # Errors
    /// As [`Records::flushes`].
    pub(crate) fn flushes_between(&self, from: i64, to: i64, limit: u32) -> Result<Vec<Flush>, StateError> {
        if !self.has_database() {
            return Ok(Vec::new());
        }
        let boot = system::boot();
        self.with_database(|database| {
            let query = format!("SELECT {} WHERE started BETWEEN ?1 AND ?2 ORDER BY flush.number LIMIT ?3", columns());
            database.prepare(&query)?.query_map(params![from, to, limit], flush(&boot))?.collect()
        })
    }

    /// Whether flushes from after that time may have been dropped, as too many followed: the oldest on record is younger.
    ///
    /// # Errors
    /// As [`Records::flushes`].
    pub(crate) fn has_dropped_since(&self, from: i64) -> Result<bool, StateError> {
        if !self.has_database() {
            return Ok(false);
        }
        let oldest = |row: &Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        let query = "SELECT number, started FROM flush ORDER BY number LIMIT 1";
        let oldest = self.with_database(|database| database.query_row(query, [], oldest).optional())?;
        Ok(oldest.is_some_and(|(number, started)| number > 1 && started > from))
    }

    /// One flush, if it is (still) on record, with the list of whose mail went back.
    ///
    /// # Errors
    /// As [`Records::flushes`].
    pub(crate) fn flush(&self, number: u64) -> Result<Option<Flush>, StateError> {
        if !self.has_database() {
            return Ok(None);
        }
        let boot = system::boot();
        let query = format!("SELECT {} WHERE flush.number = ?1", columns());
        let found =
            self.with_database(|database| database.query_row(&query, [as_signed(number)], flush(&boot)).optional())?;
        Ok(found.map(|found| {
            let outcome = found.outcome.map(|outcome| self.with_list(number, outcome));
            Flush { outcome, ..found }
        }))
    }

    /// Which messages waited when a flush was started, as far as that is still known.
    pub(crate) fn waited(&self, flush: &Flush) -> Waited {
        if !self.has_database() {
            return Waited::By(flush.started);
        }
        let ids = self.with_database(|database| {
            let query = "SELECT ids FROM flush WHERE number = ?1";
            database.query_row(query, [as_signed(flush.number)], |row| row.get::<_, Option<String>>(0)).optional()
        });
        match ids.ok().flatten().flatten() {
            Some(ids) => Waited::Ids(ids.lines().map(str::to_owned).collect()),
            None => Waited::By(flush.started),
        }
    }

    /// Puts a flush on record under the next number, which is returned, and drops the oldest. To be
    /// called by the holder of the turn alone.
    ///
    /// # Errors
    /// Why it could not be written: a full disk, say.
    pub(crate) fn record(&self, _turn: &Turn, flush: &Flush, waited: &Waited) -> Result<u64, StateError> {
        let ids = match waited {
            Waited::Ids(ids) => {
                let ids = ids.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
                (ids.len() <= IDS_ROOM).then_some(ids)
            }
            Waited::By(_) => None,
        };
        let boot = system::boot();
        self.with_database(|database| {
            // AUTOINCREMENT: a number is never given twice, even when its flush was withdrawn.
            database.execute(
                "INSERT INTO flush (started, target, by, messages, recipients, ids) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    flush.started,
                    flush.target,
                    flush.by,
                    flush.messages.map(as_signed),
                    flush.recipients.map(as_signed),
                    ids
                ],
            )?;
            let number = database.last_insert_rowid();
            let said = params![number, flush.despite.map(Despite::as_str), flush.rehearsal];
            database.execute("INSERT OR REPLACE INTO rehearsal (number, despite, said) VALUES (?1, ?2, ?3)", said)?;
            outcome::begin(database, number, &boot, number - as_signed(KEPT) + 1)?;
            database.execute("DELETE FROM rehearsal WHERE number <= ?1", [number - as_signed(KEPT)])?;
            database.execute("DELETE FROM flush WHERE number <= ?1", [number - as_signed(KEPT)])?;
            database.execute("UPDATE flush SET ids = NULL WHERE number <= ?1", [number - as_signed(IDS_KEPT)])?;
            Ok(as_unsigned(number))
        })
    }

    /// Takes a flush off the record that did not run after all: it starts no cool-down.
    pub(crate) fn withdraw(&self, _turn: &Turn, number: u64) {
        let outcome =
            self.with_database(|database| database.execute("DELETE FROM flush WHERE number = ?1", [as_signed(number)]));
        if let Err(error) = outcome {
            system::log(&format!("the flush could not be taken off the record: {error}"));
        }
    }

    /// Adds how the flush command ended.
    ///
    /// # Errors
    /// As [`Records::record`].
    pub(crate) fn add_exit(&self, number: u64, exit: &str) -> Result<(), StateError> {
        self.with_database(|database| {
            database
                .execute("UPDATE flush SET exit = ?2 WHERE number = ?1", params![as_signed(number), exit])
                .map(|_| ())
        })
    }

    /// Adds what came of the flush. What is settled stays so.
    ///
    /// # Errors
    /// As [`Records::record`].
    pub(crate) fn add_outcome(&self, number: u64, outcome: &Outcome) -> Result<(), StateError> {
        self.with_database(|database| {
            let is_added = database.execute(
                "UPDATE flush SET sampled = ?2, messages_left = ?3, recipients_left = ?4, why = ?5, settled = ?6 \
                 WHERE number = ?1 AND settled = 0",
                params![
                    as_signed(number),
                    outcome.sampled,
                    as_signed(outcome.messages_left),
                    as_signed(outcome.recipients_left),
                    outcome.why,
                    outcome.settled
                ],
            )?;
            if is_added > 0 { outcome::add(database, as_signed(number), outcome) } else { Ok(()) }
        })
    }
}

/// What a flush is read from.
fn columns() -> String {
    format!(
        "flush.number, started, target, by, messages, recipients, exit, sampled, messages_left, recipients_left, why, \
         settled, despite, said, boot, {} FROM flush LEFT JOIN rehearsal ON rehearsal.number = flush.number \
         LEFT JOIN result ON result.number = flush.number \
         LEFT JOIN further_result ON further_result.number = flush.number",
        outcome::COLUMNS
    )
}

/// A flush by its row, as it is known in this boot.
fn flush(boot: &str) -> impl Fn(&Row<'_>) -> rusqlite::Result<Flush> {
    move |row| {
        let unsigned = |index| row.get::<_, Option<i64>>(index).map(|number| number.map(as_unsigned));
        let (tally, pace) = outcome::tally_and_pace(row, 15)?;
        let outcome = match row.get(7)? {
            None => None,
            Some(sampled) => Some(Outcome {
                sampled,
                messages_left: as_unsigned(row.get(8)?),
                recipients_left: as_unsigned(row.get(9)?),
                why: row.get(10)?,
                settled: row.get(11)?,
                tally,
                pace,
                left_later: 0,
            }),
        };
        let despite: Option<String> = row.get(12)?;
        let started_in: Option<String> = row.get(14)?;
        let is_of_another_boot = started_in.is_some_and(|of| !of.is_empty() && !boot.is_empty() && of != boot);
        Ok(Flush {
            number: as_unsigned(row.get(0)?),
            started: row.get(1)?,
            target: row.get(2)?,
            by: row.get(3)?,
            messages: unsigned(4)?,
            recipients: unsigned(5)?,
            exit: row.get(6)?,
            restarted: is_of_another_boot && !outcome.as_ref().is_some_and(|outcome| outcome.settled),
            outcome,
            despite: despite.and_then(|word| Despite::ALL.into_iter().find(|known| known.as_str() == word)),
            rehearsal: row.get(13)?,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::state::tests::records;

    pub(in crate::state) fn new_flush() -> Flush {
        Flush {
            number: 0,
            started: 1,
            target: "all".into(),
            by: "::1".into(),
            messages: Some(2),
            recipients: Some(3),
            exit: None,
            outcome: None,
            despite: None,
            rehearsal: None,
            restarted: false,
        }
    }

    #[test]
    fn flushes_are_remembered_with_what_came_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        assert_eq!(records.flushes(10), Ok(vec![]));
        assert_eq!(records.flush(1), Ok(None));
        let turn = records.turn().unwrap();
        let (despite, rehearsal) = (Some(Despite::Refusals), Some("it refused".to_owned()));
        let against = Flush { despite, rehearsal, ..new_flush() };
        assert_eq!(records.record(&turn, &against, &Waited::By(1)), Ok(1));
        assert_eq!(records.record(&turn, &new_flush(), &Waited::By(1)), Ok(2));
        records.add_exit(2, "ended with status 0").unwrap();
        let outcome =
            Outcome { sampled: 9, messages_left: 1, recipients_left: 2, why: "full (2)".into(), ..Outcome::default() };
        records.add_outcome(2, &outcome).unwrap();
        let settled = Outcome { settled: true, ..outcome.clone() };
        records.add_outcome(2, &settled).unwrap();
        records.add_outcome(2, &Outcome::default()).unwrap();
        let second =
            Flush { number: 2, exit: Some("ended with status 0".into()), outcome: Some(settled), ..new_flush() };
        assert_eq!(records.flushes(10), Ok(vec![second, Flush { number: 1, ..against }]));
        records.withdraw(&turn, 2);
        assert_eq!(records.flush(2), Ok(None));
        assert_eq!(records.record(&turn, &new_flush(), &Waited::By(1)), Ok(3), "a number is given once");
    }

    #[test]
    fn which_messages_waited_is_kept_for_the_last_flushes() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let turn = records.turn().unwrap();
        let waited = Waited::Ids(["A1".to_owned(), "B2".to_owned()].into());
        let record = || Flush { number: records.record(&turn, &new_flush(), &waited).unwrap(), ..new_flush() };
        let first = record();
        assert_eq!(records.waited(&first), waited);
        (0..IDS_KEPT).for_each(|_| _ = record());
        assert_eq!(records.waited(&first), Waited::By(first.started));
        assert_eq!(records.waited(&new_flush()), Waited::By(1), "not on record");
        let none = records.record(&turn, &new_flush(), &Waited::Ids([].into())).unwrap();
        assert_eq!(records.waited(&Flush { number: none, ..new_flush() }), Waited::Ids([].into()));
    }

    #[test]
    fn a_log_with_values_that_make_no_sense_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        records.record(&records.turn().unwrap(), &new_flush(), &Waited::By(1)).unwrap();
        records.with_database(|database| database.execute("UPDATE flush SET started = 'yesterday'", [])).unwrap();
        assert_eq!(records.flushes(10), Ok(vec![]));
    }

    #[test]
    fn the_log_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let turn = records.turn().unwrap();
        records.record(&turn, &new_flush(), &Waited::By(1)).unwrap();
        let last = KEPT + 5;
        records.with_database(|database| database.execute("UPDATE flush SET number = ?1", [as_signed(last)])).unwrap();
        assert_eq!(records.flushes(10_000).unwrap()[0].number, last);
        records
            .with_database(|database| database.execute("UPDATE sqlite_sequence SET seq = ?1", [as_signed(last + KEPT)]))
            .unwrap();
        records.record(&turn, &new_flush(), &Waited::By(1)).unwrap();
        assert_eq!(records.flushes(10_000).unwrap().len(), 1, "the one that is {KEPT} numbers older is gone");
    }
}
