//! Running the queue: whether this user can, whether it is time, and the run itself.
//!
//! A mail server's flush command may block until the run ends (Exim's does), so it is run by a worker:
//! this program once more, in a process group of its own. The worker holds the lock as its standard
//! input; the kernel frees it when the worker ends, however it ends.

pub mod outcome;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::listing;
use crate::listing::count::Survey;
use crate::mta::trouble::Trouble;
use crate::mta::{Facts, Part, privilege};
use crate::request::Target;
use crate::sandbox::worker;
use crate::state::{Flush, NoTurn, Outcome, Records, StateError, Turn, Waited};
use crate::system;
use crate::system::process::{self, Argv, Exit};

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
    /// Whether a run delivers held messages, too: a run of the whole queue, and of one message.
    pub held: [bool; 2],
    /// How an administrator releases held messages.
    pub release: &'static str,
    /// Seconds until the cool-down is over.
    pub wait_seconds: u64,
    /// Whether a flush is under way.
    pub under_way: bool,
    /// The last flushes on record, the latest first.
    pub log: Vec<Flush>,
    /// Why there is neither cool-down nor log, where they are off.
    pub unguarded: Option<StateError>,
    /// A damaged log that was set aside.
    pub set_aside: Option<PathBuf>,
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
    pub fn find(context: &Context, facts: &Facts, rules: &Rules) -> Readiness {
        let records = context.records.as_ref();
        let log = records.map_or_else(|reason| Err(reason.clone()), |records| records.flushes(LOG_SHOWN));
        let room = records.map_or(Ok(()), Records::room);
        let last = log.as_ref().ok().and_then(|log| log.first());
        let configured = !context.config.mta.flush_command.is_empty();
        let possible = commands(context, facts, &Part::All, &rules.whole).map(|_| ());
        let sample = context.source.as_ref().map_or("", |source| source.mta.sample_id());
        let flushes_held = |part| context.source.as_ref().is_ok_and(|source| source.mta.flushes_held(&part));
        Readiness {
            release: context.source.as_ref().map_or("", |source| source.mta.release()),
            parts: possible.is_ok()
                && !configured
                && commands(context, facts, &Part::Message(sample), &rules.part).is_ok(),
            held: [Part::All, Part::Message(sample)].map(flushes_held),
            possible,
            wait_seconds: wait_seconds(context, last),
            under_way: records.is_ok_and(Records::is_taken),
            unguarded: log.as_ref().err().cloned().or(room.err()),
            set_aside: records.ok().and_then(Records::set_aside),
            log: log.unwrap_or_default(),
        }
    }
}

/// What sudo or doas rules let this user run: what to put before the command, where there is one.
#[derive(Debug, Default)]
pub struct Rules {
    whole: Option<Argv>,
    part: Option<Argv>,
}

impl Rules {
    /// Asks sudo or doas, where a rule is seen.
    pub fn ask(context: &Context) -> Rules {
        let sample = context.source.as_ref().map_or("", |source| source.mta.sample_id());
        Rules { whole: rule(context, &Part::All), part: rule(context, &Part::Message(sample)) }
    }
}

