//! The table of messages.

use maud::{Markup, html};

use super::super::Report;
use super::super::words::{bytes, count, printable, short_duration, thousands};
use super::{links, status};
use crate::queue::{Message, Recipient, State, Window, rfc3339};
use crate::request::{Asked, Target};

/// Recipients of one message that are shown without asking.
const RECIPIENTS_SHOWN: usize = 5;

/// The longest word, in characters, that is not to be broken.
const LONGEST_WORD: usize = 40;

/// The messages of one page, with the way to the others.
pub fn messages(report: &Report, rows: &[Message<'_>], asked: &Asked) -> Markup {
    let Some((window, matched)) = report.selection else { return html! {} };
    if report.listing.summary.messages == 0 {
        return html! {};
    }
    html! {
        section.messages aria-labelledby="messages" {
            h2 #messages { (heading(report, rows.len(), window, matched)) }
            @if !asked.filter.is_empty() {
                p { (count(matched, "message matches", "messages match")) ". " a href="?" { "Show all" } }
            }
            @if let Some(note) = report.note { p { (note) } }
            @if rows.is_empty() && matched > 0 {
                p { "There is no page " (window.page) ". " a href=(links::page(asked, window.pages(matched))) { "To the last page" } }
            }
            @if let Some(trouble) = report.unexplained.as_ref().filter(|_| !rows.is_empty()) {
                (status::told(trouble))
            }
            @if !rows.is_empty() {
                table {
                    thead {
                        tr {
                            th scope="col" { "Waits" }
                            th scope="col" { "Sender and recipients" }
                            @if is_sized(report) { th scope="col" { "Size" } }
                            th scope="col" { "State and id" }
                        }
                    }
                    tbody { @for message in rows { (row(report, message)) } }
                }
            }
            (paging(window, matched, asked))
        }
    }
}

/// Whether the mail server tells sizes.
fn is_sized(report: &Report) -> bool {
    report.listing.summary.bytes().is_some()
}

fn heading(report: &Report, rows: usize, window: Window, matched: u64) -> String {
    let first = (window.page as u64 - 1).saturating_mul(window.per_page as u64) + 1;
    if rows == 0 || (rows as u64 == matched && report.listing.summary.messages == matched) {
        return count(matched, "message", "messages");
    }
    format!("Messages {}-{} of {}", thousands(first), thousands(first + rows as u64 - 1), thousands(matched))
}

fn row(report: &Report, message: &Message<'_>) -> Markup {
    html! {
        tr {
            td.age {
                @if let Some(arrival) = message.arrival {
                    time datetime=[rfc3339(arrival)] { (unbroken(&short_duration(report.age(arrival)))) }
                    " " span.exact { (report.local_time(arrival).get(..16).unwrap_or_default()) }
                } @else { "not told" }
            }
            td.mail {
                div { span.soft { "from " } (sender(message)) }
                (recipients(&message.recipients))
            }
            @if is_sized(report) { td.size { @if let Some(size) = message.size { (unbroken(&bytes(size))) } @else { "?" } } }
            td.state {
                (message.state.as_str())
                @if message.mta_state != message.state.as_str() { " (" bdi { (printable(&message.mta_state)) } ")" }
                " " code { bdi { (printable(&message.id)) } }
                @if let Some(target) = run(report, message) {
                    " " a href=(links::flush(&target)) rel="nofollow" { "run" }
                }
            }
        }
    }
}

/// The message as what can be run alone, if it can.
fn run(report: &Report, message: &Message<'_>) -> Option<Target> {
    let is_run = report.flush.held[1] || message.state != State::Held;
    let offered = report.flush.parts && report.flush.is_offered() && is_run;
    offered.then(|| Target::Id(message.id.clone().into_owned())).filter(Target::is_plain)
}

fn sender(message: &Message<'_>) -> Markup {
    html! {
        @match message.sender.as_deref() {
            None => i { "sender not told" },
            Some("") => { "<> " i { "null sender, a bounce or notice" } }
            Some(sender) => bdi { (breakable(sender)) },
        }
    }
}

fn recipients(all: &[Recipient<'_>]) -> Markup {
    let (shown, more) = all.split_at(all.len().min(RECIPIENTS_SHOWN));
    html! {
        (recipient_list(shown))
        @if !more.is_empty() {
            details {
                summary { "and " (count(more.len() as u64, "more recipient", "more recipients")) }
                (recipient_list(more))
            }
        }
    }
}

/// Recipients, each reason once for those that share it.
fn recipient_list(recipients: &[Recipient<'_>]) -> Markup {
    html! {
        @for group in recipients.chunk_by(|a, b| a.reason == b.reason) {
            @for recipient in group {
                div {
                    span.soft { "to " }
                    bdi { (breakable(&recipient.address)) }
                    @if recipient.delivered { " (delivered)" }
                }
            }
            @if let Some(reason) = group.first().and_then(|recipient| recipient.reason.as_deref()) {
                div.reason { bdi { (breakable(reason)) } }
            }
        }
    }
}

/// Foreign text in which long words may be broken, so that none widens the table; browsers without
/// style sheets have no other way.
fn breakable(text: &str) -> Markup {
    let text = printable(text);
    let mut pieces = Vec::new();
    let (mut start, mut length) = (0, 0);
    for (index, c) in text.char_indices() {
        length = if c.is_whitespace() { 0 } else { length + 1 };
        if length > LONGEST_WORD {
            pieces.push(&text[start..index]);
            (start, length) = (index, 1);
        }
    }
    html! { @for piece in pieces { (piece) wbr; } (text[start..]) }
}

/// A number with its unit, kept on one line.
fn unbroken(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

fn paging(window: Window, matched: u64, asked: &Asked) -> Markup {
    let (page, pages) = (window.page as u64, window.pages(matched));
    if pages <= 1 {
        return html! {};
    }
    html! {
        nav aria-label="Pages" {
            @if page > 1 {
                a href=(links::page(asked, 1)) { "First" } " "
                a rel="prev" href=(links::page(asked, (page - 1).min(pages))) { "Previous" } " "
            }
            span { "Page " (thousands(page)) " of " (thousands(pages)) }
            @if page < pages {
                " " a rel="next" href=(links::page(asked, page + 1)) { "Next" }
                " " a href=(links::page(asked, pages)) { "Last" }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_words_may_be_broken_and_stay_the_same_text() {
        let long = "é".repeat(100);
        let broken = breakable(&format!("short words {long}<")).into_string();
        assert_eq!(broken.matches("<wbr>").count(), 2);
        assert_eq!(broken.replace("<wbr>", ""), format!("short words {long}&lt;"));
        assert_eq!(breakable("larry@example.com").into_string(), "larry@example.com");
    }
}
