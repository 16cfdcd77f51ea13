//! The server that this one stands in for.

use maud::{Markup, html};

use super::status;
use crate::primary::{Condition, Primary};
use crate::report::Report;
use crate::text::{duration, printable};

/// The state of each primary, and the faults in the domain name system.
pub(crate) fn primary(report: &Report) -> Markup {
    let outlook = &report.primary;
    if outlook.primaries.is_empty() && outlook.faults.is_empty() && outlook.notes.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="primary" {
            h2 #primary { "Main mail server" }
            @if let Some(seen) = outlook.seen.filter(|seen| report.age(*seen) > 0) {
                p.soft { "Seen " (duration(report.age(seen))) " ago." }
            }
            ul { @for primary in &outlook.primaries { li class=(class(primary.state)) { (line(report, primary)) } } }
            @for fault in &outlook.faults {
                p { (printable(&fault.message)) }
                (status::remedy(&fault.remedy))
            }
            @for note in &outlook.notes { p { (printable(note)) } }
        }
    }
}

fn line(report: &Report, primary: &Primary) -> Markup {
    html! {
        @let since = primary.since.map(|since| report.age(since)).filter(|age| *age >= 60);
        bdi { (printable(&primary.host)) }
        @if since.is_some() { " has been " } @else { " is " }
        strong { (primary.state.as_str()) }
        @if let Some(age) = since { " for " (duration(age)) " (as far as seen)" }
        @if !primary.detail.is_empty() { ": " bdi { (printable(&primary.detail)) } }
        span.soft { " (" (primary.milliseconds) " ms)" }
    }
}

fn class(state: Condition) -> &'static str {
    match state {
        Condition::Up => "ok",
        Condition::Busy | Condition::Unknown => "warning",
        Condition::Down => "critical",
    }
}
