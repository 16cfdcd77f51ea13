//! How much waited over the last day and the last week: a drawing with axes, in which outages and queue runs are marked,
//! and the same figures as a table.

use maud::{Markup, html};

use super::links;
use crate::report::Report;
use crate::request::Asked;
use crate::state::{Outage, Sample};
use crate::text::{bytes, count, short, short_moment, thousands, tick};

const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;

/// A time that is drawn. Lengths are in seconds.
struct Span {
    name: &'static str,
    length: i64,
    /// How far the labels of the time axis are apart.
    step: i64,
    /// The parts of which each has a row in the table.
    part: i64,
}

const SPANS: [Span; 2] = [
    Span { name: "24 hours", length: DAY, step: 6 * HOUR, part: 2 * HOUR },
    Span { name: "7 days", length: 7 * DAY, step: DAY, part: DAY },
];

/// The most points of a line.
const POINTS: i64 = 100;

// The field of a drawing, in its own units.
const LEFT: i64 = 34;
const WIDTH: i64 = 300;
const RIGHT: i64 = LEFT + WIDTH;
const TOP: i64 = 8;
const HEIGHT: i64 = 92;
const GROUND: i64 = TOP + HEIGHT;

/// A drawing of the samples of one span.
struct Drawing<'a> {
    report: &'a Report,
    span: &'a Span,
    start: i64,
    samples: Vec<&'a Sample>,
    /// The upper end of the scale.
    top: u64,
}

/// The history, as far as there is one.
pub(crate) fn history(report: &Report, asked: &Asked) -> Markup {
    let now = report.listing.sampling.started;
    let drawn: Vec<_> = SPANS
        .iter()
        .filter_map(|span| {
            let start = now - span.length;
            let samples: Vec<_> = report.history.iter().filter(|sample| sample.taken >= start).collect();
            // The week is worth a drawing once it holds more than the day.
            let is_news = span.length == DAY || samples.first().is_some_and(|first| first.taken < now - DAY);
            let top = scale(samples.iter().map(|sample| sample.messages).max().unwrap_or(0));
            (samples.len() > 1 && is_news).then_some(Drawing { report, span, start, samples, top })
        })
        .collect();
    html! {
        @if !drawn.is_empty() {
            section.history aria-labelledby="history" {
                h2 #history { "History" }
                @for drawing in drawn { (drawing.figure(asked)) }
            }
        }
    }
}

