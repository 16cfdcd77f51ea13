//! The parent's half of a listing: it attends to the lister and to the reader, and parses neither.
//!
//! The reader has the read end of each lister's output, and reads it at full speed. The parent keeps the deadline, the
//! listers' words on standard error, and the reader's: its log lines. It takes the reader's answer at the reader's
//! pace, and hands it on at the client's, see [`Output`].

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};

use super::frame::{Come, Frames, Kind, Nonsense};
use super::lister::{Lister, Part};
use crate::context::Context;
use crate::mta::trouble::Trouble;
use crate::sandbox::Purpose;
use crate::system::output::Output;
use crate::system::poll::{HANGUP, READABLE, WRITABLE, Watched, ready};
use crate::system::process::{self, Argv, Ending, Equipment, Exit, Life, Running};
use crate::system::{Free, ScratchFile, log};

/// How long the reader may at least take after the listing has ended, and after it was given what it asked for. It has as
/// long as the listing may take, where that is longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How a part of the listing ended: what the reader learns about that part.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PartEnd {
    /// The command that was run.
    pub(crate) command: Argv,
    /// How it ended, or why it could not be started.
    pub(crate) end: Result<Exit, Trouble>,
}

/// What the reader finds open, besides what it gets on its standard input.
pub(crate) struct Desk {
    /// The output of each part, where that was started.
    pub(crate) parts: Vec<Option<File>>,
    /// An unlinked file for what does not fit into memory, where one could be had.
    pub(crate) overflow: Option<ScratchFile>,
}

impl Desk {
    /// What the reader is for, as its sandbox asks.
    pub(crate) fn purpose(&self) -> Purpose {
        Purpose::Reading { room: self.overflow.as_ref().map_or(0, ScratchFile::most) }
    }
}

/// For whom the queue is listed.
pub(crate) trait Client {
    /// Takes what the reader counted in so much time, and returns what it gets in turn, as JSON.
    ///
    /// # Errors
    /// [`Broken`]: what came is nonsense, or nobody is left to answer.
    fn counted(&mut self, bytes: &[u8], took: Duration) -> Result<Vec<u8>, Broken>;

    /// Where the body goes; `None` where there is to be none.
    fn output(&mut self) -> Option<&mut Output> {
        None
    }

