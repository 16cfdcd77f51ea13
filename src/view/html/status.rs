//! The head of the page: the state of the queue, and what to do about it.

use maud::{Markup, html};

use super::super::sentences::{self, Sentences};
use super::{flush_line, run_form};
use crate::flush::outcome;
use crate::mta::trouble::Trouble;
use crate::report::Report;
use crate::text::{Step, duration, printable, steps};
use crate::view::headline::{Headline, Tone};

/// The name that the configuration gives this queue, so that a sample is not taken for the real one.
pub(crate) fn label(report: &Report) -> Markup {
    html! {
        @if let Some(label) = &report.label { p.label { (printable(label)) } }
    }
}

/// The state of the queue, the outcome of a flush, and the button that flushes.
pub(crate) fn status(report: &Report, headline: &Headline) -> Markup {
    let [before, name, after] = Sentences::of(report).for_whom;
    html! {
        section class={"status " (headline.tone.class())} aria-label="State of the queue" {
            p.headline { em { (headline.sentence) } " " (headline.rest) }
            @if let Some(trouble) = &report.listing.trouble { (told(trouble)) }
            @if let Some(advice) = sentences::advice(report).filter(|_| headline.tone != Tone::Ready) { p.advice { (advice) } }
            p.soft { (before) @if !name.is_empty() { bdi { (printable(&name)) } } (after) }
            (followed(report))
            (flush(report))
        }
    }
}

/// What comes of the flush that was asked for.
fn followed(report: &Report) -> Markup {
    let Some((flush, found)) = &report.followed else {
        return html! { @if let Some(number) = report.unrecorded { p.outcome { (sentences::unrecorded(number)) } } };
    };
    html! {
        div class={ "outcome" @if found.is_alarming() { " alarm" } } role="status" {
            p {
                (flush_line(report, flush)) ": " bdi { (printable(&sentences::outcome(report, flush, found))) } "."
            }
            @if let Some(all) = flush.messages.filter(|all| *all > 0 && report.listing.trouble.is_none()) {
                progress max=(all) value=(all.saturating_sub(found.messages_left)) { (found.messages_left) " left" }
            }
            @if let Some(pace) = found.pace { p { "While it runs: " (outcome::pace(pace, report.listing.sampling.started)) "." } }
            @if report.flush.under_way { p.soft { "The run is still in progress." } }
        }
        @if let Some(said) = &flush.rehearsal { p.aside { "Asked before the run: " bdi { (printable(said)) } } }
    }
}

/// The button that runs the queue, or why there is none.
fn flush(report: &Report) -> Markup {
    let overdue = report.first_return().is_some_and(|first| first.overdue > 0);
    let is_wise = !overdue || report.has_primary_up() || report.primary.primaries.is_empty();
    let waits = report.listing.summary.messages > 0 || report.listing.trouble.is_some();
    html! {
        @match &report.flush.possible {
            Err(trouble) if waits && report.listing.trouble.as_ref() != Some(trouble) => {
                h2 { "The queue can't be run from here" }
                (told(trouble))
            }
            Ok(()) if waits && report.passed_over() == report.listing.summary.messages && report.listing.trouble.is_none() => {
                (remedy(&report.flush.release))
            }
            Ok(()) if report.listing.summary.messages > 0 => (run_form(html! { div.run {
                @if report.flush.under_way { @if report.followed.is_none() { p { "The queue is being run now." } } }
                @else if report.flush.wait_seconds > 0 {
                    p {
                        "The queue was run a moment ago; it can be run again in "
                        (duration(i64::try_from(report.flush.wait_seconds).unwrap_or(i64::MAX))) "."
                    }
                } @else {
                    button.action.quiet[!is_wise] name="flush" value="all" { "Deliver waiting mail now" }
                    p.soft {
                        @if report.passed_over() > 0 { "Tries to deliver all that is not on hold. Nothing is deleted." }
                        @else { "Tries to deliver all waiting mail now. Nothing is deleted." }
                        @if report.primary.primaries.is_empty() { " It helps once the main mail server is back." }
                    }
                }
            } })),
            _ => {}
        }
        @if waits && report.flush.possible.is_ok() {
            @for sentence in sentences::before_a_run(report) { p.aside { (printable(&sentence)) } }
        }
        @if let Some(reason) = report.flush.unguarded.as_ref().filter(|_| waits) {
            p.aside {
                "The cool-down between queue runs and their log are off, as there is nowhere to keep them: "
                (printable(&reason.to_string())) "."
            }
        }
        @if let Some(file) = &report.flush.set_aside {
            p.aside {
                "The log of queue runs was damaged, so a new one was begun. The old one is kept as "
                code { (printable(&file.to_string_lossy())) } "."
            }
        }
    }
}

/// A fault and its remedy.
pub(crate) fn told(trouble: &Trouble) -> Markup {
    html! {
        p { bdi { (printable(&trouble.to_string())) } }
        (remedy(&trouble.remedy()))
    }
}

/// A remedy: sentences, and blocks that can be selected and pasted as a whole.
pub(crate) fn remedy(text: &str) -> Markup {
    html! {
        @if !text.is_empty() {
            div.remedy {
                p.small { "To do" }
                @for step in steps(text) {
                    @match step {
                        Step::Say(words) => p { (printable(words)) },
                        Step::Paste(lines) => pre { @for line in lines { (printable(line)) "\n" } },
                    }
                }
            }
        }
    }
}
