//! Exim's retry hints, which only root and Exim can read: since when a host or an address fails, and when it is tried next.
//!
//! Sources: the specification's chapters "Retry configuration" and "Exim utilities", `exim_dbutil.c`, and the recorded output
//! of exim_dumpdb(8) under `tests/fixtures-clocks/exim`. A record's key begins with `T:` for a host, and with `R:` for an
//! address or a domain; times are UTC by `-z`.

use jiff::civil::{Date, Time};
use jiff::tz::Offset;

use super::retry::Runner;
use crate::mta::Hint;
use crate::mta::date::month;
use crate::mta::timing::{Hinted, Lifetime, Retry, Timing};
use crate::queue::{Cutoff, Lifetimes};
use crate::system::processes::Process;

/// The most records that are read.
const MOST: usize = 5000;

/// The most hosts of one domain that are looked at.
const MOST_HOSTS: usize = 50;

/// A host that was not tried for so long, in seconds, counts as one that never failed (`retry_data_expire`).
const EXPIRES: i64 = 7 * 24 * 60 * 60;

/// What exim_dumpdb(8) printed: a line with the key and the error, then one with the times. `None` where there is more than
/// is read.
pub(super) fn read(output: &str) -> Option<Vec<Hint>> {
    let mut hints = Vec::new();
    let mut key = None;
    for line in output.lines() {
        match (line.strip_prefix("  "), key) {
            (Some(record), _) => key = record.split(' ').next(),
            (None, Some(of)) => {
                hints.extend(times(line).map(|[first, last, next]| Hint { host: host(of), first, last, next }));
                key = None;
            }
            (None, None) => {}
        }
        if hints.len() > MOST {
            return None;
        }
    }
    Some(hints)
}

/// `24-Nov-2026 06:54:58  24-Nov-2026 06:54:58  24-Nov-2026 07:09:58`, with ` *` behind it where the host has failed for longer
/// than its rule says: in seconds since 1970.
fn times(line: &str) -> Option<[i64; 3]> {
    let words: Vec<&str> = line.split_ascii_whitespace().filter(|word| *word != "*").collect();
    let instant = |date: &str, time: &str| {
        let mut parts = date.split('-');
        let (day, name, year) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?.parse().ok()?);
        let civil = Date::new(year, month(name)?, day).ok()?.to_datetime(time.parse::<Time>().ok()?);
        Offset::UTC.to_timestamp(civil).ok().map(jiff::Timestamp::as_second)
    };
    let [a, b, c, d, e, f] = words[..] else { return None };
    Some([instant(a, b)?, instant(c, d)?, instant(e, f)?])
}

/// The host of a key such as `T:tuccster.example.com:192.0.2.1:2525`, with address and port; `None` for an address, and where
/// the failure is of one message alone, whose id stands behind.
fn host(key: &str) -> Option<String> {
    let host = key.strip_prefix("T:")?;
    let last = host.rsplit(':').next()?;
    (!last.contains('-') || last.contains('.')).then(|| host.to_lowercase())
}

/// What `exim4 -bt ADDRESS` says of the hosts that mail for a domain goes to, as the keys have them, without a port:
/// `  host tuccster.example.com [192.0.2.1] port=2525`.
fn hosts(route: &str) -> Vec<String> {
    let host = |line: &str| {
        let (name, rest) = line.trim_start().strip_prefix("host ")?.trim_start().split_once(' ')?;
        let address = rest.trim_start().strip_prefix('[')?.split_once(']')?.0;
        Some(format!("{}:{address}", name.to_lowercase()))
    };
    route.lines().filter_map(host).take(MOST_HOSTS).collect()
}

/// Since when mail for a domain with this route can't be delivered: since the last of its hosts began to fail; `None` where one
/// of them does not.
fn failing_since(route: &str, hints: &[Hint], now: i64) -> Option<i64> {
    let of = |host: &String| {
        let is_it = |key: &str| {
            let port = key.strip_prefix(host.as_str());
            port.is_some_and(|port| port.is_empty() || port.starts_with(':'))
        };
        let known = hints.iter().filter(|hint| hint.last.saturating_add(EXPIRES) > now);
        known.filter(|hint| hint.host.as_deref().is_some_and(is_it)).map(|hint| hint.first).min()
    };
    let all = hosts(route).iter().map(of).collect::<Option<Vec<_>>>()?;
    all.into_iter().max()
}

