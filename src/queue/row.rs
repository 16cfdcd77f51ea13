//! A message as a page holds it: whole, or cut to the room that there is.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Message, Recipient, beginning};

/// The most that whole rows may take together, in bytes.
pub(super) const WHOLE_BYTES: usize = 16 << 20;

/// A message on a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The message.
    pub message: Message<'static>,
    /// How many of its recipients are not among those of the message here, so that one message does not take
    /// all the room.
    pub left_out: usize,
}

impl Row {
    /// The whole message; one that is longer than all rows may be, without any recipient. (In Postfix's table all
    /// recipients share one reason, which each would take here.)
    pub(super) fn whole(message: &Message<'_>) -> Row {
        if bytes(message) > WHOLE_BYTES {
            return Row::abridged(message, 0);
        }
        Row { message: message.clone().into_owned(), left_out: 0 }
    }

    /// As many recipients, and as much of each text, as fit into so many bytes. What is cut ends in `…`.
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
            })
            .collect();
        Row {
            left_out: message.recipients.len() - recipients.len(),
            message: Message {
                id: cut(&message.id),
                state: message.state,
                mta_state: cut(&message.mta_state),
                size: message.size,
                arrival: message.arrival,
                sender: message.sender.as_deref().map(cut),
                recipients,
            },
        }
    }

    /// What it takes in memory, in bytes, more or less.
    pub(super) fn size(&self) -> usize {
        size_of::<Row>() + bytes(&self.message)
    }
}

/// What a message's texts and recipients take in memory, in bytes, where it is independent of the text it was read from.
fn bytes(message: &Message<'_>) -> usize {
    let Message { id, mta_state, sender, recipients, .. } = message;
    let texts = id.len() + mta_state.len() + sender.as_ref().map_or(0, |sender| sender.len());
    texts + recipients.iter().map(|recipient| size(recipient, usize::MAX)).sum::<usize>()
}

/// What a recipient takes in memory, in bytes, with texts of that length at the most.
fn size(recipient: &Recipient<'_>, longest: usize) -> usize {
    let reason = recipient.reason.as_ref().map_or(0, |reason| reason.len());
    size_of::<Recipient<'_>>() + recipient.address.len().min(longest) + reason.min(longest)
}

/// The beginning of a text that is longer than so many bytes.
fn cut(text: &str, longest: usize) -> String {
    if text.len() <= longest { text.to_owned() } else { format!("{}…", beginning(text, longest)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::State;

    #[test]
    fn a_row_is_the_same_after_it_was_sent_to_another_process() {
        let recipient = Recipient { address: "é".repeat(100).into(), reason: None, delivered: false };
        let message = Message {
            id: "4F1A".into(),
            state: State::Active,
            mta_state: "active".into(),
            size: Some(u64::MAX),
            arrival: Some(1_795_434_300),
            sender: None,
            recipients: vec![recipient; 20],
        };
        for row in [Row::whole(&message), Row::abridged(&message, 200)] {
            let text = serde_json::to_string(&row).unwrap();
            assert_eq!(serde_json::from_str::<Row>(&text).unwrap(), row, "{text}");
        }
        assert!(Row::abridged(&message, 200).left_out > 0);
    }
}
