//! The three clocks on the page, and the outages of the primary.

use maud::{Markup, html};

use super::super::clocks::{self, Clocks};
use super::{links, status};
use crate::queue::{Due, Filter, Lifetimes, Message};
use crate::report::Report;
use crate::request::Asked;
use crate::state::Outage;
use crate::text::{count, duration, printable, weekday_time};

/// Since when the primary is down, by when what waits is tried again, and when it goes back.
pub(crate) fn clocks(report: &Report, asked: &Asked) -> Markup {
    let Some(Clocks { sentences, remedies }) = Clocks::of(report) else { return html! {} };
    let overdue = report.first_return().is_some_and(|first| first.overdue > 0);
    let of_overdue = |filter: &mut Filter| *filter = Filter { returns: Some(Due::Overdue), ..Filter::default() };
    html! {
        div.clocks {
            @for sentence in &sentences { p { (printable(sentence)) } }
            @if overdue { p { a href=(links::filtered(asked, of_overdue)) { "Show what is past its time" } } }
            @for remedy in &remedies { (status::remedy(remedy)) }
        }
    }
}

/// When a message goes back, how often it was tried, and when it is tried next.
pub(crate) fn of_message(report: &Report, lifetimes: &Lifetimes, message: &Message<'_>) -> Markup {
    let lines = [clocks::of_message(report, lifetimes, message), clocks::attempts(report, message)];
    html! { @for line in lines.iter().flatten() { " " span.exact { (line) } } }
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
        bdi { (printable(&outage.host)) } ": down from " (time(outage.down))
        @match outage.up {
            Some(up) => { " to " (time(up)) }
            None => " until now",
        }
        ", " (duration(outage.seconds(report.now)))
        @if let Some(messages) = outage.messages_at_most { "; at most " (count(messages, "message", "messages")) " waiting" }
    }
}
