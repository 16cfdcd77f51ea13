//! Whether another user could change what root is about to use.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::text::{Odd, shell_quoted};

/// The bits that let group and others write (chmod(2)). With an access control list, the group's are its mask (acl(5)).
pub(crate) const OPEN_TO_OTHERS: u32 = 0o022;

/// The bit with which a folder lets each user remove only what is theirs (chmod(2)).
const STICKY: u32 = 0o1000;

/// How many symbolic links are followed: as many as Linux does (path_resolution(7)).
const MOST_LINKS: u32 = 40;

/// What stands at the end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// A folder.
    Folder,
    /// A regular file.
    File,
}

/// Why root does not trust a path, and which file, folder or link on the way is the reason.
#[derive(Debug)]
pub(crate) enum Untrusted {
    /// It could not be looked at.
    System(PathBuf, io::Error),
    /// It is another user's, by number.
    Foreign(PathBuf, u32),
    /// Group or others may write to it.
    Open(PathBuf),
    /// Something else stands in a folder's place.
    NotAFolder(PathBuf),
    /// Something else stands in a file's place.
    NotAFile(PathBuf),
}

impl Untrusted {
    /// What is wrong, as a sentence without its full stop, and the command that mends it: `refused`, as in "root runs no
    /// program", for the words "that another user can change".
    pub(crate) fn reason(&self, refused: &str) -> String {
        let refusal = |by: &Path, is: &str, command: &str| {
            let mend = || -> Result<String, Odd> {
                Ok(format!("As root: {command} {}", shell_quoted(&by.to_string_lossy())?))
            };
            let mend = mend().unwrap_or_else(|odd| odd.to_string());
            format!("{refused} that another user can change, and {} {is}. {mend}", by.display())
        };
        match self {
            Untrusted::System(path, error) => format!("{} can't be looked at: {error}", path.display()),
            Untrusted::NotAFile(path) => format!("{} is not a regular file", path.display()),
            Untrusted::NotAFolder(by) => format!("{} is not a folder", by.display()),
            Untrusted::Foreign(by, owner) => refusal(by, &format!("belongs to user {owner}"), "chown -h root"),
            Untrusted::Open(by) => refusal(by, "can be written to by others", "chmod go-w"),
        }
    }
}

/// Whether this process has root's rights over files.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Where a path really leads, if no one but root can put something else there: each folder on the way is root's, and
/// either closed to others or sticky, and so is each symbolic link. A file at its end is root's and closed to others.
///
/// # Errors
/// The first that is not so.
pub(crate) fn only_roots(path: &Path, last: Last) -> Result<PathBuf, Untrusted> {
    let mut at = PathBuf::from("/");
    let parts = |path: &Path| path.components().rev().map(|part| part.as_os_str().to_owned()).collect::<Vec<_>>();
    let mut left = parts(path);
    let mut links = 0;
    while let Some(part) = left.pop() {
        let next = match Path::new(&part).components().next() {
            Some(Component::Normal(name)) => at.join(name),
            Some(Component::ParentDir) => at.parent().unwrap_or(&at).to_owned(),
            Some(Component::RootDir) => PathBuf::from("/"),
            _ => continue,
        };
        let system = |error| Untrusted::System(next.clone(), error);
        let found = fs::symlink_metadata(&next).map_err(system)?;
        let is_file = last == Last::File && left.is_empty();
        let wrong_kind = if is_file { Untrusted::NotAFile } else { Untrusted::NotAFolder };
        if found.is_symlink() && found.uid() == 0 {
            links += 1;
            if links > MOST_LINKS {
                return Err(wrong_kind(next));
            }
            left.extend(parts(&fs::read_link(&next).map_err(system)?));
            continue;
        }
        if found.uid() != 0 {
            return Err(Untrusted::Foreign(next, found.uid()));
        }
        if !(if is_file { found.is_file() } else { found.is_dir() }) {
            return Err(wrong_kind(next));
        }
        if found.mode() & OPEN_TO_OTHERS != 0 && (is_file || found.mode() & STICKY == 0) {
            return Err(Untrusted::Open(next));
        }
        at = next;
    }
    Ok(at)
}
