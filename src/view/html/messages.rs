//! The table of messages.

use std::cell::Cell;

use maud::{Markup, html};

use super::super::sentences;
use super::{clocks, links, moment, run_button, run_form, status};
use crate::queue::{Filter, Lifetimes, Message, Order, Recipient, Row, SortKey, State, Target, Window};
use crate::report::Report;
use crate::request::Asked;
use crate::text::{bytes, count, printable, short_moment, thousands};

/// How many recipients of a message are shown at once; the others unfold.
const RECIPIENTS_SHOWN: usize = 5;

/// A longer reason, in characters, is folded to its beginning.
const FOLDED: usize = 90;

/// How many bytes of what is folded there is room for, for each row of a page of at least a hundred. What is beyond that is
/// on a page of its own, so that strangers' words can't make a page large.
const FOLDED_ROOM: usize = 12;

/// The longest word, in characters, that is not broken.
const LONGEST_WORD: usize = 40;

/// How many characters of an address or a reason are shown. An address has at most 320 octets, a line of a reply 512
/// (RFC 5321, section 4.5.3.1); longer text comes from a stranger who wants the page for himself.
const LONGEST_TEXT: usize = 1000;

/// The messages of one page, with links to the other pages.
pub(crate) fn messages(report: &Report, rows: &[Row], asked: &Asked) -> Markup {
    let Some((window, matched)) = report.selection else { return html! {} };
    if report.listing.summary.messages == 0 {
        return html! {};
    }
    html! {
        section.messages aria-labelledby="messages" {
            h2 #messages { (heading(report, rows.len(), window, matched)) }
            // A page that renews itself would take away what is being typed.
            @if asked.live { p { a href=(links::live(asked)) { "Stop renewing the page, to search" } } } @else { (search(asked)) }
            (chips(asked, matched))
            @if let Some(note) = report.note { p { (sentences::note(note)) } }
            @if rows.is_empty() && matched > 0 {
                p { "There is no page " (window.page) ". " a href=(links::page(asked, window.pages(matched))) { "Go to the last page" } }
            }
            @if let Some(trouble) = report.unexplained.as_ref().filter(|_| !rows.is_empty()) {
                (status::told(trouble))
            }
            @if !rows.is_empty() {
                @let lifetimes = report.listing.summary.lifetimes();
                // A page that renews itself would close what was opened: there, all that is folded is a link away.
                @let room = if asked.live { 0 } else { rows.len().max(100) * FOLDED_ROOM };
                @let table = Table { report, asked, lifetimes, is_whole: rows.len() == 1, room: Cell::new(room) };
                (run_form(html! { table {
                    thead {
                        tr {
                            (column(asked, SortKey::Age, "Waiting"))
                            (column(asked, SortKey::Sender, "From"))
                            (column(asked, SortKey::Domain, "To, and why it waits"))
                            @if is_sized(report) { (column(asked, SortKey::Size, "Size")) }
                            @if table.lifetimes != Lifetimes::Unknown { (column(asked, SortKey::Returns, "Goes back")) }
                            (column(asked, SortKey::Id, "State and id"))
                        }
                    }
                    tbody {
                        @for (index, one) in rows.iter().enumerate() {
                            @let above = index.checked_sub(1).and_then(|above| rows.get(above));
                            (table.row(one, above))
                        }
                    }
                } }))
            }
            (paging(window, matched, asked))
        }
    }
}

/// Whether the mail server gives sizes.
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

/// The search form: one field that searches everywhere, and the states.
fn search(asked: &Asked) -> Markup {
    let kept = links::parameters(asked).into_iter().filter(|(name, _)| !matches!(*name, "q" | "state"));
    html! {
        form role="search" {
            @for (name, value) in kept { input type="hidden" name=(name) value=(printable(&value)); }
            label { "Search " input type="search" name="q" value=[asked.filter.text.as_deref().map(printable)]; }
            " " label {
                "State "
                select name="state" {
                    option value="" { "all" }
                    @for state in State::ALL {
                        option value=[Some(state.as_str()).filter(|name| *name != word(state))] selected[asked.filter.state == Some(state)] { (word(state)) }
                    }
                }
            }
            " " button { "Show" }
        }
    }
}

/// Removes one filter.
type Removal = fn(&mut Filter);

