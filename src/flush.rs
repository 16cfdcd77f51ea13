//! Running the queue: whether this user can, whether it is time, and the run itself.
//!
//! A mail server's flush command may block until the run ends (Exim's does), so it is run by a worker:
//! this program once more, in a process group of its own. The worker holds the lock as its standard
//! input; the kernel frees it when the worker ends, however it ends.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::mta::Facts;
use crate::mta::command::{self, Argv, Exit};
use crate::request::Target;
use crate::store::{Flush, NoTurn, Store, Turn};
use crate::system;
use crate::trouble::Trouble;

/// How long a request waits for the flush command: enough to hear a refusal.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long the worker lets a queue run go on.
const RUN_LIMIT: Duration = Duration::from_secs(60 * 60);

/// The command-line word that makes this program the worker.
pub const WORKER: &str = "run-flush";

/// The sudo rule's file, see `examples/`. sudo is asked only where it is there, or can't be looked
/// for: it reports who asks without any rule to the administrator, by mail.
const SUDO_RULE: &str = "/etc/sudoers.d/bartleby";

/// How long sudo may think about a rule.
const SUDO_PATIENCE: Duration = Duration::from_secs(2);

/// Whether and when the queue can be run.
pub struct Readiness {
    /// The command, or what is in the way.
    pub command: Result<Argv, Trouble>,
    /// Seconds until the cool-down is over.
    pub wait_seconds: u64,
    /// Whether a flush is under way.
    pub under_way: bool,
    /// The last flush on record.
    pub last: Option<Flush>,
    /// Why there is no cool-down, where there is none.
    pub unguarded: Option<String>,
}

impl Readiness {
    /// Finds out, without changing anything.
    pub fn find(context: &Context, facts: &Facts) -> Readiness {
        let store = context.store.as_ref();
        let last = store.ok().and_then(Store::last_flush);
        Readiness {
            command: command(context, facts),
            wait_seconds: wait_seconds(context, last.as_ref()),
            under_way: store.is_ok_and(Store::is_taken),
            last,
            unguarded: store.err().cloned(),
        }
    }
}

/// Why the queue was not run.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The last run was a moment ago.
    #[error(
        "The queue was run a moment ago. Running it again so soon only slows delivery down; it can be run again in {0} s."
    )]
    CoolDown(u64),
    /// A run is under way.
    #[error("The queue is being run already.")]
    UnderWay,
    /// A part of the queue was asked for.
    #[error("Only the whole queue can be run, not {0} alone.")]
    Part(Target),
    /// The mail server won't or can't.
    #[error(transparent)]
    Impossible(#[from] Trouble),
}

/// How much waits in the queue before it is run, where that could be listed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting {
    /// Messages.
    pub messages: Option<u64>,
    /// Recipients.
    pub recipients: Option<u64>,
}

/// Starts a queue run for `by` (an address, a login name) and puts it on record.
///
/// `waiting` lists the queue; it is called only when nothing is in the way of the run.
///
/// # Errors
/// [`Refusal`]; the queue was not run then.
pub fn start(
    context: &Context,
    facts: &Facts,
    target: &Target,
    by: String,
    waiting: impl FnOnce() -> Waiting,
) -> Result<Flush, Refusal> {
    if *target != Target::All {
        return Err(Refusal::Part(target.clone()));
    }
    let source = context.source.as_ref().map_err(Trouble::clone)?;
    let command = command(context, facts)?;
    let turn = take_turn(context)?;
    let last = context.store.as_ref().ok().and_then(Store::last_flush);
    let wait = wait_seconds(context, last.as_ref());
    if wait > 0 {
        return Err(Refusal::CoolDown(wait));
    }
    let Waiting { messages, recipients } = waiting();
    let number = last.as_ref().map_or(0, |last| last.number) + 1;
    let flush = Flush { number, started: context.clock.now, target: target.to_string(), by, messages, recipients };
    if let (Ok(store), Some(turn)) = (&context.store, &turn)
        && let Err(error) = store.record(turn, &flush)
    {
        // Without the record there is no cool-down, which is no reason not to deliver mail.
        system::log(&format!("the flush could not be put on record: {error}"));
    }
    let outcome = run(&command, turn.as_ref()).and_then(|exit| match exit {
        Some(exit) => source.mta.flush_verdict(&command, &exit, &context.account),
        None => Ok(()),
    });
    if let (Err(_), Ok(store), Some(turn)) = (&outcome, &context.store, &turn) {
        store.withdraw(turn, last.as_ref());
    }
    outcome?;
    Ok(flush)
}

