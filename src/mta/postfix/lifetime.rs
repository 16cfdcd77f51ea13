//! How long Postfix keeps mail, and by when it tries again.
//!
//! Sources: postconf(5); qmgr(8) with its `qmgr_bounce`, `qmgr_active.c` and `qmgr_deliver.c`, by which a null sender's
//! lifetime is capped by the other one; and what was measured with Postfix 3.7: a message goes back at the end of the
//! first failed attempt at or after its arrival and its lifetime, and is tried again at the latest after the longest
//! back-off and one more scan of the queue. How long a message is put off is decided when it is: for as long as it has waited,
//! between the least and the longest back-off of that time. A reload does not change it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::configuration::value;
use crate::mta::timing::{Gap, InForce, Lifetime, Retry, Since, Timing, longer, seconds};
use crate::queue::Lifetimes;
use crate::system::processes;

/// The parameters that say so, each with its usual unit (postconf(5)).
const PARAMETERS: [(&str, char); 4] = [LIFETIME, NULL_SENDER, BACK_OFF, SCAN];
const LIFETIME: (&str, char) = ("maximal_queue_lifetime", 'd');
const NULL_SENDER: (&str, char) = ("bounce_queue_lifetime", 'd');
const BACK_OFF: (&str, char) = ("maximal_backoff_time", 's');
const SCAN: (&str, char) = ("queue_run_delay", 's');

/// The names of the queue manager's processes: today's, that of Postfix before 2.6, and that of its time of trial.
const QUEUE_MANAGERS: [&str; 3] = ["qmgr", "oqmgr", "nqmgr"];

/// The names of these parameters.
pub(super) fn parameters() -> impl Iterator<Item = &'static str> {
    PARAMETERS.into_iter().map(|(name, _)| name)
}

/// The process that starts the queue manager, again at each reload.
const MASTER: &str = "master";

/// What is seen of Postfix's processes.
#[derive(Default)]
pub(super) struct Seen {
    /// When the queue managers were started, which a reload does.
    managers: Vec<SystemTime>,
    /// When what starts them was started. Another mail server may have a process of that name.
    masters: Vec<SystemTime>,
}

impl Seen {
    /// What this user can see.
    pub(super) fn now() -> Seen {
        let started = |names: &[&str]| {
            let found = processes::named(names).unwrap_or_default();
            found.into_iter().map(|process| process.started).collect()
        };
        Seen { managers: started(&QUEUE_MANAGERS), masters: started(&[MASTER]) }
    }

    /// Whether the queue manager was started after the last change of main.cf.
    fn in_force(&self, main_cf: &Path) -> InForce {
        InForce::of(main_cf, self.managers.iter().copied())
    }

    /// Since when the queue manager has gone by main.cf as it is: since Postfix was started, if the file is older, whatever
    /// reloads there were; else since the last reload. Where no process is seen, since now.
    fn since(&self, main_cf: &Path, now: SystemTime) -> Since {
        let metadata = fs::metadata(main_cf);
        // The time of the last change of any kind, which nobody can set back.
        let changed = metadata.ok().and_then(|found| {
            let seconds = Duration::from_secs(u64::try_from(found.ctime()).ok()?);
            Some(SystemTime::UNIX_EPOCH + seconds + Duration::from_secs(1))
        });
        let reloaded = self.managers.iter().max().copied().unwrap_or(now);
        let masters = self.masters.iter().copied().filter(|started| *started <= reloaded);
        let is_older = changed.zip(masters.clone().min()).is_some_and(|(changed, started)| changed < started);
        let since = masters.max().filter(|_| is_older).unwrap_or(reloaded);
        let since = since.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // A process's start is known to the hundredth of a second, and the boot's to the second.
        Since { at: i64::try_from(since).unwrap_or(i64::MAX).saturating_add(1), longest: None }
    }
}

/// What postconf(1) printed of these parameters.
pub(super) fn timing(output: &str, main_cf: &Path, seen: &Seen) -> Timing {
    let is = seen.in_force(main_cf);
    let lifetime = lifetime(output).unwrap_or_else(Lifetime::Unknown);
    let days = match &lifetime {
        Lifetime::Known { seconds, .. } => longer(*seconds),
        _ => longer(0),
    };
    Timing {
        lifetime: lifetime.in_force(main_cf, is, "As root:\n    postfix reload"),
        retry: retry(output, seen.since(main_cf, SystemTime::now())).unwrap_or_else(Retry::Unknown),
        stopped: None,
        more_time: format!(
            "As root:\n    postconf -e maximal_queue_lifetime={days}d bounce_queue_lifetime={days}d\n    postfix reload"
        ),
    }
}

/// The same where there are several instances, each of which has parameters of its own: what goes for the mail of one does
/// not for that of another.
pub(super) fn of_several() -> Timing {
    let gap = || Gap::of_lifetime("several instances of Postfix run here, and each has settings of its own");
    Timing { lifetime: Lifetime::Unknown(gap()), retry: Retry::Unknown(gap()), ..Timing::default() }
}

fn lifetime(output: &str) -> Result<Lifetime, Gap> {
    let (any, written) = read(output, LIFETIME)?;
    let null_sender = read(output, NULL_SENDER)?.0.min(any);
    let lifetimes = Lifetimes::NotBefore { message: any, null_sender };
    Ok(Lifetime::Known { lifetimes, seconds: any, null_sender, basis: format!("{} = {written}", LIFETIME.0) })
}

fn retry(output: &str, since: Since) -> Result<Retry, Gap> {
    let sum = read(output, BACK_OFF)?.0 + read(output, SCAN)?.0;
    Ok(Retry::Within { seconds: sum, basis: format!("{} + {}", BACK_OFF.0, SCAN.0), since: Some(since), hinted: None })
}

