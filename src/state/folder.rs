//! One folder, and how its files are opened: never through a link, never one that somebody else could change.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, fchown};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::sys::statvfs::statvfs;

use super::StateError;
use crate::system::Account;
use crate::system::trust::OPEN_TO_OTHERS;

/// What an entry takes, in bytes, where very many messages wait: their ids.
const ROOM: u64 = 1024 * 1024;

/// How often a file is tried that others are just making.
const ATTEMPTS: u32 = 5;

/// How long after such an attempt the next one follows.
const PAUSE: Duration = Duration::from_millis(2);

/// A folder that was found to be fit for use. The handle stays with it, even if its name goes to another one later.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
    handle: Rc<OwnedFd>,
    /// Whose it is, by user and group id.
    owner: (u32, u32),
    account: Account,
}

impl Folder {
    /// A folder of ours, made with mode 0700 if need be. It must be closed to others, who could otherwise hold a
    /// lock or write the log.
    pub(super) fn of_ours(path: &Path, account: &Account) -> Result<Folder, StateError> {
        let made = DirBuilder::new().mode(0o700).create(path);
        let folder = Folder::open(path, account).map_err(|error| match made {
            Err(made) if made.kind() != io::ErrorKind::AlreadyExists => StateError::system(path, made),
            _ => error,
        })?;
        if folder.owner.0 != account.uid {
            return Err(foreign(path, folder.owner.0, account));
        }
        folder.closed_to_others()
    }

    /// Another user's folder, of which root takes the locks.
    pub(super) fn of_another(path: &Path, account: &Account) -> Result<Folder, StateError> {
        Folder::open(path, account)?.closed_to_others()
    }

