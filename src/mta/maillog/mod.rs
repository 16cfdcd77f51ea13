//! What the mail log says of a queue run: who got the mail, and whose mail went back to its sender.
//!
//! Strangers write much of a log: addresses, the primary's replies, and whole lines while they talk to the mail server.
//! So no line is searched for words. A grammar reads a line from its first byte, since the queue id and the outcome
//! always stand before anything that a stranger wrote; a line that does not fit says nothing. Lines end at LF alone,
//! because Exim writes a carriage return as it is.
//!
//! Nor does the log judge alone: sendmail and OpenSMTPD write no line when a message leaves the queue, and Exim's
//! `Completed` also follows a refusal. The listing before the run says what was to be delivered, the listing after it
//! says what still waits, and the log says what became of the rest. What left without a line is
//! [`Outcome::Unrecorded`].
//!
//! Each grammar names its sources; all were written from logs of real runs (`tests/fixtures-log`).

mod exim;
mod opensmtpd;
mod postfix;
mod scan;
mod sendmail;
mod syslog;

use std::borrow::Cow;
use std::collections::HashMap;

pub(super) use self::exim::read as exim;
pub(super) use self::opensmtpd::read as opensmtpd;
pub(super) use self::postfix::read as postfix;
pub(super) use self::sendmail::read as sendmail;
use self::syslog::Line;
use super::Kind;
use crate::queue::{Message, beginning};

/// The most bytes of a reason that are kept.
const LONGEST_REASON: usize = 1000;

/// What became of one copy of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The next mail server took it.
    Delivered,
    /// It was refused for good or given up, in the log's words, which may be empty. It went back to its sender; nobody
    /// got it back where that is the null sender.
    Returned(String),
    /// It is still in the queue.
    Waiting,
    /// It left the queue, and the log does not say how.
    Unrecorded,
}

/// How a mail server writes its log: what a line says of the messages that waited before the run; `None` where it says
/// nothing of them, or nothing to rely on. The tag is syslog's; Exim's own log has none.
pub(super) type Grammar = fn(tag: Option<&[u8]>, text: &[u8], before: &Before) -> Option<Entry>;

/// What a line of the log says. An attempt that was put off needs no entry: the listing shows what still waits.
#[derive(Debug)]
pub(super) struct Entry {
    /// The message, by its place.
    message: usize,
    whose: Whose,
    fate: Fate,
}

/// Whose copies an entry is about.
#[derive(Debug)]
enum Whose {
    /// Those of these recipients, by their places.
    These(Vec<usize>),
    /// All that neither arrived nor were refused.
    Remaining,
}

#[derive(Debug)]
enum Fate {
    Delivered,
    Returned(String),
}

impl Fate {
    fn returned(words: &[u8]) -> Fate {
        let words = String::from_utf8_lossy(words);
        Fate::Returned(beginning(words.trim(), LONGEST_REASON).to_owned())
    }
}

/// The messages that waited before the run.
#[derive(Debug, Default)]
pub(super) struct Before {
    places: HashMap<String, usize>,
    messages: Vec<Waited>,
}

#[derive(Debug)]
struct Waited {
    id: String,
    recipients: Vec<Copies>,
    /// Why the message was given up, if it was.
    given_up: Option<String>,
}

/// A recipient, and what became of the copies for it. OpenSMTPD keeps one for each time that a recipient was given, the
/// others keep one.
#[derive(Debug)]
struct Copies {
    /// The address as the listing has it.
    address: String,
    before: usize,
    after: usize,
    delivered: usize,
    returned: Vec<String>,
}

impl Before {
    /// The place of a message.
    fn message(&self, id: &[u8]) -> Option<usize> {
        self.places.get(std::str::from_utf8(id).ok()?).copied()
    }

    /// The recipients of a message as the listing has them, with their places.
    fn recipients(&self, message: usize) -> impl Iterator<Item = (usize, &str)> {
        let recipients = self.messages.get(message).map_or(&[][..], |message| &message.recipients);
        recipients.iter().map(|recipient| recipient.address.as_str()).enumerate()
    }

    /// The recipient that `logged` is, where the log writes addresses as `spelt` does. Mail servers take local parts of
    /// any case for the same, and listings cut long addresses short; so what is alike will do if only one recipient is.
    fn recipient<'a>(
        &'a self,
        message: usize,
        logged: &[u8],
        spelt: impl Fn(&'a str) -> Cow<'a, [u8]>,
    ) -> Option<usize> {
        let mut alike = Vec::new();
        for (place, address) in self.recipients(message) {
            let (shown, is_cut) = address.strip_suffix('…').map_or((address, false), |shown| (shown, true));
            let shown = spelt(shown);
            if !is_cut && *shown == *logged {
                return Some(place);
            }
            let logged = if is_cut { logged.get(..shown.len()).unwrap_or_default() } else { logged };
            if shown.eq_ignore_ascii_case(logged) {
                alike.push(place);
            }
        }
        alike.first().copied().filter(|_| alike.len() == 1)
    }

