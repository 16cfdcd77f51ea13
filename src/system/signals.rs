//! Signals: what this process inherited is set right, and those that end it are held back until what it started has
//! ended.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::raw;

/// Signals with which Rust's runtime has dealt before `main`: a stack overflow's, and that of a reader who left.
const OF_THE_RUNTIME: [Signal; 3] = [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGPIPE];

/// Takes SIGCHLD as it is meant. Where the process that started this program ignores it, which is inherited, a child leaves no
/// exit status behind (wait(2)), and every listing would seem to hang.
pub fn expect_children() {
    raw::set_to_default(Signal::SIGCHLD);
}

/// Takes every signal as it is meant, whatever the web server ignored or blocked (webfs ignores SIGCHLD, uWSGI blocks all).
/// Not for the command line, where nohup(1) and shells ignore signals on purpose.
pub fn forget_inherited_signals() {
    Signal::iterator().filter(|signal| !OF_THE_RUNTIME.contains(signal)).for_each(raw::set_to_default);
    // It can't fail: an empty mask is a valid one.
    let _ = SigSet::empty().thread_set_mask();
}

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
