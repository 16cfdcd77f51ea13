//! What became of the messages of a queue run: the listing before it says who waited, the one after it who still does, and
//! the mail log what became of the others.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::mta::{self, Kind, MailLog};
use crate::queue::{Mask, Message, pattern};
use crate::state::{LISTED, SentBack, Tally};

/// How much room the notes take, in bytes of JSON: some 25,000 messages of one recipient.
pub(crate) const ROOM: usize = 4 << 20;

/// What a message and a recipient take there besides their own words, at the most.
const AROUND: usize = 48;

/// Different reasons that are counted one by one.
const DISTINCT_LIMIT: usize = 64;

/// A message that waited before a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Noted {
    /// Its queue id.
    pub(crate) id: String,
    /// The recipients to whom it was not delivered yet, as the listing has them.
    recipients: Vec<String>,
    /// Whether it has the null sender, to whom nothing goes back.
    null_sender: bool,
}

/// Notes messages while a listing passes by, as long as there is room.
pub(super) struct Notebook {
    pub(super) noted: Vec<Noted>,
    room: usize,
}

impl Notebook {
    pub(super) fn new(room: usize) -> Notebook {
        Notebook { noted: Vec::new(), room }
    }

    pub(super) fn add(&mut self, message: &Message<'_>) {
        let waiting = || message.recipients.iter().filter(|recipient| !recipient.delivered);
        let takes = |word: &str| 2 * word.len() + AROUND;
        let takes = takes(&message.id) + waiting().map(|recipient| takes(&recipient.address)).sum::<usize>();
        match self.room.checked_sub(takes) {
            Some(room) => {
                self.room = room;
                let recipients = waiting().map(|recipient| recipient.address.clone().into_owned()).collect();
                let null_sender = message.sender.as_deref() == Some("");
                self.noted.push(Noted { id: message.id.clone().into_owned(), recipients, null_sender });
            }
            // Of those that are not noted nothing is claimed, be they small or large.
            None => self.room = 0,
        }
    }
}

/// By what the outcome is judged, besides the listing after the run.
#[derive(Clone, Copy)]
pub(crate) struct Evidence<'a> {
    /// The messages before it.
    pub(crate) noted: &'a [Noted],
    /// The lines of the mail log.
    pub(crate) lines: &'a [u8],
    /// The user whose lines in the journal don't count: this program's own, which may be a taken-over web server's.
    pub(crate) untrusted: Option<u32>,
}

impl Evidence<'_> {
    /// Reads the log. A line that stands in two files, one of which is a copy of the other, counts once.
    pub(super) fn read(self, kind: Kind) -> Option<MailLog> {
        let mut log = MailLog::of(kind, self.untrusted)?;
        for Noted { id, recipients, .. } in self.noted {
            log.waited_for(id, recipients.iter().map(String::as_str));
        }
        let mut seen = HashSet::new();
        for line in self.lines.split(|byte| *byte == b'\n') {
            let mut hasher = DefaultHasher::new();
            line.hash(&mut hasher);
            if seen.insert(hasher.finish()) {
                log.line(line);
            }
        }
        Some(log)
    }
}

/// The outcomes in figures, with the first of those whose mail went back. Addresses are masked where they are to be.
pub(super) fn tally(log: &MailLog, noted: &[Noted], mask: Option<Mask>) -> Tally {
    let bounces: HashSet<&str> =
        noted.iter().filter(|noted| noted.null_sender).map(|noted| noted.id.as_str()).collect();
    let mut tally = Tally::default();
    let mut reasons: HashMap<String, u64> = HashMap::new();
    for (id, recipient, outcome) in log.outcomes() {
        match outcome {
            mta::Outcome::Delivered => tally.delivered += 1,
            mta::Outcome::Unrecorded => tally.unrecorded += 1,
            mta::Outcome::Waiting => {}
            mta::Outcome::Returned(_) if bounces.contains(id) => tally.double_bounces += 1,
            mta::Outcome::Returned(reason) => {
                tally.returned += 1;
                let shape = pattern(reply(&reason));
                if reasons.contains_key(&shape) || reasons.len() < DISTINCT_LIMIT {
                    *reasons.entry(shape).or_default() += 1;
                }
                if tally.sent_back.len() < LISTED {
                    let hidden = |mask: Mask| (mask.address(recipient), mask.text(&reason, recipient));
                    let (recipient, reason) = mask.map_or_else(|| (recipient.to_owned(), reason.clone()), hidden);
                    tally.sent_back.push(SentBack { id: id.to_owned(), recipient, reason });
                }
            }
        }
    }
    let several = reasons.len() > 1;
    let most = reasons
        .into_iter()
        .filter(|(reason, _)| !reason.is_empty())
        .max_by(|(a_reason, a), (b_reason, b)| a.cmp(b).then_with(|| b_reason.cmp(a_reason)));
    tally.reason =
        most.map(|(reason, _)| if several { format!("mostly {reason}") } else { reason }).unwrap_or_default();
    tally
}

