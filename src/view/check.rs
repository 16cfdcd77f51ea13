//! `bartleby check`, by the conventions of the monitoring plugins (Nagios, Icinga): one line, performance data, and
//! an exit status of 0 (OK), 1 (WARNING), 2 (CRITICAL) or 3 (UNKNOWN).

use std::io;
use std::str::FromStr;

use crate::queue::Row;
use crate::report::clocks::{FirstReturn, ReturnKind};
use crate::report::disk::Level;
use crate::report::{Form, Report, Verdict};
use crate::system::Body;
use crate::text::{bytes, count, duration, one_line};

/// How bad the state is, the worst last. An unknown state ranks below a known bad one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// Everything is within its limits.
    #[default]
    Ok,
    /// The state could not be found out.
    Unknown,
    /// Somebody should look.
    Warning,
    /// Somebody must look.
    Critical,
}

impl Severity {
    /// The exit status.
    pub(crate) fn code(self) -> u8 {
        match self {
            Severity::Ok => 0,
            Severity::Warning => 1,
            Severity::Critical => 2,
            Severity::Unknown => 3,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Severity::Ok => "OK",
            Severity::Warning => "WARNING",
            Severity::Critical => "CRITICAL",
            Severity::Unknown => "UNKNOWN",
        }
    }
}

/// A threshold range of the plugin guidelines: `10` (alert outside of 0 to 10), `10:`, `~:10`, `10:20`, `@10:20`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Range {
    text: String,
    start: f64,
    end: f64,
    inside: bool,
}

impl Range {
    fn alerts(&self, value: f64) -> bool {
        (self.start..=self.end).contains(&value) == self.inside
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("“{text}” is no threshold such as 10, 10:20 or @10:20");
        let (bounds, inside) = text.strip_prefix('@').map_or((text, false), |bounds| (bounds, true));
        let (start, end) = bounds.split_once(':').unwrap_or(("0", bounds));
        if bounds.is_empty() {
            return Err(wrong());
        }
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(wrong);
        let start = if start == "~" { f64::NEG_INFINITY } else { number(start)? };
        let end = if end.is_empty() { f64::INFINITY } else { number(end)? };
        if start > end { Err(wrong()) } else { Ok(Range { text: text.to_owned(), start, end, inside }) }
    }
}

/// The limits that the queue is compared with; ages are in seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Thresholds {
    /// Messages, `-w`.
    pub(crate) warning: Option<Range>,
    /// Messages, `-c`.
    pub(crate) critical: Option<Range>,
    /// Age of the oldest message, `--age-warning`.
    pub(crate) age_warning: Option<Range>,
    /// Age of the oldest message, `--age-critical`.
    pub(crate) age_critical: Option<Range>,
    /// Time left until the first message goes back, `--return-warning`.
    pub(crate) return_warning: Option<Range>,
    /// Time left until the first message goes back, `--return-critical`.
    pub(crate) return_critical: Option<Range>,
}

/// A time such as `90`, `5m`, `2h` or `1d` as the threshold range, in seconds, that alerts when less is left.
///
/// # Errors
/// The text is no time.
pub(crate) fn left_range(text: &str) -> Result<Range, String> {
    let at_least = age_range(text)?;
    if at_least.inside || at_least.start != 0.0 || at_least.end.is_infinite() {
        return Err(format!("“{text}” is no time such as 90, 5m, 2h or 1d"));
    }
    format!("{}:", at_least.end).parse()
}

/// An age such as `90`, `5m`, `2h` or `1d` as a threshold range in seconds.
///
/// # Errors
/// The text is no age.
pub(crate) fn age_range(text: &str) -> Result<Range, String> {
    let (number, factor) = match text.char_indices().last() {
        Some((end, 's')) => (&text[..end], 1),
        Some((end, 'm')) => (&text[..end], 60),
        Some((end, 'h')) => (&text[..end], 3600),
        Some((end, 'd')) => (&text[..end], 86_400),
        _ => return text.parse(),
    };
    let number: u32 = number.parse().map_err(|_| format!("“{text}” is no age such as 90, 5m, 2h or 1d"))?;
    (u64::from(number) * factor).to_string().parse()
}

/// Writes the line.
pub(crate) struct Check {
    /// The limits that the queue is compared with.
    pub(crate) thresholds: Thresholds,
}

