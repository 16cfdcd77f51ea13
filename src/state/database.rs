//! The database: opened when it is first needed, made where there is none, set aside where it is damaged.
//!
//! Who reads it waits for nobody, and not for a disk: it is never changed where it stands. Who changes it, one at a time,
//! changes a copy, has the disk take that (fsync(2)), and puts it in the place of the other (rename(2)). So it is always
//! whole, whatever is killed or loses its power meanwhile.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::{Records, StateError, schema};
use crate::system;

/// The database's file.
const FILE: &str = "bartleby.db";

/// The copy that is being changed.
const DRAFT: &str = "bartleby.db.new";

/// The file whose holder may change the database.
const LOCK: &str = "database.lock";

/// What an earlier version of this program, which changed it where it stood, had SQLite put beside it:
/// <https://sqlite.org/tempfiles.html>.
const BESIDE: [&str; 3] = ["bartleby.db-journal", "bartleby.db-wal", "bartleby.db-shm"];

/// What every database begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// What the name of a damaged database begins with. Digits follow: when it was set aside, in seconds since 1970.
const SET_ASIDE: &str = "bartleby.db.damaged-";

/// How long who changes the database waits for another one, whose disk may be slow; and how long after a look the next
/// one follows.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(10);

/// The longest database that is copied, in bytes. Ours has a few MiB at the most: the ids of ten flushes.
const LONGEST: u64 = 64 << 20;

/// How long one piece of work with the database may take. The database is small: a view that never ends is stopped so.
const WORK_LIMIT: Duration = Duration::from_secs(2);

/// After how many of its instructions SQLite looks at the clock.
const CLOCK_EVERY: i32 = 1000;

/// What a connection may do: <https://sqlite.org/c3ref/c_dbconfig_defensive.html>.
const SETTINGS: &[(DbConfig, bool)] = &[
    (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
    (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
    (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
    (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
    (DbConfig::SQLITE_DBCONFIG_DQS_DDL, false),
];

/// How much a connection may do, with room to spare above what is done here: bytes, numbers of things, depths.
/// See <https://sqlite.org/c3ref/c_limit_attached.html>.
const LIMITS: &[(Limit, i32)] = &[
    (Limit::SQLITE_LIMIT_LENGTH, 4 << 20),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 8 << 10),
    (Limit::SQLITE_LIMIT_COLUMN, 32),
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 20),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 2),
    (Limit::SQLITE_LIMIT_VDBE_OP, 4000),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 8),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 50),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 20),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
    (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
];

