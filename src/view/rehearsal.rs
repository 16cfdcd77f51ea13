//! Why a run was not started, in every form: what the main mail server would do with the mail.

use serde_json::{Value, json};

use super::{PROGRAM, html, json, text};
use crate::flush::rehearsal::{NotRun, Spoken};
use crate::primary::rehearsal::Asked;
use crate::queue::rfc3339;
use crate::request::Format;
use crate::text::printable_lines;

/// The whole answer, in this form.
pub(crate) fn not_run(format: Format, host: &str, not_run: &NotRun) -> Vec<u8> {
    match format {
        Format::Html => html::rehearsal::not_run(host, not_run).into_string().into_bytes(),
        Format::Json => json::short(&value(not_run)),
        Format::Text | Format::Csv | Format::OpenMetrics => {
            let mut bytes = text::refusal("Not run", &not_run.to_string(), &not_run.remedy());
            let lines: String = not_run.lines().iter().map(|line| format!("{line}\n")).collect();
            bytes.extend_from_slice(printable_lines(&lines).as_bytes());
            bytes
        }
    }
}

fn value(not_run: &NotRun) -> Value {
    json!({
        "version": json::VERSION,
        "program": PROGRAM,
        "error": {"message": not_run.to_string(), "remedy": not_run.remedy()},
        "despite": not_run.despite(),
        "rehearsal": not_run.asked.iter().map(primary).collect::<Vec<_>>(),
    })
}

fn primary(spoken: &Spoken) -> Value {
    let rehearsed = &spoken.rehearsed;
    json!({
        "host": rehearsed.host,
        "at": rfc3339(rehearsed.at),
        "verdict": rehearsed.verdict.as_str(),
        "words": spoken.sentence(),
        "recipients": rehearsed.answers.recipients.iter().map(recipient).collect::<Vec<_>>(),
    })
}

fn recipient(asked: &Asked) -> Value {
    json!({"address": asked.recipient, "answer": asked.counts.as_str(), "words": asked.said.words})
}
