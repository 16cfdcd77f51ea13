//! `postqueue -j`, read a second time: by a parser of all JSON alone.

use bartleby::mta::Kind;
use serde::Deserialize;
use serde_json::{Value, json};

use super::read;

/// A line of `postqueue -j`.
#[derive(Deserialize)]
struct Line {
    queue_name: String,
    queue_id: String,
    arrival_time: i64,
    message_size: u64,
    #[serde(default)]
    forced_expire: bool,
    sender: String,
    recipients: Vec<LineRecipient>,
}

#[derive(Deserialize)]
struct LineRecipient {
    address: String,
    #[serde(default, alias = "other_reason")]
    delay_reason: String,
    #[serde(default)]
    bounce_reason: String,
}

/// However a line of Postfix's is read, it says what it says to a parser of all JSON, and is none where it is none to
/// that one.
pub fn as_any_parser_reads_it(line: &[u8]) {
    let read = read(Kind::Postfix, &[line, b"\n"].concat()).messages;
    let Ok(expected) = serde_json::from_str::<Line>(&String::from_utf8_lossy(line)) else {
        return assert!(read.is_empty(), "{read:?}");
    };
    let [message] = &read[..] else { panic!("{read:?}") };
    let is_bounced = expected.recipients.iter().any(|recipient| !recipient.bounce_reason.is_empty());
    let returned = expected.forced_expire || is_bounced;
    let what_becomes_of_it = message.mta_state.strip_prefix(&*expected.queue_name);
    assert_eq!(what_becomes_of_it.map(|words| !words.is_empty()), Some(returned), "{message:?}");
    let instant = jiff::Timestamp::from_second(expected.arrival_time).map(|instant| instant.to_string()).ok();
    let recipients = expected.recipients.into_iter().map(|LineRecipient { address, delay_reason, bounce_reason }| {
        let reason = if bounce_reason.is_empty() { delay_reason } else { bounce_reason };
        json!({
            "address": address, "reason": Some(reason).filter(|reason| !reason.is_empty()), "delivered": false,
        })
    });
    let value = serde_json::to_value(message).unwrap();
    assert_eq!((value["id"].as_str(), message.size), (Some(&*expected.queue_id), Some(expected.message_size)));
    assert_eq!(value["arrival"].as_str(), instant.as_deref());
    let sender = if expected.sender == "MAILER-DAEMON" { "" } else { &expected.sender };
    assert_eq!(value["sender"].as_str(), Some(sender));
    assert_eq!(value["recipients"], recipients.collect::<Value>());
}
