//! Where those meet who look at the same queue at the same time: a small file, locked by the process that lists for all of
//! them (the host), which says there which files it has open for them.
//!
//! These files have no name, so nothing of a listing is left when its host and its guests have ended. A listing is shared for
//! [`SHARED_FOR`] after it was begun, and only with those who came before the next queue run: the time of the flush lock says
//! when the queue was last run.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::libc;
use nix::unistd::geteuid;

use super::{Records, Sighting, Turn};

/// For how long after its beginning a listing is shared.
pub(crate) const SHARED_FOR: Duration = Duration::from_secs(5);

/// The file, whose lock the host has.
const FILE: &str = "listing.seen";

/// How often it is looked at while its holder has not yet said anything, and the pause between two looks.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(2);

/// What stands in the file: numbers with a space between them.
struct Notice {
    /// What is listed, see `listing::guest`.
    identity: u64,
    /// The process that lists, and the numbers of the descriptors under which it has the files for others; nothing where the
    /// last listing was over so soon that it was not worth sharing.
    host: Vec<u64>,
}

/// Whom one meets.
pub(crate) enum Meeting {
    /// Nobody, so this process may invite others.
    Nobody(Invitation),
    /// A host, whose files these are, open for reading.
    Host(Vec<File>),
    /// One who lists something else, or nothing can be shared.
    Stranger,
}

/// The right to list for others, until it is given up or its descriptors are closed.
#[derive(Debug)]
pub(crate) struct Invitation {
    sighting: Sighting,
    identity: u64,
}

impl Records {
    /// Whether the last listing of this kind was over so soon that the next one need not be shared.
    pub(crate) fn lists_quickly(&self, identity: u64) -> bool {
        self.sighting_in(FILE)
            .and_then(|sighting| notice(&sighting))
            .is_some_and(|notice| notice.identity == identity && notice.host.is_empty())
    }

    /// Takes note that a listing which was not shared took longer than that.
    pub(crate) fn lists_slowly(&self) {
        if let Some(sighting) = self.sighting_in(FILE).filter(Sighting::try_lock) {
            clear(&sighting);
        }
    }

    /// Meets those who look at the same.
    pub(crate) fn meet(&self, identity: u64) -> Meeting {
        let Some(sighting) = self.sighting_in(FILE) else { return Meeting::Stranger };
        for _ in 0..LOOKS {
            if sighting.try_lock() {
                // What a host that is gone has left there.
                clear(&sighting);
                return Meeting::Nobody(Invitation { sighting, identity });
            }
            match notice(&sighting) {
                Some(Notice { identity: other, .. }) if other != identity => return Meeting::Stranger,
                Some(Notice { host, .. }) => {
                    if let Some(files) = open(&host) {
                        return Meeting::Host(files);
                    }
                }
                // Somebody is about to write there.
                None => {}
            }
            thread::sleep(PAUSE);
        }
        Meeting::Stranger
    }

    /// Whether a listing that was begun then may still be shown to who comes now.
    pub(crate) fn is_of_now(&self, began: u64) -> bool {
        let run = self.turn.metadata().and_then(|found| found.modified()).map_or(u64::MAX, nanoseconds);
        let age = now().checked_sub(began).map(Duration::from_nanos);
        began > run && age.is_some_and(|age| age < SHARED_FOR)
    }

    /// What a branch must have open that lists.
    pub(crate) fn for_listing(&self) -> [BorrowedFd<'_>; 2] {
        [self.locks.as_fd(), self.turn.as_fd()]
    }
}

impl Turn {
    /// Takes note that the queue is run from now on: what was listed before is shown to nobody who comes after that.
    pub(crate) fn begins(&self) {
        // Where that can't be noted, whoever looks within five seconds is shown what the foot of the page says: when.
        let _ = self.0.set_modified(SystemTime::now());
    }
}

