//! The log of queue runs.

use maud::{Markup, html};

use super::flush_line;
use crate::flush::outcome;
use crate::report::Report;
use crate::state::Flush;
use crate::text::printable;

/// The last runs, each with its outcome.
pub(crate) fn runs(report: &Report) -> Markup {
    if report.flush.log.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="runs" {
            h2 #runs { "Queue runs" }
            ul.runs { @for flush in &report.flush.log { li { (run(report, flush)) } } }
        }
    }
}

fn run(report: &Report, flush: &Flush) -> Markup {
    let waited = flush.messages.map_or("it is not known how many waited".into(), |all| format!("{all} waited"));
    html! {
        a href={ "?flushed=" (flush.number) } { (flush_line(report, flush)) } ": "
        @match &flush.outcome {
            Some(outcome) => {
                bdi { (printable(&outcome::sentence(flush, outcome))) }
                @if !outcome.settled { " (when last seen)" }
            }
            None => { (waited) "; what came of it was not watched" }
        }
        "."
        @if let Some(exit) = flush.exit.as_ref().filter(|exit| *exit != "ended with status 0") {
            " The command " (printable(exit)) "."
        }
    }
}
