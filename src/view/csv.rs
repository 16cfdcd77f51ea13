//! CSV (RFC 4180), streamed: one line for each recipient.
//!
//! Strangers write most of it, and a spreadsheet takes a cell that begins with one of some signs for a formula: an
//! apostrophe is put in front. A cell is not always a field: where the list separator is a semicolon (that of Windows
//! in most of Europe) a line is cut at semicolons, and as quotes count only at a cell's beginning, those around our
//! fields keep none of them together. So a sign behind anything that can separate cells gets its apostrophe, too
//! (<https://owasp.org/www-community/attacks/CSV_Injection>). Who wants every byte as it is takes JSON.

use std::borrow::Cow;
use std::io::{self, Write};

use crate::queue::{Clocks, Lifetimes, Message, Row, rfc3339};
use crate::report::{Form, Report, Verdict};
use crate::system::Body;
use crate::text::{one_line, printable};
use crate::view::sentences::{self, of_listing};

/// The names of the columns.
const COLUMNS: [&str; WIDTH] = [
    "id",
    "state",
    "mta_state",
    "size",
    "arrival",
    "sender",
    "recipient",
    "delivered",
    "reason",
    "last_attempt",
    "being_returned",
    "instance",
    "returns_not_before",
];

/// How many there are.
const WIDTH: usize = 13;

/// Stands in the state column of a last line that says why the listing is not complete.
const INCOMPLETE: &str = "INCOMPLETE";

/// In the state column of a last line that says why there are no reasons.
const NOTE: &str = "NOTE";

/// Writes CSV.
#[derive(Default)]
pub struct Csv {
    /// How long mail is kept.
    lifetimes: Lifetimes,
}

/// What a formula can begin with, also in full width.
const SIGNS: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// What separates cells besides the comma. No tab is left by then.
const OTHER_SEPARATORS: [u8; 2] = [b';', b'|'];

impl Form for Csv {
    /// The columns' names.
    fn begin(&mut self, clocks: &Clocks, to: &mut Body<'_>) -> io::Result<()> {
        self.lifetimes = clocks.lifetimes.clone();
        line(to, COLUMNS)
    }

    fn verdict(&self, report: &Report) -> Verdict {
        of_listing(report)
    }

    fn message(&mut self, message: &Message<'_>, to: &mut Body<'_>) -> io::Result<()> {
        let size = message.size.map(|size| size.to_string()).unwrap_or_default();
        let arrival = message.arrival.and_then(rfc3339).unwrap_or_default();
        let sender = match message.sender.as_deref() {
            None => "",
            Some("") => "<>",
            Some(sender) => sender,
        };
        let (id, state, mta_state) = (&message.id, message.state.as_str(), &message.mta_state);
        let returned = if message.being_returned { "yes" } else { "" };
        let instance = message.instance.as_deref().unwrap_or_default();
        let returns = self.lifetimes.returns(message).not_before().and_then(rfc3339).unwrap_or_default();
        let mut of_recipient = |[recipient, delivered, reason, at]: [&str; 4]| {
            let of_all = [id, state, mta_state, &size, &arrival, sender];
            line(to, of_all.into_iter().chain([recipient, delivered, reason, at, returned, instance, &returns]))
        };
        if message.recipients.is_empty() {
            of_recipient([""; 4])?;
        }
        for recipient in &message.recipients {
            let delivered = if recipient.delivered { "yes" } else { "no" };
            let reason = recipient.reason.as_deref().unwrap_or_default();
            let at = recipient.last_attempt.and_then(rfc3339).unwrap_or_default();
            of_recipient([&recipient.address, delivered, reason, &at])?;
        }
        Ok(())
    }

    fn end(&mut self, report: &Report, _rows: &[Row], to: &mut Body<'_>) -> io::Result<()> {
        if let Some(trouble) = &report.listing.trouble {
            let status = serde_json::to_value(trouble.status())?;
            let reason = format!("{trouble} {}", one_line(&trouble.remedy()));
            line(to, last(INCOMPLETE, status.as_str().unwrap_or_default(), &reason))?;
        } else if let Some(note) = report.note {
            line(to, last(NOTE, "", sentences::note(note)))?;
        }
        Ok(())
    }
}

/// A last line, which is of no message.
fn last<'f>(state: &'f str, mta_state: &'f str, reason: &'f str) -> [&'f str; WIDTH] {
    ["", state, mta_state, "", "", "", "", "", reason, "", "", "", ""]
}

