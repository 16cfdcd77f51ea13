//! What the parent knows besides the listing: gathered while that is read, and sent to the reader.

use std::io;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::disk::{self, Filesystem, Mounts};
use super::history;
use super::reading::Counted;
use crate::context::{Context, Source};
use crate::flush::readiness::{self, Readiness};
use crate::listing::reasons::{self, Explained};
use crate::listing::{self, INQUIRY_PATIENCE, Sampling};
use crate::mta::{Facts, Inquiry, Wanted};
use crate::primary::{PrimaryInquiry, PrimaryStatus};
use crate::state::{Basis, Outages, Question, Records, Sample};
use crate::system::Audience;

/// What is known.
#[derive(Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) facts: Facts,
    pub(crate) sampling: Sampling,
    pub(crate) filesystems: Vec<Filesystem>,
    pub(crate) history: Vec<Sample>,
    pub(crate) primary: PrimaryStatus,
    pub(crate) outages: Outages,
    pub(crate) flush: Readiness,
    pub(crate) explained: Explained,
}

/// What is being found out.
pub(super) struct Inquiries {
    /// Until it is answered.
    inquiry: Option<Inquiry>,
    /// What the answer is made from, where it can be remembered.
    basis: Option<Basis>,
    facts: Facts,
    primary: PrimaryInquiry,
    mounts: Mounts,
}

impl Inquiries {
    /// Begins to find out, beside the lister.
    pub(crate) fn begin(context: &Context) -> Inquiries {
        let source = context.source.as_ref().ok();
        let basis = source.and_then(|source| context.basis(&source.mta.settings_files()));
        let remembered = basis.as_ref().and_then(|basis| context.recall(Question::Settings, basis));
        let inquire = |source: &Source| source.mta.inquire(&context.free, Wanted::Everything);
        let inquiry = source.filter(|_| remembered.is_none()).map(inquire);
        let primary = PrimaryInquiry::begin(context);
        readiness::ask_for_rules(context);
        let facts = listing::with_timing(context, remembered.unwrap_or_default());
        Inquiries { inquiry, basis, facts, primary, mounts: Mounts::find(&context.free) }
    }

    /// Version and settings of the mail server, for which this waits at most [`INQUIRY_PATIENCE`], and as long as somebody
    /// is there.
    pub(super) fn facts(&mut self, context: &Context, audience: Audience<'_>) -> &Facts {
        if let Some(inquiry) = self.inquiry.take() {
            let until = audience.until(Instant::now() + INQUIRY_PATIENCE);
            let facts = listing::with_hints(context, inquiry.answer(&context.free, until), until);
            if let Some(basis) = self.basis.as_ref().filter(|_| facts.hold()) {
                context.keep(Question::Settings, basis, &facts);
            }
            self.facts = listing::with_timing(context, facts);
        }
        &self.facts
    }

    /// What was found, with what the reader counted and asks for; without a reader, `None`. Nothing is waited for, or
    /// remembered, for an audience that has left.
    ///
    /// # Errors
    /// Why the audience has left.
    pub(crate) fn known(
        mut self,
        context: &Context,
        counted: Option<&Counted>,
        took: Duration,
        audience: Audience<'_>,
    ) -> io::Result<Known> {
        self.facts(context, audience);
        let Inquiries { facts, primary, mounts, .. } = self;
        let explained =
            counted.map_or_else(Explained::default, |counted| reasons::ask(context, &counted.unexplained, audience));
        let primary = primary.status(context, audience);
        let queue = facts.queue_directory.as_deref();
        let filesystems = disk::filesystems(&context.free, &mounts, queue, &context.config.disk, audience);
        audience.is_there()?;
        let sample = counted.and_then(|counted| counted.sample(context.clock.now, &filesystems));
        let hosts: Vec<&str> = primary.primaries.iter().map(|primary| primary.host.as_str()).collect();
        let waiting = sample.as_ref().map(|sample| sample.messages);
        let on_record = |records: &Records| records.outages(&hosts, context.clock.now).ok();
        let mut outages = context.records.as_ref().ok().and_then(on_record).unwrap_or_default();
        if let Some(messages) = waiting.filter(|messages| outages.count(*messages)) {
            // Where that can't be noted, the next look does it.
            context.remember(|records| _ = records.note_waiting(messages));
        }
        let sampling = Sampling { command: String::new(), started: context.clock.now, took };
        Ok(Known {
            sampling,
            history: sample.map_or_else(Vec::new, |sample| history::add(context.records.as_ref().ok(), sample)),
            flush: Readiness::find(context, &facts),
            facts,
            filesystems,
            outages,
            primary,
            explained,
        })
    }
}

impl Known {
    /// What is known without asking anybody.
    pub(crate) fn unasked(context: &Context) -> Known {
        let facts = Facts::default();
        Known {
            sampling: Sampling { started: context.clock.now, ..Sampling::default() },
            flush: Readiness::find(context, &facts),
            facts,
            filesystems: Vec::new(),
            history: Vec::new(),
            primary: PrimaryStatus::default(),
            outages: Outages::default(),
            explained: Explained::default(),
        }
    }
}
