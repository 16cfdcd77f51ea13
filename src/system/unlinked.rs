//! A file without a name: room on disk for one process, gone with its last descriptor. The mail queue may be on the same
//! filesystem, so a reserve of it is left free.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;

use nix::libc;
use nix::sys::statvfs::fstatvfs;

/// How many names are tried where the filesystem wants one: a process that was killed in between may have left its
/// file behind, and this one may have got its number.
const NAMES: u32 = 16;

/// What is left free of a filesystem.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reserve {
    /// A share of the whole, 0 to 100.
    Percent(f64),
    /// So many bytes.
    Bytes(u64),
}

impl Reserve {
    /// How many bytes may still be written to the filesystem of an open file.
    fn room(self, file: impl AsFd) -> io::Result<u64> {
        let found = fstatvfs(file)?;
        let unit = found.fragment_size();
        let reserve = match self {
            // A share of that many bytes need not be exact.
            Reserve::Percent(percent) => (found.blocks().saturating_mul(unit) as f64 * percent / 100.0) as u64,
            Reserve::Bytes(bytes) => bytes,
        };
        Ok(found.blocks_available().saturating_mul(unit).saturating_sub(reserve))
    }
}

/// A private folder in which files without a name are made.
#[derive(Clone, Debug)]
pub(crate) struct Scratch {
    folder: PathBuf,
    reserve: Reserve,
}

impl Scratch {
    /// Files in this folder, which leave so much of its filesystem free.
    pub(crate) fn new(folder: PathBuf, reserve: Reserve) -> Scratch {
        Scratch { folder, reserve }
    }

    /// An empty file without a name.
    ///
    /// # Errors
    /// Those of [`unlinked_file`] and of fstatvfs(3).
    pub(crate) fn file(&self) -> io::Result<ScratchFile> {
        let file = unlinked_file(&self.folder)?;
        let most = self.reserve.room(&file)?;
        Ok(ScratchFile { file, reserve: self.reserve, most, vetted: Cell::new(0) })
    }
}

/// A file without a name that grows no further than the reserve allows.
#[derive(Debug)]
pub struct ScratchFile {
    file: File,
    reserve: Reserve,
    /// How long it may become, in bytes: the room that there was when it was made.
    most: u64,
    /// Up to where there was room when that was last looked at, in bytes.
    vetted: Cell<u64>,
}

/// After how many bytes it is looked at again how much room there is: others write, too.
const LOOK_EVERY: u64 = 1 << 20;

impl ScratchFile {
    /// How long it may become, in bytes.
    pub(crate) fn most(&self) -> u64 {
        self.most
    }

    /// A second descriptor of the same file.
    ///
    /// # Errors
    /// Those of fcntl(2): too many files are open.
    pub(crate) fn try_clone(&self) -> io::Result<ScratchFile> {
        Ok(ScratchFile { file: self.file.try_clone()?, vetted: self.vetted.clone(), ..*self })
    }

    /// Writes at this place.
    ///
    /// # Errors
    /// Those of pwrite(2); [`io::ErrorKind::StorageFull`]: the reserve would be touched.
    pub(crate) fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let end = at.saturating_add(bytes.len() as u64);
        if end > self.vetted.get() {
            let left = self.reserve.room(&self.file)?.checked_sub(bytes.len() as u64);
            let left = left.filter(|_| end <= self.most).ok_or_else(no_room)?;
            self.vetted.set(end.saturating_add(left.min(LOOK_EVERY)).min(self.most));
        }
        self.file.write_all_at(bytes, at)
    }

    /// Reads from this place.
    ///
    /// # Errors
    /// Those of pread(2).
    pub(crate) fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(buffer, at)
    }

    /// Reads so many bytes from this place.
    ///
    /// # Errors
    /// Those of pread(2); [`io::ErrorKind::UnexpectedEof`]: there are fewer.
    pub(crate) fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    /// Forgets what it holds, which gives its room back.
    ///
    /// # Errors
    /// Those of ftruncate(2).
    pub(crate) fn empty(&self) -> io::Result<()> {
        self.vetted.set(0);
        self.file.set_len(0)
    }
}

fn no_room() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "no space left but what [disk] critical keeps free")
}

#[cfg(test)]
impl ScratchFile {
    /// This file, without a limit of ours.
    pub(crate) fn of(file: File) -> ScratchFile {
        ScratchFile { file, reserve: Reserve::Bytes(0), most: u64::MAX, vetted: Cell::new(0) }
    }

