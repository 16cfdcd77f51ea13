//! The flush turn, under which one flush runs at a time, and the places of those that list.

use std::fs::{File, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Records, StateError};
use crate::system::Audience;

/// The file whose holder may flush.
pub(super) const FLUSH: &str = "flush.lock";

/// How many may list the queue at a time: more only slow each other, and the mail server, down.
const LISTINGS: usize = 2;

/// How long a process waits until it looks again whether a place is free.
const AGAIN: Duration = Duration::from_millis(20);

/// The right to flush, held as long as this file, or a copy of its descriptor, is open in any process.
#[derive(Debug)]
pub(crate) struct Turn(pub File);

/// Why there is no turn now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoTurn {
    /// A flush is under way.
    Taken,
    /// The lock file can't be used.
    Unusable(StateError),
}

impl Records {
    /// # Errors
    /// [`NoTurn`].
    pub(crate) fn turn(&self) -> Result<Turn, NoTurn> {
        let mut turn = self.try_turn();
        for _ in 0..10 {
            if !matches!(turn, Err(NoTurn::Taken)) {
                break;
            }
            thread::sleep(Duration::from_millis(5));
            turn = self.try_turn();
        }
        turn
    }

    /// Whether a flush is under way.
    pub(crate) fn is_taken(&self) -> bool {
        let taken = matches!(self.turn.try_lock(), Err(TryLockError::WouldBlock));
        if !taken {
            // It can't fail where the lock was taken, and does no harm where it was not.
            let _ = self.turn.unlock();
        }
        taken
    }

    fn try_turn(&self) -> Result<Turn, NoTurn> {
        let file = self.locks.file(FLUSH).map_err(NoTurn::Unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Turn(file)),
            Err(TryLockError::WouldBlock) => Err(NoTurn::Taken),
            Err(TryLockError::Error(error)) => {
                Err(NoTurn::Unusable(StateError::system(&self.locks.path_of(FLUSH), error)))
            }
        }
    }

    /// Waits for a place among the [`LISTINGS`] that may list at a time; it is held as long as the file is open.
    /// Where the files can't be used there is no limit. The wait also ends when nobody is left.
    ///
    /// # Errors
    /// [`NoTurn::Taken`]: others were listing all the time.
    pub(crate) fn listing_place(&self, deadline: Instant, audience: Audience<'_>) -> Result<Option<File>, NoTurn> {
        loop {
            for place in 0..LISTINGS {
                let Ok(file) = self.locks.file(&format!("listing-{place}.lock")) else { return Ok(None) };
                match file.try_lock() {
                    Ok(()) => return Ok(Some(file)),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(_)) => return Ok(None),
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if audience.wait(left.min(AGAIN)).is_err() || left.is_zero() {
                return Err(NoTurn::Taken);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::state::tests::records;

    #[test]
    fn one_turn_at_a_time_until_the_last_copy_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (records(folder.path()).unwrap(), records(folder.path()).unwrap());
        let turn = one.turn().unwrap();
        let copy = turn.0.try_clone().unwrap();
        assert_eq!(other.turn().unwrap_err(), NoTurn::Taken);
        drop(turn);
        assert!(other.is_taken(), "the copy still holds it");
        drop(copy);
        assert!(other.turn().is_ok());
    }

    #[test]
    fn two_list_at_a_time_and_a_third_waits() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let now = Instant::now;
        let first = records.listing_place(now(), Audience::default()).unwrap().unwrap();
        let _second = records.listing_place(now(), Audience::default()).unwrap().unwrap();
        assert!(records.listing_place(now(), Audience::default()).is_err());
        let waiting = thread::spawn({
            let folder = folder.path().to_owned();
            move || {
                self::records(&folder)
                    .unwrap()
                    .listing_place(now() + Duration::from_secs(20), Audience::default())
                    .is_ok()
            }
        });
        thread::sleep(Duration::from_millis(50));
        drop(first);
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn a_client_who_leaves_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let _places = [0, 1].map(|_| records.listing_place(Instant::now(), Audience::default()).unwrap());
        let (client, writer) = nix::unistd::pipe().unwrap();
        drop(client);
        let later = Instant::now() + Duration::from_secs(60 * 60);
        assert!(records.listing_place(later, Audience { client: Some(writer.as_fd()), signals: None }).is_err());
    }
}
