//! Where those meet who look at the same queue at the same time: the first has it listed, and opens a door (a socket) at
//! which the others get the same bytes.
//!
//! A listing is shared for [`SHARED_FOR`] after it was begun, and only with those who came before the next queue run: the
//! socket's time says when it was begun, that of the flush lock when the queue was last run. Both are set by this program,
//! from one clock.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fstat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::folder::Folder;
use super::{Records, Turn};
use crate::system::passing::is_of_this_user;

/// For how long after its beginning a listing is shared.
pub(crate) const SHARED_FOR: Duration = Duration::from_secs(5);

/// The file whose holder may open or close a door.
const GATE: &str = "sharing.lock";

/// How long a process waits for that at the most: what is done with it takes less than a millisecond.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long it waits until it looks again.
const AGAIN: Duration = Duration::from_millis(2);

/// The door for a listing of one kind.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    folder: Folder,
    name: String,
    /// The file for the turn to flush, whose time says when the queue was last run.
    turn: Rc<File>,
    /// That of the locks, by which a place for the listing is taken.
    locks: Folder,
}

/// A door that was opened here. It is this one, and no later one of the same name, that is marked and closed.
#[derive(Debug)]
pub(crate) struct OpenDoor {
    door: Door,
    socket: OwnedFd,
    /// Where the others ask to be let in.
    pub(crate) listener: UnixListener,
}

/// The right to open or close a door.
#[derive(Debug)]
pub(crate) struct Gate(#[expect(dead_code, reason = "it is a lock")] File);

impl Records {
    /// The door for listings that are alike in this number.
    pub(crate) fn door(&self, identity: u64) -> Door {
        let name = format!("listing-{identity:016x}.socket");
        Door { folder: self.folder.clone(), name, turn: self.turn.clone(), locks: self.locks.clone() }
    }
}

impl Turn {
    /// Takes note that the queue is run from now on: what was listed before is shown to nobody who comes after that.
    pub(crate) fn begins(&self) {
        // Where that can't be noted, whoever looks within five seconds is shown what the foot of the page says: when.
        let _ = now().map(|now| futimens(&self.0, &now, &now));
    }
}

impl Door {
    /// Asks to be let in, where a listing is there to be shared.
    pub(crate) fn knock(&self) -> Option<UnixStream> {
        let socket = self.folder.look_at(&self.name).ok().filter(|found| self.is_ours(found))?;
        let begun = modified(&socket);
        let age = modified_now()?.checked_sub(begun)?;
        let run = modified(&fstat(&self.turn).ok()?);
        if run >= begun || !(0..i128::try_from(SHARED_FOR.as_nanos()).ok()?).contains(&age) {
            return None;
        }
        UnixStream::connect(self.path()).ok().filter(is_of_this_user)
    }

    /// Waits for the right to open it; `None` where it can't be had.
    pub(crate) fn gate(&self) -> Option<Gate> {
        let file = self.folder.file(GATE).ok()?;
        let until = Instant::now() + PATIENCE;
        while file.try_lock().is_err() {
            if Instant::now() >= until {
                return None;
            }
            thread::sleep(AGAIN);
        }
        Some(Gate(file))
    }

    /// Opens it, in place of one that stands there and is no longer of use. `None` where something else stands there, which
    /// is left alone, or it can't be made.
    pub(crate) fn open(self, _: &Gate) -> Option<OpenDoor> {
        match self.folder.look_at(&self.name) {
            Err(Errno::ENOENT) => {}
            Ok(found) if self.is_ours(&found) => self.remove()?,
            _ => return None,
        }
        let listener = UnixListener::bind(self.path()).ok()?;
        listener.set_nonblocking(true).ok()?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let socket = openat(&self.folder, &*self.name, flags, Mode::empty()).ok()?;
        let open = OpenDoor { door: self, socket, listener };
        open.marks_beginning();
        Some(open)
    }

    fn remove(&self) -> Option<()> {
        unlinkat(&self.folder, &*self.name, UnlinkatFlags::NoRemoveDir).ok()
    }

    fn is_ours(&self, found: &FileStat) -> bool {
        SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK && self.folder.is_of_us(found)
    }

    /// By the folder's handle: an address holds 107 bytes at the most (unix(7)), and the folder stays the same.
    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}/{}", self.folder.as_fd().as_raw_fd(), self.name).into()
    }
}

