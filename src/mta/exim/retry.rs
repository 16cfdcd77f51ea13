//! How long Exim keeps mail, and by when it tries again: the retry rules, by host.
//!
//! Sources: the specification's chapter "Retry configuration", `test_retry_arg()` of Exim's exim.c, which prints a rule, and
//! what was measured with Exim 4.96 and 4.98: when a host has failed for the last time that its rule names, everything that
//! waits for it goes back in one queue run, whatever its age, and each new message is returned as it arrives, untried, also
//! when the host is back, until the next retry is due.

use std::path::Path;

use crate::mta::timing::{Gap, Lifetime, Retry, Since, Timing, longer, seconds};
use crate::queue::{Cutoff, Lifetimes};
use crate::system::processes::Process;

/// The options that say something of it, for `-bP`.
pub(super) const OPTIONS: [&str; 2] = ["timeout_frozen_after", "retry_interval_max"];

/// For how many domains the rule is asked for; each takes a process.
pub(super) const MOST_DOMAINS: usize = 5;

/// Debian's file for the retry rules, where the configuration is made of many.
const PART: &str = "/etc/exim4/conf.d/retry/30_exim4-config";

/// What was found out.
pub(super) struct Answers<'a> {
    /// The answer to `-bP`.
    pub(super) options: &'a str,
    /// The domains that are relayed, each with the answer to `-brt`.
    pub(super) rules: &'a [(String, String)],
    /// The processes of Exim; `None` where they can't be seen.
    pub(super) processes: Option<Vec<Process>>,
    /// The file in which settings count, where it is known.
    pub(super) settings: Option<&'a Path>,
    /// When the configuration was changed last, in seconds since 1970, where that can be seen.
    pub(super) changed: Option<i64>,
}

/// What Exim and the machine say.
pub(super) fn timing(answers: &Answers<'_>) -> Timing {
    let option = |name: &str| {
        let lines = answers.options.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        lines.and_then(|value| seconds(value, 's'))
    };
    let frozen = option("timeout_frozen_after").filter(|seconds| *seconds > 0);
    let rules: Vec<_> =
        answers.rules.iter().map(|(domain, answer)| Rule::read(answer).map(|rule| (domain, rule))).collect();
    let rules: Result<Vec<(&String, Rule)>, Gap> = match rules.into_iter().collect::<Option<Vec<_>>>() {
        Some(rules) if !rules.is_empty() => Ok(rules),
        Some(_) => {
            Err(Gap::of_lifetime("it is not known for which domains Exim relays mail, so not which retry rule counts"))
        }
        None => Err(Gap::of_lifetime("Exim did not say which retry rule counts")),
    };
    let shortest =
        rules.as_ref().ok().and_then(|rules| rules.iter().map(|(_, rule)| rule).min_by_key(|rule| rule.cutoff()));
    let lifetime = match (&rules, shortest) {
        (Ok(rules), Some(shortest)) => {
            let cutoff = |(domain, rule): &(&String, Rule)| Cutoff {
                domain: (*domain).clone(),
                seconds: rule.cutoff(),
                failing_since: None,
            };
            Lifetime::Known {
                lifetimes: Lifetimes::About {
                    cutoffs: rules.iter().map(cutoff).collect(),
                    otherwise: None,
                    failing_since: None,
                    frozen,
                },
                seconds: shortest.cutoff(),
                null_sender: shortest.cutoff(),
                basis: format!("Retry rule: {}", shortest.written),
            }
        }
        (Err(gap), _) => Lifetime::Unknown(gap.clone()),
        (Ok(_), None) => Lifetime::default(),
    };
    let runner = Runner::find(answers.processes.as_deref());
    let stopped = runner.stopped();
    let longest = option("retry_interval_max").unwrap_or(i64::MAX);
    let waits = rules.as_ref().ok().and_then(|rules| rules.iter().map(|(_, rule)| rule.longest_wait(longest)).max());
    Timing {
        more_time: more_time(answers.settings, shortest.map_or(longer(0), |rule| longer(rule.cutoff()))),
        lifetime,
        retry: match (runner, waits) {
            (Runner::Every(every, word), Some(wait)) => {
                Retry::Within {
                    seconds: wait.saturating_add(every),
                    basis: format!("the retry rule and {word}"),
                    // When a host is tried next is noted when it fails. Without the option nothing is put off for more than
                    // a day (specification, "Main configuration").
                    since: answers.changed.map(|at| Since { at, longest: option("retry_interval_max") }),
                    hinted: None,
                }
            }
            (runner, _) => Retry::Unknown(runner.stopped().or(rules.err()).unwrap_or_else(|| Gap {
                why: "the processes of other users can't be seen, so not how often Exim runs its queue".into(),
                remedy: "Ask as root, who sees them:\n    bartleby doctor".into(),
            })),
        },
        stopped,
    }
}

