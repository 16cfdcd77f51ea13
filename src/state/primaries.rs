//! How each primary was found, since when, and each change of that, so that no view of the page keeps one from `watch`.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::database::{as_signed, as_unsigned};
use super::{Records, StateError, outages};

/// How many of the primaries' changes are kept.
const TRANSITIONS_KEPT: i64 = 500;

/// How many primaries are kept in mind.
const PRIMARIES_KEPT: i64 = 100;

/// How a mail server was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Condition {
    /// It greets, and takes mail.
    Up,
    /// It greets with "not now" (4xx).
    Busy,
    /// It does not answer, or refuses.
    Down,
    /// It could not be asked.
    Unknown,
}

impl Condition {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Condition::Up => "up",
            Condition::Busy => "busy",
            Condition::Down => "down",
            Condition::Unknown => "unknown",
        }
    }
}

impl FromSql for Condition {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Condition> {
        let known = [Condition::Up, Condition::Busy, Condition::Down];
        let word = value.as_str()?;
        known.into_iter().find(|known| known.as_str() == word).ok_or(FromSqlError::InvalidType)
    }
}

/// Which part of this program looked at a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeenBy {
    /// A view of the page, in whatever form.
    Page,
    /// `list` on the command line.
    List,
    /// `metrics`.
    Metrics,
    /// `check`.
    Check,
    /// `doctor`.
    Doctor,
    /// `flush` on the command line.
    Flush,
    /// `watch`.
    Watch,
}

impl SeenBy {
    /// The word for it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            SeenBy::Page => "page",
            SeenBy::List => "list",
            SeenBy::Metrics => "metrics",
            SeenBy::Check => "check",
            SeenBy::Doctor => "doctor",
            SeenBy::Flush => "flush",
            SeenBy::Watch => "watch",
        }
    }
}

/// A primary that was found in another condition than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    /// Its number, counted from 1.
    pub(crate) number: u64,
    /// `host:port`.
    pub(crate) host: String,
    /// When it was found so, in seconds since 1970.
    pub(crate) at: i64,
    /// How it was found.
    pub(crate) condition: Condition,
    /// The part of this program that looked: the word of a [`SeenBy`], also of a later version's.
    pub(crate) seen_by: String,
}

/// How a primary was before it was found in a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// In the same one, since then; `None` where that is not known.
    Same(Option<i64>),
    /// In another one.
    Other,
    /// Nobody had seen it.
    Unseen,
}

impl Records {
    /// How each was before it was found so, without taking note of anything.
    ///
    /// # Errors
    /// As [`Records::flushes`].
    pub(crate) fn primaries_before(&self, found: &[(&str, Condition)], now: i64) -> Result<Vec<Before>, StateError> {
        if !self.has_database() {
            return Ok(found
                .iter()
                .map(
                    |(_, condition)| if *condition == Condition::Unknown { Before::Same(None) } else { Before::Unseen },
                )
                .collect());
        }
        self.with_database(|database| {
            let before = |(host, condition): &(&str, Condition)| match since(database, host, *condition, now)? {
                Some(since) => Ok(Before::Same(since)),
                None => {
                    let query = "SELECT 1 FROM primary_host WHERE host = ?1";
                    let seen = database.query_row(query, [host], |_| Ok(())).optional()?;
                    Ok(seen.map_or(Before::Unseen, |()| Before::Other))
                }
            };
            found.iter().map(before).collect()
        })
    }

