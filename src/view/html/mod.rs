//! The page. Only this folder writes markup, and maud alone escapes.

mod clocks;
mod disk;
mod foot;
mod links;
mod messages;
mod overview;
mod primary;
pub(crate) mod rehearsal;
mod returned;
mod runs;
mod status;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use std::io::{self, Write};

use super::sentences::{self, of_listing};
use super::{PROGRAM, Reader};
use crate::flush::UNMOVED;
use crate::mta::trouble::Status;
use crate::queue::{Row, Target, rfc3339};
use crate::report::clocks::Urgency;
use crate::report::disk::Level;
use crate::report::{Form, Report, Verdict};
use crate::request::Asked;
use crate::state::{Flush, Outcome};
use crate::system::Body;
use crate::text::{printable, printable_lines, thousands};

const STYLE: &str = include_str!("style.css");

/// The colour of the headline and of the icon in the browser's tab.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tone {
    /// Nothing waits.
    Calm,
    /// Mail waits.
    Waiting,
    /// Something is wrong.
    Alarm,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Tone::Calm => "calm",
            Tone::Waiting => "waiting",
            Tone::Alarm => "alarm",
        }
    }

    fn icon(self) -> String {
        let colour = match self {
            Tone::Calm => "%23207a3c",
            Tone::Waiting => "%23b36b00",
            Tone::Alarm => "%23b3261e",
        };
        format!(
            "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
             %3Cpath fill='{colour}' d='M1 3h14v10H1z'/%3E%3Cpath fill='none' stroke='white' stroke-width='1.5' \
             d='m2 4 6 5 6-5'/%3E%3C/svg%3E"
        )
        .replace(' ', "%20")
    }
}

/// Writes the page as a whole, at the end.
pub(crate) struct Page {
    asked: Asked,
    now: i64,
}

impl Page {
    /// The page that was asked for.
    pub(crate) fn of(asked: &Asked, now: i64) -> Page {
        Page { asked: asked.clone(), now }
    }
}

impl Form for Page {
    fn end(&mut self, report: &Report, rows: &[Row], to: &mut Body<'_>) -> io::Result<()> {
        to.write_all(page(report, rows, &self.asked).into_string().as_bytes())
    }

    fn verdict(&self, report: &Report) -> Verdict {
        let goes_on = |(flush, outcome): &(Flush, Outcome)| {
            let moved = flush.outcome.as_ref().map_or(flush.started, |on_record| on_record.sampled.max(flush.started));
            !outcome.settled && !flush.restarted && (0..UNMOVED.as_secs().cast_signed()).contains(&(self.now - moved))
        };
        Verdict { renew: report.followed.as_ref().is_some_and(goes_on), ..of_listing(report) }
    }
}

/// The page over one listing.
pub fn page(report: &Report, rows: &[Row], asked: &Asked) -> Markup {
    let summary = &report.listing.summary;
    let disk_is_full =
        report.filesystems.iter().any(|filesystem| filesystem.queue && filesystem.level == Level::Critical);
    let (tone, word) = match (report.listing.status(), summary.messages) {
        (Status::Ok, _) if disk_is_full => (Tone::Alarm, "Disk full"),
        (Status::Ok, _) if goes_back(report) => (Tone::Alarm, "Mail returned"),
        (Status::Ok, 0) => (Tone::Calm, "Empty"),
        (Status::Ok, _) if report.urgency() == Urgency::Alarm => (Tone::Alarm, "Urgent"),
        (Status::Ok, _) => (Tone::Waiting, "Waiting"),
        _ => (Tone::Alarm, "Unknown"),
    };
    let title = if summary.messages > 0 { format!("{word}: {}", thousands(summary.messages)) } else { word.to_owned() };
    frame(
        &title,
        tone,
        Reader::Admitted { host: &report.host },
        html! {
            (status::label(report))
            (status::status(report, tone, word, asked))
            (returned::returned(report))
            (overview::overview(report, asked))
            (primary::primary(report))
            (clocks::outages(report))
            (messages::messages(report, rows, asked))
            (disk::disk(report))
            (runs::runs(report))
            (foot::foot(report))
        },
    )
}

/// Whether much of what left in the run that was asked about went back.
fn goes_back(report: &Report) -> bool {
    report.followed.as_ref().is_some_and(|(_, outcome)| outcome.is_alarming())
}

/// A page that tells one thing: a refusal, or a mistake in the request.
pub fn notice(reader: Reader<'_>, title: &str, message: &str, remedy: &str) -> Markup {
    frame(
        title,
        Tone::Alarm,
        reader,
        html! {
            section.status.alarm {
                h2.headline { (title) }
                p { (printable(message)) }
                (status::remedy(remedy))
                @if let Reader::Admitted { .. } = reader { p { a href="?" { "Back to the queue" } } }
            }
        },
    )
}

/// Something with buttons that run the queue. They send a POST, and every browser says where one comes from.
fn run_form(content: Markup) -> Markup {
    html! { form method="post" action="?" { (content) } }
}

/// The button of such a form that runs a part of the queue. It looks like a link.
fn run_button(target: &Target) -> Markup {
    html! { button name="flush" value=(target) { "try now" } }
}

/// An instant: in few words for people, the whole of it for programs and where the mouse rests.
fn moment(report: &Report, at: i64) -> Markup {
    html! { time datetime=[rfc3339(at)] title=(report.local_time(at)) { (report.moment(at)) } }
}

/// Which flush it was, when and by whom.
fn flush_line(report: &Report, flush: &Flush) -> Markup {
    html! {
        "Queue run " (flush.number)
        @if flush.target != "all" { " of " bdi { (printable(&flush.target)) } }
        ", " (moment(report, flush.started)) ", by " bdi { (printable(&flush.by)) }
        @if let Some(despite) = flush.despite { ", " (sentences::in_spite_of(despite)) }
    }
}

/// The whole document. Whatever acts instead of showing is made visible here, wherever in it it stands.
fn frame(title: &str, tone: Tone, reader: Reader<'_>, body: Markup) -> Markup {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex,nofollow";
                title { (title) @if let Reader::Admitted { host } = reader { " · " (host) } }
                link rel="icon" href=(tone.icon());
                style { (PreEscaped(STYLE)) }
            }
            body {
                @match reader {
                    Reader::Admitted { host } => {
                        header {
                            h1 { (host) }
                            p { "Mail queue of a fall-back mail server" }
                        }
                        main { (body) }
                        footer { p.program { (PROGRAM) } }
                    }
                    Reader::Stranger => {
                        header { h1 { "Mail queue" } }
                        main { (body) }
                    }
                }
            }
        }
    };
    PreEscaped(printable_lines(&document.into_string()).into_owned())
}
