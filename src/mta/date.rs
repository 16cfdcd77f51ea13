//! The dates of queue listings: no year, no zone.

use jiff::civil::DateTime;

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
        // When summer time ends, each time of one hour happens twice. The later one counts, unless it is yet to come.
        let twice = clock.zone.to_ambiguous_timestamp(local);
        let earlier = twice.earlier().ok()?.as_second();
        let later = twice.later().ok()?.as_second();
        let instant = if later <= clock.now { later } else { earlier };
        match instant - clock.now {
            ..=0 => Some(instant),
            1..CLOCK_SLIP_SECONDS => Some(clock.now),
            _ => None,
        }
    })
}

fn month(name: &str) -> Option<i8> {
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
    fn what_is_no_date_is_none() {
        for text in ["", "Nov", "Nov 23", "Foo 23 11:27", "Nov 31 11:27", "Nov 23 25:00", "Nov 23 11:27 x", "Nov 23 11"]
        {
            assert_eq!(read(text, "2026-11-23T11:30:00Z"), None, "{text}");
        }
    }
}