impl Form for Check {
    fn end(&mut self, report: &Report, _rows: &[Row], to: &mut Body<'_>) -> io::Result<()> {
        to.line(format_args!("{}", examine(report, &self.thresholds).1))
    }

    fn verdict(&self, report: &Report) -> Verdict {
        Verdict { status: examine(report, &self.thresholds).0.code(), ..Verdict::default() }
    }
}

/// The line to print, and how bad it is. A listing that failed is UNKNOWN, never OK.
fn examine(report: &Report, thresholds: &Thresholds) -> (Severity, String) {
    let listing = &report.listing;
    let summary = &listing.summary;
    if let Some(trouble) = &listing.trouble {
        let text = format!("{trouble} {}", one_line(&trouble.remedy())).replace('|', "/");
        return (Severity::Unknown, format!("BARTLEBY UNKNOWN - {text}"));
    }
    let age = summary.oldest.map_or(0, |oldest| report.age(oldest));
    let judge = |value: f64, warning: &Option<Range>, critical: &Option<Range>| {
        let alerts = |range: &Option<Range>| range.as_ref().is_some_and(|range| range.alerts(value));
        match (alerts(critical), alerts(warning)) {
            (true, _) => Severity::Critical,
            (_, true) => Severity::Warning,
            _ => Severity::Ok,
        }
    };
    let mut worst = judge(summary.messages as f64, &thresholds.warning, &thresholds.critical).max(judge(
        age as f64,
        &thresholds.age_warning,
        &thresholds.age_critical,
    ));
    worst = worst.max(returns(report, thresholds, judge));
    let mut told = vec![format!("{} in the queue", count(summary.messages, "message", "messages"))];
    if let Some(oldest) = summary.oldest {
        told.push(format!("the oldest for {}", report.waited_briefly(oldest)));
    }
    told.extend(clocks_in_words(report, thresholds));
    if !report.given_up().is_empty() {
        worst = worst.max(Severity::Warning);
        told.push(format!("new mail for {} goes back at once", report.given_up().join(", ")));
    }
    if let Some(returned) = returned_lately(report) {
        worst = worst.max(Severity::Warning);
        told.push(returned);
    }
    let text = |range: &Option<Range>| range.as_ref().map(|range| range.text.clone()).unwrap_or_default();
    let mut data = vec![
        format!("messages={};{};{};0", summary.messages, text(&thresholds.warning), text(&thresholds.critical)),
        format!("recipients={};;;0", summary.recipients),
        format!("age={age}s;{};{};0", text(&thresholds.age_warning), text(&thresholds.age_critical)),
    ];
    data.extend(left(report).map(|left| {
        format!("returns={left}s;{};{}", text(&thresholds.return_warning), text(&thresholds.return_critical))
    }));
    data.extend(summary.bytes().map(|bytes| format!("size={bytes}B;;;0")));
    for filesystem in &report.filesystems {
        let severity = match filesystem.level {
            Level::Ok => Severity::Ok,
            Level::Warning => Severity::Warning,
            Level::Critical => Severity::Critical,
            Level::Unknown => Severity::Unknown,
        };
        worst = worst.max(severity);
        let mount = &filesystem.mount;
        let usage = &filesystem.usage;
        match (severity, usage.bytes_available, usage.inodes_available) {
            (Severity::Ok, ..) => {}
            (Severity::Unknown, ..) => told.push(format!("{mount} does not answer")),
            (_, Some(free), Some(inodes)) => told.push(format!("{mount} has {} and {inodes} inodes left", bytes(free))),
            (_, Some(free), None) => told.push(format!("{mount} has {} left", bytes(free))),
            _ => told.push(format!("{mount} is short of room")),
        }
        if let (Some(free), Some(all)) = (usage.bytes_available, usage.bytes) {
            let label = filesystem.mount.replace(['\'', '='], "_");
            data.push(format!("'free {label}'={free}B;;;0;{all}"));
        }
    }
    let line = format!("BARTLEBY {} - {}", worst.word(), told.join(", ").replace('|', "/"));
    (worst, format!("{line} | {}", data.join(" ").replace('|', "_")))
}

/// For how long a run that returned much is a reason to look, in seconds.
const LATELY: i64 = 24 * 60 * 60;

