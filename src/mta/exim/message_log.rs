//! A message's log (`exim4 -Mvl ID`), which holds the reasons that the listing lacks.
//!
//! Source: the Exim specification's chapter "Log files", and the recorded output under `tests/fixtures/exim`.

use jiff::civil::DateTime;
use jiff::tz::Offset;

use crate::mta::{Attempt, Clock};

/// A line of the message log about a recipient that was put off, or refused for good (a notice that nobody takes is kept,
/// frozen).
///
/// `2026-11-23 11:28:02.989 full@example.com R=primary T=remote defer (-44) H=... DT=0.000s: reason`, with
/// `log_selector` deciding what stands between; where it was refused there is no `defer (...)`, and where no router takes
/// it, `routing failed for full@example.com: reason`. Where the envelope's recipient is another address (an alias) or is
/// only written otherwise (a local part in quotes), it stands in angle brackets behind.
///
/// Other lines repeat the sender's words (`Received from ... T="its subject"`), which may be made to look alike. A
/// line about a recipient begins with its address.
pub(super) fn attempt(line: &str, clock: &Clock) -> Option<Attempt> {
    let mut words = line.splitn(3, ' ');
    let (date, time, mut rest) = (words.next()?, words.next()?, words.next()?);
    // The zone, with `log_timezone`.
    let mut zone = None;
    if let Some((word, behind)) = rest.split_once(' ')
        && let Some(offset) = offset(word)
    {
        (zone, rest) = (Some(offset), behind);
    }
    let of_the_sender = ["Received ", "H=", "<= ", "U="].iter().any(|start| rest.starts_with(start));
    let (recipient, reason) = deferral(rest).or_else(|| failure(rest)).filter(|_| !of_the_sender)?;
    Some(Attempt {
        recipient: address(recipient)?.to_owned(),
        reason: reason.to_owned(),
        ended: instant(date, time, zone, clock),
    })
}

/// `a@x.example R=primary T=remote defer (111): Connection refused`, `a@x.example routing defer (-51): ...`.
fn deferral(rest: &str) -> Option<(&str, &str)> {
    let (before, after) = rest.split_once(" defer (")?;
    let addresses = before.split_once(" R=").map_or(before, |(addresses, _)| addresses);
    let reason = after.split_once("): ").or_else(|| after.split_once(") ")).map(|(_, reason)| reason)?;
    // The connection's fields end with the first colon that a space follows.
    let fields = |(fields, _): &(&str, &str)| fields.starts_with("H=");
    let reason = reason.split_once(": ").filter(fields).map_or(reason, |(_, text)| text);
    Some((addresses.strip_suffix(" routing").unwrap_or(addresses), reason))
}

/// `a@x.example R=primary T=remote H=mx [192.0.2.1]: SMTP error ...`, `routing failed for a@x.example: ...`.
fn failure(rest: &str) -> Option<(&str, &str)> {
    match rest.strip_prefix("routing failed for ") {
        Some(rest) => rest.split_once(": "),
        None => {
            let (addresses, fields) = rest.split_once(" R=")?;
            Some((addresses, fields.split_once(": ")?.1))
        }
    }
}

/// The address of the envelope, of an address and perhaps others behind it in angle brackets.
fn address(addresses: &str) -> Option<&str> {
    let envelope = addresses.strip_suffix('>').and_then(|addresses| addresses.rsplit_once(" <"));
    Some(envelope.map_or(addresses, |(_, envelope)| envelope)).filter(|address| address.contains('@'))
}

/// `+0100`
fn offset(word: &str) -> Option<Offset> {
    let (sign, digits) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
        (Some(digits), _) => (1, digits),
        (_, Some(digits)) => (-1, digits),
        _ => return None,
    };
    let number = |part: Option<&str>| part?.parse::<i32>().ok();
    let is_plain = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit());
    let (hours, minutes) = (number(digits.get(..2))?, number(digits.get(2..))?);
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok().filter(|_| is_plain)
}

