//! A message as a page holds it: whole, or cut to the room that it may take.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Message, Recipient, beginning};

/// The most memory that the whole rows of a page may take together, in bytes.
pub(super) const WHOLE_BYTES: usize = 16 << 20;

/// A message on a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The message, perhaps with texts that are cut (they end in `…`) and without some of its recipients.
    pub message: Message<'static>,
    /// How many of its recipients are missing in `message`, so that one message does not take all the room; 0 in a
    /// whole row.
    pub(crate) left_out: usize,
}

impl Row {
    /// The whole message. One that takes more than [`WHOLE_BYTES`] loses all its recipients instead. (In Postfix's
    /// table all recipients share one reason, of which each would get a copy here.)
    pub(super) fn whole(message: &Message<'_>) -> Row {
        if bytes(message) > WHOLE_BYTES {
            return Row::abridged(message, 0);
        }
        Row { message: message.clone().into_owned(), left_out: 0 }
    }

    /// The message with as many recipients, and as much of each text, as fit into `bytes`. A text that is cut ends in
    /// `…`.
    pub(super) fn abridged(message: &Message<'_>, bytes: usize) -> Row {
        let longest = bytes / 4;
        let mut left = bytes;
        let fits = |recipient: &&Recipient<'_>| {
            let fits = left > 0;
            left = left.saturating_sub(size(recipient, longest));
            fits
        };
        let cut = |text: &str| Cow::Owned(cut(text, longest));
        let recipients: Vec<_> = message
            .recipients
            .iter()
            .take_while(fits)
            .map(|recipient| Recipient {
                address: cut(&recipient.address),
                reason: recipient.reason.as_deref().map(cut),
                delivered: recipient.delivered,
                last_attempt: recipient.last_attempt,
            })
            .collect();
        Row {
            left_out: message.recipients.len() - recipients.len(),
            message: Message {
                id: cut(&message.id),
                state: message.state,
                mta_state: cut(&message.mta_state),
                being_returned: message.being_returned,
                too_young: message.too_young,
                instance: message.instance.as_deref().map(cut),
                size: message.size,
                arrival: message.arrival,
                sender: message.sender.as_deref().map(cut),
                recipients,
                plan: message.plan,
            },
        }
    }

    /// The memory that it takes, in bytes, more or less.
    pub(super) fn size(&self) -> usize {
        size_of::<Row>() + bytes(&self.message)
    }
}

/// The memory that a message's texts and recipients take, in bytes, once they are copies of their own.
fn bytes(message: &Message<'_>) -> usize {
    let Message { id, mta_state, sender, recipients, instance, .. } = message;
    let length = |text: &Option<Cow<'_, str>>| text.as_ref().map_or(0, |text| text.len());
    let texts = id.len() + mta_state.len() + length(sender) + length(instance);
    texts + recipients.iter().map(|recipient| size(recipient, usize::MAX)).sum::<usize>()
}

/// The memory that a recipient takes, in bytes, where each of its texts is cut to `longest` bytes.
fn size(recipient: &Recipient<'_>, longest: usize) -> usize {
    let reason = recipient.reason.as_ref().map_or(0, |reason| reason.len());
    size_of::<Recipient<'_>>() + recipient.address.len().min(longest) + reason.min(longest)
}

/// The text, or its beginning where it is longer than `longest` bytes.
fn cut(text: &str, longest: usize) -> String {
    if text.len() <= longest { text.to_owned() } else { format!("{}…", beginning(text, longest)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Plan, State};

    #[test]
    fn a_row_is_the_same_after_it_was_sent_to_another_process() {
        let recipient =
            Recipient { address: "é".repeat(100).into(), reason: None, delivered: false, last_attempt: None };
        let message = Message {
            id: "4F1A".into(),
            state: State::Active,
            mta_state: "active".into(),
            being_returned: false,
            too_young: false,
            instance: None,
            size: Some(u64::MAX),
            arrival: Some(1_795_434_300),
            sender: None,
            recipients: vec![recipient; 20],
            plan: Plan { attempts: Some(2), ..Plan::default() },
        };
        for row in [Row::whole(&message), Row::abridged(&message, 200)] {
            let text = serde_json::to_string(&row).unwrap();
            assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row, "{text}");
        }
        assert!(Row::abridged(&message, 200).left_out > 0);
    }
}
