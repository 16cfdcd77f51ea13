//! The foot of the page: how the figures were obtained.

use maud::{Markup, html};

use super::super::sentences;
use super::moment;
use crate::report::Report;
use crate::text::{count, printable};

/// Which mail server and version, which command, when, how long, and whether anything is missing.
pub(crate) fn foot(report: &Report) -> Markup {
    let listing = &report.listing;
    html! {
        section.foot aria-label="About this listing" {
            p {
                @match listing.kind {
                    Some(kind) => {
                        (kind.name())
                        @if let Some(version) = &listing.facts.version { " " (printable(version)) }
                        ", listed with " code { (printable(&listing.sampling.command)) } " by " (report.user)
                    }
                    None => "No mail server",
                }
                " at " (moment(report, listing.sampling.started))
                " in " (format!("{:.2}", listing.sampling.took.as_secs_f64())) " s. "
                @if listing.trouble.is_some() { "The listing is not complete." }
                @else { "The listing is complete." }
                @if listing.summary.cut > 0 {
                    " The mail server cut " (count(listing.summary.cut, "address or reason", "addresses or reasons"))
                    " short; they end in “…”."
                }
            }
            @if let Some(unlisted) = sentences::unlisted(&listing.facts) { p { (printable(&unlisted)) } }
            @if let Some(gap) = &report.gap { p.gap { (sentences::gap(gap)) } }
            @if let Some(gap) = &report.primary.gap { p.gap { (sentences::gap_of_primaries(gap)) } }
            p {
                "Also as " a href="?format=text" { "text" } ", as " a href="?format=json" { "JSON" } " and as "
                a href="?format=csv" { "CSV" } "."
            }
        }
    }
}
