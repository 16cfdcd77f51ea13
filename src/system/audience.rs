//! For whom something is done: nothing is waited for when nobody is left.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::EndingSignals;
use super::poll::{HANGUP, READABLE, Watched, ready};

/// For whom something is done.
#[derive(Clone, Copy, Default)]
pub(crate) struct Audience<'a> {
    /// Where the client is; `None` where it does not matter whether it leaves.
    pub(crate) client: Option<BorrowedFd<'a>>,
    /// The signals that are held back and are to end this process.
    pub(crate) signals: Option<&'a EndingSignals>,
}

impl<'a> Audience<'a> {
    /// What to watch while something is waited for: each is ready when nobody is left.
    pub(crate) fn watched(self) -> [Watched<'a>; 2] {
        [(self.client, HANGUP), (self.signals.map(AsFd::as_fd), READABLE)]
    }

    /// # Errors
    /// [`io::ErrorKind::BrokenPipe`]: the client has left. [`io::ErrorKind::Interrupted`]: a signal is to end this process.
    pub(crate) fn is_there(self) -> io::Result<()> {
        self.wait(Duration::ZERO)
    }

    /// Lets so much time pass, as long as somebody is there.
    ///
    /// # Errors
    /// As [`Audience::is_there`].
    pub(crate) fn wait(self, time: Duration) -> io::Result<()> {
        match ready(&self.watched(), time)[..] {
            [_, arrived] if !arrived.is_empty() => Err(io::ErrorKind::Interrupted.into()),
            [hung_up, _] if !hung_up.is_empty() => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Ok(()),
        }
    }

    /// As long as somebody is there, and not longer than that.
    pub(crate) fn until(self, deadline: Instant) -> Until<'a> {
        Until { deadline, audience: self }
    }
}

/// Until when something is waited for, and for whom.
#[derive(Clone, Copy)]
pub(crate) struct Until<'a> {
    pub(crate) deadline: Instant,
    pub(crate) audience: Audience<'a>,
}

impl From<Instant> for Until<'static> {
    fn from(deadline: Instant) -> Until<'static> {
        Audience::default().until(deadline)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[test]
    fn a_client_who_leaves_and_a_signal_are_noticed() {
        let (client, here) = nix::unistd::pipe().unwrap();
        let at_pipe = Audience { client: Some(here.as_fd()), signals: None };
        assert!(at_pipe.is_there().is_ok() && Audience::default().wait(Duration::from_millis(1)).is_ok());
        drop(client);
        let long = Duration::from_secs(60 * 60);
        assert_eq!(at_pipe.wait(long).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let signals = EndingSignals::hold_back().unwrap();
        let held = Audience { signals: Some(&signals), ..at_pipe };
        assert_eq!(held.is_there().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        raise(Signal::SIGHUP).unwrap();
        assert_eq!(held.wait(long).unwrap_err().kind(), io::ErrorKind::Interrupted);
        // Takes the signal, which would end this process.
        nix::unistd::read(signals.as_fd(), &mut [0; 128]).unwrap();
    }
}
