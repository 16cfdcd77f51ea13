//! Running the queue: whether this user can, whether it is time, and the run itself.
//!
//! First comes a look at the queue, then the turn: one who asks for what is not there holds nobody up, however long the
//! look takes. Messages that leave the queue in between are on record as having waited, and as having left: so they
//! have. The mail server is asked for them all the same, and finds nothing to do. Another run in between is not
//! repeated: the holder of the turn looks again whether it is time.
//!
//! Between the look and the turn, the primary is asked for some of the recipients that wait: a run of all, or of a domain,
//! is not started where it would return the mail (`rehearsal`).
//!
//! A mail server's flush command may block until the run ends (Exim's does), so it is run by a worker: a branch of this
//! process that outlives it. The worker holds the lock as its standard input; the kernel frees it when the worker ends,
//! however it ends.

mod evidence;
mod follow;
mod log_files;
pub(crate) mod log_mark;
pub(crate) mod mail_log;
pub(crate) mod outcome;
pub mod readiness;
pub(crate) mod rehearsal;
mod worker;

use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::context::Context;
use crate::listing;
use crate::listing::count::Count;
use crate::mta::as_root::{self, Request};
use crate::mta::trouble::Trouble;
use crate::mta::{Facts, Part, Wanted};
use crate::primary::Grounds;
use crate::queue::{Despite, Target};
use crate::sandbox::worker::LONGEST;
use crate::state::{Flush, NoTurn, Records, Turn, Waited};
use crate::system::log;
use crate::system::process::{self, Argv, Equipment, Life};
pub(crate) use evidence::Notes;
pub(crate) use follow::{End, FOLLOWED, UNMOVED, follow};
use readiness::{commands, delivers_held, leaves_held, wait_seconds};
pub(crate) use rehearsal::{Heard, NotRun};
use worker::Ended;

/// How long a request waits for the flush command: enough to hear a refusal.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most messages that are run one by one. For more, the whole queue should be run.
pub(crate) const MOST_MESSAGES: usize = 1000;

/// Why the queue was not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The last run was a moment ago.
    #[error(
        "The queue was run a moment ago. Running it again so soon only slows delivery down; it can be run again in {0} s."
    )]
    CoolDown(u64),
    /// A run is under way.
    #[error("The queue is being run already.")]
    UnderWay,
    /// The same client asked for a part of the queue a moment ago, in vain.
    #[error(
        "Your last request to run a part of the queue came to nothing a moment ago. A part can be run again in {0} s, and the whole queue at any time."
    )]
    InVain(u64),
    /// The target does not wait: it was delivered meanwhile, or never was there.
    #[error("{}", not_queued(.0))]
    NotQueued(Target),
    /// A part of the queue was asked for, but the configured command runs the whole queue.
    #[error("Only the whole queue can be run here, not {0} alone.")]
    Part(Target),
    /// Its name must not be passed on to a command.
    #[error("{0} holds characters that are not passed on to the mail server's command. Run the whole queue.")]
    NotPlain(Target),
    /// There are too many messages to run them one by one.
    #[error(
        "More than {MOST_MESSAGES} messages wait for {0}, and this mail server runs them one by one. Run the whole queue."
    )]
    TooMany(Target),
    /// All of the target is held, and a run does not touch held messages.
    #[error("What waits is on hold: a run passes it over until an administrator releases it.")]
    Held {
        /// How to release it.
        release: &'static str,
    },
    /// A run would return mail to its senders.
    #[error("{0}")]
    Rehearsed(Box<NotRun>),
    /// The mail server refuses, or fails.
    #[error(transparent)]
    Impossible(#[from] Trouble),
}

fn not_queued(target: &Target) -> String {
    match target {
        Target::All => "Nothing is waiting, so there was nothing to run.".into(),
        Target::Domain(name) => format!("No message for {name} is waiting; what was may already have been delivered."),
        Target::Id(id) => format!("No message with the id {id} is waiting; it may already have been delivered."),
    }
}

