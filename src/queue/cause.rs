//! The common cause behind a delivery reason, for the sentence at the head of the page.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// The common causes for mail to wait. A reason that fits none of them is shown as it is. One that fits several has the
/// first of them: the destination's own answers say more than what became of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Hash)]
pub(crate) enum Cause {
    /// The destination asks unknown senders to come back later.
    Greylisted,
    /// The recipient's mailbox is full.
    MailboxFull,
    /// Nothing listens at the destination.
    Refused,
    /// The destination does not answer.
    TimedOut,
    /// No route leads to the destination's network.
    Unreachable,
    /// The destination's name can't be resolved.
    NoName,
    /// The destination closes the connection in the middle of the conversation.
    BrokenOff,
    /// The encrypted connection fails.
    Tls,
    /// The destination answers that it is too busy.
    Busy,
}

impl Cause {
    /// Every cause, in the order in which they are looked for.
    pub(crate) const ALL: [Cause; 9] = [
        Cause::Greylisted,
        Cause::MailboxFull,
        Cause::Refused,
        Cause::TimedOut,
        Cause::Unreachable,
        Cause::NoName,
        Cause::BrokenOff,
        Cause::Tls,
        Cause::Busy,
    ];

    /// The cause that a reason names, recognised by the phrases that mail servers and system libraries use; `None`
    /// where it uses none of them. Addresses and host names in the reason are left out, because strangers choose them.
    pub(crate) fn of(reason: &str) -> Option<Cause> {
        let words = plain_words(reason);
        let mut named = [false; Cause::ALL.len()];
        let mut is_reply = false;
        let mut rest = words.as_str();
        while let Some(end) = rest.bytes().position(|byte| byte == b' ') {
            is_reply |= matches!(rest.as_bytes()[..end], [b'4' | b'5', b'0'..=b'9', b'0'..=b'9']);
            for (phrase, cause) in rest.as_bytes().first_chunk().map(phrases).unwrap_or_default() {
                named[*cause as usize] |= rest.starts_with(phrase);
            }
            rest = &rest[end + 1..];
        }
        // The words after a reply code are the destination's own: there, "host not found" is about the sender.
        let is_possible =
            |cause: Cause| !is_reply || matches!(cause, Cause::Greylisted | Cause::MailboxFull | Cause::Busy);
        Cause::ALL.into_iter().find(|cause| named[*cause as usize] && is_possible(*cause))
    }

    /// Whether the destination could not be reached at all, so that another attempt helps as soon as it can be.
    pub(crate) fn is_unreached(self) -> bool {
        match self {
            Cause::Refused | Cause::TimedOut | Cause::Unreachable | Cause::NoName | Cause::BrokenOff => true,
            Cause::Greylisted | Cause::MailboxFull | Cause::Tls | Cause::Busy => false,
        }
    }

    /// The cause behind a number of messages that still wait: "5 because ...".
    pub(crate) fn because(self) -> &'static str {
        match self {
            Cause::Refused => "because the connection was refused",
            Cause::TimedOut => "because the server did not answer in time",
            Cause::Unreachable => "because the network could not be reached",
            Cause::NoName => "because their domain's name could not be found",
            Cause::BrokenOff => "because the connection was broken off",
            Cause::Greylisted => "because the server asked to come back later (greylisting)",
            Cause::MailboxFull => "because a mailbox was full",
            Cause::Tls => "because no encrypted connection could be made",
            Cause::Busy => "because the server was too busy",
        }
    }

    /// The cause as the second half of a sentence about the destination. A reason is that of the last attempt, which no
    /// listing dates: how the destination is now, it does not say.
    pub(crate) fn phrase(self) -> &'static str {
        match self {
            Cause::Refused => "at the last attempt, the server there refused the connection",
            Cause::TimedOut => "at the last attempt, the server there did not answer in time",
            Cause::Unreachable => "at the last attempt, its network could not be reached",
            Cause::NoName => "at the last attempt, its name could not be found",
            Cause::BrokenOff => "at the last attempt, the server there broke off the connection",
            Cause::Greylisted => "at the last attempt, the server there asked to come back later (greylisting)",
            Cause::MailboxFull => "at the last attempt, the mailbox there was full",
            Cause::Tls => "at the last attempt, no encrypted connection could be made",
            Cause::Busy => "at the last attempt, the server there was too busy",
        }
    }
}

