//! CSV (RFC 4180), streamed: a line a recipient.
//!
//! Strangers write most of it, and a spreadsheet takes a field that begins with one of some signs for a formula:
//! such a field gets an apostrophe in front. Whoever wants every byte as it is takes JSON.

use std::borrow::Cow;
use std::io::{self, Write};

use csv::{QuoteStyle, Terminator, Writer, WriterBuilder};

use super::{Report, Streamed};
use crate::queue::{Message, rfc3339};

/// The names of the columns.
const COLUMNS: [&str; 9] =
    ["id", "state", "mta_state", "size", "arrival", "sender", "recipient", "delivered", "reason"];

/// In the state column of a last line that tells why the listing is not complete.
const INCOMPLETE: &str = "INCOMPLETE";

/// Writes CSV.
pub struct Csv<W: Write> {
    out: Writer<W>,
}

impl<W: Write> Csv<W> {
    /// Begins with the columns' names.
    ///
    /// # Errors
    /// Those of writing.
    pub fn begin(out: W) -> io::Result<Self> {
        let terminator = Terminator::CRLF;
        let mut out = WriterBuilder::new().terminator(terminator).quote_style(QuoteStyle::Necessary).from_writer(out);
        out.write_record(COLUMNS)?;
        Ok(Csv { out })
    }

    /// The writer, to end the answer with.
    ///
    /// # Errors
    /// Those of writing.
    pub fn into_inner(self) -> io::Result<W> {
        self.out.into_inner().map_err(|error| error.into_error())
    }
}

impl<W: Write> Streamed for Csv<W> {
    fn message(&mut self, message: &Message<'_>) -> io::Result<()> {
        let size = message.size.map(|size| size.to_string()).unwrap_or_default();
        let arrival = message.arrival.and_then(rfc3339).unwrap_or_default();
        let sender = match message.sender.as_deref() {
            None => "",
            Some("") => "<>",
            Some(sender) => sender,
        };
        let mut line = |recipient: &str, delivered: &str, reason: &str| {
            let fields = [&message.id, message.state.as_str(), &message.mta_state, &size, &arrival, sender, recipient];
            self.out
                .write_record(fields.into_iter().chain([delivered, reason]).map(|field| harmless(field).into_owned()))
        };
        if message.recipients.is_empty() {
            line("", "", "")?;
        }
        for recipient in &message.recipients {
            let delivered = if recipient.delivered { "yes" } else { "no" };
            line(&recipient.address, delivered, recipient.reason.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }

    fn end(&mut self, report: &Report) -> io::Result<()> {
        if let Some(trouble) = &report.listing.trouble {
            let status = serde_json::to_value(trouble.status())?;
            let reason = format!("{trouble} {}", trouble.remedy());
            let fields = ["", INCOMPLETE, status.as_str().unwrap_or_default(), "", "", "", "", "", &reason];
            self.out.write_record(fields.map(|field| harmless(field).into_owned()))?;
        }
        self.out.flush()
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
        let mut csv = Csv::begin(Vec::new()).unwrap();
        csv.message(&message).unwrap();
        csv.message(&Message { recipients: vec![], sender: None, ..message }).unwrap();
        let text = String::from_utf8(csv.into_inner().unwrap()).unwrap();
        let lines: Vec<_> = text.split("\r\n").collect();
        assert_eq!(lines[0], "id,state,mta_state,size,arrival,sender,recipient,delivered,reason");
        let start = "4F1A,deferred,deferred,9,1970-01-01T00:00:00Z";
        assert_eq!(lines[1], format!("{start},<>,'=cmd|' /C calc'!A0@example.com,no,\"450 \"\"no\"\", later\""));
        assert_eq!(lines[2], format!("{start},<>,b@x,no,'+1"));
        assert_eq!(lines[3..], [format!("{start},,,,").as_str(), ""]);
    }
}
