//! The queue at a glance: for whom mail waits and for how long, and why. Every part of a bar is a link to its messages.

use std::ops::RangeInclusive;

use maud::{Markup, html};

use super::super::sentences::{Detail, Sentences};
use super::{history, links, run_button, run_form};
use crate::queue::{AGE_LIMITS, Ages, Destination, common_part};
use crate::report::Report;
use crate::request::Asked;
use crate::text::{count, printable, short};

/// How many reasons are shown.
const REASONS: usize = 5;

/// The ages that a bar shows: a name, and the buckets of qshape(1) that are of that age.
const AGES: [(&str, RangeInclusive<usize>); 4] =
    [("under 1 h 20 min", 0..=4), ("to 5 h 20 min", 5..=6), ("to 21 h 20 min", 7..=8), ("older", 9..=9)];

/// Destinations, reasons and history, as far as there are any.
pub(crate) fn overview(report: &Report, asked: &Asked) -> Markup {
    let details = Sentences::of(report).details;
    html! {
        div.columns {
            @if !details.is_empty() { (destinations(report, &details, asked)) }
            (reasons(report, asked))
            (history::history(report, asked))
        }
    }
}

fn destinations(report: &Report, details: &[Detail], asked: &Asked) -> Markup {
    let most = details.iter().map(|detail| detail.destination.recipients).max().unwrap_or(1);
    html! {
        section aria-labelledby="for" {
            h2 #for { "Waiting for" }
            (run_form(html! { ul.rows {
                @for detail @ Detail { destination, .. } in details {
                    li {
                        @let link = destination.domain.as_ref().filter(|domain| !domain.is_empty() && !domain.ends_with('…'));
                        @let link = link.map(|domain| links::filtered(asked, |filter| filter.domain = Some(domain.clone())));
                        div.line {
                            (linked(link.as_deref(), html! { bdi { (printable(&detail.name)) } }))
                            " " span { (detail.recipients) }
                        }
                        p.soft {
                            @if let Some(cause) = detail.cause { (cause) " " }
                            @if let Some(target) = detail.run.as_ref().filter(|_| report.offers_parts()) { (run_button(target)) }
                        }
                        (ages(destination, most, asked))
                    }
                }
            } }))
            p.legend aria-hidden="true" {
                @for (age, (name, _)) in AGES.iter().enumerate() { span class={ "key a" (age) } { (name) } " " }
            }
        }
    }
}

/// The content, as a link where there is a target.
fn linked(link: Option<&str>, content: Markup) -> Markup {
    html! { @if let Some(link) = link { a href=(link) { (content) } } @else { (content) } }
}

/// The ages of the mail for one destination as one bar, the youngest first. The whole width is as much as waits for the
/// largest.
fn ages(destination: &Destination, most: u64, asked: &Asked) -> Markup {
    let all: u64 = destination.ages.iter().sum();
    if all == 0 {
        return html! {};
    }
    let mut before = 0;
    let parts = AGES.iter().enumerate().map(|(age, (_, buckets))| {
        let start = before;
        let recipients: u64 = destination.ages.get(buckets.clone()).unwrap_or_default().iter().sum();
        before += recipients;
        (age, buckets, start, recipients)
    });
    let parts: Vec<_> = parts.filter(|(.., recipients)| *recipients > 0).collect();
    let link = |buckets: &RangeInclusive<usize>| {
        let domain = destination.domain.clone()?;
        Some(links::filtered(asked, |filter| {
            filter.domain = Some(domain);
            filter.age = Some(Ages { from: lower(buckets), to: upper(buckets) });
        }))
    };
    html! {
        svg.bar {
            @for (age, buckets, start, recipients) in parts {
                @let words = format!("{} waiting {}", count(recipients, "recipient", "recipients"), span(buckets));
                // The title is what it is called, and what the mouse shows.
                @let part = html! {
                    title { (words) }
                    rect class={"a" (age)} x=(percent(start, most.max(all))) width=(percent(recipients, most.max(all))) {}
                };
                @match link(buckets) {
                    Some(link) => a href=(link) { (part) },
                    None => g { (part) },
                }
            }
        }
    }
}

/// How wide a part of a bar is.
fn percent(part: u64, all: u64) -> String {
    format!("{:.1}%", 100.0 * part as f64 / all.max(1) as f64)
}

/// The least age in minutes of what is in these buckets.
fn lower(buckets: &RangeInclusive<usize>) -> i64 {
    buckets.start().checked_sub(1).and_then(|below| AGE_LIMITS.get(below)).copied().unwrap_or(0)
}

/// The age in minutes that what is in these buckets does not reach; `None` where there is no such limit.
fn upper(buckets: &RangeInclusive<usize>) -> Option<i64> {
    AGE_LIMITS.get(*buckets.end()).copied()
}

/// `for 1 h 20 min to 5 h 20 min`
fn span(buckets: &RangeInclusive<usize>) -> String {
    let time = |minutes: i64| format!("{} h {} min", minutes / 60, minutes % 60);
    match (lower(buckets), upper(buckets)) {
        (0, Some(upper)) => format!("for less than {}", time(upper)),
        (lower, None) => format!("for more than {}", time(lower)),
        (lower, Some(upper)) => format!("for {} to {}", time(lower), time(upper)),
    }
}

fn reasons(report: &Report, asked: &Asked) -> Markup {
    let patterns = report.listing.summary.reason_patterns(REASONS);
    let most = patterns.first().map_or(1, |(_, recipients)| *recipients);
    html! {
        @if !patterns.is_empty() {
            section aria-labelledby="reasons" {
                h2 #reasons { "Reasons" }
                ul.rows {
                    @for (pattern, recipients) in &patterns {
                        li {
                            @let part = Some(common_part(pattern)).filter(|part| part.len() > 3);
                            @let link = part.map(|part| links::filtered(asked, |filter| filter.reason = Some(part.to_owned())));
                            div.line {
                                (linked(link.as_deref(), html! { bdi { (short(pattern)) } }))
                                " " span { (count(*recipients, "recipient", "recipients")) }
                            }
                            svg.bar aria-hidden="true" { rect.a2 width=(percent(*recipients, most)) {} }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_age_bucket_belongs_to_one_age_with_its_name() {
        let buckets: Vec<_> = AGES.iter().flat_map(|(_, buckets)| buckets.clone()).collect();
        assert_eq!(buckets, (0..=AGE_LIMITS.len()).collect::<Vec<_>>());
        let names = AGES.each_ref().map(|(_, buckets)| span(buckets));
        assert_eq!(
            names,
            [
                "for less than 1 h 20 min",
                "for 1 h 20 min to 5 h 20 min",
                "for 5 h 20 min to 21 h 20 min",
                "for more than 21 h 20 min",
            ]
        );
    }
}
