//! The page. Only this folder writes markup, and maud alone escapes.

mod clocks;
mod disk;
mod facts;
mod foot;
mod history;
pub(crate) mod links;
mod messages;
mod overview;
mod primary;
pub(crate) mod receipt;
pub(crate) mod rehearsal;
mod returned;
mod runs;
mod status;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use std::io::{self, Write};

use super::headline::{Headline, Tone};
use super::sentences::{self, of_listing};
use super::{PROGRAM, Reader};
use crate::flush::UNMOVED;
use crate::queue::{Row, Target, rfc3339};
use crate::report::{Form, Report, Verdict};
use crate::request::Asked;
use crate::state::{Flush, Outcome};
use crate::system::Body;
use crate::text::{clock_time, printable, printable_lines, short, short_moment, thousands};

const STYLE: &str = include_str!("style.css");

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

/// The page over one listing: what matters first, then the mail, then the machines, then where all this comes from.
pub fn page(report: &Report, rows: &[Row], asked: &Asked) -> Markup {
    let headline = Headline::of(report);
    let messages = report.listing.summary.messages;
    let title = if messages > 0 { format!("{}: {}", headline.word, thousands(messages)) } else { headline.word.into() };
    let when = html! {
        p.when {
            "as of " time datetime=[rfc3339(report.listing.sampling.started)]
                title=(report.local_time(report.listing.sampling.started)) {
                (clock_time(report.listing.sampling.started, &report.zone))
            }
            @if asked.live { " · renewed every 10 s · " a href=(links::live(asked)) { "stop" } }
            @else { " · " a href=(links::live(asked)) { "keep this page live" } }
        }
    };
    frame(
        &title,
        headline.tone,
        Reader::Admitted { host: &report.host },
        &when,
        html! {
            (status::label(report))
            (status::status(report, &headline))
            (facts::facts(report))
            (clocks::notes(report))
            (returned::returned(report))
            (overview::overview(report, asked))
            (messages::messages(report, rows, asked))
            div.columns {
                (primary::primary(report))
                (disk::disk(report))
                (runs::runs(report))
                (clocks::outages(report))
            }
            (foot::foot(report))
        },
    )
}

/// A page that tells one thing: a refusal, or a mistake in the request.
pub fn notice(reader: Reader<'_>, title: &str, message: &str, remedy: &str) -> Markup {
    frame(
        title,
        Tone::Alarm,
        reader,
        &html! {},
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

/// Something with buttons that run the queue. They send a POST, and every browser says where one comes from. It goes to the
/// address of the view itself, so that the view stays as it is, and live.
fn run_form(content: Markup) -> Markup {
    html! { form method="post" { (content) } }
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

/// An instant where there is little room.
fn short_time(report: &Report, at: i64) -> Markup {
    let words = short_moment(at, report.listing.sampling.started, &report.zone);
    html! { time datetime=[rfc3339(at)] title=(report.local_time(at)) { (words) } }
}

/// A foreign name that may be long.
fn small_name(name: &str) -> Markup {
    html! { bdi { (short(name)) } }
}

/// The program's mark, a letter and a quill.
fn mark() -> Markup {
    html! {
        svg.mark viewBox="0 0 32 32" aria-hidden="true" {
            rect.tone x="2" y="7" width="24" height="18" rx="3" {}
            path.fold d="m4.5 10 9.5 7.5L23.5 10" {}
            path d="M31 2c-7 1-11 6-12.5 12.5l-1 4 3.5-2.2C27 13 30 9 31 2z" {}
        }
    }
}

/// The same as an icon for a browser's tab, in the colour of the page's tone.
fn icon(tone: Tone) -> String {
    let colour = match tone {
        Tone::Calm => "1f6f3d",
        Tone::Waiting => "b86a14",
        Tone::Ready => "1a55a3",
        Tone::Alarm => "a8201a",
    };
    format!(
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect x='1' y='6' width='26' \
         height='20' rx='3' fill='%23{colour}'/%3E%3Cpath d='m4 10 10 8 10-8' fill='none' stroke='white' stroke-width='2.5'/%3E\
         %3Cpath d='M31 1c-8 1-12 7-13 14l-1 4 4-2C27 14 30 9 31 1z' fill='%238a8f98'/%3E%3C/svg%3E"
    )
    .replace(' ', "%20")
}

/// Tags that whatever follows them on our pages implies (HTML Standard, 13.1.2.4): a tenth of a long table.
const IMPLIED: [&str; 7] = ["</p></td>", "</td>", "</th>", "</tr>", "</thead>", "</tbody>", "</li>"];

/// The whole document. Whatever acts instead of showing is made visible here, wherever in it it stands.
fn frame(title: &str, tone: Tone, reader: Reader<'_>, when: &Markup, body: Markup) -> Markup {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex,nofollow";
                title { (title) @if let Reader::Admitted { host } = reader { " · " (host) } }
                link rel="icon" href=(icon(tone));
                style { (PreEscaped(STYLE)) }
            }
            body {
                @match reader {
                    Reader::Admitted { host } => {
                        header class=(tone.class()) {
                            (mark())
                            div { h1 { (host) } p { "backup mail server (backup MX)" } }
                            (when)
                        }
                        main { (body) }
                        footer { p.program { (PROGRAM) } }
                    }
                    Reader::Stranger => {
                        header class=(tone.class()) { (mark()) div { h1 { "Mail queue" } } }
                        main { (body) }
                    }
                }
            }
        }
    };
    let document = IMPLIED.iter().fold(document.into_string(), |document, tag| document.replace(tag, ""));
    PreEscaped(printable_lines(&document).into_owned())
}
