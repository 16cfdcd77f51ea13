//! How long a mail server keeps mail, and by when it tries again: what its configuration and its processes say.
//!
//! Each mail server reads its own in a file of its own. Where something can't be known, that is said, with the reason and
//! what to do about it: nothing is guessed.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::queue::Lifetimes;

const DAY: i64 = 24 * 60 * 60;

/// What is known of a mail server's clocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timing {
    /// How long mail is kept.
    pub(crate) lifetime: Lifetime,
    /// By when it is tried again.
    pub(crate) retry: Retry,
    /// Why the mail server does not try again by itself, where that was seen.
    pub(crate) stopped: Option<Gap>,
    /// How an administrator gives what waits more time, as sentences and commands to be pasted.
    pub(crate) more_time: String,
}

/// Something that is not known, or not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gap {
    /// Why, in a sentence without its full stop.
    pub(crate) why: String,
    /// What to do about it, in sentences.
    pub(crate) remedy: String,
}

/// How long mail is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Lifetime {
    /// So long.
    Known {
        /// From when it counts.
        lifetimes: Lifetimes,
        /// The shortest time for which a message is kept, in seconds.
        seconds: i64,
        /// The same for a message with the null sender.
        null_sender: i64,
        /// The setting that says so, such as `maximal_queue_lifetime = 5d`.
        basis: String,
    },
    /// A file says so, but the mail server was started before that was changed, and goes by what it said before.
    NotInForce {
        /// The shortest time for which a message is to be kept, in seconds.
        seconds: i64,
        /// The setting that says so.
        basis: String,
        /// The file.
        file: String,
        /// How it comes into force, as sentences and commands to be pasted.
        step: String,
    },
    /// It is not known.
    Unknown(Gap),
}

/// By when mail that waits is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Retry {
    /// At the latest so long after the last attempt.
    Within {
        /// In seconds.
        seconds: i64,
        /// The settings that say so.
        basis: String,
        /// Since when they have been in force; `None` where nothing that waits goes by earlier ones.
        since: Option<Since>,
        /// The same by what the mail server has noted of each host, where that could be read.
        hinted: Option<Hinted>,
    },
    /// The listing says it of each message.
    Listed {
        /// The command that lists.
        basis: String,
    },
    /// It is not known.
    Unknown(Gap),
}

/// Since when a mail server goes by its present settings. What it put off before that waits for as long as the earlier ones
/// said, which are not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Since {
    /// In seconds since 1970.
    pub(crate) at: i64,
    /// The longest time for which anything was put off, in seconds; `None`: for as long as it had waited by then.
    pub(crate) longest: Option<i64>,
}

/// When all that waited at some time is tried again at the latest. Instants are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hinted {
    /// Then.
    pub(crate) at: i64,
    /// What says so.
    pub(crate) basis: String,
    /// When it was asked: of what came later it is not known.
    pub(crate) asked: i64,
    /// Until when nothing of it can have been tried, so that it holds.
    pub(crate) until: i64,
}

impl Hinted {
    /// Whether it goes for a queue that was listed at `now`, and whose latest message came at `newest`.
    pub(crate) fn holds(&self, newest: Option<i64>, now: i64) -> bool {
        now <= self.until && newest.is_some_and(|newest| newest < self.asked)
    }
}

/// The least time for which a message may have been put off by settings that are not known, in seconds.
const LEAST: i64 = DAY;

impl Since {
    /// Until when a queue, whose oldest message came at `oldest`, may hold mail that was put off by the earlier settings;
    /// `None` where it holds none at `now`. All in seconds since 1970.
    pub(crate) fn unknown_until(self, oldest: Option<i64>, now: i64) -> Option<i64> {
        let oldest = oldest.unwrap_or(i64::MIN);
        let longest = self.longest.unwrap_or_else(|| self.at.saturating_sub(oldest)).max(LEAST);
        let until = self.at.saturating_add(longest);
        (oldest < self.at && now < until).then_some(until)
    }
}

/// Nobody has asked yet.
impl Default for Lifetime {
    fn default() -> Lifetime {
        Lifetime::Unknown(Gap::default())
    }
}

/// Nobody has asked yet.
impl Default for Retry {
    fn default() -> Retry {
        Retry::Unknown(Gap::default())
    }
}

/// Nobody has asked yet.
impl Default for Gap {
    fn default() -> Gap {
        Gap::of_lifetime("the mail server's settings could not be read")
    }
}

impl Gap {
    /// Something is not known, whose remedy is to name the lifetime in our own configuration.
    pub(super) fn of_lifetime(why: impl Into<String>) -> Gap {
        Gap {
            why: why.into(),
            remedy: "Write it into /etc/bartleby.toml, such as:\n    [mta]\n    lifetime = \"5d\"".into(),
        }
    }
}

impl Timing {
    /// The same, where the lifetime is written into our own configuration.
    pub(crate) fn with_lifetime(self, lifetimes: Lifetimes, seconds: i64, basis: String) -> Timing {
        // Nothing in that file says when mail is tried again.
        let retry = match self.retry {
            Retry::Unknown(gap) => Retry::Unknown(Gap { remedy: String::new(), ..gap }),
            known => known,
        };
        Timing { lifetime: Lifetime::Known { lifetimes, seconds, null_sender: seconds, basis }, retry, ..self }
    }

    /// What is known where the listed queue is not known to be that of this machine's mail server: nothing.
    pub(crate) fn of_elsewhere() -> Timing {
        let gap = Gap::of_lifetime(
            "the queue is listed by a configured command, so it may not be that of the mail server on this machine",
        );
        Timing { lifetime: Lifetime::Unknown(gap.clone()), retry: Retry::Unknown(gap), ..Timing::default() }
    }

