//! Answers in their several forms. All are made from the same [`Report`](crate::report::Report), without any I/O.

pub(crate) mod check;
pub(crate) mod clocks;
pub mod csv;
pub(crate) mod doctor;
pub(crate) mod headline;
pub mod html;
pub mod json;
pub mod openmetrics;
pub(crate) mod receipt;
pub(crate) mod rehearsal;
pub mod sentences;
pub mod text;

use self::csv::Csv;
use self::html::Page;
use self::json::Json;
use self::openmetrics::OpenMetrics;
use self::text::{Terminal, Text};
use crate::report::Form;
use crate::request::{Asked, Format};

/// The program's name and version.
pub(crate) const PROGRAM: &str = concat!("bartleby ", env!("CARGO_PKG_VERSION"));

/// For whom a short answer is.
#[derive(Clone, Copy, Debug)]
pub enum Reader<'a> {
    /// Somebody who may see the queue.
    Admitted {
        /// This machine's name.
        host: &'a str,
    },
    /// Anybody else, who learns neither this machine's name nor the program's version.
    Stranger,
}

/// What a form may have to know before the first message.
pub struct Setting<'a> {
    /// The present, in seconds since 1970.
    pub(crate) now: i64,
    /// What was asked.
    pub(crate) asked: &'a Asked,
    /// The terminal that it is written to, if it is one.
    pub(crate) terminal: Option<Terminal>,
}

/// An output form.
pub(crate) struct FormRow {
    /// Its name, for `format=`.
    pub(crate) format: Format,
    /// Its media type.
    pub(crate) media_type: &'static str,
    /// The media types in `Accept` that ask for it, in lower case.
    pub(crate) accepted: &'static [&'static str],
    /// The HTTP status of an answer over a listing that failed.
    pub(crate) failed: u16,
    /// Its writer.
    pub(crate) begin: fn(&Setting<'_>) -> Box<dyn Form>,
}

/// Every output form.
pub(crate) static FORMS: [FormRow; 5] = [
    FormRow {
        format: Format::Html,
        media_type: "text/html; charset=utf-8",
        accepted: &["text/html", "application/xhtml+xml"],
        // A page that reports a failure is still a page.
        failed: 200,
        begin: |setting| Box::new(Page::of(setting.asked, setting.now)),
    },
    FormRow {
        format: Format::Text,
        media_type: "text/plain; charset=utf-8",
        accepted: &["text/plain", "text/*", "*/*"],
        failed: 503,
        begin: |setting| Box::new(Text::new(setting.now, setting.terminal)),
    },
    FormRow {
        format: Format::Json,
        media_type: "application/json",
        accepted: &["application/json", "application/*"],
        failed: 503,
        begin: |_| Box::new(Json::default()),
    },
    FormRow {
        format: Format::Csv,
        media_type: "text/csv; charset=utf-8; header=present",
        accepted: &["text/csv"],
        failed: 503,
        begin: |_| Box::new(Csv::default()),
    },
    FormRow {
        format: Format::OpenMetrics,
        media_type: "application/openmetrics-text; version=1.0.0; charset=utf-8",
        accepted: &["application/openmetrics-text"],
        // Prometheus takes any other status for no answer at all, which would hide `bartleby_up 0`.
        failed: 200,
        begin: |_| Box::new(OpenMetrics),
    },
];

/// The row of a form.
pub(crate) fn form(format: Format) -> &'static FormRow {
    FORMS.iter().find(|row| row.format == format).unwrap_or(&FORMS[0])
}

/// The form that an `Accept` header (RFC 9110, section 12.5.1) prefers. Browsers ask for HTML; curl takes anything and
/// gets text.
pub fn accepted(accept: &str) -> Format {
    let mut best = (0.0, Format::Text);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let Some(row) = FORMS.iter().find(|row| row.accepted.contains(&name.as_str())) else { continue };
        let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
        if quality > best.0 {
            best = (quality, row.format);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_the_page_and_curl_gets_text() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(accepted(firefox), Format::Html);
        assert_eq!(accepted("*/*"), Format::Text);
        assert_eq!(accepted(""), Format::Text);
        assert_eq!(accepted("application/json"), Format::Json);
        assert_eq!(accepted("text/html;q=0.5, application/json"), Format::Json);
        assert_eq!(accepted("image/png"), Format::Text);
    }

    #[test]
    fn every_format_has_a_row_of_its_own() {
        assert_eq!(FORMS.each_ref().map(|row| row.format), Format::ALL);
        assert!(Format::ALL.iter().all(|format| form(*format).format == *format));
    }
}
