//! What the facts do not say of the three clocks, the clocks of each message, and the outages of the primary.

use maud::{Markup, html};

use super::super::clocks::{self, Clocks};
use super::status;
use crate::queue::{Lifetimes, Message};
use crate::report::Report;
use crate::state::Outage;
use crate::text::{count, duration, printable, weekday_time};

/// What is to be known of the clocks besides the facts, and what is to be done about it.
pub(crate) fn notes(report: &Report) -> Markup {
    let Some(Clocks { notes, remedies, .. }) = Clocks::of(report) else { return html! {} };
    html! {
        @if !notes.is_empty() || !remedies.is_empty() {
            div.notes {
                @for note in &notes { p { (printable(note)) } }
                @for remedy in &remedies { (status::remedy(remedy)) }
            }
        }
    }
}

/// When a message goes back, how often it was tried, and when it is tried next.
pub(crate) fn of_message(report: &Report, lifetimes: &Lifetimes, message: &Message<'_>) -> Markup {
    let lines = [clocks::of_message(report, lifetimes, message), clocks::attempts(report, message)];
    html! { @for (index, line) in lines.iter().flatten().enumerate() { @if index > 0 { br; } (line) } }
}

/// The last outages of the primary, and the longest.
pub(crate) fn outages(report: &Report) -> Markup {
    let outages = &report.outages;
    if outages.latest.is_empty() {
        return html! {};
    }
    let longest = outages.longest.as_ref().filter(|longest| !outages.latest.contains(longest));
    html! {
        section aria-labelledby="outages" {
            h2 #outages { "Outages of the main mail server" }
            p.soft { "As far as they were seen." }
            ul { @for outage in outages.latest.iter().chain(longest) { li { (line(report, outage)) } } }
        }
    }
}

fn line(report: &Report, outage: &Outage) -> Markup {
    let time = |at| weekday_time(at, &report.zone);
    html! {
        a href={ "?outage=" (outage.number) } { bdi { (printable(&outage.host)) } } ": down from " (time(outage.down))
        @match outage.up {
            Some(up) => { " to " (time(up)) }
            None => " until now",
        }
        ", " (duration(outage.seconds(report.listing.sampling.started)))
        @if let Some(messages) = outage.messages_at_most { "; at most " (count(messages, "message", "messages")) " waiting" }
    }
}
