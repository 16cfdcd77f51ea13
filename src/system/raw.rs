//! What Rust can't see to be safe: the only unsafe code of this program.
#![allow(unsafe_code)]

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::ForkResult;

/// Leaves nothing of what a client put into the environment where a program or a library would read it. To be called by
/// `main`, before anything else runs.
pub fn empty_environment() {
    // SAFETY: no other thread may use the environment meanwhile: this process never has a second one, see `fork`.
    unsafe {
        // It fails only where there is no memory left for an empty list.
        let _ = nix::env::clearenv();
    }
}

/// Gives a signal its default action.
pub(super) fn set_to_default(signal: Signal) {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: sigaction(2) is unsafe for the handler that it may install, which runs at any time, in the middle of
    // anything. The default action is the kernel's: nothing of this program runs. No handler is replaced on which
    // something relies: this program installs none, and the callers leave those of Rust's runtime alone.
    unsafe {
        // It fails only for signals whose action can't be changed, see sigaction(2).
        let _ = sigaction(signal, &default);
    }
}

/// Makes a copy of this process, which goes on beside it.
///
/// # Errors
/// Those of fork(2): too many processes, or too little memory.
pub(super) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: in a process with several threads, locks that another thread holds would stay locked for ever in the
    // copy. This process never has a second thread: what may hang is done by a branch of it (see `system::process`),
    // and threads are started in branches only, which do not branch. (The tests' own processes do have threads;
    // glibc keeps its allocator usable after fork(2) there.)
    unsafe { nix::unistd::fork() }
}

/// Closes every descriptor from one number up to another, both included.
///
/// # Errors
/// Those of close_range(2): a kernel before Linux 5.9 does not know it.
pub(super) fn close_range(first: u32, last: u32) -> nix::Result<()> {
    // SAFETY: close_range(2) touches no memory. That no variable uses what it closes is the caller's care, as it is with
    // `nix::unistd::close`.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    nix::errno::Errno::result(closed).map(drop)
}

/// Ends this process at once, and leaves alone what it shares with the process that it is a copy of: unwritten
/// output, and what is to be done at the exit of that one.
pub(super) fn leave(status: u8) -> ! {
    // SAFETY: _exit(2) takes any number, and does not return.
    unsafe { libc::_exit(libc::c_int::from(status)) }
}
