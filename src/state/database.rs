//! The database: opened when it is first needed, made where there is none, set aside where it is damaged.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Records, SET_ASIDE};
use crate::system;

/// How long a process waits for another one to finish its entry.
const PATIENCE: Duration = Duration::from_secs(2);

impl Records {
    /// Does something with the log. A log that is damaged is set aside, and said so in the error log;
    /// then it is done with a new one.
    pub(super) fn with_log<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, String> {
        let done = self.with_open_log(&work);
        let done = match done {
            Err(error) if is_damaged(&error) => {
                let aside = self.directory.join(format!("{SET_ASIDE}{}", jiff::Timestamp::now().as_second()));
                system::log(&format!(
                    "{} is damaged ({error}) and was set aside as {}",
                    self.log_path().display(),
                    aside.display()
                ));
                self.close();
                // Another process may have done so already.
                let _ = fs::rename(self.log_path(), aside);
                self.with_open_log(&work)
            }
            done => done,
        };
        done.map_err(|error| format!("{}: {error}", self.log_path().display()))
    }

    fn with_open_log<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let mut kept = self.log.borrow_mut();
        let log = match kept.take() {
            Some(log) => log,
            None => self.open_log()?,
        };
        work(kept.insert(log))
    }

    /// Closes the log until it is needed again: for who goes on for long, as it may be set aside meanwhile.
    pub fn close(&self) {
        self.log.borrow_mut().take();
    }

    fn open_log(&self) -> rusqlite::Result<Connection> {
        // Made by us, so that it is private from the beginning and belongs to the folder's owner.
        self.private_file("bartleby.db").map_err(|error| {
            rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN),
                Some(error.to_string()),
            )
        })?;
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let log = Connection::open_with_flags(self.log_path(), flags)?;
        log.busy_timeout(PATIENCE)?;
        if log.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))? != SCHEMA_VERSION {
            log.execute_batch(SCHEMA)?;
            log.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        Ok(log)
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.directory.join("bartleby.db")
    }
}

/// Raised with each change of [`SCHEMA`].
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS flush (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    started INTEGER NOT NULL,
    target TEXT NOT NULL,
    by TEXT NOT NULL,
    messages INTEGER,
    recipients INTEGER,
    exit TEXT,
    sampled INTEGER,
    messages_left INTEGER NOT NULL DEFAULT 0,
    recipients_left INTEGER NOT NULL DEFAULT 0,
    why TEXT NOT NULL DEFAULT '',
    settled INTEGER NOT NULL DEFAULT 0,
    ids TEXT
);
CREATE TABLE IF NOT EXISTS primary_host (
    host TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    since INTEGER NOT NULL,
    back INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS sample (
    taken INTEGER PRIMARY KEY,
    messages INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    bytes INTEGER,
    free INTEGER
)";

/// SQLite's integers are signed; no count comes near their end.
pub(super) fn as_signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn as_unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn is_damaged(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
        // A table of this name with other columns or values is none of ours.
        || matches!(
            error,
            rusqlite::Error::SqlInputError { .. }
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
                | rusqlite::Error::FromSqlConversionFailure(..)
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Waited;
    use crate::state::log::tests::new_flush;
    use crate::state::tests::records;

    #[test]
    fn a_damaged_log_is_set_aside() {
        for damage in [&b"this is no database, however long it is"[..], &[0x53; 5000]] {
            let folder = tempfile::tempdir().unwrap();
            let records = records(folder.path()).unwrap();
            fs::write(records.log_path(), damage).unwrap();
            assert_eq!(records.flushes(10), Ok(vec![]));
            let turn = records.turn().unwrap();
            assert_eq!(records.record(&turn, &new_flush(), &Waited::By(1)), Ok(1));
            let names =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            assert_eq!(names.filter(|name| name.starts_with("bartleby.db.damaged-")).count(), 1);
        }
    }
}
