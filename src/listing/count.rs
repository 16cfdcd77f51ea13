//! A listing that is counted: which messages there are, for a queue run, and how many are left of it.

use std::collections::HashSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::frame::{self, Kind, Nonsense};
use super::reader::{self, Task, Words};
use super::remainder::Remainder;
use super::session::{Broken, Client, Desk};
use super::tally::{self, Evidence, Notebook, Noted};
use super::{Lister, Session};
use crate::context::Context;
use crate::mta::trouble::Trouble;
use crate::queue::{Candidates, Clocks, Lifetimes, Stakes, Target};
use crate::sandbox::Sandbox;
use crate::state::{Flush, Tally, Waited};
use crate::system::Audience;

/// The most ids that are named, in some two MiB.
const IDS_LIMIT: usize = 50_000;

/// What a listing holds of what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count {
    /// Messages.
    pub(crate) messages: u64,
    /// Recipients of these that still wait.
    pub(crate) recipients: u64,
    /// Messages of these that wait for an administrator.
    pub(crate) held: u64,
    /// Messages of these that the mail server says it returns to their senders.
    pub(crate) being_returned: u64,
    /// Messages of these that are being delivered now.
    pub(crate) in_delivery: u64,
    /// Why they wait: `mailbox full (2), connection refused (1)`.
    pub(crate) why: String,
    /// Their queue ids, at most 50,000, where they were asked for.
    pub(crate) ids: Vec<String>,
    /// Of these, those of messages that are held.
    pub(crate) held_ids: Vec<String>,
    /// What is at stake in a run, of the domains that were named.
    pub(crate) stakes: Stakes,
    /// The messages with their recipients, where they were asked for, as far as there is room.
    pub(crate) noted: Vec<Noted>,
    /// What became of those that were noted before, where that was asked for.
    pub(crate) tally: Option<Tally>,
    /// Why the listing is not complete.
    pub(crate) trouble: Option<Trouble>,
}

/// What is asked.
struct Question<'a> {
    target: Option<Target>,
    waited: Waited,
    /// Whether the ids are wanted.
    ids: bool,
    /// The domains of which the stakes are wanted, in lower case, and how long mail is kept.
    domains: &'a [String],
    lifetimes: Lifetimes,
    /// How much room there is for notes, in bytes.
    notes: usize,
    /// By what the outcome of a run is to be judged.
    evidence: Option<Evidence<'a>>,
}

impl Question<'_> {
    /// What a listing holds of a target.
    fn of(target: Option<Target>, waited: Waited) -> Question<'static> {
        Question { target, waited, ids: false, domains: &[], lifetimes: Lifetimes::Unknown, notes: 0, evidence: None }
    }
}

impl Count {
    /// Counts what waits, and names its ids.
    pub(crate) fn of_target(context: &Context, target: &Target) -> Count {
        let question = Question::of(Some(target.clone()), Waited::By(i64::MAX));
        Count::ask(context, Question { ids: true, ..question })
    }

    /// The same, with notes for the judgement on a run, and what is at stake for these domains, where mail is kept for so
    /// long.
    pub(crate) fn with_stakes(context: &Context, target: &Target, domains: &[String], lifetimes: Lifetimes) -> Count {
        let question = Question::of(Some(target.clone()), Waited::By(i64::MAX));
        Count::ask(context, Question { ids: true, domains, lifetimes, notes: tally::ROOM, ..question })
    }

    /// The ids of what a run should deliver: of all but what is held; `None` where not all are known.
    pub(crate) fn ids_not_held(&self) -> Option<Vec<String>> {
        let all_known = self.trouble.is_none() && self.ids.len() as u64 == self.messages;
        let held: HashSet<&String> = self.held_ids.iter().collect();
        all_known.then(|| self.ids.iter().filter(|id| !held.contains(id)).cloned().collect())
    }

    /// Counts what is left of a queue run.
    pub(crate) fn of_flush(context: &Context, flush: &Flush) -> Count {
        Count::ask(context, Question::of(flush.target.parse().ok(), waited(context, flush)))
    }

