//! The database: opened when it is first needed, made where there is none, set aside where it is damaged.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Records, StateError};
use crate::system;

/// The database's file.
const FILE: &str = "bartleby.db";

/// What SQLite puts beside it: <https://sqlite.org/tempfiles.html>.
const BESIDE: [&str; 3] = ["bartleby.db-journal", "bartleby.db-wal", "bartleby.db-shm"];

/// What the name of a damaged database begins with. Digits follow: when it was set aside, in seconds since 1970.
const SET_ASIDE: &str = "bartleby.db.damaged-";

/// How long a process waits for another one to finish its entry.
const PATIENCE: Duration = Duration::from_secs(2);

/// What keeps the database from answering.
enum Fault {
    /// What it holds is not ours, or no longer.
    Damaged(String),
    /// It is left as it is.
    Refused(StateError),
    /// Anything else that SQLite says: a full disk, say.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        if is_damaged(&error) { Fault::Damaged(error.to_string()) } else { Fault::Sql(error) }
    }
}

impl From<StateError> for Fault {
    fn from(error: StateError) -> Fault {
        Fault::Refused(error)
    }
}

/// Whether this name was given to a damaged database. Only names of our own making count, as they are printed in
/// commands to be pasted.
pub(super) fn is_set_aside(name: &str) -> bool {
    let digits = name.strip_prefix(SET_ASIDE).unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

impl Records {
    /// Does something with the database. One that is damaged is set aside, which the error log says; then it is done
    /// with a new one.
    pub(super) fn with_database<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, StateError> {
        let path = self.folder.path_of(FILE);
        let identity = || fs::symlink_metadata(&path).ok().map(|file| (file.dev(), file.ino()));
        let before = identity();
        let done = match self.attempt(&work) {
            Err(Fault::Damaged(why)) => {
                self.close();
                // Another process may have done so already: then a new one stands here.
                if before.is_some() && identity() == before {
                    self.put_aside(&why);
                }
                self.attempt(&work)
            }
            done => done,
        };
        done.map_err(|fault| match fault {
            Fault::Refused(error) => error,
            Fault::Damaged(why) => StateError::Database { path, why },
            Fault::Sql(error) => StateError::Database { path, why: error.to_string() },
        })
    }

    /// Whether there is a database, of whatever kind.
    pub(super) fn has_database(&self) -> bool {
        self.folder.has(FILE)
    }

    fn attempt<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, Fault> {
        let mut kept = self.database.borrow_mut();
        let database = match kept.take() {
            Some(database) => database,
            None => self.open_database()?,
        };
        Ok(work(kept.insert(database))?)
    }

    fn put_aside(&self, why: &str) {
        let file = self.folder.path_of(FILE);
        let aside = self.folder.path_of(&format!("{SET_ASIDE}{}", jiff::Timestamp::now().as_second()));
        system::log(&format!("{} is damaged ({why}) and was set aside as {}", file.display(), aside.display()));
        // Where that fails, the second attempt says so.
        let _ = fs::rename(file, aside);
    }

    /// Closes the database until it is needed again. For a process that goes on for long, as another one may set the
    /// database aside meanwhile.
    pub fn close(&self) {
        self.database.borrow_mut().take();
    }

    fn open_database(&self) -> Result<Connection, Fault> {
        // Made by us, so that it is private from the beginning. SQLite opens it by its name.
        self.folder.file(FILE)?;
        BESIDE.iter().try_for_each(|name| self.folder.vet_if_there(name))?;
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let database = Connection::open_with_flags(self.folder.path_of(FILE), flags)?;
        database.busy_timeout(PATIENCE)?;
        if database.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))? != SCHEMA_VERSION {
            database.execute_batch(SCHEMA)?;
            database.pragma_update(None, "user_version", SCHEMA_VERSION)?;
        }
        Ok(database)
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
    use std::os::unix::fs::symlink;

    use crate::state::Waited;
    use crate::state::log::tests::new_flush;
    use crate::state::tests::records;

    #[test]
    fn a_damaged_log_is_set_aside() {
        for damage in [&b"this is no database, however long it is"[..], &[0x53; 5000]] {
            let folder = tempfile::tempdir().unwrap();
            let records = records(folder.path()).unwrap();
            fs::write(folder.path().join(FILE), damage).unwrap();
            assert_eq!(records.flushes(10), Ok(vec![]));
            let turn = records.turn().unwrap();
            assert_eq!(records.record(&turn, &new_flush(), &Waited::By(1)), Ok(1));
            let names =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            assert_eq!(names.filter(|name| name.starts_with("bartleby.db.damaged-")).count(), 1);
        }
    }

    #[test]
    fn only_names_of_our_own_making_count_as_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        for name in ["bartleby.db.damaged-1'; id >pwned; echo '", "bartleby.db.damaged-", "x-bartleby.db.damaged-1"] {
            fs::write(folder.path().join(name), "").unwrap();
            assert_eq!(records.set_aside(), None, "{name}");
        }
        let ours = folder.path().join("bartleby.db.damaged-1795510615");
        fs::write(&ours, "").unwrap();
        assert_eq!(records.set_aside(), Some(ours));
    }

    #[test]
    fn a_file_that_is_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        symlink("/etc/passwd", folder.path().join("flush.lock")).unwrap();
        assert!(self::records(folder.path()).is_err());
        for name in BESIDE.into_iter().chain([FILE]) {
            let folder = tempfile::tempdir().unwrap();
            let records = records(folder.path()).unwrap();
            let target = folder.path().join("target");
            symlink(&target, folder.path().join(name)).unwrap();
            assert!(records.record(&records.turn().unwrap(), &new_flush(), &Waited::By(1)).is_err());
            assert!(!target.exists());
        }
    }
}