/// Hands the command, and a copy of the lock, to a worker. Returns how it ended, if it ended soon.
fn run(command: &Argv, turn: Option<&Turn>) -> Result<Option<Exit>, Trouble> {
    let worker = Argv::new("/proc/self/exe", &[WORKER]).and(command);
    let held = turn.and_then(|turn| turn.0.try_clone().ok());
    let report = command::hand_over(&worker, held, PATIENCE)?;
    report.map(|report| serde_json::from_slice(&report)).transpose().map_err(|_| Trouble::Ended {
        command: command.to_string(),
        how: "could not be run in the background".into(),
        words: String::new(),
    })
}

/// The worker: runs the command to its end and reports it on standard output.
pub fn work(command: &Argv) {
    let exit = command::start(command).map(|running| {
        let (exit, output) = running.collect(Instant::now() + RUN_LIMIT);
        let said = format!("{}\n{}", String::from_utf8_lossy(&output), exit.said);
        Exit { said, ..exit }
    });
    let report = match &exit {
        Ok(exit) => serde_json::to_vec(exit),
        Err(_) => Ok(Vec::new()),
    };
    // Whoever asked may have left long ago.
    let _ = io::stdout().write_all(&report.unwrap_or_default());
}

fn take_turn(context: &Context) -> Result<Option<Turn>, Refusal> {
    let Ok(store) = &context.store else { return Ok(None) };
    match store.turn() {
        Ok(turn) => Ok(Some(turn)),
        Err(NoTurn::Taken) => Err(Refusal::UnderWay),
        Err(NoTurn::Unusable(_)) => Ok(None),
    }
}

/// Seconds left of the cool-down. A flush that seems to come from the future (the clock was set back)
/// holds nobody up.
fn wait_seconds(context: &Context, last: Option<&Flush>) -> u64 {
    remaining(context.config.flush.cooldown, last.map(|last| context.clock.now - last.started))
}

fn remaining(cooldown: Duration, since: Option<i64>) -> u64 {
    let since = since.and_then(|since| u64::try_from(since).ok());
    since.map_or(0, |since| cooldown.as_secs().saturating_sub(since))
}

/// The command by which this user can run the queue: the configured one, the mail server's own, or
/// that under sudo where a rule allows it.
fn command(context: &Context, facts: &Facts) -> Result<Argv, Trouble> {
    let source = context.source.as_ref().map_err(Trouble::clone)?;
    if let Some(configured) = Argv::from_words(&context.config.mta.flush_command) {
        return Ok(configured);
    }
    let own = source.mta.flush_command();
    match source.mta.flush_obstacle(facts, &context.account) {
        None => Ok(own),
        Some(_) if sudo_allows(&own) => Ok(Argv::new("sudo", &["-n"]).and(&own)),
        Some(obstacle) => Err(obstacle),
    }
}

fn sudo_allows(command: &Argv) -> bool {
    let rule_is_missing = fs::symlink_metadata(SUDO_RULE).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if rule_is_missing && Path::new("/etc/sudoers.d").is_dir() {
        return false;
    }
    let question = Argv::new("sudo", &["-n", "-l"]).and(command);
    command::start(&question).is_ok_and(|running| running.collect(Instant::now() + SUDO_PATIENCE).0.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cool_down_ends_and_a_clock_that_was_set_back_does_not_prolong_it() {
        let cooldown = Duration::from_secs(30);
        assert_eq!(remaining(cooldown, None), 0);
        assert_eq!(remaining(cooldown, Some(0)), 30);
        assert_eq!(remaining(cooldown, Some(29)), 1);
        assert_eq!(remaining(cooldown, Some(30)), 0);
        assert_eq!(remaining(cooldown, Some(-1000)), 0);
        assert_eq!(remaining(Duration::ZERO, Some(0)), 0);
    }
}