    /// A piece of the body has come.
    fn has_come(&mut self) {}
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The reader failed.
    Reader(Trouble),
    /// The client has left, or takes nothing; [`io::ErrorKind::Interrupted`]: a signal is to end this process.
    Client(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Broken {
        Broken::Client(error)
    }
}

impl From<io::ErrorKind> for Broken {
    fn from(kind: io::ErrorKind) -> Broken {
        Broken::Client(kind.into())
    }
}

impl From<Nonsense> for Broken {
    fn from(_: Nonsense) -> Broken {
        Broken::Reader(Trouble::Reader { how: "answered nonsense".into() })
    }
}

/// A lister and its reader under way.
pub(crate) struct Session {
    lister: Lister,
    /// How many parts' ends the reader has been sent.
    told: usize,
    /// How long the listing took, when it has ended.
    took: Option<Duration>,
    reader: Running,
    /// How long the reader may go on once the listing has ended, and until when that is.
    patience: Duration,
    until: Instant,
    /// Whether the reader may still answer, and still log.
    answers: bool,
    logs: bool,
    frames: Frames,
    /// Its verdict, as JSON.
    verdict: Option<Vec<u8>>,
    /// What the reader is sent, and what of it is still to be written.
    question: File,
    words: Vec<u8>,
}

impl Session {
    /// Branches off the reader, which does `work`.
    ///
    /// # Errors
    /// [`Trouble::Reader`]: it could not be started.
    pub(crate) fn begin(
        context: &Context,
        lister: Lister,
        overflow: Option<ScratchFile>,
        work: impl FnOnce(Free, Desk),
    ) -> Result<Session, Trouble> {
        let not_started = |error: io::Error| Trouble::Reader { how: format!("could not be started: {error}") };
        let (input, question) = pipe2(OFlag::O_CLOEXEC).map_err(|error| not_started(error.into()))?;
        // Nobody waits for the reader to read.
        let _ = fcntl(&question, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
        let outputs: Vec<_> = lister.parts.iter().map(|part| part.running.as_ref().map(Running::stdout)).collect();
        let open = outputs.iter().flatten().map(|output| output.as_fd()).chain(overflow.as_ref().map(AsFd::as_fd));
        let kept: Vec<BorrowedFd<'_>> = open.collect();
        let equipment = Equipment { input: Some(input), kept: &kept, life: Life::Bound };
        let begin = |free| {
            let copy = |output: &Option<&File>| output.and_then(|output| output.try_clone().ok());
            let overflow = overflow.as_ref().and_then(|file| file.try_clone().ok());
            work(free, Desk { parts: outputs.iter().map(copy).collect(), overflow });
        };
        let reader = process::branch(&context.free, equipment, begin).map_err(not_started)?;
        Ok(Session {
            lister,
            told: 0,
            took: None,
            reader,
            patience: context.config.mta.deadline.max(PATIENCE),
            until: Instant::now(),
            answers: true,
            logs: true,
            frames: Frames::default(),
            verdict: None,
            question: question.into(),
            words: Vec::new(),
        })
    }

    /// Attends to all until the reader has answered. Returns its verdict, as JSON.
    ///
    /// # Errors
    /// [`Broken`].
    pub(crate) fn attend(mut self, client: &mut dyn Client) -> Result<Vec<u8>, Broken> {
        while self.answers || self.logs {
            self.tell_ends();
            let now = Instant::now();
            if let Some(output) = client.output().filter(|output| !output.has_room()) {
                // The client is waited for, not the reader.
                self.until = now + self.patience;
                if !output.is_ready() {
                    // Not even something whole finds room: it is sent as it is.
                    output.seal();
                }
            }
            let stalls_at = client.output().and_then(|output| output.stalls_at());
            if stalls_at.is_some_and(|stalls_at| now >= stalls_at) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let until = if self.took.is_some() { self.until } else { self.lister.deadline };
            match self.took {
                None if now >= until => self.end_parts(Ending::Deadline),
                Some(_) if now >= until => return Err(self.end(Ending::Deadline).1),
                _ => {
                    let left = stalls_at.map_or(until, |stalls_at| until.min(stalls_at)).saturating_duration_since(now);
                    if self.step(client, left)? == Step::Signal {
                        self.end_parts(Ending::ReaderGone);
                        // Lets the signal through, unless the client holds it back, and it ends this process.
                        drop(self);
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                }
            }
        }
        match self.end(Ending::Exited) {
            (Some(verdict), _) => Ok(verdict),
            (None, broken) => Err(broken),
        }
    }

    /// Waits until something happens, and deals with that.
    fn step(&mut self, client: &mut dyn Client, left: Duration) -> Result<Step, Broken> {
        let stdout = io::stdout();
        let output = client.output();
        let has_room = output.as_ref().is_none_or(|output| output.has_room());
        // While nothing is ready to be sent, the client is watched for leaving.
        let wants = output.map(|output| if output.is_ready() { WRITABLE } else { HANGUP });
        let mut watched: Vec<Watched<'_>> = vec![
            (self.lister.signals.as_ref().map(AsFd::as_fd), READABLE),
            (wants.map(|_| stdout.as_fd()), wants.unwrap_or(HANGUP)),
            ((!self.words.is_empty()).then(|| self.question.as_fd()), WRITABLE),
            (self.logs.then(|| self.reader.stderr()), READABLE),
            ((self.answers && has_room).then(|| self.reader.stdout().as_fd()), READABLE),
        ];
        for part in &self.lister.parts {
            let running = part.running.as_ref();
            watched.push((running.filter(|_| part.prints).map(|running| running.stdout().as_fd()), HANGUP));
            watched.push((running.filter(|_| part.says).map(Running::stderr), READABLE));
        }
        let found = ready(&watched, left);
        let [arrived, at_client, at_question, log, answer, of_parts @ ..] = found.as_slice() else {
            return Ok(Step::Done);
        };
        if !arrived.is_empty() {
            return Ok(Step::Signal);
        }
        if at_client.intersects(PollFlags::POLLERR | PollFlags::POLLHUP) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if at_client.contains(WRITABLE)
            && let Some(output) = client.output()
        {
            output.send().map_err(Broken::Client)?;
        }
        if !at_question.is_empty() {
            self.tell();
        }
        if !log.is_empty() {
            self.logs = self.reader.read_stderr();
        }
        if !answer.is_empty() {
            self.take(client)?;
        }
        for (part, ready) in self.lister.parts.iter_mut().zip(of_parts.chunks(2)) {
            let [out, err] = ready else { continue };
            part.prints &= out.is_empty();
            if let Some(running) = part.running.as_mut().filter(|_| !err.is_empty()) {
                part.says = running.read_stderr();
            }
            if !part.prints && !part.says {
                part.end(self.lister.deadline, Ending::Exited);
            }
        }
        Ok(Step::Done)
    }

    /// Takes what has come of the answer.
    fn take(&mut self, client: &mut dyn Client) -> Result<(), Broken> {
        let (kind, bytes) = match self.frames.read(self.reader.stdout())? {
            Come::Frame(kind, bytes) => (kind, bytes),
            Come::Part => return Ok(()),
            Come::End => {
                self.answers = false;
                return Ok(());
            }
        };
        match kind {
            // That was the last one.
            _ if self.verdict.is_some() => return Err(Nonsense.into()),
            Kind::Open | Kind::Whole => {
                if let Some(output) = client.output() {
                    match kind {
                        Kind::Whole => output.push_whole(bytes).map_err(Broken::Client)?,
                        _ => output.push(bytes),
                    }
                }
                client.has_come();
            }
            Kind::Counted => {
                // Before the listing has ended there is nothing to be counted.
                let took = self.took.ok_or(Nonsense)?;
                self.words.append(&mut client.counted(bytes, took)?);
                self.words.push(b'\n');
                self.until = Instant::now() + self.patience;
            }
            Kind::Done => self.verdict = Some(bytes.to_vec()),
        }
        Ok(())
    }

    /// Sends the reader, in their order, how the parts ended.
    fn tell_ends(&mut self) {
        while let Some(Part { command, end: Some(end), .. }) = self.lister.parts.get(self.told) {
            let end = PartEnd { command: command.clone(), end: end.clone() };
            self.words.append(&mut serde_json::to_vec(&end).unwrap_or_default());
            self.words.push(b'\n');
            self.told += 1;
        }
        if self.told == self.lister.parts.len() && self.took.is_none() {
            self.took = Some(self.lister.started.elapsed());
            self.until = Instant::now() + self.patience;
            // Others may list from now on.
            self.lister.place = None;
        }
    }

    /// Writes as much as the reader's input takes.
    fn tell(&mut self) {
        match self.question.write(&self.words) {
            Ok(length) => drop(self.words.drain(..length)),
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            // It has ended, which its other streams show.
            Err(_) => self.words.clear(),
        }
    }

    fn end_parts(&mut self, ending: Ending) {
        self.lister.parts.iter_mut().for_each(|part| part.end(self.lister.deadline, ending));
    }

    /// Ends all. Returns the verdict, if there is one, and else why not; what the reader logged is logged.
    fn end(mut self, ending: Ending) -> (Option<Vec<u8>>, Broken) {
        self.end_parts(Ending::ReaderGone);
        let Session { reader, verdict, patience, .. } = self;
        let exit = reader.exit(Instant::now(), ending);
        exit.said.lines().for_each(|line| log(line.strip_prefix("bartleby: ").unwrap_or(line)));
        let how = match exit {
            Exit { ending: Ending::Deadline, .. } => {
                format!("did not finish within {} s and was stopped", patience.as_secs())
            }
            Exit { ending: Ending::OutOfReach, .. } => {
                format!("did not end within {} s and could not be stopped", patience.as_secs())
            }
            Exit { code: Some(0), .. } => "ended without an answer".into(),
            exit => exit.how(),
        };
        (verdict, Broken::Reader(Trouble::Reader { how }))
    }
}

/// What a step was.
#[derive(PartialEq, Eq)]
enum Step {
    /// One of many.
    Done,
    /// A signal has arrived that is to end this process.
    Signal,
}