/// The domains whose routes are needed: none, where no host fails.
pub(super) fn domains(timing: &Timing, hints: &[Hint]) -> Vec<String> {
    match &timing.lifetime {
        Lifetime::Known { lifetimes: Lifetimes::About { cutoffs, .. }, .. }
            if hints.iter().any(|hint| hint.host.is_some()) =>
        {
            cutoffs.iter().map(|cutoff| cutoff.domain.clone()).collect()
        }
        _ => Vec::new(),
    }
}

/// The same with what the hints say; `routes`: of each of these domains, in their order.
pub(super) fn timing(
    mut timing: Timing,
    hints: &[Hint],
    routes: &[String],
    processes: Option<&[Process]>,
    now: i64,
) -> Timing {
    if let Lifetime::Known { lifetimes: Lifetimes::About { cutoffs, .. }, basis, .. } = &mut timing.lifetime {
        let with_route =
            |(cutoff, route): (&mut Cutoff, &String)| cutoff.failing_since = failing_since(route, hints, now);
        cutoffs.iter_mut().zip(routes).for_each(with_route);
        if cutoffs.iter().any(|cutoff| cutoff.failing_since.is_some()) {
            basis.push_str(", from the first failure of its host");
        }
    }
    if let (Retry::Within { hinted, .. }, Runner::Every(every, word)) = (&mut timing.retry, Runner::find(processes)) {
        let latest = hints.iter().map(|hint| hint.next).max().unwrap_or(now).max(now);
        let first = hints.iter().map(|hint| hint.next).min().unwrap_or(now);
        *hinted = Some(Hinted {
            at: latest.saturating_add(every),
            basis: format!("Exim's retry hints and {word}"),
            asked: now,
            until: first.max(now),
        });
    }
    timing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Message, Plan, Recipient, Returns, State};

    /// The output of Debian 13's exim_dumpdb.
    const RECORDED: &str = include_str!("../../../tests/fixtures-clocks/exim/retrydb-root.stdout");

    fn at(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_second()
    }

    #[test]
    fn the_recorded_hints_are_read() {
        let host = Some("tuccster.example.com:127.0.0.2".to_owned());
        let (first, next) = (at("2026-11-24T06:54:58Z"), at("2026-11-24T07:09:58Z"));
        let (address, later) = (at("2026-11-24T06:52:42Z"), at("2026-11-24T07:07:42Z"));
        let of_address = Hint { host: None, first: address, last: address, next: later };
        let expected = vec![Hint { host, first, last: first, next }, of_address.clone(), of_address];
        assert_eq!(read(RECORDED), Some(expected));
        assert_eq!(read(""), Some(vec![]));
        assert_eq!(read("  T:a:1 0 0 x\nnonsense\n24-Nov-2026 06:54:58\n"), Some(vec![]));
        let past = "  T:mx.example:2001:db8::1:2525 111 0 Connection refused\n\
                    24-Nov-2026 06:54:58  24-Nov-2026 06:54:58  24-Nov-2026 07:09:58 *\n";
        assert_eq!(read(past).unwrap()[0].host.as_deref(), Some("mx.example:2001:db8::1:2525"));
        assert_eq!(read(&past.repeat(MOST + 1)), None);
    }

    #[test]
    fn a_record_of_one_message_is_not_its_hosts() {
        for (key, expected) in [
            ("T:MX-1.example:192.0.2.1", Some("mx-1.example:192.0.2.1")),
            ("T:mx.example:192.0.2.1:1xVSDK-0002Gk-2p", None),
            ("T:mx.example:192.0.2.1:2525:1vNAb2-00000000c00-2p00", None),
            ("R:a@x.example", None),
        ] {
            assert_eq!(host(key).as_deref(), expected, "{key}");
        }
    }

    #[test]
    fn a_domain_fails_since_the_last_of_its_hosts_began_to() {
        let hint = |host: &str, first| Hint { host: Some(host.into()), first, last: first + 10, next: first + 900 };
        let hints = [hint("a.example:192.0.2.1:2525", 100), hint("b.example:192.0.2.2", 300)];
        let route = |hosts: &[&str]| {
            let line = |host: &&str| format!("  host {host} MX=10\n");
            format!("x@d.example\n  router = r, transport = t\n{}", hosts.iter().map(line).collect::<String>())
        };
        let since = |hosts: &[&str], now| failing_since(&route(hosts), &hints, now);
        assert_eq!(since(&["A.example [192.0.2.1]"], 400), Some(100));
        assert_eq!(since(&["A.example [192.0.2.1]", "b.example    [192.0.2.2]"], 400), Some(300));
        assert_eq!(since(&["A.example [192.0.2.1]", "c.example [192.0.2.3]"], 400), None, "one of them does not fail");
        assert_eq!(since(&["A.example [192.0.2.10]"], 400), None);
        assert_eq!(since(&[], 400), None, "it is not known where mail goes");
        assert_eq!(since(&["A.example [192.0.2.1]"], 400 + EXPIRES), None, "Exim has forgotten it");
    }

    #[test]
    fn with_the_hints_a_return_counts_from_the_hosts_first_failure_and_the_next_attempt_is_exact() {
        let day = 24 * 60 * 60;
        let known = |basis: &str| Timing {
            lifetime: Lifetime::Known {
                lifetimes: Lifetimes::About {
                    cutoffs: vec![Cutoff { domain: "example.com".into(), seconds: 6 * day, failing_since: None }],
                    otherwise: None,
                    failing_since: None,
                    frozen: None,
                },
                seconds: 6 * day,
                null_sender: 6 * day,
                basis: basis.into(),
            },
            retry: Retry::Within { seconds: 2700, basis: String::new(), since: None, hinted: None },
            ..Timing::default()
        };
        let hints = read(RECORDED).unwrap();
        assert_eq!(domains(&known(""), &hints), ["example.com"]);
        assert_eq!(domains(&known(""), &hints[1..]), [""; 0], "no host fails");
        let route =
            "x@example.com\n  router = primary, transport = to_primary\n  host tuccster.example.com [127.0.0.2]\n";
        let words = ["/usr/sbin/exim4", "-bdf", "-q30m"].map(str::to_owned);
        let daemon = Process { started: std::time::SystemTime::UNIX_EPOCH, arguments: words.into() };
        let now = at("2026-11-24T07:00:00Z");
        let found = timing(known("Retry rule: F,6d,15m"), &hints, &[route.into()], Some(&[daemon]), now);
        let Lifetime::Known { lifetimes, basis, .. } = &found.lifetime else { panic!("{found:?}") };
        assert_eq!(basis, "Retry rule: F,6d,15m, from the first failure of its host");
        let recipient =
            Recipient { address: "larry@example.com".into(), reason: None, delivered: false, last_attempt: None };
        let message = Message {
            id: "1xVSDK-0002Gk-2p".into(),
            state: State::Deferred,
            mta_state: "queued".into(),
            size: None,
            arrival: Some(now),
            sender: Some("".into()),
            recipients: vec![recipient],
            being_returned: false,
            too_young: false,
            instance: None,
            plan: Plan::default(),
        };
        assert_eq!(lifetimes.since_oldest(Some(7)).returns(&message), Returns::About(hints[0].first + 6 * day));
        let expected = Hinted {
            at: hints[0].next + 1800,
            basis: "Exim's retry hints and -q30m".into(),
            asked: now,
            until: hints[1].next,
        };
        assert!(matches!(&found.retry, Retry::Within { hinted: Some(hinted), .. } if *hinted == expected), "{found:?}");
        let unseen = timing(known(""), &hints, &[], None, now);
        assert!(
            matches!(unseen.retry, Retry::Within { hinted: None, .. }),
            "it is not seen how often the queue is run"
        );
    }
}
