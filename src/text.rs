//! Numbers, times and foreign text as people read them.

use std::borrow::Cow;
use std::fmt::Write;

use jiff::tz::TimeZone;

/// `1 message`, `41,233 messages`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", thousands(number), if number == 1 { one } else { many })
}

/// `41,233`
pub(crate) fn thousands(number: u64) -> String {
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
pub(crate) fn bytes(number: u64) -> String {
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
pub(crate) fn duration(seconds: i64) -> String {
    let (number, unit) = in_largest_unit(seconds);
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

/// A time in which something happens at the latest: no shorter than it is.
pub(crate) fn at_most(seconds: i64) -> String {
    let in_units = |unit: u64, one: &str, many: &str| count(seconds.max(0).unsigned_abs().div_ceil(unit), one, many);
    match seconds {
        ..120 => in_units(1, "second", "seconds"),
        120..7200 => in_units(60, "minute", "minutes"),
        7200..172_800 => in_units(3600, "hour", "hours"),
        _ => in_units(86_400, "day", "days"),
    }
}

/// `3 h`, for where there is little room.
pub(crate) fn short_duration(seconds: i64) -> String {
    let (number, unit) = in_largest_unit(seconds);
    let short = match unit {
        "second" => "s",
        "minute" => "min",
        "hour" => "h",
        _ => "d",
    };
    format!("{number} {short}")
}

/// The time from an instant to another, as `duration` has it. An instant that is known to the minute only (sendmail's
/// listing has no seconds) is a whole minute: what is less than a minute after such a one, is not known to the second.
pub fn time_between(start: i64, end: i64) -> String {
    let seconds = end.saturating_sub(start).max(0);
    if is_vague(start, seconds) { "under a minute".into() } else { duration(seconds) }
}

/// The same as `short_duration` has it.
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
pub(crate) fn local_time(seconds: i64, zone: &TimeZone) -> String {
    let Ok(instant) = jiff::Timestamp::from_second(seconds) else { return "?".into() };
    instant.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
}

/// An instant for who reads it at `now`: `12:18:08 today (CET)`, of another day `2026-11-23 12:18 (CET)`.
pub(crate) fn moment(seconds: i64, now: i64, zone: &TimeZone) -> String {
    let local = |seconds| jiff::Timestamp::from_second(seconds).map(|instant| instant.to_zoned(zone.clone()));
    match (local(seconds), local(now)) {
        (Ok(then), Ok(now)) if then.date() == now.date() => then.strftime("%H:%M:%S today (%Z)").to_string(),
        (Ok(then), _) => then.strftime("%Y-%m-%d %H:%M (%Z)").to_string(),
        _ => "?".into(),
    }
}

/// `Saturday 28 November, 14:10 CET`: an instant that is days away, in the machine's zone.
pub(crate) fn weekday_time(seconds: i64, zone: &TimeZone) -> String {
    in_zone(seconds, zone, "%A %-d %B, %H:%M %Z")
}

/// The same to the second.
pub(crate) fn exact_weekday_time(seconds: i64, zone: &TimeZone) -> String {
    in_zone(seconds, zone, "%A %-d %B, %H:%M:%S %Z")
}

/// An instant for where there is little room, for who reads it at `now`: `14:10`, of another day `Sat 28 Nov, 14:10`, of
/// another year `28 Nov 2025, 14:10`. In the machine's zone.
pub(crate) fn short_moment(seconds: i64, now: i64, zone: &TimeZone) -> String {
    let local = |seconds| jiff::Timestamp::from_second(seconds).map(|instant| instant.to_zoned(zone.clone()));
    match (local(seconds), local(now)) {
        (Ok(then), Ok(now)) if then.date() == now.date() => then.strftime("%H:%M").to_string(),
        (Ok(then), Ok(now)) if then.year() == now.year() => then.strftime("%a %-d %b, %H:%M").to_string(),
        (Ok(then), _) => then.strftime("%-d %b %Y, %H:%M").to_string(),
        _ => "?".into(),
    }
}

/// Whether two instants are of one day in this zone.
pub(crate) fn is_same_day(one: i64, other: i64, zone: &TimeZone) -> bool {
    let day = |seconds| Some(jiff::Timestamp::from_second(seconds).ok()?.to_zoned(zone.clone()).date());
    day(one).is_some_and(|of_one| day(other) == Some(of_one))
}

/// `14:03:10 CET`
pub(crate) fn clock_time(seconds: i64, zone: &TimeZone) -> String {
    in_zone(seconds, zone, "%H:%M:%S %Z")
}

/// A label of a time axis: `06:00`, for a span of days `Mon 23`.
pub(crate) fn tick(seconds: i64, zone: &TimeZone, step: i64) -> String {
    in_zone(seconds, zone, if step < 86_400 { "%H:%M" } else { "%a %-d" })
}

fn in_zone(seconds: i64, zone: &TimeZone, form: &str) -> String {
    let Ok(instant) = jiff::Timestamp::from_second(seconds) else { return "?".into() };
    instant.to_zoned(zone.clone()).strftime(form).to_string()
}

/// The beginning of long foreign text, [`printable`]: at most 120 characters, and `…` for the rest.
pub(crate) fn short(text: &str) -> String {
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
    if first_that_acts(text).is_none() {
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

/// The first character that acts, as [`acts`] has it, and where it begins.
pub(crate) fn first_that_acts(text: &str) -> Option<(usize, char)> {
    // Nearly all text is plain ASCII, which is seen fastest; whatever is not is looked at one by one.
    if is_plain(text.as_bytes()) {
        return None;
    }
    let mut start = 0;
    while let Some(next) = text.as_bytes()[start..].iter().position(|byte| !is_plain(&[*byte])) {
        let at = start + next;
        let c = text[at..].chars().next()?;
        if acts(c) {
            return Some((at, c));
        }
        start = at + c.len_utf8();
    }
    None
}

/// Whether these are bytes of ASCII that show, and space. All of them are looked at, whatever the first ones are: so the
/// compiler looks at many at once.
pub(crate) fn is_plain(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |plain, byte| plain & byte.is_ascii() & (*byte >= b' ') & (*byte != 0x7f))
}

/// The same for text of several lines of our own, whose line feeds stay. What strangers wrote must be part of it by now,
/// with its own line feeds made visible where they could pass for ours.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    if text.split('\n').all(|line| first_that_acts(line).is_none()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split('\n').map(printable).collect::<Vec<_>>().join("\n"))
}

/// What begins a line of a remedy that is to be pasted as it is. All other lines are sentences.
const PASTE: &str = "    ";

/// A sentence without its end, and behind it the lines to paste, one command each.
pub(crate) fn to_paste(sentence: &str, lines: &[&str]) -> String {
    lines.iter().fold(format!("{sentence}:"), |remedy, line| remedy + "\n" + PASTE + line)
}

/// A part of a remedy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// A sentence or several.
    Say(&'a str),
    /// Lines to be pasted as a whole.
    Paste(Vec<&'a str>),
}

/// The parts of a remedy, in their order.
pub(crate) fn steps(remedy: &str) -> Vec<Step<'_>> {
    let mut steps: Vec<Step<'_>> = Vec::new();
    for line in remedy.lines() {
        match (line.strip_prefix(PASTE), steps.last_mut()) {
            (Some(line), Some(Step::Paste(lines))) => lines.push(line),
            (Some(line), _) => steps.push(Step::Paste(vec![line])),
            (None, _) => steps.push(Step::Say(line)),
        }
    }
    steps
}

/// A remedy where there is room for one line alone.
pub(crate) fn one_line(remedy: &str) -> String {
    let parts = steps(remedy).into_iter().map(|step| match step {
        Step::Say(words) => Cow::Borrowed(words),
        Step::Paste(lines) => Cow::Owned(lines.join("; ")),
    });
    parts.collect::<Vec<_>>().join(" ")
}

/// A value that no command to be pasted may hold. Its `Display` says so in the command's place, without a full stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "The command to paste is left out: it would hold “{0}”, which has characters in it that are special or that can't be seen"
)]
pub struct Odd(String);

impl Odd {
    fn of(value: &str) -> Odd {
        Odd(printable(value).into_owned())
    }
}

/// A word for a command to be pasted into sh(1): as it is where it is plain, else in single quotes, between which
/// nothing is special (POSIX, Shell Command Language, section 2.2.2).
///
/// # Errors
/// It holds a character that acts or can't be seen, or stands for bytes that are no text: nobody could look over what
/// they paste, and a line break runs it.
pub fn shell_quoted(word: &str) -> Result<Cow<'_, str>, Odd> {
    let means_itself = |c: char| c.is_ascii_alphanumeric() || "_./:,@+-".contains(c);
    if word.contains('\u{fffd}') || matches!(printable(word), Cow::Owned(_)) {
        return Err(Odd::of(word));
    }
    if !word.is_empty() && word.chars().all(means_itself) {
        return Ok(Cow::Borrowed(word));
    }
    Ok(Cow::Owned(format!("'{}'", word.replace('\'', r"'\''"))))
}

