//! Gives each event to the command of `[notify]`, on its standard input. Nothing that it does, or does not, stops a watch.

use std::time::{Duration, Instant};

use super::events::{Announced, Scene, Seen, news};
use crate::context::Context;
use crate::state::{Notice, Records, StateError, TRIES};
use crate::system::log;
use crate::system::process::{self, Argv, Ending, Exit, NotStarted};
use crate::text::printable;

/// How long the command may take. Then it is asked to end, and is killed if it does not.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many outages and runs on record are looked at.
const LOOKED_AT: u32 = 20;

/// Announces what is new, and gives what is to be given.
pub(super) fn announce(context: &Context, records: &Records, seen: Seen) {
    let done = match Argv::from_words(&context.config.notify.command) {
        None => records.forget_announced(),
        Some(command) => give_all(context, records, seen, &command),
    };
    if let Err(error) = done {
        log(&format!("{error}; so events may be announced late, or twice"));
    }
}

fn give_all(context: &Context, records: &Records, seen: Seen, command: &Argv) -> Result<(), StateError> {
    // Another watch does it.
    let Some(_turn) = records.notices_turn() else { return Ok(()) };
    let now = jiff::Timestamp::now().as_second();
    let seen = Seen { outages: records.recent_outages(LOOKED_AT)?, runs: records.flushes(LOOKED_AT)?, ..seen };
    let before: Option<Announced> = records.announced()?;
    let scene = Scene { host: &context.host, now, zone: &context.clock.zone };
    let (after, events) = news(before.clone(), &seen, &scene);
    if before.as_ref() != Some(&after) || !events.is_empty() {
        records.announce(&after, &events, now)?;
    }
    for notice in records.notices()? {
        // What is late is late for all that follow: they are given at the next look, and nothing is counted against them.
        if give(context, records, command, &notice)? == Ending::Deadline {
            break;
        }
    }
    Ok(())
}

/// Gives one notice, and takes note of that.
fn give(context: &Context, records: &Records, command: &Argv, notice: &Notice) -> Result<Ending, StateError> {
    let running = process::start(&context.free, &command.clone().with_input(notice.event.clone()));
    let exit = running.map(|running| running.collect(Instant::now() + PATIENCE).0);
    if exit.as_ref().is_ok_and(Exit::success) {
        return records.drop_notice(notice.number).map(|()| Ending::Exited);
    }
    let (ending, how) = match exit {
        Ok(exit) if exit.ending != Ending::Exited => {
            (Ending::Deadline, format!("it did not end within {} s, and was stopped", PATIENCE.as_secs()))
        }
        Ok(exit) => (Ending::Exited, format!("it {}", exit.describe())),
        Err(NotStarted { error, .. }) => (Ending::Exited, format!("{command} could not be started: {error}")),
    };
    let tries = notice.tries + 1;
    let next = if tries < TRIES { "it is tried again at the next look" } else { "that was the last try" };
    log(&format!("the command of [notify] has not taken {}: {how}; {next}", printable(name(&notice.event))));
    if tries < TRIES {
        records.count_try(notice.number)?
    } else {
        records.drop_notice(notice.number)?
    }
    Ok(ending)
}

/// The name of an event.
fn name(event: &str) -> &str {
    let behind = |key: &str| event.split_once(key)?.1.split_once('"');
    behind("\"event\":\"").map_or("an event", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_called_by_its_name() {
        assert_eq!(name("{\"at\":\"x\",\"event\":\"primary_down\",\"host\":\"y\"}"), "primary_down");
        assert_eq!(name("soup"), "an event");
    }
}
