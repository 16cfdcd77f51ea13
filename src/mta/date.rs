//! The dates of queue listings, which have no year and no zone, and those of logs.

use jiff::civil::{Date, DateTime, Time};

use super::Clock;

/// A date that lies less than this in the future was written before the clock was set back. It is not a year old: a
/// queue keeps mail for days.
const CLOCK_SLIP_SECONDS: i64 = 24 * 60 * 60;

/// Reads `Nov 23 11:27` or `Nov 23 11:27:05`, local time in the clock's zone, as the latest such
/// instant that is not in the future, in seconds since 1970. If the clock has been set back by less than a day since,
/// that is the present.
pub fn past_instant(text: &str, clock: &Clock) -> Option<i64> {
    let mut words = text.split_ascii_whitespace();
    let month = month(words.next()?)?;
    let day = words.next()?.parse().ok()?;
    let mut time = words.next()?.split(':');
    let hour = time.next()?.parse().ok()?;
    let minute = time.next()?.parse().ok()?;
    let second = time.next().map_or(Ok(0), str::parse).ok()?;
    if words.next().is_some() || time.next().is_some() {
        return None;
    }
    let this_year = jiff::Timestamp::from_second(clock.now).ok()?.to_zoned(clock.zone.clone()).year();
    // One year on, as the new year may have begun already in the zone. Eight back, for a 29th of February.
    (this_year.saturating_sub(8)..=this_year.saturating_add(1)).rev().find_map(|year| {
        let local = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
        let instant = latest(local, clock)?;
        match instant - clock.now {
            ..=0 => Some(instant),
            1..CLOCK_SLIP_SECONDS => Some(clock.now),
            _ => None,
        }
    })
}

/// When summer time ends, each time of one hour happens twice. The later one counts, unless it is yet to come.
fn latest(local: DateTime, clock: &Clock) -> Option<i64> {
    let twice = clock.zone.to_ambiguous_timestamp(local);
    let earlier = twice.earlier().ok()?.as_second();
    let later = twice.later().ok()?.as_second();
    Some(if later <= clock.now { later } else { earlier })
}

/// The longest time stamp of a log, in bytes.
const STAMP: usize = 40;

/// When a line of a mail log was written, in seconds since 1970. It begins with RFC 3339's form (rsyslog and others),
/// with syslog's older one, which is read as [`past_instant`] does, or with Exim's (specification, "Log files"):
/// `2026-11-23 11:27:05`, perhaps with `.123` and with ` +0100` behind it, local time otherwise.
pub(crate) fn log_instant(line: &[u8], clock: &Clock) -> Option<i64> {
    let line = &line[..line.len().min(STAMP)];
    let line = str::from_utf8(&line[..line.iter().take_while(|byte| byte.is_ascii()).count()]).ok()?;
    let mut words = line.split(' ');
    let first = words.next()?;
    if first.contains('T') {
        return first.parse().ok().map(jiff::Timestamp::as_second);
    }
    let Ok(date) = first.parse::<Date>() else { return past_instant(line.get(..15)?, clock) };
    let time = words.next()?.parse::<Time>().ok()?;
    let local = date.to_datetime(time);
    let zone = words.next().filter(|zone| zone.starts_with(['+', '-']));
    match zone {
        Some(zone) => format!("{local}{zone}").parse().ok().map(jiff::Timestamp::as_second),
        None => latest(local, clock),
    }
}

