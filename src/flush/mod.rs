//! Running the queue: whether this user can, whether it is time, and the run itself.
//!
//! A mail server's flush command may block until the run ends (Exim's does), so it is run by a worker: a branch of this
//! process that outlives it. The worker holds the lock as its standard input; the kernel frees it when the worker ends,
//! however it ends.

mod follow;
pub mod outcome;
pub mod readiness;
mod worker;

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::listing;
use crate::listing::count::Count;
use crate::mta::as_root::{self, Request};
use crate::mta::trouble::Trouble;
use crate::mta::{Facts, Part};
use crate::queue::Target;
use crate::sandbox::worker::LONGEST;
use crate::state::{Flush, NoTurn, Turn, Waited};
use crate::system::log;
use crate::system::process::{self, Argv, Equipment, Life};
pub(crate) use follow::{FOLLOWED, follow};
use readiness::{commands, wait_seconds};
use worker::Ended;

/// How long a request waits for the flush command: enough to hear a refusal.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most messages that are run one by one; more are a matter for running the whole queue.
pub(crate) const MOST_MESSAGES: usize = 1000;

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
    /// A part of the queue was asked for where the configured command is for the whole.
    #[error("Only the whole queue can be run here, not {0} alone.")]
    Part(Target),
    /// Its name is not one to be passed on.
    #[error("{0} holds characters that are not passed on to the mail server's command. Run the whole queue.")]
    NotPlain(Target),
    /// There are too many messages to run them one by one.
    #[error(
        "More than {MOST_MESSAGES} messages wait for {0}, and this mail server runs them one by one. Run the whole queue."
    )]
    TooMany(Target),
    /// All of it is held, and a run passes held messages over.
    #[error("What waits is held: a queue run passes it over until an administrator releases it.")]
    Held {
        /// How to release it.
        release: &'static str,
    },
    /// The mail server won't or can't.
    #[error(transparent)]
    Impossible(#[from] Trouble),
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
    let records = context.records.as_ref().ok();
    let wait = wait_seconds(context, last_flush(context).as_ref());
    if wait > 0 {
        return Err(Refusal::CoolDown(wait));
    }
    let waiting = Count::of_target(context, target);
    let part = part(context, target, &waiting)?;
    let configured = !context.config.mta.flush_command.is_empty();
    let all_held = waiting.held > 0 && waiting.trouble.is_none() && waiting.messages == waiting.held;
    if all_held && !source.mta.flushes_held(&part) {
        return Err(Refusal::Held { release: source.mta.release() });
    }
    if part != Part::All && source.mta.flush_commands(&part).len() > MOST_MESSAGES {
        return Err(Refusal::TooMany(target.clone()));
    }
    let commands = if part == Part::All { whole } else { commands(context, &facts, &part)? };
    let preparation = preparation(context, &facts);
    let prepared = preparation.len();
    let commands = [preparation, commands].concat();
    let mut flush = Flush {
        number: 0,
        started: context.clock.now,
        target: target.to_string(),
        by,
        messages: waiting.trouble.is_none().then_some(waiting.messages),
        recipients: waiting.trouble.is_none().then_some(waiting.recipients),
        exit: None,
        outcome: None,
    };
    let all_known = waiting.trouble.is_none() && waiting.ids.len() as u64 == waiting.messages;
    let waited = if all_known { Waited::Ids(waiting.ids.iter().cloned().collect()) } else { Waited::By(flush.started) };
    if let (Some(records), Some(turn)) = (records, &turn) {
        match records.record(turn, &flush, &waited) {
            Ok(number) => flush.number = number,
            // Without the record there is no cool-down, which is no reason not to deliver mail.
            Err(error) => log(&format!("the flush could not be put on record: {error}")),
        }
    }
    let own = || source.mta.flush_commands(&Part::All).first().map(Argv::program).unwrap_or_default();
    let outcome = run(context, &flush, &commands, prepared, turn.as_ref()).and_then(|report| match report {
        // After some messages were run, that another one could not be is a matter of the record.
        Some(report) if report.command <= prepared => {
            let command = &commands[report.command];
            let verdict = report.end.map_err(|error| Trouble::NotStarted { command: command.to_string(), error });
            let verdict = verdict.and_then(|exit| {
                as_root::verdict(command, &exit)?;
                source.mta.flush_verdict(command, &exit, &context.account)
            });
            if configured { verdict.map_err(|trouble| trouble.of_configured(own())) } else { verdict }
        }
        _ => Ok(()),
    });
    if let (Err(_), Some(records), Some(turn)) = (&outcome, records, &turn) {
        records.withdraw(turn, flush.number);
    }
    outcome?;
    if let (Target::All, Some(records)) = (target, records) {
        // The primaries' return is taken care of. Where that can't be noted, `watch` runs the queue once more.
        let _ = records.welcome_back();
    }
    Ok(flush)
}

