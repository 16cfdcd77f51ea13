//! Starting programs, and branches of this process: the only file that does.
//!
//! A program gets a fixed argument vector and no shell, an empty environment but for `PATH` and `LC_ALL`, no input but a
//! line to read or a lock to hold, a process group of its own and a deadline. A branch is a copy of this process
//! (fork(2)) that does one thing beside it, with no descriptors but those that it is given. Either is a `Running`.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{ForkResult, Pid, pipe2, setpgid};

pub(crate) use super::argv::Argv;
use super::argv::PATH;
pub use super::exit::{Ending, Exit};
pub(crate) use super::running::{PIPE, Running};
use super::{Free, close_all_but, close_standard_streams, raw, stdin};

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

/// Starts a command.
///
/// # Errors
/// [`NotStarted`].
pub(crate) fn start(free: &Free, argv: &Argv) -> Result<Running, NotStarted> {
    start_with(free, argv, None)
}

/// The same, with this for its standard input. A lock on it ends with the command, however long that takes: standard
/// input is all that sudo(8) and doas(1) hand on. The line that a command reads is written into it.
///
/// # Errors
/// [`NotStarted`].
pub(crate) fn start_with(free: &Free, argv: &Argv, lock: Option<File>) -> Result<Running, NotStarted> {
    let input = stdin::of(argv.input(), lock);
    let input =
        input.map_err(|error| NotStarted { command: argv.to_string(), error: format!("its input: {error}") })?;
    spawn(free, argv, input, Stdio::piped())
}

/// Starts a command that prints to this process's own standard output; the [`Running::stdout`] of it is at its end.
///
/// # Errors
/// [`NotStarted`].
pub(super) fn start_through(free: &Free, argv: &Argv, input: Stdio) -> Result<Running, NotStarted> {
    spawn(free, argv, input, Stdio::inherit())
}

fn spawn(_: &Free, argv: &Argv, input: Stdio, output: Stdio) -> Result<Running, NotStarted> {
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
        .stdin(input)
        .stdout(output)
        .stderr(Stdio::piped())
        .spawn();
    if let Ok(mask) = mask {
        // It can't fail: the mask was in force before.
        let _ = mask.thread_set_mask();
    }
    let mut child = child.map_err(|error| not_started(error.to_string()))?;
    let at_its_end = || io::pipe().map(|(output, _)| OwnedFd::from(output)).ok();
    let stdout = child.stdout.take().map(OwnedFd::from).or_else(at_its_end);
    let (Some(stdout), Some(stderr), Ok(pid)) = (stdout, child.stderr.take(), i32::try_from(child.id())) else {
        return Err(not_started("its output could not be connected".into()));
    };
    let mut running = Running::new(Pid::from_raw(pid), stdout.into(), OwnedFd::from(stderr).into(), started);
    running.ask_it_to_end_first();
    Ok(running)
}

/// What a branch is given.
pub(crate) struct Equipment<'a> {
    /// Its standard input, if it gets one: a line to read, or a lock that it holds.
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

/// Starts a branch that nobody waits for, and that outlives this process.
///
/// # Errors
/// As [`branch`].
pub(crate) fn branch_off(free: &Free, work: impl FnOnce(Free)) -> io::Result<()> {
    let equipment = Equipment { input: None, kept: &[], life: Life::Free };
    let begin = |free| {
        close_standard_streams();
        work(free);
    };
    branch(free, equipment, begin).map(|mut running| running.leave())
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

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::thread;
    use std::time::Duration;

    use super::super::EndingSignals;
    use super::super::running::{COLLECT_LIMIT, STDERR_LIMIT};
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
        assert_eq!(running.stdout().read(&mut [0]).unwrap(), 1, "it has nothing to read, and goes on");
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
        assert_eq!(sh("seq 1 30000").collect_end(12, soon().into()).1, b"29999\n30000\n");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
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
