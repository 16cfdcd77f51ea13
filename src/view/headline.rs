//! What matters, in one sentence, the same on the page and in text: is mail lost, is there something to do.

use super::sentences;
use crate::mta::trouble::Status;
use crate::report::Report;
use crate::report::clocks::{ReturnKind, Urgency};
use crate::report::disk::{Filesystem, Level};
use crate::text::{bytes, count, duration, thousands};

/// How it stands. It is the colour of the page and of its icon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing is waiting.
    Calm,
    /// Mail is waiting.
    Waiting,
    /// Mail that has waited can be delivered now.
    Ready,
    /// Something is wrong, or soon will be.
    Alarm,
}

impl Tone {
    /// The word for it in the page's style sheet.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Tone::Calm => "calm",
            Tone::Waiting => "waiting",
            Tone::Ready => "ready",
            Tone::Alarm => "alarm",
        }
    }
}

/// The sentence to read first.
pub(crate) struct Headline {
    /// How it stands.
    pub(crate) tone: Tone,
    /// The same in a word or two, for the title of a browser's tab.
    pub(crate) word: &'static str,
    /// The sentence.
    pub(crate) sentence: String,
    /// A second one behind it, or nothing.
    pub(crate) rest: String,
}

impl Headline {
    /// Puts a report into one sentence. A listing that is not complete is called "at least", and one of which nothing was
    /// read "not known", never empty.
    pub(crate) fn of(report: &Report) -> Headline {
        let messages = report.listing.summary.messages;
        let say = |tone, word, sentence: String, rest: String| Headline { tone, word, sentence, rest };
        let waiting = count(messages, "message is waiting", "messages are waiting");
        let full = report.filesystems.iter().find(|of| of.queue && of.level == Level::Critical);
        let went_back = returned(report).filter(|_| report.listing.status() == Status::Ok && full.is_none());
        if let Some(sentence) = went_back {
            return say(Tone::Alarm, "Mail returned", sentence, String::new());
        }
        match (report.listing.status(), messages, full) {
            (Status::Ok, _, Some(disk)) => {
                let rest = if messages > 0 { format!("{waiting}.") } else { String::new() };
                say(Tone::Alarm, "Disk full", nearly_full(disk), rest)
            }
            (Status::Ok, 0, _) if !report.given_up().is_empty() => {
                let sentence = "The queue is empty, but new mail would go back to its sender at once.";
                say(Tone::Alarm, "Urgent", sentence.into(), String::new())
            }
            (Status::Ok, 0, _) => {
                say(Tone::Calm, "Empty", "The queue is empty.".into(), "No mail is waiting here.".into())
            }
            (Status::Ok, ..) if report.urgency() == Urgency::Alarm => {
                say(Tone::Alarm, "Urgent", urgent(report, &waiting), String::new())
            }
            (Status::Ok, ..) => of_what_waits(report, &waiting),
            (_, 0, _) => {
                let unknown = "The queue could not be read, so it is not known whether mail is waiting.";
                say(Tone::Alarm, "Unknown", unknown.into(), String::new())
            }
            _ => say(Tone::Alarm, "Unknown", format!("At least {waiting}."), "The list is not complete.".into()),
        }
    }
}

/// For how long the outcome of a run that was asked about is what matters most, in seconds.
const NEWS: i64 = 24 * 60 * 60;

/// That much of what left in the run that was asked about went back, where that was within the last day.
fn returned(report: &Report) -> Option<String> {
    let (_, outcome) = report.followed.as_ref().filter(|(flush, _)| report.age(flush.started) < NEWS)?;
    if !outcome.is_alarming() {
        return None;
    }
    let tally = outcome.tally.as_ref()?;
    let some = format!("{} of {}", thousands(tally.returned), count(tally.left(), "recipient", "recipients"));
    Some(format!("Mail for {some} went back to its sender."))
}

/// Mail waits, and nothing is urgent.
fn of_what_waits(report: &Report, waiting: &str) -> Headline {
    let messages = report.listing.summary.messages;
    let (tone, word, sentence, rest) = match sentences::what_waited_for_it(report) {
        _ if report.listing.summary.destinations(1).is_empty() && report.listing.summary.delivered > 0 => {
            let remain = count(messages, "message remains", "messages remain");
            let sentence = format!("{remain}, but the mail server has no more to do for any recipient.");
            (Tone::Waiting, "Waiting", sentence, String::new())
        }
        _ if report.flush.under_way => {
            let still = count(messages, "message is still waiting", "messages are still waiting");
            (Tone::Waiting, "Running", "The queue is being run.".into(), format!("{still}."))
        }
        Some(waited) if waited.is_back => {
            let can = count(waited.recipients, "recipient", "recipients");
            let rest = format!("Mail for {can} can be delivered now.");
            (Tone::Ready, "Back", "The main mail server is back.".into(), rest)
        }
        _ => match first_return_in(report).filter(|_| report.urgency() == Urgency::Warning) {
            Some(left) => {
                let verb = goes(report);
                let rest = format!("The first {verb} back to its sender in {}.", duration(left));
                (Tone::Waiting, "Waiting", format!("{waiting}."), rest)
            }
            None => {
                let rest = match messages {
                    _ if !none_is_lost(report) => "",
                    1 => "It is not lost.",
                    _ => "None is lost.",
                };
                (Tone::Waiting, "Waiting", format!("{waiting} here."), rest.into())
            }
        },
    };
    Headline { tone, word, sentence, rest }
}