/// The primary's reply in what a mail server says of it: from the status code on (RFC 5321, section 4.2), without what
/// Postfix puts behind it; all, where there is none.
fn reply(reason: &str) -> &str {
    let is_code =
        |word: &str| word.len() == 3 && word.starts_with(['4', '5']) && word.bytes().all(|b| b.is_ascii_digit());
    let starts = std::iter::once(0).chain(reason.match_indices(' ').map(|(at, _)| at + 1));
    let mut starts = starts.filter(|start| {
        let word = reason.get(*start..).unwrap_or_default().split([' ', '-']).next();
        word.is_some_and(is_code)
    });
    let reply = starts.next().and_then(|start| reason.get(start..)).unwrap_or(reason);
    reply.rfind(" (in reply to ").and_then(|end| reply.get(..end)).unwrap_or(reply).trim()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::remainder::tests::message;

    #[test]
    fn what_is_noted_is_bounded() {
        let mut notebook = Notebook::new(260);
        notebook.add(&message("A1", 1, &["x", "y"]));
        assert_eq!(
            notebook.noted,
            [Noted { id: "A1".into(), recipients: vec!["a@example.com".into(); 2], null_sender: false }]
        );
        notebook.add(&message("B2", 1, &["x", "y"]));
        notebook.add(&message("C3", 1, &[]));
        assert_eq!(notebook.noted.len(), 1, "nothing behind the first that has no room");
    }

    #[test]
    fn the_reply_is_what_the_primary_said() {
        for (reason, said) in [
            (
                "host mx[192.0.2.1] said: 550 5.1.1 <x@y.z>: User unknown (in reply to RCPT TO command)",
                "550 5.1.1 <x@y.z>: User unknown",
            ),
            ("SMTP error from remote mail server after RCPT TO:<x@y.z>: 550 no such user", "550 no such user"),
            ("550-first line 550 second", "550-first line 550 second"),
            ("it waited too long", "it waited too long"),
            ("", ""),
        ] {
            assert_eq!(reply(reason), said);
        }
    }

    fn postfix(lines: &[(&str, &str, &str)], mask: Option<Mask>) -> Tally {
        let noted: Vec<_> = lines
            .iter()
            .map(|(id, recipient, _)| Noted {
                id: (*id).into(),
                recipients: vec![(*recipient).into()],
                null_sender: *id == "BBBBBB1",
            })
            .collect();
        let line = |(id, recipient, status): &(&str, &str, &str)| {
            format!(
                "Nov 24 08:14:21 bartleby postfix/smtp[1]: {id}: to=<{recipient}>, relay=x, delay=1, delays=1/0/0/0, \
                 dsn=5.1.1, status={status}\n"
            )
        };
        let text: String = lines.iter().map(line).collect();
        let evidence = Evidence { noted: &noted, lines: text.as_bytes(), untrusted: None };
        tally(&evidence.read(Kind::Postfix).unwrap(), &noted, mask)
    }

    #[test]
    fn returns_are_counted_and_listed_with_the_commonest_reason() {
        let refused = |who: &str| {
            format!("bounced (host x said: 550 5.1.1 <{who}@example.com>: User unknown (in reply to RCPT TO command))")
        };
        let (larry, moe) = (refused("larry"), refused("moe"));
        let mut lines = vec![
            ("AAAAAA1", "larry@example.com", larry.as_str()),
            ("AAAAAA2", "moe@example.com", &moe),
            ("AAAAAA3", "curly@example.com", "sent (250 ok)"),
            ("AAAAAA4", "shemp@example.com", "deferred (451 later)"),
        ];
        let told = postfix(&lines, None);
        assert_eq!((told.delivered, told.returned, told.unrecorded), (1, 2, 1));
        assert_eq!(told.reason, "550 5.1.1 …: User unknown");
        assert_eq!(
            (told.sent_back[1].id.as_str(), told.sent_back[1].recipient.as_str()),
            ("AAAAAA2", "moe@example.com")
        );
        assert!(told.sent_back[1].reason.starts_with("host x said: 550 5.1.1 <moe@example.com>"));
        let masked = postfix(&lines, Some(Mask::LocalPart));
        assert_eq!(masked.sent_back[0].recipient, "…@example.com");
        assert!(!format!("{masked:?}").contains("larry"), "{masked:?}");
        lines.push(("AAAAAA5", "joe@example.com", "bounced (mail for example.com loops back to myself)"));
        assert_eq!(postfix(&lines, None).reason, "mostly 550 5.1.1 …: User unknown");
        // Nothing goes back to the null sender.
        lines.push(("BBBBBB1", "alice@example.org", &larry));
        let told = postfix(&lines, None);
        assert_eq!((told.returned, told.double_bounces, told.sent_back.len()), (3, 1, 3));
    }

    #[test]
    fn a_line_that_was_copied_counts_once() {
        let noted =
            [Noted { id: "0e78358b".into(), recipients: vec!["larry@example.com".into(); 2], null_sender: false }];
        let line = "Nov 24 07:00:00 bartleby smtpd[1]: 38f3a1c2a1b2c3d4 mta delivery evpid=0e78358bb2c3d4e5 from=<a@b.c> \
                    to=<larry@example.com> rcpt=<-> source=\"192.0.2.1\" relay=\"192.0.2.2\" delay=1s result=\"Ok\" stat=\"250\"\n";
        let both = line.repeat(2);
        let evidence = Evidence { noted: &noted, lines: both.as_bytes(), untrusted: None };
        let told = tally(&evidence.read(Kind::OpenSmtpd).unwrap(), &noted, None);
        assert_eq!((told.delivered, told.unrecorded), (1, 1));
    }
}