/// Who asks for a queue run.
#[derive(Clone, Debug)]
pub struct Asker {
    /// An address, a login name, or both; for the log.
    pub by: String,
    /// The client's address, where it is a client of the web server.
    pub address: Option<IpAddr>,
}

impl Asker {
    /// Somebody, or something, on this machine.
    pub fn here(by: impl Into<String>) -> Asker {
        Asker { by: by.into(), address: None }
    }
}

/// What is looked at before a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Care {
    /// What the primary says to some of the recipients.
    Rehearse,
    /// The same, but this does not keep the queue from being run.
    Despite(Despite),
    /// Nothing but the cool-down: the primary was asked just now, and said this.
    Rehearsed(Option<String>),
    /// Not even that: the run goes on with one of ours that was begun with one message.
    GoesOn(Option<String>),
}

/// A queue run that was started.
#[derive(Debug)]
pub(crate) struct Run {
    /// As it is on record.
    pub(crate) flush: Flush,
    /// By what its outcome can be judged; `None` where the mail server's log is not known.
    pub(crate) notes: Option<Notes>,
}

/// Starts a queue run and puts it on record.
///
/// # Errors
/// [`Refusal`]; the queue was not run then.
pub(crate) fn start(context: &Context, target: &Target, asker: Asker, care: &Care) -> Result<Run, Refusal> {
    let records = context.records.as_ref().ok();
    // The whole queue can be run by everybody at any time.
    let remembered = records.zip(asker.address).filter(|_| *target != Target::All);
    let wait = remembered.map_or(Duration::ZERO, |(records, address)| records.refused_lately(address));
    if !wait.is_zero() {
        return Err(Refusal::InVain(wait.as_secs() + 1));
    }
    let started = look_and_run(context, target, asker.by, care);
    if let (Some((records, address)), Err(refusal)) = (remembered, &started)
        // What keeps the mail server from it is said each time, with its remedy.
        && !matches!(
            refusal,
            Refusal::CoolDown(_) | Refusal::UnderWay | Refusal::Rehearsed(_) | Refusal::Impossible(_)
        )
    {
        records.note_refusal(address);
    }
    started
}

/// What the primary says to some of the recipients that wait, without a run.
///
/// # Errors
/// [`Refusal`]: why the queue should not be run.
pub(crate) fn rehearse(context: &Context) -> Result<Heard, Refusal> {
    if context.records.as_ref().is_ok_and(Records::is_taken) {
        return Err(Refusal::UnderWay);
    }
    is_time(context, context.clock.now, &Care::Rehearse)?;
    let (target, care) = (&Target::All, &Care::Rehearse);
    let Some(grounds) = grounds(context, target, care) else { return Ok(Heard::default()) };
    let timing = listing::facts(context, Wanted::Everything).timing;
    let waiting = Count::with_stakes(context, target, grounds.domains(), timing.lifetimes());
    rehearsal::rehearse(context, &grounds, target, &waiting.stakes, &timing, care).map_err(not_run)
}

fn not_run(not_run: NotRun) -> Refusal {
    Refusal::Rehearsed(Box::new(not_run))
}

/// What a rehearsal goes by, where there is to be one.
fn grounds(context: &Context, target: &Target, care: &Care) -> Option<Grounds> {
    let is_wanted = matches!(care, Care::Rehearse | Care::Despite(Despite::Overdue));
    let is_many = !matches!(target, Target::Id(_));
    (is_wanted && is_many && context.config.flush.rehearse).then(|| Grounds::gather(context))
}

