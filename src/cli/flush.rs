//! `bartleby flush`

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use super::{EX_DATAERR, EX_TEMPFAIL, EX_UNAVAILABLE, gather, print, say};
use crate::context::Context;
use crate::flush::{self, Asker, Care, End, NotRun, Run, outcome};
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
        Ok(run) if wait => Ok(follow(&context, &run)),
        Ok(Run { flush, .. }) => {
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
                    trouble.remedy().lines().for_each(log);
                    if matches!(trouble, Trouble::InHand { .. }) { EX_TEMPFAIL } else { EX_UNAVAILABLE }
                }
            }))
        }
    }
}

/// Says each recipient that was asked for, and what to do.
fn explain(not_run: &NotRun) {
    not_run.lines().iter().for_each(|line| log(line));
    not_run.remedy().lines().for_each(log);
    log(&format!("To run it anyway: bartleby flush --despite-{} {}", not_run.despite().as_str(), not_run.target));
}

/// Says what comes of a run until it is over.
fn follow(context: &Context, run: &Run) -> ExitCode {
    let Run { flush, notes } = run;
    let terminal = io::stdout().is_terminal();
    let end = flush::follow(context, flush, notes.as_ref(), |outcome| {
        if terminal {
            let now = jiff::Timestamp::now().as_second();
            let pace = outcome.pace.map(|pace| format!("; {}", outcome::pace(pace, now))).unwrap_or_default();
            let words = format!("{}{pace}", outcome::sentence(flush, outcome));
            let _ = print(&format!("\r\x1b[K{} {}", bar(flush, outcome), printable(&words)));
        }
    });
    let Some(End { outcome, returned }) = end else {
        log("what came of the run is not known, as the queue can't be listed");
        return ExitCode::from(EX_UNAVAILABLE);
    };
    if terminal {
        let _ = print("\r\x1b[K");
    }
    // Where the log was read it says more.
    let seen = Some(returned).filter(|returned| *returned > 0 && outcome.tally.is_none());
    let seen = seen.map(|returned| format!("; {returned} seen going back to the sender")).unwrap_or_default();
    let _ = say(&format!("Queue run {}: {}{seen}.", flush.number, outcome::sentence(flush, &outcome)));
    for line in outcome.tally.iter().flat_map(outcome::sent_back) {
        let _ = say(&line);
    }
    ExitCode::from(status(flush.messages, &outcome, returned))
}

/// The exit status of a run of so many messages, where that is known, of which so many were seen going back.
fn status(messages: Option<u64>, outcome: &Outcome, seen_going_back: u64) -> u8 {
    let left = outcome.messages_left;
    let returned = seen_going_back + outcome.tally.as_ref().map_or(0, |tally| tally.returned + tally.double_bounces);
    // Where some recipients of a message got it, something was done.
    let is_unmoved = outcome.tally.as_ref().is_none_or(|tally| tally.left() == 0);
    match messages {
        _ if left == 0 && returned == 0 => 0,
        Some(all) if left > 0 && left >= all && is_unmoved => 2,
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
    use crate::state::Tally;

    #[test]
    fn only_a_run_that_left_nothing_and_returned_nothing_ends_with_0() {
        let outcome = |messages_left, tally| Outcome { messages_left, tally, ..Outcome::default() };
        let statuses = [(Some(3), 0, 0), (None, 0, 0), (Some(3), 0, 1), (Some(3), 1, 0), (Some(3), 3, 0), (None, 2, 0)]
            .map(|(messages, left, returned)| status(messages, &outcome(left, None), returned));
        assert_eq!(statuses, [0, 0, 1, 1, 2, 1]);
        let tally = |delivered, returned| Some(Tally { delivered, returned, ..Tally::default() });
        let statuses = [(0, tally(3, 0)), (0, tally(2, 1)), (3, tally(0, 0)), (3, tally(1, 0))]
            .map(|(left, tally)| status(Some(3), &outcome(left, tally), 0));
        assert_eq!(statuses, [0, 1, 2, 1]);
    }
}
