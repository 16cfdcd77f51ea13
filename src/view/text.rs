//! Text, streamed: the messages first, then the totals. A pipe gets plain text; a terminal gets a table of its width,
//! with colours.

use std::borrow::Cow;
use std::io::{self, Write};

use super::PROGRAM;
use super::clocks::Clocks;
use super::headline::Headline;
use super::sentences::{self, Sentences, of_listing};
use crate::flush::outcome;
use crate::queue::{Message, Recipient, Row, State};
use crate::report::disk::{Filesystem, Level};
use crate::report::{Form, Report, Verdict};
use crate::system::Body;
use crate::text::{self as words, printable};

/// Writes text.
pub struct Text {
    now: i64,
    terminal: Option<Terminal>,
}

/// A terminal that text is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Its width in columns.
    pub(crate) width: usize,
    /// Whether colours are wanted.
    pub(crate) colours: bool,
}

impl Terminal {
    /// Writes a line, cut to the width, in a colour of SGR (ECMA-48).
    fn line(self, to: &mut Body<'_>, colour: &str, line: &str) -> io::Result<()> {
        let line = printable(line);
        let line = match line.char_indices().nth(self.width) {
            Some(_) => line.chars().take(self.width.saturating_sub(1)).chain(['…']).collect::<String>(),
            None => line.into_owned(),
        };
        let line =
            if self.colours && !colour.is_empty() { format!("\x1b[{colour}m{line}\x1b[0m\n") } else { line + "\n" };
        to.write_all(line.as_bytes())
    }

    /// Writes one message: a line for it, and a line for each recipient with its reason.
    fn message(self, to: &mut Body<'_>, message: &Message<'_>, head: &str, now: i64) -> io::Result<()> {
        let colour = match message.state {
            State::Incoming | State::Active => "1;32",
            State::Deferred => "1;33",
            State::Held => "1;31",
        };
        self.line(to, colour, head)?;
        for recipient in &message.recipients {
            let delivered = if recipient.delivered { " (done)" } else { "" };
            let reason = reason_of(recipient, now).map(|reason| format!("  {reason}")).unwrap_or_default();
            let line = format!("    {}{delivered}{reason}", recipient.address);
            self.line(to, "", &line)?;
        }
        Ok(())
    }
}

impl Text {
    /// Text for a terminal, or for a pipe. Ages are counted back from `now`, in seconds since 1970.
    pub fn new(now: i64, terminal: Option<Terminal>) -> Self {
        Text { now, terminal }
    }
}

impl Form for Text {
    fn verdict(&self, report: &Report) -> Verdict {
        of_listing(report)
    }

    fn message(&mut self, message: &Message<'_>, to: &mut Body<'_>) -> io::Result<()> {
        let age = message.arrival.map_or("?".into(), |arrival| words::short_time_between(arrival, self.now));
        let size = message.size.map_or("?".into(), words::bytes);
        let sender = match message.sender.as_deref() {
            None => "(sender unknown)",
            Some("") => "<>",
            Some(sender) => sender,
        };
        let state = message.state.as_str();
        let instance = message.instance.as_ref().map(|instance| format!("  [{instance}]")).unwrap_or_default();
        let returned = if message.being_returned { "  [goes back to the sender]" } else { "" };
        let head = format!("{:<14} {state:<8} {age:>7} {size:>9}  {sender}{instance}{returned}", message.id);
        if let Some(terminal) = self.terminal {
            return terminal.message(to, message, &head, self.now);
        }
        to.line(format_args!("{head}"))?;
        let mut reason = None;
        for recipient in &message.recipients {
            let own = reason_of(recipient, self.now);
            if own != reason {
                reason = own;
                if let Some(reason) = &reason {
                    to.line(format_args!("    ({reason})"))?;
                }
            }
            let delivered = if recipient.delivered { " (done)" } else { "" };
            to.line(format_args!("      {}{delivered}", recipient.address))?;
        }
        to.line(format_args!(""))
    }

