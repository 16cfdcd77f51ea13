//! Running the queue: whether this user can, whether it is time, and the run itself.
//!
//! A mail server's flush command may block until the run ends (Exim's does), so it is run by a worker:
//! this program once more, in a process group of its own. The worker holds the lock as its standard
//! input; the kernel frees it when the worker ends, however it ends.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::context::Context;
use crate::listing;
use crate::mta::command::{self, Argv, Exit};
use crate::mta::trouble::Trouble;
use crate::mta::{Facts, Part, privilege};
use crate::outcome::Remainder;
use crate::request::Target;
use crate::store::{Flush, NoTurn, Outcome, Store, Turn};
use crate::system;

/// How long a request waits for the flush command: enough to hear a refusal.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long the worker lets a queue run go on.
const RUN_LIMIT: Duration = Duration::from_secs(60 * 60);

/// The command-line word that makes this program the worker.
pub const WORKER: &str = "run-flush";

/// The most messages that are run one by one; more are a matter for running the whole queue.
const MOST_MESSAGES: usize = 1000;

/// Whether and when the queue can be run.
pub struct Readiness {
    /// Whether this user can run the queue, or what is in the way.
    pub possible: Result<(), Trouble>,
    /// Whether a part of it can be run: not by a configured command, which is for the whole, nor where a
    /// rule allows no more than that.
    pub parts: bool,
    /// Seconds until the cool-down is over.
    pub wait_seconds: u64,
    /// Whether a flush is under way.
    pub under_way: bool,
    /// The last flushes on record, the latest first.
    pub log: Vec<Flush>,
    /// Why there is neither cool-down nor log, where they are off.
    pub unguarded: Option<String>,
}

/// How many flushes are told on the page and in JSON.
const LOG_SHOWN: u32 = 10;

impl Readiness {
    /// The last flush.
    pub fn last(&self) -> Option<&Flush> {
        self.log.first()
    }

    /// Whether the queue can be run right now.
    pub fn is_offered(&self) -> bool {
        self.possible.is_ok() && !self.under_way && self.wait_seconds == 0
    }

