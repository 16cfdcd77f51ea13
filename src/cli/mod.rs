//! The command line.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ::cgi::http::StatusCode;

use crate::cgi::routes;
use crate::config::{Config, ConfigError};
use crate::context::Context;
use crate::flush;
use crate::flush::outcome;
use crate::listing::count;
use crate::listing::reasons;
use crate::primary;
use crate::report;
use crate::request::{Asked, Format, Target};
use crate::state::{Flush, Outcome, SeenBy};
use crate::system;
use crate::system::process::{self, Argv};
use crate::text::printable;
use crate::view::PROGRAM;
use crate::view::check::{self, Severity, Thresholds};
use crate::view::doctor;
use crate::view::text::Terminal;
use crate::watch;

/// Exit statuses of sysexits(3).
const EX_USAGE: u8 = 64;
const EX_DATAERR: u8 = 65;
const EX_UNAVAILABLE: u8 = 69;
const EX_IOERR: u8 = 74;
const EX_TEMPFAIL: u8 = 75;
const EX_CONFIG: u8 = 78;

const HELP: &str = "\
Shows what waits in this machine's mail queue, and runs it.

Usage: bartleby list [--format text|json|csv] [--watch]
       bartleby flush [--wait] [all|domain:NAME|id:ID]
       bartleby watch [--once]
       bartleby check [-w|--warning RANGE] [-c|--critical RANGE]
                      [--age-warning AGE] [--age-critical AGE]
       bartleby metrics
       bartleby doctor
       bartleby -V|--version
       bartleby -h|--help

  list    Prints every message that waits, with its sender, recipients and
          reasons, then the totals and the room left on disk; --watch prints it
          again every few seconds.
          Exit status: 0 when all was listed, 69 when it could not be.
  flush   Runs the queue now, under the same cool-down as the page's link.
          Exit status: 0 started, 75 too soon after the last run, 65 nothing of the
          kind waits, 69 not possible. With --wait it tells what comes of the run,
          until the queue stops changing, and ends with 0 when all messages left
          the queue, 1 when some did, 2 when none did.
  watch   Looks at the primary and at the queue each minute, and runs the queue once
          when the primary has come back from being down and mail waits; less and
          less often where it goes up and down. --once is for cron or a timer: it
          looks once. Exit status: 0, or 69 when it could not look or not run.
  check   One line for Nagios, Icinga and their like, with performance data: how many
          messages wait (-w, -c: threshold ranges), for how long (--age-warning,
          --age-critical: seconds, or 5m, 2h, 1d), and the room left on disk.
          Exit status: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN, as for a queue that
          could not be listed.
  metrics Prints OpenMetrics. Exit status: 0 when the queue could be listed, else 69.
  doctor  Looks whether everything is in place for the user that asks, and tells
          the exact fix for what is not; best asked as the web server's user:
          sudo -u www-data bartleby doctor. Exit status: 0 all is well, 1 not.

The configuration is /etc/bartleby.toml or the file that BARTLEBY_CONFIG names;
none is needed. A mistake in it ends with exit status 78.
With GATEWAY_INTERFACE in the environment this is a CGI program (RFC 3875),
whatever its arguments.
";

/// What this program does when it starts itself.
const WORKERS: [(&str, Work); 5] = [
    (primary::WORKER, primary::work),
    (flush::WORKER, flush::work),
    (count::WORKER, count::work),
    (reasons::WORKER, reasons::work),
    (watch::WORKER, watch::work),
];

/// What is done with the words behind that one.
type Work = fn(&[OsString]);

/// Runs the command that the arguments name.
pub fn run() -> ExitCode {
    match command(lexopt::Parser::from_env()) {
        Ok(code) => code,
        Err(error) => {
            system::log(&format!("{error}; see bartleby --help"));
            ExitCode::from(EX_USAGE)
        }
    }
}

fn command(mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    use lexopt::prelude::*;
    match arguments.next()? {
        Some(Short('h') | Long("help")) => print(HELP),
        Some(Short('V') | Long("version")) => print(&format!("{PROGRAM}\n")),
        Some(Value(name)) if name == "list" => list(arguments),
        Some(Value(name)) if name == "flush" => flush(arguments),
        Some(Value(name)) if name == "doctor" => doctor(arguments),
        Some(Value(name)) if name == "check" => check(arguments),
        Some(Value(name)) if name == "metrics" => metrics(arguments),
        Some(Value(name)) if name == "watch" => watch(arguments),
        Some(Value(name)) if WORKERS.iter().any(|(word, _)| name == *word) => {
            let words: Vec<OsString> = arguments.raw_args()?.collect();
            WORKERS.iter().filter(|(word, _)| name == *word).for_each(|(_, work)| work(&words));
            Ok(ExitCode::SUCCESS)
        }
        Some(Value(name)) => Err(format!("there is no command “{}”", name.to_string_lossy()).into()),
        Some(other) => Err(other.unexpected()),
        None => Err("a command is missing".into()),
    }
}

