//! How long Postfix keeps mail, and by when it tries again.
//!
//! Sources: postconf(5); qmgr(8) with its `qmgr_bounce`, `qmgr_active.c` and `qmgr_deliver.c`, by which a null sender's
//! lifetime is capped by the other one; and what was measured with Postfix 3.7: a message goes back at the end of the
//! first failed attempt at or after its arrival and its lifetime, and is tried again at the latest after the longest
//! back-off and one more scan of the queue.

use std::path::Path;

use super::configuration::value;
use crate::mta::timing::{Gap, InForce, Lifetime, Retry, Timing, longer, seconds};
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

/// Whether the queue manager was started (which a reload does) after the last change of main.cf.
pub(super) fn in_force(main_cf: &Path) -> InForce {
    let managers = processes::named(&QUEUE_MANAGERS).unwrap_or_default();
    InForce::of(main_cf, managers.into_iter().map(|manager| manager.started))
}

/// What postconf(1) printed of these parameters.
pub(super) fn timing(output: &str, main_cf: &Path, is: InForce) -> Timing {
    let lifetime = lifetime(output).unwrap_or_else(Lifetime::Unknown);
    let days = match &lifetime {
        Lifetime::Known { seconds, .. } => longer(*seconds),
        _ => longer(0),
    };
    Timing {
        lifetime: lifetime.in_force(main_cf, is, "As root: postfix reload"),
        retry: retry(output).unwrap_or_else(Retry::Unknown),
        stopped: None,
        more_time: format!(
            "As root: postconf -e maximal_queue_lifetime={days}d bounce_queue_lifetime={days}d && postfix reload"
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

fn retry(output: &str) -> Result<Retry, Gap> {
    let sum = read(output, BACK_OFF)?.0 + read(output, SCAN)?.0;
    Ok(Retry::Within { seconds: sum, basis: format!("{} + {}", BACK_OFF.0, SCAN.0) })
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
        timing(output, Path::new("/etc/postfix/main.cf"), InForce::Yes)
    }

    fn known(message: i64, null_sender: i64, basis: &str) -> Lifetime {
        let lifetimes = Lifetimes::NotBefore { message, null_sender };
        Lifetime::Known { lifetimes, seconds: message, null_sender, basis: basis.into() }
    }

    #[test]
    fn the_shipped_configuration_keeps_mail_for_six_days_and_tries_each_hour() {
        let Timing { lifetime, retry, stopped, more_time } = of(RECORDED);
        assert_eq!(lifetime, known(6 * DAY, 6 * DAY, "maximal_queue_lifetime = 6d"));
        let basis = "maximal_backoff_time + queue_run_delay".to_owned();
        assert_eq!(retry, Retry::Within { seconds: 3600, basis });
        assert_eq!(stopped, None);
        assert!(more_time.contains("maximal_queue_lifetime=14d bounce_queue_lifetime=14d && postfix reload"));
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
        let Timing { lifetime, .. } = timing(RECORDED, Path::new("/etc/postfix/main.cf"), InForce::No);
        let expected = Lifetime::NotInForce {
            seconds: 6 * DAY,
            basis: "maximal_queue_lifetime = 6d".into(),
            file: "/etc/postfix/main.cf".into(),
            step: "As root: postfix reload".into(),
        };
        assert_eq!(lifetime, expected);
    }

    #[test]
    fn what_postconf_does_not_say_is_unknown_with_its_remedy() {
        for output in ["", "maximal_queue_lifetime = 5d\n", "maximal_queue_lifetime = ${x?{1}:{2}}\n"] {
            let Timing { lifetime: Lifetime::Unknown(gap), retry: Retry::Unknown(_), .. } = of(output) else {
                panic!("{output}")
            };
            assert!(gap.remedy.contains("[mta] lifetime"), "{gap:?}");
        }
        // As long as they refer to each other.
        let circle =
            "maximal_queue_lifetime = $bounce_queue_lifetime\nbounce_queue_lifetime = $maximal_queue_lifetime\n";
        assert!(matches!(of(circle).lifetime, Lifetime::Unknown(_)));
    }
}
