//! Text, streamed: the messages first, then what they amount to. Plain in a pipe; on a terminal a table as wide as
//! that, with colours.

use std::io::{self, Write};

use super::sentences::{self, Sentences};
use super::{PROGRAM, Report, Streamed};
use crate::queue::{Message, State};
use crate::report::disk::{Filesystem, Level};
use crate::text::{self as words, printable};

/// Writes text.
pub struct Text<W: Write> {
    out: W,
    now: i64,
    /// One message, written in one piece.
    lines: Vec<u8>,
    terminal: Option<Terminal>,
}

/// A terminal that text is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Columns.
    pub width: usize,
    /// Whether colours are wanted.
    pub colours: bool,
}

impl Terminal {
    /// A line that fits, its beginning in a colour of SGR (ECMA-48).
    fn line(self, out: &mut Vec<u8>, colour: &str, line: &str) {
        let line = match line.char_indices().nth(self.width) {
            Some(_) => line.chars().take(self.width.saturating_sub(1)).chain(['…']).collect::<String>(),
            None => line.to_owned(),
        };
        let line =
            if self.colours && !colour.is_empty() { format!("\x1b[{colour}m{line}\x1b[0m\n") } else { line + "\n" };
        out.extend_from_slice(line.as_bytes());
    }

    /// One message: a line for it, one a recipient, each with its reason.
    fn message(self, out: &mut Vec<u8>, message: &Message<'_>, head: &str) {
        let colour = match message.state {
            State::Incoming | State::Active => "1;32",
            State::Deferred => "1;33",
            State::Held => "1;31",
        };
        self.line(out, colour, head);
        for recipient in &message.recipients {
            let delivered = if recipient.delivered { " (delivered)" } else { "" };
            let reason = recipient.reason.as_deref().map(|reason| format!("  {reason}")).unwrap_or_default();
            let line = format!("    {}{delivered}{reason}", recipient.address);
            self.line(out, "", &printable(&line));
        }
    }
}

impl<W: Write> Text<W> {
    /// Begins. Ages are counted back from `now`, in seconds since 1970.
    pub fn begin(out: W, now: i64) -> Self {
        Text { out, now, lines: Vec::new(), terminal: None }
    }

    /// For a terminal.
    #[must_use]
    pub fn on(mut self, terminal: Option<Terminal>) -> Self {
        self.terminal = terminal;
        self
    }

    /// The writer, to end the answer with.
    pub fn into_inner(self) -> W {
        self.out
    }
}

impl<W: Write> Streamed for Text<W> {
    fn message(&mut self, message: &Message<'_>) -> io::Result<()> {
        self.lines.clear();
        let out = &mut self.lines;
        let age = message.arrival.map_or("?".into(), |arrival| words::short_duration(self.now.saturating_sub(arrival)));
        let size = message.size.map_or("?".into(), words::bytes);
        let sender = match message.sender.as_deref() {
            None => "(sender not told)".into(),
            Some("") => "<>".into(),
            Some(sender) => printable(sender),
        };
        let state = message.state.as_str();
        let head = format!("{:<14} {state:<8} {age:>7} {size:>9}  {sender}", printable(&message.id));
        if let Some(terminal) = self.terminal {
            terminal.message(out, message, &head);
            return self.out.write_all(&self.lines);
        }
        writeln!(out, "{head}")?;
        let mut reason = None;
        for recipient in &message.recipients {
            if recipient.reason != reason {
                reason.clone_from(&recipient.reason);
                if let Some(reason) = &reason {
                    writeln!(out, "    ({})", printable(reason))?;
                }
            }
            let delivered = if recipient.delivered { " (delivered)" } else { "" };
            writeln!(out, "      {}{delivered}", printable(&recipient.address))?;
        }
        writeln!(out)?;
        self.out.write_all(&self.lines)
    }

    fn end(&mut self, report: &Report) -> io::Result<()> {
        let listing = &report.listing;
        if let Some(label) = &report.label {
            writeln!(self.out, "[{}]", printable(label))?;
        }
        if let Some(trouble) = &listing.trouble {
            writeln!(self.out, "ERROR: {}\nREMEDY: {}", printable(&trouble.to_string()), trouble.remedy())?;
        }
        let sentences = Sentences::of(report);
        writeln!(self.out, "{}", printable(&sentences.headline.concat()))?;
        for detail in sentences.details.iter().filter(|_| sentences.details.len() > 1) {
            writeln!(self.out, "  {}: {}", printable(&detail.name), detail.text)?;
        }
        if listing.summary.messages > 0 {
            writeln!(
                self.out,
                "{}, {}{}",
                words::count(listing.summary.messages, "message", "messages"),
                words::count(listing.summary.recipients, "recipient", "recipients"),
                listing.summary.bytes().map(|bytes| format!(", {}", words::bytes(bytes))).unwrap_or_default()
            )?;
        }
        if let Some(advice) = sentences::advice(report) {
            writeln!(self.out, "{advice}")?;
        }
        if let Some((flush, outcome)) = &report.followed {
            writeln!(
                self.out,
                "Queue run {}: {}.",
                flush.number,
                printable(&sentences::outcome(report, flush, outcome))
            )?;
        }
        if let Some(reason) = &report.flush.unguarded {
            writeln!(self.out, "Cool-down and log of queue runs are off: {}.", printable(&reason.to_string()))?;
        }
        if let Some(note) = report.note {
            writeln!(self.out, "{note}")?;
        }
        if let Some(trouble) = &report.unexplained {
            writeln!(self.out, "{}", printable(&trouble.to_string()))?;
        }
        if let Some((window, matched)) = report.selection {
            writeln!(
                self.out,
                "Shown: page {} of {}; {} match.",
                window.page,
                window.pages(matched),
                words::count(matched, "message", "messages")
            )?;
        }
        if !report.outlook.primaries.is_empty() {
            writeln!(self.out, "\nPrimary:")?;
        }
        for primary in &report.outlook.primaries {
            let since = primary.since.map(|since| format!(" since {}", report.local_time(since))).unwrap_or_default();
            let line = format!("{} {}{since}: {}", primary.host, primary.state.as_str(), primary.detail);
            writeln!(self.out, "  {}", printable(&line))?;
        }
        for fault in &report.outlook.faults {
            writeln!(self.out, "DNS: {}\nREMEDY: {}", printable(&fault.message), printable(&fault.remedy))?;
        }
        if let Some(gap) = &report.gap {
            writeln!(self.out, "{}", printable(&sentences::gap(gap)))?;
        }
        writeln!(self.out, "\nDisk:")?;
        for filesystem in &report.filesystems {
            self.filesystem(filesystem)?;
        }
        writeln!(
            self.out,
            "\n{}{}, {} of {} in {:.2} s, on {}; {PROGRAM}",
            listing.kind.map_or("no mail server", |kind| kind.name()),
            listing.facts.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default(),
            if listing.command.is_empty() { "nothing listed".into() } else { format!("“{}”", listing.command) },
            report.local_time(listing.sampled),
            listing.took.as_secs_f64(),
            report.host,
        )
    }
}

impl<W: Write> Text<W> {
    fn filesystem(&mut self, filesystem: &Filesystem) -> io::Result<()> {
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
        writeln!(
            self.out,
            "  {:<24} {:>22} free, inodes {:>26}{}{}{level}",
            printable(&filesystem.mount),
            free(usage.bytes_available, usage.bytes, words::bytes),
            free(usage.inodes_available, usage.inodes, words::thousands),
            if filesystem.queue { "  mail queue" } else { "" },
            if level.is_empty() { "" } else { "  " },
        )
    }
}