    /// One in this folder, without a reserve.
    pub(crate) fn within(folder: &Path) -> ScratchFile {
        ScratchFile::of(unlinked_file(folder).unwrap())
    }

    /// From now on it takes no more.
    pub(crate) fn close(&mut self) {
        (self.most, self.vetted) = (0, Cell::new(0));
    }
}

impl AsFd for ScratchFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// An empty file in `folder`, open for reading and writing by this process alone. It has no name, so nobody else can
/// open it, and its room is free again as soon as it is closed.
///
/// # Errors
/// Those of making it: there is no such folder, or it may not be written to, or its filesystem has no inode left.
fn unlinked_file(folder: &Path) -> io::Result<File> {
    // Not every filesystem knows O_TMPFILE (open(2)): NFS and FUSE don't.
    let nameless = private().custom_flags(libc::O_TMPFILE | libc::O_EXCL).open(folder);
    nameless.or_else(|_| created_and_unlinked(folder))
}

/// The same, under a name for a moment.
fn created_and_unlinked(folder: &Path) -> io::Result<File> {
    for number in 0..NAMES {
        let path = folder.join(name(number));
        match private().create_new(true).custom_flags(libc::O_NOFOLLOW).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => {
                let file = opened?;
                fs::remove_file(&path)?;
                return Ok(file);
            }
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn name(number: u32) -> String {
    format!(".bartleby-{}-{number}", process::id())
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt, symlink};

    use super::*;

    fn is_private_and_nameless(file: &File, folder: &Path) {
        file.write_all_at(b"abc", 0).unwrap();
        let mut read = [0; 3];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"abc");
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.nlink(), metadata.mode() & 0o777), (0, 0o600));
        assert!(fs::read_dir(folder).unwrap().all(|entry| entry.unwrap().file_type().unwrap().is_symlink()));
    }

    #[test]
    fn nobody_else_can_open_the_file() {
        let folder = tempfile::tempdir().unwrap();
        is_private_and_nameless(&unlinked_file(folder.path()).unwrap(), folder.path());
        is_private_and_nameless(&created_and_unlinked(folder.path()).unwrap(), folder.path());
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_passed_over() {
        let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::NamedTempFile::new().unwrap());
        symlink(elsewhere.path(), folder.path().join(name(0))).unwrap();
        symlink("/nonexistent/at/all", folder.path().join(name(1))).unwrap();
        is_private_and_nameless(&created_and_unlinked(folder.path()).unwrap(), folder.path());
        assert_eq!(elsewhere.as_file().metadata().unwrap().len(), 0);
        (2..NAMES).for_each(|number| symlink("/", folder.path().join(name(number))).unwrap());
        let error = created_and_unlinked(folder.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "it gives up at last");
    }

    fn scratch(folder: &Path, reserve: Reserve) -> Scratch {
        Scratch::new(folder.to_owned(), reserve)
    }

    #[test]
    fn a_file_takes_nothing_of_the_reserve() {
        let folder = tempfile::tempdir().unwrap();
        let full = |file: &ScratchFile, at| file.write_all_at(b"abc", at).unwrap_err().kind();
        for all in [Reserve::Percent(100.0), Reserve::Bytes(u64::MAX)] {
            let file = scratch(folder.path(), all).file().unwrap();
            assert_eq!((file.most(), full(&file, 0)), (0, io::ErrorKind::StorageFull), "{all:?}");
            assert_eq!(file.file.metadata().unwrap().len(), 0);
        }
        let mut file = scratch(folder.path(), Reserve::Bytes(0)).file().unwrap();
        file.most = 5;
        file.write_all_at(b"abc", 0).unwrap();
        file.write_all_at(b"de", 3).unwrap();
        assert_eq!(full(&file, 3), io::ErrorKind::StorageFull, "no more than there was room for when it was made");
        file.most = u64::MAX;
        file.write_all_at(b"f", 5).unwrap();
        file.reserve = Reserve::Bytes(u64::MAX);
        file.write_all_at(b"abc", LOOK_EVERY - 3).unwrap();
        assert_eq!(full(&file, 6 + LOOK_EVERY), io::ErrorKind::StorageFull, "it is looked at again");
        file.empty().unwrap();
        assert_eq!(full(&file, 0), io::ErrorKind::StorageFull);
    }

    #[test]
    fn without_a_folder_there_is_no_file() {
        assert_eq!(unlinked_file(Path::new("/nonexistent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
