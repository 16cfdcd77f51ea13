//! How long sendmail keeps mail, and by when it tries again.
//!
//! Sources: op.me, `settimeout()` and `convtime()` of sendmail's source, and what was measured with sendmail 8.17: a message
//! goes back in the first queue run that handles it at or after its creation and its timeout. Which timeout counts depends on
//! its class, from headers that no listing shows (`Precedence:` and `Priority:`), so the shortest is taken.

use std::path::{Path, PathBuf};

use super::super::timing::{Gap, InForce, Lifetime, Retry, Timing, longer, seconds};
use crate::queue::Lifetimes;
use crate::system::processes::Process;

/// Every timeout, where the file sets none (`setdefaults()` of conf.c).
const USUAL: &str = "5d";

/// The classes whose timeout may be one of their own. The last is that of its own notices, which have the null sender.
const CLASSES: [&str; 4] = ["normal", "urgent", "non-urgent", "dsn"];

/// Where sendmail writes its number and its arguments, where the file names no other place; and Debian's place.
pub(super) const PID_FILES: [&str; 2] = ["/var/run/sendmail.pid", "/var/run/sendmail/mta/sendmail.pid"];

/// Debian's settings of how the daemon is started: shell assignments.
pub(super) const START_SETTINGS: &str = "/etc/mail/sendmail.conf";

/// What is read of the machine besides `sendmail.cf`.
pub(super) struct Machine {
    /// The processes of sendmail; `None` where they can't be seen.
    pub(super) processes: Option<Vec<Process>>,
    /// The file in which the daemon noted its arguments, where it can be read.
    pub(super) pid_file: Option<String>,
    /// Debian's settings of how the daemon is started, where they are there and were not changed since.
    pub(super) start_settings: Option<String>,
    /// Whether the daemon was started after the last change of `sendmail.cf`.
    pub(super) in_force: InForce,
}

/// What `sendmail.cf` and the machine say; `None` where the file can't be read.
pub(super) fn timing(file: &Path, text: Option<&str>, machine: &Machine) -> Timing {
    let options = text.map(Options::read);
    let lifetime = match &options {
        Some(options) => options.lifetime().unwrap_or_else(Lifetime::Unknown),
        None => Lifetime::Unknown(Gap::of_lifetime(format!("{} can't be read", file.display()))),
    };
    let days = match &lifetime {
        Lifetime::Known { seconds, .. } => longer(*seconds),
        _ => longer(0),
    };
    let runner = Runner::find(machine, options.as_ref().and_then(|options| options.get("queuedirectory")));
    let stopped = runner.stopped();
    Timing {
        lifetime: lifetime.in_force(
            file,
            machine.in_force,
            "As root (it runs the queue):\n    systemctl restart sendmail",
        ),
        retry: retry(runner, options.as_ref()),
        stopped,
        more_time: format!(
            "First, as root:\n    echo \"define(\\`confTO_QUEUERETURN', \\`{days}d')dnl\" >> /etc/mail/sendmail.mc && cd /etc/mail \
             && m4 sendmail.mc > sendmail.cf\nThen, never before, as it runs the queue:\n    systemctl restart sendmail"
        ),
    }
}

/// Where the daemon notes its arguments, as `sendmail.cf` has it.
pub(super) fn pid_file(text: &str) -> PathBuf {
    Options::read(text).get("pidfile").unwrap_or(PID_FILES[0]).into()
}

/// The options of `sendmail.cf`, their names in lower case; the last line with a name counts.
struct Options<'a>(Vec<(String, &'a str)>);

