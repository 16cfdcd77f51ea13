//! The receipt of an outage as a page, to be printed on one sheet.

use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::frame;
use crate::queue::rfc3339;
use crate::report::receipt::Receipt;
use crate::state::{Flush, Outcome};
use crate::text::{local_time, printable};
use crate::view::Reader;
use crate::view::headline::Tone;
use crate::view::receipt::{lines, notes, run_line, run_said};

/// The page.
pub(crate) fn page(host: &str, zone: &TimeZone, receipt: &Receipt) -> Markup {
    let title = format!("Outage {} of the main mail server", receipt.outage.number);
    let when = html! {
        p.when { "as of " time datetime=[rfc3339(receipt.now)] { (local_time(receipt.now, zone)) } }
    };
    let tone = if receipt.outage.up.is_some() { Tone::Calm } else { Tone::Alarm };
    frame(
        &title,
        tone,
        Reader::Admitted { host },
        &when,
        html! {
            section class={ "status " (tone.class()) } { h2.headline { (title) } }
            dl.receipt {
                @for (name, said) in lines(zone, receipt) {
                    div { dt { (name) } dd { bdi { (printable(&said)) } } }
                }
            }
            section.receipt aria-labelledby="runs" {
                h2 #runs { "Queue runs" }
                @if receipt.runs.is_empty() {
                    p { "The queue was not run." }
                } @else {
                    ul.rows { @for run in &receipt.runs { (of_run(zone, run)) } }
                }
            }
            section.receipt aria-label="What the figures do not cover" {
                @for note in notes(receipt) { p.soft { (note) } }
            }
            nav { a href="?" { "Back to the queue" } a href={ "?outage=" (receipt.outage.number) "&format=text" } { "As text" } a href={ "?outage=" (receipt.outage.number) "&format=json" } { "As JSON" } }
        },
    )
}

fn of_run(zone: &TimeZone, run: &Flush) -> Markup {
    let is_alarming = run.outcome.as_ref().is_some_and(Outcome::is_alarming);
    html! { li class=[is_alarming.then_some("alarm")] {
        a href={ "?flushed=" (run.number) } { bdi { (printable(&run_line(zone, run))) } } ": " bdi { (printable(&run_said(run))) } "."
    } }
}
