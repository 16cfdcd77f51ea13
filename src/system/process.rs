//! Starting the mail server's commands: the only file that does.
//!
//! A command gets a fixed argument vector and no shell, an empty environment but for `PATH` and
//! `LC_ALL`, no input, a process group of its own and a deadline. Its output is read while it runs.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::system::EndingSignals;

/// The `PATH` of every command, and where a bare program name is looked for.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

/// How much of a command's error output is kept, in bytes.
const STDERR_LIMIT: usize = 16 * 1024;

/// How much of that is told, in characters.
const WORDS_LIMIT: usize = 500;

/// How much output [`Running::collect`] keeps, in bytes; the rest is read and dropped.
const COLLECT_LIMIT: usize = 64 * 1024;

/// The longest line that is read whole, in bytes: a message with some 50,000 recipients.
pub const LINE_LIMIT: usize = 8 * 1024 * 1024;

/// How much is read at once, in bytes, and what the pipe is asked to hold, so that the lister
/// rarely waits for its reader.
const CHUNK: usize = 256 * 1024;

/// How long a killed command is waited for. It may be out of reach (a set-uid helper): then it is
/// left to itself.
const REAP_PATIENCE: Duration = Duration::from_millis(200);

/// How often it is looked whether what runs on our own streams has ended.
const ATTACHED_PAUSE: Duration = Duration::from_millis(20);

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argv(Vec<OsString>);

impl Argv {
    /// A program with arguments.
    pub fn new(program: impl Into<OsString>, arguments: &[&str]) -> Argv {
        Argv(std::iter::once(program.into()).chain(arguments.iter().map(OsString::from)).collect())
    }

    /// An argument vector from the configuration; `None` if it is empty.
    pub fn from_words(words: &[String]) -> Option<Argv> {
        (!words.is_empty()).then(|| Argv(words.iter().map(OsString::from).collect()))
    }

    /// An argument vector of words from the command line; `None` if there are none.
    pub fn from_os_words(words: Vec<OsString>) -> Option<Argv> {
        (!words.is_empty()).then_some(Argv(words))
    }

    /// The path of the mail server's program, also where sudo or doas stands before it.
    pub fn program(&self) -> PathBuf {
        let stands_before = |word: &&OsString| ["sudo", "doas", "-n", "--"].iter().any(|known| *word == known);
        self.0.iter().find(|word| !stands_before(word)).map(PathBuf::from).unwrap_or_default()
    }

    /// Whether its program is there, as far as this user can see.
    pub fn is_there(&self) -> bool {
        let Some(program) = self.0.first().map(Path::new) else { return false };
        match program.components().count() {
            1 => PATH.split(':').any(|folder| Path::new(folder).join(program).exists()),
            _ => program.exists(),
        }
    }

    /// How many words it has, the program's included.
    pub fn length(&self) -> usize {
        self.0.len()
    }

    /// This vector with another's words behind its own.
    #[must_use]
    pub fn and(mut self, other: &Argv) -> Argv {
        self.0.extend_from_slice(&other.0);
        self
    }
}

/// The words with a space between them, for a reader.
impl fmt::Display for Argv {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            write!(to, "{}{}", if index > 0 { " " } else { "" }, word.to_string_lossy())?;
        }
        Ok(())
    }
}

/// Why a command is no longer read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It ended by itself.
    Exited,
    /// It was stopped at the deadline.
    Deadline,
    /// It was stopped because nobody reads the answer any more.
    ReaderGone,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Why it is no longer read from.
    pub ending: Ending,
    /// Its exit status, if it exited.
    pub code: Option<i32>,
    /// The signal that killed it, if one did.
    pub signal: Option<i32>,
    /// The beginning of what it said: on its standard error; a flusher, which lists nothing, also on
    /// its standard output.
    pub said: String,
    /// The deadline it had.
    pub allowed: Duration,
    /// Whether its output ended in the middle of a line.
    pub unfinished: bool,
}

impl Exit {
    /// Whether the command ended by itself with status 0.
    pub fn success(&self) -> bool {
        self.ending == Ending::Exited && self.code == Some(0)
    }

    /// How it ended and what it said, on one line.
    pub fn describe(&self) -> String {
        let (how, words) = (self.how(), self.words());
        if words.is_empty() { how } else { format!("{how}: “{words}”") }
    }

