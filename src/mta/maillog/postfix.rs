//! Postfix's log.
//!
//! Sources: `log_adhoc.c`, `msg_output.c`, `msg_syslog.c`, `qmgr_active.c` of Postfix 3.7 and 3.10, and
//! `tests/fixtures-log/postfix`. Control characters are `?` there, and a tab or carriage return is a space. The queue
//! manager gives up an old message without a line for each recipient.

use std::borrow::Cow;

use super::scan::Scan;
use super::{Before, Entry, Fate, Whose};

/// Postfix cuts a line here (`msg_syslog.c`). A stranger can choose an address so long that the cut line looks whole and
/// ends in an outcome that he wrote; so a line that may have been cut says nothing.
const CUT: usize = 2000;

/// What a line says.
pub(in crate::mta) fn read(tag: Option<&[u8]>, text: &[u8], before: &Before) -> Option<Entry> {
    let mut tag = Scan(tag?);
    // "postfix/smtp", "postfix-INSTANCE/smtp", "postfix/relay/smtp".
    tag.word(b"postfix")?;
    let daemon = tag.0.rsplit(|byte| *byte == b'/').next()?;
    if text.len() >= CUT {
        return None;
    }
    let mut scan = Scan(text);
    let message = before.message(scan.id()?)?;
    scan.word(b": ")?;
    match daemon {
        b"qmgr" => given_up(scan, message),
        b"smtp" | b"lmtp" | b"error" | b"local" | b"virtual" | b"pipe" | b"discard" => attempt(scan, message, before),
        _ => None,
    }
}

/// `from=<SENDER>, status=expired, returned to sender`. The sender is a stranger's word, so the end of the line counts.
fn given_up(mut scan: Scan<'_>, message: usize) -> Option<Entry> {
    scan.word(b"from=<")?;
    let forced = scan.0.ends_with(b">, status=force-expired, returned to sender");
    let expired = scan.0.ends_with(b">, status=expired, returned to sender");
    let why: &[u8] = match (forced, expired) {
        (true, _) => b"an administrator let it expire",
        (_, true) => b"it waited too long",
        _ => return None,
    };
    Some(Entry { message, whose: Whose::Remaining, fate: Fate::returned(why) })
}

/// `to=<ADDRESS>, relay=..., delay=..., delays=..., dsn=5.1.1, status=bounced (...)`.
fn attempt(mut scan: Scan<'_>, message: usize, before: &Before) -> Option<Entry> {
    let is_value = |byte: u8| byte != b',';
    let is_number = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'/');
    scan.word(b"to=<")?;
    let logged = scan.address()?;
    scan.word(b">, ")?;
    if scan.may_have(b"orig_to=<") {
        scan.address()?;
        scan.word(b">, ")?;
    }
    scan.field(b"relay=", |byte| is_value(byte) && byte != b' ', b", ")?;
    scan.may_have_field(b"conn_use=", is_number, b", ");
    scan.field(b"delay=", is_number, b", ")?;
    scan.field(b"delays=", is_number, b", ")?;
    scan.may_have_field(b"tls=", is_value, b", ");
    scan.word(b"dsn=")?;
    scan.status()?;
    let fate = match scan.field(b", status=", |byte| byte.is_ascii_alphabetic(), b" (")? {
        b"sent" => Fate::Delivered,
        b"bounced" => Fate::returned(scan.0.strip_suffix(b")").unwrap_or(scan.0)),
        _ => return None,
    };
    let place = before.recipient(message, logged, spelt)?;
    Some(Entry { message, whose: Whose::These(vec![place]), fate })
}

/// An address as the log has it.
fn spelt(address: &str) -> Cow<'_, [u8]> {
    if !address.bytes().any(|byte| byte.is_ascii_control()) {
        return address.as_bytes().into();
    }
    let shown = |byte: u8| match byte {
        b'\t' | b'\r' => b' ',
        byte if byte.is_ascii_control() => b'?',
        byte => byte,
    };
    address.bytes().map(shown).collect::<Vec<_>>().into()
}