/// The files of a host, where all of them are what they should be.
fn open(host: &[u64]) -> Option<Vec<File>> {
    let (process, files) = host.split_first()?;
    let open = |file: &u64| {
        let path = PathBuf::from(format!("/proc/{process}/fd/{file}"));
        let is_one = |found: fs::Metadata| found.is_file() && found.nlink() == 0 && found.uid() == geteuid().as_raw();
        // It is looked at first, as to open something else may have an effect.
        fs::metadata(&path).ok().filter(|found| is_one(found.clone()))?;
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).ok()?;
        opened.metadata().is_ok_and(is_one).then_some(opened)
    };
    files.iter().map(open).collect()
}

impl Invitation {
    /// Says that this process lists, and has these files open.
    pub(crate) fn invite(&self, files: &[BorrowedFd<'_>]) {
        let files: String = files.iter().map(|file| format!(" {}", file.as_raw_fd())).collect();
        self.write(&format!(" {}{files}", std::process::id()));
    }

    /// Says that the listing was over too soon to be shared. The next one is anybody's.
    pub(crate) fn was_quick(&self) {
        self.write("");
        self.sighting.unlock();
    }

    /// Lets nobody else join. The next listing is anybody's.
    pub(crate) fn end(&self) {
        clear(&self.sighting);
        self.sighting.unlock();
    }

    fn write(&self, host: &str) {
        // Where that can't be written (a full disk), nobody joins.
        let _ = self.sighting.write(format!("{}{host}", self.identity).as_bytes());
    }
}

impl AsFd for Invitation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.sighting.as_fd()
    }
}

fn notice(sighting: &Sighting) -> Option<Notice> {
    let words = String::from_utf8(sighting.read()?).ok()?;
    let mut numbers = words.split(' ').map(|word| word.parse().ok());
    Some(Notice { identity: numbers.next()??, host: numbers.collect::<Option<_>>()? })
}

fn clear(sighting: &Sighting) {
    // Where that can't be written, what stands there leads to files that are no longer open.
    let _ = sighting.write(&[]);
}

/// The present, in nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    nanoseconds(SystemTime::now())
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::records;

    fn first(records: &Records, identity: u64) -> Invitation {
        match records.meet(identity) {
            Meeting::Nobody(invitation) => invitation,
            _ => panic!("somebody else lists"),
        }
    }

    #[test]
    fn a_listing_is_shared_for_five_seconds_and_not_after_a_run() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        records.turn.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
        let ago = |seconds: u64| now() - seconds * 1_000_000_000;
        assert_eq!([0, 4, 6].map(|seconds| records.is_of_now(ago(seconds))), [true, true, false]);
        assert!(!records.is_of_now(now() + 1_000_000_000), "the clock was set back since");
        let before = now();
        records.turn().unwrap().begins();
        assert!(!records.is_of_now(before));
        assert!(records.is_of_now(now()));
    }

    #[test]
    fn who_comes_later_finds_the_hosts_files_until_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let invitation = first(&records, 1);
        assert!(matches!(records.meet(1), Meeting::Stranger), "it has no files so far");
        let file = tempfile::tempfile_in(folder.path()).unwrap();
        invitation.invite(&[file.as_fd()]);
        assert!(matches!(records.meet(2), Meeting::Stranger), "it lists something else");
        let Meeting::Host(files) = records.meet(1) else { panic!("nobody lists") };
        assert_eq!(files[0].metadata().unwrap().ino(), file.metadata().unwrap().ino());
        invitation.end();
        first(&records, 1).invite(&[file.as_fd()]);
        drop(first(&records, 1));
        assert!(matches!(records.meet(1), Meeting::Nobody(_)), "what one that is gone has left is not believed");
    }

    #[test]
    fn what_is_not_such_a_file_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let invitation = first(&records, 1);
        let (named, pipe) = (File::create(folder.path().join("named")).unwrap(), std::io::pipe().unwrap());
        for other in [named.as_fd(), pipe.0.as_fd(), records.locks.as_fd()] {
            invitation.invite(&[other]);
            assert!(matches!(records.meet(1), Meeting::Stranger));
        }
    }

    #[test]
    fn a_quick_listing_is_remembered_until_a_slow_one() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        assert!(!records.lists_quickly(1));
        first(&records, 1).was_quick();
        assert!(records.lists_quickly(1) && !records.lists_quickly(2));
        records.lists_slowly();
        assert!(!records.lists_quickly(1));
    }
}
