//! The common cause behind a delivery reason, for the sentence at the head of the page.

use serde::{Deserialize, Serialize};

/// The common causes for mail to wait. A reason that fits none of them is shown as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Hash)]
pub(crate) enum Cause {
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
    /// The destination asks unknown senders to come back later.
    Greylisted,
    /// The recipient's mailbox is full.
    MailboxFull,
    /// The encrypted connection fails.
    Tls,
    /// The destination answers that it is too busy.
    Busy,
}

impl Cause {
    /// Every cause.
    pub(crate) const ALL: [Cause; 9] = [
        Cause::Refused,
        Cause::TimedOut,
        Cause::Unreachable,
        Cause::NoName,
        Cause::BrokenOff,
        Cause::Greylisted,
        Cause::MailboxFull,
        Cause::Tls,
        Cause::Busy,
    ];

    /// The cause that a reason names, recognised by the phrases that mail servers and system libraries use; `None`
    /// where it uses none of them. The destination's own answers (greylisting, a full mailbox) are looked for first.
    /// Addresses and host names in the reason are left out, because strangers choose them.
    pub(crate) fn of(reason: &str) -> Option<Cause> {
        /// Each phrase must begin where a word begins.
        const SIGNS: [(Cause, &[&str]); 9] = [
            (Cause::Greylisted, &["greylist", "graylist"]),
            (
                Cause::MailboxFull,
                &["over quota", "overquota", "mailbox full", "mailbox is full", "4.2.2 ", "quota exceeded"],
            ),
            (Cause::Refused, &["connection refused"]),
            (Cause::TimedOut, &["timed out", "timeout"]),
            (
                Cause::Unreachable,
                &["no route to host", "network is unreachable", "host is unreachable", "host is down"],
            ),
            (
                Cause::NoName,
                &[
                    "name service error",
                    "host not found",
                    "name or service not known",
                    "name server",
                    "host name lookup",
                ],
            ),
            (Cause::BrokenOff, &["lost connection", "connection reset", "broken pipe", "premature close"]),
            (Cause::Tls, &["tls ", "starttls ", "certificate "]),
            (Cause::Busy, &["421 ", "too many connections", "too busy"]),
        ];
        let words = plain_words(reason);
        let says = |sign: &&str| words.match_indices(*sign).any(|(at, _)| words[..at].ends_with(' '));
        // The words after a reply code are the destination's own: there, "host not found" is about the sender.
        let is_reply = words.split(' ').any(|word| word.len() == 3 && matches!(word.parse(), Ok(400..=599)));
        let is_possible =
            |cause: Cause| !is_reply || matches!(cause, Cause::Greylisted | Cause::MailboxFull | Cause::Busy);
        SIGNS.into_iter().find(|(cause, signs)| is_possible(*cause) && signs.iter().any(says)).map(|(cause, _)| cause)
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

/// The words of a reason in lower case, with a space around each. Punctuation is left out, and so are addresses, host
/// names and settings (`name=x.example`).
fn plain_words(reason: &str) -> String {
    let mut words = String::from(" ");
    for word in without_addresses(reason).split_whitespace() {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric());
        let is_name = word.contains(['.', '@', '=', '[', ':', '_']) && word.contains(|c: char| c.is_alphabetic());
        if !word.is_empty() && !is_name {
            // "421-4.3.2 busy": a reply code and an enhanced status code (RFC 5321, section 4.2.1).
            let is_code = word.bytes().all(|byte| byte.is_ascii_digit() || b".-".contains(&byte));
            let word = word.to_ascii_lowercase();
            words += &if is_code { word.replace('-', " ") } else { word };
            words.push(' ');
        }
    }
    words
}

/// A reason without the addresses in angle brackets (RFC 5321 calls them paths), whose local parts may be quoted. A
/// single word in brackets (`<greylisted>`) is no address and stays.
fn without_addresses(reason: &str) -> String {
    let mut kept = String::with_capacity(reason.len());
    let mut rest = reason;
    while let Some(start) = rest.find('<') {
        let (before, bracket) = rest.split_at(start);
        kept += before;
        let mut quoted = false;
        let mut escaped = false;
        let end = bracket.char_indices().find(|(_, c)| {
            let closes = *c == '>' && !quoted;
            quoted ^= *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            closes
        });
        // Nothing closes the bracket: the reason was cut off within an address.
        let Some((end, _)) = end else { return kept };
        if !bracket[..end].contains('@') {
            kept += &bracket[1..end];
        }
        kept.push(' ');
        rest = &bracket[end + 1..];
    }
    kept + rest
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