    /// Whether the mail server does all of what its configuration says.
    pub(super) fn is_settled(&self) -> bool {
        self.stopped.is_none() && !matches!(self.lifetime, Lifetime::NotInForce { .. })
    }

    /// How long mail is kept, as far as that is in force.
    pub(crate) fn lifetimes(&self) -> Lifetimes {
        match &self.lifetime {
            Lifetime::Known { lifetimes, .. } => lifetimes.clone(),
            Lifetime::NotInForce { .. } | Lifetime::Unknown(_) => Lifetimes::Unknown,
        }
    }
}

impl Lifetime {
    /// The same, unless the mail server still goes by what the file said before.
    pub(super) fn in_force(self, file: &Path, is: InForce, step: &str) -> Lifetime {
        match (self, is) {
            (Lifetime::Known { seconds, basis, .. }, InForce::No) => {
                Lifetime::NotInForce { seconds, basis, file: file.display().to_string(), step: step.into() }
            }
            (lifetime, _) => lifetime,
        }
    }
}

/// Whether a mail server goes by what its configuration says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InForce {
    /// It was started after the last change of the file, as far as can be seen.
    Yes,
    /// The file was changed after the start.
    No,
}

impl InForce {
    /// Compares the last change of a file with the start of the oldest of the processes that go by it; where either can't
    /// be seen, the file is believed.
    pub(super) fn of(file: &Path, started: impl Iterator<Item = SystemTime>) -> InForce {
        let changed = fs::metadata(file).and_then(|found| found.modified());
        match (changed, started.min()) {
            (Ok(changed), Some(started)) if changed > started => InForce::No,
            _ => InForce::Yes,
        }
    }
}

/// A length of time as mail servers write it, such as `30m`, `1w2d` or, in their usual unit, `5`; in seconds.
pub(crate) fn seconds(text: &str, usual: char) -> Option<i64> {
    let factor = |unit: char| match unit {
        's' => Some(1),
        'm' => Some(60),
        'h' => Some(60 * 60),
        'd' => Some(DAY),
        'w' => Some(7 * DAY),
        _ => None,
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut sum = 0_i64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: i64 = rest[..end].parse().ok()?;
        let unit = rest[end..].chars().next();
        sum = sum.checked_add(number.checked_mul(factor(unit.unwrap_or(usual).to_ascii_lowercase())?)?)?;
        rest = &rest[end + unit.map_or(0, char::len_utf8)..];
    }
    // Longer than any calendar is no time.
    Some(sum).filter(|sum| *sum < 1 << 40)
}

/// The longer time to propose, in days, where mail is kept for so many seconds: twice that, and no less than two weeks.
pub(super) fn longer(seconds: i64) -> i64 {
    (2 * seconds / DAY).clamp(14, 100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_read_as_mail_servers_write_them() {
        for (text, expected) in [
            ("30m", Some(1800)),
            ("5", Some(5 * DAY)),
            (" 0h ", Some(0)),
            ("1w2d3h4m5s", Some(9 * DAY + 3 * 3600 + 4 * 60 + 5)),
            ("6D", Some(6 * DAY)),
            ("", None),
            ("d", None),
            ("6x", None),
            ("-1d", None),
            ("$x", None),
            ("1.5h", None),
            ("99999999999999999999d", None),
            ("9223372036854775807", None),
            ("9999999999999", None),
        ] {
            assert_eq!(seconds(text, 'd'), expected, "{text}");
        }
    }

    #[test]
    fn a_file_that_was_changed_after_the_start_is_not_in_force() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let changed = SystemTime::now() - Duration::from_secs(60);
        file.as_file().set_modified(changed).unwrap();
        let is = |starts: &[i32]| {
            let start = |after: &i32| changed + Duration::from_secs(100) - Duration::from_secs((100 - after) as u64);
            InForce::of(file.path(), starts.iter().map(start))
        };
        assert_eq!(is(&[1]), InForce::Yes);
        assert_eq!(is(&[-1]), InForce::No);
        assert_eq!(is(&[1, -1, 2]), InForce::No, "one of them has not read it");
        assert_eq!(is(&[]), InForce::Yes, "nobody was seen");
        assert_eq!(InForce::of(Path::new("/nonexistent"), [changed].into_iter()), InForce::Yes);
    }

    #[test]
    fn what_earlier_settings_put_off_is_known_to_be_tried_when_they_can_keep_it_no_longer() {
        let since = |longest| Since { at: 100 * DAY, longest };
        let until = |oldest: i64, now: i64| since(None).unknown_until(Some(oldest), now);
        assert_eq!(until(100 * DAY, 100 * DAY + 1), None, "it came later");
        assert_eq!(until(97 * DAY, 100 * DAY + 1), Some(103 * DAY), "it had waited for three days");
        assert_eq!(until(97 * DAY, 103 * DAY), None);
        assert_eq!(until(100 * DAY - 60, 100 * DAY + 3600), Some(101 * DAY), "the least back-off is not known, either");
        assert_eq!(since(Some(2 * DAY)).unknown_until(Some(0), 101 * DAY), Some(102 * DAY));
        assert!(since(None).unknown_until(None, 200 * DAY).is_some(), "it is not known when it came");
    }

    #[test]
    fn hints_hold_for_what_came_before_they_were_read_until_the_next_attempt() {
        let hinted = Hinted { at: 900, basis: String::new(), asked: 100, until: 160 };
        assert!(hinted.holds(Some(99), 100) && hinted.holds(Some(99), 160));
        assert!(!hinted.holds(Some(99), 161) && !hinted.holds(Some(100), 110) && !hinted.holds(None, 110));
    }

    #[test]
    fn a_longer_time_is_twice_as_long() {
        assert_eq!([90, 5 * DAY, 10 * DAY, 80 * DAY].map(longer), [14, 14, 20, 100]);
    }
}
