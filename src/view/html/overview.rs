//! The queue at a glance: for whom mail waits and for how long, and why. Every part of a bar is a link to its messages.

use maud::{Markup, html};

use super::super::sentences::{Detail, Sentences};
use super::{history, links, run_button, run_form};
use crate::queue::{AGE_LIMITS, Ages, Destination, common_part};
use crate::report::Report;
use crate::request::Asked;
use crate::text::{count, printable, short};

/// How many reasons are shown.
const REASONS: usize = 5;

/// The ages that are told apart in the bars, each by the first bucket that is older: a name, and the first bucket.
const AGES: [(&str, usize); 4] = [("under 1 h 20 min", 0), ("to 5 h 20 min", 5), ("to 21 h 20 min", 7), ("older", 9)];

/// Destinations, reasons and history, as far as there are any.
pub(crate) fn overview(report: &Report, asked: &Asked) -> Markup {
    let details = Sentences::of(report).details;
    html! {
        div.columns {
            @if !details.is_empty() { (destinations(report, &details, asked)) }
            (reasons(report, asked))
            (history::history(report))
        }
    }
}

fn destinations(report: &Report, details: &[Detail], asked: &Asked) -> Markup {
    let destinations = report.listing.summary.destinations(details.len());
    let most = destinations.iter().map(|destination| destination.recipients).max().unwrap_or(1);
    html! {
        section aria-labelledby="for" {
            h2 #for { "Waiting for" }
            (run_form(html! { ul.rows {
                @for (detail, destination) in details.iter().zip(destinations) {
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
                        (ages(&destination, most, asked))
                    }
                }
            } }))
            p.legend aria-hidden="true" {
                @for (name, bucket) in AGES { span class={ "key a" (group(bucket)) } { (name) } " " }
            }
        }
    }
}

/// Which of the ages a bucket belongs to.
fn group(bucket: usize) -> usize {
    AGES.iter().rposition(|(_, first)| *first <= bucket).unwrap_or(0)
}

/// The content, as a link where there is a target.
fn linked(link: Option<&str>, content: Markup) -> Markup {
    html! { @if let Some(link) = link { a href=(link) { (content) } } @else { (content) } }
}

/// The ages of the mail for one destination: the buckets of qshape(1) as one bar, the youngest first. The whole width is
/// as much as waits for the largest.
fn ages(destination: &Destination, most: u64, asked: &Asked) -> Markup {
    let all: u64 = destination.ages.iter().sum();
    let Some(domain) = destination.domain.as_ref().filter(|_| all > 0) else { return html! {} };
    let mut before = 0;
    let parts =
        destination.ages.iter().enumerate().filter(|(_, recipients)| **recipients > 0).map(|(bucket, recipients)| {
            let start = before;
            before += recipients;
            (bucket, start, *recipients)
        });
    let parts: Vec<_> = parts.collect();
    let link = |bucket: usize| {
        links::filtered(asked, |filter| {
            filter.domain = Some(domain.clone());
            let from = bucket.checked_sub(1).map_or(0, |lower| AGE_LIMITS[lower]);
            filter.age = Some(Ages { from, to: AGE_LIMITS.get(bucket).copied() });
        })
    };
    html! {
        svg.bar viewBox={"0 0 " (most.max(all)) " 1"} preserveAspectRatio="none" {
            @for (bucket, start, recipients) in parts {
                @let words = format!("{} waiting {}", count(recipients, "recipient", "recipients"), span(bucket));
                a href=(link(bucket)) aria-label=(words) {
                    rect class={"a" (group(bucket))} x=(start) width=(recipients) height="1" { title { (words) } }
                }
            }
        }
    }
}

/// `for 2 h 40 min to 5 h 20 min`
fn span(bucket: usize) -> String {
    let time = |minutes: i64| match (minutes / 60, minutes % 60) {
        (0, minutes) => format!("{minutes} min"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} min"),
    };
    let lower = bucket.checked_sub(1).and_then(|lower| AGE_LIMITS.get(lower)).map(|limit| time(*limit));
    match (lower, AGE_LIMITS.get(bucket)) {
        (None, _) => format!("for less than {}", time(AGE_LIMITS[0])),
        (Some(lower), None) => format!("for more than {lower}"),
        (Some(lower), Some(upper)) => format!("for {lower} to {}", time(*upper)),
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
                            svg.bar viewBox={"0 0 " (most) " 1"} preserveAspectRatio="none" aria-hidden="true" {
                                rect.a2 width=(recipients) height="1" {}
                            }
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
    fn each_age_bucket_has_its_name() {
        let names: Vec<_> = (0..=AGE_LIMITS.len()).map(span).collect();
        assert_eq!(
            names,
            [
                "for less than 5 min",
                "for 5 min to 10 min",
                "for 10 min to 20 min",
                "for 20 min to 40 min",
                "for 40 min to 1 h 20 min",
                "for 1 h 20 min to 2 h 40 min",
                "for 2 h 40 min to 5 h 20 min",
                "for 5 h 20 min to 10 h 40 min",
                "for 10 h 40 min to 21 h 20 min",
                "for more than 21 h 20 min",
            ]
        );
        let groups: Vec<_> = (0..=AGE_LIMITS.len()).map(group).collect();
        assert_eq!(groups, [0, 0, 0, 0, 0, 1, 1, 2, 2, 3]);
    }
}