    /// Takes note of how the primaries were found, and of each change. Returns since when each is so, in seconds since
    /// 1970; of one whose condition is not known nothing is noted.
    ///
    /// # Errors
    /// As [`Records::record`]; what did not change is not written, so that a full disk does no harm.
    pub(crate) fn note_primaries(
        &self,
        found: &[(&str, Condition)],
        now: i64,
        seen_by: SeenBy,
    ) -> Result<Vec<Option<i64>>, StateError> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        self.with_database(|database| {
            let known = found.iter().map(|(host, condition)| since(database, host, *condition, now));
            let known = known.collect::<rusqlite::Result<Option<Vec<_>>>>()?;
            if let Some(since) = known {
                return Ok(since);
            }
            // Of two processes that see the same change, the second finds it noted.
            let transaction = Transaction::new_unchecked(database, TransactionBehavior::Immediate)?;
            let note = |(host, condition): &(&str, Condition)| match since(&transaction, host, *condition, now)? {
                Some(since) => Ok(since),
                None => note(&transaction, host, *condition, now, seen_by).map(|()| Some(now)),
            };
            let since = found.iter().map(note).collect::<rusqlite::Result<Vec<_>>>()?;
            transaction.commit()?;
            Ok(since)
        })
    }

    /// The changes that `watch` has not noticed yet, the oldest first; it does not matter which part of this program saw them.
    ///
    /// # Errors
    /// As [`Records::flushes`].
    pub(crate) fn transitions_unnoticed(&self) -> Result<Vec<Transition>, StateError> {
        if !self.has_database() {
            return Ok(Vec::new());
        }
        self.with_database(|database| {
            let mut query = database.prepare(
                "SELECT number, host, at, state, seen_by FROM transition
                 WHERE number > (SELECT coalesce(max(number), 0) FROM noticed) ORDER BY number",
            )?;
            let transition = |row: &Row<'_>| {
                Ok(Transition {
                    number: as_unsigned(row.get(0)?),
                    host: row.get(1)?,
                    at: row.get(2)?,
                    condition: row.get(3)?,
                    seen_by: row.get(4)?,
                })
            };
            query.query_map([], transition)?.collect()
        })
    }

    /// Notes that `watch` has noticed all changes up to this number.
    ///
    /// # Errors
    /// As [`Records::record`].
    pub(crate) fn notice(&self, number: u64) -> Result<(), StateError> {
        self.with_database(|database| {
            let statement = "INSERT INTO noticed (one, number) VALUES (1, ?1)
                             ON CONFLICT (one) DO UPDATE SET number = max(number, excluded.number)";
            database.execute(statement, [as_signed(number)]).map(|_| ())
        })
    }

    /// Whether one of these primaries has come back from being down, and the queue has not been run since.
    ///
    /// # Errors
    /// As [`Records::flushes`].
    pub(crate) fn is_back(&self, hosts: &[&str]) -> Result<bool, StateError> {
        if !self.has_database() {
            return Ok(false);
        }
        self.with_database(|database| {
            let mut query = database.prepare("SELECT host FROM primary_host WHERE back")?;
            let back = query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
            Ok(back.iter().any(|host| hosts.contains(&host.as_str())))
        })
    }

    /// Notes that the queue has been run, or that nothing waits, since the primaries came back.
    ///
    /// # Errors
    /// As [`Records::record`].
    pub(crate) fn welcome_back(&self) -> Result<(), StateError> {
        self.with_database(|database| database.execute("UPDATE primary_host SET back = 0 WHERE back", []).map(|_| ()))
    }
}

/// Since when a primary is in this condition; `Some(None)` where that is not known, `None` where its condition is news.
fn since(database: &Connection, host: &str, condition: Condition, now: i64) -> rusqlite::Result<Option<Option<i64>>> {
    if condition == Condition::Unknown {
        return Ok(Some(None));
    }
    let query = "SELECT since FROM primary_host WHERE host = ?1 AND state = ?2";
    let since = database.query_row(query, params![host, condition.as_str()], |row| row.get::<_, i64>(0)).optional()?;
    Ok(since.map(|since| Some(since.min(now))))
}

