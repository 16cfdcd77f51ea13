//! A message's log (`exim4 -Mvl ID`), which holds the reasons that the listing lacks.
//!
//! Source: the Exim specification's chapter "Log files", and the recorded output under `tests/fixtures/exim`.

/// A line of the message log about a recipient that was put off: the recipient and why.
///
/// `2026-11-23 11:28:02.989 full@example.com R=primary T=remote defer (-44) H=... DT=0.000s: reason`, with
/// `log_selector` deciding what stands between. Where the envelope's recipient is another address (an
/// alias) or is only written otherwise (a local part in quotes), it stands in angle brackets behind.
///
/// Other lines repeat the sender's words (`Received from ... T="its subject"`), which may be made to look alike. A
/// line about a recipient begins with its address.
pub(super) fn deferral(line: &str) -> Option<(String, String)> {
    let (before, after) = line.split_once(" defer (")?;
    let mut words = before.splitn(3, ' ');
    let (_date, _time, mut rest) = (words.next()?, words.next()?, words.next()?);
    // The zone, with `log_timezone`.
    if let Some((zone, behind)) = rest.split_once(' ')
        && zone.strip_prefix(['+', '-']).is_some_and(|zone| zone.bytes().all(|byte| byte.is_ascii_digit()))
    {
        rest = behind;
    }
    let addresses = rest.split_once(" R=").map_or(rest, |(addresses, _)| addresses);
    let addresses = addresses.strip_suffix(" routing").unwrap_or(addresses);
    let address = match addresses.strip_suffix('>').and_then(|addresses| addresses.rsplit_once(" <")) {
        Some((_, envelope)) => envelope,
        None => addresses,
    };
    let of_the_sender = ["Received ", "H=", "<= ", "U="].iter().any(|start| rest.starts_with(start));
    if of_the_sender || !address.contains('@') {
        return None;
    }
    let reason = after.split_once("): ").or_else(|| after.split_once(") ")).map(|(_, reason)| reason)?;
    // The connection's fields end with the first colon that a space follows.
    let reason =
        reason.split_once(": ").filter(|(fields, _)| fields.starts_with("H=")).map_or(reason, |(_, text)| text);
    Some((address.to_owned(), reason.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_come_from_the_message_log() {
        let log = include_str!("../../../tests/fixtures/exim/mixed-mvl.stdout");
        let reasons: Vec<_> = log.lines().filter_map(deferral).collect();
        assert_eq!(reasons.len(), 2, "{reasons:?}");
        assert_eq!(reasons[0].0, "slow@example.com");
        assert!(
            reasons[0].1.starts_with("SMTP error from remote mail server after RCPT TO:<slow@example.com>: 450"),
            "{}",
            reasons[0].1
        );
        assert!(reasons[1].1.contains("452 4.2.2 The email account"));
        let read = |line| deferral(line).unwrap();
        let quoted = r#"2026-11-23 15:20:02 john "jb" doe@example.com <"john \"jb\" doe"@example.com> R=primary T=to_primary defer (-54): retry time not reached"#;
        assert_eq!(read(quoted), (r#""john \"jb\" doe"@example.com"#.into(), "retry time not reached".into()));
        let plain = "2026-11-23 15:20:02 user@other.example R=primary T=to_primary defer (111): Connection refused";
        assert_eq!(read(plain), ("user@other.example".into(), "Connection refused".into()));
        let refused =
            "2026-11-23 15:20:02 a@x.example R=primary T=to_primary defer (-44) H=mx [2001:db8::1]: SMTP error: 450 no";
        assert_eq!(read(refused).1, "SMTP error: 450 no");
        let zone = "2026-11-23 15:20:02.123 +0100 a@x.example R=primary T=remote defer (111): Connection refused";
        assert_eq!(read(zone).0, "a@x.example");
        let routing = "2026-11-23 15:20:02 a@x.example routing defer (-51): retry time not reached";
        assert_eq!(read(routing), ("a@x.example".into(), "retry time not reached".into()));
    }

    #[test]
    fn a_subject_or_a_servers_words_are_no_reason() {
        for line in [
            "2026-11-23 15:20:02 H=127.0.0.2 [127.0.0.2] Connection refused",
            r#"2026-11-23 15:20:02 Received from a@x.example S=433 T="a@x.example R=x defer (1): evil""#,
            r#"2026-11-23 15:20:02 +0100 Received from a@x.example S=433 T="x <b@x.example> defer (1): evil""#,
            "2026-11-23 15:20:02 H=mx [192.0.2.1] SMTP error: 450 <b@x.example> R=y defer (1): evil",
            "2026-11-23 15:20:02 cancelled by system filter defer (1): evil",
        ] {
            assert_eq!(deferral(line), None, "{line}");
        }
    }
}
