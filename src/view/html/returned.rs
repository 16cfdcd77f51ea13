//! Whose mail went back in the run that was asked about.

use maud::{Markup, html};

use crate::report::Report;
use crate::state::SentBack;
use crate::text::{count, printable};

/// Each recipient, with the reason in the mail log's words.
pub(crate) fn returned(report: &Report) -> Markup {
    let tally = report.followed.as_ref().and_then(|(_, outcome)| outcome.tally.as_ref());
    let Some(tally) = tally.filter(|tally| tally.returned > 0) else { return html! {} };
    html! {
        section aria-labelledby="returned" {
            h2 #returned { "Returned to the sender" }
            @if tally.sent_back.is_empty() {
                p { "The list is kept for the latest runs only." }
            } @else {
                table {
                    thead { tr {
                        th scope="col" { "Recipient" }
                        th scope="col" { "Why, in the mail log's words" }
                        th scope="col" { "Queue id" }
                    } }
                    tbody { @for one in &tally.sent_back { (row(one)) } }
                }
                @if tally.unlisted() > 0 { p { "And " (count(tally.unlisted(), "other", "others")) "." } }
            }
        }
    }
}

fn row(one: &SentBack) -> Markup {
    html! {
        tr {
            th scope="row" { bdi { (printable(&one.recipient)) } }
            td { bdi { (printable(&one.reason)) } }
            td { bdi { (printable(&one.id)) } }
        }
    }
}