fn more_time(settings: Option<&Path>, days: i64) -> String {
    let (file, then) = match settings.and_then(Path::to_str) {
        Some(file) if file.ends_with(".template") => (file, "\nThen, as root:\n    update-exim4.conf"),
        Some(file) if file.contains("/conf.d/") => (PART, "\nThen, as root:\n    update-exim4.conf"),
        Some(file) => (file, ""),
        None => ("Exim's configuration", ""),
    };
    format!(
        "In {file}, below “begin retry”, write this rule for the main mail server's domains:\n    *  *  F,{days}d,15m{then}\n\
         Exim goes by it at once."
    )
}

/// A retry rule.
struct Rule {
    /// As it is written, such as `F,2h,15m; G,16h,1h,1.5`.
    written: String,
    parts: Vec<Part>,
}

/// A part of a rule: until a host has failed for so long, it is tried at such intervals, which may grow.
struct Part {
    /// In seconds since the first failure.
    until: i64,
    /// In seconds.
    interval: i64,
    /// By how much the interval grows each time.
    factor: f64,
}

impl Rule {
    /// `Retry rule: *  *  F,2h,15m; G,16h,1h,1.5; F,4d,6h; `: the pattern, the error, and the parts. Without a rule mail goes
    /// back at the first failure.
    fn read(answer: &str) -> Option<Rule> {
        if answer.lines().any(|line| line.starts_with("No retry information found")) {
            return Some(Rule { written: "none".into(), parts: Vec::new() });
        }
        let line = answer.lines().find_map(|line| line.strip_prefix("Retry rule: "))?;
        let written = line.trim_end().rsplit("  ").next()?.trim_end_matches(';').to_owned();
        let part = |text: &str| {
            let mut words = text.trim().split(',');
            let kind = words.next()?;
            let (until, interval) = (seconds(words.next()?, 's')?, seconds(words.next()?, 's')?);
            let factor = words.next().map_or(Ok(1.0), str::parse).ok()?;
            let is_known = matches!(kind, "F" | "G" | "H") && words.next().is_none() && factor >= 1.0;
            is_known.then_some(Part { until, interval, factor })
        };
        let parts = written.split(';').map(part).collect::<Option<Vec<_>>>()?;
        Some(Rule { written, parts })
    }

    /// For how long a host may fail, in seconds: until the last part ends.
    fn cutoff(&self) -> i64 {
        self.parts.last().map_or(0, |part| part.until)
    }

    /// The longest time between two attempts, in seconds, of which none is longer than `most`.
    fn longest_wait(&self, most: i64) -> i64 {
        let mut begin = 0;
        let mut longest = 0;
        for part in &self.parts {
            let (mut at, mut interval) = (begin, part.interval.clamp(1, most.max(1)));
            longest = longest.max(interval);
            // At least doubled or so each time, else there is no end to it; a rule of years takes a few steps.
            while part.factor > 1.01 && at + interval < part.until && interval < most {
                at += interval;
                interval = ((interval as f64 * part.factor) as i64).clamp(interval + 1, most);
                longest = longest.max(interval);
            }
            begin = begin.max(part.until);
        }
        longest
    }
}

/// Who runs the queue.
pub(super) enum Runner {
    /// A daemon, so often, in seconds; and the argument that says so.
    Every(i64, String),
    /// The daemon does not.
    Never,
    /// There is no daemon.
    Nobody,
    /// Nothing can be seen.
    Hidden,
}

