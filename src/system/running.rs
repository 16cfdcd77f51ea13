//! A process under way: what it prints and says, and how it ends.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::PollFlags;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::exit::{Ending, Exit};
use super::group::has_ended;
use super::poll::{HANGUP, READABLE, ready};
use super::{EndingSignals, Until};

/// How much of a process's error output is kept, in bytes.
pub(super) const STDERR_LIMIT: usize = 16 * 1024;

/// How much output [`Running::collect`] keeps, in bytes; the rest is read and dropped.
pub(super) const COLLECT_LIMIT: usize = 64 * 1024;

/// What a pipe is asked to hold, in bytes, so that a writer rarely waits for its reader.
pub(crate) const PIPE: usize = 256 * 1024;

/// How long a process may take to end after a signal. It may be out of reach (sudo(8) is, and a set-uid helper may be):
/// then it is left to itself.
const REAP_PATIENCE: Duration = Duration::from_millis(200);

/// How long one may take to end that can't but end: on a busy machine it may have to wait for its turn.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// A process under way. Dropping it ends its whole process group.
pub(crate) struct Running {
    pid: Pid,
    stdout: File,
    stderr: File,
    errors: Vec<u8>,
    started: Instant,
    status: Option<WaitStatus>,
    /// By which signals it is stopped: each where the one before did not do.
    stopped_by: &'static [Signal],
    /// Whether it is to be ended when this is dropped.
    ours: bool,
}

impl Running {
    pub(super) fn new(pid: Pid, stdout: File, stderr: File, started: Instant) -> Running {
        // A larger pipe is a matter of speed alone.
        let _ = fcntl(&stdout, FcntlArg::F_SETPIPE_SZ(PIPE as i32));
        let (errors, status, stopped_by) = (Vec::new(), None, [Signal::SIGKILL].as_slice());
        Running { pid, stdout, stderr, errors, started, status, stopped_by, ours: true }
    }

    /// When it is to be stopped, it is first asked to end: so it can end what it started; sudo(8) passes it on.
    pub(super) fn ask_it_to_end_first(&mut self) {
        self.stopped_by = &[Signal::SIGTERM, Signal::SIGKILL];
    }

    /// Its standard output.
    pub(crate) fn stdout(&self) -> &File {
        &self.stdout
    }

