//! What is remembered between requests: the lock under which one flush runs at a time, and the last
//! flush. Nothing here is needed to list or to flush; where no folder is usable, the cool-down is off
//! and that is said.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::system::{self, Account};

/// The folder that `make install` makes for the web server's user.
const DEFAULT_DIRECTORY: &str = "/var/lib/bartleby";

/// A flush on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flush {
    /// Its number, counted from 1; the `N` of `?flushed=N`.
    pub number: u64,
    /// When it was started, in seconds since 1970.
    pub started: i64,
    /// What was flushed: `all`, `domain:NAME` or `id:ID`.
    pub target: String,
    /// Who asked: an address, a login name, or both.
    pub by: String,
    /// Messages that waited then; `None` where the queue could not be listed.
    pub messages: Option<u64>,
    /// Recipients that waited then.
    pub recipients: Option<u64>,
}

/// A folder of our own.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
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
    /// as a stranger could otherwise hold the lock or write the record.
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
        let store = Store { directory: directory.to_owned() };
        store.lock_file().map_err(|error| format!("{}: {error}", store.lock_path().display()))?;
        Ok(store)
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        &self.directory
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
        let file = self.lock_file().map_err(|error| NoTurn::Unusable(error.to_string()))?;
        match file.try_lock() {
            Ok(()) => Ok(Turn(file)),
            Err(TryLockError::WouldBlock) => Err(NoTurn::Taken),
            Err(TryLockError::Error(error)) => Err(NoTurn::Unusable(error.to_string())),
        }
    }

    /// The last flush, if one is on record.
    pub fn last_flush(&self) -> Option<Flush> {
        serde_json::from_slice(&fs::read(self.record_path()).ok()?).ok()
    }

    /// Puts a flush on record. To be called by the holder of the turn alone. The record is replaced as
    /// a whole, so that a reader sees the old or the new one.
    ///
    /// # Errors
    /// Why it could not be written.
    pub fn record(&self, _turn: &Turn, flush: &Flush) -> Result<(), String> {
        let new = self.directory.join("last-flush.json.new");
        let write = || {
            // A leftover of a process that was killed.
            let _ = fs::remove_file(&new);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            self.give_to_owner(&file);
            file.write_all(&serde_json::to_vec(flush)?)?;
            fs::rename(&new, self.record_path())
        };
        write().map_err(|error| format!("{}: {error}", self.record_path().display()))
    }

    /// Takes a flush off the record that did not run after all: it starts no cool-down.
    pub fn withdraw(&self, turn: &Turn, previous: Option<&Flush>) {
        let outcome = match previous {
            Some(previous) => self.record(turn, previous),
            None => fs::remove_file(self.record_path()).map_err(|error| error.to_string()),
        };
        if let Err(error) = outcome {
            system::log(&format!("the flush could not be taken off the record: {error}"));
        }
    }

    fn lock_file(&self) -> std::io::Result<File> {
        let options = |create| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(create).truncate(false).mode(0o600);
            options.custom_flags(nix::libc::O_NOFOLLOW);
            options
        };
        let file = options(false).open(self.lock_path()).or_else(|_| options(true).open(self.lock_path()))?;
        self.give_to_owner(&file);
        Ok(file)
    }

    /// What root makes in another user's folder must stay usable for that user.
    fn give_to_owner(&self, file: &File) {
        if let (Ok(folder), Ok(made)) = (fs::metadata(&self.directory), file.metadata())
            && folder.uid() != made.uid()
        {
            // Only root can, and only root needs to.
            let _ = fchown(file, Some(folder.uid()), Some(folder.gid()));
        }
    }

    fn lock_path(&self) -> PathBuf {
        self.directory.join("flush.lock")
    }

    fn record_path(&self) -> PathBuf {
        self.directory.join("last-flush.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn store(directory: &Path) -> Result<Store, String> {
        Store::open(Some(directory), &Account::current())
    }

    fn flush(number: u64) -> Flush {
        Flush { number, started: 1, target: "all".into(), by: "::1".into(), messages: Some(2), recipients: Some(3) }
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
    fn the_last_flush_is_remembered_and_a_broken_record_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path()).unwrap();
        assert_eq!(store.last_flush(), None);
        let turn = store.turn().unwrap();
        store.record(&turn, &flush(1)).unwrap();
        store.record(&turn, &flush(2)).unwrap();
        assert_eq!(store.last_flush(), Some(flush(2)));
        fs::write(store.record_path(), "{\"number\":").unwrap();
        assert_eq!(store.last_flush(), None);
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
    fn a_lock_file_that_is_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        symlink("/etc/passwd", folder.path().join("flush.lock")).unwrap();
        assert!(store(folder.path()).is_err());
    }
}
