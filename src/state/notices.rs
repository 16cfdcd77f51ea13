//! What `watch` has announced, and the notices that are still to be given: kept so that neither a restart nor the next
//! process repeats one, and none that could not be given is lost at once.

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::database::{as_signed, as_unsigned};
use super::{Records, Sighting, StateError};

/// How many notices wait to be given, at most; older ones are dropped.
const KEPT: i64 = 50;

/// How often a notice is tried.
pub(crate) const TRIES: u64 = 3;

/// The file whose lock one holds who gives notices.
const LOCK: &str = "notices.lock";

/// A notice that is to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Its number, counted from 1.
    pub(crate) number: u64,
    /// The event, as the line of JSON that it is.
    pub(crate) event: String,
    /// How often it was tried in vain.
    pub(crate) tries: u64,
}

impl Records {
    /// The right to announce and to give notices, as long as it is held; `None` where another process has it.
    pub(crate) fn notices_turn(&self) -> Option<Sighting> {
        self.sighting_in(LOCK).filter(Sighting::try_lock)
    }

    /// What was announced, in the form in which it was kept; `None` at first, and where it makes no sense.
    ///
    /// # Errors
    /// As [`Records::flushes`].
    pub(crate) fn announced<T: DeserializeOwned>(&self) -> Result<Option<T>, StateError> {
        if !self.has_database() {
            return Ok(None);
        }
        let seen = |row: &Row<'_>| row.get::<_, String>(0);
        let kept =
            self.with_database(|database| database.query_row("SELECT seen FROM announced", [], seen).optional())?;
        Ok(kept.and_then(|kept| serde_json::from_str(&kept).ok()))
    }

    /// Keeps what is announced now, and these events as notices to be given, all or nothing.
    ///
    /// # Errors
    /// As [`Records::record`].
    pub(crate) fn announce(&self, seen: &impl Serialize, events: &[String], now: i64) -> Result<(), StateError> {
        self.with_database(|database| {
            let seen = serde_json::to_string(seen)
                .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error)))?;
            let transaction = Transaction::new_unchecked(database, TransactionBehavior::Immediate)?;
            transaction.execute("INSERT OR REPLACE INTO announced (one, seen) VALUES (1, ?1)", [seen])?;
            for event in events {
                let statement = "INSERT INTO notice (at, event, tries) VALUES (?1, ?2, 0)";
                transaction.execute(statement, params![now, event])?;
            }
            let oldest = "DELETE FROM notice WHERE number <= (SELECT max(number) FROM notice) - ?1";
            transaction.execute(oldest, [KEPT])?;
            transaction.commit()
        })
    }

    /// Forgets what was announced, where nobody is to hear of it: a command that is configured later hears of what is new then.
    ///
    /// # Errors
    /// As [`Records::record`].
    pub(crate) fn forget_announced(&self) -> Result<(), StateError> {
        let is_there = |database: &Connection| {
            database.query_row("SELECT 1 FROM announced", [], |_| Ok(())).optional().map(|found| found.is_some())
        };
        if !self.has_database() || !self.with_database(is_there)? {
            return Ok(());
        }
        self.with_database(|database| database.execute_batch("DELETE FROM announced; DELETE FROM notice"))
    }

    /// The notices that are to be given, the oldest first.
    ///
    /// # Errors
    /// As [`Records::flushes`].
    pub(crate) fn notices(&self) -> Result<Vec<Notice>, StateError> {
        if !self.has_database() {
            return Ok(Vec::new());
        }
        self.with_database(|database| {
            let mut query = database.prepare("SELECT number, event, tries FROM notice ORDER BY number")?;
            let notice = |row: &Row<'_>| {
                Ok(Notice { number: as_unsigned(row.get(0)?), event: row.get(1)?, tries: as_unsigned(row.get(2)?) })
            };
            query.query_map([], notice)?.collect()
        })
    }

    /// Takes a notice off that was given, or is given up.
    ///
    /// # Errors
    /// As [`Records::record`].
    pub(crate) fn drop_notice(&self, number: u64) -> Result<(), StateError> {
        let statement = "DELETE FROM notice WHERE number = ?1";
        self.with_database(|database| database.execute(statement, [as_signed(number)]).map(|_| ()))
    }

    /// Counts a try in vain.
    ///
    /// # Errors
    /// As [`Records::record`].
    pub(crate) fn count_try(&self, number: u64) -> Result<(), StateError> {
        let statement = "UPDATE notice SET tries = tries + 1 WHERE number = ?1";
        self.with_database(|database| database.execute(statement, [as_signed(number)]).map(|_| ()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::records;

    #[test]
    fn a_notice_is_kept_until_it_was_given_or_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        assert_eq!((records.announced::<u64>(), records.notices()), (Ok(None), Ok(vec![])));
        records.announce(&7, &["{\"event\":\"a\"}".to_owned(), "{\"event\":\"b\"}".to_owned()], 100).unwrap();
        assert_eq!(records.announced(), Ok(Some(7)));
        let notice = |number, event: &str, tries| Notice { number, event: event.into(), tries };
        let (first, second) = (notice(1, "{\"event\":\"a\"}", 0), notice(2, "{\"event\":\"b\"}", 0));
        assert_eq!(records.notices(), Ok(vec![first, second.clone()]));
        records.count_try(2).unwrap();
        records.drop_notice(1).unwrap();
        assert_eq!(records.notices(), Ok(vec![Notice { tries: 1, ..second }]));
        records.forget_announced().unwrap();
        assert_eq!((records.announced::<u64>(), records.notices()), (Ok(None), Ok(vec![])));
        records.announce(&8, &["{}".to_owned()], 100).unwrap();
        assert_eq!(records.notices().unwrap()[0].number, 3, "a number is given once");
    }

    #[test]
    fn notices_are_bounded_and_one_process_gives_them_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let events: Vec<_> = (0..KEPT * 2).map(|number| number.to_string()).collect();
        records.announce(&0, &events, 100).unwrap();
        let kept = records.notices().unwrap();
        assert_eq!((kept.len(), kept[0].event.as_str()), (50, "50"));
        let turn = records.notices_turn();
        assert!(turn.is_some() && records.notices_turn().is_none());
        drop(turn);
        assert!(records.notices_turn().is_some());
    }
}