/// A parameter in seconds, and as it is written. One that names another one has that one's value.
fn read(output: &str, (name, unit): (&str, char)) -> Result<(i64, String), Gap> {
    let Some(written) = value(output, name) else {
        return Err(Gap::of_lifetime(format!("postconf did not say what {name} is")));
    };
    let named = written.strip_prefix('$').map(|name| name.trim_matches(['{', '}', '(', ')']));
    let meant = named.map_or(Some(written.clone()), |named| value(output, named));
    let read = meant.as_deref().and_then(|meant| seconds(meant, unit));
    read.map(|seconds| (seconds, meant.unwrap_or_default()))
        .ok_or_else(|| Gap::of_lifetime(format!("{name} = {written} in main.cf is no plain length of time")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 60 * 60;

    /// The output of Debian 13's postconf, with the shipped main.cf.
    const RECORDED: &str = include_str!("../../../tests/fixtures-clocks/postfix/lifetime.stdout");

    fn of(output: &str) -> Timing {
        timing(output, Path::new("/etc/postfix/main.cf"), &Seen::default())
    }

    fn known(message: i64, null_sender: i64, basis: &str) -> Lifetime {
        let lifetimes = Lifetimes::NotBefore { message, null_sender };
        Lifetime::Known { lifetimes, seconds: message, null_sender, basis: basis.into() }
    }

    #[test]
    fn the_shipped_configuration_keeps_mail_for_six_days_and_tries_each_hour() {
        let Timing { lifetime, retry, stopped, more_time } = of(RECORDED);
        assert_eq!(lifetime, known(6 * DAY, 6 * DAY, "maximal_queue_lifetime = 6d"));
        let Retry::Within { seconds, basis, .. } = retry else { panic!("{retry:?}") };
        assert_eq!((seconds, basis.as_str()), (3600, "maximal_backoff_time + queue_run_delay"));
        assert_eq!(stopped, None);
        assert!(more_time.contains("maximal_queue_lifetime=14d bounce_queue_lifetime=14d\n    postfix reload"));
    }

    #[test]
    fn the_null_senders_lifetime_is_capped_by_the_other() {
        let of = |any: &str, bounce: &str| {
            of(&format!("maximal_queue_lifetime = {any}\nbounce_queue_lifetime = {bounce}\n")).lifetime
        };
        assert_eq!(of("5", "1w"), known(5 * DAY, 5 * DAY, "maximal_queue_lifetime = 5"));
        assert_eq!(of("5d", "0"), known(5 * DAY, 0, "maximal_queue_lifetime = 5d"));
        assert_eq!(of("5d", "$maximal_queue_lifetime"), known(5 * DAY, 5 * DAY, "maximal_queue_lifetime = 5d"));
        assert_eq!(of("90s", "${maximal_queue_lifetime}"), known(90, 90, "maximal_queue_lifetime = 90s"));
    }

    #[test]
    fn a_changed_file_is_not_in_force_until_the_reload() {
        let main_cf = tempfile::NamedTempFile::new().unwrap();
        let past = SystemTime::now() - Duration::from_secs(60);
        let Timing { lifetime, .. } = timing(RECORDED, main_cf.path(), &Seen { managers: vec![past], masters: vec![] });
        let expected = Lifetime::NotInForce {
            seconds: 6 * DAY,
            basis: "maximal_queue_lifetime = 6d".into(),
            file: main_cf.path().display().to_string(),
            step: "As root:\n    postfix reload".into(),
        };
        assert_eq!(lifetime, expected);
    }

    #[test]
    fn the_settings_have_been_in_force_since_the_start_or_where_main_cf_was_changed_since_the_reload() {
        let main_cf = tempfile::NamedTempFile::new().unwrap();
        let changed = SystemTime::now();
        let after = |seconds: i64| {
            let away = Duration::from_secs(seconds.unsigned_abs());
            if seconds < 0 { changed - away } else { changed + away }
        };
        let since = |managers: &[i64], masters: &[i64]| {
            let times = |all: &[i64]| all.iter().map(|seconds| after(*seconds)).collect();
            let seen = Seen { managers: times(managers), masters: times(masters) };
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seen.since(main_cf.path(), after(999)).at as u64);
            // Rounded up to a second.
            (at.duration_since(after(-1000)).unwrap().as_secs_f64() - 1000.5).round() as i64
        };
        assert_eq!(since(&[500], &[100]), 100, "the reload read the same file as the start");
        assert_eq!(since(&[500], &[-100]), 500, "the file was changed after the start");
        assert_eq!(since(&[500], &[100, 600]), 100, "what was started later is not its master");
        assert_eq!(since(&[500], &[-100, 100]), 500, "it is not seen which of them is its master");
        assert_eq!(since(&[500], &[100, 200]), 200);
        assert_eq!(since(&[500], &[]), 500);
        assert_eq!(since(&[], &[]), 999, "nothing is seen");
    }

    #[test]
    fn what_postconf_does_not_say_is_unknown_with_its_remedy() {
        for output in ["", "maximal_queue_lifetime = 5d\n", "maximal_queue_lifetime = ${x?{1}:{2}}\n"] {
            let Timing { lifetime: Lifetime::Unknown(gap), retry: Retry::Unknown(_), .. } = of(output) else {
                panic!("{output}")
            };
            assert!(gap.remedy.contains("lifetime = \"5d\""), "{gap:?}");
        }
        // As long as they refer to each other.
        let circle =
            "maximal_queue_lifetime = $bounce_queue_lifetime\nbounce_queue_lifetime = $maximal_queue_lifetime\n";
        assert!(matches!(of(circle).lifetime, Lifetime::Unknown(_)));
    }
}