/// Whether nothing that waits is lost: all of it is known, none goes back before a time that lies ahead, and there is
/// room for it.
pub(crate) fn none_is_lost(report: &Report) -> bool {
    let deadlines = &report.listing.summary.deadlines;
    report.listing.trouble.is_none()
        && deadlines.unknown == 0
        && deadlines.returned == 0
        && report.first_return().is_none_or(|first| first.overdue == 0)
        && report.urgency() < Urgency::Alarm
        && !report.filesystems.iter().any(|of| of.queue && of.level == Level::Critical)
}

/// Seconds until the first mail for the primary goes back, which may be negative.
fn first_return_in(report: &Report) -> Option<i64> {
    let first = report.listing.summary.first_return(|domain| report.primary.may_be_for(domain))?;
    Some(first.saturating_sub(report.listing.sampling.started))
}

/// The verb for what goes back: OpenSMTPD returns it at its time, the others at the next attempt that fails.
fn goes(report: &Report) -> &'static str {
    match ReturnKind::of(&report.listing.summary.lifetimes()) {
        Some(ReturnKind::At) => "goes",
        _ => "can go",
    }
}

/// Less than a day is left, or nothing is tried again.
fn urgent(report: &Report, waiting: &str) -> String {
    let messages = report.listing.summary.messages;
    if report.listing.facts.timing.stopped.is_some() {
        let them = if messages == 1 { "it" } else { "them" };
        return format!("{waiting}, and nothing tries to deliver {them}.");
    }
    let overdue = report.first_return().map_or(0, |first| first.overdue);
    match first_return_in(report) {
        Some(left) if left > 0 => {
            let of = if messages == 1 {
                "the message".into()
            } else {
                format!("the first of {} messages", thousands(messages))
            };
            format!("In {} {of} {} back to its sender.", duration(left), goes(report))
        }
        _ if overdue > 0 => {
            let past = count(overdue, "message is past its time", "messages are past their time");
            let (it, sender) = if overdue == 1 { ("it", "its sender") } else { ("them", "their senders") };
            match goes(report) {
                "goes" => format!("{past} and being returned to {sender}."),
                _ => format!("{past}: the next attempt that fails returns {it} to {sender}."),
            }
        }
        _ => format!("{waiting}, and some of it is being returned."),
    }
}

/// How much room is left on a disk that is nearly full: of space, or of inodes where there are fewer of these.
fn nearly_full(disk: &Filesystem) -> String {
    let usage = &disk.usage;
    let part = |free: Option<u64>, all: Option<u64>| Some(free? as f64 / all.filter(|all| *all > 0)? as f64);
    let space = part(usage.bytes_available, usage.bytes);
    let inodes = part(usage.inodes_available, usage.inodes);
    let left = match (usage.bytes_available, usage.inodes_available) {
        (_, Some(free)) if inodes.is_some() && inodes < space => format!(": {} left", count(free, "inode", "inodes")),
        (Some(free), _) => format!(": {} left", bytes(free)),
        _ => String::new(),
    };
    format!("The disk for mail is nearly full{left}.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::disk::Usage;

    #[test]
    fn a_full_disk_is_short_of_what_it_has_least_of() {
        let disk = |bytes_available, inodes_available| Filesystem {
            mount: "/var".into(),
            device: "/dev/vda".into(),
            r#type: "ext4".into(),
            usage: Usage { bytes: Some(100 << 30), bytes_available, inodes: Some(1_000_000), inodes_available },
            queue: true,
            level: Level::Critical,
            error: None,
        };
        let said = [
            disk(Some(1 << 30), Some(900_000)),
            disk(Some(90 << 30), Some(1200)),
            disk(Some(1 << 30), None),
            disk(None, None),
        ];
        let expected = [
            "The disk for mail is nearly full: 1.0 GiB left.",
            "The disk for mail is nearly full: 1,200 inodes left.",
            "The disk for mail is nearly full: 1.0 GiB left.",
            "The disk for mail is nearly full.",
        ];
        assert_eq!(said.each_ref().map(nearly_full), expected);
    }
}
