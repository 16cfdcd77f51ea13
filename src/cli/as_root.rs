//! `bartleby as-root`: what the one rule for root lets the web server's user do, see [`crate::mta::as_root`].
//!
//! The caller may be taken over. So nothing is taken from it but the request: no argument, no environment, no
//! configuration but root's own, and no configured command. The mail server's bytes go through unread; where ids are
//! needed, a reader in the sandbox takes them from a listing, and they are vetted here like those of a request.
//!
//! For a listing, standard input is the caller's place among those that list, with the request in it. The mail server's
//! command gets it, too, as it does by a rule of its own: none that lists reads its input.

use std::fs;
use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::{EX_DATAERR, EX_TEMPFAIL, EX_UNAVAILABLE, no_more};
use crate::config::{Config, ConfigError};
use crate::context::{Context, Source};
use crate::flush::MOST_MESSAGES;
use crate::flush::log_mark;
use crate::flush::mail_log::{self, MOST, NoLog, Places};
use crate::listing::count::Count;
use crate::listing::reasons;
use crate::mta::as_root::{BadRequest, EX_CONFIG, EX_NOPERM, EX_USAGE, LONGEST, REFUSES, Request, is_id};
use crate::mta::trouble::Trouble;
use crate::mta::{Kind, Mark, Mta, Part, Wanted};
use crate::queue::Target;
use crate::sandbox::worker::Worker;
use crate::sandbox::{Purpose, Sandbox};
use crate::system::process::{self, Argv, Ending, Exit, NotStarted};
use crate::system::trust::{Last, Untrusted, is_root, only_roots};
use crate::system::{self, Free, Input, log, through};

/// This very program.
const ITSELF: &str = "/proc/self/exe";

/// How long the mail server may take to print why messages wait, and to answer the question before a run.
const QUESTION_PATIENCE: Duration = Duration::from_secs(3);

/// The status of a program that was killed is this and the signal, as shells have it.
const KILLED: i32 = 128;

