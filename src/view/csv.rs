//! CSV (RFC 4180), streamed: a line a recipient.
//!
//! Strangers write most of it, and a spreadsheet takes a field that begins with one of some signs for a formula:
//! such a field gets an apostrophe in front. Whoever wants every byte as it is takes JSON.

use std::borrow::Cow;
use std::io;

use csv::{QuoteStyle, Terminator, Writer, WriterBuilder};

use crate::queue::{Message, Row, rfc3339};
use crate::report::{Form, Report, Verdict};
use crate::system::Body;
use crate::view::sentences::{self, of_listing};

/// The names of the columns.
const COLUMNS: [&str; 9] =
    ["id", "state", "mta_state", "size", "arrival", "sender", "recipient", "delivered", "reason"];

/// In the state column of a last line that tells why the listing is not complete.
const INCOMPLETE: &str = "INCOMPLETE";

/// In the state column of a last line that says why there are no reasons.
const NOTE: &str = "NOTE";

/// Writes CSV.
pub struct Csv;

/// How much of a line is put together, in bytes.
const LINE: usize = 1024;

impl Csv {
    fn writer<'b, 'a>(to: &'b mut Body<'a>) -> Writer<&'b mut Body<'a>> {
        let mut builder = WriterBuilder::new();
        builder.terminator(Terminator::CRLF).quote_style(QuoteStyle::Necessary).buffer_capacity(LINE).from_writer(to)
    }
}

impl Form for Csv {
    /// The columns' names.
    fn begin(&mut self, to: &mut Body<'_>) -> io::Result<()> {
        let mut lines = Csv::writer(to);
        lines.write_record(COLUMNS)?;
        lines.flush()
    }

    fn verdict(&self, report: &Report) -> Verdict {
        of_listing(report)
    }

    fn message(&mut self, message: &Message<'_>, to: &mut Body<'_>) -> io::Result<()> {
        let mut lines = Csv::writer(to);
        let size = message.size.map(|size| size.to_string()).unwrap_or_default();
        let arrival = message.arrival.and_then(rfc3339).unwrap_or_default();
        let sender = match message.sender.as_deref() {
            None => "",
            Some("") => "<>",
            Some(sender) => sender,
        };
        let mut line = |recipient: &str, delivered: &str, reason: &str| {
            let fields = [&message.id, message.state.as_str(), &message.mta_state, &size, &arrival, sender, recipient];
            lines.write_record(fields.into_iter().chain([delivered, reason]).map(|field| harmless(field).into_owned()))
        };
        if message.recipients.is_empty() {
            line("", "", "")?;
        }
        for recipient in &message.recipients {
            let delivered = if recipient.delivered { "yes" } else { "no" };
            line(&recipient.address, delivered, recipient.reason.as_deref().unwrap_or_default())?;
        }
        lines.flush()
    }

    fn end(&mut self, report: &Report, _rows: &[Row], to: &mut Body<'_>) -> io::Result<()> {
        let mut lines = Csv::writer(to);
        if let Some(trouble) = &report.listing.trouble {
            let status = serde_json::to_value(trouble.status())?;
            let reason = format!("{trouble} {}", trouble.remedy());
            let fields = ["", INCOMPLETE, status.as_str().unwrap_or_default(), "", "", "", "", "", &reason];
            lines.write_record(fields.map(|field| harmless(field).into_owned()))?;
        } else if let Some(note) = report.note {
            lines.write_record(["", NOTE, "", "", "", "", "", "", sentences::note(note)])?;
        }
        lines.flush()
    }
}

/// A field that no spreadsheet takes for a formula.
fn harmless(field: &str) -> Cow<'_, str> {
    if field.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']) {
        Cow::Owned(format!("'{field}"))
    } else {
        Cow::Borrowed(field)
    }
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
        };
        let message = Message {
            id: "4F1A".into(),
            state: State::Deferred,
            mta_state: "deferred".into(),
            size: Some(9),
            arrival: Some(0),
            sender: Some("".into()),
            recipients: vec![recipient("=cmd|' /C calc'!A0@example.com", "450 \"no\", later"), recipient("b@x", "+1")],
        };
        let mut bytes = Vec::new();
        let mut body = Body::into(&mut bytes);
        Csv.begin(&mut body).unwrap();
        Csv.message(&message, &mut body).unwrap();
        Csv.message(&Message { recipients: vec![], sender: None, ..message }, &mut body).unwrap();
        body.finish().unwrap();
        drop(body);
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<_> = text.split("\r\n").collect();
        assert_eq!(lines[0], "id,state,mta_state,size,arrival,sender,recipient,delivered,reason");
        let start = "4F1A,deferred,deferred,9,1970-01-01T00:00:00Z";
        assert_eq!(lines[1], format!("{start},<>,'=cmd|' /C calc'!A0@example.com,no,\"450 \"\"no\"\", later\""));
        assert_eq!(lines[2], format!("{start},<>,b@x,no,'+1"));
        assert_eq!(lines[3..], [format!("{start},,,,").as_str(), ""]);
    }
}
