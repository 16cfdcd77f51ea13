//! The state of the queue in words, the same on the page and on the terminal.

use crate::mta::trouble::Status;
use crate::queue::{Destination, State, Target};
use crate::report::{Note, Report, Verdict};
use crate::state::Condition;
use crate::state::{Flush, Outcome};
use crate::text::{count, duration, short, thousands};

/// Destinations that get a sentence of their own.
const NAMED: usize = 5;

/// The state of the queue: one sentence, and details where there are any.
pub struct Sentences {
    /// The sentence to read first, in three parts: the text before a foreign name, that name, and the text after it.
    pub headline: [String; 3],
    /// One for each destination.
    pub details: Vec<Detail>,
}

/// The mail that waits for one destination.
pub struct Detail {
    /// The domain, shortened.
    pub name: String,
    /// The text about it.
    pub(crate) text: String,
    /// The target that runs its mail alone, where that is possible.
    pub(crate) run: Option<Target>,
}

impl Sentences {
    /// Puts a report into words. A listing that is not complete is called "at least", and one of which nothing was
    /// read "not known", never empty.
    pub fn of(report: &Report) -> Sentences {
        let summary = &report.listing.summary;
        let complete = report.listing.trouble.is_none();
        if summary.messages == 0 {
            let headline = if complete { "The queue is empty." } else { "Whether mail waits here is not known." };
            return Sentences { headline: [headline.into(), String::new(), String::new()], details: Vec::new() };
        }
        let held = summary.state(State::Held);
        let destinations = summary.destinations(NAMED);
        let before = format!("{}{} for ", if complete { "" } else { "At least " }, waiting(summary.messages));
        let (first, others) = match destinations.as_slice() {
            [] if summary.delivered > 0 => ("nobody any more: all recipients have their copy".into(), ""),
            [] => ("recipients that the mail server does not tell".into(), ""),
            [only] => (name(only), ""),
            [first, ..] => (name(first), " and others"),
        };
        let mut parts = vec![others.to_owned()];
        parts.extend(summary.oldest.map(|oldest| format!("the oldest for {}", duration(report.age(oldest)))));
        let passed_over = if report.passed_over() > 0 { ", which a queue run passes over" } else { "" };
        if held == summary.messages {
            parts.push(format!("all held{passed_over}"));
        } else if held > 0 {
            parts.push(format!("{} held{passed_over}", thousands(held)));
        } else if let [only] = destinations.as_slice() {
            parts.extend(only.cause.map(|cause| cause.phrase().to_owned()));
        }
        let details = destinations.iter().map(detail).collect();
        Sentences { headline: [before, first, format!("{}.", parts.join("; "))], details }
    }
}

/// The note about reasons that the listing does not hold.
pub(crate) fn note(note: Note) -> &'static str {
    match note {
        Note::Blind => "This mail server's listing does not hold reasons, so the filter could not look at them.",
        Note::NoReasons => "This mail server's listing does not tell why messages wait.",
    }
}

/// The verdict of a form that fails exactly when its listing fails.
pub(crate) fn of_listing(report: &Report) -> Verdict {
    let status = if report.listing.status() == Status::Ok { 0 } else { EX_UNAVAILABLE };
    Verdict { status, renew: false }
}

/// The exit status, of sysexits(3), where the queue could not be listed.
pub(crate) const EX_UNAVAILABLE: u8 = 69;

/// Whether the primary takes mail: the one thing to know before the queue is run. `None` where nothing waits.
pub(crate) fn advice(report: &Report) -> Option<String> {
    let waiting = report.listing.summary.messages - report.passed_over();
    let primaries = &report.primary.primaries;
    let any = |up| primaries.iter().any(|primary| primary.is_up() == Some(up));
    let is_busy = primaries.iter().any(|primary| primary.state == Condition::Busy);
    match (any(true), any(false)) {
        _ if waiting == 0 => None,
        (true, true) => {
            Some("Some of the primaries answer, others don't: a queue run delivers what is for those that do.".into())
        }
        (true, false) if !report.flush.is_offered() => Some("The primary takes mail.".into()),
        (true, false) => Some(format!("The primary is back and {}: run the queue now.", self::waiting(waiting))),
        (false, true) if is_busy => {
            Some("The primary answers that it is busy; running the queue now will hardly help.".into())
        }
        (false, true) => Some("The primary is still down; running the queue now will not help.".into()),
        (false, false) => None,
    }
}

/// The result of a queue run, as far as the listing shows it.
pub(crate) fn outcome(report: &Report, flush: &Flush, outcome: &Outcome) -> String {
    if report.listing.trouble.is_some() && !outcome.settled {
        return "what came of it is not known".into();
    }
    let sentence = crate::flush::outcome::sentence(flush, outcome);
    if outcome.settled { format!("{sentence}; done") } else { format!("so far {sentence}") }
}

/// Says that the listing was read without a complete sandbox.
pub(crate) fn gap(gap: &str) -> String {
    format!("The listing was parsed without the sandbox: {gap}.")
}

fn waiting(messages: u64) -> String {
    format!("{} {}", count(messages, "message", "messages"), if messages == 1 { "waits" } else { "wait" })
}

fn detail(destination: &Destination) -> Detail {
    let cause = destination.cause.map(|cause| format!("; {}", cause.phrase())).unwrap_or_default();
    Detail {
        name: name(destination),
        text: format!("{}{cause}", count(destination.recipients, "recipient", "recipients")),
        run: destination
            .domain
            .clone()
            .filter(|domain| !domain.is_empty())
            .map(Target::Domain)
            .filter(Target::is_plain),
    }
}

fn name(destination: &Destination) -> String {
    match destination.domain.as_deref() {
        None => "other domains".into(),
        Some("") => "this machine".into(),
        Some("…") => "domains that the mail server cut off".into(),
        Some(domain) => short(domain),
    }
}
