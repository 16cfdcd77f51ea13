//! What is remembered between requests: the lock under which one flush runs at a time, and the log of
//! flushes with what came of them.
//!
//! Nothing here is needed to list or to flush. Where no folder is usable, or the disk is full, the
//! cool-down and the log are off, and that is said. The log is an SQLite database, so that any number of
//! processes may use it, and may be killed at any time, without it ever telling half a truth.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};

use crate::primary::Condition;
use crate::system::{self, Account};

/// The folder that `make install` makes for the web server's user.
const DEFAULT_DIRECTORY: &str = "/var/lib/bartleby";

/// How many may list the queue at a time: more only slow each other, and the mail server, down.
const LISTINGS: usize = 2;

/// What the name of a damaged log begins with.
const SET_ASIDE: &str = "bartleby.db.damaged-";

/// What an entry takes at the most, in bytes: the ids of the messages that waited.
const ROOM: u64 = 1024 * 1024;

/// How many flushes are kept.
const KEPT: u64 = 1000;

/// For how many of them it is kept which messages waited.
const IDS_KEPT: u64 = 10;

/// How many primaries are kept in mind.
const PRIMARIES_KEPT: i64 = 100;

/// For how long samples are kept, in seconds: eight days.
const SAMPLES_KEPT: i64 = 8 * 24 * 60 * 60;

/// How far samples older than a day are apart, in seconds.
const THINNED_TO: i64 = 15 * 60;

/// How long a process waits for another one to finish its entry.
const PATIENCE: Duration = Duration::from_secs(2);

/// A flush on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flush {
    /// Its number, counted from 1; the `N` of `?flushed=N`.
    pub number: u64,
    /// When it was started, in seconds since 1970.
    pub started: i64,
    /// What was flushed: `all`, `domain:NAME` or `id:ID`.
    pub target: String,
    /// Who asked: an address, a login name, or both.
    pub by: String,
    /// Messages of the target that waited then; `None` where the queue could not be listed.
    pub messages: Option<u64>,
    /// Recipients that waited then.
    pub recipients: Option<u64>,
    /// How the flush command ended; `None` while it runs.
    pub exit: Option<String>,
    /// What came of it, as far as it was watched.
    pub outcome: Option<Outcome>,
}

/// What came of a flush. Messages that came in after it was started don't count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// When the queue was last looked at, in seconds since 1970.
    pub sampled: i64,
    /// Messages of the flush that still wait.
    pub messages_left: u64,
    /// Recipients of the flush that still wait.
    pub recipients_left: u64,
    /// Why they wait, in words.
    pub why: String,
    /// Whether the queue has stopped changing: this is the end of it.
    pub settled: bool,
}

/// Which messages were there when a flush was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Those with these queue ids.
    Ids(HashSet<String>),
    /// Those that came in by then, in seconds since 1970: where there were too many ids to remember, or
    /// they are no longer kept. Mail that came in just then may count wrongly.
    By(i64),
}

/// How much waited at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When it was taken, in seconds since 1970.
    pub taken: i64,
    /// Messages.
    pub messages: u64,
    /// Recipients.
    pub recipients: u64,
    /// Bytes; `None` where the mail server tells no sizes.
    pub bytes: Option<u64>,
    /// Bytes free on the filesystem of the queue.
    pub free: Option<u64>,
}

/// A folder of our own.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    /// Opened when it is first needed, and kept: opening takes longer than what is then done.
    log: Rc<RefCell<Option<Connection>>>,
}

/// The right to flush, held as long as this file, or a copy of its descriptor, is open in any process.
#[derive(Debug)]
pub struct Turn(pub File);

/// Why there is no turn now.
#[derive(Debug, PartialEq, Eq)]
pub enum NoTurn {
    /// A flush is under way.
    Taken,
    /// The lock file can't be used.
    Unusable(String),
}

