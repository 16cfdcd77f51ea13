//! The log of queue runs.

use maud::{Markup, html};

use super::flush_line;
use crate::flush::outcome;
use crate::report::Report;
use crate::state::{Flush, Outcome};
use crate::text::printable;

/// The last runs, each with its outcome.
pub(crate) fn runs(report: &Report) -> Markup {
    if report.flush.log.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="runs" {
            h2 #runs { "Queue runs" }
            ul.rows { @for flush in &report.flush.log { (run(report, flush)) } }
        }
    }
}

fn run(report: &Report, flush: &Flush) -> Markup {
    let waited = flush.messages.map_or("it is not known how many waited".into(), |all| format!("{all} waited"));
    let is_alarming = flush.outcome.as_ref().is_some_and(Outcome::is_alarming);
    html! { li class=[is_alarming.then_some("alarm")] {
        a href={ "?flushed=" (flush.number) } { (flush_line(report, flush)) } ": "
        @match &flush.outcome {
            Some(found) => {
                bdi { (printable(&outcome::sentence(flush, found))) }
                @if !found.settled { " (when last seen)" }
                @if let Some(pace) = found.pace.filter(|_| !flush.restarted && report.flush.under_way) { "; " (outcome::pace(pace, report.listing.sampling.started)) }
            }
            None if flush.restarted => {
                (waited) "; this machine was restarted in the middle of it, so what came of it is not known"
            }
            None => { (waited) "; what came of it was not watched" }
        }
        "."
        @if let Some(exit) = flush.exit.as_ref().filter(|exit| *exit != "ended with status 0") {
            " The command " (printable(exit)) "."
        }
    } }
}
