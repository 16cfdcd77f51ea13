//! When a request to run a part of the queue last came to nothing, by the client's address: asking takes a listing, so
//! it is not to be done in a loop.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use super::Records;

/// For how long such a client is not heard again.
const COOL_DOWN: Duration = Duration::from_secs(2);

/// A table of as many times as there are slots, eight bytes each: milliseconds since 1970, little-endian.
const FILE: &str = "refusals.table";

/// How many addresses are distinguished. Two that share a slot share their cool-down.
const SLOTS: u64 = 1024;

impl Records {
    /// How long this address has to wait. Where nothing is remembered, not at all; nor after the clock was set back.
    pub(crate) fn refused_lately(&self, address: IpAddr) -> Duration {
        let Ok(file) = self.folder.file(FILE) else { return Duration::ZERO };
        let mut bytes = [0; 8];
        if file.read_exact_at(&mut bytes, offset(address)).is_err() {
            // The table is not that long yet.
            return Duration::ZERO;
        }
        let refused = Duration::from_millis(u64::from_le_bytes(bytes));
        now().checked_sub(refused).map_or(Duration::ZERO, |since| COOL_DOWN.saturating_sub(since))
    }

    /// Takes note that a request of this address came to nothing just now.
    pub(crate) fn note_refusal(&self, address: IpAddr) {
        let now = u64::try_from(now().as_millis()).unwrap_or(0);
        // On a full disk there is no such cool-down.
        let _ = self.folder.file(FILE).map(|file| file.write_all_at(&now.to_le_bytes(), offset(address)));
    }
}

fn now() -> Duration {
    SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default()
}

fn offset(address: IpAddr) -> u64 {
    let mut hasher = DefaultHasher::new();
    address.to_canonical().hash(&mut hasher);
    hasher.finish() % SLOTS * 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::records;

    #[test]
    fn who_was_refused_waits_for_a_moment_and_nobody_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().unwrap());
        assert_ne!(offset(one), offset(other));
        assert_eq!(records.refused_lately(one), Duration::ZERO);
        records.note_refusal(one);
        let wait = records.refused_lately(one);
        assert!(wait > Duration::ZERO && wait <= COOL_DOWN, "{wait:?}");
        assert_eq!(records.refused_lately(other), Duration::ZERO);
        let file = records.folder.file(FILE).unwrap();
        for (at, wait) in [(now() - COOL_DOWN, Duration::ZERO), (now() + COOL_DOWN, Duration::ZERO)] {
            file.write_all_at(&u64::try_from(at.as_millis()).unwrap().to_le_bytes(), offset(one)).unwrap();
            assert_eq!(records.refused_lately(one), wait, "{at:?}");
        }
        assert!(file.metadata().unwrap().len() <= SLOTS * 8);
    }
}