fn look_and_run(context: &Context, target: &Target, by: String, care: &Care) -> Result<Run, Refusal> {
    let source = context.source.as_ref().map_err(Trouble::clone)?;
    let records = context.records.as_ref().ok();
    if records.is_some_and(Records::is_taken) {
        return Err(Refusal::UnderWay);
    }
    is_time(context, context.clock.now, care)?;
    let grounds = grounds(context, target, care);
    let facts = listing::facts(context, if grounds.is_some() { Wanted::Everything } else { Wanted::Permissions });
    let whole = commands(context, &facts, &Part::All)?;
    let domains = grounds.as_ref().map_or(&[][..], Grounds::domains);
    // What leaves from here on, by itself too, counts.
    let notes = Notes::begin(context, &facts);
    let mut waiting = Count::with_stakes(context, target, domains, facts.timing.lifetimes());
    let notes = notes.map(|notes| notes.of(std::mem::take(&mut waiting.noted)));
    if waiting.messages == 0 && waiting.trouble.is_none() {
        // It would use up the cool-down.
        return Err(Refusal::NotQueued(target.clone()));
    }
    let not_held = waiting.ids_not_held().unwrap_or_else(|| waiting.ids.clone());
    let mut part = part(context, target, &waiting, &not_held)?;
    let configured = !context.config.mta.flush_command.is_empty();
    let all_held = waiting.held > 0 && waiting.trouble.is_none() && waiting.messages == waiting.held;
    if part != Part::All && !configured && source.mta.flush_commands(&part).len() > MOST_MESSAGES {
        return Err(Refusal::TooMany(target.clone()));
    }
    let one_by_one =
        part == Part::All && waiting.held > 0 && leaves_held(context, &facts, waiting.messages - waiting.held);
    if one_by_one {
        part = Part::Each { ids: &not_held };
    }
    let commands = if part == Part::All { whole } else { commands(context, &facts, &part)? };
    if all_held && (one_by_one || !delivers_held(context, &part, &commands)) {
        return Err(Refusal::Held { release: source.mta.release() });
    }
    let preparation = preparation(context, &facts)?;
    let prepared = preparation.len();
    let commands = [preparation, commands].concat();
    let rehearse = |grounds| rehearsal::rehearse(context, &grounds, target, &waiting.stakes, &facts.timing, care);
    let heard = grounds.map(rehearse);
    let heard = heard.transpose().map_err(not_run)?.unwrap_or_default();
    let turn = take_turn(context)?;
    // Others may have run it meanwhile, after this request came.
    let now = jiff::Timestamp::now().as_second();
    is_time(context, now, care)?;
    let mut flush = Flush {
        number: 0,
        started: now,
        target: target.to_string(),
        by,
        messages: waiting.trouble.is_none().then_some(waiting.messages),
        recipients: waiting.trouble.is_none().then_some(waiting.recipients),
        despite: if let Care::Despite(despite) = care { Some(*despite) } else { None },
        rehearsal: if let Care::Rehearsed(said) | Care::GoesOn(said) = care { said.clone() } else { heard.said },
        ..Flush::default()
    };
    let all_known = waiting.trouble.is_none() && waiting.ids.len() as u64 == waiting.messages;
    let waited = if all_known { Waited::Ids(waiting.ids.iter().cloned().collect()) } else { Waited::By(flush.started) };
    if let (Some(records), Some(turn)) = (records, &turn) {
        match records.record(turn, &flush, &waited) {
            Ok(number) => flush.number = number,
            // Without the record there is no cool-down, but mail should still be delivered.
            Err(error) => log(&format!("the flush could not be put on record: {error}")),
        }
    }
    let own = || source.mta.flush_commands(&Part::All).first().map(Argv::program).unwrap_or_default();
    let ended = run(context, &flush, &commands, prepared, turn.as_ref(), notes.as_ref());
    let outcome = ended.and_then(|report| match report {
        // Where some messages were run and a later one was not, only the record says so.
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
        // The return of the primaries has been dealt with. Where this can't be noted, `watch` runs the queue again.
        let _ = records.welcome_back();
    }
    Ok(Run { flush, notes })
}

/// Whether the cool-down is over.
fn is_time(context: &Context, now: i64, care: &Care) -> Result<(), Refusal> {
    if matches!(care, Care::GoesOn(_)) {
        return Ok(());
    }
    let last = context.records.as_ref().ok().and_then(|records| records.flushes(1).ok()?.pop());
    match wait_seconds(context, last.as_ref(), now) {
        0 => Ok(()),
        wait => Err(Refusal::CoolDown(wait)),
    }
}

/// The part of the queue to run. An id or a domain of the request counts only if the listing holds it.
fn part<'a>(
    context: &Context,
    target: &'a Target,
    waiting: &'a Count,
    not_held: &'a [String],
) -> Result<Part<'a>, Refusal> {
    let part = match (target, waiting.ids.first()) {
        (Target::All, _) => return Ok(Part::All),
        (_, None) => {
            return Err(waiting
                .trouble
                .clone()
                .map_or_else(|| Refusal::NotQueued(target.clone()), Refusal::Impossible));
        }
        (Target::Id(_), Some(id)) => Part::Message(id),
        (Target::Domain(name), Some(_)) => Part::Domain { name, ids: not_held },
    };
    // A name that holds a space or begins with a dash is refused. Ids are the mail server's own, and are checked, too.
    let ids_are_plain = waiting.ids.iter().all(|id| Target::Id(id.clone()).is_plain());
    match () {
        () if !context.config.mta.flush_command.is_empty() => Err(Refusal::Part(target.clone())),
        () if !target.is_plain() || !ids_are_plain => Err(Refusal::NotPlain(target.clone())),
        () => Ok(part),
    }
}

