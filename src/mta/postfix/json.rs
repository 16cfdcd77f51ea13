//! The lines of `postqueue -j`, one message each.
//!
//! Sources: Postfix's `showq_json.c`, and the recorded output under `tests/fixtures/postfix`.

use std::borrow::Cow;
use std::str::FromStr;

use serde::Deserialize;

use super::{Expiry, sender, state};
use crate::queue::{Message, Plan, Recipient};

/// One line of `postqueue -j`.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    queue_name: Cow<'a, str>,
    #[serde(borrow)]
    queue_id: Cow<'a, str>,
    arrival_time: i64,
    message_size: u64,
    /// Whether an administrator has let it expire (`postsuper -e`); since 3.5.
    #[serde(default)]
    forced_expire: bool,
    #[serde(borrow)]
    sender: Cow<'a, str>,
    #[serde(borrow)]
    recipients: Vec<EntryRecipient<'a>>,
}

/// A recipient in that line. Since Postfix 3.11, the reason may also be one for a bounce, or another.
#[derive(Debug, PartialEq, Eq, Deserialize)]
struct EntryRecipient<'a> {
    #[serde(borrow)]
    address: Cow<'a, str>,
    #[serde(borrow, default, alias = "other_reason")]
    delay_reason: Cow<'a, str>,
    /// In place of that, since 3.11: the message is being returned.
    #[serde(borrow, default)]
    bounce_reason: Cow<'a, str>,
}

