//! What root may believe: files that no one else can change.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// Write permission for the group, and for others.
const GROUP: u32 = 0o020;
const OTHERS: u32 = 0o002;

/// The bit with which a folder lets each user remove only what is theirs (chmod(2)).
const STICKY: u32 = 0o1000;

/// This very program.
const ITSELF: &str = "/proc/self/exe";

/// The longest file that is read, in bytes.
const LONGEST: u64 = 1024 * 1024;

/// Why root does not believe a file. Its `Display` is a sentence without its full stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Untrusted {
    /// The system refuses.
    #[error("{path}: {error}")]
    System {
        /// The file or the folder.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// A link, a pipe or something else stands where the file should be.
    #[error("{0} is no regular file, and root follows no link there")]
    NotAFile(PathBuf),
    /// It is too long to be meant.
    #[error("{0} is longer than 1 MiB")]
    TooLong(PathBuf),
    /// Somebody else could change the file, or put another one in its place.
    #[error(
        "others than root can write to {0}, and whoever does would act as root. As root: chown root {0} && chmod go-w {0}"
    )]
    Open(PathBuf),
}

/// Reads a file; `None` where there is none.
///
/// # Errors
/// [`Untrusted`]: others than root could have written it.
pub(crate) fn read_roots(path: &Path) -> Result<Option<Vec<u8>>, Untrusted> {
    let system = |error| Untrusted::System { path: path.to_owned(), error };
    // A link is not followed; nothing is waited for, as with a pipe that somebody put there.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(_) if path.is_symlink() => return Err(Untrusted::NotAFile(path.to_owned())),
        opened => opened.map_err(system)?,
    };
    let found = file.metadata().map_err(system)?;
    if !found.is_file() {
        return Err(Untrusted::NotAFile(path.to_owned()));
    }
    closed(path, &found)?;
    folders_of(path)?;
    read(&file, path).map(Some)
}

fn read(file: &File, path: &Path) -> Result<Vec<u8>, Untrusted> {
    let mut bytes = Vec::new();
    let read = file.take(LONGEST + 1).read_to_end(&mut bytes);
    read.map_err(|error| Untrusted::System { path: path.to_owned(), error })?;
    if bytes.len() as u64 > LONGEST { Err(Untrusted::TooLong(path.to_owned())) } else { Ok(bytes) }
}

/// Whether only root can write to this program's own file and to each folder on the way to it.
///
/// # Errors
/// [`Untrusted`].
pub(crate) fn is_only_roots() -> Result<(), Untrusted> {
    let system = |error| Untrusted::System { path: ITSELF.into(), error };
    let path = fs::read_link(ITSELF).map_err(system)?;
    closed(&path, &fs::metadata(ITSELF).map_err(system)?)?;
    folders_of(&path)
}

/// Each folder on the way must be closed, or sticky: there, others can't replace what is root's.
fn folders_of(path: &Path) -> Result<(), Untrusted> {
    path.ancestors().skip(1).try_for_each(|folder| {
        let found = fs::metadata(folder).map_err(|error| Untrusted::System { path: folder.to_owned(), error })?;
        if found.uid() == 0 && found.mode() & STICKY != 0 { Ok(()) } else { closed(folder, &found) }
    })
}

fn closed(path: &Path, found: &Metadata) -> Result<(), Untrusted> {
    let by_group = found.mode() & GROUP != 0 && found.gid() != 0;
    let is_closed = found.uid() == 0 && !by_group && found.mode() & OTHERS == 0;
    if is_closed { Ok(()) } else { Err(Untrusted::Open(path.to_owned())) }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn what_others_can_write_to_is_not_believed() {
        if !nix::unistd::geteuid().is_root() {
            // Only root has files that are root's.
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bartleby.toml");
        let read = || read_roots(&path).map_err(|refused| refused.to_string());
        let is_refused = |words: &str| {
            let refused = read().unwrap_err();
            assert!(refused.contains(words), "{refused}");
        };
        assert_eq!(read(), Ok(None));
        fs::write(&path, "x").unwrap();
        let set = |path: &Path, uid: u32, gid: u32, mode: u32| {
            chown(path, Some(uid), Some(gid)).unwrap();
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        for (uid, gid, mode, believed) in [
            (0, 0, 0o644, true),
            (0, 33, 0o640, true),
            (0, 0, 0o664, true),
            (0, 33, 0o664, false),
            (0, 0, 0o646, false),
            (33, 0, 0o644, false),
            (33, 33, 0o400, false),
        ] {
            set(&path, uid, gid, mode);
            assert_eq!(read().is_ok(), believed, "{uid}:{gid} {mode:o}");
            set(&path, 0, 0, 0o644);
            // The folder likewise; that above is the sticky /tmp.
            set(folder.path(), uid, gid, mode | 0o111);
            assert_eq!(read().is_ok(), believed, "folder {uid}:{gid} {mode:o}");
            set(folder.path(), 0, 0, 0o755);
        }
        set(&path, 33, 33, 0o644);
        is_refused("chmod go-w");
        set(&path, 0, 0, 0o644);
        assert_eq!(read(), Ok(Some(b"x".to_vec())));
        fs::write(&path, vec![b'#'; LONGEST as usize + 1]).unwrap();
        is_refused("longer than 1 MiB");
        fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
        is_refused("follows no link");
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        is_refused("no regular file");
    }
}
