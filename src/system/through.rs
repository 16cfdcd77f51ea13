//! Commands whose output is this process's own: whatever they print, nobody reads it here.

use std::io;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::poll::{HANGUP, READABLE, ready};
use super::process::{Argv, Ending, Exit, NotStarted, start_through};
use super::{EndingSignals, Free};

/// Longer than any command takes that is waited for.
const LONG: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Runs a command that prints for somebody: it is ended at the deadline, when nobody is left who reads it, and
/// by a signal that ends this process. It gets this process's standard input, and so the lock on it, which it holds if
/// it can't be killed. What it says on standard error is passed on; the beginning is in the [`Exit`].
///
/// # Errors
/// [`NotStarted`].
pub(crate) fn print(free: &Free, argv: &Argv, deadline: Instant) -> Result<Exit, NotStarted> {
    let mut running = start_through(free, argv, Stdio::inherit())?;
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
        if !says.is_empty() && !running.pass_on_stderr(&mut stderr) {
            break Ending::Exited;
        }
    };
    Ok(running.exit(deadline, ending))
}

/// Runs a command that does something, to its end, even if nobody reads what it prints, or this process ends.
///
/// # Errors
/// [`NotStarted`].
pub(crate) fn act(free: &Free, argv: &Argv) -> Result<Exit, NotStarted> {
    let mut running = start_through(free, argv, Stdio::null())?;
    running.leave();
    let mut stderr = io::stderr();
    while running.pass_on_stderr(&mut stderr) {}
    Ok(running.exit(Instant::now() + LONG, Ending::Exited))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;

    use super::super::process::{Equipment, Life, branch};
    use super::*;

    fn sh(script: &str) -> Argv {
        Argv::new("/bin/sh", &["-c", script])
    }

    /// What a process prints, and says at its end, that does this with a command.
    fn played(work: impl Fn(&Free) -> Result<Exit, NotStarted>) -> (String, String) {
        played_with(None, work)
    }

    fn played_with(input: Option<OwnedFd>, work: impl Fn(&Free) -> Result<Exit, NotStarted>) -> (String, String) {
        let equipment = Equipment { input, kept: &[], life: Life::Bound };
        let playing = branch(&Free::of_main(), equipment, |free| {
            let exit = work(&free).unwrap();
            // The test's harness takes what `eprint!` prints.
            write!(io::stderr(), "{:?} {:?} {}", exit.ending, exit.code, exit.said).unwrap();
        });
        let (exit, output) = playing.unwrap().collect(Instant::now() + Duration::from_secs(20));
        (String::from_utf8(output).unwrap(), exit.said)
    }

    fn in_time(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[test]
    fn what_a_command_prints_and_says_is_passed_on() {
        let script = "echo out; echo err >&2; exit 3";
        let expected = ("out\n".to_owned(), "err\nExited Some(3) err\n".to_owned());
        assert_eq!(played(|free| print(free, &sh(script), in_time(10))), expected);
        assert_eq!(played(|free| act(free, &sh(script))), expected);
    }

    #[test]
    fn what_prints_has_the_input_of_this_process_and_what_acts_has_none() {
        let input = || {
            let (input, mut pen) = io::pipe().unwrap();
            pen.write_all(b"place").unwrap();
            Some(input.into())
        };
        assert_eq!(played_with(input(), |free| print(free, &sh("cat"), in_time(10))).0, "place");
        assert_eq!(played_with(input(), |free| act(free, &sh("cat"))).0, "");
    }

    #[test]
    fn a_command_that_prints_ends_at_the_deadline_and_with_its_reader() {
        let (out, said) =
            played(|free| print(free, &sh("echo out; sleep 987"), Instant::now() + Duration::from_millis(200)));
        assert_eq!((out.as_str(), said.split(' ').next()), ("out\n", Some("Deadline")), "{said}");
        let (_, said) = played(|free| {
            let (reader, writer) = io::pipe().unwrap();
            nix::unistd::dup2_stdout(&writer).unwrap();
            drop(reader);
            print(free, &sh("sleep 987"), in_time(10))
        });
        assert!(said.starts_with("ReaderGone"), "{said}");
    }

    #[test]
    fn a_command_that_acts_goes_on_without_its_reader() {
        let (_, said) = played(|free| {
            let (reader, writer) = io::pipe().unwrap();
            nix::unistd::dup2_stdout(&writer).unwrap();
            drop(reader);
            act(free, &sh("sleep 0.2; echo done >&2"))
        });
        assert_eq!(said, "done\nExited Some(0) done\n");
    }
}