fn list(mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    use lexopt::prelude::*;
    let mut format = Format::Text;
    let mut watch = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("format") => {
                let word = arguments.value()?.string()?;
                let known = [Format::Text, Format::Json, Format::Csv].into_iter().find(|known| known.as_str() == word);
                format = known.ok_or(format!("the format “{word}” is not known, text, json and csv are"))?;
            }
            Long("watch") => watch = true,
            other => return Err(other.unexpected()),
        }
    }
    if !watch {
        return print_listing(format, SeenBy::List);
    }
    // What has read a listing can start no other one.
    let again = system::own_program().ok_or("this program does not find itself (no /proc)")?;
    let again = Argv::new(again, &["list", "--format", format.as_str()]);
    loop {
        if io::stdout().is_terminal() {
            // Home, and clear what is below.
            print("\x1b[H\x1b[J")?;
        }
        let code = process::attached(&again).map_err(|error| error.to_string())?;
        let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(EX_IOERR);
        if [EX_CONFIG, EX_IOERR].contains(&code) {
            return Ok(ExitCode::from(code));
        }
        thread::sleep(AGAIN);
    }
}

/// How long `list --watch` shows one listing.
const AGAIN: Duration = Duration::from_secs(5);

/// The terminal that standard output is, if it is one.
fn terminal() -> Option<Terminal> {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let width = width.or_else(|| variable("COLUMNS")?.parse().ok());
    io::stdout()
        .is_terminal()
        .then(|| Terminal { width: width.unwrap_or(80).max(40), colours: variable("NO_COLOR").is_none() })
}

fn print_listing(format: Format, seen_by: SeenBy) -> Result<ExitCode, lexopt::Error> {
    let Some(context) = gather(seen_by) else { return Ok(ExitCode::from(EX_CONFIG)) };
    let out = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let written = routes::write_listing(&context, &Asked::of(format), terminal(), out);
    Ok(match written.and_then(|(status, mut out)| out.flush().map(|()| status)) {
        Ok(StatusCode::OK) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(EX_UNAVAILABLE),
        Err(error) => not_written(&error),
    })
}

fn metrics(mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    match arguments.next()? {
        Some(argument) => Err(argument.unexpected()),
        None => print_listing(Format::OpenMetrics, SeenBy::Metrics),
    }
}

fn check(mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    // Whatever goes wrong is told as UNKNOWN, as a monitor takes 1 and 2 for warnings.
    let unknown = |reason: String| {
        print(&format!("BARTLEBY UNKNOWN - {reason}\n")).map(|_| ExitCode::from(Severity::Unknown.code()))
    };
    let thresholds = match thresholds(&mut arguments) {
        Ok(thresholds) => thresholds,
        Err(error) => return unknown(error.to_string()),
    };
    let context = match load() {
        Ok(config) => Context::of(SeenBy::Check, config),
        Err(error) => return unknown(error.to_string()),
    };
    match report::look(&context, &Asked::of(Format::Text), &mut |_| Ok(())) {
        Ok((report, _)) => {
            let (severity, line) = check::examine(&report, &thresholds);
            print(&format!("{line}\n")).map(|_| ExitCode::from(severity.code()))
        }
        Err(error) => unknown(error.to_string()),
    }
}

fn thresholds(arguments: &mut lexopt::Parser) -> Result<Thresholds, lexopt::Error> {
    use lexopt::prelude::*;
    let mut thresholds = Thresholds::default();
    while let Some(argument) = arguments.next()? {
        let (place, is_age) = match argument {
            Short('w') | Long("warning") => (&mut thresholds.warning, false),
            Short('c') | Long("critical") => (&mut thresholds.critical, false),
            Long("age-warning") => (&mut thresholds.age_warning, true),
            Long("age-critical") => (&mut thresholds.age_critical, true),
            other => return Err(other.unexpected()),
        };
        let text = arguments.value()?.string()?;
        *place = Some(if is_age { check::age_range(&text)? } else { text.parse()? });
    }
    Ok(thresholds)
}

/// What can't be written is no success; to somebody who went away there is nothing more to say.
fn not_written(error: &io::Error) -> ExitCode {
    if error.kind() != io::ErrorKind::BrokenPipe {
        system::log(&format!("standard output: {error}"));
    }
    ExitCode::from(EX_IOERR)
}