/// Hands the commands, and a copy of the lock, to a worker. The first `prepared` commands may fail. Returns how they
/// ended, if they ended soon.
fn run(
    context: &Context,
    flush: &Flush,
    commands: &[Argv],
    prepared: usize,
    turn: Option<&Turn>,
    notes: Option<&Notes>,
) -> Result<Option<Ended>, Trouble> {
    let not_run = |error: &str| Trouble::NotStarted {
        command: commands.first().map(Argv::to_string).unwrap_or_default(),
        error: error.to_owned(),
    };
    let lock = turn.and_then(|turn| turn.0.try_clone().ok()).map(OwnedFd::from);
    let equipment = Equipment { input: lock, kept: &[], life: Life::Free };
    let work = |free| worker::work(free, context.config.clone(), flush.number, commands, prepared, notes);
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

/// The commands that must run before the flush, as far as this user may run them.
///
/// # Errors
/// Why a flush would change nothing.
fn preparation(context: &Context, facts: &Facts) -> Result<Vec<Argv>, Trouble> {
    let Ok(source) = &context.source else { return Ok(Vec::new()) };
    let questions = source.mta.flush_questions();
    // By the one rule, root does that, too.
    let is_asked = context.config.mta.flush_command.is_empty() && !questions.is_empty();
    if !is_asked || context.by_the_one_rule(&Request::List {}).is_some() {
        return Ok(Vec::new());
    }
    let is_free = source.mta.flush_obstacle(facts, &context.account).is_none();
    let allowed = |command: &Argv| {
        if is_free { Some(command.clone()) } else { context.by_its_own_rule(command).map(|prefix| prefix.and(command)) }
    };
    let running: Vec<_> = questions
        .iter()
        .filter_map(|question| allowed(question).and_then(|question| process::start(&context.free, &question).ok()))
        .collect();
    let until = Instant::now() + QUESTION_PATIENCE;
    let answers: Vec<_> = running.into_iter().map(|running| running.collect(until).1).collect();
    let hindrances = source.mta.flush_hindrances(&String::from_utf8_lossy(&answers.concat()));
    match source.mta.flush_bar(&hindrances) {
        Some(bar) => Err(bar),
        None => Ok(source.mta.flush_preparation(&hindrances).iter().filter_map(allowed).collect()),
    }
}