impl<'a> Options<'a> {
    fn read(text: &'a str) -> Options<'a> {
        let option = |line: &'a str| {
            let (name, value) = line.strip_prefix('O')?.strip_prefix([' ', '\t'])?.split_once('=')?;
            Some((name.trim().to_lowercase(), value.trim()))
        };
        Options(text.lines().filter_map(option).collect())
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// The timeout that counts for a class: the last line that sets it, or all of them.
    fn timeout(&self, class: &str) -> Option<(&'a str, &str)> {
        let sets = |name: &str| {
            let rest = name.strip_prefix("timeout.queuereturn")?;
            (rest.is_empty() || rest == ".*" || rest.strip_prefix('.') == Some(class)).then_some(())
        };
        let last = self.0.iter().rev().find(|(name, _)| sets(name).is_some());
        last.map(|(name, value)| (*value, name.strip_prefix("timeout.").unwrap_or(name)))
    }

    fn lifetime(&self) -> Result<Lifetime, Gap> {
        let of_class = |class: &str| match self.timeout(class) {
            None => Ok((return_seconds(USUAL).unwrap_or_default(), None)),
            Some((value, name)) => {
                let wrong = || format!("Timeout.{name} = {value} in sendmail.cf is no length of time");
                let seconds = return_seconds(value).ok_or_else(|| Gap::of_lifetime(wrong()))?;
                Ok((seconds, Some(format!("Timeout.{name} = {value}"))))
            }
        };
        let each = CLASSES.iter().map(|class| of_class(class)).collect::<Result<Vec<_>, Gap>>()?;
        let default = || (0, None);
        let (shortest, basis) = each[..3].iter().min_by_key(|(seconds, _)| *seconds).cloned().unwrap_or_else(default);
        let null_sender = each.iter().map(|(seconds, _)| *seconds).min().unwrap_or(shortest);
        let basis = basis.unwrap_or_else(|| format!("Timeout.queuereturn = {USUAL}, sendmail's default"));
        let lifetimes = Lifetimes::NotBefore { message: shortest, null_sender };
        Ok(Lifetime::Known { lifetimes, seconds: shortest, null_sender, basis })
    }
}

/// A time after which mail goes back; `now`: at the first failure.
fn return_seconds(value: &str) -> Option<i64> {
    if value.eq_ignore_ascii_case("now") { Some(0) } else { seconds(value, 'd') }
}

/// Who runs the queue.
#[derive(Debug, PartialEq, Eq)]
enum Runner {
    /// Something does, so often, in seconds; and what says so.
    Every(i64, String),
    /// The daemon, but it is not known how often.
    Sometimes,
    /// The daemon does not.
    Never,
    /// There is no daemon.
    Nobody,
    /// Nothing can be seen.
    Hidden,
}

impl Runner {
    /// `queue`: the folder of the queue that counts; others, such as the submission queue, may have a runner of their own.
    fn find(machine: &Machine, queue: Option<&str>) -> Runner {
        let settings = machine.start_settings.as_deref();
        let by_cron = settings.filter(|text| assigned(text, "QUEUE_MODE").as_deref() == Some("cron"));
        if let Some(every) = by_cron.and_then(|text| seconds(&assigned(text, "QUEUE_INTERVAL")?, 'm')) {
            return Runner::Every(every, format!("QUEUE_INTERVAL in {START_SETTINGS}"));
        }
        let Some(processes) = &machine.processes else { return Runner::Hidden };
        let titles = || processes.iter().filter_map(|process| process.arguments.first());
        let of_runner = titles().find_map(|title| {
            let (time, folder) = title.split_once("Queue runner@")?.1.split_once(" for ")?;
            queue.is_none_or(|queue| queue == folder.trim()).then(|| clock(time)).flatten()
        });
        if let Some(every) = of_runner {
            return Runner::Every(every, "its queue runner".into());
        }
        // Another user's (the submission queue's) is a queue runner only, or works for one message.
        if !titles().any(|title| title.contains("accepting connections") || title.contains("rejecting connections")) {
            return Runner::Nobody;
        }
        let words = machine.pid_file.as_deref().and_then(|text| text.lines().nth(1));
        match words.map(|words| interval(words.split(' '))) {
            Some(Some((every, word))) => Runner::Every(every, word),
            Some(None) => Runner::Never,
            None => match settings.map(|text| (assigned(text, "QUEUE_MODE"), assigned(text, "QUEUE_INTERVAL"))) {
                Some((Some(mode), _)) if mode == "none" => Runner::Never,
                Some((_, Some(every))) => seconds(&every, 'm').map_or(Runner::Sometimes, |seconds| {
                    Runner::Every(seconds, format!("QUEUE_INTERVAL = {every} in {START_SETTINGS}"))
                }),
                _ => Runner::Sometimes,
            },
        }
    }

    fn stopped(&self) -> Option<Gap> {
        let (why, remedy) = match self {
            Runner::Nobody => (
                "sendmail's daemon is not running, so nothing is tried again",
                "As root:\n    systemctl restart sendmail",
            ),
            Runner::Never => (
                "sendmail's daemon was started without -q, so nothing is tried again by itself",
                "Write QUEUE_INTERVAL=\"30m\" into /etc/mail/sendmail.conf (elsewhere: start it with -bd -q30m). Then, as \
                 root:\n    systemctl restart sendmail",
            ),
            Runner::Every(..) | Runner::Sometimes | Runner::Hidden => return None,
        };
        Some(Gap { why: why.into(), remedy: remedy.into() })
    }
}

/// The value of a shell assignment such as `QUEUE_INTERVAL="30m";`. The last one counts.
fn assigned(text: &str, name: &str) -> Option<String> {
    let value = |line: &str| {
        let value = line.strip_prefix(name)?.strip_prefix('=')?.trim().trim_end_matches(';').trim();
        let value = value.trim_matches(['"', '\'']);
        (!value.is_empty() && !value.contains('$')).then(|| value.to_owned())
    };
    text.lines().rev().find_map(value)
}

/// `00:30:00`, perhaps with days and a sign in front (`pintvl()` of convtime.c), in seconds.
fn clock(text: &str) -> Option<i64> {
    let (days, time) = text.split_once('+').unwrap_or(("0", text));
    let mut parts = time.split(':').map(str::parse::<i64>);
    let (hours, minutes, seconds) = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    Some(days.trim().parse::<i64>().ok()? * 24 * 3600 + hours * 3600 + minutes * 60 + seconds)
}

/// The time in `-q30m` or `-qp30m` among the arguments, in seconds, and the word itself.
fn interval<'a>(words: impl Iterator<Item = &'a str>) -> Option<(i64, String)> {
    words
        .filter_map(|word| {
            let time = word.strip_prefix("-q")?;
            Some((seconds(time.strip_prefix('p').unwrap_or(time), 'm')?, word.to_owned()))
        })
        .last()
}

