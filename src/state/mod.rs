//! All that is remembered between requests: the lock under which one flush runs at a time, the places of those that list
//! and of the requests under way, the log of flushes with their outcomes, how the primaries and the queue were found, and
//! since when.
//!
//! Nothing here is needed to list or to flush. Where no folder is usable, or the disk is full, the
//! cool-down and the log are off, and that is said. What must last is in one SQLite database, which any number of
//! processes may use, and may be killed at any time, without leaving half a truth there. Samples and sightings are in
//! files of their own, of which no disk is waited for.
//!
//! What stands in the folder is not trusted: other programs of the same user can write there. `place` finds the
//! folder, `folder` opens its files, `database` and `schema` let SQLite do no more than it must.

mod database;
mod error;
mod folder;
mod locks;
mod log;
mod notices;
mod outages;
mod outcome;
mod place;
mod primaries;
mod refusals;
mod remembered;
mod requests;
mod samples;
mod schema;
mod sighting;
mod watching;

use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rusqlite::Connection;

use self::database::Identity;
pub(crate) use self::error::StateError;
use self::folder::Folder;
pub(crate) use self::locks::{NoTurn, Turn};
pub(crate) use self::log::{Flush, Waited};
pub(crate) use self::notices::{Notice, TRIES};
pub(crate) use self::outages::Outage;
pub use self::outages::Outages;
pub(crate) use self::outcome::{LISTED, Outcome, Pace, SentBack, Tally};
use self::place::Place;
pub use self::primaries::SeenBy;
pub(crate) use self::primaries::{Before, Condition, Transition};
pub(crate) use self::remembered::{Basis, Question};
pub(crate) use self::requests::RequestPlace;
pub(crate) use self::samples::Sample;
pub(crate) use self::sighting::Sighting;
pub(crate) use self::watching::Watching;
use crate::system::Account;

/// All that is remembered.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    folder: Folder,
    /// The folder whose locks are taken, and its file for the turn to flush, with which one can ask whether a flush is
    /// under way even where no file can be opened.
    locks: Folder,
    turn: Rc<File>,
    instead_of: Option<StateError>,
    missing: Option<PathBuf>,
    /// Opened when it is first needed, and kept as long as it is the one that stands there: opening takes longer than what
    /// is then done.
    database: Rc<RefCell<Option<(Identity, Connection)>>>,
}

impl Records {
    /// The configured folder, or else the first usable of `/var/lib/bartleby` and a private folder
    /// under `/run` or `/tmp`. For root, where that folder is another user's, one of its own.
    ///
    /// # Errors
    /// Why none is usable.
    pub(crate) fn open(configured: Option<&Path>, account: &Account) -> Result<Records, StateError> {
        let Place { folder, shared, instead_of, missing } = place::find(configured, account)?;
        let locks = shared.unwrap_or_else(|| folder.clone());
        let turn = Rc::new(locks.file(locks::FLUSH)?);
        Ok(Records { folder, locks, turn, instead_of, missing, database: Rc::default() })
    }

    /// Why the folder that should be used is not, where that is so: a private one is used instead.
    pub(crate) fn instead_of(&self) -> Option<&StateError> {
        self.instead_of.as_ref()
    }

    /// The folder that the installation makes, where it is not there: a private one is used, and nothing is wrong.
    pub(crate) fn missing(&self) -> Option<&Path> {
        self.missing.as_deref()
    }

    /// The folder of another user of which only the locks are used, as this is root.
    pub(crate) fn shared(&self) -> Option<&Path> {
        Some(self.locks.path()).filter(|path| *path != self.folder.path())
    }

    /// The folder.
    pub(crate) fn directory(&self) -> &Path {
        self.folder.path()
    }

    /// Whether there is room to write, as far as one can see without writing.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn room(&self) -> Result<(), StateError> {
        self.folder.room()
    }

    /// A damaged database that was set aside and is still there.
    pub(crate) fn set_aside(&self) -> Option<PathBuf> {
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
