//! The disks, and how much room is left on them.

use maud::{Markup, html};

use crate::report::Report;
use crate::report::disk::{Filesystem, Level};
use crate::text::{bytes, duration, printable, thousands};

/// All filesystems, each with its bars.
pub(crate) fn disk(report: &Report) -> Markup {
    html! {
        section.disk aria-labelledby="disk" {
            h2 #disk { "Disks" }
            table {
                thead {
                    tr {
                        th scope="col" { "Filesystem" }
                        th scope="col" { "Space" }
                        th scope="col" { "Inodes" }
                    }
                }
                tbody { @for filesystem in &report.filesystems { (row(report, filesystem)) } }
            }
        }
    }
}

fn row(report: &Report, filesystem: &Filesystem) -> Markup {
    let usage = &filesystem.usage;
    html! {
        tr class=(class(filesystem.level)) {
            th scope="row" {
                bdi { (printable(&filesystem.mount)) }
                @if filesystem.queue { " " strong { "mail queue" } }
                " " span.exact { (printable(&filesystem.device)) ", " (printable(&filesystem.r#type)) }
            }
            @if filesystem.level == Level::Unknown {
                td colspan="2" { strong { (filesystem.error.as_deref().unwrap_or("not answering")) } }
            } @else {
                td {
                    (gauge(usage.bytes_available, usage.bytes, bytes)) (word(filesystem.level))
                    @if let Some(seconds) = report.seconds_until_full().filter(|_| filesystem.queue) {
                        " " span.exact { "full in " (duration(seconds)) ", if it goes on as today" }
                    }
                }
                td { (gauge(usage.inodes_available, usage.inodes, thousands)) }
            }
        }
    }
}

/// A bar that shows how much is used, and words that say how much is free.
fn gauge(free: Option<u64>, all: Option<u64>, show: fn(u64) -> String) -> Markup {
    let (Some(free), Some(all)) = (free, all.filter(|all| *all > 0)) else { return html! { "no fixed number" } };
    html! {
        (meter(1.0 - free as f64 / all as f64, "used"))
        (show(free)) " free of " (show(all))
    }
}

/// A bar that is filled to this part, from 0 to 1.
pub(crate) fn meter(part: f64, what: &str) -> Markup {
    let percent = 100.0 * part.clamp(0.0, 1.0);
    html! {
        svg.meter role="img" aria-label=(format!("{percent:.0} % {what}")) {
            rect width=(format!("{percent:.1}%")) {}
        }
    }
}

fn class(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Critical | Level::Unknown => "critical",
    }
}

fn word(level: Level) -> Markup {
    html! {
        @match level {
            Level::Warning => { " " strong { "getting full" } }
            Level::Critical => { " " strong { "nearly full" } }
            Level::Ok | Level::Unknown => {}
        }
    }
}
