//! `bartleby flush`

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use super::{EX_DATAERR, EX_TEMPFAIL, EX_UNAVAILABLE, gather, print, say};
use crate::context::Context;
use crate::flush::{self, Asker, Care, End, NotRun, outcome};
use crate::mta::trouble::Trouble;
use crate::queue::{Despite, Target};
use crate::state::{Flush, Outcome, SeenBy};
use crate::system::{Free, log};
use crate::text::printable;

pub(super) fn run(free: Free, mut arguments: lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    use lexopt::prelude::*;
    let mut target = Target::All;
    let mut wait = false;
    let mut care = Care::Rehearse;
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("wait") => wait = true,
            Long("despite-refusals") => care = Care::Despite(Despite::Refusals),
            Long("despite-overdue") => care = Care::Despite(Despite::Overdue),
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
    match flush::start(&context, &target, Asker::here(by), &care) {
        Ok(flush) if wait => Ok(follow(&context, &flush)),
        Ok(flush) => {
            let said = flush.rehearsal.as_ref().map(|said| format!(" {said}")).unwrap_or_default();
            say(&format!("Queue run {} was started.{said}", flush.number))
        }
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
                flush::Refusal::Rehearsed(not_run) => {
                    explain(&not_run);
                    EX_UNAVAILABLE
                }
                flush::Refusal::Impossible(trouble) => {
                    log(&trouble.remedy());
                    if matches!(trouble, Trouble::InHand { .. }) { EX_TEMPFAIL } else { EX_UNAVAILABLE }
                }
            }))
        }
    }
}

/// Says each recipient that was asked for, and what to do.
fn explain(not_run: &NotRun) {
    not_run.lines().iter().for_each(|line| log(line));
    log(&not_run.remedy());
    log(&format!("To run it all the same: bartleby flush --despite-{} {}", not_run.despite().as_str(), not_run.target));
}

/// Tells what comes of a flush until it is over.
fn follow(context: &Context, flush: &Flush) -> ExitCode {
    let terminal = io::stdout().is_terminal();
    let end = flush::follow(context, flush, |outcome| {
        if terminal {
            let _ =
                print(&format!("\r\x1b[K{} {}", bar(flush, outcome), printable(&outcome::sentence(flush, outcome))));
        }
    });
    let Some(End { outcome, returned }) = end else {
        log("what came of the run is not known, as the queue can't be listed");
        return ExitCode::from(EX_UNAVAILABLE);
    };
    if terminal {
        let _ = print("\r\x1b[K");
    }
    let seen = if returned > 0 { format!("; {returned} seen going back to the sender") } else { String::new() };
    let _ = say(&format!("Queue run {}: {}{seen}.", flush.number, outcome::sentence(flush, &outcome)));
    ExitCode::from(status(flush.messages, outcome.messages_left, returned))
}

/// The exit status of a run of so many messages, where that is known, of which so many are left and so many were seen
/// going back.
fn status(messages: Option<u64>, left: u64, returned: u64) -> u8 {
    match messages {
        _ if left == 0 && returned == 0 => 0,
        Some(all) if left > 0 && left >= all => 2,
        _ => 1,
    }
}

/// How much of a flush is done, twenty characters wide.
fn bar(flush: &Flush, outcome: &Outcome) -> String {
    const WIDTH: u64 = 20;
    let all = flush.messages.unwrap_or(0).max(outcome.messages_left).max(1);
    let done = usize::try_from((all - outcome.messages_left) * WIDTH / all).unwrap_or(0);
    format!("[{:<20}]", "#".repeat(done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_that_left_nothing_and_returned_nothing_ends_with_0() {
        let statuses = [(Some(3), 0, 0), (None, 0, 0), (Some(3), 0, 1), (Some(3), 1, 0), (Some(3), 3, 0), (None, 2, 0)]
            .map(|(messages, left, returned)| status(messages, left, returned));
        assert_eq!(statuses, [0, 0, 1, 1, 2, 1]);
    }
}
