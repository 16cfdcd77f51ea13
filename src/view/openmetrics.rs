//! OpenMetrics 1.0, for Prometheus and similar systems. There are only gauges, which Prometheus' older text format
//! reads as well.
//!
//! Every state has a sample, even at zero. A listing that failed gives `bartleby_up 0` and no figure of the queue, so
//! that it cannot be taken for an empty queue.

use std::collections::HashSet;
use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};

use crate::mta::Kind;
use crate::mta::timing::{Lifetime, Retry};
use crate::primary::Primary;
use crate::queue::{Destination, Row, State};
use crate::report::{Form, Report, Verdict};
use crate::system::Body;
use crate::text::acts;
use crate::view::sentences::of_listing;

/// Destinations that are told one by one; the rest are "(other)".
const TOP: usize = 100;

/// Writes metrics, which say nothing about single messages.
pub struct OpenMetrics;

/// Writes metric families.
struct Families<'b, 'a>(&'b mut Body<'a>);

impl Families<'_, '_> {
    /// One family: its samples with their labels; none where there are no samples. Of several with the same labels, the
    /// first.
    fn gauge<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'static str, Label)>, V)>,
    ) -> io::Result<()> {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        writeln!(self.0, "# HELP bartleby_{name} {help}\n# TYPE bartleby_{name} gauge")?;
        let mut written = HashSet::new();
        for (labels, value) in samples {
            let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", value.0)).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            // A reader refuses the whole of it where two samples have the same labels: two filesystems, say, of which
            // one is mounted over the other.
            if written.insert(labels.clone()) {
                writeln!(self.0, "bartleby_{name}{labels} {value}")?;
            }
        }
        Ok(())
    }

    fn queue(&mut self, report: &Report) -> io::Result<()> {
        let summary = &report.listing.summary;
        let by_state = |value: fn(&crate::queue::Summary, State) -> u64| {
            State::ALL.map(|state| (vec![("state", Label::own(state.as_str()))], value(summary, state)))
        };
        self.gauge("queue_messages", "Messages in the mail queue.", by_state(crate::queue::Summary::state))?;
        let help = "Recipients of these that wait.";
        self.gauge("queue_recipients", help, by_state(crate::queue::Summary::recipients_in))?;
        self.gauge("queue_size_bytes", "Size of all messages.", summary.bytes().map(|bytes| (vec![], bytes)))?;
        let age = summary.oldest.map_or(0, |oldest| report.age(oldest));
        self.gauge("queue_oldest_age_seconds", "Age of the oldest message.", [(vec![], age)])?;
        self.clocks(report)?;
        let destinations = summary.destinations(TOP);
        let by_destination = |value: fn(&Destination) -> u64| {
            destinations.iter().map(move |of| (vec![("destination", label(of))], value(of))).collect::<Vec<_>>()
        };
        let help = "Messages with a recipient there.";
        self.gauge("destination_messages", help, by_destination(|of| of.messages))?;
        self.gauge("destination_recipients", "Recipients there that wait.", by_destination(|of| of.recipients))
    }

    /// When mail goes back; nothing where that is not known.
    fn clocks(&mut self, report: &Report) -> io::Result<()> {
        let first = report.first_return();
        let at = first.as_ref().map(|first| (vec![], first.at));
        self.gauge("returns_not_before_timestamp_seconds", "When the first of what waits may go back.", at)?;
        let overdue = first.map(|first| (vec![], first.overdue));
        self.gauge("returns_overdue_messages", "Messages that are past their time, but still wait.", overdue)?;
        let timing = &report.listing.facts.timing;
        let lifetime = match &timing.lifetime {
            Lifetime::Known { seconds, .. } => Some((vec![], *seconds)),
            Lifetime::NotInForce { .. } | Lifetime::Unknown(_) => None,
        };
        self.gauge("queue_lifetime_seconds", "How long mail is kept.", lifetime)?;
        let next = report.next_attempt().and_then(Result::ok).map(|next| (vec![], next.within));
        self.gauge("next_attempt_within_seconds", "By when what waits is tried again.", next)?;
        let runner = match (&timing.stopped, &timing.retry) {
            (Some(_), _) => Some((vec![], 0)),
            (None, Retry::Within { .. } | Retry::Listed { .. }) => Some((vec![], 1)),
            (None, Retry::Unknown(_)) => None,
        };
        self.gauge("queue_runner_up", "Whether the mail server tries again by itself.", runner)
    }

    fn machine(&mut self, report: &Report) -> io::Result<()> {
        let filesystems = &report.filesystems;
        let of_each = |value: fn(&crate::report::disk::Usage) -> Option<u64>| {
            let labels = |filesystem: &crate::report::disk::Filesystem| {
                vec![
                    ("mount", Label::of(&filesystem.mount)),
                    ("queue", Label::own(if filesystem.queue { "true" } else { "false" })),
                ]
            };
            filesystems.iter().filter_map(move |of| Some((labels(of), value(&of.usage)?))).collect::<Vec<_>>()
        };
        self.gauge("filesystem_size_bytes", "Size of the filesystem.", of_each(|usage| usage.bytes))?;
        self.gauge("filesystem_available_bytes", "What users may still fill.", of_each(|usage| usage.bytes_available))?;
        self.gauge("filesystem_inodes", "Inodes of the filesystem.", of_each(|usage| usage.inodes))?;
        self.gauge("filesystem_inodes_available", "Inodes that are free.", of_each(|usage| usage.inodes_available))?;
        let primaries = report.primary.primaries.iter();
        let up = primaries.filter_map(|of| Some((vec![("host", Label::of(&of.host))], u8::from(of.is_up()?))));
        self.gauge("primary_up", "Whether the primary takes mail.", up)?;
        let down = |of: &Primary| Some((vec![("host", Label::of(&of.host))], report.outages.lasting(&of.host)?.down));
        let down = report.primary.primaries.iter().filter_map(down);
        self.gauge("primary_down_timestamp_seconds", "Since when the primary was seen down.", down)?;
        let last = report.flush.last();
        let started = last.map(|flush| (vec![], flush.started));
        self.gauge("last_flush_timestamp_seconds", "When the queue was last run from here.", started)?;
        let waited = last.and_then(|flush| flush.messages).map(|messages| (vec![], messages));
        self.gauge("last_flush_messages", "Messages that waited then.", waited)?;
        let left = last.and_then(|flush| flush.outcome.as_ref()).map(|outcome| (vec![], outcome.messages_left));
        self.gauge("last_flush_messages_left", "Messages of these that were seen waiting after it.", left)?;
        let tally = last.and_then(|flush| flush.outcome.as_ref()?.tally.as_ref());
        let delivered = tally.map(|tally| (vec![], tally.delivered));
        self.gauge("last_flush_recipients_delivered", "Recipients who got the mail, by the mail log.", delivered)?;
        let returned = tally.map(|tally| (vec![], tally.returned));
        self.gauge("last_flush_recipients_returned", "Recipients whose mail went back, by the mail log.", returned)?;
        let unrecorded = tally.map(|tally| (vec![], tally.unrecorded));
        let help = "Recipients whose mail left without a record in the mail log.";
        self.gauge("last_flush_recipients_unrecorded", help, unrecorded)
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
            ("version", Label::own(env!("CARGO_PKG_VERSION"))),
            ("mta", Label::own(listing.kind.map(Kind::word).unwrap_or_default())),
            ("mta_version", Label::of(listing.facts.version.as_deref().unwrap_or_default())),
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

fn label(destination: &Destination) -> Label {
    match destination.domain.as_deref() {
        None => Label::own("(other)"),
        Some("") => Label::own("(this machine)"),
        Some(domain) => Label::of(domain),
    }
}

/// A label's value, as it is written.
struct Label(String);

impl Label {
    /// A word of our own. Where it must not be taken for a value from outside, it begins with a parenthesis.
    fn own(word: &'static str) -> Label {
        Label(word.to_owned())
    }

    /// A value from outside: backslash and quote stand behind a backslash, and in place of what would act stands its
    /// number. Different values stay different, as the bracket around such numbers is written by its number, too; and none
    /// begins with a parenthesis.
    fn of(value: &str) -> Label {
        let mut label = String::with_capacity(value.len());
        for (at, c) in value.char_indices() {
            match c {
                '\\' => label.push_str(r"\\"),
                '"' => label.push_str("\\\""),
                _ if acts(c) || c == '⟨' || (c == '(' && at == 0) => {
                    // A string takes everything.
                    let _ = write!(label, "⟨U+{:04X}⟩", u32::from(c));
                }
                _ => label.push(c),
            }
        }
        Label(label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_samples_with_the_same_labels_the_first_is_written() {
        let mut bytes = Vec::new();
        let mut body = Body::into(&mut bytes);
        let sample = |mount, value| (vec![("mount", Label::of(mount))], value);
        Families(&mut body).gauge("x", "X.", [sample("/", 1), sample("/", 2), sample("/a", 3)]).unwrap();
        body.finish().unwrap();
        drop(body);
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.ends_with("bartleby_x{mount=\"/\"} 1\nbartleby_x{mount=\"/a\"} 3\n"), "{text}");
    }

    #[test]
    fn different_values_are_different_labels() {
        let values = [
            "a",
            "a\\",
            "a\"",
            "a\n",
            "a␊",
            "a⟨U+000A⟩",
            "a\\n",
            "(other)",
            "⟨U+0028⟩other)",
            "a\u{202e}",
            "a⟨U+202E⟩",
        ];
        let labels: HashSet<_> = values.map(|value| Label::of(value).0).into();
        assert_eq!(labels.len(), values.len(), "{labels:?}");
        assert!(
            labels.iter().all(|label| !label.contains(['\n', '\u{202e}']) && !label.starts_with('(')),
            "{labels:?}"
        );
    }
}
