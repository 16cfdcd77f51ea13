//! What `watch` remembers from one look to the next, as each may be another process: how many good looks it had in a
//! row, and what stopped it.

use std::os::unix::fs::MetadataExt;
use std::time::SystemTime;

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

/// The file whose time of change is that of the last look.
const LOOKS: &str = "watch.look";

impl Records {
    /// Notes that `watch` looks now. The file stays empty: nobody waits for the disk.
    pub(crate) fn note_look(&self) {
        // Where that can't be noted, `doctor` says that nobody looks.
        let _ = self.folder.file(LOOKS).map(|file| file.set_modified(SystemTime::now()));
    }

    /// When `watch` looked last, in seconds since 1970; `None` where it never did, as far as is known here.
    pub(crate) fn last_look(&self) -> Option<i64> {
        let file = Some(LOOKS).filter(|name| self.folder.has(name))?;
        let changed = self.folder.file(file).ok()?.metadata().ok()?;
        Some(changed.mtime())
    }

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
    fn when_watch_looked_last_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        assert_eq!(records.last_look(), None);
        assert!(!folder.path().join(LOOKS).exists(), "who asks leaves nothing behind");
        records.note_look();
        let now = jiff::Timestamp::now().as_second();
        assert!((now - 5..=now).contains(&records.last_look().unwrap()));
        let past = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        records.folder.file(LOOKS).unwrap().set_modified(past).unwrap();
        assert_eq!(records.last_look(), Some(1000));
    }

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
