//! OpenMetrics 1.0 for Prometheus and its like, also what Prometheus' older text format reads: gauges alone.
//!
//! Every state is there even at zero. A listing that failed gives `bartleby_up 0` and no figure of the queue, so
//! that nothing can be taken for an empty one.

use std::fmt::Display;
use std::io::{self, Write};

use crate::mta::Kind;
use crate::queue::{Destination, Row, State};
use crate::report::{Form, Report, Verdict};
use crate::system::Body;
use crate::text::printable;
use crate::view::sentences::of_listing;

/// Destinations that are told one by one; the rest are "other".
const TOP: usize = 100;

/// Writes metrics; nothing of a single message.
pub struct OpenMetrics;

/// The families on their way.
struct Families<'b, 'a>(&'b mut Body<'a>);

impl Families<'_, '_> {
    /// One family: its samples with their labels; none where there are no samples.
    fn gauge<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'static str, String)>, V)>,
    ) -> io::Result<()> {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        writeln!(self.0, "# HELP bartleby_{name} {help}\n# TYPE bartleby_{name} gauge")?;
        for (labels, value) in samples {
            let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            writeln!(self.0, "bartleby_{name}{labels} {value}")?;
        }
        Ok(())
    }

    fn queue(&mut self, report: &Report) -> io::Result<()> {
        let summary = &report.listing.summary;
        let by_state = |value: fn(&crate::queue::Summary, State) -> u64| {
            State::ALL.map(|state| (vec![("state", state.as_str().to_owned())], value(summary, state)))
        };
        self.gauge("queue_messages", "Messages in the mail queue.", by_state(crate::queue::Summary::state))?;
        let help = "Recipients of these that wait.";
        self.gauge("queue_recipients", help, by_state(crate::queue::Summary::recipients_in))?;
        self.gauge("queue_size_bytes", "Size of all messages.", summary.bytes().map(|bytes| (vec![], bytes)))?;
        let age = summary.oldest.map_or(0, |oldest| report.age(oldest));
        self.gauge("queue_oldest_age_seconds", "Age of the oldest message.", [(vec![], age)])?;
        let destinations = summary.destinations(TOP);
        let by_destination = |value: fn(&Destination) -> u64| {
            destinations.iter().map(move |of| (vec![("destination", label(of))], value(of))).collect::<Vec<_>>()
        };
        let help = "Messages with a recipient there.";
        self.gauge("destination_messages", help, by_destination(|of| of.messages))?;
        self.gauge("destination_recipients", "Recipients there that wait.", by_destination(|of| of.recipients))
    }

    fn machine(&mut self, report: &Report) -> io::Result<()> {
        let filesystems = &report.filesystems;
        let of_each = |value: fn(&crate::report::disk::Usage) -> Option<u64>| {
            let labels = |filesystem: &crate::report::disk::Filesystem| {
                vec![("mount", filesystem.mount.clone()), ("queue", filesystem.queue.to_string())]
            };
            filesystems.iter().filter_map(move |of| Some((labels(of), value(&of.usage)?))).collect::<Vec<_>>()
        };
        self.gauge("filesystem_size_bytes", "Size of the filesystem.", of_each(|usage| usage.bytes))?;
        self.gauge("filesystem_available_bytes", "What users may still fill.", of_each(|usage| usage.bytes_available))?;
        self.gauge("filesystem_inodes", "Inodes of the filesystem.", of_each(|usage| usage.inodes))?;
        self.gauge("filesystem_inodes_available", "Inodes that are free.", of_each(|usage| usage.inodes_available))?;
        let primaries = report.primary.primaries.iter();
        let up = primaries.filter_map(|of| Some((vec![("host", of.host.clone())], u8::from(of.is_up()?))));
        self.gauge("primary_up", "Whether the primary takes mail.", up)?;
        let last = report.flush.last();
        let started = last.map(|flush| (vec![], flush.started));
        self.gauge("last_flush_timestamp_seconds", "When the queue was last run from here.", started)?;
        let waited = last.and_then(|flush| flush.messages).map(|messages| (vec![], messages));
        self.gauge("last_flush_messages", "Messages that waited then.", waited)?;
        let left = last.and_then(|flush| flush.outcome.as_ref()).map(|outcome| (vec![], outcome.messages_left));
        self.gauge("last_flush_messages_left", "Messages of these that were seen waiting after it.", left)
    }
}

impl Form for OpenMetrics {
    fn verdict(&self, report: &Report) -> Verdict {
        of_listing(report)
    }

    fn end(&mut self, report: &Report, _rows: &[Row], to: &mut Body<'_>) -> io::Result<()> {
        let mut families = Families(to);
        let listing = &report.listing;
        let labels = vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("mta", listing.kind.map(Kind::word).unwrap_or_default().to_owned()),
            ("mta_version", listing.facts.version.clone().unwrap_or_default()),
        ];
        families.gauge("build_info", "This program and the mail server; always 1.", [(labels, 1)])?;
        let up = listing.trouble.is_none();
        families.gauge("up", "Whether the whole queue could be listed.", [(vec![], u8::from(up))])?;
        let took = listing.sampling.took.as_secs_f64();
        families.gauge("listing_duration_seconds", "How long the listing took.", [(vec![], took)])?;
        if up {
            families.queue(report)?;
        }
        families.machine(report)?;
        to.write_all(b"# EOF\n")
    }
}

fn label(destination: &Destination) -> String {
    match destination.domain.as_deref() {
        None => "other".into(),
        Some("") => "local".into(),
        Some(domain) => domain.to_owned(),
    }
}

/// As a label's value is written: backslash, quote and line feed.
fn escaped(value: &str) -> String {
    printable(value).replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}