fn last_flush(context: &Context) -> Option<Flush> {
    context.records.as_ref().ok()?.flushes(1).ok()?.pop()
}

/// The part of the queue that is meant. What a request names is taken only as the listing holds it.
fn part<'a>(context: &Context, target: &'a Target, waiting: &'a Count) -> Result<Part<'a>, Refusal> {
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
    // A name with a space or a dash in front can't be one; an id is the mail server's own, but is looked at all the same.
    let ids_are_plain = waiting.ids.iter().all(|id| Target::Id(id.clone()).is_plain());
    match () {
        () if !context.config.mta.flush_command.is_empty() => Err(Refusal::Part(target.clone())),
        () if !target.is_plain() || !ids_are_plain => Err(Refusal::NotPlain(target.clone())),
        () => Ok(part),
    }
}

/// Hands the commands, and a copy of the lock, to a worker; the first `prepared` of them may fail. Returns how
/// they ended, if they did so soon.
fn run(
    context: &Context,
    flush: &Flush,
    commands: &[Argv],
    prepared: usize,
    turn: Option<&Turn>,
) -> Result<Option<Ended>, Trouble> {
    let not_run = |error: &str| Trouble::NotStarted {
        command: commands.first().map(Argv::to_string).unwrap_or_default(),
        error: error.to_owned(),
    };
    let lock = turn.and_then(|turn| turn.0.try_clone().ok()).map(OwnedFd::from);
    let equipment = Equipment { input: lock, kept: &[], life: Life::Free };
    let work = |free| worker::work(free, context.config.clone(), flush.number, commands, prepared);
    let worker = process::branch(&context.free, equipment, work).map_err(|error| not_run(&error.to_string()))?;
    let ended = worker.collect_or_leave(LONGEST, Instant::now() + PATIENCE);
    let ended = ended.map(|ended| serde_json::from_slice(&ended)).transpose();
    ended.map_err(|_| not_run("it could not be run in the background"))
}

fn take_turn(context: &Context) -> Result<Option<Turn>, Refusal> {
    let Ok(records) = &context.records else { return Ok(None) };
    match records.turn() {
        Ok(turn) => Ok(Some(turn)),
        Err(NoTurn::Taken) => Err(Refusal::UnderWay),
        Err(NoTurn::Unusable(_)) => Ok(None),
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
    // By the one rule, root does that, too.
    if context.by_the_one_rule(&Request::List {}).is_some() {
        return Vec::new();
    }
    let is_free = source.mta.flush_obstacle(facts, &context.account).is_none();
    let allowed = |command: &Argv| {
        if is_free { Some(command.clone()) } else { context.by_its_own_rule(command).map(|prefix| prefix.and(command)) }
    };
    let running = allowed(&question).and_then(|question| process::start(&context.free, &question).ok());
    let answer = running.map(|running| running.collect(Instant::now() + QUESTION_PATIENCE).1).unwrap_or_default();
    let hindrances = source.mta.flush_hindrances(&String::from_utf8_lossy(&answer));
    source.mta.flush_preparation(&hindrances).iter().filter_map(allowed).collect()
}