/// What keeps the database from answering.
pub(super) enum Fault {
    /// There is none.
    Missing,
    /// An earlier version of this program made it, so that tables are missing.
    Earlier,
    /// What it holds is not ours, or no longer.
    Damaged(String),
    /// A later version of this program made tables of this version.
    Later(i64),
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
    /// Does something with the database. Work that wants to change it finds that it can't, and is done again with a
    /// copy. One that is damaged is set aside, which the error log says; then it is done with a new one.
    pub(super) fn with_database<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, StateError> {
        let path = self.folder.path_of(FILE);
        let before = self.identity();
        let done = match self.attempt(&work) {
            Err(Fault::Damaged(why)) => {
                self.close();
                // Another process may have done so already: then a new one stands here.
                let _lock = self.lock()?;
                if before.is_some() && self.identity() == before {
                    self.put_aside(&why);
                }
                drop(_lock);
                self.attempt(&work)
            }
            done => done,
        };
        done.map_err(|fault| match fault {
            Fault::Missing | Fault::Earlier => StateError::Database { path, why: "it was taken away".into() },
            Fault::Refused(error) => error,
            Fault::Later(version) => StateError::Later { path, version, known: schema::VERSION },
            Fault::Damaged(why) => StateError::Database { path, why },
            Fault::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                StateError::Database { path, why: format!("it took longer than {} s", WORK_LIMIT.as_secs()) }
            }
            Fault::Sql(error) => StateError::Database { path, why: error.to_string() },
        })
    }

    /// Whether there is a database, or something in its place.
    pub(super) fn has_database(&self) -> bool {
        self.folder.has(FILE)
    }

    /// Which file stands there.
    fn identity(&self) -> Option<Identity> {
        fs::symlink_metadata(self.folder.path_of(FILE)).ok().map(|file| (file.dev(), file.ino()))
    }

    fn attempt<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, Fault> {
        match self.read(&work) {
            Err(Fault::Sql(error)) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => self.change(&work),
            Err(Fault::Missing | Fault::Earlier) => self.change(&work),
            done => done,
        }
    }

    fn read<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, Fault> {
        let mut kept = self.database.borrow_mut();
        let identity = self.identity().ok_or(Fault::Missing)?;
        let (_, database) = match kept.take().filter(|(of, _)| *of == identity) {
            Some(opened) => kept.insert(opened),
            None => {
                let file = self.folder.file(FILE)?;
                read_header(&file)?;
                let mut database = self.connect(FILE, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
                schema::check(&mut database)?;
                kept.insert((identity, database))
            }
        };
        limit_time(database)?;
        Ok(work(database)?)
    }

    /// Works with a copy, and puts it in the place of the database.
    fn change<T>(&self, work: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, Fault> {
        let _lock = self.lock()?;
        let path = self.folder.path_of(DRAFT);
        // One who was killed may have left it.
        let _ = fs::remove_file(&path);
        let mut draft = self.folder.file(DRAFT)?;
        let system = |error: io::Error| Fault::Refused(StateError::system(&path, error));
        if self.has_database() {
            let file = self.folder.file(FILE)?;
            read_header(&file)?;
            if self.folder.has(BESIDE[0]) {
                // An earlier version was killed in the middle of a change: SQLite undoes it.
                self.connect(FILE, OpenFlags::SQLITE_OPEN_READ_WRITE)?
                    .query_row("PRAGMA user_version", [], |_| Ok(()))?;
            }
            let length = file.metadata().map_err(system)?.len();
            if length > LONGEST {
                return Err(Fault::Damaged(format!("it has {length} bytes")));
            }
            io::copy(&mut &file, &mut draft).map_err(system)?;
            draft.rewind().map_err(system)?;
        }
        let mut database = self.connect(DRAFT, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // Until it is in its place, the disk need not take anything, and a copy that fails is thrown away.
        database.query_row("PRAGMA journal_mode = MEMORY", [], |_| Ok(()))?;
        database.execute_batch("PRAGMA synchronous = OFF")?;
        let is_new = schema::prepare(&mut database)?;
        limit_time(&mut database)?;
        let done = work(&database)?;
        let is_changed = is_new || database.total_changes() > 0;
        drop(database);
        if is_changed {
            draft.sync_all().map_err(system)?;
            fs::rename(&path, self.folder.path_of(FILE)).map_err(system)?;
            // Some filesystems can't; then it lasts as soon as they write it themselves.
            let _ = File::open(self.folder.path()).and_then(|folder| folder.sync_all());
        } else {
            let _ = fs::remove_file(&path);
        }
        Ok(done)
    }

    /// The right to change the database.
    fn lock(&self) -> Result<File, StateError> {
        let file = self.folder.file(LOCK)?;
        let deadline = Instant::now() + PATIENCE;
        while file.try_lock().is_err() {
            if Instant::now() >= deadline {
                let why = format!("another process was changing it for {} s", PATIENCE.as_secs());
                return Err(StateError::Database { path: self.folder.path_of(FILE), why });
            }
            thread::sleep(AGAIN);
        }
        Ok(file)
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
    pub(crate) fn close(&self) {
        self.database.borrow_mut().take();
    }

    /// Opens a database by its name, whose file was vetted.
    fn connect(&self, name: &str, mode: OpenFlags) -> Result<Connection, Fault> {
        if name == FILE {
            BESIDE.iter().try_for_each(|name| self.folder.vet_if_there(name))?;
        }
        let flags = mode | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let mut database = Connection::open_with_flags(self.folder.path_of(name), flags)?;
        // An earlier version may be changing it where it stands.
        database.busy_timeout(WORK_LIMIT)?;
        limit_time(&mut database)?;
        harden(&database)?;
        Ok(database)
    }
}

/// A file by its device and its number there.
pub(super) type Identity = (u64, u64);

/// Refuses a database by its header alone: <https://sqlite.org/fileformat2.html>, section 1.3. A later version of this
/// program may have put it into a mode that we don't use.
fn read_header(file: &File) -> Result<(), Fault> {
    let mut header = [0; 100];
    if file.read_exact_at(&mut header, 0).is_err() {
        // A new one is empty. SQLite says of any other what is wrong with it.
        return Ok(());
    }
    let [.., a, b, c, d] = header.first_chunk::<64>().copied().unwrap_or([0; 64]);
    let version = i64::from(i32::from_be_bytes([a, b, c, d]));
    if header.starts_with(MAGIC) && version > schema::VERSION {
        return Err(Fault::Later(version));
    }
    // Every process maps the `-shm` file into its memory then (section 1.3.3).
    if header.starts_with(MAGIC) && header[18..20].contains(&2) {
        return Err(Fault::Damaged("it is in WAL mode, in which others can change memory of ours".into()));
    }
    Ok(())
}

/// Ends all work with the database, from now on, after [`WORK_LIMIT`].
fn limit_time(database: &mut Connection) -> rusqlite::Result<()> {
    let end = Instant::now() + WORK_LIMIT;
    database.progress_handler(CLOCK_EVERY, Some(move || Instant::now() >= end))
}

/// Takes from a connection everything that the log of flushes has no use for, so that a file made to do harm finds
/// little to do it with: <https://sqlite.org/security.html>, section 1.2.
fn harden(database: &Connection) -> rusqlite::Result<()> {
    for (setting, on) in SETTINGS {
        database.set_db_config(*setting, *on)?;
    }
    for (limit, most) in LIMITS {
        database.set_limit(*limit, *most)?;
    }
    database.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY")?;
    // This one answers with the size in force.
    database.query_row("PRAGMA mmap_size = 0", [], |_| Ok(())).optional().map(|_| ())
}

/// SQLite's integers are signed; no count comes near their end.
pub(super) fn as_signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn as_unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn is_damaged(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::TooBig))
        // Values that this program never writes.
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
        for name in BESIDE.into_iter().chain([FILE, LOCK, DRAFT]) {
            let folder = tempfile::tempdir().unwrap();
            let records = records(folder.path()).unwrap();
            let target = folder.path().join("target");
            symlink(&target, folder.path().join(name)).unwrap();
            let recorded = records.record(&records.turn().unwrap(), &new_flush(), &Waited::By(1));
            // A copy that somebody left is taken away, whatever it is.
            assert_eq!(recorded.is_err() || records.flushes(1).is_err(), name != DRAFT, "{name}");
            assert!(!target.exists());
        }
    }

    /// What is said of a database in which this SQL was run.
    fn said_of(sql: &str) -> (Result<Vec<crate::state::Flush>, StateError>, bool) {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        records.record(&records.turn().unwrap(), &new_flush(), &Waited::By(1)).unwrap();
        records.close();
        Connection::open(folder.path().join(FILE)).unwrap().execute_batch(sql).unwrap();
        (records.flushes(10), records.set_aside().is_some())
    }

    #[test]
    fn a_database_that_holds_anything_but_our_tables_is_set_aside_at_once() {
        let started = Instant::now();
        for sql in [
            "DROP TABLE flush; CREATE VIEW flush AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT * FROM n",
            "CREATE VIEW other AS SELECT 1",
            "CREATE TRIGGER t AFTER INSERT ON sample BEGIN DELETE FROM flush; END",
            "CREATE INDEX i ON flush (target)",
            "ALTER TABLE flush ADD COLUMN more AS (target || 'x')",
            "DROP TABLE sample",
            "DROP TABLE sample; CREATE TABLE sample (taken INTEGER PRIMARY KEY, messages CHECK (messages LIKE '%a%a%a%a%a%b'))",
            "PRAGMA user_version = -1",
            "PRAGMA journal_mode = WAL",
        ] {
            let (flushes, set_aside) = said_of(sql);
            assert_eq!((flushes, set_aside), (Ok(vec![]), true), "{sql}");
        }
        assert_eq!(said_of("SELECT 1").0.unwrap().len(), 1);
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn a_database_of_a_later_version_is_refused_and_left_untouched() {
        for mode in ["DELETE", "WAL"] {
            let folder = tempfile::tempdir().unwrap();
            let records = records(folder.path()).unwrap();
            let file = folder.path().join(FILE);
            let later = Connection::open(&file).unwrap();
            later.pragma_update(None, "journal_mode", mode).unwrap();
            later.execute_batch("CREATE TABLE flush (of_another_kind)").unwrap();
            later.pragma_update(None, "user_version", schema::VERSION + 1).unwrap();
            later.close().unwrap();
            let before = fs::read(&file).unwrap();
            let why = StateError::Later { path: file.clone(), version: schema::VERSION + 1, known: schema::VERSION };
            assert_eq!(records.flushes(10), Err(why.clone()));
            assert_eq!(records.record(&records.turn().unwrap(), &new_flush(), &Waited::By(1)), Err(why));
            assert!(fs::read(&file).unwrap() == before && records.set_aside().is_none());
        }
    }

    /// Views waited for the disk while a run was put on record.
    #[test]
    fn who_reads_waits_for_nobody_who_changes_it_and_who_was_killed_in_between_has_changed_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (records(folder.path()).unwrap(), records(folder.path()).unwrap());
        assert_eq!(one.record(&one.turn().unwrap(), &new_flush(), &Waited::By(1)), Ok(1));
        assert_eq!(other.flushes(10).unwrap().len(), 1);
        let _changing = one.lock().unwrap();
        fs::write(folder.path().join(DRAFT), "half of it").unwrap();
        assert_eq!(other.flushes(10).unwrap().len(), 1);
        assert_eq!(records(folder.path()).unwrap().flushes(10).unwrap().len(), 1);
        drop(_changing);
        assert_eq!(other.record(&other.turn().unwrap(), &new_flush(), &Waited::By(1)), Ok(2));
        assert_eq!(one.flushes(10).unwrap().len(), 2, "it finds the new one");
        assert!(!folder.path().join(DRAFT).exists());
    }

    #[test]
    fn work_that_changes_nothing_leaves_the_file_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        records.record(&records.turn().unwrap(), &new_flush(), &Waited::By(1)).unwrap();
        let before = records.identity();
        records.welcome_back().unwrap();
        assert!(before.is_some() && records.identity() == before);
        records.add_exit(1, "ended with status 0").unwrap();
        assert_ne!(records.identity(), before);
    }

    #[test]
    fn what_an_earlier_version_was_killed_at_is_undone() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        records.record(&records.turn().unwrap(), &new_flush(), &Waited::By(1)).unwrap();
        let killed = tempfile::tempdir().unwrap();
        let earlier = Connection::open(folder.path().join(FILE)).unwrap();
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
                    INSERT INTO primary_host (host, state, since) SELECT i, 'up', 1 FROM n";
        // What does not fit into memory is written before the end.
        let change = "PRAGMA cache_size = 1; BEGIN; UPDATE primary_host SET state = 'down'";
        earlier.execute_batch(&format!("{fill}; {change}")).unwrap();
        for name in [FILE, BESIDE[0]] {
            fs::copy(folder.path().join(name), killed.path().join(name)).unwrap();
        }
        drop(earlier);
        let records = self::records(killed.path()).unwrap();
        assert_eq!(records.flushes(10).map(|flushes| flushes.len()), Ok(1));
        records.add_exit(1, "ended with status 0").unwrap();
        let left = records.with_database(|database| {
            let query = "SELECT count(*) FROM primary_host WHERE state = 'up'";
            database.query_row(query, [], |row| row.get::<_, i64>(0))
        });
        assert_eq!((left, records.set_aside()), (Ok(3000), None));
    }

    #[test]
    fn work_that_never_ends_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
        let answer = records.with_database(|database| database.query_row(endless, [], |_| Ok(())));
        assert!(answer.unwrap_err().to_string().ends_with("it took longer than 2 s"));
        assert_eq!(records.set_aside(), None, "that says nothing of the file");
        assert_eq!(records.record(&records.turn().unwrap(), &new_flush(), &Waited::By(1)), Ok(1));
    }
}