/// That more than a tenth of what the last run moved went back, where that was not long ago.
fn returned_lately(report: &Report) -> Option<String> {
    let last = report.flush.last()?;
    let is_recent = report.age(last.started) < LATELY;
    let outcome = last.outcome.as_ref().filter(|outcome| is_recent && outcome.is_alarming())?;
    let returned = outcome.tally.as_ref()?.returned;
    Some(format!("queue run {} returned mail for {}", last.number, count(returned, "recipient", "recipients")))
}

/// Seconds until the first of what waits goes back, less than 0 where it is past its time; `None` where nothing goes back,
/// or that is not known.
fn left(report: &Report) -> Option<i64> {
    report.first_return().map(|first| first.at.saturating_sub(report.listing.sampling.started))
}

/// How bad it is that mail goes back, and that nothing is tried again. A time that is asked for, but not known, is unknown.
fn returns(
    report: &Report,
    thresholds: &Thresholds,
    judge: impl Fn(f64, &Option<Range>, &Option<Range>) -> Severity,
) -> Severity {
    let is_asked = thresholds.return_warning.is_some() || thresholds.return_critical.is_some();
    let of_left = match left(report) {
        Some(left) => judge(left as f64, &thresholds.return_warning, &thresholds.return_critical),
        None if is_asked && report.return_gap().is_some() => Severity::Unknown,
        None => Severity::Ok,
    };
    let is_stopped = report.not_held() > 0 && report.listing.facts.timing.stopped.is_some();
    of_left.max(if is_stopped { Severity::Critical } else { Severity::Ok })
}

/// When the first of what waits goes back, and that nothing is tried again.
fn clocks_in_words(report: &Report, thresholds: &Thresholds) -> Vec<String> {
    let mut told = Vec::new();
    let is_asked = thresholds.return_warning.is_some() || thresholds.return_critical.is_some();
    match (report.first_return(), left(report)) {
        (Some(FirstReturn { overdue, .. }), _) if overdue > 0 => {
            told.push(format!("{} past its time", count(overdue, "message", "messages")));
        }
        (Some(FirstReturn { kind: ReturnKind::NotBefore, .. }), Some(left)) => {
            told.push(format!("none goes back within {}", duration(left)));
        }
        (Some(_), Some(left)) => told.push(format!("the first goes back in {}", duration(left))),
        _ => told.extend(
            report
                .return_gap()
                .filter(|_| is_asked)
                .map(|gap| format!("when mail goes back is not known: {}", gap.why)),
        ),
    }
    let stopped = report.listing.facts.timing.stopped.as_ref().filter(|_| report.not_held() > 0);
    told.extend(stopped.map(|gap| gap.why.clone()));
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_left_alerts_when_it_is_less() {
        let range = left_range("1d").unwrap();
        assert_eq!(range.text, "86400:");
        assert!(range.alerts(86_399.0) && range.alerts(-5.0) && !range.alerts(86_400.0));
        for text in ["", "x", "1:2", "@5", "5:"] {
            assert!(left_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_alert_as_the_guidelines_say() {
        for (text, quiet, alerting) in [
            ("10", &[0.0, 10.0][..], &[-1.0, 10.5][..]),
            ("10:", &[10.0, 1e9], &[9.0]),
            ("~:10", &[-5.0, 10.0], &[11.0]),
            ("10:20", &[10.0, 20.0], &[9.0, 21.0]),
            ("@10:20", &[9.0, 21.0], &[10.0, 20.0]),
        ] {
            let range: Range = text.parse().unwrap();
            assert!(quiet.iter().all(|value| !range.alerts(*value)), "{text}");
            assert!(alerting.iter().all(|value| range.alerts(*value)), "{text}");
        }
        for text in ["", "x", "20:10", "@", "1:2:3", "inf", "nan"] {
            assert!(text.parse::<Range>().is_err(), "{text}");
        }
    }

    #[test]
    fn ages_have_units() {
        let seconds = |text| age_range(text).unwrap().text;
        assert_eq!(
            [seconds("90"), seconds("5m"), seconds("2h"), seconds("1d"), seconds("@1:2")],
            ["90", "300", "7200", "86400", "@1:2"]
        );
        for text in ["h", "-5m", "1.5h", "5 m", "5w"] {
            assert!(age_range(text).is_err(), "{text}");
        }
    }
}