    /// The same, and what became of the rest.
    pub(crate) fn of_judged(context: &Context, flush: &Flush, evidence: Evidence<'_>) -> Count {
        let question = Question::of(flush.target.parse().ok(), waited(context, flush));
        Count::ask(context, Question { evidence: Some(evidence), ..question })
    }

    fn ask(context: &Context, question: Question<'_>) -> Count {
        let failed = |trouble| Count { trouble: Some(trouble), ..Count::default() };
        let mut lister = match Lister::start(context, Audience::default()) {
            Ok(lister) => lister,
            Err(trouble) => return failed(trouble),
        };
        lister.wait_for_first_bytes(context, None);
        let task = task(context);
        let work = |free, desk: Desk| {
            // Without a parent there is nobody to answer.
            let _ = task.map(|task| count(Sandbox::enter(free, desk.purpose()), desk, &task, question));
        };
        let session = match Session::begin(context, lister, None, work) {
            Ok(session) => session,
            Err(trouble) => return failed(trouble),
        };
        let mut counted = Counted(None);
        match (session.attend(&mut counted), counted.0) {
            (Ok(_), Some(count)) => count,
            (Err(Broken::Reader(trouble)), _) => failed(trouble),
            _ => failed(Trouble::Reader { how: "ended without an answer".into() }),
        }
    }
}

fn waited(context: &Context, flush: &Flush) -> Waited {
    context.records.as_ref().map_or(Waited::By(flush.started), |records| records.waited(flush))
}

/// What the reader of this queue has to know.
pub(crate) fn task(context: &Context) -> Option<Task<'_>> {
    let source = context.source.as_ref().ok()?;
    let config = &context.config;
    Some(Task {
        source,
        clock: &context.clock,
        account: &context.account,
        mask: config.privacy.mask,
        configured: !config.mta.list_command.is_empty(),
        lifetimes: Lifetimes::Unknown,
    })
}

/// The parent: takes the count.
struct Counted(Option<Count>);

impl Client for Counted {
    fn counted(&mut self, bytes: &[u8], _took: Duration) -> Result<Vec<u8>, Broken> {
        if self.0.is_some() {
            return Err(Nonsense.into());
        }
        self.0 = Some(serde_json::from_slice(bytes).map_err(|_| Nonsense)?);
        Ok(Vec::new())
    }
}

/// The reader: counts.
fn count(sandbox: Sandbox, desk: Desk, task: &Task<'_>, question: Question<'_>) -> std::io::Result<()> {
    let clocks = Clocks { now: task.clock.now, lifetimes: question.lifetimes };
    let mut candidates = Candidates::of(question.domains, clocks);
    // A primary is asked for whole addresses; what is shown of its answers is masked then.
    let Task { source, clock, account, configured, mask, .. } = *task;
    let task = &Task { source, clock, account, configured, mask: None, lifetimes: Lifetimes::Unknown };
    let mut remainder = Remainder::of(question.target, question.waited);
    let (mut ids, mut held_ids) = (Vec::new(), Vec::new());
    let mut notebook = Notebook::new(question.notes);
    let mut log = question.evidence.and_then(|evidence| evidence.read(source.mta.kind()));
    let read = reader::read(&sandbox, task, desk.parts, &mut Words::default(), &mut |message| {
        let masked = mask.map(|mask| mask.hide(message));
        if !remainder.add(masked.as_ref().unwrap_or(message)) {
            return;
        }
        candidates.add(message);
        notebook.add(message);
        log.iter_mut().for_each(|log| log.waits(message));
        if question.ids && ids.len() < IDS_LIMIT {
            ids.push(message.id.clone().into_owned());
            held_ids.extend(message.is_on_hold().then(|| message.id.clone().into_owned()));
        }
    })?;
    let count = Count {
        messages: remainder.messages,
        recipients: remainder.recipients,
        held: remainder.held,
        being_returned: remainder.being_returned,
        in_delivery: remainder.in_delivery,
        why: remainder.why(),
        ids,
        held_ids,
        stakes: candidates.into_stakes(),
        noted: notebook.noted,
        tally: log.zip(question.evidence).map(|(log, evidence)| tally::tally(&log, evidence.noted, mask)),
        trouble: read.trouble,
    };
    frame::send_json(Kind::Counted, &count)?;
    frame::send_json(Kind::Done, &())
}
