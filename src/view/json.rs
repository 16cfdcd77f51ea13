//! JSON, streamed: the messages come first, the totals when they are known.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Value, json};

use super::{PROGRAM, Reader, sentences};
use crate::flush::outcome;
use crate::mta::timing::{Gap, Lifetime};
use crate::mta::trouble::{Status, Trouble};
use crate::primary::{Primary, PrimaryStatus};
use crate::queue::{Clocks, Lifetimes, Message, Recipient, Row, State, rfc3339};
use crate::report::clocks::FirstReturn;
use crate::report::{Form, Report, Verdict};
use crate::state::{Flush, Outage, Pace};
use crate::system::Body;
use crate::text::{first_that_acts, is_plain, one_line};
use crate::view::sentences::of_listing;

/// The version of this form; a change that old readers can't follow raises it.
pub(super) const VERSION: u32 = 1;

/// How many destinations and reasons are listed one by one.
const TOP: usize = 100;

/// Writes JSON.
#[derive(Default)]
pub struct Json {
    /// Whether a message has been written, so that the next one needs a comma.
    follows: bool,
    /// How long mail is kept.
    lifetimes: Lifetimes,
}

impl Form for Json {
    fn begin(&mut self, clocks: &Clocks, to: &mut Body<'_>) -> io::Result<()> {
        self.lifetimes = clocks.lifetimes.clone();
        write!(to, "{{\"version\":{VERSION},\"program\":\"{PROGRAM}\",\"messages\":[")
    }

    fn message(&mut self, message: &Message<'_>, to: &mut Body<'_>) -> io::Result<()> {
        to.write_all(if self.follows { b",\n" } else { b"\n" })?;
        self.follows = true;
        one(message, &self.lifetimes, to)
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
        let mut mta = json!({"kind": listing.kind, "version": listing.facts.version});
        if !listing.facts.unlisted.is_empty() {
            mta["unlisted"] = json!(listing.facts.unlisted);
        }
        field(to, "mta", &mta)?;
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
                "returns": returns(report),
                "returns_error": report.return_gap().as_ref().map(gap),
                "next_attempt": report.next_attempt().and_then(Result::ok).map(|next| {
                    json!({"within_seconds": next.within, "basis": next.basis})
                }),
                "next_attempt_error": report.next_attempt().and_then(Result::err).as_deref().map(gap),
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
        let seen = report.primary.seen.and_then(rfc3339);
        field(to, "primary", &report.primary.primaries.iter().map(|one| primary(one, &seen)).collect::<Vec<_>>())?;
        let PrimaryStatus { faults, notes, domains, .. } = &report.primary;
        field(to, "outages", &report.outages.latest.iter().map(outage).collect::<Vec<_>>())?;
        field(to, "dns", &json!({"domains": domains, "faults": faults, "notes": notes}))?;
        let unexplained =
            || report.unexplained.as_ref().map(|trouble| format!("{trouble} {}", one_line(&trouble.remedy())));
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

/// Writes a message, as the contract has it. What is not known of its clocks is left out. A serializer would look at each
/// byte of each text and each key, and take three times as long.
fn one(message: &Message<'_>, lifetimes: &Lifetimes, to: &mut Body<'_>) -> io::Result<()> {
    text(to, "{\"id\":", Some(&message.id))?;
    text(to, ",\"state\":", Some(message.state.as_str()))?;
    text(to, ",\"mta_state\":", Some(&message.mta_state))?;
    match message.size {
        Some(size) => write!(to, ",\"size\":{size}")?,
        None => to.write_all(b",\"size\":null")?,
    }
    text(to, ",\"arrival\":", message.arrival.and_then(rfc3339).as_deref())?;
    text(to, ",\"sender\":", message.sender.as_deref())?;
    to.write_all(b",\"recipients\":[")?;
    for (index, Recipient { address, reason, delivered, last_attempt }) in message.recipients.iter().enumerate() {
        text(to, if index > 0 { ",{\"address\":" } else { "{\"address\":" }, Some(address))?;
        text(to, ",\"reason\":", reason.as_deref())?;
        to.write_all(if *delivered { b",\"delivered\":true" } else { b",\"delivered\":false" })?;
        if let Some(at) = last_attempt {
            text(to, ",\"last_attempt\":", rfc3339(*at).as_deref())?;
        }
        to.write_all(b"}")?;
    }
    to.write_all(b"]")?;
    if let Some(at) = lifetimes.returns(message).not_before() {
        text(to, ",\"returns_not_before\":", rfc3339(at).as_deref())?;
    }
    if let Some(at) = message.plan.next_attempt {
        text(to, ",\"next_attempt\":", rfc3339(at).as_deref())?;
    }
    if let Some(attempts) = message.plan.attempts {
        write!(to, ",\"attempts\":{attempts}")?;
    }
    if message.being_returned {
        to.write_all(b",\"being_returned\":true")?;
    }
    if let Some(instance) = &message.instance {
        text(to, ",\"instance\":", Some(instance))?;
    }
    to.write_all(b"}")
}

/// Writes a key, as it is, and a text, or null. In nearly all texts there is nothing to be escaped.
fn text(to: &mut Body<'_>, key: &str, text: Option<&str>) -> io::Result<()> {
    to.write_all(key.as_bytes())?;
    let is_its_own = |text: &&str| is_plain(text.as_bytes()) && memchr::memchr2(b'"', b'\\', text.as_bytes()).is_none();
    match text.filter(is_its_own) {
        Some(plain) => {
            to.write_all(b"\"")?;
            to.write_all(plain.as_bytes())?;
            to.write_all(b"\"")
        }
        None => write(to, &text),
    }
}

/// When the first of what waits goes back.
fn returns(report: &Report) -> Option<Value> {
    let FirstReturn { at, kind, overdue, .. } = report.first_return()?;
    let (lifetime, null_sender, basis) = match &report.listing.facts.timing.lifetime {
        Lifetime::Known { seconds, null_sender, basis, .. } => (Some(seconds), Some(null_sender), Some(basis)),
        Lifetime::NotInForce { .. } | Lifetime::Unknown(_) => (None, None, None),
    };
    Some(json!({
        "not_before": rfc3339(at),
        "kind": kind.as_str(),
        "overdue": overdue,
        "lifetime_seconds": lifetime,
        "bounce_lifetime_seconds": null_sender,
        "basis": basis,
    }))
}

fn outage(outage: &Outage) -> Value {
    json!({
        "number": outage.number,
        "host": outage.host,
        "down": rfc3339(outage.down),
        "up": outage.up.and_then(rfc3339),
        "messages_at_most": outage.messages_at_most,
    })
}

fn gap(gap: &Gap) -> Value {
    json!({"message": gap.why, "remedy": gap.remedy})
}

fn field(to: &mut Body<'_>, name: &str, value: &impl Serialize) -> io::Result<()> {
    write!(to, ",\n\"{name}\":")?;
    write(to, value)
}

fn write(to: &mut Body<'_>, value: &impl Serialize) -> io::Result<()> {
    let mut visible = Visible { to, piece: Vec::with_capacity(1024) };
    serde_json::to_writer(&mut visible, value)?;
    visible.flush()
}

/// JSON on its way. Text in it that would act on a terminal, which only strings can hold, becomes `\uXXXX`: the same text
/// to every reader of JSON (RFC 8259, section 7). It is looked at in pieces, as most of it is plain; a piece ends where
/// one write ends, and so never in a character.
struct Visible<'b, W: Write> {
    to: &'b mut W,
    piece: Vec<u8>,
}

/// How long a piece is, in bytes, or a little longer.
const PIECE: usize = 16 * 1024;

impl<W: Write> Write for Visible<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    /// Many of a few bytes each: the usual loop around `write` costs a fifth of the whole.
    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() < PIECE { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> io::Result<()> {
        if is_plain(&self.piece) {
            self.to.write_all(&self.piece)?;
        } else {
            let text = String::from_utf8_lossy(&self.piece);
            let mut rest = &*text;
            while let Some((at, c)) = first_that_acts(rest) {
                self.to.write_all(&rest.as_bytes()[..at])?;
                c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(self.to, "\\u{unit:04x}"))?;
                rest = &rest[at + c.len_utf8()..];
            }
            self.to.write_all(rest.as_bytes())?;
        }
        self.piece.clear();
        Ok(())
    }
}

