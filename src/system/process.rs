//! Starting programs, and branches of this process: the only file that does.
//!
//! A program gets a fixed argument vector and no shell, an empty environment but for `PATH` and
//! `LC_ALL`, no input but a lock to hold, a process group of its own and a deadline. A branch is a copy of this process (fork(2)) that
//! does one thing beside it, with no descriptors but those that it is given. Either is a `Running`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, pipe2, setpgid};

pub(crate) use super::argv::Argv;
use super::argv::PATH;
pub use super::exit::{Ending, Exit};
use super::group::has_ended;
use super::poll::{HANGUP, READABLE, ready};
use super::{EndingSignals, Free, close_all_but, raw};

/// How much of a process's error output is kept, in bytes.
const STDERR_LIMIT: usize = 16 * 1024;

/// How much output [`Running::collect`] keeps, in bytes; the rest is read and dropped.
const COLLECT_LIMIT: usize = 64 * 1024;

/// What a pipe is asked to hold, in bytes, so that a writer rarely waits for its reader.
pub(crate) const PIPE: usize = 256 * 1024;

/// How long a process may take to end after a signal. It may be out of reach (sudo(8) is, and a set-uid helper may be):
/// then it is left to itself.
const REAP_PATIENCE: Duration = Duration::from_millis(200);

/// The exit status of a branch that panicked.
const PANICKED: u8 = 101;

/// Why a command could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{command} could not be started: {error}.")]
pub(crate) struct NotStarted {
    /// The command line.
    pub(crate) command: String,
    /// The system's words.
    pub(crate) error: String,
}

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

/// Starts a command.
///
/// # Errors
/// [`NotStarted`].
pub(crate) fn start(free: &Free, argv: &Argv) -> Result<Running, NotStarted> {
    start_with(free, argv, None)
}

/// The same, with this for its standard input. A lock on it ends with the command, however long that takes: standard
/// input is all that sudo(8) hands on.
///
/// # Errors
/// [`NotStarted`].
pub(crate) fn start_with(_: &Free, argv: &Argv, input: Option<File>) -> Result<Running, NotStarted> {
    let not_started = |error: String| NotStarted { command: argv.to_string(), error };
    let (program, arguments) = argv.split().ok_or_else(|| not_started("the command is empty".into()))?;
    let started = Instant::now();
    // A program inherits the signal mask: what is held back here shall end it.
    let mask = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK);
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .process_group(0)
        .stdin(input.map_or_else(Stdio::null, Stdio::from))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    if let Ok(mask) = mask {
        // It can't fail: the mask was in force before.
        let _ = mask.thread_set_mask();
    }
    let mut child = child.map_err(|error| not_started(error.to_string()))?;
    let (Some(stdout), Some(stderr), Ok(pid)) = (child.stdout.take(), child.stderr.take(), i32::try_from(child.id()))
    else {
        return Err(not_started("its output could not be connected".into()));
    };
    let (stdout, stderr) = (OwnedFd::from(stdout).into(), OwnedFd::from(stderr).into());
    let mut running = Running::new(Pid::from_raw(pid), stdout, stderr, started);
    // What is asked to end can end what it started; sudo(8) passes it on.
    running.stopped_by = &[Signal::SIGTERM, Signal::SIGKILL];
    Ok(running)
}

/// What a branch is given.
pub(crate) struct Equipment<'a> {
    /// Its standard input, if it gets one: what it is told, or a lock that it holds.
    pub(crate) input: Option<OwnedFd>,
    /// The descriptors that it keeps besides the standard ones, where they are.
    pub(crate) kept: &'a [BorrowedFd<'a>],
    /// How long it lives.
    pub(crate) life: Life,
}

/// How long a branch lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// Not longer than the process that it is a branch of, however that ends.
    Bound,
    /// As long as it takes.
    Free,
}

