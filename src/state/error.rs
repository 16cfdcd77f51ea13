//! Why something can't be remembered.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Why a folder, a file or the database in it can't be used. Its `Display` is a sentence without its full stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StateError {
    /// The system refuses.
    #[error("{path}: {why}")]
    System {
        /// The folder or the file.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// A link, a file or something else stands where the folder should be.
    #[error("{0} is not a folder")]
    NotAFolder(PathBuf),
    /// A folder or a file is another user's, who could change it at any time.
    #[error("{path} belongs to user {owner}, not to {account}")]
    Foreign {
        /// The folder or the file.
        path: PathBuf,
        /// Whose it is, by number.
        owner: u32,
        /// The login name of the user this program runs as.
        account: String,
    },
    /// Group or others may write to the folder.
    #[error("{0} can be written to by others")]
    OpenToOthers(PathBuf),
    /// Root does not use the folder, as another user could put another one in its place.
    #[error("{folder} is not safe for root: {by} belongs to another user, or others can write to it")]
    Replaceable {
        /// The folder.
        folder: PathBuf,
        /// A folder or a symbolic link on the way to it.
        by: PathBuf,
    },
    /// A link, a pipe or something else stands where a file should be.
    #[error("{0} is not a regular file")]
    NotAFile(PathBuf),
    /// A file can be reached by another name, too: perhaps it was linked here to be overwritten.
    #[error("{0} has a second name")]
    SeveralNames(PathBuf),
    /// There is too little room.
    #[error("{0}: no space left")]
    NoSpace(PathBuf),
    /// SQLite refuses.
    #[error("{path}: {why}")]
    Database {
        /// The database.
        path: PathBuf,
        /// SQLite's words.
        why: String,
    },
    /// A later version of this program wrote the database. It is left untouched.
    #[error(
        "{path} was written by a later version of Bartleby: its tables have version {version}, and this one knows {known}"
    )]
    Later {
        /// The database.
        path: PathBuf,
        /// The version of its tables.
        version: i64,
        /// The latest version that this program knows.
        known: i64,
    },
    /// None of the folders that were tried can be used.
    #[error("{}", joined(.0))]
    NoFolder(Vec<StateError>),
}

impl StateError {
    /// The system's refusal to do something with a folder or a file.
    pub(super) fn system(path: &Path, error: impl ToString) -> StateError {
        StateError::System { path: path.to_owned(), why: error.to_string() }
    }
}

fn joined(errors: &[StateError]) -> String {
    errors.iter().map(StateError::to_string).collect::<Vec<_>>().join("; ")
}