/// What the contract has of a primary.
fn primary(primary: &Primary, seen: &Option<String>) -> Value {
    json!({
        "host": primary.host,
        "up": primary.is_up(),
        "state": primary.state,
        "detail": primary.detail,
        "milliseconds": primary.milliseconds,
        "since": primary.since.and_then(rfc3339),
        "seen": seen,
    })
}

fn error(trouble: &Trouble) -> Value {
    json!({"message": trouble.to_string(), "remedy": trouble.remedy()})
}

/// What the contract has of a queue run.
pub(crate) fn flush(flush: &Flush) -> Value {
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
            "delivered": outcome.tally.as_ref().map(|tally| tally.delivered),
            "returned": outcome.tally.as_ref().map(|tally| tally.returned),
            "unrecorded": outcome.tally.as_ref().map(|tally| tally.unrecorded),
            "double_bounces": outcome.tally.as_ref().map(|tally| tally.double_bounces),
            "not_looked_up": outcome.tally.as_ref().map(|tally| tally.not_looked_up),
            "returned_for": outcome.tally.as_ref().map(|tally| &tally.sent_back).filter(|list| !list.is_empty()),
            "per_minute": outcome.pace.map(|pace| pace.per_minute),
            "slower": outcome.pace.map(Pace::is_slower),
            "done_about": outcome.pace.and_then(|pace| pace.done_about).and_then(rfc3339),
        })),
        "despite": flush.despite,
        "rehearsal": flush.rehearsal,
        "restarted": flush.restarted,
    })
}

/// An answer that says what is wrong, and nothing else; to a stranger, not even the program's version.
pub(crate) fn refusal(reader: Reader<'_>, message: &str, remedy: &str) -> Vec<u8> {
    let mut answer = json!({"version": VERSION, "error": {"message": message, "remedy": remedy}});
    if let Reader::Admitted { .. } = reader {
        answer["program"] = PROGRAM.into();
    }
    short(&answer)
}

/// A short answer as bytes.
pub(crate) fn short(answer: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut visible = Visible { to: &mut bytes, piece: Vec::new() };
    // Memory takes everything.
    let _ = write!(visible, "{answer}").and_then(|()| visible.flush());
    bytes.push(b'\n');
    bytes
}
