//! What is remembered between requests: the lock under which one flush runs at a time, and the log of
//! flushes with what came of them.
//!
//! Nothing here is needed to list or to flush. Where no folder is usable, or the disk is full, the
//! cool-down and the log are off, and that is said. The log is an SQLite database, so that any number of
//! processes may use it, and may be killed at any time, without it ever telling half a truth.

mod database;
mod locks;
mod log;
mod primaries;
mod samples;

use std::cell::RefCell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::sys::statvfs::statvfs;
use rusqlite::Connection;

pub use self::locks::{NoTurn, Turn};
pub use self::log::{Flush, Outcome, Waited};
pub use self::primaries::Condition;
pub use self::samples::Sample;
use crate::system::Account;

/// The folder that `make install` makes for the web server's user.
const DEFAULT_DIRECTORY: &str = "/var/lib/bartleby";

/// What the name of a damaged log begins with.
const SET_ASIDE: &str = "bartleby.db.damaged-";

/// What an entry takes at the most, in bytes: the ids of the messages that waited.
const ROOM: u64 = 1024 * 1024;

/// A folder of our own.
#[derive(Clone, Debug)]
pub struct Records {
    directory: PathBuf,
    /// Opened when it is first needed, and kept: opening takes longer than what is then done.
    log: Rc<RefCell<Option<Connection>>>,
}

impl Records {
    /// The configured folder, or else the first usable of `/var/lib/bartleby` and a private folder
    /// under `/run` or `/tmp`.
    ///
    /// # Errors
    /// Why none is usable.
    pub fn open(configured: Option<&Path>, account: &Account) -> Result<Records, String> {
        if let Some(directory) = configured {
            return Records::at(directory, account);
        }
        let private = |parent: &str| Path::new(parent).join(format!("bartleby-{}", account.uid));
        let default = Path::new(DEFAULT_DIRECTORY);
        let mut reasons = Vec::new();
        // Only the installation makes the default folder: made by root it would shut others out.
        let candidates = default.is_dir().then(|| default.to_owned());
        for directory in candidates.into_iter().chain([private("/run"), private("/tmp")]) {
            match Records::at(&directory, account) {
                Ok(records) => return Ok(records),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(reasons.join("; "))
    }

    /// One folder, made if need be. It must be ours (or, for root, anybody's) and closed to others,
    /// as a stranger could otherwise hold the lock or write the log.
    fn at(directory: &Path, account: &Account) -> Result<Records, String> {
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
        let records = Records { directory: directory.to_owned(), log: Rc::default() };
        records.private_file("flush.lock").map_err(|error| format!("{shown}/flush.lock: {error}"))?;
        Ok(records)
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
    /// [`Records::is_taken`] looks.

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
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use crate::state::log::tests::new_flush;

    pub(super) fn records(directory: &Path) -> Result<Records, String> {
        Records::open(Some(directory), &Account::current())
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(records(folder.path()).unwrap_err().contains("written to by others"));
        let link = folder.path().join("link");
        symlink("/etc", &link).unwrap();
        assert!(records(&link).unwrap_err().contains("is not a folder"));
        assert!(records(&folder.path().join("no/such")).unwrap_err().contains("No such file"));
    }

    #[test]
    fn a_file_that_is_a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        symlink("/etc/passwd", folder.path().join("flush.lock")).unwrap();
        assert!(records(folder.path()).is_err());
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let target = folder.path().join("target");
        symlink(&target, records.log_path()).unwrap();
        assert!(records.record(&records.turn().unwrap(), &new_flush(), &Waited::By(1)).is_err());
        assert!(!target.exists());
    }
}
