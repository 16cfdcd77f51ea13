//! The reader: reads the listing in the sandbox, and writes the answer.

use std::io;

use serde::{Deserialize, Serialize};

use super::disk::Filesystem;
use super::known::Known;
use super::{Form, Note, Report};
use crate::config::Config;
use crate::context::{Context, Source};
use crate::flush::outcome::{Followed, Seen};
use crate::listing::Listing;
use crate::listing::frame::{self, Kind};
use crate::listing::reader::{self, Task, Words};
use crate::listing::session::Desk;
use crate::mta::Clock;
use crate::mta::trouble::Trouble;
use crate::queue::{Clocks, Message, Selection, Summary};
use crate::request::{Asked, Format};
use crate::sandbox::Sandbox;
use crate::state::Sample;
use crate::system::{Account, Body, Free, log};

/// What the parent learns of a listing: numbers, and ids.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Counted {
    /// Why it is not the whole queue; `None` if it is.
    pub(crate) trouble: Option<Trouble>,
    pub(crate) messages: u64,
    pub(crate) held: u64,
    recipients: u64,
    bytes: Option<u64>,
    /// The messages whose reasons are to be asked for.
    pub(crate) unexplained: Vec<String>,
}

impl Counted {
    /// What there is to remember of now; nothing of a listing that is not whole.
    pub(crate) fn sample(&self, now: i64, filesystems: &[Filesystem]) -> Option<Sample> {
        self.trouble.is_none().then(|| Sample {
            taken: now,
            messages: self.messages,
            recipients: self.recipients,
            bytes: self.bytes,
            free: filesystems.iter().find(|filesystem| filesystem.queue).and_then(|of| of.usage.bytes_available),
        })
    }
}

/// What the reader knows from the beginning. There is nothing in it to open, start or connect with.
pub(super) struct Reading<'a> {
    pub(crate) config: &'a Config,
    pub(crate) account: &'a Account,
    pub(crate) clock: &'a Clock,
    pub(crate) host: &'a str,
    pub(crate) asked: &'a Asked,
}

impl<'a> Reading<'a> {
    pub(crate) fn of(context: &'a Context, asked: &'a Asked) -> Reading<'a> {
        let Context { config, account, clock, host, .. } = context;
        Reading { config, account, clock, host, asked }
    }

    /// A report over a listing.
    pub(crate) fn report(&self, listing: Listing, known: Known) -> Report {
        let Known { filesystems, history, primary, outages, flush, explained, .. } = known;
        Report {
            host: self.host.to_owned(),
            label: self.config.mta.label.clone(),
            zone: self.clock.zone.clone(),
            user: self.account.name.clone(),
            gap: None,
            selection: None,
            note: None,
            unexplained: explained.trouble,
            followed: None,
            unrecorded: None,
            filesystems,
            history,
            primary,
            outages,
            flush,
            listing,
        }
    }
}

/// Reads, and answers on standard output.
pub(super) fn work(
    free: Free,
    desk: Desk,
    reading: &Reading<'_>,
    task: &Task<'_>,
    followed: Option<Followed>,
    form: &mut dyn Form,
) {
    let sandbox = Sandbox::enter(free, desk.purpose());
    // Where the parent has gone there is nobody to answer.
    let _ = read_and_answer(&sandbox, desk, reading, task, followed, form);
}

fn read_and_answer(
    sandbox: &Sandbox,
    desk: Desk,
    reading: &Reading<'_>,
    task: &Task<'_>,
    mut followed: Option<Followed>,
    form: &mut dyn Form,
) -> io::Result<()> {
    let Reading { asked, clock, .. } = reading;
    let now = clock.now;
    let clocks = Clocks { now, lifetimes: task.lifetimes.clone() };
    let mut body = Body::new(frame::send_body);
    let mut words = Words::default();
    let mut selection = asked
        .window
        .map(|window| Selection::new(asked.filter.clone(), asked.order, window, clocks.clone(), desk.overflow));
    if asked.format == Format::Html {
        // The page is made in memory.
        selection = selection.map(Selection::abridged);
    }
    form.begin(&clocks, &mut body)?;
    let mut written = Ok(());
    let outcome = reader::read(sandbox, task, desk.parts, &mut words, &mut |message| {
        followed.iter_mut().for_each(|followed| followed.add(message));
        match &mut selection {
            Some(selection) => selection.offer(message),
            None if written.is_ok() && asked.filter.matches(message, &clocks) => {
                written = form.message(message, &mut body).and_then(|()| body.seal());
            }
            None => {}
        }
    })?;
    written?;
    let reader::Outcome { mut trouble, summary, command } = outcome;
    let complete = trouble.is_none();
    let matched = selection.as_ref().map_or(0, Selection::matched);
    let mut rows = selection.map_or(Ok(Vec::new()), Selection::into_rows).unwrap_or_else(|why| {
        trouble.get_or_insert(Trouble::NoPage { why });
        Vec::new()
    });
    if let Some(trouble) = &trouble {
        log(&trouble.to_string());
    }
    let unexplained = unexplained(task.source, &rows.iter().map(|row| &row.message).collect::<Vec<_>>());
    frame::send_json(Kind::Counted, &counted(trouble.as_ref(), &summary, unexplained))?;
    let mut known: Known = words.next()?;
    known.explained.fill_in(task.source, clock, &mut rows);
    known.sampling.command = command;
    let listing = Listing {
        trouble,
        summary,
        kind: Some(task.source.mta.kind()),
        facts: std::mem::take(&mut known.facts),
        sampling: known.sampling.clone(),
    };
    let report = Report {
        gap: sandbox.gap().map(str::to_owned),
        selection: asked.window.map(|window| (window, matched)),
        note: note(task, asked).filter(|note| *note != Note::Streamed || listing.summary.messages > 0),
        unrecorded: asked.flushed.filter(|_| followed.is_none()),
        followed: followed.map(|followed| followed.outcome(now, if complete { Seen::All } else { Seen::Part })),
        ..reading.report(listing, known)
    };
    for row in &rows {
        form.message(&row.message, &mut body)?;
        body.seal()?;
    }
    form.end(&report, &rows, &mut body)?;
    body.finish()?;
    frame::send_json(Kind::Done, &form.verdict(&report))
}

fn counted(trouble: Option<&Trouble>, summary: &Summary, unexplained: Vec<String>) -> Counted {
    Counted {
        trouble: trouble.cloned(),
        messages: summary.messages,
        held: summary.on_hold,
        recipients: summary.recipients,
        bytes: summary.bytes(),
        unexplained,
    }
}

/// Whether the mail server can be asked for reasons that its listing does not hold.
fn explains(source: &Source) -> bool {
    source.mta.reason_command(source.mta.sample_id()).is_some()
}

/// The ids of messages whose reasons are to be asked for.
fn unexplained(source: &Source, messages: &[&Message<'_>]) -> Vec<String> {
    if explains(source) { messages.iter().map(|message| message.id.to_string()).collect() } else { Vec::new() }
}

fn note(task: &Task<'_>, asked: &Asked) -> Option<Note> {
    let no_reasons = explains(task.source);
    match () {
        () if no_reasons && asked.filter.reads_reasons() => Some(Note::Blind),
        () if no_reasons && task.configured => Some(Note::NoReasons),
        () if no_reasons && asked.window.is_none() => Some(Note::Streamed),
        () => None,
    }
}
