//! JSON, streamed: the messages come first, the totals when they are known.

use std::io::{self, BufWriter, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::{PROGRAM, Report, Streamed, sentences};
use crate::mta::trouble::{Status, Trouble};
use crate::queue::{Message, State, rfc3339};
use crate::state::Flush;

/// The version of this form; a change that old readers can't follow raises it.
const VERSION: u32 = 1;

/// Destinations and reasons that are told one by one.
const TOP: usize = 100;

/// Writes JSON.
pub struct Json<W: Write> {
    /// Behind a buffer of its own: the many small pieces that a message is made of take much longer one by one.
    out: BufWriter<W>,
    first: bool,
}

impl<W: Write> Json<W> {
    /// Begins the document.
    ///
    /// # Errors
    /// Those of writing.
    pub fn begin(out: W) -> io::Result<Self> {
        let mut out = BufWriter::new(out);
        write!(out, "{{\"version\":{VERSION},\"program\":\"{PROGRAM}\",\"messages\":[")?;
        Ok(Json { out, first: true })
    }

    /// The writer, to end the answer with.
    ///
    /// # Errors
    /// Those of writing.
    pub fn into_inner(self) -> io::Result<W> {
        self.out.into_inner().map_err(|error| error.into_error())
    }
}

impl<W: Write> Streamed for Json<W> {
    fn message(&mut self, message: &Message<'_>) -> io::Result<()> {
        self.out.write_all(if self.first { b"\n" } else { b",\n" })?;
        self.first = false;
        Ok(serde_json::to_writer(&mut self.out, message)?)
    }

    fn end(&mut self, report: &Report) -> io::Result<()> {
        let listing = &report.listing;
        let summary = &listing.summary;
        let states: serde_json::Map<String, Value> =
            State::ALL.into_iter().map(|state| (state.as_str().to_owned(), json!(summary.state(state)))).collect();
        self.out.write_all(b"\n]")?;
        self.field("host", &report.host)?;
        self.field("label", &report.label)?;
        self.field("generated", &rfc3339(listing.sampled))?;
        self.field("mta", &json!({"kind": listing.kind, "version": listing.facts.version}))?;
        self.field(
            "queue",
            &json!({
                "status": listing.status(),
                "complete": listing.status() == Status::Ok,
                "messages": summary.messages,
                "recipients": summary.recipients,
                "bytes": summary.bytes(),
                "oldest": summary.oldest.and_then(rfc3339),
                "states": states,
                "error": listing.trouble.as_ref().map(error),
                "command": listing.command,
                "seconds": listing.took.as_secs_f64(),
            }),
        )?;
        self.field("destinations", &summary.destinations(TOP))?;
        self.field("reasons", &summary.reasons(TOP))?;
        if let Some((window, matched)) = report.selection {
            self.field("selection", &json!({"matched": matched, "page": window.page, "pages": window.pages(matched)}))?;
        }
        self.field("filesystems", &report.filesystems)?;
        self.field("primary", &report.outlook.primaries)?;
        self.field("dns", &json!({"domains": report.outlook.domains, "faults": report.outlook.faults}))?;
        if let Some(note) = report.note {
            self.field("note", &note)?;
        }
        self.field("advice", &sentences::advice(report))?;
        self.field(
            "flush",
            &json!({
                "allowed": report.flush.possible.is_ok(),
                "wait_seconds": report.flush.wait_seconds,
                "under_way": report.flush.under_way,
                "unguarded": report.flush.unguarded.as_ref().map(ToString::to_string),
                "last": report.flush.last().map(flush),
                "followed": report.followed.as_ref().map(|(of, outcome)| flush(&Flush { outcome: Some(outcome.clone()), ..of.clone() })),
                "log": report.flush.log.iter().map(flush).collect::<Vec<_>>(),
                "error": report.flush.possible.as_ref().err().map(error),
            }),
        )?;
        self.out.write_all(b"}\n")?;
        self.out.flush()
    }
}

impl<W: Write> Json<W> {
    fn field(&mut self, name: &str, value: &impl Serialize) -> io::Result<()> {
        write!(self.out, ",\n\"{name}\":")?;
        serde_json::to_writer(&mut self.out, value).map_err(io::Error::from)
    }
}

fn error(trouble: &Trouble) -> Value {
    json!({"message": trouble.to_string(), "remedy": trouble.remedy()})
}

fn flush(flush: &Flush) -> Value {
    json!({
        "number": flush.number,
        "started": rfc3339(flush.started),
        "target": flush.target,
        "by": flush.by,
        "messages": flush.messages,
        "recipients": flush.recipients,
        "exit": flush.exit,
        "outcome": flush.outcome.as_ref().map(|outcome| json!({
            "sampled": rfc3339(outcome.sampled),
            "settled": outcome.settled,
            "messages_left": outcome.messages_left,
            "recipients_left": outcome.recipients_left,
            "why": outcome.why,
        })),
    })
}

/// An answer that tells of an error alone.
pub fn refusal(message: &str, remedy: &str) -> Vec<u8> {
    let body = json!({"version": VERSION, "program": PROGRAM, "error": {"message": message, "remedy": remedy}});
    format!("{body}\n").into_bytes()
}
