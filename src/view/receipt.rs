//! The receipt of an outage in every form that it has: page, text and JSON. All forms say the same sentences.

use jiff::tz::TimeZone;
use serde_json::json;

use super::{PROGRAM, html, json, sentences};
use crate::flush::outcome;
use crate::queue::rfc3339;
use crate::report::receipt::{Gap, Receipt, Total};
use crate::request::Format;
use crate::state::Flush;
use crate::text::{count, duration, local_time, printable_lines};

/// The whole answer, in this form.
pub(crate) fn receipt(format: Format, host: &str, zone: &TimeZone, receipt: &Receipt) -> Vec<u8> {
    match format {
        Format::Html => html::receipt::page(host, zone, receipt).into_string().into_bytes(),
        Format::Json => json(host, receipt),
        Format::Text | Format::Csv | Format::OpenMetrics => text(host, zone, receipt),
    }
}

/// A name and what is said of it.
pub(crate) type Line = (&'static str, String);

/// What is said of the outage itself.
pub(crate) fn lines(zone: &TimeZone, receipt: &Receipt) -> Vec<Line> {
    let outage = &receipt.outage;
    let time = |at| local_time(at, zone);
    let by = |seen_by: &Option<String>| match seen_by {
        Some(word) => format!("seen by {}", seer(word)),
        None => "it is not known who saw it".to_owned(),
    };
    let long = duration(outage.seconds(receipt.now));
    vec![
        ("Primary", outage.host.clone()),
        ("Down from", format!("{} ({})", time(outage.down), by(&outage.down_seen_by))),
        match outage.up {
            Some(up) => ("Up again", format!("{} ({})", time(up), by(&outage.up_seen_by))),
            None => ("Up again", "It is still going on, as far as was seen.".into()),
        },
        ("How long", if outage.up.is_some() { long } else { format!("{long} so far") }),
        (
            "Waited at most",
            outage.messages_at_most.map_or_else(
                || "Not known: nobody looked at the queue meanwhile.".into(),
                |messages| format!("{}, as far as was seen", count(messages, "message", "messages")),
            ),
        ),
        ("Delivered", known(receipt, |total| total.delivered)),
        ("Returned to the sender", known(receipt, |total| total.returned)),
        ("Refused, with no sender to return to", known(receipt, |total| total.double_bounces)),
        ("Left, no record", known(receipt, |total| total.unrecorded)),
        (
            "Still waiting",
            match receipt.left_waiting() {
                Some((0, _)) => "Nothing of what the last run of the whole queue was for.".into(),
                Some((messages, recipients)) => format!(
                    "{} for {} when the last run of the whole queue was over",
                    count(messages, "message", "messages"),
                    count(recipients, "recipient", "recipients")
                ),
                None => "Not known: no run of the whole queue was seen to its end.".into(),
            },
        ),
    ]
}

/// A figure of all runs together.
fn known(receipt: &Receipt, figure: fn(&Total) -> u64) -> String {
    let total = receipt.total();
    let recipients = count(figure(&total), "recipient", "recipients");
    let runs = receipt.runs.len() as u64;
    match total.unknown_runs {
        0 if runs == 0 => "Not known: the queue was not run.".into(),
        0 => recipients,
        unknown if unknown == runs => {
            "Not known: the mail log could not be read, or the runs were not seen to their end.".into()
        }
        unknown => format!("{recipients}; of {} it is not known", count(unknown, "further run", "further runs")),
    }
}

/// The part of this program that saw something, by its word on record.
fn seer(word: &str) -> String {
    match word {
        "page" => "a view of the page".into(),
        word => format!("bartleby {word}"),
    }
}

/// Which run it was, when and by whom.
pub(crate) fn run_line(zone: &TimeZone, run: &Flush) -> String {
    let target = if run.target == "all" { String::new() } else { format!(" of {}", run.target) };
    let despite = run.despite.map(|despite| format!(", {}", sentences::in_spite_of(despite))).unwrap_or_default();
    format!("Queue run {}{target}, {}, by {}{despite}", run.number, local_time(run.started, zone), run.by)
}

/// What came of a run.
pub(crate) fn run_said(run: &Flush) -> String {
    match &run.outcome {
        Some(found) if found.settled || run.restarted => outcome::sentence(run, found),
        Some(found) => format!("{} (when last seen)", outcome::sentence(run, found)),
        None if run.restarted => {
            "this machine was restarted in the middle of it, so what came of it is not known".into()
        }
        None => "what came of it was not watched".into(),
    }
}

/// What the figures do not cover.
pub(crate) fn notes(receipt: &Receipt) -> Vec<&'static str> {
    let gaps = receipt.gaps.iter().map(|gap| match gap {
        Gap::Dropped => "Earlier runs may be missing: they are no longer on record.",
        Gap::Further => "There were more runs than are shown.",
    });
    let until = "Runs count up to a day after the primary was seen up again. What the mail server delivered or returned by itself, \
                 outside of them, is not counted, nor what nobody saw.";
    gaps.chain([until]).collect()
}

fn text(host: &str, zone: &TimeZone, receipt: &Receipt) -> Vec<u8> {
    let mut text = format!("Outage {} of the main mail server, seen by {host}\n\n", receipt.outage.number);
    for (name, said) in lines(zone, receipt) {
        text += &format!("{name:<23} {said}\n");
    }
    text += if receipt.runs.is_empty() { "\nThe queue was not run.\n" } else { "\n" };
    for run in &receipt.runs {
        text += &format!("{}: {}.\n", run_line(zone, run), run_said(run));
    }
    text += "\n";
    for note in notes(receipt) {
        text += &format!("{note}\n");
    }
    text += &format!("Made {} by {PROGRAM}.\n", local_time(receipt.now, zone));
    printable_lines(&text).into_owned().into_bytes()
}

fn json(host: &str, receipt: &Receipt) -> Vec<u8> {
    let (outage, total) = (&receipt.outage, receipt.total());
    let left = receipt.left_waiting();
    json::short(&json!({
        "version": json::VERSION,
        "program": PROGRAM,
        "host": host,
        "generated": rfc3339(receipt.now),
        "outage": {
            "number": outage.number,
            "host": outage.host,
            "down": rfc3339(outage.down),
            "up": outage.up.and_then(rfc3339),
            "lasts": outage.up.is_none(),
            "seconds": outage.seconds(receipt.now),
            "down_seen_by": outage.down_seen_by,
            "up_seen_by": outage.up_seen_by,
            "messages_at_most": outage.messages_at_most,
        },
        "total": {
            "delivered": total.delivered,
            "returned": total.returned,
            "double_bounces": total.double_bounces,
            "unrecorded": total.unrecorded,
            "runs": receipt.runs.len(),
            "unknown_runs": total.unknown_runs,
            "messages_left": left.map(|(messages, _)| messages),
            "recipients_left": left.map(|(_, recipients)| recipients),
        },
        "runs": receipt.runs.iter().map(json::flush).collect::<Vec<_>>(),
        "notes": notes(receipt),
    }))
}