impl Runner {
    pub(super) fn find(processes: Option<&[Process]>) -> Runner {
        let Some(processes) = processes else { return Runner::Hidden };
        let every = |process: &Process| process.arguments.iter().skip(1).find_map(|word| interval(word));
        let is_daemon = |process: &Process| {
            let says = |option: &str| process.arguments.iter().skip(1).any(|word| word == option);
            says("-bd") || says("-bdf")
        };
        match processes.iter().filter_map(every).min_by_key(|(seconds, _)| *seconds) {
            Some((seconds, word)) => Runner::Every(seconds, word),
            None if processes.iter().any(is_daemon) => Runner::Never,
            None => Runner::Nobody,
        }
    }

    fn stopped(&self) -> Option<Gap> {
        let (why, remedy) = match self {
            Runner::Nobody => {
                ("Exim's daemon is not running, so nothing is tried again", "As root:\n    systemctl restart exim4")
            }
            Runner::Never => (
                "Exim's daemon was started without -q, so nothing is tried again by itself",
                "Start it with -q30m (Debian 12: QUEUEINTERVAL='30m', Debian 13: EXIMSERVICE='-bdf -q30m', both in \
                 /etc/default/exim4). Then, as root:\n    systemctl restart exim4",
            ),
            Runner::Every(..) | Runner::Hidden => return None,
        };
        Some(Gap { why: why.into(), remedy: remedy.into() })
    }
}