impl OpenDoor {
    /// What a process must have open that keeps it.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 4] {
        [self.listener.as_fd(), self.socket.as_fd(), self.door.folder.as_fd(), self.door.locks.as_fd()]
    }

    /// Takes note that the listing begins now.
    pub(crate) fn marks_beginning(&self) {
        let path = format!("/proc/self/fd/{}", self.socket.as_raw_fd());
        // Where that can't be noted, it is shared for a shorter time.
        let _ = now().map(|now| utimensat(AT_FDCWD, &*path, &now, &now, UtimensatFlags::FollowSymlink));
    }

    /// Closes it: nobody else is let in. Where the right to do that can't be had, whoever opens the next one does it.
    pub(crate) fn close(&self) {
        let Some(_gate) = self.door.gate() else { return };
        let is_this = |found: &FileStat| {
            fstat(&self.socket).is_ok_and(|own| (own.st_dev, own.st_ino) == (found.st_dev, found.st_ino))
        };
        if self.door.folder.look_at(&self.door.name).is_ok_and(|found| is_this(&found)) {
            let _ = self.door.remove();
        }
    }
}

fn now() -> Option<TimeSpec> {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok().map(TimeSpec::from)
}

/// The present, in nanoseconds since 1970.
fn modified_now() -> Option<i128> {
    let now = now()?;
    Some(nanoseconds(now.tv_sec(), now.tv_nsec()))
}

/// When it was last changed, in nanoseconds since 1970.
fn modified(found: &FileStat) -> i128 {
    nanoseconds(found.st_mtime, found.st_mtime_nsec)
}

fn nanoseconds(seconds: i64, more: i64) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::records;

    fn set(door: &OpenDoor, ago: Duration) {
        let path = format!("/proc/self/fd/{}", door.socket.as_raw_fd());
        let then = (SystemTime::now() - ago).duration_since(SystemTime::UNIX_EPOCH).unwrap().into();
        utimensat(AT_FDCWD, &*path, &then, &then, UtimensatFlags::FollowSymlink).unwrap();
    }

    #[test]
    fn a_listing_is_shared_for_five_seconds_and_not_after_a_run() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let old = SystemTime::now() - Duration::from_secs(60);
        records.turn.set_modified(old).unwrap();
        assert!(records.door(1).knock().is_none(), "nobody has opened it");
        let open = records.door(1).open(&records.door(1).gate().unwrap()).unwrap();
        assert!(records.door(1).knock().is_some() && records.door(2).knock().is_none());
        for (seconds, lets_in) in [(4, true), (6, false)] {
            set(&open, Duration::from_secs(seconds));
            assert_eq!(records.door(1).knock().is_some(), lets_in, "after {seconds} s");
        }
        open.marks_beginning();
        assert!(records.door(1).knock().is_some());
        records.turn().unwrap().begins();
        assert!(records.door(1).knock().is_none(), "the queue was run since");
        open.marks_beginning();
        assert!(records.door(1).knock().is_some(), "it was listed since");
    }

    #[test]
    fn who_closes_a_door_leaves_a_later_one_open() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        records.turn.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
        let open = || records.door(1).open(&records.door(1).gate().unwrap()).unwrap();
        let (first, second) = (open(), open());
        first.marks_beginning();
        first.close();
        assert!(records.door(1).knock().is_some());
        second.close();
        assert!(records.door(1).knock().is_none() && !records.door(1).folder.has(&records.door(1).name));
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let door = records.door(1);
        std::fs::write(folder.path().join(&door.name), "soup").unwrap();
        assert!(door.knock().is_none());
        let gate = door.gate().unwrap();
        assert!(records.door(1).open(&gate).is_none());
        assert_eq!(std::fs::read(folder.path().join(&door.name)).unwrap(), b"soup");
        assert!(records.door(1).gate().is_none(), "one at a time");
    }
}