impl Drawing<'_> {
    fn figure(&self, asked: &Asked) -> Markup {
        let words = self.words();
        let parts = self.parts();
        html! {
            figure {
                svg.chart viewBox="0 0 340 122" aria-hidden="true" {
                    @for outage in &self.report.outages.latest { (self.outage(outage)) }
                    (self.axes())
                    path.area d=(self.outline()) {}
                    @for run in self.report.flush.log.iter().filter(|run| run.started >= self.start) {
                        path.run d={ "M" (self.x(run.started)) " " (TOP) "V" (GROUND) } {
                            title { "Queue run " (run.number) ", " (self.when(run.started)) }
                        }
                    }
                    @for (from, messages, size) in &parts {
                        @let (left, right) = (self.x(*from), self.x(from + self.span.part));
                        rect x=(left) width=(right - left) {
                            title { (self.when(*from)) ": at most " (count(*messages, "message", "messages")) (size) }
                        }
                    }
                }
                figcaption {
                    (words) ". "
                    @if self.report.outages.latest.iter().any(|outage| self.is_seen(outage)) {
                        span.key.down { "main mail server down" } " "
                    }
                    @if self.report.flush.log.iter().any(|run| run.started >= self.start) { span.key.run { "queue run" } }
                }
                // A page that renews itself would close what was opened.
                @if asked.live {
                    p { a href={ (links::live(asked)) "#history" } { "Stop renewing the page, to see the last " (self.span.name) " as a table" } }
                } @else {
                    details {
                        summary { "The last " (self.span.name) " as a table" }
                        table {
                            thead { tr { th { "From" } th { "Most messages" } } }
                            tbody {
                                @for (from, messages, size) in &parts {
                                    tr { th { (self.when(*from)) } td { (thousands(*messages)) (size) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    fn words(&self) -> String {
        let at = |sample: Option<&&Sample>| sample.map_or(0, |sample| sample.messages);
        let most = self.samples.iter().map(|sample| sample.messages).max().unwrap_or(0);
        let largest = self.samples.iter().filter_map(|sample| sample.bytes).max();
        format!(
            "Last {}: {} at first, {} now, never more than {}{} when looked at",
            self.span.name,
            count(at(self.samples.first()), "message", "messages"),
            thousands(at(self.samples.last())),
            thousands(most),
            largest.map(|largest| format!(" ({})", bytes(largest))).unwrap_or_default(),
        )
    }

    /// The most messages, and the most bytes in words, of each part in which somebody looked.
    fn parts(&self) -> Vec<(i64, u64, String)> {
        let mut parts: Vec<(i64, u64, Option<u64>)> = Vec::new();
        for sample in &self.samples {
            // What was seen at the end is of the last part.
            let at = (sample.taken - self.start).clamp(0, self.span.length - 1);
            let from = self.start + at - at % self.span.part;
            match parts.last_mut() {
                Some(last) if last.0 == from => *last = (from, last.1.max(sample.messages), last.2.max(sample.bytes)),
                _ => parts.push((from, sample.messages, sample.bytes)),
            }
        }
        let size = |most: Option<u64>| most.map(|most| format!(", {}", bytes(most))).unwrap_or_default();
        parts.into_iter().map(|(from, messages, most)| (from, messages, size(most))).collect()
    }

    /// Where an instant stands on the time axis.
    fn x(&self, at: i64) -> i64 {
        LEFT + (at - self.start).clamp(0, self.span.length) * WIDTH / self.span.length
    }

    fn y(&self, messages: u64) -> i64 {
        let part = u128::from(messages.min(self.top)) * HEIGHT.unsigned_abs() as u128 / u128::from(self.top.max(1));
        GROUND - i64::try_from(part).unwrap_or(HEIGHT)
    }

    fn when(&self, at: i64) -> String {
        short_moment(at, self.report.listing.sampling.started, &self.report.zone)
    }

    fn axes(&self) -> Markup {
        let now = self.start + self.span.length;
        let offset = i64::from(
            jiff::Timestamp::from_second(now).map_or(0, |instant| self.report.zone.to_offset(instant).seconds()),
        );
        let first = self.start + (-(self.start + offset)).rem_euclid(self.span.step);
        let ticks = (0..).map(|number| first + number * self.span.step).take_while(|at| *at <= now);
        let parts = [self.top, self.top / 2, 0];
        html! {
            path d={ @for part in parts { "M" (LEFT) " " (self.y(part)) "H" (RIGHT) } } {}
            @for part in parts { text.end x=(LEFT - 5) y=(self.y(part) + 4) { (brief(part)) } }
            // The last label is the present.
            @for at in ticks.filter(|at| self.x(*at) < RIGHT - 40) {
                text x=(self.x(at)) y="115" { (tick(at, &self.report.zone, self.span.step)) }
            }
            path.now d={ "M" (RIGHT) " " (TOP) "V" (GROUND + 3) } {}
            text.end x=(RIGHT + 4) y="115" { "now" }
        }
    }

    /// The outline of the area. Each small part of the time has one point, at its highest value.
    fn outline(&self) -> String {
        let mut points: Vec<(i64, u64)> = Vec::new();
        for sample in &self.samples {
            let place = (self.x(sample.taken) - LEFT) * POINTS / WIDTH * (WIDTH / POINTS) + LEFT;
            match points.last_mut() {
                Some((last, highest)) if *last == place => *highest = sample.messages.max(*highest),
                _ => points.push((place, sample.messages)),
            }
        }
        // It begins and ends on the ground, which makes it an area. Each point is given by how far it is from the one
        // before: that is shorter.
        let (mut x, mut y) = (points.first().map_or(LEFT, |(first, _)| *first), GROUND);
        let start = format!("M{x} {y}l");
        let line = points.iter().map(|(place, value)| {
            let (left, below) = (x, y);
            (x, y) = (*place, self.y(*value));
            format!("{} {} ", x - left, y - below)
        });
        start + &line.collect::<String>() + &format!("V{GROUND}")
    }

    fn is_seen(&self, outage: &Outage) -> bool {
        outage.up.is_none_or(|up| up > self.start)
    }

    fn outage(&self, outage: &Outage) -> Markup {
        html! {
            @if self.is_seen(outage) {
                @let (left, right) = (self.x(outage.down), outage.up.map_or(RIGHT, |up| self.x(up)));
                path.outage d={ "M" (left) " " (TOP) "H" (right.max(left + 1)) "V" (GROUND) "H" (left) } {
                    title {
                        (short(&outage.host)) " down from " (self.when(outage.down)) " to "
                        (outage.up.map_or("now".into(), |up| self.when(up)))
                    }
                }
            }
        }
    }
}

/// The upper end of a scale for this many: a round number of which half is one, too.
fn scale(most: u64) -> u64 {
    let mut unit: u64 = 1;
    loop {
        let top = [2, 4, 6, 8, 10].map(|step| unit.saturating_mul(step)).into_iter().find(|top| *top >= most);
        match top {
            Some(top) => return top,
            None => unit = unit.saturating_mul(10),
        }
    }
}

/// A number where there is little room: `1200` as `1.2k`.
fn brief(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        1000..10_000 if !number.is_multiple_of(1000) => format!("{:.1}k", number as f64 / 1e3),
        1000..1_000_000 => format!("{}k", number / 1000),
        _ if number < 10_000_000 && !number.is_multiple_of(1_000_000) => format!("{:.1}M", number as f64 / 1e6),
        _ => format!("{}M", number / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_ends_at_a_round_number_above_all() {
        let tops = [0, 1, 2, 3, 7, 9, 10, 11, 21, 79, 100, 101, 41_233].map(scale);
        assert_eq!(tops, [2, 2, 2, 4, 8, 10, 10, 20, 40, 80, 100, 200, 60_000]);
        assert!(scale(u64::MAX) > u64::MAX / 20);
        assert_eq!(
            [0, 999, 1200, 2000, 60_000, 1_500_000, 20_000_000].map(brief).join(" "),
            "0 999 1.2k 2k 60k 1.5M 20M"
        );
    }
}
