//! This program once more, as a process of its own. What reads what strangers wrote enters the cage and can start
//! no program any more: whoever wants to, afterwards, has it read by a process of its own, and gets the result.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::{Config, ConfigError};
use crate::mta::trouble::Trouble;
use crate::system;
use crate::system::process::{self, Argv, Exit, Running};

/// The command that makes this program do what `word` stands for, which no user gives, with the same configuration.
///
/// # Errors
/// [`Trouble::NotStarted`]: this program does not find itself.
pub fn again(config: &Config, word: &str, words: &[&str]) -> Result<Argv, Trouble> {
    let program = system::own_program().ok_or_else(|| Trouble::NotStarted {
        command: "bartleby".into(),
        error: "this program does not find itself (no /proc)".into(),
    })?;
    let file = config.file.clone().unwrap_or_default();
    Ok(Argv::new(program, &[word]).and(&Argv::new(file, words)))
}

/// The configuration of who started this process so, and the further words.
///
/// # Errors
/// [`ConfigError`]
pub fn told(words: &[OsString]) -> Result<(Config, &[OsString]), ConfigError> {
    match words {
        [file, rest @ ..] if !file.is_empty() => Ok((Config::read(Path::new(file))?, rest)),
        [_, rest @ ..] => Ok((Config::default(), rest)),
        [] => Ok((Config::default(), &[])),
    }
}

/// Runs a command of [`again`], and returns what it answers by [`answer`].
///
/// # Errors
/// That it could not be started, or ended without an answer.
pub fn ask<T: DeserializeOwned>(argv: &Argv, patience: Duration) -> Result<T, Trouble> {
    let (answer, exit) = answer_of(process::start(argv)?, Instant::now() + patience);
    exit.verdict(argv)?;
    let how = "ended without an answer".into();
    answer.ok_or_else(|| Trouble::Ended { command: argv.to_string(), how, words: exit.words() })
}

/// What a process answers by [`answer`], and how it ended.
pub fn answer_of<T: DeserializeOwned>(running: Running, deadline: Instant) -> (Option<T>, Exit) {
    let mut answer = None;
    let exit = running.lines(deadline, None, |line| answer = serde_json::from_slice(line).ok());
    (answer, exit)
}

/// Answers, on standard output.
pub fn answer(answer: &impl Serialize) {
    let mut line = serde_json::to_vec(answer).unwrap_or_default();
    line.push(b'\n');
    let mut out = io::stdout();
    // Whoever asked may have left.
    let _ = out.write_all(&line).and_then(|()| out.flush());
}