/// Reads one line, and passes its message on. Returns whether it was one.
pub(super) fn line(line: &str, instance: Option<&str>, found: &mut dyn FnMut(&Message<'_>)) -> bool {
    let Some(entry) = as_printed(line).or_else(|| serde_json::from_str(line).ok()) else { return false };
    let is_bounced = entry.recipients.iter().any(|recipient| !recipient.bounce_reason.is_empty());
    let expiry = match () {
        () if is_bounced => Expiry::Returned,
        () if entry.forced_expire => Expiry::forced(&entry.queue_name),
        () => Expiry::None,
    };
    let recipients = entry.recipients.into_iter().map(|EntryRecipient { address, delay_reason, bounce_reason }| {
        let reason = if bounce_reason.is_empty() { delay_reason } else { bounce_reason };
        Recipient {
            address,
            reason: Some(reason).filter(|reason| !reason.is_empty()),
            delivered: false,
            last_attempt: None,
        }
    });
    found(&Message {
        id: entry.queue_id,
        state: state(&entry.queue_name),
        size: Some(entry.message_size),
        arrival: Some(entry.arrival_time),
        sender: Some(sender(entry.sender)),
        recipients: recipients.collect(),
        mta_state: expiry.word(entry.queue_name),
        being_returned: expiry != Expiry::None,
        too_young: false,
        instance: instance.map(Cow::Borrowed),
        plan: Plan::default(),
    });
    true
}

/// A line of the very form in which showq_json.c prints nearly all: these keys in this order, and no text with an escape in
/// it. To find the ends of its texts takes a fifth of the time that a parser of all JSON takes. `None` where anything is
/// otherwise: then that parser decides.
fn as_printed(line: &str) -> Option<Entry<'_>> {
    // JSON has no control characters but between its values, and here a single space is there.
    if line.bytes().fold(false, |found, byte| found | (byte < b' ') | (byte == b'\\')) {
        return None;
    }
    let mut rest = Rest(line);
    let queue_name = rest.text(r#"{"queue_name": ""#)?;
    let queue_id = rest.text(r#", "queue_id": ""#)?;
    let arrival_time = rest.number(r#", "arrival_time": "#)?;
    let message_size = rest.number(r#", "message_size": "#)?;
    // Since 3.5.
    let forced_expire = match rest.word(r#", "forced_expire": "#) {
        Some("true") => true,
        Some("false") | None => false,
        Some(_) => return None,
    };
    let sender = rest.text(r#", "sender": ""#)?;
    rest.skip(r#", "recipients": ["#)?;
    let mut recipients = Vec::with_capacity(1);
    loop {
        let address = rest.text(r#"{"address": ""#)?;
        let delay_reason = rest.text(r#", "delay_reason": ""#).unwrap_or_default();
        rest.skip("}")?;
        recipients.push(EntryRecipient {
            address: address.into(),
            delay_reason: delay_reason.into(),
            bounce_reason: Cow::default(),
        });
        if rest.skip(", ").is_none() {
            break;
        }
    }
    (rest.0 == "]}").then_some(Entry {
        queue_name: queue_name.into(),
        queue_id: queue_id.into(),
        arrival_time,
        message_size,
        forced_expire,
        sender: sender.into(),
        recipients,
    })
}

/// What is left of a line. Where something else stands than is asked for, nothing is taken.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn skip(&mut self, expected: &str) -> Option<()> {
        self.0 = self.0.strip_prefix(expected)?;
        Some(())
    }

    /// The text behind `key`, which ends with a quote, up to the next quote.
    fn text(&mut self, key: &str) -> Option<&'a str> {
        let text = self.0.strip_prefix(key)?;
        let end = memchr::memchr(b'"', text.as_bytes())?;
        self.0 = &text[end + 1..];
        Some(&text[..end])
    }

    /// The word behind `key`, up to the next comma.
    fn word(&mut self, key: &str) -> Option<&'a str> {
        let word = self.0.strip_prefix(key)?;
        let end = memchr::memchr(b',', word.as_bytes())?;
        self.0 = &word[end..];
        Some(&word[..end])
    }

    /// The whole number behind `key`, in digits alone, and without a zero in front, which JSON does not have.
    fn number<N: FromStr>(&mut self, key: &str) -> Option<N> {
        let digits = self.word(key)?;
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && (!digits.starts_with('0') || digits == "0");
        is_plain.then(|| digits.parse().ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_being_returned_is_called_so() {
        let word = |queue: &str, expire: bool, reason: &str| {
            let text = format!(
                r#"{{"queue_name":"{queue}","queue_id":"A1","arrival_time":1,"message_size":9,"forced_expire":{expire},"sender":"a@b.example","recipients":[{{"address":"c@d.example","{reason}":"x"}}]}}"#
            );
            let mut words = (String::new(), None);
            assert!(line(&text, None, &mut |message| {
                words = (message.mta_state.to_string(), message.recipients[0].reason.clone().map(Cow::into_owned));
                assert_eq!(message.being_returned, expire || reason == "bounce_reason");
            }));
            assert_eq!(words.1.as_deref(), Some("x"));
            words.0
        };
        assert_eq!(word("deferred", false, "delay_reason"), "deferred");
        assert_eq!(word("deferred", true, "delay_reason"), "deferred, returned to the sender at the next attempt");
        assert_eq!(word("active", true, "delay_reason"), "active, being returned to the sender");
        assert_eq!(word("deferred", false, "bounce_reason"), "deferred, being returned to the sender");
    }

    const PRINTED: &str = r#"{"queue_name": "deferred", "queue_id": "A1", "arrival_time": 1795434300, "message_size": 9, "forced_expire": false, "sender": "a@b.example", "recipients": [{"address": "c@d.example", "delay_reason": "x, \"y\""}, {"address": "“e”@f.example"}]}"#;

    #[test]
    fn what_is_read_as_it_is_printed_is_what_any_parser_reads() {
        let plain = PRINTED.replace(r#"\""#, "'");
        let older = plain.replace(r#""forced_expire": false, "#, "");
        for line in [&plain, &older, &plain.replace("false", "true"), &plain.replace(": 9,", ": 0,")] {
            assert_eq!(as_printed(line), Some(serde_json::from_str(line).unwrap()), "{line}");
        }
    }

    #[test]
    fn what_is_printed_otherwise_is_left_to_a_parser_of_all_json() {
        let plain = PRINTED.replace(r#"\""#, "'");
        for (printed, otherwise) in [
            (": 9,", ": 09,"),
            (": 9,", ": -9,"),
            (": 9,", ": +9,"),
            (": 9,", ": 9 ,"),
            (": 9,", ": 9e1,"),
            (": 9,", ": 18446744073709551616,"),
            (": 9,", ": ,"),
            ("false", "FALSE"),
            ("a@b", "a\t@b"),
            ("a@b", r"\u0061@b"),
            (r#""sender""#, r#""Sender""#),
            (r#""sender": "#, r#""sender":"#),
            ("delay_reason", "bounce_reason"),
            ("}]}", "}]} "),
            ("}]}", "}]"),
            ("}]}", "}, ]}"),
            ("}]}", "}]}]}"),
            ("{\"queue", " {\"queue"),
        ] {
            let line = plain.replace(printed, otherwise);
            assert_ne!(line, plain, "{otherwise}");
            assert_eq!(as_printed(&line), None, "{line}");
        }
        assert_eq!(as_printed(PRINTED), None);
    }
}