/// The filters that are set, each as a link that removes it.
fn chips(asked: &Asked, matched: u64) -> Markup {
    let Filter { text, domain, sender, state, reason, age, returns } = &asked.filter;
    let state = state.map(|state| state.as_str().to_owned());
    let age = age.map(|age| age.to_string());
    let returns = returns.as_ref().map(|due| due.to_string());
    let set: [(&str, &Option<String>, Removal); 7] = [
        ("text", text, |filter| filter.text = None),
        ("domain", domain, |filter| filter.domain = None),
        ("sender", sender, |filter| filter.sender = None),
        ("state", &state, |filter| filter.state = None),
        ("reason", reason, |filter| filter.reason = None),
        ("minutes", &age, |filter| filter.age = None),
        ("goes back", &returns, |filter| filter.returns = None),
    ];
    html! {
        @if !asked.filter.is_empty() {
            p.chips {
                (count(matched, "message matches", "messages match")) ": "
                @for (name, value, remove) in set {
                    @if let Some(value) = value {
                        a href=(links::filtered(asked, remove)) title="Remove this filter" {
                            (name) " " bdi { "“" (printable(value)) "”" } " ×"
                        }
                        " "
                    }
                }
                a href=(links::all(asked)) { "Show all" }
            }
        }
    }
}

/// The head of a column: its name, as a link that sorts by it. An arrow marks the order in force.
fn column(asked: &Asked, key: SortKey, name: &str) -> Markup {
    let direction = direction(asked, key);
    let mark = match direction {
        Some("ascending") => " ↑",
        Some(_) => " ↓",
        None => "",
    };
    html! { th scope="col" aria-sort=[direction] { a href=(links::sorted(asked, key)) { (name) (mark) } } }
}

fn direction(asked: &Asked, key: SortKey) -> Option<&'static str> {
    let order = asked.order.filter(|order| order.key == key)?;
    Some(if is_ascending(order) { "ascending" } else { "descending" })
}

fn is_ascending(order: Order) -> bool {
    !order.reversed
}

/// What all rows have in common.
struct Table<'a> {
    report: &'a Report,
    asked: &'a Asked,
    lifetimes: Lifetimes,
    /// Whether there is but one message, of which all is shown.
    is_whole: bool,
    /// How many bytes of reasons can still be folded.
    room: Cell<usize>,
}

impl Table<'_> {
    fn row(&self, Row { message, left_out }: &Row, above: Option<&Row>) -> Markup {
        let Table { report, lifetimes, .. } = self;
        let above = above.and_then(|above| only_reason(&above.message));
        html! {
            tr {
                td {
                    @if let Some(arrival) = message.arrival {
                        b { (report.waited_briefly(arrival)) }
                        " " (short_moment(arrival, report.listing.sampling.started, &report.zone))
                    } @else { "unknown" }
                }
                td { (sender(message)) }
                td { (self.recipients(message, *left_out as u64, above)) }
                @if is_sized(report) { td { @if let Some(size) = message.size { (bytes(size)) } @else { "?" } } }
                @if *lifetimes != Lifetimes::Unknown { td { (clocks::of_message(report, lifetimes, message)) } }
                td {
                    @if message.state == State::Held { span.hold { (word(message.state)) } } @else { (word(message.state)) }
                    @if message.mta_state != message.state.as_str() { " (" bdi { (printable(&message.mta_state)) } ")" }
                    @if let Some(instance) = &message.instance { " in " bdi { (printable(instance)) } }
                    @if *lifetimes == Lifetimes::Unknown { (clocks::of_message(report, lifetimes, message)) }
                    " " code { (printable(&message.id)) }
                    @if let Some(target) = run(report, message) { " " (run_button(&target)) }
                }
            }
        }
    }

    fn recipients(&self, message: &Message<'_>, left_out: u64, above: Option<Why<'_>>) -> Markup {
        let shown = if self.is_whole { usize::MAX } else { RECIPIENTS_SHOWN };
        let (shown, more) = message.recipients.split_at(message.recipients.len().min(shown));
        let and_more = html! { "and " (count(more.len() as u64, "more recipient", "more recipients")) };
        html! {
            (self.list(message, shown, above))
            @if more.is_empty() {}
            @else if self.asked.live { p { a href=(links::message(self.asked, &message.id)) { (and_more) } } }
            @else { details { summary { (and_more) } (self.list(message, more, None)) } }
            @if left_out > 0 {
                p.soft { "and " (count(left_out, "more recipient", "more recipients")) "; the " a href="?format=json" { "JSON output" } " lists all" }
            }
        }
    }

    /// Recipients of a message; neighbours with the same reason share one line for it, and one that is the only reason of
    /// the message above is not said again.
    fn list(&self, message: &Message<'_>, recipients: &[Recipient<'_>], above: Option<Why<'_>>) -> Markup {
        html! {
            @for group in recipients.chunk_by(|a, b| why(a) == why(b)) {
                @for (index, recipient) in group.iter().enumerate() {
                    @if index > 0 { br; }
                    (breakable(&recipient.address))
                    @if recipient.delivered { " (done)" }
                }
                @match group.first().and_then(why) {
                    None => {}
                    found if found == above => p { "same as above" },
                    Some(why) => (self.said(message, why)),
                }
            }
        }
    }

    /// A reason, of which a long one is folded to its beginning; where there is no room for the rest, a link leads to it.
    fn said(&self, message: &Message<'_>, (reason, at): Why<'_>) -> Markup {
        let at = html! { @if let Some(at) = at { " (tried at " (moment(self.report, at)) ")" } };
        // The last space before the limit, or the limit.
        let end = reason.char_indices().nth(FOLDED).filter(|_| !self.is_whole).map(|(limit, _)| {
            let (before, _) = reason.split_at(limit);
            before.rfind(' ').filter(|space| *space > 0).unwrap_or(limit)
        });
        let Some((first, rest)) = end.map(|end| reason.split_at(end)) else {
            return html! { p { (breakable(reason)) (at) } };
        };
        let rest = html! { (breakable(rest)) (at) };
        match self.room.get().checked_sub(rest.0.len()) {
            Some(room) => {
                self.room.set(room);
                html! { details { summary { (breakable(first)) " …" } (rest) } }
            }
            None => html! { p { (breakable(first)) " " a href=(links::message(self.asked, &message.id)) { "more" } } },
        }
    }
}

