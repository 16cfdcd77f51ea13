//! JSON as any parser reads it: what `postqueue -j` prints, and what comes of it.

use bartleby::mta::Kind;
use bartleby::queue::Message;
use bartleby::report::Report;
use bartleby::view::json::Json;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{read, written};

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

/// However a line of Postfix's is read, a parser of all JSON reads the same in it; what that one refuses is refused.
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

/// The ids of the messages in our JSON, each of which is written as it would be serialised.
pub fn as_json(report: &Report, messages: &[Message<'_>]) -> Vec<String> {
    let json = written(Json::default(), report, messages);
    let value: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(value["queue"]["messages"], messages.len());
    assert_eq!(value["queue"]["complete"], report.listing.trouble.is_none());
    let list = value["messages"].as_array().unwrap();
    for (written, message) in list.iter().zip(messages) {
        let serialised = serde_json::to_value(message).unwrap();
        let planned = |key| serialised.get("plan").map_or(&Value::Null, |plan| &plan[key]);
        assert_eq!(written["attempts"], *planned("attempts"));
        assert_eq!(written["next_attempt"].is_null(), planned("next_attempt").is_null());
        for (key, value) in serialised.as_object().unwrap().iter().filter(|(key, _)| *key != "plan") {
            assert_eq!(written[key], *value, "{key} is written as it is serialised");
        }
    }
    list.iter().map(|message| message["id"].as_str().unwrap().to_owned()).collect()
}
