//! A listing that is counted by a process of its own, for who starts programs afterwards: a flush needs to know
//! which messages there are, and no more.

use std::ffi::OsString;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::flush::outcome::Remainder;
use crate::listing;
use crate::mta::Wanted;
use crate::mta::trouble::Trouble;
use crate::request::Target;
use crate::sandbox::Cage;
use crate::sandbox::worker;
use crate::state::{Flush, Waited};

/// The word that makes this program count.
pub const WORKER: &str = "run-survey";

/// The most ids that are told, in some two MiB.
const IDS_LIMIT: usize = 50_000;

/// How long the counting may take besides the listing.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a listing holds of what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// Messages.
    pub messages: u64,
    /// Recipients of these that still wait.
    pub recipients: u64,
    /// Messages of these that are held.
    pub held: u64,
    /// Messages of these that are being delivered now.
    pub in_delivery: u64,
    /// Why they wait: `mailbox full (2), connection refused (1)`.
    pub why: String,
    /// Their queue ids, at most 50,000, where they were asked for.
    pub ids: Vec<String>,
    /// Why the listing is not complete.
    pub trouble: Option<Trouble>,
}

impl Survey {
    /// Counts what waits, and tells its ids.
    pub fn of_target(context: &Context, target: &Target) -> Survey {
        Survey::ask(context, &[&target.to_string()])
    }

    /// Counts what is left of a flush.
    pub fn of_flush(context: &Context, flush: &Flush) -> Survey {
        Survey::ask(context, &[&flush.target, &flush.number.to_string(), &flush.started.to_string()])
    }

    fn ask(context: &Context, words: &[&str]) -> Survey {
        let patience = context.config.mta.deadline + PATIENCE;
        let survey = worker::again(&context.config, WORKER, words).and_then(|argv| worker::ask(&argv, patience));
        survey.unwrap_or_else(|trouble| Survey { trouble: Some(trouble), ..Survey::default() })
    }
}

/// The process that counts. Its words are the configuration's file, the target, and, for a flush, its number and when
/// it was started.
pub fn work(words: &[OsString]) {
    let Ok((config, words)) = worker::told(words) else { return };
    let words: Vec<_> = words.iter().filter_map(|word| word.to_str()).collect();
    let context = Context::gather(config);
    let (target, waited) = match words.as_slice() {
        [target] => (target, Waited::By(i64::MAX)),
        [target, number, started] => (target, waited(&context, number, started)),
        _ => return,
    };
    let with_ids = words.len() == 1;
    let mut remainder = Remainder::of(target, waited);
    let mut ids = Vec::new();
    let begun = listing::begin_wanting(&context, None, Wanted::Nothing).at_first_byte();
    let listing = begun.read(&Cage::enter(None), &mut |message| {
        if remainder.add(message) && with_ids && ids.len() < IDS_LIMIT {
            ids.push(message.id.clone().into_owned());
        }
    });
    worker::answer(&Survey {
        messages: remainder.messages,
        recipients: remainder.recipients,
        held: remainder.held,
        in_delivery: remainder.in_delivery,
        why: remainder.why(),
        ids,
        trouble: listing.trouble,
    });
}

fn waited(context: &Context, number: &str, started: &str) -> Waited {
    let recorded = || {
        let records = context.records.as_ref().ok()?;
        Some(records.waited(&records.flush(number.parse().ok()?).ok()??))
    };
    recorded().unwrap_or(Waited::By(started.parse().unwrap_or(i64::MAX)))
}