/// The time in `-q30m`, `-qf1h` or `-qqGname/30m` among a daemon's arguments, in seconds, and the word itself. A queue
/// runner that runs once has none.
fn interval(word: &str) -> Option<(i64, String)> {
    let rest = word.strip_prefix("-q")?;
    let time = match rest.strip_prefix('q').unwrap_or(rest).split_once('/') {
        Some((_name, time)) => time,
        None => rest.trim_start_matches(['q', 'i', 'f', 'l']),
    };
    seconds(time, 's').filter(|seconds| *seconds > 0).map(|seconds| (seconds, word.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    const DAY: i64 = 24 * 60 * 60;

    /// The answers of Debian 13's Exim, with the shipped configuration and with Debian's.
    const SHIPPED: &str = include_str!("../../../tests/fixtures-clocks/exim/brt-www.stdout");
    const DEBIANS: &str = include_str!("../../../tests/fixtures-clocks/exim/brt-debian-www.stdout");
    const OF_A_USER: &str = include_str!("../../../tests/fixtures-clocks/exim/brt-user.stdout");
    const RECORDED_OPTIONS: &str = include_str!("../../../tests/fixtures-clocks/exim/bP-retry-www.stdout");

    fn daemon(words: &str) -> Process {
        Process { started: SystemTime::UNIX_EPOCH, arguments: words.split(' ').map(str::to_owned).collect() }
    }

    fn of(rules: &[(&str, &str)], options: &str, processes: Option<Vec<Process>>) -> Timing {
        let rules: Vec<_> = rules.iter().map(|(domain, rule)| ((*domain).to_owned(), (*rule).to_owned())).collect();
        let settings = Some(Path::new("/etc/exim4/exim4.conf"));
        timing(&Answers { options, rules: &rules, processes, settings, changed: Some(7) })
    }

    fn running() -> Option<Vec<Process>> {
        Some(vec![daemon("/usr/sbin/exim4 -bdf -q30m"), daemon("/usr/sbin/exim4 -Mc 1xVSDK-0002Gk-2p")])
    }

    #[test]
    fn the_shipped_configuration_keeps_mail_for_six_days() {
        let Timing { lifetime, retry, stopped, more_time } =
            of(&[("example.com", SHIPPED)], RECORDED_OPTIONS, running());
        let cutoffs = vec![Cutoff { domain: "example.com".into(), seconds: 6 * DAY, failing_since: None }];
        let expected = Lifetime::Known {
            lifetimes: Lifetimes::About { cutoffs, otherwise: None, failing_since: None, frozen: None },
            seconds: 6 * DAY,
            null_sender: 6 * DAY,
            basis: "Retry rule: F,6d,15m".into(),
        };
        assert_eq!((lifetime, stopped), (expected, None));
        let basis = "the retry rule and -q30m".to_owned();
        let since = Some(Since { at: 7, longest: Some(DAY) });
        assert_eq!(retry, Retry::Within { seconds: 45 * 60, basis, since, hinted: None });
        assert!(more_time.contains("In /etc/exim4/exim4.conf") && more_time.contains("F,14d,15m"), "{more_time}");
        assert_eq!(Rule::read(OF_A_USER).unwrap().cutoff(), 6 * DAY);
    }

    #[test]
    fn the_last_part_of_a_rule_is_the_cutoff_and_the_longest_wait_is_a_bound() {
        let rule = Rule::read(DEBIANS).unwrap();
        assert_eq!((rule.written.as_str(), rule.cutoff()), ("F,2h,15m; G,16h,1h,1.5; F,4d,6h", 4 * DAY));
        assert_eq!(rule.longest_wait(DAY), 27_337, "1.5 to the fifth hours, begun after 15 of the 16 hours");
        let longest =
            |text: &str, most| Rule::read(&format!("Retry rule: *  *  {text}; \n")).unwrap().longest_wait(most);
        assert_eq!(longest("G,100d,1h,2", DAY), DAY, "retry_interval_max");
        assert_eq!(longest("G,10h,1h,2", DAY), 8 * 3600, "at 0, 1, 3 and 7 hours");
        assert_eq!(longest("F,1d,2h", 3600), 3600);
        assert!(longest("G,1000w,1s,1.0001", i64::MAX) > 0 && longest("H,1000w,1s,1.02", i64::MAX) > DAY);
    }

    #[test]
    fn of_several_domains_each_has_its_own_cutoff() {
        let other = "Retry rule: other.example  refused  F,1d,1h; \n";
        let Timing { lifetime, .. } = of(&[("example.com", SHIPPED), ("other.example", other)], "", running());
        let Lifetime::Known { lifetimes: Lifetimes::About { cutoffs, .. }, seconds, basis, .. } = lifetime else {
            panic!()
        };
        assert_eq!((cutoffs.len(), seconds, basis.as_str()), (2, DAY, "Retry rule: F,1d,1h"));
        let Timing { lifetime, .. } = of(&[("example.com", "No retry information found\n")], "", running());
        assert!(matches!(lifetime, Lifetime::Known { seconds: 0, .. }), "temporary errors are permanent");
    }

    #[test]
    fn what_exim_does_not_say_is_unknown_with_its_remedy() {
        for rules in [&[][..], &[("example.com", "")], &[("example.com", "Retry rule: *  *  X,1d,1h; \n")]] {
            let Timing { lifetime: Lifetime::Unknown(gap), retry: Retry::Unknown(_), .. } = of(rules, "", running())
            else {
                panic!("{rules:?}")
            };
            assert!(gap.remedy.contains("lifetime = \"5d\""), "{gap:?}");
        }
    }

    #[test]
    fn a_frozen_message_may_have_a_time_of_its_own() {
        let frozen = |options: &str| match of(&[("example.com", SHIPPED)], options, running()).lifetime {
            Lifetime::Known { lifetimes: Lifetimes::About { frozen, .. }, .. } => frozen,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            [frozen("timeout_frozen_after = 0s\n"), frozen("timeout_frozen_after = 1w\n")],
            [None, Some(7 * DAY)]
        );
    }

    #[test]
    fn a_daemon_that_runs_no_queue_is_said_and_a_hidden_one_is_not_called_stopped() {
        let stopped = |processes| of(&[("example.com", SHIPPED)], "", processes).stopped.map(|gap| gap.why);
        assert_eq!(stopped(running()), None);
        assert!(stopped(Some(vec![])).unwrap().contains("is not running"));
        assert!(
            stopped(Some(vec![daemon("/usr/sbin/exim4 -q"), daemon("exim4 -Mc x")])).unwrap().contains("not running")
        );
        assert!(stopped(Some(vec![daemon("/usr/sbin/exim4 -bd")])).unwrap().contains("without -q"));
        assert_eq!(stopped(None), None);
    }

    #[test]
    fn the_interval_is_in_the_daemons_arguments() {
        let seconds = |word: &str| interval(word).map(|(seconds, _)| seconds);
        assert_eq!(
            ["-q30m", "-qf1h", "-qq10m", "-qGbulk/5m", "-qqG/90"].map(seconds),
            [1800, 3600, 600, 300, 90].map(Some)
        );
        assert_eq!(["-q", "-qff", "-bd", "-qGbulk", "-q0s", "-Mc"].map(seconds), [None; 6]);
    }
}