impl Store {
    /// The configured folder, or else the first usable of `/var/lib/bartleby` and a private folder
    /// under `/run` or `/tmp`.
    ///
    /// # Errors
    /// Why none is usable.
    pub fn open(configured: Option<&Path>, account: &Account) -> Result<Store, String> {
        if let Some(directory) = configured {
            return Store::at(directory, account);
        }
        let private = |parent: &str| Path::new(parent).join(format!("bartleby-{}", account.uid));
        let default = Path::new(DEFAULT_DIRECTORY);
        let mut reasons = Vec::new();
        // Only the installation makes the default folder: made by root it would shut others out.
        let candidates = default.is_dir().then(|| default.to_owned());
        for directory in candidates.into_iter().chain([private("/run"), private("/tmp")]) {
            match Store::at(&directory, account) {
                Ok(store) => return Ok(store),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(reasons.join("; "))
    }

    /// One folder, made if need be. It must be ours (or, for root, anybody's) and closed to others,
    /// as a stranger could otherwise hold the lock or write the log.
    fn at(directory: &Path, account: &Account) -> Result<Store, String> {
        let shown = directory.display();
        let made = DirBuilder::new().mode(0o700).create(directory);
        let found = fs::symlink_metadata(directory).map_err(|error| {
            format!("{shown}: {}", made.err().map_or_else(|| error.to_string(), |made| made.to_string()))
        })?;
        if !found.is_dir() {
            return Err(format!("{shown} is not a folder"));
        }
        if found.uid() != account.uid && !account.is_root() {
            return Err(format!("{shown} belongs to user {}, not to {}", found.uid(), account.name));
        }
        if found.mode() & 0o022 != 0 {
            return Err(format!("{shown} can be written to by others"));
        }
        let store = Store { directory: directory.to_owned(), log: Rc::default() };
        store.private_file("flush.lock").map_err(|error| format!("{shown}/flush.lock: {error}"))?;
        Ok(store)
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether there is room to write, as far as can be told without writing.
    ///
    /// # Errors
    /// Why not.
    pub fn room(&self) -> Result<(), String> {
        let told = |reason: &str| format!("{}: {reason}", self.directory.display());
        let stat = statvfs(&self.directory).map_err(|error| told(error.desc()))?;
        if stat.blocks_available().saturating_mul(stat.fragment_size()) < ROOM {
            Err(told("no space left"))
        } else {
            Ok(())
        }
    }

    /// A damaged log that was set aside and is still there.
    pub fn set_aside(&self) -> Option<PathBuf> {
        let entries = fs::read_dir(&self.directory).ok()?;
        entries.flatten().map(|entry| entry.path()).find(|path| path.to_string_lossy().contains(SET_ASIDE))
    }

    /// Takes the turn to flush. It waits for no flush, only for the moment in which
    /// [`Store::is_taken`] looks.
    ///
    /// # Errors
    /// [`NoTurn`].
    pub fn turn(&self) -> Result<Turn, NoTurn> {
        let mut turn = self.try_turn();
        for _ in 0..10 {
            if !matches!(turn, Err(NoTurn::Taken)) {
                break;
            }
            thread::sleep(Duration::from_millis(5));
            turn = self.try_turn();
        }
        turn
    }

    /// Whether a flush is under way.
    pub fn is_taken(&self) -> bool {
        matches!(self.try_turn(), Err(NoTurn::Taken))
    }

    fn try_turn(&self) -> Result<Turn, NoTurn> {
        let file = self.private_file("flush.lock").map_err(|error| NoTurn::Unusable(error.to_string()))?;
        match file.try_lock() {
            Ok(()) => Ok(Turn(file)),
            Err(TryLockError::WouldBlock) => Err(NoTurn::Taken),
            Err(TryLockError::Error(error)) => Err(NoTurn::Unusable(error.to_string())),
        }
    }

    /// Waits for a place among the [`LISTINGS`] that may list at a time; it is held as long as the file is open.
    /// Where the files can't be used there is no limit.
    ///
    /// # Errors
    /// [`NoTurn::Taken`]: the deadline has passed, and others were listing all the time.
    pub fn listing_place(&self, deadline: Instant) -> Result<Option<File>, NoTurn> {
        loop {
            for place in 0..LISTINGS {
                let Ok(file) = self.private_file(&format!("listing-{place}.lock")) else { return Ok(None) };
                match file.try_lock() {
                    Ok(()) => return Ok(Some(file)),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(_)) => return Ok(None),
                }
            }
            if Instant::now() >= deadline {
                return Err(NoTurn::Taken);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last flushes, the latest first.
    ///
    /// # Errors
    /// Why the log can't be read. One that was never written is empty.
    pub fn flushes(&self, limit: u32) -> Result<Vec<Flush>, String> {
        if !self.log_path().exists() {
            return Ok(Vec::new());
        }
        self.with_log(|log| {
            let mut query = log.prepare(&format!("SELECT {COLUMNS} FROM flush ORDER BY number DESC LIMIT ?1"))?;
            query.query_map([limit], flush)?.collect()
        })
    }

    /// One flush, if it is (still) on record.
    ///
    /// # Errors
    /// As [`Store::flushes`].
    pub fn flush(&self, number: u64) -> Result<Option<Flush>, String> {
        if !self.log_path().exists() {
            return Ok(None);
        }
        self.with_log(|log| {
            let query = format!("SELECT {COLUMNS} FROM flush WHERE number = ?1");
            log.query_row(&query, [as_signed(number)], flush).optional()
        })
    }

    /// Which messages waited when a flush was started, as far as that is still known.
    pub fn waited(&self, flush: &Flush) -> Waited {
        let ids = self.with_log(|log| {
            let query = "SELECT ids FROM flush WHERE number = ?1";
            log.query_row(query, [as_signed(flush.number)], |row| row.get::<_, Option<String>>(0)).optional()
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
    pub fn record(&self, _turn: &Turn, flush: &Flush, waited: &Waited) -> Result<u64, String> {
        let ids = match waited {
            Waited::Ids(ids) => Some(ids.iter().map(String::as_str).collect::<Vec<_>>().join("\n")),
            Waited::By(_) => None,
        };
        self.with_log(|log| {
            // AUTOINCREMENT: a number is never given twice, even when its flush was withdrawn.
            log.execute(
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
            let number = log.last_insert_rowid();
            log.execute("DELETE FROM flush WHERE number <= ?1", [number - as_signed(KEPT)])?;
            log.execute("UPDATE flush SET ids = NULL WHERE number <= ?1", [number - as_signed(IDS_KEPT)])?;
            Ok(as_unsigned(number))
        })
    }

    /// Takes a flush off the record that did not run after all: it starts no cool-down.
    pub fn withdraw(&self, _turn: &Turn, number: u64) {
        let outcome = self.with_log(|log| log.execute("DELETE FROM flush WHERE number = ?1", [as_signed(number)]));
        if let Err(error) = outcome {
            system::log(&format!("the flush could not be taken off the record: {error}"));
        }
    }

    /// Adds how the flush command ended.
    ///
    /// # Errors
    /// As [`Store::record`].
    pub fn add_exit(&self, number: u64, exit: &str) -> Result<(), String> {
        self.with_log(|log| {
            log.execute("UPDATE flush SET exit = ?2 WHERE number = ?1", params![as_signed(number), exit]).map(|_| ())
        })
    }

    /// Adds what came of the flush. What is settled stays so.
    ///
    /// # Errors
    /// As [`Store::record`].
    pub fn add_outcome(&self, number: u64, outcome: &Outcome) -> Result<(), String> {
        self.with_log(|log| {
            log.execute(
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
            )
            .map(|_| ())
        })
    }

    /// Takes note of how the primaries were found. Returns since when each is so, in seconds since 1970; of one
    /// whose condition is not known nothing is noted.
    ///
    /// # Errors
    /// As [`Store::record`]; what did not change is not written, so that a full disk does no harm.
    pub fn note_primaries(&self, found: &[(&str, Condition)], now: i64) -> Result<Vec<Option<i64>>, String> {
        if found.is_empty() {
            return Ok(Vec::new());
        }
        self.with_log(|log| {
            let note = |&(host, condition): &(&str, Condition)| {
                let query = "SELECT state, since FROM primary_host WHERE host = ?1";
                let known = log
                    .query_row(query, [host], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))
                    .optional()?;
                if condition == Condition::Unknown {
                    return Ok(None);
                }
                let state = condition.as_str();
                match known {
                    Some((known, since)) if known == state => return Ok(Some(since.min(now))),
                    Some(_) => log.execute(
                        "UPDATE primary_host SET state = ?2, since = ?3, back = (?2 = 'up') WHERE host = ?1",
                        params![host, state, now],
                    )?,
                    None => log.execute(
                        "INSERT OR IGNORE INTO primary_host (host, state, since) VALUES (?1, ?2, ?3)",
                        params![host, state, now],
                    )?,
                };
                log.execute(
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
    /// As [`Store::flushes`].
    pub fn is_back(&self, hosts: &[&str]) -> Result<bool, String> {
        self.with_log(|log| {
            let mut query = log.prepare("SELECT host FROM primary_host WHERE back")?;
            let back = query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
            Ok(back.iter().any(|host| hosts.contains(&host.as_str())))
        })
    }

    /// Notes that the queue has been run, or that nothing waits, since the primaries came back.
    ///
    /// # Errors
    /// As [`Store::record`].
    pub fn welcome_back(&self) -> Result<(), String> {
        self.with_log(|log| log.execute("UPDATE primary_host SET back = 0 WHERE back", []).map(|_| ()))
    }

    /// Takes note of how much waits, and returns all that was noted, the oldest first: one sample a minute, after a
    /// day one each [`THINNED_TO`], and none older than [`SAMPLES_KEPT`].
    ///
    /// # Errors
    /// As [`Store::record`].
    pub fn add_sample(&self, sample: &Sample) -> Result<Vec<Sample>, String> {
        self.with_log(|log| {
            // One transaction takes the file's lock once.
            let transaction = log.unchecked_transaction()?;
            let samples = add_sample(&transaction, sample)?;
            transaction.commit().map(|()| samples)
        })
    }

    /// Does something with the log. A log that is damaged is set aside, and said so in the error log;
    /// then it is done with a new one.
    fn with_log<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, String> {
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

    /// Opens a file of ours, made with mode 0600 if need be. What root makes in another user's folder
    /// must stay usable for that user.
    fn private_file(&self, name: &str) -> std::io::Result<File> {
        let path = self.directory.join(name);
        let options = |create| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(create).truncate(false).mode(0o600);
            options.custom_flags(nix::libc::O_NOFOLLOW);
            options
        };
        let file = options(false).open(&path).or_else(|_| options(true).open(&path))?;
        if let (Ok(folder), Ok(made)) = (fs::metadata(&self.directory), file.metadata())
            && folder.uid() != made.uid()
        {
            // Only root can, and only root needs to.
            let _ = fchown(&file, Some(folder.uid()), Some(folder.gid()));
        }
        Ok(file)
    }

    fn log_path(&self) -> PathBuf {
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

const COLUMNS: &str =
    "number, started, target, by, messages, recipients, exit, sampled, messages_left, recipients_left, why, settled";

fn flush(row: &Row<'_>) -> rusqlite::Result<Flush> {
    let unsigned = |index| row.get::<_, Option<i64>>(index).map(|number| number.map(as_unsigned));
    let outcome = match row.get(7)? {
        None => None,
        Some(sampled) => Some(Outcome {
            sampled,
            messages_left: as_unsigned(row.get(8)?),
            recipients_left: as_unsigned(row.get(9)?),
            why: row.get(10)?,
            settled: row.get(11)?,
        }),
    };
    Ok(Flush {
        number: as_unsigned(row.get(0)?),
        started: row.get(1)?,
        target: row.get(2)?,
        by: row.get(3)?,
        messages: unsigned(4)?,
        recipients: unsigned(5)?,
        exit: row.get(6)?,
        outcome,
    })
}

fn add_sample(log: &Connection, sample: &Sample) -> rusqlite::Result<Vec<Sample>> {
    let minute = sample.taken - sample.taken.rem_euclid(60);
    let known = log.query_row("SELECT 1 FROM sample WHERE taken = ?1", [minute], |_| Ok(())).optional()?;
    if known.is_none() {
        log.execute(
            "INSERT INTO sample (taken, messages, recipients, bytes, free) VALUES (?1, ?2, ?3, ?4, ?5)",
            params![
                minute,
                as_signed(sample.messages),
                as_signed(sample.recipients),
                sample.bytes.map(as_signed),
                sample.free.map(as_signed)
            ],
        )?;
        log.execute("DELETE FROM sample WHERE taken < ?1 OR taken > ?2", [sample.taken - SAMPLES_KEPT, sample.taken])?;
        log.execute(
            // By ranges of the key, as this is done at nearly every look.
            "DELETE FROM sample WHERE taken < ?1 AND EXISTS (SELECT 1 FROM sample AS other
             WHERE other.taken >= sample.taken - sample.taken % ?2 AND other.taken < sample.taken)",
            [sample.taken - 24 * 60 * 60, THINNED_TO],
        )?;
    }
    let mut query = log.prepare("SELECT taken, messages, recipients, bytes, free FROM sample ORDER BY taken")?;
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

/// SQLite's integers are signed; no count comes near their end.
fn as_signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn as_unsigned(number: i64) -> u64 {
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
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn store(directory: &Path) -> Result<Store, String> {
        Store::open(Some(directory), &Account::current())
    }

    fn new_flush() -> Flush {
        Flush {
            number: 0,
            started: 1,
            target: "all".into(),
            by: "::1".into(),
            messages: Some(2),
            recipients: Some(3),
            exit: None,
            outcome: None,
        }
    }

    #[test]
    fn one_turn_at_a_time_until_the_last_copy_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (store(folder.path()).unwrap(), store(folder.path()).unwrap());
        let turn = one.turn().unwrap();
        let copy = turn.0.try_clone().unwrap();
        assert_eq!(other.turn().unwrap_err(), NoTurn::Taken);
        drop(turn);
        assert!(other.is_taken(), "the copy still holds it");
        drop(copy);
        assert!(other.turn().is_ok());
    }

    #[test]
    fn two_list_at_a_time_and_a_third_waits() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).unwrap();
        let now = Instant::now;
        let first = store.listing_place(now()).unwrap().unwrap();
        let _second = store.listing_place(now()).unwrap().unwrap();
        assert!(store.listing_place(now()).is_err());
        let waiting = thread::spawn({
            let folder = folder.path().to_owned();
            move || self::store(&folder).unwrap().listing_place(now() + Duration::from_secs(20)).is_ok()
        });
        thread::sleep(Duration::from_millis(50));
        drop(first);
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn flushes_are_remembered_with_what_came_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).unwrap();
        assert_eq!(store.flushes(10), Ok(vec![]));
        assert_eq!(store.flush(1), Ok(None));
        let turn = store.turn().unwrap();
        assert_eq!(store.record(&turn, &new_flush(), &Waited::By(1)), Ok(1));
        assert_eq!(store.record(&turn, &new_flush(), &Waited::By(1)), Ok(2));
        store.add_exit(2, "ended with status 0").unwrap();
        let outcome =
            Outcome { sampled: 9, messages_left: 1, recipients_left: 2, why: "full (2)".into(), settled: false };
        store.add_outcome(2, &outcome).unwrap();
        let settled = Outcome { settled: true, ..outcome.clone() };
        store.add_outcome(2, &settled).unwrap();
        store.add_outcome(2, &Outcome::default()).unwrap();
        let second =
            Flush { number: 2, exit: Some("ended with status 0".into()), outcome: Some(settled), ..new_flush() };
        assert_eq!(store.flushes(10), Ok(vec![second, Flush { number: 1, ..new_flush() }]));
        store.withdraw(&turn, 2);
        assert_eq!(store.flush(2), Ok(None));
        assert_eq!(store.record(&turn, &new_flush(), &Waited::By(1)), Ok(3), "a number is given once");
    }

    #[test]
    fn which_messages_waited_is_kept_for_the_last_flushes() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).unwrap();
        let turn = store.turn().unwrap();
        let waited = Waited::Ids(["A1".to_owned(), "B2".to_owned()].into());
        let record = || Flush { number: store.record(&turn, &new_flush(), &waited).unwrap(), ..new_flush() };
        let first = record();
        assert_eq!(store.waited(&first), waited);
        (0..IDS_KEPT).for_each(|_| _ = record());
        assert_eq!(store.waited(&first), Waited::By(first.started));
        assert_eq!(store.waited(&new_flush()), Waited::By(1), "not on record");
        let none = store.record(&turn, &new_flush(), &Waited::Ids([].into())).unwrap();
        assert_eq!(store.waited(&Flush { number: none, ..new_flush() }), Waited::Ids([].into()));
    }

    #[test]
    fn since_when_a_primary_is_up_or_down_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).unwrap();
        let note = |host: &str, condition, now| store.note_primaries(&[(host, condition)], now).unwrap()[0];
        assert_eq!(note("mx", Condition::Up, 100), Some(100));
        assert_eq!(store.is_back(&["mx"]), Ok(false), "it was never seen down");
        assert_eq!(note("mx", Condition::Up, 200), Some(100));
        assert_eq!(note("mx", Condition::Unknown, 250), None);
        assert_eq!(note("mx", Condition::Down, 300), Some(300));
        assert_eq!(note("mx", Condition::Down, 50), Some(50), "the clock was set back");
        assert_eq!(note("mx", Condition::Up, 400), Some(400));
        assert_eq!((store.is_back(&["mx"]), store.is_back(&["other"])), (Ok(true), Ok(false)));
        store.welcome_back().unwrap();
        assert_eq!(store.is_back(&["mx"]), Ok(false));
        for number in 0..PRIMARIES_KEPT * 2 {
            note(&format!("mx{number}"), Condition::Up, 500 + number);
        }
        let kept = store.with_log(|log| log.query_row("SELECT count(*) FROM primary_host", [], |row| row.get(0)));
        assert_eq!(kept, Ok(PRIMARIES_KEPT));
    }

    #[test]
    fn samples_are_kept_for_some_days() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).unwrap();
        let sample = |taken| Sample { taken, messages: 2, recipients: 3, bytes: None, free: Some(9) };
        let start = 100 * THINNED_TO;
        let add = |seconds| store.add_sample(&sample(start + seconds)).unwrap();
        let after = [0, 59, 60, 60, 125].map(add);
        assert_eq!(after[4], [sample(start), sample(start + 60), sample(start + 120)]);
        assert_eq!(add(2 * 24 * 60 * 60).len(), 2, "a day later, one of each quarter of an hour is left");
        assert_eq!(add(60 + SAMPLES_KEPT).len(), 2, "the first is too old");
        assert_eq!(add(-start), [sample(0)], "after the clock was set back, what was the future is gone");
    }

    #[test]
    fn a_log_with_values_that_make_no_sense_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).unwrap();
        store.record(&store.turn().unwrap(), &new_flush(), &Waited::By(1)).unwrap();
        store.with_log(|log| log.execute("UPDATE flush SET started = 'yesterday'", [])).unwrap();
        assert_eq!(store.flushes(10), Ok(vec![]));
    }

    #[test]
    fn the_log_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).unwrap();
        let turn = store.turn().unwrap();
        store.record(&turn, &new_flush(), &Waited::By(1)).unwrap();
        let last = KEPT + 5;
        store.with_log(|log| log.execute("UPDATE flush SET number = ?1", [as_signed(last)])).unwrap();
        assert_eq!(store.flushes(10_000).unwrap()[0].number, last);
        store.with_log(|log| log.execute("UPDATE sqlite_sequence SET seq = ?1", [as_signed(last + KEPT)])).unwrap();
        store.record(&turn, &new_flush(), &Waited::By(1)).unwrap();
        assert_eq!(store.flushes(10_000).unwrap().len(), 1, "the one that is {KEPT} numbers older is gone");
    }

    #[test]
    fn a_damaged_log_is_set_aside() {
        for damage in [&b"this is no database, however long it is"[..], &[0x53; 5000]] {
            let folder = tempfile::tempdir().unwrap();
            let store = store(folder.path()).unwrap();
            fs::write(store.log_path(), damage).unwrap();
            assert_eq!(store.flushes(10), Ok(vec![]));
            let turn = store.turn().unwrap();
            assert_eq!(store.record(&turn, &new_flush(), &Waited::By(1)), Ok(1));
            let names =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            assert_eq!(names.filter(|name| name.starts_with("bartleby.db.damaged-")).count(), 1);
        }
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(store(folder.path()).unwrap_err().contains("written to by others"));
        let link = folder.path().join("link");
        symlink("/etc", &link).unwrap();
        assert!(store(&link).unwrap_err().contains("is not a folder"));
        assert!(store(&folder.path().join("no/such")).unwrap_err().contains("No such file"));
    }

    #[test]
    fn a_file_that_is_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        symlink("/etc/passwd", folder.path().join("flush.lock")).unwrap();
        assert!(store(folder.path()).is_err());
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).unwrap();
        let target = folder.path().join("target");
        symlink(&target, store.log_path()).unwrap();
        assert!(store.record(&store.turn().unwrap(), &new_flush(), &Waited::By(1)).is_err());
        assert!(!target.exists());
    }
}