/// A word for a line of another program's configuration (sudoers(5), postconf(1)), which has special characters of its
/// own, inside of what the shell sees.
///
/// # Errors
/// It is not made of ASCII letters, digits and `_./@+-` alone, or begins with a sign.
pub fn plain_word(word: &str) -> Result<&str, Odd> {
    let means_itself = |c: char| c.is_ascii_alphanumeric() || "_./@+-".contains(c);
    let begins_well = word.starts_with(|c: char| c.is_ascii_alphanumeric() || "_/".contains(c));
    if begins_well && word.chars().all(means_itself) { Ok(word) } else { Err(Odd::of(word)) }
}

/// Whether a character acts instead of showing: controls (general category Cc), Unicode's noncharacters, the format
/// characters (Cf) that hide or reorder text, whatever else has no width or no ink (default-ignorable code points,
/// DerivedCoreProperties.txt; fillers; the empty Braille pattern), and every space but the one (Zs).
pub(crate) fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{a0}' | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{1680}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{205f}'..='\u{206f}'
            | '\u{2800}' | '\u{3000}' | '\u{3164}' | '\u{fdd0}'..='\u{fdef}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
        // The last two of each plane are no characters, which HTML forbids.
        || u32::from(c) & 0xfffe == 0xfffe
}

/// Whether a name is this domain or below it, in upper or lower case.
pub(crate) fn is_within(name: &str, domain: &str) -> bool {
    let rest = name.len().checked_sub(domain.len()).and_then(|at| name.split_at_checked(at));
    rest.is_some_and(|(before, end)| end.eq_ignore_ascii_case(domain) && (before.is_empty() || before.ends_with('.')))
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
        for c in "\u{a0}\u{34f}\u{115f}\u{1160}\u{1680}\u{17b4}\u{17b5}\u{2000}\u{200a}\u{202f}\u{205f}\u{2800}\u{3000}\u{3164}\
                  \u{fe00}\u{fe0f}\u{ffa0}\u{1d173}\u{1d17a}\u{e0100}\u{e01ef}"
            .chars()
        {
            assert_eq!(printable(&format!("a{c}b")), format!("a⟨U+{:04X}⟩b", u32::from(c)), "invisible, or no plain space");
        }
        let visible = "Ü ß ñ “…” – · € 漢字 かな 한글 א ع ก️".replace('\u{fe0f}', "");
        assert_eq!(printable(&visible), visible);
        assert_eq!(printable_lines("a\nb\n"), "a\nb\n");
        assert_eq!(printable_lines("a\r\n\u{202e}é\n"), "a␍\n⟨U+202E⟩é\n");
    }

    #[test]
    fn a_word_in_a_command_is_one_word_to_the_shell_or_refused() {
        for plain in ["/var/lib/bartleby", "www-data", "a.b:25", "-qR@example.com", "a,b"] {
            assert_eq!(shell_quoted(plain).unwrap(), plain);
        }
        for (word, quoted) in [
            ("", "''"),
            ("/mnt/it's here; id", r"'/mnt/it'\''s here; id'"),
            ("$(id)", "'$(id)'"),
            ("~root", "'~root'"),
            ("é", "'é'"),
        ] {
            assert_eq!(shell_quoted(word).unwrap(), quoted);
        }
        for odd in ["a\nid", "a\x1b[2J", "a\u{202e}b", "a\rb", "\u{200b}", "a\tb", "not UTF-8: \u{fffd}"] {
            let said = shell_quoted(odd).unwrap_err().to_string();
            assert!(said.contains(&*printable(odd)) && printable(&said) == said, "{said}");
        }
        assert_eq!(plain_word("www-data"), Ok("www-data"));
        for odd in ["", "a b", "a,ALL", "a=b", "a:b", "it's", "+netgroup", "%group", "-x", "a\\", "é", "$(id)"] {
            assert!(plain_word(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_remedy_is_sentences_and_lines_to_paste() {
        let remedy = to_paste("As root", &["postconf -e x=y", "postfix reload"]) + "\nThen look again.";
        assert_eq!(
            steps(&remedy),
            [
                Step::Say("As root:"),
                Step::Paste(vec!["postconf -e x=y", "postfix reload"]),
                Step::Say("Then look again.")
            ]
        );
        assert_eq!(one_line(&remedy), "As root: postconf -e x=y; postfix reload Then look again.");
        assert_eq!((steps(""), one_line("Reload.")), (vec![], "Reload.".into()));
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
        assert_eq!(weekday_time(1_795_432_688, &zone), "Monday 23 November, 12:18 CET");
        assert_eq!(exact_weekday_time(1_795_432_688, &TimeZone::UTC), "Monday 23 November, 11:18:08 UTC");
        assert_eq!(clock_time(1_795_432_688, &zone), "12:18:08 CET");
        assert_eq!([3600, 86_400].map(|step| tick(1_795_432_688, &zone, step)), ["12:18", "Mon 23"]);
    }

    #[test]
    fn an_instant_of_today_needs_no_date() {
        let zone = TimeZone::posix("CET-1").unwrap();
        let at = |seconds| moment(seconds, 1_795_432_688, &zone);
        assert_eq!(at(1_795_432_688), "12:18:08 today (CET)");
        assert_eq!(at(1_795_432_688 - 86_400), "2026-11-22 12:18 (CET)");
        assert_eq!(at(i64::MAX), "?");
        let at = |seconds| short_moment(seconds, 1_795_432_688, &zone);
        let days = [0, 1, 365].map(|days| at(1_795_432_688 - days * 86_400));
        assert!(is_same_day(1_795_432_688, 1_795_432_688 - 43_000, &zone));
        assert!(!is_same_day(1_795_432_688, 1_795_432_688 - 45_000, &zone) && !is_same_day(i64::MAX, i64::MAX, &zone));
        assert_eq!(days, ["12:18", "Sun 22 Nov, 12:18", "23 Nov 2025, 12:18"]);
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

    #[test]
    fn below_a_domain_is_not_behind_its_letters() {
        assert!(is_within("example.com", "Example.com") && is_within("a.b.example.com", "example.com"));
        assert!(!is_within("evilexample.com", "example.com") && !is_within("com", "example.com"));
    }

    #[test]
    fn a_bound_is_never_said_to_be_shorter_than_it_is() {
        let words = [1, 119, 120, 121, 4300, 7200, 7201, 172_800, 172_801].map(at_most);
        let expected = [
            "1 second",
            "119 seconds",
            "2 minutes",
            "3 minutes",
            "72 minutes",
            "2 hours",
            "3 hours",
            "2 days",
            "3 days",
        ];
        assert_eq!(words, expected);
    }
}