fn line<'f>(to: &mut Body<'_>, fields: impl IntoIterator<Item = &'f str>) -> io::Result<()> {
    for (index, field) in fields.into_iter().enumerate() {
        to.write_all(if index > 0 { b"," } else { b"" })?;
        let field = harmless(field);
        if has_other_separator(&field) || memchr::memchr2(b',', b'"', field.as_bytes()).is_some() {
            write!(to, "\"{}\"", field.replace('"', "\"\""))?;
        } else {
            to.write_all(field.as_bytes())?;
        }
    }
    to.write_all(b"\r\n")
}

/// A field that does not act on a terminal, and of which no spreadsheet takes any part for a formula, whatever it takes
/// for the end of a cell. Space and quotes may stand before a formula's sign.
fn harmless(field: &str) -> Cow<'_, str> {
    let shown = printable(field);
    let is_formula = |cell: &str| cell.trim_start_matches(|c: char| c.is_whitespace() || c == '"').starts_with(SIGNS);
    match has_other_separator(&shown) {
        false if is_formula(&shown) => Cow::Owned(format!("'{shown}")),
        false => shown,
        true => {
            let cells = shown.split_inclusive(OTHER_SEPARATORS.map(char::from));
            Cow::Owned(cells.flat_map(|cell| [if is_formula(cell) { "'" } else { "" }, cell]).collect())
        }
    }
}

fn has_other_separator(field: &str) -> bool {
    let [one, other] = OTHER_SEPARATORS;
    memchr::memchr2(one, other, field.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Recipient, State};

    #[test]
    fn fields_are_quoted_and_no_formula() {
        let recipient = |address: &str, reason: &str| Recipient {
            address: address.to_owned().into(),
            reason: Some(reason.to_owned().into()),
            delivered: false,
            last_attempt: (reason == "+1").then_some(60),
        };
        let message = Message {
            id: "4F1A".into(),
            state: State::Deferred,
            mta_state: "deferred".into(),
            being_returned: true,
            too_young: false,
            instance: Some("out".into()),
            size: Some(9),
            arrival: Some(0),
            sender: Some("".into()),
            recipients: vec![recipient("=cmd|' /C calc'!A0@example.com", "450 \"no\", later"), recipient("b@x", "+1")],
            plan: crate::queue::Plan::default(),
        };
        let mut bytes = Vec::new();
        let mut body = Body::into(&mut bytes);
        let lifetimes = Lifetimes::NotBefore { message: 60, null_sender: 30 };
        let mut csv = Csv::default();
        csv.begin(&Clocks { now: 0, lifetimes }, &mut body).unwrap();
        csv.message(&message, &mut body).unwrap();
        csv.message(&Message { recipients: vec![], sender: None, being_returned: false, ..message }, &mut body)
            .unwrap();
        body.finish().unwrap();
        drop(body);
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<_> = text.split("\r\n").collect();
        assert_eq!(
            lines[0],
            "id,state,mta_state,size,arrival,sender,recipient,delivered,reason,last_attempt,being_returned,instance,returns_not_before"
        );
        let start = "4F1A,deferred,deferred,9,1970-01-01T00:00:00Z";
        assert_eq!(
            lines[1],
            format!("{start},<>,\"'=cmd|' /C calc'!A0@example.com\",no,\"450 \"\"no\"\", later\",,yes,out,")
        );
        assert_eq!(lines[2], format!("{start},<>,b@x,no,'+1,1970-01-01T00:01:00Z,yes,out,"));
        assert_eq!(lines[3..], [format!("{start},,,,,,,out,1970-01-01T00:01:00Z").as_str(), ""]);
    }

    #[test]
    fn no_part_of_a_field_becomes_a_formula_where_another_sign_separates_cells() {
        for (field, expected) in [
            ("x;=1+1;y", "x;'=1+1;y"),
            ("x\t=1+1", "x␉=1+1"),
            ("x; \"=1+1;y", "x;' \"=1+1;y"),
            (" =1+1", "' =1+1"),
            ("\"=1+1", "'\"=1+1"),
            ("x|@y", "x|'@y"),
            ("x;;+1", "x;;'+1"),
            ("＝1", "'＝1"),
            ("a-b@example.com", "a-b@example.com"),
            ("450 4.2.2 later; try again", "450 4.2.2 later; try again"),
        ] {
            assert_eq!(harmless(field), expected);
        }
    }
}