/// The phrases that begin with these two letters. Each begins where a word does, and may end within one ("greylisting").
fn phrases(letters: &[u8; 2]) -> &'static [(&'static str, Cause)] {
    match letters {
        b"4." => &[("4.2.2 ", Cause::MailboxFull)],
        b"42" => &[("421 ", Cause::Busy)],
        b"br" => &[("broken pipe", Cause::BrokenOff)],
        b"ce" => &[("certificate ", Cause::Tls)],
        b"co" => &[("connection refused", Cause::Refused), ("connection reset", Cause::BrokenOff)],
        b"gr" => &[("graylist", Cause::Greylisted), ("greylist", Cause::Greylisted)],
        b"ho" => &[
            ("host is down", Cause::Unreachable),
            ("host is unreachable", Cause::Unreachable),
            ("host name lookup", Cause::NoName),
            ("host not found", Cause::NoName),
        ],
        b"lo" => &[("lost connection", Cause::BrokenOff)],
        b"ma" => &[("mailbox full", Cause::MailboxFull), ("mailbox is full", Cause::MailboxFull)],
        b"na" => &[
            ("name or service not known", Cause::NoName),
            ("name server", Cause::NoName),
            ("name service error", Cause::NoName),
        ],
        b"ne" => &[("network is unreachable", Cause::Unreachable)],
        b"no" => &[("no route to host", Cause::Unreachable)],
        b"ov" => &[("over quota", Cause::MailboxFull), ("overquota", Cause::MailboxFull)],
        b"pr" => &[("premature close", Cause::BrokenOff)],
        b"qu" => &[("quota exceeded", Cause::MailboxFull)],
        b"st" => &[("starttls ", Cause::Tls)],
        b"ti" => &[("timed out", Cause::TimedOut), ("timeout", Cause::TimedOut)],
        b"tl" => &[("tls ", Cause::Tls)],
        b"to" => &[("too busy", Cause::Busy), ("too many connections", Cause::Busy)],
        _ => &[],
    }
}

/// The words of a reason in lower case, with a space behind each. Punctuation is left out, and so are addresses, host
/// names and settings (`name=x.example`).
fn plain_words(reason: &str) -> String {
    let reason = without_addresses(reason);
    // A word of one character that ends the reason gets a space more.
    let mut words = String::with_capacity(reason.len() + 1);
    for word in reason.split_ascii_whitespace() {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        let kinds = word.bytes().fold(0, |kinds, byte| kinds | KINDS[usize::from(byte)]);
        let is_name = kinds & LETTER != 0 && kinds & (DOT | NAME_MARK) != 0;
        if word.is_empty() || is_name {
            continue;
        }
        // "421-4.3.2 busy": a reply code and an enhanced status code (RFC 5321, section 4.2.1).
        let is_code = kinds & !(DIGIT | DOT | DASH) == 0 && kinds & DASH != 0;
        if is_code {
            words.push_str(&word.replace('-', " "))
        } else {
            words.push_str(word)
        }
        words.push(' ');
    }
    words.make_ascii_lowercase();
    words
}

// Kinds of bytes in a word.
const LETTER: u8 = 1;
const DIGIT: u8 = 1 << 1;
const DOT: u8 = 1 << 2;
const DASH: u8 = 1 << 3;
/// What stands in addresses and settings.
const NAME_MARK: u8 = 1 << 4;
const OTHER: u8 = 1 << 5;

/// The kind of each byte. Those of characters beyond ASCII pass for letters.
const KINDS: [u8; 256] = {
    let mut kinds = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | 0x80.. => LETTER,
            b'0'..=b'9' => DIGIT,
            b'.' => DOT,
            b'-' => DASH,
            b'@' | b'=' | b'[' | b':' | b'_' => NAME_MARK,
            _ => OTHER,
        };
        byte += 1;
    }
    kinds
};

