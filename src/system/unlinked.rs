//! A file without a name: room on disk for one process, gone with its last descriptor.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process;

use nix::libc;

/// How many names are tried where the filesystem wants one: a process that was killed in between may have left its
/// file behind, and this one may have got its number.
const NAMES: u32 = 16;

/// An empty file in `folder`, open for reading and writing by this process alone. It has no name, so nobody else can
/// open it, and its room is free again as soon as it is closed.
///
/// # Errors
/// Those of making it: there is no such folder, or it may not be written to, or its filesystem has no inode left.
pub(crate) fn unlinked_file(folder: &Path) -> io::Result<File> {
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

    #[test]
    fn without_a_folder_there_is_no_file() {
        assert_eq!(unlinked_file(Path::new("/nonexistent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