    /// Its standard error.
    pub(crate) fn stderr(&self) -> BorrowedFd<'_> {
        self.stderr.as_fd()
    }

    /// Reads some of its error output, of which the beginning is kept. Returns whether there may be more.
    pub(crate) fn read_stderr(&mut self) -> bool {
        self.pass_on_stderr(&mut io::sink())
    }

    /// The same, and passes it on.
    pub(super) fn pass_on_stderr(&mut self, to: &mut dyn Write) -> bool {
        let mut buffer = [0; 4096];
        match self.stderr.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                // Where nobody listens it is still kept.
                let _ = to.write_all(&buffer[..length]);
                let room = STDERR_LIMIT.saturating_sub(self.errors.len());
                self.errors.extend_from_slice(&buffer[..length.min(room)]);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }

    /// Reads its output until it ends, the deadline passes or the client has left; the beginning, 64 KiB, is kept. A
    /// signal that ends this process meanwhile ends that one first.
    pub(crate) fn collect<'a>(self, until: impl Into<Until<'a>>) -> (Exit, Vec<u8>) {
        self.collect_up_to(COLLECT_LIMIT, until)
    }

    /// The same, with so many bytes kept.
    pub(crate) fn collect_up_to<'a>(mut self, limit: usize, until: impl Into<Until<'a>>) -> (Exit, Vec<u8>) {
        let until = until.into();
        let (ending, output) = self.beginning(limit, until);
        (self.exit(until.deadline, ending), output)
    }

    /// The same, with the last so many bytes kept.
    pub(crate) fn collect_end(mut self, limit: usize, until: Until<'_>) -> (Exit, Vec<u8>) {
        let mut output = Vec::new();
        let ending = self.read(until, &mut |chunk| {
            output.extend_from_slice(chunk);
            if output.len() > 2 * limit {
                output.drain(..output.len() - limit);
            }
        });
        output.drain(..output.len().saturating_sub(limit));
        (self.exit(until.deadline, ending), output)
    }

    /// Reads its output, of which so many bytes are kept, if it ends within that time; else it is left to itself, and so
    /// it is when this process ends.
    pub(crate) fn collect_or_leave(mut self, limit: usize, deadline: Instant) -> Option<Vec<u8>> {
        self.leave();
        let (ending, output) = self.beginning(limit, deadline.into());
        (ending == Ending::Exited).then_some(output)
    }

    /// Leaves it to itself: it goes on when this process ends.
    pub(super) fn leave(&mut self) {
        self.ours = false;
    }

    fn beginning(&mut self, limit: usize, until: Until<'_>) -> (Ending, Vec<u8>) {
        let mut output = Vec::new();
        let ending = self.read(until, &mut |chunk| {
            output.extend_from_slice(&chunk[..chunk.len().min(limit.saturating_sub(output.len()))]);
        });
        (ending, output)
    }

    fn read(&mut self, until: Until<'_>, chunk: &mut dyn FnMut(&[u8])) -> Ending {
        let mut buffer = vec![0; STDERR_LIMIT];
        let signals = EndingSignals::hold_back();
        let (mut out_open, mut err_open) = (true, true);
        // What was printed in time counts, even if nobody has read it so far.
        let mut late = PIPE;
        while out_open || err_open {
            let left = until.deadline.saturating_duration_since(Instant::now());
            let [client, held_back] = until.audience.watched();
            let watched = [
                (signals.as_ref().map(AsFd::as_fd), READABLE),
                client,
                held_back,
                (out_open.then(|| self.stdout.as_fd()), READABLE),
                (err_open.then(|| self.stderr.as_fd()), READABLE),
            ];
            let found = ready(&watched, left);
            let [arrived, hung_up, held_back, out, err] = found[..] else { continue };
            let nobody_is_left = [arrived, hung_up, held_back].iter().any(|found| !found.is_empty());
            if left.is_zero() && (late == 0 || (!nobody_is_left && out.is_empty() && err.is_empty())) {
                return Ending::Deadline;
            }
            if left.is_zero() {
                late = late.saturating_sub(buffer.len());
            }
            if nobody_is_left {
                if self.ours {
                    self.stop();
                }
                // Lets the signal through, if it is one, which ends this process.
                drop(signals);
                return Ending::ReaderGone;
            }
            if !out.is_empty() {
                match self.stdout.read(&mut buffer) {
                    Ok(0) => out_open = false,
                    Ok(length) => chunk(&buffer[..length]),
                    Err(error) => out_open = error.kind() == io::ErrorKind::Interrupted,
                }
            }
            if !err.is_empty() {
                err_open = self.read_stderr();
            }
        }
        Ending::Exited
    }

    /// How it ended; where it was to be ended, it is.
    pub(crate) fn exit(mut self, deadline: Instant, ending: Ending) -> Exit {
        let ending = match ending {
            Ending::Exited => {
                self.reap(deadline.max(Instant::now() + REAP_PATIENCE));
                ending
            }
            Ending::Deadline | Ending::OutOfReach | Ending::ReaderGone => match (self.stop(), ending) {
                (true, Ending::OutOfReach) => Ending::Deadline,
                (false, Ending::Deadline) => Ending::OutOfReach,
                _ => ending,
            },
        };
        let (code, signal) = match self.status {
            Some(WaitStatus::Exited(_, code)) => (Some(code), None),
            Some(WaitStatus::Signaled(_, signal, _)) => (None, Some(signal as i32)),
            _ => (None, None),
        };
        Exit {
            ending,
            code,
            signal,
            said: String::from_utf8_lossy(&self.errors).into_owned(),
            allowed: deadline.saturating_duration_since(self.started),
            unfinished: false,
        }
    }

    /// Ends it, and all of its process group. Returns whether that has come to pass, as far as one can see: what sudo(8)
    /// has started is in a group of its own, but it has the same output.
    fn stop(&mut self) -> bool {
        let gone = self.stopped_by.iter().any(|signal| {
            // It may have ended already, or be out of reach.
            let _ = killpg(self.pid, *signal);
            self.is_gone_after(*signal)
        });
        gone || (self.has_no_output() && has_ended(self.pid))
    }

    /// Whether nobody is left that has its output.
    fn has_no_output(&self) -> bool {
        let hung_up = |found: &PollFlags| found.contains(PollFlags::POLLHUP);
        ready(&[(Some(self.stdout.as_fd()), HANGUP), (Some(self.stderr.as_fd()), HANGUP)], Duration::ZERO)
            .iter()
            .all(hung_up)
    }

    /// Whether its whole process group is gone soon after this signal, and everybody that has its output.
    fn is_gone_after(&mut self, signal: Signal) -> bool {
        let sent = Instant::now();
        let mut pause = Duration::from_micros(50);
        loop {
            self.reap(Instant::now());
            // While it has a member, even one that has ended and nobody has waited for, its number is not given to another.
            let group = killpg(self.pid, None);
            if group == Err(Errno::ESRCH) && self.has_no_output() {
                return true;
            }
            let is_ending = signal == Signal::SIGKILL && group.is_ok() && sent.elapsed() < KILL_PATIENCE;
            if sent.elapsed() >= REAP_PATIENCE && (!is_ending || has_ended(self.pid)) {
                return false;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    fn reap(&mut self, until: Instant) {
        let mut pause = Duration::from_micros(50);
        while self.status.is_none() {
            match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
                Ok(status) => self.status = Some(status),
                // Somebody else has waited for it.
                Err(_) => return,
            }
            if self.status.is_some() || Instant::now() >= until {
                return;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.ours && self.status.is_none() {
            self.stop();
        }
    }
}