    /// Finds out, without changing anything.
    pub fn find(context: &Context, facts: &Facts) -> Readiness {
        let store = context.store.as_ref();
        let log = store.map_or_else(|reason| Err(reason.clone()), |store| store.flushes(LOG_SHOWN));
        let last = log.as_ref().ok().and_then(|log| log.first());
        Readiness {
            possible: commands(context, facts, &Part::All).map(|_| ()),
            parts: context.config.mta.flush_command.is_empty()
                && commands(context, facts, &Part::Message("A1")).is_ok(),
            wait_seconds: wait_seconds(context, last),
            under_way: store.is_ok_and(Store::is_taken),
            unguarded: log.as_ref().err().cloned(),
            log: log.unwrap_or_default(),
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
    /// What was asked for does not wait: it was delivered meanwhile, or never was there.
    #[error("Nothing in the queue is {0} (any more).")]
    NotQueued(Target),
    /// A part of the queue was asked for that can't be run alone.
    #[error("Only the whole queue can be run here, not {0} alone.")]
    Part(Target),
    /// The mail server won't or can't.
    #[error(transparent)]
    Impossible(#[from] Trouble),
}

/// What waits before the queue is run.
#[derive(Debug, Default)]
struct Waiting {
    /// Messages and recipients of the target; `None` where the queue could not be listed.
    totals: Option<(u64, u64)>,
    /// The queue ids of the target's messages, at most one more than are run one by one.
    ids: Vec<String>,
    /// Why the listing is not complete.
    trouble: Option<Trouble>,
}

impl Waiting {
    /// Lists the queue for what `target` names.
    fn find(context: &Context, target: &Target) -> Waiting {
        let mut ids = Vec::new();
        let mut waiting = Remainder::of(&target.to_string(), i64::MAX);
        let listing = listing::list(context, None, &mut |message| {
            waiting.add(message);
            if ids.len() <= MOST_MESSAGES && *target != Target::All && target.holds(message) {
                ids.push(message.id.clone().into_owned());
            }
        });
        let totals = listing.trouble.is_none().then_some((waiting.messages, waiting.recipients));
        Waiting { totals, ids, trouble: listing.trouble }
    }
}

/// Starts a queue run for `by` (an address, a login name) and puts it on record.
///
/// # Errors
/// [`Refusal`]; the queue was not run then.
pub fn start(context: &Context, target: &Target, by: String) -> Result<Flush, Refusal> {
    let source = context.source.as_ref().map_err(Trouble::clone)?;
    let facts = listing::facts(context);
    let whole = commands(context, &facts, &Part::All)?;
    let turn = take_turn(context)?;
    let store = context.store.as_ref().ok();
    let wait = wait_seconds(context, last_flush(context).as_ref());
    if wait > 0 {
        return Err(Refusal::CoolDown(wait));
    }
    let waiting = Waiting::find(context, target);
    let commands = match part(context, target, &waiting)? {
        Part::All => whole,
        part => commands(context, &facts, &part)?,
    };
    let commands = [preparation(context, &facts), commands].concat();
    let mut flush = Flush {
        number: 0,
        started: context.clock.now,
        target: target.to_string(),
        by,
        messages: waiting.totals.map(|(messages, _)| messages),
        recipients: waiting.totals.map(|(_, recipients)| recipients),
        exit: None,
        outcome: None,
    };
    if let (Some(store), Some(turn)) = (store, &turn) {
        match store.record(turn, &flush) {
            Ok(number) => flush.number = number,
            // Without the record there is no cool-down, which is no reason not to deliver mail.
            Err(error) => system::log(&format!("the flush could not be put on record: {error}")),
        }
    }
    let outcome = run(context, &flush, &commands, turn.as_ref()).and_then(|exit| match exit {
        Some(exit) => source.mta.flush_verdict(&commands[commands.len() - 1], &exit, &context.account),
        None => Ok(()),
    });
    if let (Err(_), Some(store), Some(turn)) = (&outcome, store, &turn) {
        store.withdraw(turn, flush.number);
    }
    outcome?;
    Ok(flush)
}

fn last_flush(context: &Context) -> Option<Flush> {
    context.store.as_ref().ok()?.flushes(1).ok()?.pop()
}

/// The part of the queue that is meant. What a request names is taken only as the listing holds it.
fn part<'a>(context: &Context, target: &'a Target, waiting: &'a Waiting) -> Result<Part<'a>, Refusal> {
    let part = match (target, waiting.ids.first()) {
        (Target::All, _) => return Ok(Part::All),
        (_, None) => {
            return Err(waiting
                .trouble
                .clone()
                .map_or_else(|| Refusal::NotQueued(target.clone()), Refusal::Impossible));
        }
        (Target::Id(_), Some(id)) => Part::Message(id),
        (Target::Domain(name), Some(_)) => Part::Domain { name, ids: &waiting.ids },
    };
    let is_word = |text: &str| {
        !text.starts_with('-') && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
    };
    let is_safe = match &part {
        Part::Domain { name, ids } => ids.len() <= MOST_MESSAGES && is_word(name) && ids.iter().all(|id| is_word(id)),
        Part::Message(id) => is_word(id),
        Part::All => true,
    };
    let configured = !context.config.mta.flush_command.is_empty();
    if is_safe && !configured { Ok(part) } else { Err(Refusal::Part(target.clone())) }
}

/// What stands between the commands of one run.
const AND_THEN: &str = ";";

/// Hands the commands, and a copy of the lock, to a worker. Returns how the first that failed ended,
/// or else the last, if all ended soon.
fn run(context: &Context, flush: &Flush, commands: &[Argv], turn: Option<&Turn>) -> Result<Option<Exit>, Trouble> {
    let config = context.config.file.clone().unwrap_or_default();
    let mut worker = Argv::new("/proc/self/exe", &[WORKER, &flush.number.to_string()]).and(&Argv::new(config, &[]));
    for command in commands {
        worker = worker.and(&Argv::new(AND_THEN, &[])).and(command);
    }
    let held = turn.and_then(|turn| turn.0.try_clone().ok());
    let report = command::hand_over(&worker, held, PATIENCE)?;
    report.map(|report| serde_json::from_slice(&report)).transpose().map_err(|_| Trouble::Ended {
        command: commands.iter().map(Argv::to_string).take(1).collect(),
        how: "could not be run in the background".into(),
        words: String::new(),
    })
}

/// The worker: runs the commands one after the other, reports on standard output how the first that
/// failed ended, or else the last, and puts that on record; then it watches what comes of it.
///
/// Its words are the flush's number, the configuration's file, and each command behind an [`AND_THEN`].
pub fn work(words: &[OsString]) {
    let mut parts = words.split(|word| word == AND_THEN);
    let Some([number, file]) = parts.next() else { return };
    let Some(number) = number.to_str().and_then(|number| number.parse().ok()) else { return };
    let exit = run_all(parts.filter_map(|words| Argv::from_os_words(words.to_vec())));
    // No report tells that it could not be started. Whoever asked may have left long ago.
    let report = exit.as_ref().and_then(|exit| serde_json::to_vec(exit).ok()).unwrap_or_default();
    let mut out = io::stdout();
    let _ = out.write_all(&report).and_then(|()| out.flush());
    // Ends the wait of whoever asked, and the turn.
    system::close_standard_streams();
    let Some(exit) = exit.filter(|_| number > 0) else { return };
    let config = if file.is_empty() { Ok(Config::default()) } else { Config::read(Path::new(file)) };
    let Ok(context) = config.map(Context::gather) else { return };
    let Ok(store) = &context.store else { return };
    if let Err(error) = store.add_exit(number, &exit.describe()) {
        system::log(&error);
    }
    if let Ok(Some(flush)) = store.flush(number) {
        watch(&context, &flush, |_| ());
    }
}

fn run_all(commands: impl Iterator<Item = Argv>) -> Option<Exit> {
    let deadline = Instant::now() + RUN_LIMIT;
    let mut last = None;
    for command in commands {
        let (exit, output) = command::start(&command).ok()?.collect(deadline);
        let said = format!("{}\n{}", String::from_utf8_lossy(&output), exit.said);
        let exit = last.insert(Exit { said, ..exit });
        if !exit.success() {
            break;
        }
    }
    last
}

/// The queue has settled when nothing has left it for this long.
const SETTLED_AFTER: Duration = Duration::from_secs(15);

/// A flush is not watched any longer than this by the worker.
pub const WATCHED: Duration = Duration::from_secs(10 * 60);

/// Nor is it, when the queue can't be listed for this long.
const BLIND: Duration = Duration::from_secs(60);

/// Watches what comes of a flush until its messages are gone or the queue has settled, and puts it on
/// record. `seen` is told each time the queue was looked at.
pub fn watch(context: &Context, flush: &Flush, mut seen: impl FnMut(&Outcome)) -> Option<Outcome> {
    let started = Instant::now();
    let mut left = None;
    let mut moved = started;
    let mut seen_well = started;
    loop {
        let looked = Instant::now();
        let now = jiff::Timestamp::now().as_second();
        let mut remainder = Remainder::of(&flush.target, flush.started);
        let listing = listing::list(context, None, &mut |message| remainder.add(message));
        let took = looked.elapsed();
        if listing.trouble.is_none() {
            seen_well = Instant::now();
            if left.replace(remainder.recipients) != Some(remainder.recipients) {
                moved = Instant::now();
            }
            let under_way = context.store.as_ref().is_ok_and(Store::is_taken);
            let settled = remainder.messages == 0 || (!under_way && moved.elapsed() >= SETTLED_AFTER);
            let outcome = remainder.outcome(now, settled);
            if let Ok(store) = &context.store {
                // It may be full meanwhile; then the page shows what it sees itself.
                let _ = store.add_outcome(flush.number, &outcome);
            }
            seen(&outcome);
            if settled || started.elapsed() >= WATCHED {
                return Some(outcome);
            }
        } else if started.elapsed() >= WATCHED || seen_well.elapsed() >= BLIND {
            return None;
        }
        // A listing that takes long shall not be all that the mail server does.
        thread::sleep((took * 4).max(Duration::from_secs(1)));
    }
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

/// The commands by which this user can run a part of the queue: the configured one, the mail server's
/// own, or those under sudo or doas where a rule allows it.
fn commands(context: &Context, facts: &Facts, part: &Part<'_>) -> Result<Vec<Argv>, Trouble> {
    let source = context.source.as_ref().map_err(Trouble::clone)?;
    if let Some(configured) = Argv::from_words(&context.config.mta.flush_command) {
        return Ok(vec![configured]);
    }
    let own = source.mta.flush_commands(part);
    let Some(obstacle) = source.mta.flush_obstacle(facts, &context.account) else { return Ok(own) };
    match own.first().and_then(privilege::prefix) {
        Some(prefix) => Ok(own.iter().map(|command| prefix.clone().and(command)).collect()),
        None => Err(obstacle),
    }
}

/// How long the question before a flush may take.
const QUESTION_PATIENCE: Duration = Duration::from_secs(2);

/// What has to be run before the flush, as far as this user may.
fn preparation(context: &Context, facts: &Facts) -> Vec<Argv> {
    let Ok(source) = &context.source else { return Vec::new() };
    let Some(question) = source.mta.flush_question().filter(|_| context.config.mta.flush_command.is_empty()) else {
        return Vec::new();
    };
    let is_free = source.mta.flush_obstacle(facts, &context.account).is_none();
    let allowed = |command: &Argv| {
        if is_free { Some(command.clone()) } else { privilege::prefix(command).map(|prefix| prefix.and(command)) }
    };
    let running = allowed(&question).and_then(|question| command::start(&question).ok());
    let answer = running.map(|running| running.collect(Instant::now() + QUESTION_PATIENCE).1).unwrap_or_default();
    source.mta.flush_preparation(&String::from_utf8_lossy(&answer)).iter().filter_map(allowed).collect()
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
