//! The command line: one file a command.

mod as_root;
mod check;
mod doctor;
mod flush;
mod help;
mod list;
mod metrics;
mod outage;
mod watch;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::{Config, ConfigError};
use crate::context::Context;
use crate::mta::as_root::WORD;
use crate::report::{self, Answer, Form, Verdict};
use crate::request::Asked;
use crate::state::SeenBy;
use crate::system::{self, Free, log};
use crate::text::printable;
use crate::view::PROGRAM;
use help::HELP;

/// Exit statuses of sysexits(3).
const EX_USAGE: u8 = 64;
const EX_DATAERR: u8 = 65;
const EX_UNAVAILABLE: u8 = 69;
const EX_IOERR: u8 = 74;
use crate::mta::as_root::EX_TEMPFAIL;
const EX_CONFIG: u8 = 78;

/// A command: it gets the right of this process, and the arguments after its name.
type Command = fn(Free, lexopt::Parser) -> Result<ExitCode, lexopt::Error>;

/// Every command by its name.
static COMMANDS: [(&str, Command); 8] = [
    ("list", list::run),
    ("flush", flush::run),
    ("watch", watch::run),
    ("outage", outage::run),
    ("check", check::run),
    ("metrics", metrics::run),
    ("doctor", doctor::run),
    (WORD, as_root::run),
];

/// Whether a web server started this program. Some (h2o) set only one of the two, and arguments may be a client's then.
pub fn is_cgi() -> bool {
    ["GATEWAY_INTERFACE", "REQUEST_METHOD"].into_iter().any(|name| env::var_os(name).is_some())
}

/// Runs the command that the arguments name.
pub fn run(free: Free) -> ExitCode {
    match command(free, lexopt::Parser::from_env()) {
        Ok(code) => code,
        Err(error) => {
            log(&format!("{error}; see bartleby --help"));
            ExitCode::from(EX_USAGE)
        }
    }
}

fn command(free: Free, mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    use lexopt::prelude::*;
    match arguments.next()? {
        Some(Short('h') | Long("help")) => print(HELP),
        Some(Short('V') | Long("version")) => print(&version()),
        Some(Value(name)) => match COMMANDS.iter().find(|(word, _)| name == *word) {
            Some((_, run)) => run(free, arguments),
            None => Err(format!("there is no command “{}”", name.to_string_lossy()).into()),
        },
        Some(other) => Err(other.unexpected()),
        None => Err("a command is missing".into()),
    }
}

/// A command that takes no arguments.
/// The program's name and version, and, where it was built from a commit, which one.
fn version() -> String {
    match option_env!("BARTLEBY_COMMIT") {
        None | Some("") => format!("{PROGRAM}\n"),
        Some(commit) => format!("{PROGRAM} ({commit})\n"),
    }
}

fn no_more(mut arguments: lexopt::Parser) -> Result<(), lexopt::Error> {
    arguments.next()?.map_or(Ok(()), |argument| Err(argument.unexpected()))
}

/// Everything that a command starts from; a mistake in the configuration is logged.
fn gather(free: Free, seen_by: SeenBy) -> Result<Context, ExitCode> {
    match load() {
        Ok(config) => Ok(Context::gather(free, seen_by, config)),
        Err(error) => {
            log(&error.to_string());
            Err(ExitCode::from(EX_CONFIG))
        }
    }
}

fn load() -> Result<Config, ConfigError> {
    let config = Config::load();
    system::leave_working_directory();
    config
}

/// Prints the queue, or what there is to say of it, in this form.
fn answer(context: &Context, asked: &Asked, form: &mut dyn Form) -> ExitCode {
    match report::answer(context, asked, form, &Answer::PLAIN) {
        Ok(Verdict { status, .. }) => ExitCode::from(status),
        Err(error) => not_written(&error),
    }
}

/// Prints a line; what strangers wrote of it is made printable here.
fn say(line: &str) -> Result<ExitCode, lexopt::Error> {
    print(&format!("{}\n", printable(line)))
}

/// Prints text of our own, as it is.
fn print(text: &str) -> Result<ExitCode, lexopt::Error> {
    let mut out = io::stdout();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    Ok(written.map_or_else(|error| not_written(&error), |()| ExitCode::SUCCESS))
}

/// What can't be written is no success; to somebody who went away there is nothing more to say.
fn not_written(error: &io::Error) -> ExitCode {
    if error.kind() != io::ErrorKind::BrokenPipe {
        log(&format!("standard output: {error}"));
    }
    ExitCode::from(EX_IOERR)
}
