//! The table of `postqueue -p`, which is all that Postfix before 3.1 prints.
//!
//! Sources: Postfix's `showq_compat.c`, and the recorded output under `tests/fixtures/postfix`.

use std::borrow::Cow;

use crate::mta::{Clock, date};
use crate::queue::{Message, Plan, Recipient, State};

pub(super) fn is_table(line: &str) -> bool {
    line == "Mail queue is empty" || (line.starts_with('-') && line.contains("-Queue ID-"))
}

/// The table of `postqueue -p`: a line a message, then a reason before each recipient that has
/// another one than the recipient before.
#[derive(Default)]
pub(super) struct Table {
    /// The instance whose queue it is, where there are several.
    instance: Option<String>,
    /// The message that is being read, still without its recipients.
    message: Option<Message<'static>>,
    recipients: Vec<Group>,
    read: u64,
    closed: bool,
}

/// Addresses with one reason, which is kept once: thousands of recipients may have it.
struct Group {
    reason: Option<String>,
    addresses: Vec<String>,
}

impl Group {
    fn of(reason: Option<&str>) -> Group {
        Group { reason: reason.map(str::to_owned), addresses: Vec::new() }
    }

    fn recipients(&self) -> impl Iterator<Item = Recipient<'_>> {
        let reason = self.reason.as_deref();
        self.addresses.iter().map(move |address| Recipient {
            address: address.into(),
            reason: reason.map(Cow::from),
            delivered: false,
            last_attempt: None,
        })
    }
}

impl Table {
    /// A table at its beginning.
    pub(super) fn of(instance: Option<String>) -> Table {
        Table { instance, ..Table::default() }
    }

    pub(super) fn line(&mut self, line: &str, clock: &Clock, found: &mut dyn FnMut(&Message<'_>)) -> bool {
        if self.closed {
            return false;
        }
        if line == "Mail queue is empty" {
            self.closed = self.read == 0 && self.message.is_none();
            return self.closed;
        }
        if line.is_empty() {
            self.close_message(found);
            return true;
        }
        if let Some(total) = total(line) {
            self.close_message(found);
            self.closed = total == self.read;
            return self.closed;
        }
        if let Some(message) = table_message(line, clock) {
            self.close_message(found);
            self.message = Some(message);
            return true;
        }
        let text = line.trim_ascii_start();
        if self.message.is_none() {
            return line.contains("-Queue ID-");
        }
        match text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            Some("reason unavailable") => self.recipients.push(Group::of(None)),
            Some(reason) => self.recipients.push(Group::of(Some(reason))),
            None if line.starts_with("          ") => match self.recipients.last_mut() {
                Some(group) => group.addresses.push(text.to_owned()),
                None => self.recipients.push(Group { reason: None, addresses: vec![text.to_owned()] }),
            },
            None => return false,
        }
        true
    }

    fn close_message(&mut self, found: &mut dyn FnMut(&Message<'_>)) {
        let groups = std::mem::take(&mut self.recipients);
        if let Some(message) = self.message.take() {
            self.read += 1;
            found(&Message {
                recipients: groups.iter().flat_map(Group::recipients).collect(),
                instance: self.instance.as_deref().map(Cow::Borrowed),
                ..message
            });
        }
    }

    /// Whether the closing line was there.
    pub(super) fn end(&mut self, found: &mut dyn FnMut(&Message<'_>)) -> bool {
        self.close_message(found);
        self.closed
    }
}

/// The count in `-- 296 Kbytes in 12 Requests.`
fn total(line: &str) -> Option<u64> {
    let (_, rest) = line.strip_prefix("-- ")?.split_once(" Kbytes in ")?;
    rest.strip_suffix(" Requests.").or_else(|| rest.strip_suffix(" Request."))?.parse().ok()
}

/// `95C7C98C654#  300356 Mon Nov 23 11:18:08  big@example.org`: id and marks, bytes, local time,
/// sender.
fn table_message(line: &str, clock: &Clock) -> Option<Message<'static>> {
    let (word, rest) = line.split_once(' ')?;
    let id = word.trim_end_matches(['*', '!', '#']);
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let (size, rest) = rest.trim_start().split_once(' ')?;
    let (weekday_and_date, sender) = rest.split_at_checked("Mon Nov 23 11:18:08".len())?;
    let marks = &word[id.len()..];
    let (queue, state) = match marks.as_bytes().first() {
        Some(b'*') => ("active", State::Active),
        Some(b'!') => ("hold", State::Held),
        _ => ("deferred", State::Deferred),
    };
    let expiry = if marks.contains('#') { super::Expiry::forced(queue) } else { super::Expiry::None };
    Some(Message {
        id: id.to_owned().into(),
        state,
        mta_state: expiry.word(queue.into()),
        being_returned: expiry != super::Expiry::None,
        too_young: false,
        instance: None,
        size: Some(size.parse().ok()?),
        arrival: Some(date::past_instant(weekday_and_date.split_once(' ')?.1, clock)?),
        sender: Some(super::sender(sender.trim_start().to_owned().into())),
        recipients: Vec::new(),
        plan: Plan::default(),
    })
}
