//! What a delivery reason amounts to, for the sentence at the head of the page.

/// The common causes for mail to wait. A reason that fits none of them is shown as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Nothing listens at the destination.
    Refused,
    /// The destination does not answer.
    TimedOut,
    /// There is no way to the destination's network.
    Unreachable,
    /// The destination's name can't be resolved.
    NoName,
    /// The destination breaks the conversation off.
    BrokenOff,
    /// The destination asks unknown senders to come back later.
    Greylisted,
    /// The recipient's mailbox is full.
    MailboxFull,
    /// The encrypted connection fails.
    Tls,
    /// The destination answers "not now".
    Busy,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Cause; 9] = [
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

    /// The cause that a reason tells of, by the words that mail servers and system libraries use.
    /// What the destination said itself (greylisting, a full mailbox) is looked for first.
    pub fn of(reason: &str) -> Option<Cause> {
        const SIGNS: [(Cause, &[&str]); 9] = [
            (Cause::Greylisted, &["greylist", "graylist"]),
            (
                Cause::MailboxFull,
                &["over quota", "overquota", "mailbox full", "mailbox is full", " 4.2.2 ", "quota exceeded"],
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
            (Cause::Tls, &["tls", "certificate"]),
            (Cause::Busy, &[" 421", "421 ", "421-", "try again later", "too many connections", "too busy"]),
        ];
        let reason = reason.to_ascii_lowercase();
        SIGNS.into_iter().find(|(_, signs)| signs.iter().any(|sign| reason.contains(sign))).map(|(cause, _)| cause)
    }

    /// The cause in a word or two, for a list.
    pub fn short(self) -> &'static str {
        match self {
            Cause::Refused => "connection refused",
            Cause::TimedOut => "connection timed out",
            Cause::Unreachable => "unreachable",
            Cause::NoName => "name not found",
            Cause::BrokenOff => "connection broken off",
            Cause::Greylisted => "greylisted",
            Cause::MailboxFull => "mailbox full",
            Cause::Tls => "encryption failed",
            Cause::Busy => "server busy",
        }
    }

    /// The cause as the second half of a sentence about the destination.
    pub fn phrase(self) -> &'static str {
        match self {
            Cause::Refused => "the server there refuses connections",
            Cause::TimedOut => "the server there does not answer in time",
            Cause::Unreachable => "its network can't be reached",
            Cause::NoName => "its name can't be resolved",
            Cause::BrokenOff => "the server there breaks off the connection",
            Cause::Greylisted => "the server there asks to come back later (greylisting)",
            Cause::MailboxFull => "the mailbox there is full",
            Cause::Tls => "an encrypted connection can't be made",
            Cause::Busy => "the server there is too busy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_as_mail_servers_write_them() {
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
            ("mail transport unavailable", None),
            ("", None),
        ] {
            assert_eq!(Cause::of(reason), cause, "{reason}");
        }
    }
}
