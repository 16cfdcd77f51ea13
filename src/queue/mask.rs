//! Addresses without the part that identifies a person, for a screen that many people see.

use std::borrow::Cow;

use serde::Deserialize;

use super::{Message, Recipient};

/// The part of an address that is hidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mask {
    /// The part before the `@`.
    LocalPart,
}

impl Mask {
    /// The message with every address masked, including those in reasons.
    pub fn hide<'m>(self, message: &'m Message<'_>) -> Message<'m> {
        let Mask::LocalPart = self;
        Message {
            id: Cow::Borrowed(&message.id),
            state: message.state,
            mta_state: Cow::Borrowed(&message.mta_state),
            being_returned: message.being_returned,
            too_young: message.too_young,
            instance: message.instance.as_deref().map(Cow::Borrowed),
            size: message.size,
            arrival: message.arrival,
            sender: message.sender.as_deref().map(address),
            recipients: message
                .recipients
                .iter()
                .map(|recipient| Recipient {
                    address: address(&recipient.address),
                    reason: recipient.reason.as_deref().map(|reason| {
                        let own = [Some(&*recipient.address), message.sender.as_deref()];
                        text(reason, own.into_iter().flatten())
                    }),
                    delivered: recipient.delivered,
                    last_attempt: recipient.last_attempt,
                })
                .collect(),
            plan: message.plan,
        }
    }
}

impl Mask {
    /// One address.
    pub(crate) fn address(self, one: &str) -> String {
        let Mask::LocalPart = self;
        address(one).into_owned()
    }

    /// A text that may hold addresses, one of which is known.
    pub(crate) fn text(self, words: &str, address: &str) -> String {
        let Mask::LocalPart = self;
        text(words, [address]).into_owned()
    }
}

fn address(address: &str) -> Cow<'_, str> {
    match address.rfind('@') {
        Some(at) => Cow::Owned(format!("…{}", &address[at..])),
        None if address.is_empty() => Cow::Borrowed(""),
        None => Cow::Borrowed("…"),
    }
}

/// A text with these addresses, and everything else that looks like one, masked.
fn text<'t>(text: &'t str, own: impl IntoIterator<Item: AsRef<str>>) -> Cow<'t, str> {
    if !text.contains('@') {
        return Cow::Borrowed(text);
    }
    let mask = |text: String, own: &str| if own.contains('@') { text.replace(own, &address(own)) } else { text };
    let text = own.into_iter().fold(text.to_owned(), |text, own| mask(text, own.as_ref()));
    let masked = text.split(' ').map(|word| match word.rfind('@') {
        Some(at) => {
            let start = word[..at].rfind(['<', '(', ':', ',', '=', '"', '[']).map_or(0, |edge| edge + 1);
            format!("{}…{}", &word[..start], &word[at..])
        }
        None => word.to_owned(),
    });
    Cow::Owned(masked.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Plan, State};

    #[test]
    fn no_local_part_is_left_in_addresses_or_reasons() {
        let recipient = |address: &'static str, reason: &'static str| Recipient {
            address: address.into(),
            reason: Some(reason.into()),
            delivered: false,
            last_attempt: None,
        };
        let message = Message {
            id: "4F1A".into(),
            state: State::Deferred,
            mta_state: "deferred".into(),
            being_returned: false,
            too_young: false,
            instance: None,
            size: None,
            arrival: None,
            sender: Some("alice@example.org".into()),
            recipients: vec![
                recipient("larry@example.com", "host mx said: 450 <larry@example.com>: not now, alice@example.org"),
                recipient(
                    r#""two words"@example.com"#,
                    r#"450 <"two words"@example.com> and RCPT TO:<moe@x.example>: no"#,
                ),
                recipient("root", "no"),
            ],
            plan: Plan::default(),
        };
        let masked = Mask::LocalPart.hide(&message);
        assert_eq!(masked.sender.as_deref(), Some("…@example.org"));
        let masked_recipients: Vec<_> =
            masked.recipients.iter().map(|r| format!("{} {}", r.address, r.reason.as_deref().unwrap())).collect();
        assert_eq!(
            masked_recipients,
            [
                "…@example.com host mx said: 450 <…@example.com>: not now, …@example.org",
                "…@example.com 450 <…@example.com> and RCPT TO:<…@x.example>: no",
                "… no"
            ]
        );
        let null =
            Mask::LocalPart.hide(&Message { sender: Some("".into()), recipients: vec![], ..message }).into_owned();
        assert_eq!(null.sender.as_deref(), Some(""), "the null sender stays one");
    }
}