    fn copies(&mut self, id: &str, address: &str) -> Option<&mut Copies> {
        let place = *self.places.get(id)?;
        self.messages.get_mut(place)?.recipients.iter_mut().find(|copies| copies.address == address)
    }
}

/// What the writer of a line wrote there, without what stands in front.
pub(crate) fn text(line: &[u8]) -> Option<Cow<'_, [u8]>> {
    Line::read(line).map(|line| line.text)
}

/// Reads the log of a run, between the listings before and after it.
pub struct MailLog {
    grammar: Grammar,
    before: Before,
    untrusted: Option<u32>,
}

impl MailLog {
    /// The log of this mail server; `None` for one whose queue is not read. What the journal has from the user
    /// `untrusted` is passed over: any user can write lines like the mail server's.
    #[must_use]
    pub fn of(kind: Kind, untrusted: Option<u32>) -> Option<MailLog> {
        Some(MailLog { grammar: kind.row().reads.as_ref()?.log, before: Before::default(), untrusted })
    }

    /// Takes a message of the listing before the run.
    pub fn waited(&mut self, message: &Message<'_>) {
        let waiting = message.recipients.iter().filter(|recipient| !recipient.delivered);
        self.waited_for(&message.id, waiting.map(|recipient| &*recipient.address));
    }

    /// The same, by its queue id and the recipients to whom it was not delivered yet.
    pub(crate) fn waited_for<'a>(&mut self, id: &str, waiting: impl Iterator<Item = &'a str>) {
        let place = self.before.messages.len();
        let mut recipients: Vec<Copies> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for address in waiting {
            let known = *places.entry(address).or_insert(recipients.len());
            match recipients.get_mut(known) {
                Some(copies) => copies.before += 1,
                None => recipients.push(Copies {
                    address: address.to_owned(),
                    before: 1,
                    after: 0,
                    delivered: 0,
                    returned: Vec::new(),
                }),
            }
        }
        self.before.places.insert(id.to_owned(), place);
        self.before.messages.push(Waited { id: id.to_owned(), recipients, given_up: None });
    }

    /// Reads a line that the mail server wrote since then, without its line feed.
    pub fn line(&mut self, line: &[u8]) {
        let Some(Line { tag, text, .. }) =
            Line::read(line).filter(|line| line.user.is_none() || line.user != self.untrusted)
        else {
            return;
        };
        let Some(entry) = (self.grammar)(tag.as_deref(), &text, &self.before) else { return };
        let Some(message) = self.before.messages.get_mut(entry.message) else { return };
        match (entry.whose, entry.fate) {
            (Whose::Remaining, Fate::Returned(why)) => message.given_up = Some(why),
            // No mail server says so.
            (Whose::Remaining, Fate::Delivered) => {}
            (Whose::These(places), fate) => {
                for place in places {
                    let Some(copies) = message.recipients.get_mut(place) else { continue };
                    match &fate {
                        Fate::Delivered => copies.delivered += 1,
                        Fate::Returned(why) if copies.returned.len() < copies.before => {
                            copies.returned.push(why.clone());
                        }
                        Fate::Returned(_) => {}
                    }
                }
            }
        }
    }

    /// Takes a message of the listing after the run.
    pub fn waits(&mut self, message: &Message<'_>) {
        for recipient in message.recipients.iter().filter(|recipient| !recipient.delivered) {
            if let Some(copies) = self.before.copies(&message.id, &recipient.address) {
                copies.after += 1;
            }
        }
    }

    /// What became of each copy that waited before the run: queue id, recipient, outcome.
    pub fn outcomes(&self) -> impl Iterator<Item = (&str, &str, Outcome)> {
        self.before.messages.iter().flat_map(|message| {
            message.recipients.iter().flat_map(move |copies| {
                let outcomes = copies.outcomes(message.given_up.as_deref());
                outcomes.map(move |outcome| (message.id.as_str(), copies.address.as_str(), outcome))
            })
        })
    }
}

impl Copies {
    /// What became of each. What still waits is not gone, whatever the log says; what was delivered once is delivered.
    fn outcomes(&self, given_up: Option<&str>) -> impl Iterator<Item = Outcome> {
        let gone = self.before.saturating_sub(self.after);
        let delivered = gone.min(self.delivered);
        let returned = (gone - delivered).min(self.returned.len());
        let rest = given_up.map_or(Outcome::Unrecorded, |why| Outcome::Returned(why.to_owned()));
        let waiting = std::iter::repeat_n(Outcome::Waiting, self.before - gone);
        let reasons = self.returned.iter().take(returned).cloned().map(Outcome::Returned);
        waiting
            .chain(std::iter::repeat_n(Outcome::Delivered, delivered))
            .chain(reasons)
            .chain(std::iter::repeat_n(rest, gone - delivered - returned))
    }
}
