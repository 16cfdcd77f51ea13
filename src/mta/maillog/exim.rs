//! Exim's main log.
//!
//! Sources: `delivery_log()` and `string_log_address()` in `deliver.c`, `log.c` and `retry.c` of Exim 4.96 and 4.98, the
//! chapter "Log files" of its specification, and `tests/fixtures-log/exim`. An address comes without its quotes, so it
//! can hold anything; no pattern cuts it out. But the id and the mark before it are Exim's own, and so it is compared
//! with the recipients of that message.

use super::scan::Scan;
use super::{Before, Entry, Fate, Whose};

/// What a line says.
pub(in crate::mta) fn read(tag: Option<&[u8]>, text: &[u8], before: &Before) -> Option<Entry> {
    if tag.is_some_and(|tag| tag != b"exim") {
        return None;
    }
    let mut scan = Scan(text);
    // "2026-11-24 08:16:46", with `log_selector` also ".123", " +0100", " [1234]".
    scan.field(b"", |byte| byte.is_ascii_digit() || byte == b'-', b" ")?;
    scan.field(b"", |byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.'), b" ")?;
    if scan.0.first().is_some_and(|byte| matches!(byte, b'+' | b'-')) {
        scan.field(b"", |byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-'), b" ")?;
    }
    scan.may_have_field(b"[", |byte| byte.is_ascii_digit(), b"] ");
    let message = before.message(scan.id()?)?;
    scan.word(b" ")?;
    let is_refusal = match scan.some(|byte| matches!(byte, b'=' | b'-' | b'>' | b'*'))? {
        b"=>" | b"->" | b">>" => false,
        b"**" => true,
        _ => return None,
    };
    scan.word(b" ")?;
    // syslog makes control characters visible, Exim's own log does not.
    let spelt: fn(&str) -> String = if tag.is_some() { escaped } else { str::to_owned };
    let (place, behind) = recipient(scan.0, message, before, spelt)?;
    let fate = if is_refusal { Fate::returned(words(behind)) } else { Fate::Delivered };
    Some(Entry { message, whose: Whose::These(vec![place]), fate })
}

/// The recipient of the message that the text begins with, and what stands behind it. Where the address that was given
/// differs from the one that was used, or has quotes, it follows in angle brackets; of two that fit, the longer is meant.
fn recipient<'a>(
    text: &'a [u8],
    message: usize,
    before: &Before,
    spelt: impl Fn(&str) -> String,
) -> Option<(usize, &'a [u8])> {
    let found = before.recipients(message).filter_map(|(place, address)| {
        let given = format!(" <{}> R=", spelt(address));
        let bracketed = text
            .windows(given.len())
            .position(|at| at.eq_ignore_ascii_case(given.as_bytes()))
            .map(|at| at + given.len() - " R=".len());
        let unquoted = spelt(&unquoted(address));
        let begins = text.get(..unquoted.len()).is_some_and(|start| start.eq_ignore_ascii_case(unquoted.as_bytes()))
            && matches!(text.get(unquoted.len()), None | Some(b' ' | b':'));
        let end = bracketed.or(begins.then_some(unquoted.len()))?;
        Some((bracketed.is_some(), end, place))
    });
    let (_, end, place) = found.max()?;
    Some((place, text.get(end..).unwrap_or_default()))
}

/// An address without the quotes of its local part.
fn unquoted(address: &str) -> String {
    let Some((local, domain)) = address.rsplit_once('@').filter(|(local, _)| local.starts_with('"')) else {
        return address.to_owned();
    };
    let inside = local.strip_prefix('"').and_then(|local| local.strip_suffix('"')).unwrap_or(local);
    let mut plain = String::with_capacity(address.len());
    let mut characters = inside.chars();
    while let Some(character) = characters.next() {
        plain.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    format!("{plain}@{domain}")
}

/// An address as rsyslog writes it: a control character is `#` and its number in octal.
fn escaped(address: &str) -> String {
    let mut escaped = String::with_capacity(address.len());
    for character in address.chars() {
        if character.is_ascii_control() {
            escaped.push_str(&format!("#{:03o}", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// What was said, which follows the router, transport and host: ` R=primary T=to_primary H=...: SMTP error ...`.
fn words(behind: &[u8]) -> &[u8] {
    let start = behind.windows(2).position(|at| at == b": ");
    start.and_then(|start| behind.get(start + 2..)).unwrap_or(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_taken_off_a_local_part() {
        assert_eq!(unquoted(r#""john \"jb\" doe"@example.com"#), r#"john "jb" doe@example.com"#);
        assert_eq!(unquoted(r#""a\\b@c"@example.com"#), r"a\b@c@example.com");
        assert_eq!(unquoted("larry@example.com"), "larry@example.com");
    }
}
