//! What stands in front of a line: syslog's stamp, host and tag, or the journal's fields.

use std::borrow::Cow;

use serde::Deserialize;

use super::scan::Scan;

/// A line of a log.
pub(super) struct Line<'a> {
    /// The program's name in syslog (RFC 3164, section 4.1.3), without the process id; `None` for a line without
    /// syslog's prefix.
    pub(super) tag: Option<Cow<'a, [u8]>>,
    /// The message.
    pub(super) text: Cow<'a, [u8]>,
    /// The user that wrote it, as the journal has it from the kernel.
    pub(super) user: Option<u32>,
}

/// What `journalctl -o json` writes: systemd.journal-fields(7), and "journal-export-formats" of systemd.io for values
/// that are no text, which come as an array of numbers.
#[derive(Deserialize)]
struct Exported {
    #[serde(rename = "MESSAGE")]
    message: Text,
    #[serde(rename = "SYSLOG_IDENTIFIER")]
    tag: String,
    #[serde(rename = "_UID")]
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    Text(String),
    Bytes(Vec<u8>),
}

impl<'a> Line<'a> {
    /// Takes off what stands in front. A line of the journal that lacks a field is not one.
    pub(super) fn read(line: &'a [u8]) -> Option<Line<'a>> {
        if line.first() == Some(&b'{') {
            let Exported { message, tag, user } = serde_json::from_slice(line).ok()?;
            let text = match message {
                Text::Text(text) => text.into_bytes(),
                Text::Bytes(bytes) => bytes,
            };
            let user = user.and_then(|user| user.parse().ok());
            return Some(Line { tag: Some(tag.into_bytes().into()), text: text.into(), user });
        }
        let (tag, text) = prefixed(line).map_or((None, line), |(tag, text)| (Some(tag.into()), text));
        Some(Line { tag, text: text.into(), user: None })
    }
}

/// The tag and the message of a line with syslog's prefix, in rsyslog's, busybox's and journalctl's forms.
fn prefixed(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut scan = Scan(line);
    // "Nov 24 08:14:21", or RFC 3339.
    if scan.some(|byte| byte.is_ascii_alphabetic()).is_some() {
        scan.some(|byte| byte == b' ')?;
        scan.field(b"", |byte| byte.is_ascii_digit(), b" ")?;
        scan.field(b"", |byte| byte.is_ascii_digit() || byte == b':', b" ")?;
    } else {
        scan.field(b"", |byte| byte.is_ascii_digit() || byte == b'-', b"T")?;
        scan.field(b"", |byte| matches!(byte, b'0'..=b'9' | b':' | b'.' | b'+' | b'-' | b'Z'), b" ")?;
    }
    let is_word = |byte: u8| byte.is_ascii_graphic();
    // The host.
    scan.field(b"", is_word, b" ")?;
    // busybox puts facility and level here.
    scan.may_have_field(b"mail.", |byte| byte.is_ascii_lowercase(), b" ");
    let tag = scan.some(|byte| is_word(byte) && !matches!(byte, b'[' | b':'))?;
    if scan.may_have(b"[") {
        scan.field(b"", |byte| byte.is_ascii_digit(), b"]")?;
    }
    scan.word(b": ")?;
    Some((tag, scan.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_has_many_forms() {
        for line in [
            "Nov  4 08:14:21 bartleby postfix/smtp[8592]: 1: to=<",
            "2026-11-24T08:14:21.400371+00:00 bartleby postfix/smtp[8592]: 1: to=<",
            "2026-11-24T08:14:21+0000 bartleby.example.com postfix/smtp[8592]: 1: to=<",
            "Nov 24 08:14:21 bartleby mail.info postfix/smtp[8592]: 1: to=<",
            "Nov 24 08:14:21 bartleby postfix/smtp: 1: to=<",
            r#"{"MESSAGE":"1: to=<","SYSLOG_IDENTIFIER":"postfix/smtp","_UID":"102"}"#,
            r#"{"MESSAGE":[49,58,32,116,111,61,60],"SYSLOG_IDENTIFIER":"postfix/smtp"}"#,
        ] {
            let read = Line::read(line.as_bytes()).unwrap();
            assert_eq!(read.tag.as_deref(), Some(&b"postfix/smtp"[..]), "{line}");
            assert_eq!(read.text, &b"1: to=<"[..], "{line}");
            assert_eq!(read.user, line.contains("102").then_some(102), "{line}");
        }
    }

    #[test]
    fn exims_own_log_has_no_prefix() {
        let line = b"2026-11-24 08:16:46 1xVlhe-00040w-06 Completed";
        let read = Line::read(line).unwrap();
        assert!(read.tag.is_none());
        assert_eq!(read.text, &line[..]);
    }
}