    /// `ended with status 70`, `was killed by signal 9`.
    pub fn how(&self) -> String {
        match (self.code, self.signal) {
            (Some(0), _) if self.unfinished => "broke off in the middle of a line".into(),
            (Some(code), _) => format!("ended with status {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "closed its output but did not end".into(),
        }
    }

    /// The beginning of what was said, on one line.
    pub fn words(&self) -> String {
        let line = self.said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        match line.char_indices().nth(WORDS_LIMIT) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    }
}

/// A command under way. Dropping it ends its whole process group.
pub struct Running {
    child: Child,
    /// Where it is told something.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: ChildStderr,
    errors: Vec<u8>,
    started: Instant,
    /// Nothing is left to end: it was waited for, or handed over.
    reaped: bool,
}

/// Why a command could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{command} could not be started: {error}.")]
pub struct NotStarted {
    /// The command line.
    pub command: String,
    /// The system's words.
    pub error: String,
}

/// Starts a command.
///
/// # Errors
/// [`NotStarted`].
pub fn start(argv: &Argv) -> Result<Running, NotStarted> {
    start_with(argv, Stdio::null())
}

/// Starts a command that is told something later on, by [`Running::tell`].
///
/// # Errors
/// [`NotStarted`].
pub fn start_listening(argv: &Argv) -> Result<Running, NotStarted> {
    start_with(argv, Stdio::piped())
}

/// Starts a command that outlives this process, with `held` as its standard input: a lock that it
/// keeps by holding the file open. Returns its output if it ends within `patience`; else it is left
/// to itself.
///
/// # Errors
/// [`NotStarted`].
pub fn hand_over(argv: &Argv, held: Option<File>, patience: Duration) -> Result<Option<Vec<u8>>, NotStarted> {
    let mut running = start_with(argv, held.map_or_else(Stdio::null, Stdio::from))?;
    let mut output = Vec::new();
    let ending = running.read(Instant::now() + patience, None, &mut |chunk| output.extend_from_slice(chunk));
    running.reaped = true;
    Ok((ending == Ending::Exited).then_some(output))
}

/// Runs this program once more on this process's own streams and with its environment, and waits for it. A signal
/// that ends this process meanwhile ends that one first. Returns its exit status.
///
/// # Errors
/// Those of starting it.
pub fn attached(argv: &Argv) -> io::Result<Option<i32>> {
    let (program, arguments) = argv.0.split_first().ok_or(io::ErrorKind::NotFound)?;
    let signals = EndingSignals::hold_back();
    let mut child = Command::new(program).args(arguments).spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code());
        }
        let watched =
            Watched { stdout: None, stderr: None, reader: None, signals: signals.as_ref().map(|s| s.as_fd()) };
        if watched.wait(ATTACHED_PAUSE).is_ok_and(|ready| !ready.signals.is_empty()) {
            if let Ok(pid) = i32::try_from(child.id()) {
                // It may have ended already.
                let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            }
            // Lets the signal through.
            return child.wait().map(|status| status.code());
        }
    }
}

fn start_with(argv: &Argv, stdin: Stdio) -> Result<Running, NotStarted> {
    let not_started = |error: String| NotStarted { command: argv.to_string(), error };
    let (program, arguments) = argv.0.split_first().ok_or_else(|| not_started("the command is empty".into()))?;
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .process_group(0)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| not_started(error.to_string()))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(not_started("its output could not be connected".into()));
    };
    // A larger pipe is a matter of speed alone.
    let _ = fcntl(&stdout, FcntlArg::F_SETPIPE_SZ(CHUNK as i32));
    let stdin = child.stdin.take();
    Ok(Running { child, stdin, stdout, stderr, errors: Vec::new(), started: Instant::now(), reaped: false })
}

/// What output is passed on to, as it comes.
type Sink<'a> = &'a mut dyn FnMut(&[u8]);

/// What a command has begun to say.
pub enum Output {
    /// Something, of which nothing has been read.
    Coming(Running),
    /// Nothing: it has ended, so.
    Nothing(Exit),
}

impl Running {
    /// Waits for the first byte of output, and does not read it.
    pub fn output(mut self, deadline: Instant, reader: Option<BorrowedFd<'_>>) -> Output {
        match self.attend(deadline, reader, None) {
            None => Output::Coming(self),
            Some(ending) => Output::Nothing(self.exit(deadline, ending)),
        }
    }

    /// Tells a command all that it is to know. It must fit into a pipe, 64 KiB.
    pub fn tell(&mut self, words: &[u8]) {
        if let Some(mut stdin) = self.stdin.take() {
            // One that does not listen any more has ended, which is then told.
            let _ = stdin.write_all(words);
        }
    }

    /// Reads the output line by line until it ends, the deadline passes, or `reader` (the far end of
    /// our own answer) hangs up. A line is passed on without its line feed, and of one longer than
    /// [`LINE_LIMIT`] its beginning. A last line that lacks its line feed was cut off: it is not passed
    /// on, but told by [`Exit::unfinished`].
    pub fn lines(mut self, deadline: Instant, reader: Option<BorrowedFd<'_>>, mut line: impl FnMut(&[u8])) -> Exit {
        let mut rest = Vec::new();
        let ending = self.read(deadline, reader, &mut |mut chunk| {
            while let Some(end) = memchr::memchr(b'\n', chunk) {
                if rest.is_empty() {
                    line(&chunk[..end]);
                } else {
                    append(&mut rest, &chunk[..end]);
                    line(&rest);
                    rest.clear();
                }
                chunk = &chunk[end + 1..];
            }
            append(&mut rest, chunk);
        });
        Exit { unfinished: !rest.is_empty(), ..self.exit(deadline, ending) }
    }

