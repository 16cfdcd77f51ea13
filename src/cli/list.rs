//! `bartleby list`

use std::env;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use super::{EX_CONFIG, EX_IOERR, answer, gather, print};
use crate::context::Context;
use crate::request::{Asked, Format};
use crate::state::SeenBy;
use crate::system::Free;
use crate::view::text::Terminal;
use crate::view::{self, Setting};

/// How long `list --watch` shows one listing.
const AGAIN: Duration = Duration::from_secs(5);

pub(super) fn run(free: Free, mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
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
    let mut free = free;
    loop {
        if watch && io::stdout().is_terminal() {
            // Home, and clear what is below.
            print("\x1b[H\x1b[J")?;
        }
        // From the beginning each time, as configuration and mail server may change.
        let context = match gather(free, SeenBy::List) {
            Ok(context) => context,
            Err(code) => return Ok(code),
        };
        let code = list(&context, format);
        if !watch || [EX_CONFIG, EX_IOERR].map(ExitCode::from).contains(&code) {
            return Ok(code);
        }
        thread::sleep(AGAIN);
        free = context.free;
    }
}

/// Prints the queue in one of the forms.
pub(super) fn list(context: &Context, format: Format) -> ExitCode {
    let asked = Asked::of(format);
    let setting = Setting { now: context.clock.now, asked: &asked, terminal: terminal() };
    answer(context, &asked, &mut *(view::form(format).begin)(&setting))
}

/// The terminal that standard output is, if it is one.
fn terminal() -> Option<Terminal> {
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let width = width.or_else(|| variable("COLUMNS")?.parse().ok());
    io::stdout()
        .is_terminal()
        .then(|| Terminal { width: width.unwrap_or(80).max(40), colours: variable("NO_COLOR").is_none() })
}
