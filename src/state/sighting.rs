//! What was last seen of the primaries, for requests soon after: a small file, whose lock is held by the process that is asking them.
//!
//! It is written in place, as its lock could not go along with a new file; a checksum shows a reader meanwhile that
//! it is not whole. What it says is taken for no more than what any program of this user could say.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use super::Records;

/// The files, each a checksum (eight bytes, little-endian) and what was seen: how the primaries are, and what they said
/// in the last rehearsals.
const FILE: &str = "primaries.seen";
const REHEARSALS: &str = "rehearsals.seen";

/// The most that is read of it, in bytes: as much as who asks the primaries may answer.
const LONGEST: usize = 1024 * 1024;

/// What was last seen, in the bytes of the process that saw it. The process that has locked it asks, and writes it down.
#[derive(Debug)]
pub(crate) struct Sighting(File);

impl Records {
    /// The last sighting; `None` where there is nowhere to keep one.
    pub(crate) fn sighting(&self) -> Option<Sighting> {
        self.sighting_in(FILE)
    }

    /// The same of something else, which has a file of its own.
    pub(super) fn sighting_in(&self, file: &str) -> Option<Sighting> {
        self.folder.file(file).ok().map(Sighting)
    }

    /// The last rehearsals; `None` where there is nowhere to keep any.
    pub(crate) fn rehearsals(&self) -> Option<Sighting> {
        self.folder.file(REHEARSALS).ok().map(Sighting)
    }
}

impl Sighting {
    /// The one that was locked, and handed to this process.
    pub(crate) fn of(locked: OwnedFd) -> Sighting {
        Sighting(locked.into())
    }

    /// Whether it is locked now; its lock goes along with the file, and ends with its last copy.
    pub(crate) fn try_lock(&self) -> bool {
        self.0.try_lock().is_ok()
    }

    /// What it says; `None` where it says nothing, or is just being written.
    pub(crate) fn read(&self) -> Option<Vec<u8>> {
        let length = usize::try_from(self.0.metadata().ok()?.len()).ok()?.min(LONGEST);
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, 0).ok()?;
        let (sum, seen) = bytes.split_first_chunk::<8>()?;
        (u64::from_le_bytes(*sum) == checksum(seen)).then(|| seen.to_vec())
    }

    /// Writes down what was seen.
    ///
    /// # Errors
    /// Those of writing: a full disk, say. Then it says nothing.
    pub(crate) fn write(&self, seen: &[u8]) -> io::Result<()> {
        let bytes = [&checksum(seen).to_le_bytes(), seen].concat();
        self.0.write_all_at(&bytes, 0)?;
        self.0.set_len(bytes.len() as u64)
    }
}

/// The lock goes along.
impl From<Sighting> for OwnedFd {
    fn from(sighting: Sighting) -> OwnedFd {
        sighting.0.into()
    }
}

fn checksum(seen: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    seen.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::records;

    #[test]
    fn what_was_seen_is_read_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let sighting = records.sighting().unwrap();
        assert_eq!(sighting.read(), None, "nothing was seen");
        for seen in [&b"down, at great length"[..], b"up"] {
            sighting.write(seen).unwrap();
            assert_eq!(records.sighting().unwrap().read().unwrap(), seen);
        }
        sighting.0.write_all_at(b"d", 8).unwrap();
        assert_eq!(sighting.read(), None, "it is just being written");
        sighting.0.set_len(3).unwrap();
        assert_eq!(sighting.read(), None);
    }

    #[test]
    fn one_asks_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let (one, other) = (records.sighting().unwrap(), records.sighting().unwrap());
        assert!(one.try_lock() && !other.try_lock());
        let handed_on = Sighting::of(one.into());
        assert!(!other.try_lock(), "the lock went along");
        drop(handed_on);
        assert!(other.try_lock());
    }
}