fn rule(context: &Context, part: &Part<'_>) -> Option<Argv> {
    let source = context.source.as_ref().ok().filter(|_| context.config.mta.flush_command.is_empty())?;
    privilege::prefix(source.mta.flush_commands(part).first()?, &context.account)
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
    let whole = commands(context, &facts, &Part::All, &rule(context, &Part::All))?;
    let turn = take_turn(context)?;
    let records = context.records.as_ref().ok();
    let wait = wait_seconds(context, last_flush(context).as_ref());
    if wait > 0 {
        return Err(Refusal::CoolDown(wait));
    }
    let waiting = Survey::of_target(context, target);
    let part = part(context, target, &waiting)?;
    let configured = !context.config.mta.flush_command.is_empty();
    let all_held = waiting.held > 0 && waiting.trouble.is_none() && waiting.messages == waiting.held;
    if all_held && !source.mta.flushes_held(&part) {
        return Err(Refusal::Held { release: source.mta.release() });
    }
    let commands = if part == Part::All { whole } else { commands(context, &facts, &part, &rule(context, &part))? };
    if commands.len() > MOST_MESSAGES {
        return Err(Refusal::TooMany(target.clone()));
    }
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
            Err(error) => system::log(&format!("the flush could not be put on record: {error}")),
        }
    }
    let own = || source.mta.flush_commands(&Part::All).first().map(Argv::program).unwrap_or_default();
    let outcome = run(context, &flush, &commands, prepared, turn.as_ref()).and_then(|report| match report {
        // After some messages were run, that another one could not be is a matter of the record.
        Some(report) if report.command <= prepared => {
            let command = &commands[report.command];
            let verdict = report.end.map_err(|error| Trouble::NotStarted { command: command.to_string(), error });
            let verdict = verdict.and_then(|exit| source.mta.flush_verdict(command, &exit, &context.account));
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
fn part<'a>(context: &Context, target: &'a Target, waiting: &'a Survey) -> Result<Part<'a>, Refusal> {
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

/// How the run of the commands ended: the first that failed, or else the last.
#[derive(Debug, Serialize, Deserialize)]
struct Ended {
    /// Which command, from 0.
    command: usize,
    /// How it ended, or why it could not be started.
    end: Result<Exit, String>,
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
        command: commands.iter().map(Argv::to_string).take(1).collect(),
        error: error.to_owned(),
    };
    let numbers = [flush.number.to_string(), prepared.to_string()];
    let mut worker = worker::again(&context.config, WORKER, &[&numbers[0], &numbers[1]])?;
    for command in commands {
        worker = worker.and(&Argv::new(command.length().to_string(), &[])).and(command);
    }
    let held = turn.and_then(|turn| turn.0.try_clone().ok());
    let report = process::hand_over(&worker, held, PATIENCE)?;
    let report = report.map(|report| serde_json::from_slice(&report)).transpose();
    report.map_err(|_| not_run("it could not be run in the background"))
}

/// The worker: runs the commands one after the other, reports on standard output how that [`Ended`], and puts
/// it on record; then it watches what comes of it.
///
/// Its words are the configuration's file, the flush's number, how many commands are a preparation, and each
/// command behind the number of its words.
pub fn work(words: &[OsString]) {
    let [_, number, prepared, rest @ ..] = words else { return };
    let parsed = |word: &OsString| word.to_str().and_then(|word| word.parse::<u64>().ok());
    let (Some(number), Some(prepared)) = (parsed(number), parsed(prepared)) else { return };
    let prepared = usize::try_from(prepared).unwrap_or(usize::MAX);
    let ended = run_all(commands_of(rest), prepared);
    // Whoever asked may have left long ago.
    let report = ended.as_ref().and_then(|ended| serde_json::to_vec(ended).ok()).unwrap_or_default();
    let mut out = io::stdout();
    let _ = out.write_all(&report).and_then(|()| out.flush());
    // Ends the wait of whoever asked, and the turn.
    system::close_standard_streams();
    let Some(Ended { command, end: Ok(exit) }) = ended else { return };
    // Nothing was run: whoever asked takes it off the record.
    if number == 0 || (command <= prepared && !exit.success()) {
        return;
    }
    let Ok((config, _)) = worker::told(words) else { return };
    let context = Context::gather(config);
    let Ok(records) = &context.records else { return };
    if let Err(error) = records.add_exit(number, &exit.describe()) {
        system::log(&error.to_string());
    }
    if let Ok(Some(flush)) = records.flush(number) {
        watch(&context, &flush, |_| ());
    }
}

/// The commands, each behind the number of its words.
fn commands_of(words: &[OsString]) -> impl Iterator<Item = Argv> {
    let mut rest = words;
    std::iter::from_fn(move || {
        let (length, behind) = rest.split_first()?;
        let (command, others) = behind.split_at_checked(length.to_str()?.parse().ok()?)?;
        rest = others;
        Argv::from_os_words(command.to_vec())
    })
}

fn run_all(commands: impl Iterator<Item = Argv>, prepared: usize) -> Option<Ended> {
    let deadline = Instant::now() + RUN_LIMIT;
    let mut last = None;
    for (command, argv) in commands.enumerate() {
        let end = process::start(&argv).map_err(|not_started| not_started.error).map(|running| {
            let (exit, output) = running.collect(deadline);
            Exit { said: format!("{}\n{}", String::from_utf8_lossy(&output), exit.said), ..exit }
        });
        let failed = !end.as_ref().is_ok_and(Exit::success);
        last = Some(Ended { command, end });
        if failed && command >= prepared {
            break;
        }
    }
    last
}

/// The queue has settled when nothing is being delivered any more, and nothing has left it for this long.
const SETTLED_AFTER: Duration = Duration::from_secs(15);

/// A flush is not watched any longer than this by the worker.
pub const WATCHED: Duration = Duration::from_secs(10 * 60);

/// Nor is it, when the queue can't be listed for this long.
const BLIND: Duration = Duration::from_secs(60);

/// Watches what comes of a flush until its messages are gone or the queue has settled, and puts it on
/// record. `seen` is told each time the queue was looked at.
pub fn watch(context: &Context, flush: &Flush, mut seen: impl FnMut(&Outcome)) -> Option<Outcome> {
    let started = Instant::now();
    let mut recipients = None;
    let mut moved = started;
    let mut seen_well = started;
    loop {
        let looked = Instant::now();
        let now = jiff::Timestamp::now().as_second();
        if let Ok(records) = &context.records {
            records.close();
        }
        let left = Survey::of_flush(context, flush);
        let took = looked.elapsed();
        if left.trouble.is_none() {
            seen_well = Instant::now();
            if recipients.replace(left.recipients) != Some(left.recipients) {
                moved = Instant::now();
            }
            let under_way = context.records.as_ref().is_ok_and(Records::is_taken);
            let at_rest = !under_way && left.in_delivery == 0 && moved.elapsed() >= SETTLED_AFTER;
            let settled = left.messages == 0 || at_rest;
            let outcome = Outcome {
                sampled: now,
                messages_left: left.messages,
                recipients_left: left.recipients,
                why: left.why,
                settled,
            };
            if let Ok(records) = &context.records {
                // It may be full meanwhile; then the page shows what it sees itself.
                let _ = records.add_outcome(flush.number, &outcome);
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
    let Ok(records) = &context.records else { return Ok(None) };
    match records.turn() {
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
fn commands(context: &Context, facts: &Facts, part: &Part<'_>, rule: &Option<Argv>) -> Result<Vec<Argv>, Trouble> {
    let source = context.source.as_ref().map_err(Trouble::clone)?;
    if let Some(configured) = Argv::from_words(&context.config.mta.flush_command) {
        let error =
            || Trouble::NotStarted { command: configured.to_string(), error: "there is no such program".into() };
        return if configured.is_there() { Ok(vec![configured]) } else { Err(error()) };
    }
    let own = source.mta.flush_commands(part);
    let Some(obstacle) = source.mta.flush_obstacle(facts, &context.account) else { return Ok(own) };
    match rule {
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
        if is_free {
            Some(command.clone())
        } else {
            privilege::prefix(command, &context.account).map(|prefix| prefix.and(command))
        }
    };
    let running = allowed(&question).and_then(|question| process::start(&question).ok());
    let answer = running.map(|running| running.collect(Instant::now() + QUESTION_PATIENCE).1).unwrap_or_default();
    source.mta.flush_preparation(&String::from_utf8_lossy(&answer)).iter().filter_map(allowed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_gets_each_command_whole() {
        let words = ["2", "sh", ";", "1", "true", "3", "postqueue", "-i", "2"].map(OsString::from);
        let commands: Vec<String> = commands_of(&words).map(|command| command.to_string()).collect();
        assert_eq!(commands, ["sh ;", "true", "postqueue -i 2"]);
        assert_eq!(commands_of(&["9", "x"].map(OsString::from)).count(), 0);
    }

    #[test]
    fn a_preparation_may_fail_and_what_was_run_is_told_by_its_number() {
        let run = |scripts: &[&str], prepared| {
            let ended = run_all(scripts.iter().map(|script| Argv::new("/bin/sh", &["-c", script])), prepared).unwrap();
            (ended.command, ended.end.map(|exit| exit.code))
        };
        assert_eq!(run(&["exit 1", "exit 0"], 1), (1, Ok(Some(0))));
        assert_eq!(run(&["exit 1", "exit 2", "exit 0"], 1), (1, Ok(Some(2))));
        assert_eq!(run(&["exit 0", "exit 3", "exit 0"], 0), (1, Ok(Some(3))));
        let missing = run_all([Argv::new("/nonexistent", &[])].into_iter(), 0).unwrap();
        assert!(missing.end.unwrap_err().contains("No such file"));
    }

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
