//! Whether and when the queue can be run, found out without changing anything.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::MOST_MESSAGES;
use crate::context::Context;
use crate::mta::as_root::Request;
use crate::mta::trouble::Trouble;
use crate::mta::{Facts, Part};
use crate::state::{Flush, Records, StateError};
use crate::system::process::Argv;

/// Which held messages a run delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// A run of the whole queue delivers them.
    pub all: bool,
    /// It would, and so it is a run of all the others, one by one.
    pub one_by_one: bool,
    /// A run of one message delivers it, even if it is held.
    pub message: bool,
}

/// Whether and when the queue can be run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether this user can run the queue, or what is in the way.
    pub possible: Result<(), Trouble>,
    /// Whether a part of it can be run. It can't by a configured command, which runs the whole queue, or where a rule
    /// allows only the whole.
    pub parts: bool,
    /// Which held messages a run delivers.
    pub held: Held,
    /// The commands that belong to a run of the whole queue and are not allowed, where the others are.
    pub left_out: Vec<String>,
    /// How an administrator releases held messages.
    pub release: Cow<'static, str>,
    /// Seconds until the cool-down is over.
    pub wait_seconds: u64,
    /// Whether a flush is under way.
    pub under_way: bool,
    /// The last flushes on record, the latest first.
    pub log: Vec<Flush>,
    /// Why there is neither cool-down nor log, where they are off.
    pub unguarded: Option<StateError>,
    /// A damaged log that was set aside.
    pub set_aside: Option<PathBuf>,
}

/// How many flushes the page and JSON show.
const LOG_SHOWN: u32 = 10;

impl Readiness {
    /// The last flush.
    pub(crate) fn last(&self) -> Option<&Flush> {
        self.log.first()
    }

    /// Whether the queue can be run right now.
    pub(crate) fn is_offered(&self) -> bool {
        self.possible.is_ok() && !self.under_way && self.wait_seconds == 0
    }

    /// Finds out without changing anything.
    pub(crate) fn find(context: &Context, facts: &Facts) -> Readiness {
        let records = context.records.as_ref();
        let log = records.map_or_else(|reason| Err(reason.clone()), |records| records.flushes(LOG_SHOWN));
        let room = records.map_or(Ok(()), Records::room);
        let last = log.as_ref().ok().and_then(|log| log.first());
        let configured = !context.config.mta.flush_command.is_empty();
        let whole = commands(context, facts, &Part::All);
        let sample = context.source.as_ref().map_or("", |source| source.mta.sample_id());
        let one = commands(context, facts, &Part::Message(sample));
        let delivers_all = delivers_held(context, &Part::All, whole.as_deref().unwrap_or_default());
        let one_by_one = leaves_held(context, facts, 1);
        let held = Held {
            all: delivers_all && !one_by_one,
            one_by_one,
            message: delivers_held(context, &Part::Message(sample), one.as_deref().unwrap_or_default()),
        };
        let possible = whole.map(|_| ());
        Readiness {
            release: Cow::Borrowed(context.source.as_ref().map_or("", |source| source.mta.release())),
            parts: possible.is_ok() && !configured && one.is_ok(),
            left_out: if possible.is_ok() { left_out(context, facts) } else { Vec::new() },
            held,
            possible,
            wait_seconds: wait_seconds(context, last, context.clock.now),
            under_way: records.is_ok_and(Records::is_taken),
            unguarded: log.as_ref().err().cloned().or(room.err()),
            set_aside: records.ok().and_then(Records::set_aside),
            log: log.unwrap_or_default(),
        }
    }
}

/// Asks sudo or doas what rules let this user run, where a file with rules is there, so that the answers are known when
/// they are needed.
pub(crate) fn ask_for_rules(context: &Context) {
    if context.config.mta.flush_command.is_empty() && context.by_the_one_rule(&Request::List {}).is_none() {
        let _ = rule(context, &Part::All);
    }
}

/// The words before the mail server's own command, where a rule for that runs it as root.
fn rule(context: &Context, part: &Part<'_>) -> Option<Argv> {
    let source = context.source.as_ref().ok()?;
    context.by_its_own_rule(source.mta.flush_commands(part).first()?)
}

