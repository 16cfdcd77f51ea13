//! Numbers, times and foreign text as people read them.

use std::borrow::Cow;
use std::fmt::Write;

use jiff::tz::TimeZone;

/// `1 message`, `41,233 messages`.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", thousands(number), if number == 1 { one } else { many })
}

/// `41,233`
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `538 B`, `1.4 MiB`: bytes in units of 1024, never more than four digits.
pub fn bytes(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value < 1000.0 || unit == "PiB" {
            return if unit == "B" || value >= 99.95 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    String::new()
}

/// `3 hours`: a length of time in its largest whole unit.
pub fn duration(seconds: i64) -> String {
    let (number, unit) = in_largest_unit(seconds);
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

/// `3 h`, for where there is little room.
pub fn short_duration(seconds: i64) -> String {
    let (number, unit) = in_largest_unit(seconds);
    let short = match unit {
        "second" => "s",
        "minute" => "min",
        "hour" => "h",
        _ => "d",
    };
    format!("{number} {short}")
}

/// The time from an instant to another, as [`duration`] has it. An instant that is known to the minute only (sendmail's
/// listing has no seconds) is a whole minute: what is less than a minute after such a one, is not known to the second.
pub fn time_between(start: i64, end: i64) -> String {
    let seconds = end.saturating_sub(start).max(0);
    if is_vague(start, seconds) { "under a minute".into() } else { duration(seconds) }
}

/// The same as [`short_duration`] has it.
pub fn short_time_between(start: i64, end: i64) -> String {
    let seconds = end.saturating_sub(start).max(0);
    if is_vague(start, seconds) { "< 1 min".into() } else { short_duration(seconds) }
}

fn is_vague(start: i64, seconds: i64) -> bool {
    start.rem_euclid(60) == 0 && seconds < 60
}

fn in_largest_unit(seconds: i64) -> (i64, &'static str) {
    match seconds.max(0) {
        seconds @ ..60 => (seconds, "second"),
        seconds @ 60..3600 => (seconds / 60, "minute"),
        seconds @ 3600..172_800 => (seconds / 3600, "hour"),
        seconds => (seconds / 86_400, "day"),
    }
}

/// `2026-11-23 12:18:08+01:00`
pub fn local_time(seconds: i64, zone: &TimeZone) -> String {
    let Ok(instant) = jiff::Timestamp::from_second(seconds) else { return "?".into() };
    instant.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
}

/// The beginning of long foreign text, [`printable`]: at most 120 characters, and `…` for the rest.
pub fn short(text: &str) -> String {
    const SHOWN: usize = 120;
    let text = printable(text);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

/// Foreign text with every character made visible that would act instead of show: controls, and
/// those that turn the direction of text or have no width. Markup is not its business.
pub fn printable(text: &str) -> Cow<'_, str> {
    // Nearly all of it is plain ASCII, which is seen fastest.
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) || !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let mut visible = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            // The control pictures of Unicode.
            '\0'..='\x1f' => visible.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{fffd}')),
            '\x7f' => visible.push('\u{2421}'),
            _ if acts(c) => {
                let _ = write!(visible, "⟨U+{:04X}⟩", u32::from(c));
            }
            _ => visible.push(c),
        }
    }
    Cow::Owned(visible)
}

/// Controls (general category Cc), the format characters (Cf) that hide or reorder text, and
/// Unicode's noncharacters.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
            | '\u{fdd0}'..='\u{fdef}')
        // The last two of each plane are no characters, which HTML forbids.
        || u32::from(c) & 0xfffe == 0xfffe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let sizes = [0, 538, 999, 1000, 1434, 300_356, 1023 * 1024, 5 << 30, u64::MAX].map(bytes);
        assert_eq!(
            sizes,
            ["0 B", "538 B", "999 B", "1.0 KiB", "1.4 KiB", "293 KiB", "1.0 MiB", "5.0 GiB", "16384 PiB"]
        );
    }

    #[test]
    fn durations() {
        let all = [-5, 0, 1, 59, 60, 119, 3600, 10_800, 86_400, 172_800, 900_000].map(duration);
        let expected = [
            "0 seconds",
            "0 seconds",
            "1 second",
            "59 seconds",
            "1 minute",
            "1 minute",
            "1 hour",
            "3 hours",
            "24 hours",
            "2 days",
            "10 days",
        ];
        assert_eq!(all, expected);
        assert_eq!(short_duration(10_800), "3 h");
    }

    #[test]
    fn what_is_known_to_the_minute_is_not_said_to_the_second() {
        assert_eq!((time_between(120, 159), short_time_between(120, 159)), ("under a minute".into(), "< 1 min".into()));
        assert_eq!((time_between(121, 159), short_time_between(121, 159)), ("38 seconds".into(), "38 s".into()));
        assert_eq!((time_between(120, 180), short_time_between(120, 180)), ("1 minute".into(), "1 min".into()));
        assert_eq!(time_between(i64::MAX, 0), "0 seconds");
    }

    #[test]
    fn text_that_acts_is_made_visible() {
        assert_eq!(printable("plain 用户 é"), "plain 用户 é");
        assert_eq!(printable("a\x07b\x1b[31m\n\x7f\u{85}"), "a␇b␛[31m␊␡⟨U+0085⟩");
        assert_eq!(printable("evil\u{202e}moc.elpmaxe"), "evil⟨U+202E⟩moc.elpmaxe");
        assert_eq!(printable("zero\u{200b}width"), "zero⟨U+200B⟩width");
    }

    #[test]
    fn long_text_is_shortened() {
        assert_eq!(short(&"é".repeat(120)), "é".repeat(120));
        assert_eq!(short(&"é".repeat(5000)), format!("{}…", "é".repeat(120)));
        assert_eq!(short("a\x07b"), "a␇b");
    }

    #[test]
    fn times_carry_their_offset() {
        let zone = TimeZone::posix("CET-1").unwrap();
        assert_eq!(local_time(1_795_432_688, &zone), "2026-11-23 12:18:08+01:00");
    }

    #[test]
    fn numbers() {
        assert_eq!(count(1, "message", "messages"), "1 message");
        assert_eq!(count(0, "message", "messages"), "0 messages");
        assert_eq!(
            ["1", "12", "123", "1,234", "41,233", "1,000,000"],
            [1, 12, 123, 1234, 41233, 1_000_000].map(thousands)[..]
        );
    }
}
