//! The command line.

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;

use cgi::http::StatusCode;

use crate::config::Config;
use crate::context::Context;
use crate::doctor;
use crate::flush;
use crate::outcome;
use crate::page;
use crate::request::{Asked, Target};
use crate::store::{Flush, Outcome, Waited};
use crate::system;
use crate::view::PROGRAM;
use crate::view::json::Json;
use crate::view::text::Text;
use crate::view::words::printable;
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

Usage: bartleby list [--format text|json]
       bartleby flush [--wait] [all|domain:NAME|id:ID]
       bartleby watch [--once]
       bartleby doctor
       bartleby --version | --help

  list    Prints every message that waits, with its sender, recipients and
          reasons, then the totals and the room left on disk.
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
  doctor  Looks whether everything is in place for the user that asks, and tells
          the exact fix for what is not; best asked as the web server's user:
          sudo -u www-data bartleby doctor. Exit status: 0 all is well, 1 not.

The configuration is /etc/bartleby.toml or the file that BARTLEBY_CONFIG names;
none is needed. A mistake in it ends with exit status 78.
With GATEWAY_INTERFACE in the environment this is a CGI program (RFC 3875),
whatever its arguments.
";

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
        Some(Value(name)) if name == "watch" => watch(arguments),
        Some(Value(name)) if name == flush::WORKER => {
            let words: Vec<OsString> = arguments.raw_args()?.collect();
            flush::work(&words);
            Ok(ExitCode::SUCCESS)
        }
        Some(Value(name)) => Err(format!("there is no command “{}”", name.to_string_lossy()).into()),
        Some(other) => Err(other.unexpected()),
        None => Err("a command is missing".into()),
    }
}

fn list(mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    use lexopt::prelude::*;
    let mut format = String::from("text");
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("format") => format = arguments.value()?.string()?,
            other => return Err(other.unexpected()),
        }
    }
    if !matches!(format.as_str(), "text" | "json") {
        return Err(format!("the format “{format}” is not known, text and json are").into());
    }
    let Some(context) = gather() else { return Ok(ExitCode::from(EX_CONFIG)) };
    let asked =
        Asked::read([("format".to_owned(), format.clone())].into_iter(), None).map_err(|bad| bad.to_string())?;
    let out = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let status = if format == "json" {
        Json::begin(out).and_then(|mut json| {
            let status = page::write_listing(&context, &asked, &mut json)?;
            json.into_inner().flush().map(|()| status)
        })
    } else {
        let mut text = Text::begin(out, context.clock.now);
        page::write_listing(&context, &asked, &mut text).and_then(|status| text.into_inner().flush().map(|()| status))
    };
    Ok(match status {
        Ok(StatusCode::OK) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(EX_UNAVAILABLE),
        Err(error) => not_written(&error),
    })
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
    let Some(context) = gather() else { return Ok(ExitCode::from(EX_CONFIG)) };
    let by = format!("{} on the command line", context.account.name);
    match flush::start(&context, &target, by) {
        Ok((flush, waited)) if wait => Ok(follow(&context, &flush, waited)),
        Ok((flush, _)) => print(&format!("Queue run {} was started.\n", flush.number)),
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
fn follow(context: &Context, flush: &Flush, waited: Waited) -> ExitCode {
    let terminal = io::stdout().is_terminal();
    let outcome = flush::watch(context, flush, waited, |outcome| {
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
        let Some(context) = gather() else { return Ok(ExitCode::from(EX_CONFIG)) };
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
    let Some(context) = gather() else { return Ok(ExitCode::from(EX_CONFIG)) };
    let checks = doctor::examine(&context);
    let lines = checks.iter().map(|check| match &check.found {
        Ok(found) => format!("ok    {}: {found}\n", check.subject),
        Err(fault) => {
            format!("WRONG {}: {}\n      To do: {}\n", check.subject, printable(&fault.message), fault.remedy)
        }
    });
    let printed = print(&lines.collect::<String>())?;
    Ok(if checks.iter().any(|check| check.found.is_err()) { ExitCode::FAILURE } else { printed })
}

fn gather() -> Option<Context> {
    match Config::load() {
        Ok(config) => Some(Context::gather(config)),
        Err(error) => {
            system::log(&error.to_string());
            None
        }
    }
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
