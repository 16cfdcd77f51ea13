//! JSON, streamed: the messages come first, the totals when they are known.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::{PROGRAM, sentences};
use crate::flush::outcome;
use crate::mta::trouble::{Status, Trouble};
use crate::primary::{Primary, PrimaryStatus};
use crate::queue::{Message, Row, State, rfc3339};
use crate::report::{Form, Report, Verdict};
use crate::state::Flush;
use crate::system::Body;
use crate::view::sentences::of_listing;

/// The version of this form; a change that old readers can't follow raises it.
const VERSION: u32 = 1;

/// Destinations and reasons that are told one by one.
const TOP: usize = 100;

/// Writes JSON.
#[derive(Default)]
pub struct Json {
    /// Whether a message stands before the next one.
    follows: bool,
}

impl Form for Json {
    fn begin(&mut self, to: &mut Body<'_>) -> io::Result<()> {
        write!(to, "{{\"version\":{VERSION},\"program\":\"{PROGRAM}\",\"messages\":[")
    }

    fn message(&mut self, message: &Message<'_>, to: &mut Body<'_>) -> io::Result<()> {
        to.write_all(if self.follows { b",\n" } else { b"\n" })?;
        self.follows = true;
        Ok(serde_json::to_writer(to, message)?)
    }

    fn verdict(&self, report: &Report) -> Verdict {
        of_listing(report)
    }

    fn end(&mut self, report: &Report, _rows: &[Row], to: &mut Body<'_>) -> io::Result<()> {
        let listing = &report.listing;
        let summary = &listing.summary;
        let states: serde_json::Map<String, Value> =
            State::ALL.into_iter().map(|state| (state.as_str().to_owned(), json!(summary.state(state)))).collect();
        to.write_all(b"\n]")?;
        field(to, "host", &report.host)?;
        field(to, "label", &report.label)?;
        field(to, "generated", &rfc3339(listing.sampling.started))?;
        field(to, "mta", &json!({"kind": listing.kind, "version": listing.facts.version}))?;
        field(
            to,
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
                "command": listing.sampling.command,
                "seconds": listing.sampling.took.as_secs_f64(),
            }),
        )?;
        field(to, "destinations", &summary.destinations(TOP))?;
        field(to, "reasons", &summary.reasons(TOP))?;
        if let Some((window, matched)) = report.selection {
            field(to, "selection", &json!({"matched": matched, "page": window.page, "pages": window.pages(matched)}))?;
        }
        field(to, "filesystems", &report.filesystems)?;
        field(to, "primary", &report.primary.primaries.iter().map(primary).collect::<Vec<_>>())?;
        let PrimaryStatus { faults, notes, domains, .. } = &report.primary;
        field(to, "dns", &json!({"domains": domains, "faults": faults, "notes": notes}))?;
        let unexplained = || report.unexplained.as_ref().map(|trouble| format!("{trouble} {}", trouble.remedy()));
        if let Some(note) = report.note.map(|note| sentences::note(note).to_owned()).or_else(unexplained) {
            field(to, "note", &note)?;
        }
        field(to, "advice", &sentences::advice(report))?;
        field(
            to,
            "flush",
            &json!({
                "allowed": report.flush.possible.is_ok(),
                "wait_seconds": report.flush.wait_seconds,
                "under_way": report.flush.under_way,
                "unguarded": report.flush.unguarded.as_ref().map(ToString::to_string),
                "last": report.flush.last().map(flush),
                "followed": report.followed.as_ref().map(|(of, outcome)| flush(&Flush { outcome: Some(outcome.clone()), ..of.clone() })),
                "unrecorded": report.unrecorded.map(sentences::unrecorded),
                "log": report.flush.log.iter().map(flush).collect::<Vec<_>>(),
                "error": report.flush.possible.as_ref().err().map(error),
            }),
        )?;
        to.write_all(b"}\n")
    }
}

fn field(to: &mut Body<'_>, name: &str, value: &impl Serialize) -> io::Result<()> {
    write!(to, ",\n\"{name}\":")?;
    serde_json::to_writer(to, value).map_err(io::Error::from)
}

/// What the contract has of a primary.
fn primary(primary: &Primary) -> Value {
    json!({
        "host": primary.host,
        "up": primary.is_up(),
        "state": primary.state,
        "detail": primary.detail,
        "milliseconds": primary.milliseconds,
        "since": primary.since.and_then(rfc3339),
    })
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
            "words": outcome::sentence(flush, outcome),
            "sampled": rfc3339(outcome.sampled),
            "settled": outcome.settled,
            "messages_left": outcome.messages_left,
            "recipients_left": outcome.recipients_left,
            "why": outcome.why,
        })),
    })
}

/// An answer that tells of an error alone.
pub(crate) fn refusal(message: &str, remedy: &str) -> Vec<u8> {
    let body = json!({"version": VERSION, "program": PROGRAM, "error": {"message": message, "remedy": remedy}});
    format!("{body}\n").into_bytes()
}
