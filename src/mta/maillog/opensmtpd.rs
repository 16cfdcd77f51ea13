//! OpenSMTPD's log.
//!
//! Sources: `mta_log()` in `mta.c`, `mda.c` and `queue_log()` in `queue.c` of OpenSMTPD 6.8 and 7.6, and
//! `tests/fixtures-log/opensmtpd`. A line is about one envelope; no address holds a space, a quote or an angle bracket,
//! and the outcome stands before what the primary said.

use super::scan::Scan;
use super::{Before, Entry, Fate, Whose};

/// The digits of an envelope's id, and of the message's, which it begins with.
const ENVELOPE: usize = 16;
const MESSAGE: usize = 8;

/// What a line says.
pub(in crate::mta) fn read(tag: Option<&[u8]>, text: &[u8], before: &Before) -> Option<Entry> {
    if tag? != b"smtpd" {
        return None;
    }
    let scan = Scan(text);
    attempt(scan, before).or_else(|| given_up(scan, before))
}

/// `SESSION mta delivery evpid=... from=<...> to=<...> rcpt=<...> ... result="PermFail" stat="550 ..."`, and the same for
/// a local mailbox (`mda`), with other quotes.
fn attempt(mut scan: Scan<'_>, before: &Before) -> Option<Entry> {
    envelope(&mut scan)?;
    let is_local = !scan.may_have(b" mta delivery evpid=");
    if is_local {
        scan.word(b" mda delivery evpid=")?;
    }
    let id = envelope(&mut scan)?;
    address(&mut scan, b" from=<", b">")?;
    let to = address(&mut scan, b" to=<", b">")?;
    let given = if scan.0.starts_with(b" rcpt=") { address(&mut scan, b" rcpt=<", b">")? } else { to };
    let is_unquoted = |byte: u8| byte != b'"';
    let is_word = |byte: u8| byte != b' ';
    if is_local {
        scan.field(b" user=", is_word, b"")?;
    } else {
        quoted(&mut scan, b" source=\"", is_unquoted)?;
        quoted(&mut scan, b" relay=\"", is_unquoted)?;
    }
    scan.field(b" delay=", is_word, b" result=")?;
    let mark: &[u8] = if is_local { b"" } else { b"\"" };
    let result = scan.field(mark, |byte| byte.is_ascii_alphabetic(), mark)?;
    scan.word(b" stat=")?;
    let fate = match result {
        b"Ok" => Fate::Delivered,
        b"PermFail" => Fate::returned(said(scan.0)),
        _ => return None,
    };
    entry(id, to, given, fate, before)
}

/// `relay: Expire for EVPID: from=<...>, to=<...>, rcpt=<...>, delay=..., stat=Envelope expired`. `Remove` in its place is
/// an administrator's doing, and no outcome.
fn given_up(mut scan: Scan<'_>, before: &Before) -> Option<Entry> {
    if !scan.may_have(b"relay: Expire for ") {
        scan.word(b"delivery: Expire for ")?;
    }
    let id = envelope(&mut scan)?;
    address(&mut scan, b": from=<", b">")?;
    let to = address(&mut scan, b", to=<", b">")?;
    let given = address(&mut scan, b", rcpt=<", b">")?;
    scan.field(b", delay=", |byte| byte != b',', b", stat=")?;
    entry(id, to, given, Fate::returned(scan.0), before)
}

/// The listing has the recipient as it was given or as it was resolved.
fn entry(id: &[u8], to: &[u8], given: &[u8], fate: Fate, before: &Before) -> Option<Entry> {
    let message = before.message(id.get(..MESSAGE)?)?;
    let place = |address: &[u8]| before.recipient(message, address, |listed| listed.as_bytes().into());
    Some(Entry { message, whose: Whose::These(vec![place(given).or_else(|| place(to))?]), fate })
}

fn envelope<'a>(scan: &mut Scan<'a>) -> Option<&'a [u8]> {
    scan.some(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).filter(|id| id.len() == ENVELOPE)
}

/// An address, which may be empty.
fn address<'a>(scan: &mut Scan<'a>, name: &[u8], end: &[u8]) -> Option<&'a [u8]> {
    quoted(scan, name, |byte| !matches!(byte, b'<' | b'>' | b' ' | b'"')).filter(|_| scan.word(end).is_some())
}

fn quoted<'a>(scan: &mut Scan<'a>, name: &[u8], is: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
    scan.word(name)?;
    let value = scan.all(is);
    Some(value).filter(|_| name.last() != Some(&b'"') || scan.word(b"\"").is_some())
}

/// The primary's words, with the quotes around them taken off.
fn said(rest: &[u8]) -> &[u8] {
    rest.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(rest)
}
