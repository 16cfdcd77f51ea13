//! Who asks the primaries, and how often: what was seen is shared by all who come within some seconds, and one asks at a
//! time.
//!
//! The one who asks is a process beside the listing, and has another one under it, in the sandbox, that connects. It
//! holds the lock of what was seen ([`Sighting`]), writes there what they said, and notes each change. So a request that
//! ends early, or takes long, holds up nobody who waits for the same answer.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Comeback, Condition, DNS_PATIENCE, PROBE_PATIENCE, Primary, PrimaryStatus, Questions};
use crate::context::Context;
use crate::mta;
use crate::sandbox::worker::Worker;
use crate::sandbox::{Purpose, Sandbox};
use crate::state::{Before, Records, SeenBy, Sighting};
use crate::system::process;
use crate::system::{Audience, Free};

/// For how long what was seen is good for every view, in seconds: EHLO and QUIT are logged there, too, and some count them.
const GOOD_FOR: i64 = 60;

/// For how long it is good where nothing newer can be had in time, in seconds.
const LAST_RESORT: i64 = 120;

/// How long the primaries may take.
const PATIENCE: Duration =
    Duration::from_millis(DNS_PATIENCE.as_millis() as u64 * 2 + PROBE_PATIENCE.as_millis() as u64);

/// How long who asks may take: the same, and a while to write it down.
const WITH_NOTES: Duration = Duration::from_millis(PATIENCE.as_millis() as u64 + 1000);

/// How long a process waits until it looks again whether another one has asked.
const AGAIN: Duration = Duration::from_millis(20);

/// What was seen, and by whose configuration.
#[derive(Serialize, Deserialize)]
struct Seen {
    key: u64,
    status: PrimaryStatus,
}

/// An inquiry under way: what other servers say is strangers' words, too.
pub(crate) struct PrimaryInquiry(Stage);

enum Stage {
    /// There is nothing to ask, or it was asked a moment ago.
    Known(PrimaryStatus),
    /// A process of ours asks.
    Asking(Worker<Option<PrimaryStatus>>),
    /// Another request asks.
    Awaited { until: Instant },
}

impl PrimaryInquiry {
    /// Begins to ask, beside the listing.
    pub fn begin(context: &Context) -> PrimaryInquiry {
        let config = &context.config.primary;
        let relaying = || context.source.as_ref().ok().and_then(|source| source.mta.relaying());
        if config.hosts.is_empty() && config.domains.is_empty() && relaying().is_none() {
            return PrimaryInquiry(Stage::Known(PrimaryStatus::default()));
        }
        PrimaryInquiry(match sighting(context) {
            None => ask(context, None),
            Some(sighting) => {
                let recent = recent(context, &sighting, good_for(context));
                let asking = |sighting| ask_if_first(context, sighting);
                let awaited = || Stage::Awaited { until: Instant::now() + WITH_NOTES };
                recent.map(Stage::Known).or_else(|| asking(sighting)).unwrap_or_else(awaited)
            }
        })
    }

    /// What was found, each with the time since when it is so; it is waited for as long as somebody is there.
    pub fn status(self, context: &Context, audience: Audience<'_>) -> PrimaryStatus {
        let found = match self.0 {
            Stage::Known(status) => Some(status),
            Stage::Asking(worker) => answer(worker, audience),
            Stage::Awaited { until } => wait(context, until, audience),
        };
        let last = || recent(context, &sighting(context)?, LAST_RESORT);
        let mut status = found.or_else(last).unwrap_or_default();
        // Not part of what is shared: it is over as soon as the queue is run.
        let is_up = |primary: &&mut Primary| primary.state == Condition::Up && primary.comeback == Comeback::Unseen;
        for primary in status.primaries.iter_mut().filter(is_up) {
            if context.records.as_ref().is_ok_and(|records| records.is_back(&[&primary.host]) == Ok(true)) {
                primary.comeback = Comeback::Seen;
            }
        }
        status
    }
}

fn sighting(context: &Context) -> Option<Sighting> {
    context.records.as_ref().ok().and_then(Records::sighting)
}

/// For how long what was seen is good, in seconds. `doctor` is asked to look at how it is now, and `watch` acts on it.
fn good_for(context: &Context) -> i64 {
    match context.seen_by {
        SeenBy::Doctor | SeenBy::Watch => 0,
        SeenBy::Page | SeenBy::List | SeenBy::Metrics | SeenBy::Check | SeenBy::Flush => GOOD_FOR,
    }
}

/// What was seen less than so many seconds ago. What seems to be of the future was seen before the clock was set back.
fn recent(context: &Context, sighting: &Sighting, seconds: i64) -> Option<PrimaryStatus> {
    let seen: Seen = serde_json::from_slice(&sighting.read()?).ok()?;
    let age = Timestamp::now().as_second().checked_sub(seen.status.seen?)?;
    (seen.key == key(context) && (0..seconds).contains(&age)).then_some(seen.status)
}