/// A reason without the addresses in angle brackets (RFC 5321 calls them paths), whose local parts may be quoted. A
/// single word in brackets (`<greylisted>`) is no address and stays.
fn without_addresses(reason: &str) -> Cow<'_, str> {
    if !reason.contains('<') {
        return Cow::Borrowed(reason);
    }
    let mut kept = String::with_capacity(reason.len());
    let mut rest = reason;
    while let Some(start) = rest.find('<') {
        let (before, bracket) = rest.split_at(start);
        kept += before;
        let mut quoted = false;
        let mut escaped = false;
        let end = bracket.bytes().position(|byte| {
            let closes = byte == b'>' && !quoted;
            quoted ^= byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            closes
        });
        // Nothing closes the bracket: the reason was cut off within an address.
        let Some(end) = end else { return Cow::Owned(kept) };
        if !bracket[..end].contains('@') {
            kept += &bracket[1..end];
        }
        kept.push(' ');
        rest = &bracket[end + 1..];
    }
    Cow::Owned(kept + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_found_in_reasons_as_mail_servers_write_them() {
        for (reason, cause) in [
            ("connect to 127.0.0.2[127.0.0.2]:2525: Connection refused", Some(Cause::Refused)),
            ("Deferred: Connection refused by [127.0.0.2]", Some(Cause::Refused)),
            ("connect to mx.example.com[192.0.2.1]:25: Connection timed out", Some(Cause::TimedOut)),
            ("lost connection with 127.0.0.2[127.0.0.2] while sending MAIL FROM", Some(Cause::BrokenOff)),
            (
                "Host or domain name not found. Name service error for name=x.example type=MX: Host not found",
                Some(Cause::NoName),
            ),
            (
                "host 127.0.0.2[127.0.0.2] said: 450-4.2.0 <greylisted>: Recipient address rejected: 450 4.2.0 Greylisted",
                Some(Cause::Greylisted),
            ),
            (
                "host 127.0.0.2[127.0.0.2] said: 452 4.2.2 The email account that you tried to reach is over quota",
                Some(Cause::MailboxFull),
            ),
            (
                "host 127.0.0.2[127.0.0.2] refused to talk to me: 421-4.3.2 primary is down for maintenance",
                Some(Cause::Busy),
            ),
            ("TLS is required, but was not offered by host mx.example.com[192.0.2.1]", Some(Cause::Tls)),
            ("421 4.7.0 Try again later, closing connection.", Some(Cause::Busy)),
            ("450 4.1.8 Sender address rejected: Host not found", None),
            ("450 4.3.0 policy lookup timed out", None),
            ("450 4.7.1 certificate verification needed", None),
            ("451 4.7.1 Please try again later", None),
            ("mail transport unavailable", None),
            ("", None),
        ] {
            assert_eq!(Cause::of(reason), cause, "{reason}");
        }
    }

    #[test]
    fn addresses_and_host_names_which_strangers_choose_name_no_cause() {
        for reason in [
            "host gatls.example[192.0.2.1] said: 450 4.1.1 <greylist@example.com>: no such thing yet",
            "host tls.example[192.0.2.1] said: 450 no",
            r#"host mx.example[192.0.2.1] said: 450 <"connection refused> tls <"@example.com>: no"#,
            "450 greylist@example.com is not known yet",
            "host mx421.example[192.0.2.1] said: 450 1421 reasons",
            "host mx.example[192.0.2.42] said: 450 no name=greylisted.example",
            "450 4.1.1 <connection refused@example.co",
            "mailscanner: TLSomething gatimeout",
        ] {
            assert_eq!(Cause::of(reason), None, "{reason}");
        }
    }

    #[test]
    fn a_cause_is_said_of_the_last_attempt_and_not_of_now() {
        for cause in Cause::ALL {
            assert!(cause.phrase().starts_with("at the last attempt, "), "{}", cause.phrase());
        }
    }
}