    fn end(&mut self, report: &Report, _rows: &[Row], to: &mut Body<'_>) -> io::Result<()> {
        let listing = &report.listing;
        if let Some(label) = &report.label {
            to.line(format_args!("[{label}]"))?;
        }
        if let Some(trouble) = &listing.trouble {
            to.line(format_args!("ERROR: {trouble}"))?;
            remedy(&trouble.remedy(), to)?;
        }
        let Headline { sentence, rest, .. } = Headline::of(report);
        to.line(format_args!("{}", format!("{sentence} {rest}").trim_end()))?;
        let sentences = Sentences::of(report);
        let for_whom = sentences.for_whom.concat();
        if !for_whom.trim().is_empty() {
            to.line(format_args!("{}", for_whom.trim_start()))?;
        }
        for detail in sentences.details.iter().filter(|_| sentences.details.len() > 1) {
            let cause = detail.cause.map(|cause| format!("; {cause}")).unwrap_or_default();
            to.line(format_args!("  {}: {}{cause}", detail.name, detail.recipients))?;
        }
        if listing.summary.messages > 0 {
            to.line(format_args!(
                "{}, {}{}",
                words::count(listing.summary.messages, "message", "messages"),
                words::count(listing.summary.recipients, "recipient", "recipients"),
                listing.summary.bytes().map(|bytes| format!(", {}", words::bytes(bytes))).unwrap_or_default()
            ))?;
        }
        if let Some(advice) = sentences::advice(report) {
            to.line(format_args!("{advice}"))?;
        }
        for sentence in sentences::before_a_run(report) {
            to.line(format_args!("{sentence}"))?;
        }
        if let Some(Clocks { sentences, notes, unknown, remedies }) = Clocks::of(report) {
            for sentence in sentences.into_iter().chain(notes).chain(unknown) {
                to.line(format_args!("{sentence}"))?;
            }
            for one in remedies {
                remedy(&one, to)?;
            }
        }
        if let Some((flush, found)) = &report.followed {
            let in_spite =
                flush.despite.map(|despite| format!(", {}", sentences::in_spite_of(despite))).unwrap_or_default();
            let words = sentences::outcome(report, flush, found);
            to.line(format_args!("Queue run {}{in_spite}: {words}.", flush.number))?;
            if let Some(pace) = found.pace {
                let pace = outcome::pace(pace, report.listing.sampling.started);
                to.line(format_args!("While it runs: {pace}."))?;
            }
            for line in found.tally.iter().flat_map(outcome::sent_back) {
                to.line(format_args!("{line}"))?;
            }
            if let Some(said) = &flush.rehearsal {
                to.line(format_args!("Asked before the run: {said}"))?;
            }
        }
        if let Some(number) = report.unrecorded {
            writeln!(to, "{}", sentences::unrecorded(number))?;
        }
        if let Some(reason) = &report.flush.unguarded {
            to.line(format_args!("Cool-down and log of queue runs are off: {reason}."))?;
        }
        if let Some(note) = report.note {
            to.line(format_args!("{}", sentences::note(note)))?;
        }
        if let Some(trouble) = &report.unexplained {
            to.line(format_args!("{trouble}"))?;
        }
        if let Some((window, matched)) = report.selection {
            to.line(format_args!(
                "Shown: page {} of {}; {} match.",
                window.page,
                window.pages(matched),
                words::count(matched, "message", "messages")
            ))?;
        }
        if !report.primary.primaries.is_empty() {
            to.line(format_args!(""))?;
            let age = report.primary.seen.map_or(0, |seen| report.age(seen));
            let seen = if age > 0 { format!(", seen {} ago", words::duration(age)) } else { String::new() };
            to.line(format_args!("Primary{seen}:"))?;
        }
        for primary in &report.primary.primaries {
            let since = primary.since.map(|since| format!(" since {}", report.local_time(since))).unwrap_or_default();
            to.line(format_args!("  {} {}{since}: {}", primary.host, primary.state.as_str(), primary.detail))?;
        }
        for fault in &report.primary.faults {
            to.line(format_args!("DNS: {}", fault.message))?;
            remedy(&fault.remedy, to)?;
        }
        for note in &report.primary.notes {
            writeln!(to, "DNS: {}", printable(note))?;
        }
        if let Some(unlisted) = sentences::unlisted(&listing.facts) {
            to.line(format_args!("{unlisted}"))?;
        }
        let gaps =
            [report.gap.as_deref().map(sentences::gap), report.primary.gap.as_deref().map(sentences::gap_of_primaries)];
        for gap in gaps.into_iter().flatten() {
            to.line(format_args!("{gap}"))?;
        }
        to.line(format_args!(""))?;
        to.line(format_args!("Disk:"))?;
        for filesystem in &report.filesystems {
            self::filesystem(filesystem, to)?;
        }
        to.line(format_args!(""))?;
        to.line(format_args!(
            "{}{}, {} of {} in {:.2} s, on {}; {PROGRAM}",
            listing.kind.map_or("no mail server", |kind| kind.name()),
            listing.facts.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default(),
            if listing.sampling.command.is_empty() {
                "nothing listed".into()
            } else {
                format!("“{}”", listing.sampling.command)
            },
            report.local_time(listing.sampling.started),
            listing.sampling.took.as_secs_f64(),
            report.host,
        ))
    }
}

/// Why a recipient waits, and how long ago that was, where it is known.
fn reason_of<'r>(recipient: &'r Recipient<'_>, now: i64) -> Option<Cow<'r, str>> {
    let reason = recipient.reason.as_deref()?;
    Some(match recipient.last_attempt {
        None => Cow::Borrowed(reason),
        Some(at) => Cow::Owned(format!("{reason}; tried {} ago", words::short_time_between(at, now))),
    })
}

fn filesystem(filesystem: &Filesystem, to: &mut Body<'_>) -> io::Result<()> {
    let level = match filesystem.level {
        Level::Ok => "",
        Level::Warning => "WARNING",
        Level::Critical => "CRITICAL",
        Level::Unknown => filesystem.error.as_deref().unwrap_or("not answering"),
    };
    let free = |free: Option<u64>, all: Option<u64>, show: fn(u64) -> String| match (free, all) {
        (Some(free), Some(all)) => format!("{} of {}", show(free), show(all)),
        _ => "-".into(),
    };
    let usage = &filesystem.usage;
    to.line(format_args!(
        "  {:<24} {:>22} free, inodes {:>26}{}{}{level}",
        filesystem.mount,
        free(usage.bytes_available, usage.bytes, words::bytes),
        free(usage.inodes_available, usage.inodes, words::thousands),
        if filesystem.queue { "  mail queue" } else { "" },
        if level.is_empty() { "" } else { "  " },
    ))
}

/// What to do: sentences, and lines to be pasted, which are indented.
fn remedy(remedy: &str, to: &mut Body<'_>) -> io::Result<()> {
    let mut lines = remedy.lines();
    if let Some(first) = lines.next() {
        to.line(format_args!("REMEDY: {first}"))?;
    }
    lines.try_for_each(|line| to.line(format_args!("{line}")))
}

/// An answer that says nothing but what is wrong.
pub(crate) fn refusal(title: &str, message: &str, remedy: &str) -> Vec<u8> {
    let remedy: String = remedy.lines().map(|line| format!("\n{}", printable(line))).collect();
    format!("{}{remedy}\n", printable(&format!("{title}: {message}"))).into_bytes()
}