/// What the answer depends on.
fn key(context: &Context) -> u64 {
    let mut hasher = DefaultHasher::new();
    let config = &context.config.primary;
    let kind = context.source.as_ref().ok().map(|source| source.mta.kind().name());
    (&config.hosts, &config.domains, kind, &context.host).hash(&mut hasher);
    hasher.finish()
}

/// Asks, unless somebody else does.
fn ask_if_first(context: &Context, sighting: Sighting) -> Option<Stage> {
    if !sighting.try_lock() {
        return None;
    }
    // Who had the lock a moment ago has just written it down.
    let recent = recent(context, &sighting, good_for(context));
    Some(recent.map_or_else(|| ask(context, Some(sighting.into())), Stage::Known))
}

/// Waits for who asks, and asks where that comes to nothing.
fn wait(context: &Context, until: Instant, audience: Audience<'_>) -> Option<PrimaryStatus> {
    let mut stage = None;
    while stage.is_none() && Instant::now() < until {
        audience.wait(AGAIN).ok()?;
        stage = ask_if_first(context, sighting(context)?);
    }
    match stage? {
        Stage::Known(status) => Some(status),
        Stage::Asking(worker) => answer(worker, audience),
        Stage::Awaited { .. } => None,
    }
}

fn answer(worker: Worker<Option<PrimaryStatus>>, audience: Audience<'_>) -> Option<PrimaryStatus> {
    worker.answer_for(audience).ok().flatten()
}

/// Starts the one who asks; `locked` is what was seen, where that can be written down.
fn ask(context: &Context, locked: Option<OwnedFd>) -> Stage {
    let remembers = locked.is_some();
    let asking = |free: Free| {
        let seen = Timestamp::now().as_second();
        let status = Worker::begin(&free, PATIENCE, |free| connect(context, free)).and_then(Worker::answer).ok()?;
        let status = PrimaryStatus { seen: Some(seen), ..status };
        if !remembers {
            return Some(status);
        }
        let (status, back) = noted(context, &free, status);
        let seen = Seen { key: key(context), status };
        let copy = io::stdin().as_fd().try_clone_to_owned();
        if let (Ok(file), Ok(bytes)) = (copy, serde_json::to_vec(&seen)) {
            // Where there is no room for it, the next one asks again.
            let _ = Sighting::of(file).write(&bytes);
        }
        let mut status = seen.status;
        let returned = |primary: &&mut Primary| back.contains(&primary.host);
        status.primaries.iter_mut().filter(returned).for_each(|primary| primary.comeback = Comeback::Seen);
        Some(status)
    };
    let asking = Worker::begin_with(&context.free, locked, WITH_NOTES, asking);
    asking.map_or_else(|_| Stage::Known(PrimaryStatus::default()), Stage::Asking)
}

/// In the sandbox: asks name servers and primaries.
fn connect(context: &Context, free: Free) -> PrimaryStatus {
    let relaying = context.source.as_ref().ok().and_then(|source| mta::relay_inquiry(&*source.mta));
    let questions = Questions::gather(&free, context.config.primary.clone(), relaying, &context.host);
    let sandbox = Sandbox::enter(free, Purpose::Asking);
    PrimaryStatus { gap: sandbox.gap().map(str::to_owned), ..questions.ask() }
}

/// Takes note of each change, fills in since when each is so, and says which have come back. In a copy of a process,
/// whose own records are closed.
fn noted(context: &Context, free: &Free, mut status: PrimaryStatus) -> (PrimaryStatus, Vec<String>) {
    let open = || Records::open(context.config.state.directory.as_deref(), &context.account);
    // It was so when they were asked: a change that is noted a second later would seem to follow that look.
    let now = status.seen.unwrap_or_else(|| Timestamp::now().as_second());
    let found: Vec<_> = status.primaries.iter().map(|primary| (primary.host.as_str(), primary.state)).collect();
    let Ok(records) = open() else { return (status, Vec::new()) };
    let Ok(before) = records.primaries_before(&found, now) else { return (status, Vec::new()) };
    // Where a change can't be noted, each look would see it again.
    let news = records.room().ok().map(|()| now);
    if before.iter().any(|before| !matches!(before, Before::Same(_))) {
        // Where that fails, the next look sees the same change.
        let note = || _ = open().map(|records| records.note_primaries(&found, now, context.seen_by));
        match context.seen_by {
            // Who looks at a page does not wait for the disk.
            SeenBy::Page => _ = process::branch_off(free, |_| note()),
            _ => note(),
        }
    }
    let mut back = Vec::new();
    for (primary, before) in status.primaries.iter_mut().zip(before) {
        primary.since = if let Before::Same(since) = before { since } else { news };
        if (before, primary.state) == (Before::Other, Condition::Up) {
            back.push(primary.host.clone());
        }
    }
    (status, back)
}
