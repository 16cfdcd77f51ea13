//! `bartleby flush`

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use super::{EX_DATAERR, EX_TEMPFAIL, EX_UNAVAILABLE, gather, print, say};
use crate::context::Context;
use crate::flush::{self, Asker, outcome};
use crate::mta::trouble::Trouble;
use crate::queue::Target;
use crate::state::{Flush, Outcome, SeenBy};
use crate::system::{Free, log};
use crate::text::printable;

pub(super) fn run(free: Free, mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
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
    let context = match gather(free, SeenBy::Flush) {
        Ok(context) => context,
        Err(code) => return Ok(code),
    };
    let by = format!("{} on the command line", context.account.name);
    match flush::start(&context, &target, Asker::here(by)) {
        Ok(flush) if wait => Ok(follow(&context, &flush)),
        Ok(flush) => say(&format!("Queue run {} was started.", flush.number)),
        Err(refusal) => {
            log(&refusal.to_string());
            Ok(ExitCode::from(match refusal {
                flush::Refusal::CoolDown(_) | flush::Refusal::UnderWay | flush::Refusal::InVain(_) => EX_TEMPFAIL,
                flush::Refusal::NotQueued(_)
                | flush::Refusal::Part(_)
                | flush::Refusal::NotPlain(_)
                | flush::Refusal::TooMany(_) => EX_DATAERR,
                flush::Refusal::Held { release } => {
                    log(release);
                    EX_DATAERR
                }
                flush::Refusal::Impossible(trouble) => {
                    log(&trouble.remedy());
                    if matches!(trouble, Trouble::InHand { .. }) { EX_TEMPFAIL } else { EX_UNAVAILABLE }
                }
            }))
        }
    }
}

/// Tells what comes of a flush until it is over.
fn follow(context: &Context, flush: &Flush) -> ExitCode {
    let terminal = io::stdout().is_terminal();
    let outcome = flush::follow(context, flush, |outcome| {
        if terminal {
            let _ =
                print(&format!("\r\x1b[K{} {}", bar(flush, outcome), printable(&outcome::sentence(flush, outcome))));
        }
    });
    let Some(outcome) = outcome else {
        log("what came of the run is not known, as the queue can't be listed");
        return ExitCode::from(EX_UNAVAILABLE);
    };
    if terminal {
        let _ = print("\r\x1b[K");
    }
    let _ = say(&format!("Queue run {}: {}.", flush.number, outcome::sentence(flush, &outcome)));
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
