//! What is remembered between requests: the lock under which one flush runs at a time, and the log of
//! flushes with what came of them.
//!
//! Nothing here is needed to list or to flush. Where no folder is usable, or the disk is full, the
//! cool-down and the log are off, and that is said. The log is an SQLite database, so that any number of
//! processes may use it, and may be killed at any time, without it ever telling half a truth.

mod database;
mod error;
mod folder;
mod locks;
mod log;
mod primaries;
mod samples;
mod schema;

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rusqlite::Connection;

pub use self::error::StateError;
use self::folder::Folder;
pub use self::locks::{NoTurn, Turn};
pub use self::log::{Flush, Outcome, Waited};
pub use self::primaries::Condition;
pub use self::samples::Sample;
use crate::system::Account;

/// The folder that `make install` makes for the web server's user.
const DEFAULT_DIRECTORY: &str = "/var/lib/bartleby";

/// All that is remembered, in a folder of our own.
#[derive(Clone, Debug)]
pub struct Records {
    folder: Folder,
    /// Opened when it is first needed, and kept: opening takes longer than what is then done.
    database: Rc<RefCell<Option<Connection>>>,
}

impl Records {
    /// The configured folder, or else the first usable of `/var/lib/bartleby` and a private folder
    /// under `/run` or `/tmp`.
    ///
    /// # Errors
    /// Why none is usable.
    pub fn open(configured: Option<&Path>, account: &Account) -> Result<Records, StateError> {
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
        Err(StateError::NoFolder(reasons))
    }

    fn at(directory: &Path, account: &Account) -> Result<Records, StateError> {
        let folder = Folder::of_ours(directory, account)?;
        folder.file(locks::FLUSH)?;
        Ok(Records { folder, database: Rc::default() })
    }

    /// The folder.
    pub fn directory(&self) -> &Path {
        self.folder.path()
    }

    /// Whether there is room to write, as far as can be told without writing.
    ///
    /// # Errors
    /// Why not.
    pub fn room(&self) -> Result<(), StateError> {
        self.folder.room()
    }

    /// A damaged database that was set aside and is still there.
    pub fn set_aside(&self) -> Option<PathBuf> {
        self.folder.names().find(|name| database::is_set_aside(name)).map(|name| self.folder.path_of(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn records(directory: &Path) -> Result<Records, StateError> {
        Records::open(Some(directory), &Account::current())
    }
}