/// Seconds left of the cool-down. A flush that seems to come from the future (the clock was set back)
/// holds nobody up.
pub(super) fn wait_seconds(context: &Context, last: Option<&Flush>, now: i64) -> u64 {
    remaining(context.config.flush.cooldown, last.map(|last| now - last.started))
}

fn remaining(cooldown: Duration, since: Option<i64>) -> u64 {
    let since = since.and_then(|since| u64::try_from(since).ok());
    since.map_or(0, |since| cooldown.as_secs().saturating_sub(since))
}

/// Whether these commands deliver held messages of that part, too. A mail server may do that for its administrators
/// alone (Exim): as its own command, without a rule or a configuration that puts something before it, only root is one.
pub(super) fn delivers_held(context: &Context, part: &Part<'_>, commands: &[Argv]) -> bool {
    let Ok(source) = &context.source else { return false };
    let is_own = commands.first() == source.mta.flush_commands(part).first();
    source.mta.flushes_held(part) && (context.account.is_root() || !is_own)
}

/// Whether a run of the whole queue is one of so many messages that are not held, one by one, so that what is held stays
/// where it is.
pub(super) fn leaves_held(context: &Context, facts: &Facts, others: u64) -> bool {
    let Ok(source) = &context.source else { return false };
    let is_own = context.config.mta.flush_command.is_empty();
    let would_deliver = is_own && others <= MOST_MESSAGES as u64 && source.mta.flushes_held(&Part::All);
    would_deliver && commands(context, facts, &Part::Message(source.mta.sample_id())).is_ok()
}

/// The commands by which this user can run a part of the queue: the configured one, that of the one rule for root, the
/// mail server's own, or those under sudo or doas where a rule for just that allows it.
pub(super) fn commands(context: &Context, facts: &Facts, part: &Part<'_>) -> Result<Vec<Argv>, Trouble> {
    let source = context.source.as_ref().map_err(Trouble::clone)?;
    if let Some(configured) = Argv::from_words(&context.config.mta.flush_command) {
        let error =
            || Trouble::NotStarted { command: configured.to_string(), error: "there is no such program".into() };
        return if configured.is_there() { Ok(vec![configured]) } else { Err(error()) };
    }
    if let Some(command) = context.by_the_one_rule(&Request::Run { target: part.target() }) {
        return Ok(vec![command]);
    }
    let own = source.mta.flush_commands(part);
    let Some(obstacle) = source.mta.flush_obstacle(facts, &context.account) else { return Ok(own) };
    let Some(prefix) = rule(context, part) else { return Err(obstacle) };
    if own.len() > FEW {
        return Ok(own.iter().map(|command| prefix.clone().and(command)).collect());
    }
    let allowed = |command: &Argv| context.by_its_own_rule(command).map(|prefix| prefix.and(command));
    Ok(own.iter().filter_map(allowed).collect())
}

/// Up to so many commands are each looked for among the rules; more are all alike.
const FEW: usize = 2;

/// The mail server's own commands to run the whole queue that this user may not run, while others do.
fn left_out(context: &Context, facts: &Facts) -> Vec<String> {
    let Ok(source) = &context.source else { return Vec::new() };
    let by_rules_of_their_own = context.config.mta.flush_command.is_empty()
        && source.mta.flush_obstacle(facts, &context.account).is_some()
        && context.by_the_one_rule(&Request::List {}).is_none();
    let own = source.mta.flush_commands(&Part::All).into_iter().filter(|_| by_rules_of_their_own);
    own.filter(|command| context.by_its_own_rule(command).is_none()).map(|command| command.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cool_down_ends_and_a_clock_that_was_set_back_does_not_prolong_it() {
        let cooldown = Duration::from_secs(30);
        assert_eq!(remaining(cooldown, None), 0);
        assert_eq!(remaining(cooldown, Some(0)), 30);
        assert_eq!(remaining(cooldown, Some(29)), 1);
        assert_eq!(remaining(cooldown, Some(30)), 0);
        assert_eq!(remaining(cooldown, Some(-1000)), 0);
        assert_eq!(remaining(Duration::ZERO, Some(0)), 0);
    }
}