    /// Reads the output, of which the beginning is kept.
    pub fn collect(mut self, deadline: Instant) -> (Exit, Vec<u8>) {
        let mut output = Vec::new();
        let ending = self.read(deadline, None, &mut |chunk| {
            output.extend_from_slice(&chunk[..chunk.len().min(COLLECT_LIMIT.saturating_sub(output.len()))]);
        });
        (self.exit(deadline, ending), output)
    }

    /// Reads both streams until they end.
    fn read(&mut self, deadline: Instant, reader: Option<BorrowedFd<'_>>, chunk: Sink<'_>) -> Ending {
        self.attend(deadline, reader, Some(chunk)).unwrap_or(Ending::Exited)
    }

    /// Attends to both streams until they end, or, without a `chunk` to pass output on to, until there is some
    /// (`None`). A signal that ends this process meanwhile ends the command first.
    fn attend(
        &mut self,
        deadline: Instant,
        reader: Option<BorrowedFd<'_>>,
        mut chunk: Option<Sink<'_>>,
    ) -> Option<Ending> {
        let mut buffer = vec![0; if chunk.is_some() { CHUNK } else { STDERR_LIMIT }];
        let signals = EndingSignals::hold_back();
        let (mut out_open, mut err_open) = (true, true);
        while out_open || err_open {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(Ending::Deadline);
            }
            let watched = Watched {
                stdout: out_open.then(|| self.stdout.as_fd()),
                stderr: err_open.then(|| self.stderr.as_fd()),
                reader,
                signals: signals.as_ref().map(|signals| signals.as_fd()),
            };
            let ready = match watched.wait(left) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(_) => return Some(Ending::Exited),
            };
            if !ready.signals.is_empty() {
                self.kill();
                // Lets the signal through, which ends this process.
                drop(signals);
                return Some(Ending::ReaderGone);
            }
            if !ready.reader.is_empty() {
                return Some(Ending::ReaderGone);
            }
            if ready.stdout.contains(PollFlags::POLLIN) && chunk.is_none() {
                return None;
            }
            if !ready.stdout.is_empty() {
                match self.stdout.read(&mut buffer) {
                    Ok(0) => out_open = false,
                    Ok(length) => chunk.iter_mut().for_each(|chunk| chunk(&buffer[..length])),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => out_open = false,
                }
            }
            if !ready.stderr.is_empty() {
                match self.stderr.read(&mut buffer) {
                    Ok(0) => err_open = false,
                    Ok(length) => {
                        let room = STDERR_LIMIT.saturating_sub(self.errors.len());
                        self.errors.extend_from_slice(&buffer[..length.min(room)]);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => err_open = false,
                }
            }
        }
        Some(Ending::Exited)
    }

    fn exit(mut self, deadline: Instant, ending: Ending) -> Exit {
        let patience = match ending {
            Ending::Exited => deadline.max(Instant::now() + REAP_PATIENCE),
            Ending::Deadline | Ending::ReaderGone => {
                self.kill();
                Instant::now() + REAP_PATIENCE
            }
        };
        let status = self.reap(patience);
        Exit {
            ending,
            code: status.and_then(|status| status.code()),
            signal: status.and_then(|status| status.signal()),
            said: String::from_utf8_lossy(&self.errors).into_owned(),
            allowed: deadline.saturating_duration_since(self.started),
            unfinished: false,
        }
    }

    fn kill(&self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // It may have ended already, or be out of reach.
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    fn reap(&mut self, until: Instant) -> Option<std::process::ExitStatus> {
        let mut pause = Duration::from_micros(50);
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                self.reaped = true;
                return Some(status);
            }
            if Instant::now() >= until {
                return None;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

/// What is waited for; each where it is (still) open.
struct Watched<T> {
    stdout: T,
    stderr: T,
    /// The far end of our answer: whether it hung up.
    reader: T,
    signals: T,
}

impl Watched<Option<BorrowedFd<'_>>> {
    /// Waits until there is something to read. What is closed is left out: poll(2) would tell of it at
    /// once, each time.
    fn wait(self, timeout: Duration) -> Result<Watched<PollFlags>, Errno> {
        let input = PollFlags::POLLIN;
        let watched =
            [(self.stdout, input), (self.stderr, input), (self.reader, PollFlags::empty()), (self.signals, input)];
        let mut open: Vec<PollFd<'_>> =
            watched.iter().filter_map(|(fd, events)| Some(PollFd::new((*fd)?, *events))).collect();
        // Rounded up, so that the last fraction of a millisecond is not spent in a busy loop.
        let timeout = PollTimeout::try_from(timeout + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        poll(&mut open, timeout)?;
        let mut ready = open.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        let [stdout, stderr, reader, signals] =
            watched.map(|(fd, _)| fd.and_then(|_| ready.next()).unwrap_or(PollFlags::empty()));
        Ok(Watched { stdout, stderr, reader, signals })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            self.reap(Instant::now() + REAP_PATIENCE);
        }
    }
}

/// Adds to a line that is not complete, up to [`LINE_LIMIT`].
fn append(line: &mut Vec<u8>, more: &[u8]) {
    let room = LINE_LIMIT.saturating_sub(line.len());
    line.extend_from_slice(&more[..more.len().min(room)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Running {
        start(&Argv::new("/bin/sh", &["-c", script])).unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn lines(script: &str, deadline: Instant) -> (Exit, Vec<String>) {
        let mut lines = Vec::new();
        let exit = sh(script).lines(deadline, None, |line| lines.push(String::from_utf8_lossy(line).into_owned()));
        (exit, lines)
    }

    #[test]
    fn lines_come_without_their_line_feeds_and_an_unfinished_one_is_told() {
        let (exit, lines) =
            lines("printf 'one\\n\\ntw'; sleep 0.05; printf 'o\\nthree'; echo oops >&2; exit 3", soon());
        assert_eq!(lines, ["one", "", "two"]);
        assert!(exit.unfinished);
        assert_eq!((exit.ending, exit.code, exit.words().as_str()), (Ending::Exited, Some(3), "oops"));
        assert_eq!(exit.describe(), "ended with status 3: “oops”");
    }

    #[test]
    fn the_environment_is_clean_and_there_is_no_input() {
        let (_, lines) = lines("cat; env | sort", soon());
        let names: Vec<_> = lines.iter().filter_map(|line| line.split('=').next()).collect();
        assert_eq!(names, ["LC_ALL", "PATH", "PWD"], "PWD is the shell's own");
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
    fn a_reader_that_goes_away_ends_the_listing() {
        let (far, near) = nix::unistd::pipe().unwrap();
        drop(far);
        let exit = sh("sleep 987").lines(soon(), Some(near.as_fd()), |_| ());
        assert_eq!(exit.ending, Ending::ReaderGone);
    }

    #[test]
    fn a_command_that_closes_its_output_and_stays_is_not_waited_for_beyond_the_deadline() {
        let deadline = Instant::now() + Duration::from_millis(200);
        let (exit, _) = lines("exec >&- 2>&-; sleep 987", deadline);
        assert_eq!((exit.ending, exit.code), (Ending::Exited, None));
        assert!(!exit.success());
    }

    #[test]
    fn only_what_is_open_is_waited_for() {
        let (far, near) = nix::unistd::pipe().unwrap();
        drop(near);
        let wait =
            |stdout| Watched { stdout, stderr: None, reader: None, signals: None }.wait(Duration::from_millis(1));
        assert!(wait(Some(far.as_fd())).unwrap().stdout.contains(PollFlags::POLLHUP), "its end is told at once");
        assert!(wait(None).unwrap().stdout.is_empty());
    }

    #[test]
    fn the_program_of_a_rule_is_the_mail_servers_own() {
        for words in [&["sudo", "-n", "--", "/usr/sbin/postqueue", "-j"][..], &["doas", "-n", "/usr/sbin/postqueue"]] {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            assert_eq!(Argv::from_words(&words).unwrap().program(), PathBuf::from("/usr/sbin/postqueue"));
        }
    }

    #[test]
    fn error_output_and_lines_are_bounded() {
        let (exit, lines) = lines(
            "head -c 100000 /dev/zero | tr '\\0' e >&2; head -c 9000000 /dev/zero | tr '\\0' x; echo; echo next",
            soon(),
        );
        assert_eq!(exit.said.len(), STDERR_LIMIT);
        assert_eq!(lines[0].len(), LINE_LIMIT);
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn a_program_that_is_not_there_is_told() {
        let trouble = start(&Argv::new("/nonexistent/lister", &[])).err().unwrap();
        assert!(trouble.to_string().starts_with("/nonexistent/lister could not be started: No such file"), "{trouble}");
    }

    #[test]
    fn collected_output_is_bounded() {
        let (exit, output) = sh("head -c 1000000 /dev/zero").collect(soon());
        assert!(exit.success());
        assert_eq!(output.len(), COLLECT_LIMIT);
    }
}
