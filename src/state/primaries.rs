//! How each primary was found, and since when.

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::{Records, StateError};

/// How many primaries are kept in mind.
const PRIMARIES_KEPT: i64 = 100;

/// How a mail server was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
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
    pub fn as_str(self) -> &'static str {
        match self {
            Condition::Up => "up",
            Condition::Busy => "busy",
            Condition::Down => "down",
            Condition::Unknown => "unknown",
        }
    }
}

impl Records {
    /// Takes note of how the primaries were found. Returns since when each is so, in seconds since 1970; of one
    /// whose condition is not known nothing is noted.
    ///
    /// # Errors
    /// As [`Records::record`]; what did not change is not written, so that a full disk does no harm.
    pub fn note_primaries(&self, found: &[(&str, Condition)], now: i64) -> Result<Vec<Option<i64>>, StateError> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        self.with_database(|database| {
            let note = |&(host, condition): &(&str, Condition)| {
                let query = "SELECT state, since FROM primary_host WHERE host = ?1";
                let known = database
                    .query_row(query, [host], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))
                    .optional()?;
                if condition == Condition::Unknown {
                    return Ok(None);
                }
                let state = condition.as_str();
                match known {
                    Some((known, since)) if known == state => return Ok(Some(since.min(now))),
                    Some(_) => database.execute(
                        "UPDATE primary_host SET state = ?2, since = ?3, back = (?2 = 'up') WHERE host = ?1",
                        params![host, state, now],
                    )?,
                    None => database.execute(
                        "INSERT OR IGNORE INTO primary_host (host, state, since) VALUES (?1, ?2, ?3)",
                        params![host, state, now],
                    )?,
                };
                database.execute(
                    "DELETE FROM primary_host WHERE host NOT IN (SELECT host FROM primary_host ORDER BY since DESC LIMIT ?1)",
                    [PRIMARIES_KEPT],
                )?;
                Ok(Some(now))
            };
            found.iter().map(note).collect()
        })
    }

    /// Whether one of these primaries has come back from being down, and the queue has not been run since.
    ///
    /// # Errors
    /// As [`Records::flushes`].
    pub fn is_back(&self, hosts: &[&str]) -> Result<bool, StateError> {
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
    pub fn welcome_back(&self) -> Result<(), StateError> {
        self.with_database(|database| database.execute("UPDATE primary_host SET back = 0 WHERE back", []).map(|_| ()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::records;

    #[test]
    fn since_when_a_primary_is_up_or_down_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let note = |host: &str, condition, now| records.note_primaries(&[(host, condition)], now).unwrap()[0];
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
}
