//! The queue at a glance: for whom mail waits and for how long, why, and the history. Every bar is a link to its
//! messages.

use maud::{Markup, html};

use super::super::sentences::{Detail, Sentences};
use super::{links, run_button, run_form};
use crate::queue::{AGE_LIMITS, Ages, Destination, common_part};
use crate::report::Report;
use crate::request::Asked;
use crate::state::Sample;
use crate::text::{bytes, count, printable, short, thousands};

/// How many reasons are shown.
const REASONS: usize = 5;

/// The spans that the history is drawn over: name, and length in seconds.
const SPANS: [(&str, i64); 2] = [("24 hours", 24 * 60 * 60), ("7 days", 7 * 24 * 60 * 60)];

/// The most points of a line.
const POINTS: i64 = 96;

/// Width and height of a drawing of the history.
const WIDTH: i64 = 288;
const HEIGHT: u64 = 40;

/// Destinations, reasons and history, as far as there are any.
pub(crate) fn overview(report: &Report, asked: &Asked) -> Markup {
    let details = Sentences::of(report).details;
    html! {
        @if report.listing.summary.messages > 0 {
            section.overview aria-label="Overview" {
                @if !details.is_empty() { (destinations(report, &details, asked)) }
                (reasons(report, asked))
                (history(report, asked))
            }
        } @else { (history(report, asked)) }
    }
}

fn destinations(report: &Report, details: &[Detail], asked: &Asked) -> Markup {
    html! {
        div {
            h2 { "Waiting for" }
            (run_form(html! { ul {
                @for (detail, destination) in details.iter().zip(report.listing.summary.destinations(details.len())) {
                    li {
                        @let link = destination.domain.as_ref().filter(|domain| !domain.is_empty() && !domain.ends_with('…'));
                        @let link = link.map(|domain| links::filtered(asked, |filter| filter.domain = Some(domain.clone())));
                        (linked(link.as_deref(), html! { bdi { (printable(&detail.name)) } }))
                        ": " (detail.text)
                        @if let Some(target) = detail.run.as_ref().filter(|_| report.offers_parts()) {
                            " " (run_button(target))
                        }
                        (ages(&destination, asked))
                    }
                }
            } }))
        }
    }
}

/// The content, as a link where there is a target.
fn linked(link: Option<&str>, content: Markup) -> Markup {
    html! { @if let Some(link) = link { a href=(link) { (content) } } @else { (content) } }
}

/// The ages of the mail for one destination: the buckets of qshape(1) as one bar, the youngest first.
fn ages(destination: &Destination, asked: &Asked) -> Markup {
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
        svg.bar viewBox={"0 0 " (all) " 1"} preserveAspectRatio="none" {
            @for (bucket, start, recipients) in parts {
                a href=(link(bucket)) aria-label=(format!("{} {}", count(recipients, "recipient", "recipients"), span(bucket))) {
                    rect class={"b" (bucket)} x=(start) width=(recipients) height="1" {}
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
            div {
                h2 { "Reasons" }
                ul {
                    @for (pattern, recipients) in &patterns {
                        li {
                            @let part = Some(common_part(pattern)).filter(|part| part.len() > 3);
                            @let link = part.map(|part| links::filtered(asked, |filter| filter.reason = Some(part.to_owned())));
                            @let told = count(*recipients, "recipient", "recipients");
                            (linked(link.as_deref(), html! { bdi { (short(pattern)) } }))
                            ": " (told)
                            (linked(link.as_deref(), html! {
                                svg.bar viewBox={"0 0 " (most) " 1"} preserveAspectRatio="none" role="img" aria-label=(told) {
                                    rect.b6 width=(recipients) height="1" {}
                                }
                            }))
                        }
                    }
                }
            }
        }
    }
}

/// How many messages there were, and how large they were, over the last day and the last week.
fn history(report: &Report, asked: &Asked) -> Markup {
    let now = report.listing.sampling.started;
    let drawn: Vec<_> = SPANS
        .into_iter()
        .filter_map(|(name, length)| {
            let since: Vec<_> = report.history.iter().filter(|sample| sample.taken >= now - length).collect();
            (since.len() > 1).then_some((name, length, since))
        })
        .collect();
    html! {
        @if !drawn.is_empty() {
            div.history {
                h2 { "History" }
                @for (name, length, samples) in drawn { (lines(name, now - length, length, &samples, asked)) }
            }
        }
    }
}

fn lines(name: &str, start: i64, length: i64, samples: &[&Sample], asked: &Asked) -> Markup {
    let most = samples.iter().map(|sample| sample.messages).max().unwrap_or(0);
    let largest = samples.iter().filter_map(|sample| sample.bytes).max();
    let first = samples.first().map_or(0, |sample| sample.messages);
    let last = samples.last().map_or(0, |sample| sample.messages);
    let size = largest.map(|largest| format!(" ({})", bytes(largest))).unwrap_or_default();
    let label = format!(
        "Last {name}: {} at first, {} now, never more than {}{size} when looked at",
        count(first, "message", "messages"),
        thousands(last),
        thousands(most)
    );
    html! {
        @let link = links::filtered(asked, |filter| filter.age = Some(Ages { from: 0, to: Some(length / 60) }));
        figure {
            a href=(link) { svg.lines viewBox={"0 0 " (WIDTH) " " (HEIGHT)} preserveAspectRatio="none" role="img" aria-label=(label) {
                @if let Some(largest) = largest {
                    polygon.size points=(points(start, length, samples, |sample| sample.bytes, largest)) {}
                }
                polygon points=(points(start, length, samples, |sample| Some(sample.messages), most)) {}
            } }
            figcaption { (label) "." }
        }
    }
}

/// The outline of an area. Each small part of the time has one point, at its highest value.
fn points(start: i64, length: i64, samples: &[&Sample], value: fn(&Sample) -> Option<u64>, most: u64) -> String {
    let mut points: Vec<(i64, u64)> = Vec::new();
    for sample in samples {
        let Some(value) = value(sample) else { continue };
        let place = (sample.taken - start).clamp(0, length) * POINTS / length * (WIDTH / POINTS);
        match points.last_mut() {
            Some((last, highest)) if *last == place => *highest = value.max(*highest),
            _ => points.push((place, value)),
        }
    }
    let height = |value: u64| {
        HEIGHT - u64::try_from(u128::from(value) * u128::from(HEIGHT) / u128::from(most.max(1))).unwrap_or(HEIGHT)
    };
    // The outline goes down to the ground at both ends, which makes it an area.
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else { return String::new() };
    let ground = format!("{last},{HEIGHT} {first},{HEIGHT}");
    points.iter().map(|(place, value)| format!("{place},{} ", height(*value))).collect::<String>() + &ground
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_through_the_highest_of_each_part() {
        let at = |taken, messages| Sample { taken, messages, recipients: 0, bytes: None, free: None };
        let samples = [at(0, 5), at(10, 10), at(960, 0), at(9600, u64::MAX)];
        let line = points(0, 9600, &samples.iter().collect::<Vec<_>>(), |sample| Some(sample.messages), u64::MAX);
        assert_eq!(line, "0,40 27,40 288,0 288,40 0,40");
        assert_eq!(points(0, 9600, &[], |sample| sample.bytes, 0), "");
    }

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
    }
}