/// The second of a line, in the machine's zone where it names none. (`timezone` of Exim's configuration may be another
/// one, which nothing in the log shows: a second that is still to come is not one.)
fn instant(date: &str, time: &str, zone: Option<Offset>, clock: &Clock) -> Option<i64> {
    let civil: DateTime = format!("{date}T{}", time.get(..8)?).parse().ok()?;
    let zone = zone.map_or_else(|| clock.zone.clone(), |offset| offset.to_time_zone());
    let second = civil.to_zoned(zone).ok()?.timestamp().as_second();
    Some(second).filter(|second| *second <= clock.now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock { now: 1_795_500_000, zone: jiff::tz::TimeZone::UTC }
    }

    fn read(line: &str) -> Option<(String, String)> {
        attempt(line, &clock()).map(|attempt| (attempt.recipient, attempt.reason))
    }

    #[test]
    fn a_recipient_that_was_refused_for_good_has_that_reason() {
        let frozen = include_str!("../../../tests/fixtures-debian13/exim/bounce-mvl.stdout");
        let routing = ("alice@example.org".to_owned(), "Unrouteable address".to_owned());
        assert_eq!(frozen.lines().filter_map(read).collect::<Vec<_>>(), [routing]);
        // Exim 4.96: put off first, then refused.
        let lines = [
            "2026-11-23 12:23:00 larry@example.com R=primary T=to_primary defer (111): Connection refused",
            "2026-11-23 12:23:04 H=127.0.0.2 [127.0.0.2] SMTP error from remote mail server after RCPT TO:<larry@example.com>: 550 no",
            "2026-11-23 12:23:04 larry@example.com R=primary T=to_primary H=127.0.0.2 [127.0.0.2]: SMTP error from remote mail server after RCPT TO:<larry@example.com>: 550 no",
            "2026-11-23 12:23:04 larry@example.com: to_primary transport succeeded",
            "*** Frozen (delivery error message)",
        ];
        let reasons: Vec<_> = lines.iter().filter_map(|line| read(line)).map(|(_, reason)| reason).collect();
        let refused = "SMTP error from remote mail server after RCPT TO:<larry@example.com>: 550 no";
        assert_eq!(reasons, ["Connection refused", refused]);
    }

    #[test]
    fn the_time_of_an_attempt_is_read_by_the_zone_of_its_line() {
        let ended = |start: &str, clock: &Clock| {
            attempt(&format!("{start} a@x.example R=r T=t defer (111): Connection refused"), clock)?.ended
        };
        assert_eq!(ended("2026-11-23 11:28:02.880", &clock()), Some(1_795_433_282));
        assert_eq!(ended("2026-11-23 12:28:02 +0100", &clock()), Some(1_795_433_282));
        let berlin = Clock { zone: jiff::tz::TimeZone::posix("CET-1").unwrap(), ..clock() };
        assert_eq!(ended("2026-11-23 12:28:02", &berlin), Some(1_795_433_282));
        assert_eq!(ended("2026-11-25 12:28:02", &clock()), None, "a time to come");
        assert_eq!(ended("yesterday noon", &clock()), None);
    }

    #[test]
    fn reasons_come_from_the_message_log() {
        let log = include_str!("../../../tests/fixtures/exim/mixed-mvl.stdout");
        let reasons: Vec<_> = log.lines().filter_map(read).collect();
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert_eq!(reasons[0].0, "slow@example.com");
        assert!(
            reasons[0].1.starts_with("SMTP error from remote mail server after RCPT TO:<slow@example.com>: 450"),
            "{}",
            reasons[0].1
        );
        assert!(reasons[1].1.contains("452 4.2.2 The email account"));
        let read = |line| read(line).unwrap();
        let quoted = r#"2026-11-23 15:20:02 john "jb" doe@example.com <"john \"jb\" doe"@example.com> R=primary T=to_primary defer (-54): retry time not reached"#;
        assert_eq!(read(quoted), (r#""john \"jb\" doe"@example.com"#.into(), "retry time not reached".into()));
        let plain = "2026-11-23 15:20:02 user@other.example R=primary T=to_primary defer (111): Connection refused";
        assert_eq!(read(plain), ("user@other.example".into(), "Connection refused".into()));
        let refused =
            "2026-11-23 15:20:02 a@x.example R=primary T=to_primary defer (-44) H=mx [2001:db8::1]: SMTP error: 450 no";
        assert_eq!(read(refused).1, "SMTP error: 450 no");
        let zone = "2026-11-23 15:20:02.123 +0100 a@x.example R=primary T=remote defer (111): Connection refused";
        assert_eq!(read(zone).0, "a@x.example");
        let routing = "2026-11-23 15:20:02 a@x.example routing defer (-51): retry time not reached";
        assert_eq!(read(routing), ("a@x.example".into(), "retry time not reached".into()));
    }

    #[test]
    fn a_subject_or_a_servers_words_are_no_reason() {
        for line in [
            "2026-11-23 15:20:02 H=127.0.0.2 [127.0.0.2] Connection refused",
            r#"2026-11-23 15:20:02 Received from a@x.example S=433 T="a@x.example R=x defer (1): evil""#,
            r#"2026-11-23 15:20:02 +0100 Received from a@x.example S=433 T="x <b@x.example> defer (1): evil""#,
            "2026-11-23 15:20:02 H=mx [192.0.2.1] SMTP error: 450 <b@x.example> R=y defer (1): evil",
            "2026-11-23 15:20:02 cancelled by system filter defer (1): evil",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
