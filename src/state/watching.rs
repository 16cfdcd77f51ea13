//! What `watch` remembers from one look to the next, as each may be another process: how many good looks it had in a
//! row, and what stopped it.

use rusqlite::{OptionalExtension, Row, params};

use super::database::{as_signed, as_unsigned};
use super::{Records, StateError};

/// What `watch` remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watching {
    /// Looks in a row at which a primary that is back was seen to take mail.
    pub(crate) good: u64,
    /// When that was seen last, in seconds since 1970.
    pub(crate) seen: i64,
    /// How many times in a row it was about to run the queue, and stopped.
    pub(crate) stops: u64,
    /// When it stopped last, in seconds since 1970.
    pub(crate) stopped: i64,
    /// Why; empty where it never did.
    pub(crate) why: String,
}

impl Records {
    /// What `watch` remembers; nothing at first.
    ///
    /// # Errors
    /// As [`Records::flushes`].
    pub(crate) fn watching(&self) -> Result<Watching, StateError> {
        if !self.has_database() {
            return Ok(Watching::default());
        }
        let watching = |row: &Row<'_>| {
            Ok(Watching {
                good: as_unsigned(row.get(0)?),
                seen: row.get(1)?,
                stops: as_unsigned(row.get(2)?),
                stopped: row.get(3)?,
                why: row.get(4)?,
            })
        };
        let known = self.with_database(|database| {
            database.query_row("SELECT good, seen, stops, stopped, why FROM watch", [], watching).optional()
        });
        known.map(Option::unwrap_or_default)
    }

    /// Remembers this for `watch`.
    ///
    /// # Errors
    /// As [`Records::record`].
    pub(crate) fn keep_watching(&self, watching: &Watching) -> Result<(), StateError> {
        self.with_database(|database| {
            let Watching { good, seen, stops, stopped, why } = watching;
            let statement =
                "INSERT OR REPLACE INTO watch (one, good, seen, stops, stopped, why) VALUES (1, ?1, ?2, ?3, ?4, ?5)";
            database.execute(statement, params![as_signed(*good), seen, as_signed(*stops), stopped, why]).map(|_| ())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::records;

    #[test]
    fn what_watch_remembers_outlives_it() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        assert_eq!(records.watching(), Ok(Watching::default()));
        for good in [1, 2] {
            let watching = Watching { good, seen: 100, stops: 1, stopped: 90, why: "it refuses".into() };
            records.keep_watching(&watching).unwrap();
            assert_eq!(records.watching(), Ok(watching));
        }
    }
}
