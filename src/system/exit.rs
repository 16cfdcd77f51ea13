//! How a process ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much of its words is shown, in characters.
const WORDS_LIMIT: usize = 500;

/// Why a command is no longer read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It ended by itself.
    Exited,
    /// It was stopped at the deadline.
    Deadline,
    /// It was to be stopped at the deadline, and is out of reach: something of it still runs.
    OutOfReach,
    /// It was stopped because nobody was left to read the answer.
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
    pub(crate) fn success(&self) -> bool {
        self.ending == Ending::Exited && self.code == Some(0)
    }

    /// How it ended and what it said, on one line.
    pub(crate) fn describe(&self) -> String {
        let (how, words) = (self.how(), self.words());
        if words.is_empty() { how } else { format!("{how}: “{words}”") }
    }

    /// `ended with status 70`, `was killed by signal 9`.
    pub(crate) fn how(&self) -> String {
        match (self.code, self.signal) {
            (Some(0), _) if self.unfinished => "broke off in the middle of a line".into(),
            (Some(code), _) => format!("ended with status {code}"),
            (None, Some(signal)) => format!("was killed by signal {signal}"),
            (None, None) => "closed its output but did not end".into(),
        }
    }

    /// The beginning of what was said, on one line.
    pub(crate) fn words(&self) -> String {
        let line = self.said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        match line.char_indices().nth(WORDS_LIMIT) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    }
}
