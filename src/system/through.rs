//! Commands whose output is this process's own: whatever they print, nobody reads it here.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use super::poll::{HANGUP, READABLE, ready};
use super::process::{Argv, Ending, Exit, NotStarted, start_through};
use super::{EndingSignals, Free};

/// Longer than any command takes that is waited for.
const LONG: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Runs a command that prints for somebody: it is ended at the deadline, when nobody reads what it prints any more, and
/// by a signal that ends this process. What it says on standard error is passed on; the beginning is in the [`Exit`].
///
/// # Errors
/// [`NotStarted`].
pub(crate) fn print(free: &Free, argv: &Argv, deadline: Instant) -> Result<Exit, NotStarted> {
    let mut running = start_through(free, argv)?;
    // Let through when the command has ended.
    let signals = EndingSignals::hold_back();
    let (stdout, mut stderr) = (io::stdout(), io::stderr());
    let ending = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break Ending::Deadline;
        }
        let watched = [
            (signals.as_ref().map(AsFd::as_fd), READABLE),
            (Some(stdout.as_fd()), HANGUP),
            (Some(running.stderr()), READABLE),
        ];
        let found = ready(&watched, left);
        let [arrived, gone, says] = found[..] else { break Ending::ReaderGone };
        if !arrived.is_empty() || !gone.is_empty() {
            break Ending::ReaderGone;
        }
        if !says.is_empty() && !running.take_stderr(&mut stderr) {
            break Ending::Exited;
        }
    };
    Ok(running.exit(deadline, ending))
}

/// Runs a command that does something, to its end: whether anybody still reads what it prints, or this process ends, is
/// all the same to it.
///
/// # Errors
/// [`NotStarted`].
pub(crate) fn act(free: &Free, argv: &Argv) -> Result<Exit, NotStarted> {
    let mut running = start_through(free, argv)?;
    running.leave();
    let mut stderr = io::stderr();
    while running.take_stderr(&mut stderr) {}
    Ok(running.exit(Instant::now() + LONG, Ending::Exited))
}