fn flush(mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    use lexopt::prelude::*;
    let mut target = Target::All;
    let mut wait = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("wait") => wait = true,
            Value(text) => {
                let text = text.string()?;
                target =
                    text.parse().map_err(|()| format!("“{text}” can't be flushed; all, domain:NAME or id:ID can"))?;
            }
            other => return Err(other.unexpected()),
        }
    }
    let Some(context) = gather(SeenBy::Flush) else { return Ok(ExitCode::from(EX_CONFIG)) };
    let by = format!("{} on the command line", context.account.name);
    match flush::start(&context, &target, by) {
        Ok(flush) if wait => Ok(follow(&context, &flush)),
        Ok(flush) => print(&format!("Queue run {} was started.\n", flush.number)),
        Err(refusal) => {
            system::log(&refusal.to_string());
            Ok(ExitCode::from(match refusal {
                flush::Refusal::CoolDown(_) | flush::Refusal::UnderWay => EX_TEMPFAIL,
                flush::Refusal::NotQueued(_)
                | flush::Refusal::Part(_)
                | flush::Refusal::NotPlain(_)
                | flush::Refusal::TooMany(_) => EX_DATAERR,
                flush::Refusal::Held { release } => {
                    system::log(release);
                    EX_DATAERR
                }
                flush::Refusal::Impossible(trouble) => {
                    system::log(&trouble.remedy());
                    EX_UNAVAILABLE
                }
            }))
        }
    }
}

/// Tells what comes of a flush until it is over.
fn follow(context: &Context, flush: &Flush) -> ExitCode {
    let terminal = io::stdout().is_terminal();
    let outcome = flush::watch(context, flush, |outcome| {
        if terminal {
            let _ =
                print(&format!("\r\x1b[K{} {}", bar(flush, outcome), printable(&outcome::sentence(flush, outcome))));
        }
    });
    let Some(outcome) = outcome else {
        system::log("what came of the run is not known, as the queue can't be listed");
        return ExitCode::from(EX_UNAVAILABLE);
    };
    let line = format!("Queue run {}: {}.\n", flush.number, printable(&outcome::sentence(flush, &outcome)));
    let _ = print(&if terminal { format!("\r\x1b[K{line}") } else { line });
    ExitCode::from(match flush.messages {
        _ if outcome.messages_left == 0 => 0,
        Some(all) if outcome.messages_left >= all => 2,
        _ => 1,
    })
}

/// How much of a flush is done, twenty characters wide.
fn bar(flush: &Flush, outcome: &Outcome) -> String {
    const WIDTH: u64 = 20;
    let all = flush.messages.unwrap_or(0).max(outcome.messages_left).max(1);
    let done = usize::try_from((all - outcome.messages_left) * WIDTH / all).unwrap_or(0);
    format!("[{:<20}]", "#".repeat(done))
}

fn watch(mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    use lexopt::prelude::*;
    let mut once = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("once") => once = true,
            other => return Err(other.unexpected()),
        }
    }
    loop {
        // Anew each time, as configuration and mail server may change.
        let Some(context) = gather(SeenBy::Watch) else { return Ok(ExitCode::from(EX_CONFIG)) };
        let code = match watch::once(&context) {
            Ok(told) => print(&format!("{}\n", printable(&told)))?,
            Err(error) => {
                system::log(&printable(&error));
                ExitCode::from(EX_UNAVAILABLE)
            }
        };
        if once {
            return Ok(code);
        }
        thread::sleep(watch::INTERVAL);
    }
}

fn doctor(mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    if let Some(argument) = arguments.next()? {
        return Err(argument.unexpected());
    }
    let Some(context) = gather(SeenBy::Doctor) else { return Ok(ExitCode::from(EX_CONFIG)) };
    let (report, _) = match report::look(&context, &Asked::of(Format::Text), &mut |_| Ok(())) {
        Ok(found) => found,
        Err(error) => return Ok(not_written(&error)),
    };
    let checks = doctor::examine(&context, &report);
    let lines = checks.iter().map(|check| match &check.found {
        Ok(found) => format!("ok    {}: {found}\n", check.subject),
        Err(fault) => {
            format!("WRONG {}: {}\n      To do: {}\n", check.subject, printable(&fault.message), fault.remedy)
        }
    });
    let printed = print(&lines.collect::<String>())?;
    Ok(if checks.iter().any(|check| check.found.is_err()) { ExitCode::FAILURE } else { printed })
}

fn gather(seen_by: SeenBy) -> Option<Context> {
    match load() {
        Ok(config) => Some(Context::of(seen_by, config)),
        Err(error) => {
            system::log(&error.to_string());
            None
        }
    }
}

fn load() -> Result<Config, ConfigError> {
    let config = Config::load();
    system::leave_working_directory();
    config
}

fn print(text: &str) -> Result<ExitCode, lexopt::Error> {
    let mut out = io::stdout();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(written.map_or_else(|error| not_written(&error), |()| ExitCode::SUCCESS))
}

/// Whether a web server started this program.
pub fn is_cgi() -> bool {
    env::var_os("GATEWAY_INTERFACE").is_some()
}
