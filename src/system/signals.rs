//! Signals that end this process, held back until what it started has ended.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Holds the signals that end this process back, in this thread and in those that it starts, until dropped: so
/// that what is under way can be ended first.
pub(crate) struct EndingSignals {
    before: SigSet,
    arrived: SignalFd,
}

impl EndingSignals {
    /// `None` where the system has no room for it: then such a signal ends this process alone.
    pub(crate) fn hold_back() -> Option<EndingSignals> {
        let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect();
        let arrived = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).ok()?;
        Some(EndingSignals { before: signals.thread_swap_mask(SigmaskHow::SIG_BLOCK).ok()?, arrived })
    }
}

/// Can be read from once a signal has arrived.
impl AsFd for EndingSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.arrived.as_fd()
    }
}

impl Drop for EndingSignals {
    fn drop(&mut self) {
        // It can't fail: the mask was in force before.
        let _ = self.before.thread_set_mask();
    }
}