/// Notes a condition that is news: a change, where another one was known before.
fn note(database: &Connection, host: &str, condition: Condition, now: i64, seen_by: SeenBy) -> rusqlite::Result<()> {
    outages::note(database, host, condition, now, Some(seen_by.as_str()))?;
    let state = condition.as_str();
    let changed = database.execute(
        "UPDATE primary_host SET state = ?2, since = ?3, back = (?2 = 'up') WHERE host = ?1",
        params![host, state, now],
    )?;
    if changed == 0 {
        database
            .execute("INSERT INTO primary_host (host, state, since) VALUES (?1, ?2, ?3)", params![host, state, now])?;
        database.execute(
            "DELETE FROM primary_host WHERE host NOT IN (SELECT host FROM primary_host ORDER BY since DESC LIMIT ?1)",
            [PRIMARIES_KEPT],
        )?;
    } else {
        database.execute(
            "INSERT INTO transition (host, at, state, seen_by) VALUES (?1, ?2, ?3, ?4)",
            params![host, now, state, seen_by.as_str()],
        )?;
        let number = database.last_insert_rowid();
        database.execute("DELETE FROM transition WHERE number <= ?1", [number - TRANSITIONS_KEPT])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::records;

    #[test]
    fn since_when_a_primary_is_up_or_down_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let note =
            |host: &str, condition, now| records.note_primaries(&[(host, condition)], now, SeenBy::Page).unwrap()[0];
        assert_eq!(note("mx", Condition::Up, 100), Some(100));
        assert_eq!(records.is_back(&["mx"]), Ok(false), "it was never seen down");
        assert_eq!(note("mx", Condition::Up, 200), Some(100));
        assert_eq!(note("mx", Condition::Unknown, 250), None);
        assert_eq!(note("mx", Condition::Down, 300), Some(300));
        assert_eq!(note("mx", Condition::Down, 50), Some(50), "the clock was set back");
        assert_eq!(note("mx", Condition::Up, 400), Some(400));
        assert_eq!((records.is_back(&["mx"]), records.is_back(&["other"])), (Ok(true), Ok(false)));
        records.welcome_back().unwrap();
        assert_eq!(records.is_back(&["mx"]), Ok(false));
        for number in 0..PRIMARIES_KEPT * 2 {
            note(&format!("mx{number}"), Condition::Up, 500 + number);
        }
        let kept = records
            .with_database(|database| database.query_row("SELECT count(*) FROM primary_host", [], |row| row.get(0)));
        assert_eq!(kept, Ok(PRIMARIES_KEPT));
    }

    #[test]
    fn a_change_is_noticed_once_by_watch_and_not_lost_to_a_view_of_the_page() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let note = |condition, now, by| records.note_primaries(&[("mx", condition)], now, by).unwrap();
        let unnoticed = || records.transitions_unnoticed().unwrap();
        assert_eq!(unnoticed(), []);
        note(Condition::Up, 100, SeenBy::Watch);
        note(Condition::Up, 110, SeenBy::Page);
        assert_eq!(unnoticed(), [], "the first sight is no change");
        note(Condition::Down, 200, SeenBy::Page);
        note(Condition::Unknown, 210, SeenBy::Page);
        note(Condition::Down, 220, SeenBy::Watch);
        note(Condition::Busy, 300, SeenBy::Check);
        let transition = |number, at, condition, seen_by: &str| {
            let (host, seen_by) = ("mx".to_owned(), seen_by.to_owned());
            Transition { number, host, at, condition, seen_by }
        };
        let (first, second) =
            (transition(1, 200, Condition::Down, "page"), transition(2, 300, Condition::Busy, "check"));
        assert_eq!(unnoticed(), [first, second.clone()]);
        records.notice(1).unwrap();
        assert_eq!(unnoticed(), [second]);
        records.notice(2).unwrap();
        records.notice(1).unwrap();
        assert_eq!(unnoticed(), [], "what was noticed stays so");
    }

    #[test]
    fn changes_are_bounded_and_their_numbers_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let note = |condition| records.note_primaries(&[("mx", condition)], 1, SeenBy::Page).unwrap();
        note(Condition::Up);
        note(Condition::Down);
        records
            .with_database(|database| {
                database.execute("UPDATE sqlite_sequence SET seq = 1000 WHERE name = 'transition'", [])
            })
            .unwrap();
        note(Condition::Up);
        let numbers: Vec<_> = records.transitions_unnoticed().unwrap().iter().map(|change| change.number).collect();
        assert_eq!(numbers, [1001], "the one that is {TRANSITIONS_KEPT} numbers older is gone");
    }
}