/// In each queue run, but a message not before its least age since the last attempt (`MinQueueAge`), or what that may grow to
/// (`MaxQueueAge`).
fn retry(runner: Runner, options: Option<&Options<'_>>) -> Retry {
    let (every, basis) = match runner {
        Runner::Every(every, basis) => (every, basis),
        other => {
            let stopped = other.stopped();
            return Retry::Unknown(stopped.unwrap_or_else(|| Gap {
                why: "it can't be seen how often sendmail's daemon runs the queue".into(),
                remedy: "Ask as root, who can read it:\n    bartleby doctor".into(),
            }));
        }
    };
    let age = |name| options.and_then(|options| seconds(options.get(name)?, 'm')).unwrap_or(0);
    let wait = age("minqueueage").max(age("maxqueueage"));
    let runs = if wait > 0 { wait / every.max(1) + 1 } else { 1 };
    let basis = if wait > 0 { format!("{basis} and MinQueueAge or MaxQueueAge") } else { basis };
    // When a message was tried last is looked at in each run, by the settings of that time.
    Retry::Within { seconds: every.max(1).saturating_mul(runs), basis, since: None, hinted: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    const DAY: i64 = 24 * 60 * 60;

    /// What grep printed of Debian 13's sendmail.cf, made of the shipped sendmail.mc.
    const RECORDED: &str = include_str!("../../../tests/fixtures-clocks/sendmail/lifetime-cf.stdout");

    /// As seen on Debian 12.
    const DAEMON: &str = "sendmail: MTA: accepting connections";
    const NOTED: &str = "117\n/usr/sbin/sendmail-mta -Am -L sm-mta -bd -q30m\n";

    fn machine(titles: &[&str]) -> Machine {
        let process = |title: &&str| Process { started: SystemTime::UNIX_EPOCH, arguments: vec![(*title).to_owned()] };
        Machine {
            processes: Some(titles.iter().map(process).collect()),
            pid_file: None,
            start_settings: None,
            in_force: InForce::Yes,
        }
    }

    fn of(text: &str, machine: &Machine) -> Timing {
        timing(Path::new("/etc/mail/sendmail.cf"), Some(text), machine)
    }

    fn lifetime(text: &str) -> (i64, i64, String) {
        match of(text, &machine(&[DAEMON])).lifetime {
            Lifetime::Known { seconds, null_sender, basis, .. } => (seconds, null_sender, basis),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_shipped_configuration_keeps_mail_for_six_days() {
        assert_eq!(lifetime(RECORDED), (6 * DAY, 6 * DAY, "Timeout.queuereturn = 6d".into()));
        let more = of(RECORDED, &machine(&[DAEMON])).more_time;
        assert!(more.contains("define(\\`confTO_QUEUERETURN', \\`14d')dnl") && more.contains("never before"), "{more}");
    }

    #[test]
    fn the_shortest_class_counts() {
        let default = "Timeout.queuereturn = 5d, sendmail's default";
        assert_eq!(lifetime("#O Timeout.queuereturn=1d\n"), (5 * DAY, 5 * DAY, default.into()));
        let urgent = "O Timeout.queuereturn=6d\nO Timeout.queuereturn.urgent=2d\nO Timeout.queuereturn.dsn=1h\n";
        assert_eq!(lifetime(urgent), (2 * DAY, 3600, "Timeout.queuereturn.urgent = 2d".into()));
        let overridden = "O Timeout.queuereturn.urgent=2d\nO Timeout.QueueReturn=6\n";
        assert_eq!(lifetime(overridden), (6 * DAY, 6 * DAY, "Timeout.queuereturn = 6".into()));
        assert_eq!(lifetime("O Timeout.queuereturn=now\n").0, 0);
        let wrong = of("O Timeout.queuereturn.normal=soon\n", &machine(&[DAEMON])).lifetime;
        let Lifetime::Unknown(gap) = wrong else { panic!("{wrong:?}") };
        assert!(gap.why.contains("Timeout.queuereturn.normal = soon") && gap.remedy.contains("lifetime = \"5d\""));
        let unread = timing(Path::new("/etc/mail/sendmail.cf"), None, &machine(&[DAEMON])).lifetime;
        assert!(matches!(unread, Lifetime::Unknown(gap) if gap.why == "/etc/mail/sendmail.cf can't be read"));
    }

    #[test]
    fn a_changed_file_is_not_in_force_until_the_restart() {
        let changed = Machine { in_force: InForce::No, ..machine(&[DAEMON]) };
        let Lifetime::NotInForce { seconds, step, .. } = of(RECORDED, &changed).lifetime else { panic!() };
        assert!(seconds == 6 * DAY && step.contains("restart sendmail"));
    }

    #[test]
    fn how_often_the_queue_is_run_is_known_by_what_can_be_seen() {
        let settings = |text: &str| Some(text.to_owned());
        let debian = settings("# QUEUE_INTERVAL=\"10m\";\nQUEUE_MODE=\"${DAEMON_MODE}\";\nQUEUE_INTERVAL=\"20m\";\n");
        let find = |machine: &Machine| Runner::find(machine, Some("/var/spool/mqueue"));
        let every = |minutes: i64, basis: &str| Runner::Every(minutes * 60, basis.to_owned());
        let daemon = || machine(&[DAEMON]);
        let noted = Machine { pid_file: settings(NOTED), start_settings: debian.clone(), ..daemon() };
        assert_eq!(find(&noted), every(30, "-q30m"), "what it noted itself comes first");
        assert_eq!(find(&Machine { pid_file: settings("117\nsendmail -bd\n"), ..daemon() }), Runner::Never);
        let debian = Machine { start_settings: debian, ..daemon() };
        assert_eq!(find(&debian), every(20, "QUEUE_INTERVAL = 20m in /etc/mail/sendmail.conf"));
        assert_eq!(find(&Machine { start_settings: settings("QUEUE_MODE=\"none\";"), ..daemon() }), Runner::Never);
        assert_eq!(find(&daemon()), Runner::Sometimes);
        let cron = settings("QUEUE_MODE=\"cron\";\nQUEUE_INTERVAL=\"15m\";");
        assert_eq!(
            find(&Machine { start_settings: cron, ..machine(&[]) }),
            every(15, "QUEUE_INTERVAL in /etc/mail/sendmail.conf")
        );
        let runner = "sendmail: Queue runner@01:30:00 for /var/spool/mqueue";
        assert_eq!(find(&machine(&[runner])), every(90, "its queue runner"));
        let other = "sendmail: Queue runner@00:20:00 for /var/spool/mqueue-client";
        assert_eq!(find(&machine(&[other])), Runner::Nobody, "another queue's");
        assert_eq!(find(&Machine { processes: None, ..daemon() }), Runner::Hidden);
    }

    #[test]
    fn a_stopped_daemon_is_said_and_a_hidden_one_is_not_called_stopped() {
        let stopped = of(RECORDED, &machine(&[]));
        assert!(stopped.stopped.is_some_and(|gap| gap.why.contains("is not running")));
        assert!(matches!(stopped.retry, Retry::Unknown(gap) if gap.remedy.contains("restart sendmail")));
        let hidden = of(RECORDED, &Machine { processes: None, ..machine(&[]) });
        assert_eq!(hidden.stopped, None);
        assert!(matches!(hidden.retry, Retry::Unknown(_)));
    }

    #[test]
    fn a_least_age_takes_one_more_run() {
        let noted = Machine { pid_file: Some(NOTED.into()), ..machine(&[DAEMON]) };
        let within = |text: &str| match of(text, &noted).retry {
            Retry::Within { seconds, .. } => seconds / 60,
            other => panic!("{other:?}"),
        };
        assert_eq!(within(RECORDED), 30);
        assert_eq!(
            [within("O MinQueueAge=30m\n"), within("O MinQueueAge=10\n"), within("O MaxQueueAge=2h\n")],
            [60, 30, 150]
        );
    }

    #[test]
    fn the_place_of_the_daemons_note_is_in_the_file() {
        assert_eq!(
            pid_file("O PidFile=/var/run/sendmail/mta/sendmail.pid\n"),
            Path::new("/var/run/sendmail/mta/sendmail.pid")
        );
        assert_eq!(pid_file(""), Path::new("/var/run/sendmail.pid"));
    }
}