    fn open(path: &Path, account: &Account) -> Result<Folder, StateError> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let handle = open(path, flags, Mode::empty()).map_err(|error| match error {
            Errno::ENOTDIR | Errno::ELOOP => StateError::NotAFolder(path.to_owned()),
            error => StateError::system(path, io::Error::from(error)),
        })?;
        let found = fstat(&handle).map_err(|error| StateError::system(path, io::Error::from(error)))?;
        let owner = (found.st_uid, found.st_gid);
        Ok(Folder { path: path.to_owned(), handle: Rc::new(handle), owner, account: account.clone() })
    }

    fn closed_to_others(self) -> Result<Folder, StateError> {
        let found = fstat(&self.handle).map_err(|error| StateError::system(&self.path, io::Error::from(error)))?;
        if found.st_mode & OPEN_TO_OTHERS == 0 { Ok(self) } else { Err(StateError::OpenToOthers(self.path)) }
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of something in it.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether there is room to write, as far as one can see without writing.
    pub(super) fn room(&self) -> Result<(), StateError> {
        let stat = statvfs(&self.path).map_err(|error| StateError::system(&self.path, error.desc()))?;
        let room = stat.blocks_available().saturating_mul(stat.fragment_size());
        if room < ROOM { Err(StateError::NoSpace(self.path.clone())) } else { Ok(()) }
    }

    /// Whether something of this name is there, even a link that leads nowhere.
    pub(super) fn has(&self, name: &str) -> bool {
        self.look_at(name).is_ok()
    }

    /// The names in it.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok())
    }

    /// Opens a file for reading and writing, and makes it with mode 0600 if need be.
    ///
    /// A file that root makes in another user's folder becomes that user's, or the folder's owner could never use it.
    /// A file that was there keeps its owner.
    pub(super) fn file(&self, name: &str) -> Result<File, StateError> {
        let mut refusal = Errno::ENOENT;
        for _ in 0..ATTEMPTS {
            match self.open_file(name, OFlag::empty()) {
                Ok(file) => {
                    let found = fstat(&file).map_err(|error| self.refused(name, error))?;
                    return self.vet(name, &found).map(|()| file);
                }
                Err(Errno::ENOENT) => match self.open_file(name, OFlag::O_CREAT | OFlag::O_EXCL) {
                    Ok(file) => return self.give(name, file),
                    // Another process was quicker.
                    Err(Errno::EEXIST) => {}
                    Err(error) => return Err(self.refused(name, error)),
                },
                // Root has just made it, and is about to give it to us.
                Err(Errno::EACCES) if !self.account.is_root() => {
                    refusal = Errno::EACCES;
                    thread::sleep(PAUSE);
                }
                Err(error) => return Err(self.refused(name, error)),
            }
        }
        Err(self.refused(name, refusal))
    }

    /// Refuses a file that [`Folder::file`] would not open. For a file that is opened by its path afterwards.
    pub(super) fn vet_if_there(&self, name: &str) -> Result<(), StateError> {
        match self.look_at(name) {
            Ok(found) => self.vet(name, &found),
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(self.refused(name, error)),
        }
    }

    fn look_at(&self, name: &str) -> Result<FileStat, Errno> {
        fstatat(&self.handle, name, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// O_NONBLOCK: a pipe in the file's place holds nobody up, as somebody must open its other end (fifo(7)).
    fn open_file(&self, name: &str, more: OFlag) -> Result<File, Errno> {
        let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        openat(&self.handle, name, flags | more, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
    }

    fn vet(&self, name: &str, found: &FileStat) -> Result<(), StateError> {
        let path = || self.path_of(name);
        if SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(StateError::NotAFile(path()));
        }
        if found.st_nlink != 1 {
            return Err(StateError::SeveralNames(path()));
        }
        if ![self.account.uid, self.owner.0].contains(&found.st_uid) {
            return Err(foreign(&path(), found.st_uid, &self.account));
        }
        Ok(())
    }

    /// Hands a file that this process has just made to the folder's owner.
    fn give(&self, name: &str, made: File) -> Result<File, StateError> {
        if self.owner.0 != self.account.uid {
            let (user, group) = self.owner;
            fchown(&made, Some(user), Some(group)).map_err(|error| StateError::system(&self.path_of(name), error))?;
        }
        Ok(made)
    }

    fn refused(&self, name: &str, error: Errno) -> StateError {
        match error {
            // A symbolic link, as O_NOFOLLOW has it (open(2)), and a folder.
            Errno::ELOOP | Errno::EISDIR => StateError::NotAFile(self.path_of(name)),
            error => StateError::system(&self.path_of(name), io::Error::from(error)),
        }
    }
}

fn foreign(path: &Path, owner: u32, account: &Account) -> StateError {
    StateError::Foreign { path: path.to_owned(), owner, account: account.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::time::Instant;

    use nix::unistd::mkfifo;

    fn of_ours(path: &Path) -> Result<Folder, StateError> {
        Folder::of_ours(path, &Account::current())
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(of_ours(folder.path()).unwrap_err().to_string().contains("written to by others"));
        let link = folder.path().join("link");
        symlink("/etc", &link).unwrap();
        assert!(of_ours(&link).unwrap_err().to_string().contains("is not a folder"));
        assert!(of_ours(&folder.path().join("no/such")).unwrap_err().to_string().contains("No such file"));
    }

    #[test]
    fn a_file_is_made_private_and_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let ours = of_ours(&folder.path().join("state")).unwrap();
        let inode = |file: File| (file.metadata().unwrap().ino(), file.metadata().unwrap().mode() & 0o7777);
        let made = inode(ours.file("flush.lock").unwrap());
        assert_eq!((made.1, inode(ours.file("flush.lock").unwrap())), (0o600, made));
        assert_eq!((ours.has("flush.lock"), ours.has("other")), (true, false));
        assert_eq!(ours.names().collect::<Vec<_>>(), ["flush.lock"]);
    }

    #[test]
    fn what_is_no_file_of_ours_is_refused_with_its_reason_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let ours = of_ours(folder.path()).unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("target"), "as it was").unwrap();
        symlink(at("target"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        fs::hard_link(at("target"), at("second name")).unwrap();
        mkfifo(&at("pipe"), Mode::S_IRWXU).unwrap();
        fs::create_dir(at("folder")).unwrap();
        let started = Instant::now();
        for (name, reason) in [
            ("link", "is not a regular file"),
            ("dangling", "is not a regular file"),
            ("pipe", "is not a regular file"),
            ("folder", "is not a regular file"),
            ("second name", "has a second name"),
        ] {
            for refused in [ours.file(name).map(|_| ()), ours.vet_if_there(name)] {
                assert!(refused.unwrap_err().to_string().ends_with(reason), "{name}");
            }
        }
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!((fs::read(at("target")).unwrap(), at("nowhere").exists()), (b"as it was".to_vec(), false));
        assert_eq!(ours.vet_if_there("nothing"), Ok(()));
    }

    #[test]
    fn a_file_of_another_user_is_refused_and_keeps_its_owner() {
        if !Account::current().is_root() {
            return eprintln!("SKIPPED: only root can make another user's file");
        }
        let folder = tempfile::tempdir().unwrap();
        let ours = of_ours(folder.path()).unwrap();
        fs::write(folder.path().join("flush.lock"), "").unwrap();
        std::os::unix::fs::chown(folder.path().join("flush.lock"), Some(33), None).unwrap();
        assert!(ours.file("flush.lock").unwrap_err().to_string().contains("belongs to user 33"));
        assert_eq!(fs::metadata(folder.path().join("flush.lock")).unwrap().uid(), 33);
    }
}