/// Starts a branch of this process, which does `work` and ends. Its standard output and standard error lead here.
/// It is in a process group of its own, and has no working signal mask of ours.
///
/// # Errors
/// Those of fork(2) and pipe(2).
pub(crate) fn branch(_: &Free, equipment: Equipment<'_>, work: impl FnOnce(Free)) -> io::Result<Running> {
    let (from_stdout, stdout) = pipe2(OFlag::O_CLOEXEC)?;
    let (from_stderr, stderr) = pipe2(OFlag::O_CLOEXEC)?;
    let started = Instant::now();
    match raw::fork()? {
        ForkResult::Parent { child } => {
            // It does the same: whichever is first.
            let _ = setpgid(child, child);
            Ok(Running::new(child, from_stdout.into(), from_stderr.into(), started))
        }
        ForkResult::Child => {
            let Equipment { input, kept, life } = equipment;
            settle(input, stdout, stderr, kept, life);
            // Nothing of this process's own is to happen here but `work`, not even after a panic.
            let outcome = catch_unwind(AssertUnwindSafe(|| work(Free(()))));
            let _ = io::stdout().flush();
            raw::leave(outcome.map_or(PANICKED, |()| 0))
        }
    }
}

/// Makes this copy of a process one of its own. What fails here leaves the branch with more than it needs, or with an
/// output that leads nowhere, which is then seen by who reads it.
fn settle(input: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd, kept: &[BorrowedFd<'_>], life: Life) {
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    if life == Life::Bound {
        let _ = set_pdeathsig(Signal::SIGKILL);
    }
    let _ = SigSet::empty().thread_set_mask();
    let nowhere = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    let _ = input.map_or_else(nowhere, Ok).map(|input| nix::unistd::dup2_stdin(&input));
    let _ = nix::unistd::dup2_stdout(&stdout);
    let _ = nix::unistd::dup2_stderr(&stderr);
    let kept: Vec<i32> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    // What is closed here belongs to variables of the process that this is a copy of: they are never dropped.
    std::mem::forget((stdout, stderr));
    close_all_but(&kept);
}

impl Running {
    fn new(pid: Pid, stdout: File, stderr: File, started: Instant) -> Running {
        // A larger pipe is a matter of speed alone.
        let _ = fcntl(&stdout, FcntlArg::F_SETPIPE_SZ(PIPE as i32));
        let (errors, status, stopped_by) = (Vec::new(), None, [Signal::SIGKILL].as_slice());
        Running { pid, stdout, stderr, errors, started, status, stopped_by, ours: true }
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
        let mut buffer = [0; 4096];
        match self.stderr.read(&mut buffer) {
            Ok(0) => false,
            Ok(length) => {
                let room = STDERR_LIMIT.saturating_sub(self.errors.len());
                self.errors.extend_from_slice(&buffer[..length.min(room)]);
                true
            }
            Err(error) => error.kind() == io::ErrorKind::Interrupted,
        }
    }

    /// Reads its output until it ends or the deadline passes; the beginning, 64 KiB, is kept. A signal that ends this
    /// process meanwhile ends that one first.
    pub(crate) fn collect(self, deadline: Instant) -> (Exit, Vec<u8>) {
        self.collect_up_to(COLLECT_LIMIT, deadline)
    }

    /// The same, with so many bytes kept.
    pub(crate) fn collect_up_to(mut self, limit: usize, deadline: Instant) -> (Exit, Vec<u8>) {
        let mut output = Vec::new();
        let ending = self.read(deadline, &mut |chunk| {
            output.extend_from_slice(&chunk[..chunk.len().min(limit.saturating_sub(output.len()))]);
        });
        (self.exit(deadline, ending), output)
    }

    /// The same, with the last so many bytes kept.
    pub(crate) fn collect_end(mut self, limit: usize, deadline: Instant) -> (Exit, Vec<u8>) {
        let mut output = Vec::new();
        let ending = self.read(deadline, &mut |chunk| {
            output.extend_from_slice(chunk);
            if output.len() > 2 * limit {
                output.drain(..output.len() - limit);
            }
        });
        output.drain(..output.len().saturating_sub(limit));
        (self.exit(deadline, ending), output)
    }

    /// Reads its output, of which so many bytes are kept, if it ends within that time; else it is left to itself, and so
    /// it is when this process ends.
    pub(crate) fn collect_or_leave(mut self, limit: usize, deadline: Instant) -> Option<Vec<u8>> {
        let mut output = Vec::new();
        self.ours = false;
        let ending = self.read(deadline, &mut |chunk| {
            output.extend_from_slice(&chunk[..chunk.len().min(limit.saturating_sub(output.len()))]);
        });
        (ending == Ending::Exited).then_some(output)
    }

    fn read(&mut self, deadline: Instant, chunk: &mut dyn FnMut(&[u8])) -> Ending {
        let mut buffer = vec![0; STDERR_LIMIT];
        let signals = EndingSignals::hold_back();
        let (mut out_open, mut err_open) = (true, true);
        // What was printed in time counts, even if nobody has read it so far.
        let mut late = PIPE;
        while out_open || err_open {
            let left = deadline.saturating_duration_since(Instant::now());
            let watched = [
                (signals.as_ref().map(AsFd::as_fd), READABLE),
                (out_open.then(|| self.stdout.as_fd()), READABLE),
                (err_open.then(|| self.stderr.as_fd()), READABLE),
            ];
            let found = ready(&watched, left);
            let [arrived, out, err] = found[..] else { continue };
            if left.is_zero() && (late == 0 || (arrived.is_empty() && out.is_empty() && err.is_empty())) {
                return Ending::Deadline;
            }
            if left.is_zero() {
                late = late.saturating_sub(buffer.len());
            }
            if !arrived.is_empty() {
                let _ = !self.ours || self.stop();
                // Lets the signal through, which ends this process.
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
            self.is_gone_by(Instant::now() + REAP_PATIENCE)
        });
        gone || (self.has_no_output() && has_ended(self.pid))
    }

    /// Whether nobody has its output any more.
    fn has_no_output(&self) -> bool {
        let hung_up = |found: &PollFlags| found.contains(PollFlags::POLLHUP);
        ready(&[(Some(self.stdout.as_fd()), HANGUP), (Some(self.stderr.as_fd()), HANGUP)], Duration::ZERO)
            .iter()
            .all(hung_up)
    }

    /// Whether its whole process group is gone by then, and whoever has its output.
    fn is_gone_by(&mut self, until: Instant) -> bool {
        let mut pause = Duration::from_micros(50);
        loop {
            self.reap(Instant::now());
            // While it has a member, even one that has ended and nobody has waited for, it is not given anew.
            if killpg(self.pid, None) == Err(Errno::ESRCH) && self.has_no_output() {
                return true;
            }
            if Instant::now() >= until {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Running {
        start(&Free::of_main(), &Argv::new("/bin/sh", &["-c", script])).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn lines(script: &str, deadline: Instant) -> (Exit, Vec<String>) {
        let (exit, output) = sh(script).collect(deadline);
        (exit, String::from_utf8(output).unwrap().lines().map(str::to_owned).collect())
    }

    #[test]
    fn the_environment_is_clean_and_there_is_no_input() {
        let (_, lines) = lines("cat; env | sort", soon());
        let names: Vec<_> = lines.iter().filter_map(|line| line.split('=').next()).collect();
        assert_eq!(names, ["LC_ALL", "PATH", "PWD"], "PWD is the shell's own");
    }

    #[test]
    fn what_is_held_back_here_is_not_held_back_there() {
        let signals = EndingSignals::hold_back();
        let (_, lines) = lines("grep SigBlk /proc/self/status", soon());
        drop(signals);
        assert_eq!(lines, ["SigBlk:\t0000000000000000"]);
    }

    #[test]
    fn at_the_deadline_the_whole_process_group_is_gone() {
        let deadline = Instant::now() + Duration::from_millis(300);
        let (exit, lines) = lines("sleep 987 & echo $!; echo $$; sleep 987", deadline);
        assert_eq!(exit.ending, Ending::Deadline);
        assert_eq!(lines.len(), 2, "what was printed before is kept");
        for pid in lines {
            let pid = Pid::from_raw(pid.parse().unwrap());
            let gone = (0..100).any(|_| {
                thread::sleep(Duration::from_millis(20));
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.is_empty() || stat.contains(") Z ")
            });
            assert!(gone, "{pid} still runs");
        }
    }

    #[test]
    fn who_is_asked_to_end_can_do_so_and_who_does_not_is_ended() {
        let soon = || Instant::now() + Duration::from_millis(300);
        let (exit, _) = lines("trap 'kill $!; exit 7' TERM; sleep 987 & wait", soon());
        assert_eq!((exit.ending, exit.code), (Ending::Deadline, Some(7)));
        let (exit, _) = lines("trap '' TERM; sleep 987; sleep 987", soon());
        assert_eq!((exit.ending, exit.signal), (Ending::Deadline, Some(9)));
    }

    #[test]
    fn a_lock_that_is_handed_on_ends_with_the_command() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lock = file.reopen().unwrap();
        lock.try_lock().unwrap();
        let waits = Argv::new("/bin/sh", &["-c", "read line; echo started; exec sleep 987"]);
        let running = start_with(&Free::of_main(), &waits, Some(lock)).unwrap();
        let is_held = || file.as_file().try_lock().is_err();
        assert_eq!((&running.stdout).read(&mut [0]).unwrap(), 1, "it has nothing to read, and goes on");
        assert!(is_held());
        drop(running);
        assert!(!is_held());
    }

    #[test]
    fn a_command_that_closes_its_output_and_stays_is_not_waited_for_beyond_the_deadline() {
        let deadline = Instant::now() + Duration::from_millis(200);
        let (exit, _) = lines("exec >&- 2>&-; sleep 987", deadline);
        assert_eq!((exit.ending, exit.code), (Ending::Exited, None));
        assert!(!exit.success());
    }

    #[test]
    fn what_was_printed_in_time_counts_even_if_it_is_read_later() {
        let running = sh("echo hello");
        thread::sleep(Duration::from_millis(300));
        let (exit, output) = running.collect(Instant::now());
        assert_eq!((exit.ending, output.as_slice()), (Ending::Exited, &b"hello\n"[..]));
        assert_eq!(sh("yes").collect(Instant::now()).0.ending, Ending::Deadline);
    }

    #[test]
    fn output_is_bounded() {
        let (exit, output) =
            sh("head -c 100000 /dev/zero | tr '\\0' e >&2; head -c 1000000 /dev/zero; exit 3").collect(soon());
        assert_eq!((output.len(), exit.said.len(), exit.code), (COLLECT_LIMIT, STDERR_LIMIT, Some(3)));
        assert_eq!(sh("seq 1 30000").collect_end(12, soon()).1, b"29999\n30000\n");
    }

    #[test]
    fn a_program_that_is_not_there_is_told() {
        let trouble = start(&Free::of_main(), &Argv::new("/nonexistent/lister", &[])).err().unwrap();
        assert!(trouble.to_string().starts_with("/nonexistent/lister could not be started: No such file"), "{trouble}");
    }

    #[test]
    fn a_branch_answers_and_a_panic_stays_in_it() {
        let equipment = || Equipment { input: None, kept: &[], life: Life::Bound };
        let answer = |work: fn()| branch(&Free::of_main(), equipment(), |_| work()).unwrap().collect(soon());
        let write = |text: &str| nix::unistd::write(io::stdout(), text.as_bytes()).unwrap();
        assert_eq!(write(""), 0);
        let (exit, output) = answer(|| {
            nix::unistd::write(io::stdout(), b"hello").unwrap();
        });
        assert_eq!((exit.code, output.as_slice()), (Some(0), &b"hello"[..]));
        let (exit, _) = answer(|| std::panic::resume_unwind(Box::new(())));
        assert_eq!(exit.code, Some(i32::from(PANICKED)));
    }
}
