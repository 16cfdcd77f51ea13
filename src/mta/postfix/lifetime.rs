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
use super::instances::Instance;
use crate::mta::timing::{Gap, InForce, Lifetime, Retry, Since, Timing, longer, seconds};
use crate::queue::{Lifetimes, OfInstance};
use crate::system::processes;
use crate::text::to_paste;

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

/// What postconf(1) printed of these parameters, for each instance in their order; `main_cf`: that of the first.
pub(super) fn timing(instances: &[Instance], outputs: &[String], main_cf: &Path, seen: &Seen) -> Timing {
    let outputs = || instances.iter().enumerate().map(|(place, _)| outputs.get(place).map_or("", String::as_str));
    let kept: Result<Vec<Kept>, Gap> = outputs().map(lifetime).collect();
    let longest = kept.as_ref().ok().and_then(|all| all.iter().map(|of| of.message).max());
    let days = longer(longest.unwrap_or(0));
    let each = |command: &dyn Fn(&str) -> String| {
        let commands = instances.iter().map(|instance| instance.option().map(|option| command(&option)));
        commands.collect::<Result<Vec<_>, _>>().map(|commands| {
            let lines: Vec<_> = commands.iter().flat_map(|command| command.lines()).collect();
            to_paste("As root", &lines)
        })
    };
    let more_time = each(&|option| {
        format!(
            "postconf{option} -e maximal_queue_lifetime={days}d bounce_queue_lifetime={days}d\npostfix{option} reload"
        )
    });
    let files = || instances.iter().map(|instance| instance.main_cf(main_cf));
    let changed = files().position(|file| seen.in_force(&file) == InForce::No);
    let lifetime = match (kept, changed.and_then(|place| Some((place, files().nth(place)?)))) {
        (Err(gap), _) => Lifetime::Unknown(gap),
        (Ok(all), Some((place, file))) => {
            let reload = each(&|option| format!("postfix{option} reload")).unwrap_or_else(|odd| odd.to_string());
            together(&[], all.get(place..=place).unwrap_or_default()).in_force(&file, InForce::No, &reload)
        }
        (Ok(all), None) => together(instances, &all),
    };
    let now = SystemTime::now();
    let retry = outputs().map(retry_seconds).collect::<Result<Vec<_>, _>>().map(|all| Retry::Within {
        seconds: all.into_iter().max().unwrap_or_default(),
        basis: format!("{} + {}", BACK_OFF.0, SCAN.0),
        since: files().map(|file| seen.since(&file, now)).max_by_key(|since| since.at),
        hinted: None,
    });
    Timing {
        lifetime,
        retry: retry.unwrap_or_else(Retry::Unknown),
        stopped: None,
        more_time: more_time.unwrap_or_default(),
    }
}

/// How long one instance keeps mail, in seconds.
#[derive(Clone, Debug)]
struct Kept {
    message: i64,
    null_sender: i64,
    /// The setting that says so.
    basis: String,
}

/// That of all instances; of one alone, whose messages don't name it, without its name.
fn together(instances: &[Instance], all: &[Kept]) -> Lifetime {
    let Some((place, shortest)) = all.iter().enumerate().min_by_key(|(_, of)| of.message) else {
        return Lifetime::default();
    };
    let null_sender = all.iter().map(|of| of.null_sender).min().unwrap_or_default();
    let of = |(instance, of): (&Instance, &Kept)| OfInstance {
        name: instance.name.clone(),
        message: of.message,
        null_sender: of.null_sender,
    };
    let which = instances.get(place).filter(|_| all.len() > 1);
    Lifetime::Known {
        lifetimes: match which {
            Some(_) => Lifetimes::Each(instances.iter().zip(all).map(of).collect()),
            None => Lifetimes::NotBefore { message: shortest.message, null_sender },
        },
        seconds: shortest.message,
        null_sender,
        basis: which.map_or_else(|| shortest.basis.clone(), |which| format!("{} of {}", shortest.basis, which.name)),
    }
}

fn lifetime(output: &str) -> Result<Kept, Gap> {
    let (any, written) = read(output, LIFETIME)?;
    let null_sender = read(output, NULL_SENDER)?.0.min(any);
    Ok(Kept { message: any, null_sender, basis: format!("{} = {written}", LIFETIME.0) })
}

fn retry_seconds(output: &str) -> Result<i64, Gap> {
    Ok(read(output, BACK_OFF)?.0 + read(output, SCAN)?.0)
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

    fn instance(name: &str) -> Instance {
        Instance::named(name, (name != "postfix").then(|| format!("/nonexistent/{name}")))
    }

    fn alone() -> [Instance; 1] {
        [instance("postfix")]
    }

    fn of(output: &str) -> Timing {
        timing(&alone(), &[output.to_owned()], Path::new("/etc/postfix/main.cf"), &Seen::default())
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
    fn of_several_instances_each_has_its_own_lifetime() {
        let output = |lifetime: &str, back_off: &str| {
            format!(
                "maximal_queue_lifetime = {lifetime}\nbounce_queue_lifetime = {lifetime}\nmaximal_backoff_time = {back_off}\n\
                 queue_run_delay = 300s\n"
            )
        };
        let both = [instance("postfix"), instance("postfix-out")];
        let of = |outputs: &[String]| timing(&both, outputs, Path::new("/etc/postfix/main.cf"), &Seen::default());
        let found = of(&[output("5d", "4000s"), output("2d", "1h")]);
        let each =
            |name: &str, days: i64| OfInstance { name: name.into(), message: days * DAY, null_sender: days * DAY };
        let expected = Lifetime::Known {
            lifetimes: Lifetimes::Each(vec![each("postfix", 5), each("postfix-out", 2)]),
            seconds: 2 * DAY,
            null_sender: 2 * DAY,
            basis: "maximal_queue_lifetime = 2d of postfix-out".into(),
        };
        assert_eq!(found.lifetime, expected);
        assert!(matches!(found.retry, Retry::Within { seconds: 4300, .. }), "the longest of both");
        let set = "-e maximal_queue_lifetime=14d bounce_queue_lifetime=14d\n    postfix";
        let out = "-c /nonexistent/postfix-out";
        let more = format!("As root:\n    postconf {set} reload\n    postconf {out} {set} {out} reload");
        assert_eq!(found.more_time, more);
        let one = of(&[output("5d", "4000s")]);
        assert!(matches!((one.lifetime, one.retry), (Lifetime::Unknown(_), Retry::Unknown(_))), "one did not answer");
    }

    #[test]
    fn a_changed_file_is_not_in_force_until_the_reload() {
        let main_cf = tempfile::NamedTempFile::new().unwrap();
        let past = SystemTime::now() - Duration::from_secs(60);
        let seen = Seen { managers: vec![past], masters: vec![] };
        let Timing { lifetime, .. } = timing(&alone(), &[RECORDED.to_owned()], main_cf.path(), &seen);
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