/// Why nothing was done. Its `Display` is a sentence without its full stop.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("only root can do this; it is for a rule of sudo or doas, see bartleby(8)")]
    NotRoot,
    #[error("{}", .0.reason("root runs no program"))]
    Open(Untrusted),
    #[error("{0}")]
    Request(#[from] BadRequest),
    #[error("no request came: {0}")]
    Input(io::Error),
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Trouble(#[from] Trouble),
    #[error("nothing in the queue is {0}")]
    NotQueued(Target),
    #[error("more than {MOST_MESSAGES} messages are {0}: run the whole queue")]
    TooMany(Target),
    #[error("{} has nothing to say about that", .0.name())]
    Nothing(Kind),
    #[error("{0}")]
    NoLog(#[from] NoLog),
    #[error("the mail log holds more about these messages than the {} MiB that were printed, or is too long", MOST >> 20)]
    NotWhole,
}

impl Refusal {
    fn status(&self) -> u8 {
        match self {
            Refusal::Request(_) | Refusal::Input(_) => EX_USAGE,
            Refusal::NotRoot | Refusal::Open(_) => EX_NOPERM,
            Refusal::Config(_) => EX_CONFIG,
            Refusal::Trouble(_) | Refusal::Nothing(_) | Refusal::NoLog(_) => EX_UNAVAILABLE,
            Refusal::NotWhole => EX_TEMPFAIL,
            Refusal::NotQueued(_) | Refusal::TooMany(_) => EX_DATAERR,
        }
    }
}

impl From<NotStarted> for Refusal {
    fn from(not_started: NotStarted) -> Refusal {
        Refusal::Trouble(not_started.into())
    }
}

pub(super) fn run(free: Free, arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    no_more(arguments)?;
    let status = serve(free).unwrap_or_else(|refusal| {
        log(&format!("{REFUSES}{refusal}"));
        refusal.status()
    });
    Ok(ExitCode::from(status))
}

/// Does what is asked, and returns the status that the mail server's command ended with.
fn serve(free: Free) -> Result<u8, Refusal> {
    if !is_root() {
        return Err(Refusal::NotRoot);
    }
    system::leave_working_directory();
    // Against a mistake, not against an attack: who could write to this program has replaced this check, too. But as
    // long as they could, nothing works, and the administrator learns why.
    let itself = fs::read_link(ITSELF).map_err(|error| Untrusted::System(ITSELF.into(), error));
    itself.and_then(|path| only_roots(&path, Last::File)).map_err(Refusal::Open)?;
    let request = Request::read(&read_request()?)?;
    let context = Context::of_root(free, Config::of_root()?);
    let source = context.source.as_ref().map_err(Trouble::clone)?;
    match request {
        Request::List {} => list(&context, source),
        Request::Run { target } => run_queue(&context, source, &target),
        Request::Reasons { ids } => print_reasons(&context, source, &ids),
        Request::Next {} => print_next(&context, source),
        Request::Mark {} => print_mark(&context, source),
        Request::Log { ids, since, mark } => print_log(&context, source, &ids, since, mark.as_ref()),
    }
}

/// All of standard input, but no more than shows that it is too long for a request.
fn read_request() -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    Input::begin().take(LONGEST as u64 + 1).read_to_end(&mut bytes).map_err(Refusal::Input)?;
    Ok(bytes)
}

/// One listing behind the other. What one of them can't show, another may; the first failure is the status.
fn list(context: &Context, source: &Source) -> Result<u8, Refusal> {
    let deadline = Instant::now() + context.config.mta.deadline;
    let mut failure = None;
    for command in source.mta.list_commands() {
        let mut exit = through::print(&context.free, &command, deadline)?;
        if let Some(older) = source.mta.older_list_command(&command, &exit) {
            exit = through::print(&context.free, &older, deadline)?;
        }
        if exit.ending != Ending::Exited {
            return Ok(EX_TEMPFAIL);
        }
        failure = failure.or(Some(status(&exit)).filter(|status| *status != 0));
    }
    Ok(failure.unwrap_or(0))
}

fn run_queue(context: &Context, source: &Source, target: &Target) -> Result<u8, Refusal> {
    let mta = &*source.mta;
    let ids = match target {
        Target::Domain(name) if mta.flush_commands(&Part::Domain { name, ids: &[] }).is_empty() => {
            Some(waiting(context, target)?)
        }
        Target::All if mta.flushes_held(&Part::All) => not_held(context),
        _ => None,
    };
    let all = ids.as_ref().map(|ids| Part::Each { ids });
    let ids = ids.as_deref().unwrap_or_default();
    let part = match target {
        Target::All => all.unwrap_or(Part::All),
        Target::Domain(name) => Part::Domain { name, ids },
        Target::Id(id) => Part::Message(id),
    };
    for command in preparation(&context.free, mta)? {
        // It may fail: then the run shows what is in the way.
        let _ = process::start(&context.free, &command).map(|running| running.collect(soon()));
    }
    run_each(&context.free, &mta.flush_commands(&part))
}

/// The queue ids of what waits, for a mail server that runs a domain message by message.
fn waiting(context: &Context, target: &Target) -> Result<Vec<String>, Refusal> {
    let count = Count::of_target(context, target);
    let not_held = count.ids_not_held();
    let Count { ids, trouble, .. } = count;
    let ids: Vec<String> = not_held.unwrap_or(ids).into_iter().filter(|id| is_id(id)).collect();
    match (ids.len(), trouble) {
        (0, Some(trouble)) => Err(trouble.into()),
        (0, None) => Err(Refusal::NotQueued(target.clone())),
        (count, _) if count > MOST_MESSAGES => Err(Refusal::TooMany(target.clone())),
        _ => Ok(ids),
    }
}

/// The queue ids of what is not on hold, for a mail server whose run of the whole queue delivers that, too; `None` where
/// nothing is on hold, or they are too many to be run one by one.
fn not_held(context: &Context) -> Option<Vec<String>> {
    let count = Count::of_target(context, &Target::All);
    let ids = count.ids_not_held().filter(|ids| count.held > 0 && ids.len() <= MOST_MESSAGES)?;
    Some(ids.into_iter().filter(|id| is_id(id)).collect())
}

/// The commands that must run before the queue. What the mail server says of that is read in the sandbox, too.
fn preparation(free: &Free, mta: &dyn Mta) -> Result<Vec<Argv>, Trouble> {
    let questions = mta.flush_questions();
    if questions.is_empty() {
        return Ok(Vec::new());
    }
    let running: Vec<_> = questions.iter().filter_map(|question| process::start(free, question).ok()).collect();
    let until = soon();
    let answers: Vec<_> = running.into_iter().map(|running| running.collect(until).1).collect();
    let answers = String::from_utf8_lossy(&answers.concat()).into_owned();
    let read = |free| {
        let _sandbox = Sandbox::enter(free, Purpose::Reading { room: 0 });
        mta.flush_hindrances(&answers)
    };
    let read = Worker::begin(free, QUESTION_PATIENCE, read).and_then(Worker::answer);
    let mut hindrances = read.unwrap_or_default();
    hindrances.truncate(MOST_MESSAGES);
    mta.flush_bar(&hindrances).map_or_else(|| Ok(mta.flush_preparation(&hindrances)), Err)
}

/// Runs them all: one message may have gone meanwhile, or be in delivery. Only where none could be run is that the status.
fn run_each(free: &Free, commands: &[Argv]) -> Result<u8, Refusal> {
    let mut failure = None;
    let mut ran = false;
    for command in commands {
        let exit = through::act(free, command)?;
        ran |= exit.success();
        failure = failure.or(Some(status(&exit)));
    }
    Ok(if ran { 0 } else { failure.unwrap_or(0) })
}

fn print_reasons(context: &Context, source: &Source, ids: &[String]) -> Result<u8, Refusal> {
    let deadline = soon();
    let mut out = io::stdout();
    for id in ids {
        let Some(answer) = reasons::answer(&context.free, &*source.mta, id, deadline) else { break };
        // Nobody may be left to read it.
        if out.write_all(&answer?.written()).and_then(|()| out.flush()).is_err() || Instant::now() >= deadline {
            return Ok(EX_TEMPFAIL);
        }
    }
    Ok(0)
}

fn print_next(context: &Context, source: &Source) -> Result<u8, Refusal> {
    let mta = &*source.mta;
    let queue = mta.inquire(&context.free, Wanted::Permissions).answer(&context.free, soon()).queue_directory;
    let command = queue.and_then(|queue| mta.next_command(&queue)).ok_or(Refusal::Nothing(mta.kind()))?;
    Ok(status(&through::print(&context.free, &command, soon())?))
}

fn print_mark(context: &Context, source: &Source) -> Result<u8, Refusal> {
    let mark = log_mark::note(context, &places(context, source));
    // Nothing in it can fail to be written; nobody may be left to read it.
    let line = serde_json::to_string(&mark).unwrap_or_default();
    Ok(if writeln!(io::stdout(), "{line}").is_ok() { 0 } else { EX_TEMPFAIL })
}

/// Where the mail server logs.
fn places(context: &Context, source: &Source) -> Places {
    let facts = source.mta.inquire(&context.free, Wanted::Permissions).answer(&context.free, soon());
    Places::of(context, source, &facts)
}

fn print_log(
    context: &Context,
    source: &Source,
    ids: &[String],
    since: i64,
    mark: Option<&Mark>,
) -> Result<u8, Refusal> {
    let places = places(context, source);
    let question = mail_log::Question { places: &places, ids, since, mark, room: MOST };
    let excerpt = mail_log::lines(context, &*source.mta, &question)?;
    let mut out = io::stdout();
    // Nobody may be left to read it.
    if out.write_all(&excerpt.lines).and_then(|()| out.flush()).is_err() {
        return Ok(EX_TEMPFAIL);
    }
    if excerpt.whole { Ok(0) } else { Err(Refusal::NotWhole) }
}

fn soon() -> Instant {
    Instant::now() + QUESTION_PATIENCE
}

/// The status of this program, for a command of the mail server that ended so.
fn status(exit: &Exit) -> u8 {
    match (exit.ending, exit.code, exit.signal) {
        (Ending::Deadline | Ending::OutOfReach | Ending::ReaderGone, ..) => EX_TEMPFAIL,
        (_, Some(code), _) => u8::try_from(code).unwrap_or(EX_UNAVAILABLE),
        (_, None, Some(signal)) => u8::try_from(KILLED + signal).unwrap_or(EX_UNAVAILABLE),
        (_, None, None) => EX_UNAVAILABLE,
    }
}
