//! sendmail's log.
//!
//! Sources: `logdelivery()` in `deliver.c`, `sm_syslog()` in `conf.c`, `savemail.c`, `envelope.c` and `str2prt()` of
//! sendmail 8.17 and 8.18, and `tests/fixtures-log/sendmail`. One line holds all recipients with the same outcome, and
//! goes on in further lines where they are too many; an old message is given up without a line for each recipient.

use std::borrow::Cow;

use super::scan::Scan;
use super::{Before, Entry, Fate, Whose};

/// What a line says.
pub(in crate::mta) fn read(tag: Option<&[u8]>, text: &[u8], before: &Before) -> Option<Entry> {
    // "sendmail", or as the command is called with -L: "sm-mta" and its kin.
    let tag = tag?;
    if tag != b"sendmail" && !tag.starts_with(b"sm-") {
        return None;
    }
    let text = unescaped(text);
    let mut scan = Scan(&text);
    // A message too long for syslog is split as "ID[1]: ", and the second part may begin with a stranger's words.
    let message = before.message(scan.id()?)?;
    scan.word(b": ")?;
    if scan.may_have(b"to=") { attempt(scan, message, before) } else { given_up(scan, message) }
}

/// `NEWID: DSN: Cannot send message for 5 days`. The same line with another reason is the notice for recipients that
/// were refused, each of which has a line of its own.
fn given_up(mut scan: Scan<'_>, message: usize) -> Option<Entry> {
    scan.id()?;
    scan.word(b": ")?;
    if !scan.may_have(b"DSN: ") && !scan.may_have(b"return to sender: ") {
        scan.word(b"postmaster notify: ")?;
    }
    let why = scan.0;
    scan.word(b"Cannot send message ")?;
    Some(Entry { message, whose: Whose::Remaining, fate: Fate::returned(why) })
}

/// `to=<A>,<B>, delay=..., mailer=esmtp, pri=..., relay=..., dsn=5.1.1, reply=..., stat=...`. What the primary said
/// stands behind the status code.
fn attempt(mut scan: Scan<'_>, message: usize, before: &Before) -> Option<Entry> {
    let is_value = |byte: u8| byte != b',';
    let is_time = |byte: u8| byte.is_ascii_digit() || matches!(byte, b':' | b'+');
    let mut whose = Vec::new();
    loop {
        let bracketed = scan.may_have(b"<");
        let logged = scan.address()?;
        if bracketed {
            scan.word(b">")?;
        }
        whose.extend(before.recipient(message, logged, |address| unescaped(address.as_bytes())));
        let mut ahead = scan;
        // A list that is too long goes on in the next line.
        if ahead.may_have(b", [more]") || ahead.may_have(b" [more]") || ahead.may_have(b", ") {
            break;
        }
        scan.word(b",")?;
    }
    if !scan.may_have(b", [more]") {
        scan.may_have(b" [more]");
    }
    scan.word(b", ")?;
    scan.may_have_field(b"ctladdr=", is_value, b", ");
    scan.field(b"delay=", is_time, b", ")?;
    scan.may_have_field(b"xdelay=", is_time, b", ");
    scan.field(b"mailer=", is_value, b", ")?;
    scan.field(b"pri=", |byte| byte.is_ascii_digit(), b", ")?;
    scan.may_have_field(b"relay=", is_value, b", ");
    scan.word(b"dsn=")?;
    let fate = match scan.status()? {
        2 => Fate::Delivered,
        5 => Fate::returned(said(scan.0)),
        _ => return None,
    };
    scan.word(b", ")?;
    Some(Entry { message, whose: Whose::These(whose), fate })
}

/// The primary's reply, or where there is none, sendmail's own word.
fn said(rest: &[u8]) -> &[u8] {
    let status = rest.windows(7).rposition(|word| word == b", stat=");
    match rest.strip_prefix(b", reply=") {
        Some(reply) => &reply[..status.map_or(reply.len(), |end| end.saturating_sub(b", reply=".len()))],
        None => rest.strip_prefix(b", stat=").unwrap_or_default(),
    }
}

/// Takes back what `str2prt()` does to characters that can't be printed: `\t`, `\n`, `\r`, `\\` and octal numbers.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.contains(&b'\\') {
        return text.into();
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        let (meant, length) = match (byte, after) {
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b'\\', ..]) => (b'\\', 2),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), 4)
            }
            (byte, _) => (*byte, 1),
        };
        plain.push(meant);
        rest = &rest[length..];
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_cannot_be_printed_are_taken_back() {
        assert_eq!(&*unescaped(br#""t\011ab"@x"#), b"\"t\tab\"@x");
        assert_eq!(&*unescaped(br"t\tab\\n\"), b"t\tab\\n\\");
        assert_eq!(&*unescaped(br"\377\400"), b"\xff\\400");
        assert_eq!(&*unescaped(b"plain"), b"plain");
    }

    #[test]
    fn the_reply_is_the_primarys() {
        assert_eq!(said(b", reply=550 5.1.1 no, stat=Sent, stat=User unknown"), b"550 5.1.1 no, stat=Sent");
        assert_eq!(said(b", reply=550"), b"550");
        assert_eq!(said(b", stat=User unknown"), b"User unknown");
        assert_eq!(said(b""), b"");
    }
}