/// The word for a state that people read; elsewhere it is the one of JSON.
fn word(state: State) -> &'static str {
    match state {
        State::Held => "on hold",
        other => other.as_str(),
    }
}

/// The target that runs this message alone, where that is possible.
fn run(report: &Report, message: &Message<'_>) -> Option<Target> {
    let is_run = report.flush.held.message || message.state != State::Held;
    let offered = report.flush.parts && report.flush.is_offered() && is_run;
    offered.then(|| Target::Id(message.id.clone().into_owned())).filter(Target::is_plain)
}

fn sender(message: &Message<'_>) -> Markup {
    html! {
        @match message.sender.as_deref() {
            None => i { "sender unknown" },
            Some("") => { "<> " i { "null sender, a bounce or notice" } }
            Some(sender) => (breakable(sender)),
        }
    }
}

/// Why a recipient waits, and when the last attempt failed, where that is known.
type Why<'m> = (&'m str, Option<i64>);

fn why<'m>(recipient: &'m Recipient<'_>) -> Option<Why<'m>> {
    Some((recipient.reason.as_deref()?, recipient.last_attempt))
}

/// The reason of a message that has but one.
fn only_reason<'m>(message: &'m Message<'_>) -> Option<Why<'m>> {
    let first = why(message.recipients.first()?)?;
    message.recipients.iter().all(|recipient| why(recipient) == Some(first)).then_some(first)
}

/// Foreign text in which long words may be broken, so that no word widens the table (text browsers need this). Very long
/// text is cut. It is isolated, unless it is ASCII, all of which goes from left to right.
fn breakable(text: &str) -> Markup {
    let whole = printable(text);
    let (text, rest) = whole.split_at(whole.char_indices().nth(LONGEST_TEXT).map_or(whole.len(), |(end, _)| end));
    let mut pieces = Vec::new();
    let (mut start, mut length) = (0, 0);
    for (index, c) in text.char_indices() {
        length = if c.is_whitespace() { 0 } else { length + 1 };
        if length > LONGEST_WORD {
            pieces.push(&text[start..index]);
            (start, length) = (index, 1);
        }
    }
    let shown = html! { @for piece in pieces { (piece) wbr; } (text[start..]) };
    html! {
        @if text.is_ascii() { (shown) } @else { bdi { (shown) } }
        @if !rest.is_empty() {
            "… (and " (count(rest.chars().count() as u64, "more character", "more characters")) ")"
        }
    }
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
        assert_eq!(broken.replace("<wbr>", ""), format!("<bdi>short words {long}&lt;</bdi>"));
        assert_eq!(breakable("larry@example.com").into_string(), "larry@example.com");
    }

    #[test]
    fn of_long_text_the_rest_is_counted() {
        let shown = |characters| breakable(&"é ".repeat(characters / 2)).into_string();
        assert_eq!(shown(LONGEST_TEXT), format!("<bdi>{}</bdi>", "é ".repeat(LONGEST_TEXT / 2)));
        assert_eq!(shown(5000), format!("<bdi>{}</bdi>… (and 4,000 more characters)", "é ".repeat(LONGEST_TEXT / 2)));
    }
}