/// The number of a month by the first three letters of its English name.
pub(super) fn month(name: &str) -> Option<i8> {
    let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let index = names.iter().position(|known| *known == name)?;
    i8::try_from(index + 1).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::tz::TimeZone;

    fn clock(now: &str, zone: TimeZone) -> Clock {
        Clock { now: now.parse::<jiff::Timestamp>().unwrap().as_second(), zone }
    }

    fn read(text: &str, now: &str) -> Option<String> {
        past_instant(text, &clock(now, TimeZone::UTC)).and_then(crate::queue::rfc3339)
    }

    #[test]
    fn the_year_is_the_latest_that_is_not_in_the_future() {
        let now = "2026-11-23T11:30:00Z";
        assert_eq!(read("Nov 23 11:27", now).as_deref(), Some("2026-11-23T11:27:00Z"));
        assert_eq!(read("Nov 23 11:27:08", now).as_deref(), Some("2026-11-23T11:27:08Z"));
        assert_eq!(read("Dec 31 23:59", now).as_deref(), Some("2025-12-31T23:59:00Z"));
        assert_eq!(read("Nov  3 11:27", now).as_deref(), Some("2026-11-03T11:27:00Z"));
        assert_eq!(read("Dec 31 23:59", "2027-01-01T00:00:30Z").as_deref(), Some("2026-12-31T23:59:00Z"));
        assert_eq!(read("Feb 29 12:00", "2026-03-01T00:00:00Z").as_deref(), Some("2024-02-29T12:00:00Z"));
    }

    #[test]
    fn after_the_clock_was_set_back_an_arrival_is_now_and_not_a_year_ago() {
        assert_eq!(read("Nov 23 11:40", "2026-11-23T11:30:00Z").as_deref(), Some("2026-11-23T11:30:00Z"));
        assert_eq!(read("Jan  1 00:10", "2026-12-31T23:59:00Z").as_deref(), Some("2026-12-31T23:59:00Z"));
    }

    #[test]
    fn local_time_is_read_in_the_machines_zone() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let at = |text, now| past_instant(text, &clock(now, berlin.clone())).and_then(crate::queue::rfc3339);
        assert_eq!(at("Jul  1 12:00", "2026-07-01T11:00:00Z").as_deref(), Some("2026-07-01T10:00:00Z"));
        assert_eq!(at("Jan  1 00:30", "2026-12-31T23:45:00Z").as_deref(), Some("2026-12-31T23:30:00Z"));
        // 02:30 happens twice when summer time ends: at 00:30Z and at 01:30Z.
        assert_eq!(at("Oct 25 02:30", "2026-10-25T00:40:00Z").as_deref(), Some("2026-10-25T00:30:00Z"));
        assert_eq!(at("Oct 25 02:30", "2026-10-25T05:00:00Z").as_deref(), Some("2026-10-25T01:30:00Z"));
    }

    #[test]
    fn a_log_says_when_each_line_was_written() {
        let zone = TimeZone::posix("CET-1").unwrap();
        let clock = clock("2026-11-23T11:30:00Z", zone);
        for stamp in [
            "2026-11-23T11:27:05.400371+00:00 bartleby postfix/smtp[1]: A",
            "2026-11-23T11:27:05Z x",
            "2026-11-23T12:27:05+01:00 x",
            "Nov 23 12:27:05 bartleby sm-mta[1]: A",
            "2026-11-23 12:27:05 1vNAb2-00000c-2p => x",
            "2026-11-23 12:27:05.123 [1] 1vNAb2-00000c-2p",
            "2026-11-23 11:27:05 +0000 1vNAb2-00000c-2p",
            "2026-11-23 12:27:05.123 +0100 1vNAb2",
            "Nov 23 12:27:05 é",
        ] {
            assert_eq!(log_instant(stamp.as_bytes(), &clock), Some(1_795_433_225), "{stamp}");
        }
        for line in
            ["", "x", "root:x:0:0", "2026-11-23", "2026-11-23 x", "2026-11-23T", "Nov 23 12:27", "  continued", "é"]
        {
            assert_eq!(log_instant(line.as_bytes(), &clock), None, "{line}");
        }
        assert_eq!(log_instant(b"\xff\xfe", &clock), None);
    }

    #[test]
    fn what_is_not_a_date_is_not_read_as_one() {
        for text in ["", "Nov", "Nov 23", "Foo 23 11:27", "Nov 31 11:27", "Nov 23 25:00", "Nov 23 11:27 x", "Nov 23 11"]
        {
            assert_eq!(read(text, "2026-11-23T11:30:00Z"), None, "{text}");
        }
    }
}
