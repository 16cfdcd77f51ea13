//! The head of the page: the state of the queue, and what to do about it.

use maud::{Markup, html};

use super::super::sentences::{self, Sentences};
use super::{Tone, clocks, flush_line, links, run_form};
use crate::flush::outcome;
use crate::mta::trouble::Trouble;
use crate::queue::{Filter, State};
use crate::report::Report;
use crate::request::Asked;
use crate::text::{bytes, duration, printable, thousands};

/// The name that the configuration gives this queue, so that a sample is not taken for the real one.
pub(crate) fn label(report: &Report) -> Markup {
    html! {
        @if let Some(label) = &report.label { p.label { (printable(label)) } }
    }
}

/// The state of the queue, the outcome of a flush, and the button that flushes.
pub fn status(report: &Report, tone: Tone, word: &str, asked: &Asked) -> Markup {
    let sentences = Sentences::of(report);
    html! {
        section class={"status " (tone.class())} aria-label="State of the queue" {
            @let [before, name, after] = &sentences.headline;
            p.word { (word) }
            p.headline { (before) @if !name.is_empty() { bdi { (printable(name)) } } (after) }
            @if let Some(trouble) = &report.listing.trouble { (told(trouble)) }
            @if report.listing.summary.messages > 0 { (figures(report, asked)) }
            @if let Some(advice) = sentences::advice(report) { p.advice { (advice) } }
            (clocks::clocks(report, asked))
            (followed(report))
            (flush(report))
        }
    }
}

/// The totals, each a link to what it counts.
fn figures(report: &Report, asked: &Asked) -> Markup {
    let summary = &report.listing.summary;
    let in_state =
        |state| links::filtered(asked, |filter| *filter = Filter { state: Some(state), ..Filter::default() });
    html! {
        dl.figures {
            div { dt { "Messages" } dd { a href="?" { (thousands(summary.messages)) } } }
            div { dt { "Recipients" } dd { a href="?sort=domain" { (thousands(summary.recipients)) } } }
            @if let Some(size) = summary.bytes() { div { dt { "Size" } dd { a href="?sort=-size" { (bytes(size)) } } } }
            @if let Some(oldest) = summary.oldest {
                div { dt { "Oldest" } dd { a href="?sort=-age" { (report.waited_briefly(oldest)) } } }
            }
            @for state in State::ALL {
                @if summary.state(state) > 0 {
                    div { dt { (state.as_str()) } dd { a href=(in_state(state)) { (thousands(summary.state(state))) } } }
                }
            }
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
            @if report.flush.under_way { p { "The run is still in progress." } }
        }
        @if let Some(said) = &flush.rehearsal { p.aside { "Asked before the run: " bdi { (printable(said)) } } }
    }
}

/// The button that runs the queue, or why there is none.
fn flush(report: &Report) -> Markup {
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
            Ok(()) if report.listing.summary.messages > 0 => (run_form(html! { p.run {
                @if report.flush.under_way { "The queue is being run now." }
                @else if report.flush.wait_seconds > 0 {
                    "The queue was run a moment ago; it can be run again in "
                    (duration(i64::try_from(report.flush.wait_seconds).unwrap_or(i64::MAX))) "."
                } @else {
                    button.action name="flush" value="all" { "Deliver waiting mail now" }
                    @if report.passed_over() > 0 { " Tries to deliver all that is not on hold. Nothing is deleted." }
                    @else { " Tries to deliver all waiting mail now. Nothing is deleted." }
                    @if report.primary.primaries.is_empty() { " It helps once the main mail server is back." }
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

/// A remedy.
pub(crate) fn remedy(text: &str) -> Markup {
    html! {
        @if !text.is_empty() { p.remedy { strong { "To do: " } (printable(text)) } }
    }
}
