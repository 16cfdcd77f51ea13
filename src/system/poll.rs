//! Waiting for several descriptors at a time (poll(2)).

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What to wait for: a descriptor, where it is (still) open, and its events. poll(2) reports a hang-up of whatever is
/// watched, each time, so what is closed is to be left out.
pub(crate) type Watched<'a> = (Option<BorrowedFd<'a>>, PollFlags);

/// Something to read.
pub(crate) const READABLE: PollFlags = PollFlags::POLLIN;

/// Room to write.
pub(crate) const WRITABLE: PollFlags = PollFlags::POLLOUT;

/// That nobody is left at the other end.
pub(crate) const HANGUP: PollFlags = PollFlags::empty();

/// Waits until one of these is ready, or the time is over, or a signal was handled. Returns what each is ready for.
pub(crate) fn ready(watched: &[Watched<'_>], timeout: Duration) -> Vec<PollFlags> {
    let mut open: Vec<PollFd<'_>> =
        watched.iter().filter_map(|(fd, events)| Some(PollFd::new((*fd)?, *events))).collect();
    // Rounded up, so that the last fraction of a millisecond is not spent in a busy loop.
    let timeout = PollTimeout::try_from(timeout + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut open, timeout) {
        Ok(_) => {}
        Err(Errno::EINTR) => return watched.iter().map(|_| PollFlags::empty()).collect(),
        // What can't be waited for is tried: it may then take its time.
        Err(_) => {
            return watched
                .iter()
                .map(|(fd, events)| if fd.is_some() { *events } else { PollFlags::empty() })
                .collect();
        }
    }
    let mut found = open.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
    watched.iter().map(|(fd, _)| fd.and_then(|_| found.next()).unwrap_or(PollFlags::empty())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn only_what_is_open_is_waited_for() {
        let (far, near) = nix::unistd::pipe().unwrap();
        drop(near);
        let wait = |fd| ready(&[(fd, READABLE)], Duration::from_millis(1))[0];
        assert!(wait(Some(far.as_fd())).contains(PollFlags::POLLHUP), "its end is seen at once");
        assert!(wait(None).is_empty());
    }
}
