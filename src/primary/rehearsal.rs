//! A rehearsal: what a primary says to the envelope of mail that waits for it, without any mail (RFC 5321, section
//! 3.3, as far as RCPT). A pure function: replies in, the next command out.
//!
//! Each command waits for its reply, as only so it can stop in time: a ban at the primary (fail2ban with Debian's filter
//! for Postfix and Exim) takes five refused recipients, so that no more than [`MOST_REFUSALS`] are risked, all
//! transactions together.

use serde::{Deserialize, Serialize};

use super::reply::{Nonsense, Reply};
use crate::config::is_name;
use crate::queue::is_plain_address;

/// The most recipients that are asked.
pub const MOST_RECIPIENTS: usize = 10;

/// The most replies to RCPT that are not 2xx: with this one it ends.
pub const MOST_REFUSALS: usize = 4;

/// A rehearsal under way.
#[derive(Debug)]
pub struct Rehearsal {
    own_name: String,
    recipients: Vec<String>,
    stage: Stage,
    answers: Answers,
}

/// What the next reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeting,
    Ehlo,
    Helo,
    Mail,
    /// The recipient of this place in the list.
    Recipient(usize),
    /// The end of the first transaction, before the second one.
    Reset,
    NullMail,
    NullRecipient,
    LastReset,
    Quit,
}

/// What was heard of the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A reply.
    Reply(Reply),
    /// It ended the connection.
    Closed,
    /// No whole reply in time.
    Late {
        /// The first line of one, where that came.
        begun: Option<String>,
    },
    /// No reply of a mail server.
    Nonsense(Nonsense),
}

/// A reply, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Its code.
    pub code: u16,
    /// Code and text in one line.
    pub words: String,
}

impl Said {
    fn of(reply: &Reply) -> Said {
        Said { code: reply.code, words: reply.words() }
    }

    pub(crate) fn is_accepting(&self) -> bool {
        self.code / 100 == 2
    }

    pub(crate) fn is_refusing(&self) -> bool {
        self.code / 100 == 5
    }

    /// Whether a ban at the primary may count it: each refusal, and of the others what Debian's filter for Postfix
    /// matches (relay denied, host or domain not found: 4.7.1 and 4.1.8).
    fn is_counted(&self) -> bool {
        self.is_refusing() || ["4.7.1", "4.1.8"].contains(&enhanced(&self.words))
    }
}

/// What a reply to RCPT counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Counts {
    /// Accepted.
    Accepted,
    /// Refused for good.
    Refused {
        /// Whether the cause may be the sender of the rehearsal.
        sender: bool,
    },
    /// Put off.
    PutOff,
}

/// A recipient that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Its address.
    pub recipient: String,
    /// The reply.
    pub said: Said,
    /// What that counts as.
    pub counts: Counts,
}

/// How a rehearsal ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum End {
    /// All was asked that was to be asked.
    #[default]
    Done,
    /// The primary ended the connection.
    Closed,
    /// The time was used up; whether it had begun to greet, or to say 220 again.
    Late(bool),
    /// It said what no mail server says: what is wrong.
    Nonsense(String),
    /// There was no connection: why.
    Unreached(String),
}

/// What a primary answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// The greeting.
    pub greeting: Option<Said>,
    /// The reply to EHLO, or to HELO where it knows no EHLO.
    pub hello: Option<Said>,
    /// Whether EHLO offers STARTTLS.
    pub offers_tls: bool,
    /// The longest message that it takes, in bytes, where EHLO says so (RFC 1870).
    pub longest: Option<u64>,
    /// The reply to MAIL.
    pub mail: Option<Said>,
    /// The recipients, in the order in which they were asked.
    pub recipients: Vec<Asked>,
    /// That it takes no more recipients at a time, in its words: no answer about a recipient.
    pub limit: Option<Said>,
    /// The reply to the null sender: to its MAIL where that was not accepted, else to its RCPT.
    pub null_sender: Option<Said>,
    /// How it ended.
    pub end: End,
}

impl Answers {
    /// A rehearsal that never began, as there was no connection.
    pub(crate) fn unreached(why: String) -> Answers {
        Answers { end: End::Unreached(why), ..Answers::default() }
    }

    /// Whether there was a connection.
    pub(crate) fn was_reached(&self) -> bool {
        !matches!(self.end, End::Unreached(_))
    }

    /// How many recipients were answered so.
    pub(crate) fn count(&self, is_meant: impl Fn(Counts) -> bool) -> usize {
        self.recipients.iter().filter(|asked| is_meant(asked.counts)).count()
    }

    /// How many were accepted.
    pub fn accepted(&self) -> usize {
        self.count(|counts| counts == Counts::Accepted)
    }

    /// How many were refused for good.
    pub fn refused(&self) -> usize {
        self.count(|counts| matches!(counts, Counts::Refused { .. }))
    }

    /// Whether none was accepted, and one was refused for what may be the rehearsal's sender.
    pub(crate) fn blames_sender(&self) -> bool {
        self.accepted() == 0 && self.count(|counts| counts == Counts::Refused { sender: true }) > 0
    }

    /// Whether it wants TLS before any mail (530 is also what RFC 4954 has for authentication).
    pub(crate) fn wants_tls(&self) -> bool {
        self.offers_tls && self.mail.as_ref().is_some_and(|said| said.code == 530)
    }

    /// Whether it left something in the primary's log that a ban counts.
    pub(crate) fn leaves_refusals(&self) -> bool {
        let alone = [&self.greeting, &self.hello, &self.mail, &self.limit, &self.null_sender];
        let alone = alone.into_iter().flatten();
        alone.chain(self.recipients.iter().map(|asked| &asked.said)).any(Said::is_counted)
    }
}

impl Rehearsal {
    /// One that greets as `own_name` and asks for the first of these recipients. Of them only
    /// [plain](is_plain_address) ones are, whoever named them.
    pub fn new(own_name: &str, recipients: &[String]) -> Rehearsal {
        let own_name = if is_name(own_name) { own_name } else { "localhost" };
        let plain = recipients.iter().filter(|address| is_plain_address(address));
        let recipients = plain.take(MOST_RECIPIENTS).cloned().collect();
        Rehearsal { own_name: own_name.to_owned(), recipients, stage: Stage::Greeting, answers: Answers::default() }
    }

    /// Takes what was heard, and returns the next command, without its line end. `None`: it is over. The first that is
    /// heard is the greeting.
    pub fn next(&mut self, heard: Heard) -> Option<String> {
        let reply = match heard {
            Heard::Reply(reply) => reply,
            // What comes of the farewell changes nothing.
            _ if matches!(self.stage, Stage::LastReset | Stage::Quit) => return None,
            Heard::Closed => return self.end(End::Closed),
            Heard::Late { begun } => return self.end(End::Late(begun.is_some_and(|line| line.starts_with("220")))),
            Heard::Nonsense(nonsense) => return self.end(End::Nonsense(nonsense.to_string())),
        };
        let said = Said::of(&reply);
        let is_closing = said.code == 421;
        match self.stage {
            Stage::Greeting => {
                let is_open = said.code == 220;
                self.answers.greeting = Some(said);
                if is_open { self.say(Stage::Ehlo) } else { self.say(Stage::Quit) }
            }
            Stage::Ehlo if said.is_refusing() => self.say(Stage::Helo),
            Stage::Ehlo | Stage::Helo => {
                let is_taken = said.is_accepting();
                if self.stage == Stage::Ehlo {
                    self.read_extensions(&reply);
                }
                self.answers.hello = Some(said);
                if is_taken { self.say(Stage::Mail) } else { self.say(Stage::Quit) }
            }
            Stage::Mail => {
                let (is_taken, is_refused) = (said.is_accepting(), said.is_refusing());
                self.answers.mail = Some(said);
                match () {
                    () if is_closing => self.say(Stage::Quit),
                    () if is_taken => self.ask(0),
                    () if is_refused && !self.answers.wants_tls() => self.say(Stage::Reset),
                    () => self.say(Stage::LastReset),
                }
            }
            Stage::Recipient(place) => match self.counts(place, &said) {
                None => {
                    self.answers.limit = Some(said);
                    self.say(Stage::LastReset)
                }
                Some(counts) => {
                    let recipient = self.recipients.get(place).cloned().unwrap_or_default();
                    self.answers.recipients.push(Asked { recipient, said, counts });
                    if is_closing { self.say(Stage::Quit) } else { self.ask(place + 1) }
                }
            },
            Stage::Reset => self.say(Stage::NullMail),
            Stage::NullMail if said.is_accepting() => self.say(Stage::NullRecipient),
            Stage::NullMail | Stage::NullRecipient => {
                self.answers.null_sender = Some(said);
                self.say(if is_closing { Stage::Quit } else { Stage::LastReset })
            }
            Stage::LastReset => self.say(Stage::Quit),
            Stage::Quit => None,
        }
    }

    /// Whether nothing more is to be learnt: the command that was just returned is the last RSET, or QUIT.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.stage, Stage::LastReset | Stage::Quit)
    }

    /// Whether the command that was just returned is QUIT.
    pub(crate) fn says_goodbye(&self) -> bool {
        self.stage == Stage::Quit
    }

    /// What was answered.
    pub fn answers(self) -> Answers {
        self.answers
    }

    fn end(&mut self, end: End) -> Option<String> {
        self.answers.end = end;
        None
    }

    /// The command after which the next reply belongs to that stage.
    fn say(&mut self, stage: Stage) -> Option<String> {
        // A mail that waits can only go to somebody.
        let stage = if stage == Stage::Reset && self.recipients.is_empty() { Stage::LastReset } else { stage };
        self.stage = stage;
        let recipient = |place: usize| format!("RCPT TO:<{}>", self.recipients.get(place).map_or("", String::as_str));
        Some(match stage {
            Stage::Greeting => return None,
            Stage::Ehlo => format!("EHLO {}", self.own_name),
            Stage::Helo => format!("HELO {}", self.own_name),
            Stage::Mail => format!("MAIL FROM:<{}>", self.sender()),
            Stage::Recipient(place) => recipient(place),
            Stage::Reset | Stage::LastReset => "RSET".to_owned(),
            Stage::NullMail => "MAIL FROM:<>".to_owned(),
            Stage::NullRecipient => recipient(self.blaming()),
            Stage::Quit => "QUIT".to_owned(),
        })
    }

    fn sender(&self) -> String {
        format!("postmaster@{}", self.own_name)
    }

    /// The place of the first recipient that was refused for what may be the sender.
    fn blaming(&self) -> usize {
        let blames = |asked: &Asked| asked.counts == Counts::Refused { sender: true };
        self.answers.recipients.iter().position(blames).unwrap_or_default()
    }

    /// Asks for the recipient of this place, or ends the transaction.
    fn ask(&mut self, place: usize) -> Option<String> {
        let refusals = self.answers.recipients.len() - self.answers.accepted();
        let blames_sender = self.answers.blames_sender();
        // The null sender's single recipient may be refused, too.
        let most = if blames_sender { MOST_REFUSALS - 1 } else { MOST_REFUSALS };
        match () {
            () if place < self.recipients.len() && refusals < most => self.say(Stage::Recipient(place)),
            () if blames_sender && refusals < MOST_REFUSALS => self.say(Stage::Reset),
            () => self.say(Stage::LastReset),
        }
    }

    /// What a reply to RCPT counts as; `None` where it only says that these are enough at a time.
    fn counts(&self, place: usize, said: &Said) -> Option<Counts> {
        let code = enhanced(&said.words);
        let text = said.words.to_lowercase();
        let is_limit = code.ends_with(".5.3") || (self.answers.accepted() > 0 && text.contains("too many recipients"));
        match () {
            () if said.is_accepting() => Some(Counts::Accepted),
            () if said.code == 421 => Some(Counts::PutOff),
            () if is_limit => None,
            () if said.is_refusing() => {
                let recipient = self.recipients.get(place).map_or("", String::as_str);
                Some(Counts::Refused { sender: self.may_blame_sender(code, &text, recipient) })
            }
            () => Some(Counts::PutOff),
        }
    }

    /// Whether a refusal may be for the rehearsal's sender: by its enhanced code (RFC 3463 and 7372), or by its words.
    fn may_blame_sender(&self, code: &str, text: &str, recipient: &str) -> bool {
        const CODES: [&str; 7] = ["5.1.7", "5.1.8", "5.7.23", "5.7.24", "5.7.25", "5.7.26", "5.7.27"];
        const WORDS: [&str; 4] = ["sender", "spf", "dmarc", "helo"];
        // What may stand in the recipient's own address says nothing.
        let text = text.replace(&recipient.to_lowercase(), " ");
        let is_word = |word: &str| WORDS.contains(&word);
        CODES.contains(&code)
            || text.contains(&self.sender().to_lowercase())
            || text.split(|c: char| !c.is_ascii_alphanumeric()).any(is_word)
    }

    /// Takes what EHLO says of TLS and size.
    fn read_extensions(&mut self, reply: &Reply) {
        // The first line is a greeting.
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            match words.next().map(str::to_ascii_uppercase).as_deref() {
                Some("STARTTLS") => self.answers.offers_tls = true,
                // 0 stands for no fixed limit.
                Some("SIZE") => {
                    self.answers.longest = words.next().and_then(|size| size.parse().ok()).filter(|size| *size > 0);
                }
                _ => {}
            }
        }
    }
}

/// The enhanced status code of a reply (RFC 3463), as in `550 5.1.1 ...`; empty where there is none.
fn enhanced(words: &str) -> &str {
    let code = words.split_ascii_whitespace().nth(1).unwrap_or_default();
    let is_number = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if code.split('.').count() == 3 && code.split('.').all(is_number) { code } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str) -> Heard {
        let (code, rest) = text.split_at(3);
        Heard::Reply(Reply { code: code.parse().unwrap(), lines: rest.split('|').map(str::to_owned).collect() })
    }

    /// The commands of a rehearsal for so many recipients that hears these replies, and what comes of it.
    fn played(recipients: usize, replies: &[&str]) -> (Vec<String>, Answers) {
        let recipients: Vec<_> = (0..recipients).map(|number| format!("user{number}@example.com")).collect();
        let mut rehearsal = Rehearsal::new("mx2.example.com", &recipients);
        let mut replies = replies.iter();
        let mut next = || replies.next().map_or(Heard::Closed, |text| reply(text));
        let mut commands = Vec::new();
        while let Some(command) = rehearsal.next(next()) {
            commands.push(command);
        }
        (commands, rehearsal.answers())
    }

    #[test]
    fn it_greets_asks_for_recipients_and_leaves() {
        let (commands, answers) = played(
            2,
            &["220 mx", "250 mx| SIZE 100| STARTTLS", "250 ok", "250 ok", "550 5.1.1 no", "250 ok", "221 bye"],
        );
        let expected = [
            "EHLO mx2.example.com",
            "MAIL FROM:<postmaster@mx2.example.com>",
            "RCPT TO:<user0@example.com>",
            "RCPT TO:<user1@example.com>",
            "RSET",
            "QUIT",
        ];
        assert_eq!(commands, expected);
        assert_eq!((answers.accepted(), answers.refused(), answers.end), (1, 1, End::Done));
        assert_eq!((answers.offers_tls, answers.longest), (true, Some(100)));
    }

    #[test]
    fn it_ends_at_the_fourth_refusal_of_whatever_kind() {
        let begin = ["220 mx", "250 mx", "250 ok"];
        for refusal in ["550 5.1.1 unknown", "450 4.2.0 later"] {
            let (commands, answers) = played(10, &[&begin[..], &[refusal; 4], &["250 ok", "221 bye"]].concat());
            assert_eq!((commands.len(), answers.recipients.len()), (8, 4), "{commands:?}");
        }
        let (commands, answers) = played(10, &[&begin[..], &["250 ok"; 10], &["250 ok", "221 bye"]].concat());
        assert_eq!((commands.len(), answers.accepted()), (14, 10));
    }

    #[test]
    fn where_the_sender_may_be_the_cause_the_null_sender_is_asked_and_four_refusals_are_all_that_are_left() {
        let begin = ["220 mx", "250 mx", "250 ok"];
        let sender = "554 5.7.1 <postmaster@mx2.example.com>: Sender address rejected";
        let (commands, answers) =
            played(10, &[&begin[..], &[sender; 3], &["250 ok", "250 ok", "550 no", "250 ok", "221 bye"]].concat());
        let end = ["RSET", "MAIL FROM:<>", "RCPT TO:<user0@example.com>", "RSET", "QUIT"];
        assert_eq!(commands[5..], end);
        assert_eq!(answers.null_sender.unwrap().words, "550 no");
        // Three others before it: no fifth refusal is risked.
        let (commands, _) = played(
            10,
            &[&begin[..], &["550 5.1.1 unknown"; 3], &["550 5.1.8 no such domain", "250 ok", "221 bye"]].concat(),
        );
        assert_eq!(commands[6..], ["RSET", "QUIT"]);
        let (commands, answers) =
            played(10, &["220 mx", "250 mx", "550 no", "250 ok", "550 neither", "250 ok", "221 bye"]);
        assert_eq!(commands[2..], ["RSET", "MAIL FROM:<>", "RSET", "QUIT"]);
        assert_eq!(answers.null_sender.unwrap().words, "550 neither");
    }

    #[test]
    fn a_recipient_whose_address_says_sender_does_not_blame_it() {
        let rehearsal = Rehearsal::new("mx2.example.com", &["spf@sender.example".to_owned()]);
        let counts = |words: &str| {
            let said = Said { code: words[..3].parse().unwrap(), words: words.to_owned() };
            rehearsal.counts(0, &said)
        };
        let refused = |sender| Some(Counts::Refused { sender });
        assert_eq!(counts("550 5.1.1 <spf@sender.example>: User unknown"), refused(false));
        assert_eq!(counts("550 <SPF@Sender.example> is unknown, dispf"), refused(false));
        assert_eq!(counts("550 5.7.23 no"), refused(true));
        assert_eq!(counts("550 SPF check failed"), refused(true));
        assert_eq!(counts("550-Verification failed for <postmaster@mx2.example.com>"), refused(true));
        assert_eq!(counts("553 5.1.8 <spf@sender.example>... Domain of sender address does not exist"), refused(true));
        assert_eq!(counts("552 too many recipients"), refused(false), "none was accepted before");
        assert_eq!(counts("452 4.5.3 enough"), None);
        assert_eq!(counts("354 what?"), Some(Counts::PutOff));
    }

    #[test]
    fn an_answer_that_a_ban_counts_is_remembered_as_that() {
        let asked = |words: &str| {
            let said = Said { code: words[..3].parse().unwrap(), words: words.to_owned() };
            let counts = Counts::PutOff;
            Answers { recipients: vec![Asked { recipient: String::new(), said, counts }], ..Answers::default() }
                .leaves_refusals()
        };
        assert!(asked("550 no") && asked("454 4.7.1 Relay access denied") && asked("450 4.1.8 Domain not found"));
        assert!(!asked("450 4.2.0 Greylisted") && !asked("250 ok"));
    }

    #[test]
    fn nothing_but_plain_addresses_is_ever_said() {
        let odd =
            ["a\r\nDATA@example.com", "\"a b\"@example.com", "<x@example.com", "ü@example.com", "a@b@example.com"];
        let odd: Vec<_> = odd.iter().map(|address| (*address).to_owned()).collect();
        assert!(Rehearsal::new("mx2", &odd).recipients.is_empty());
        assert_eq!(Rehearsal::new("mx2\r\nQUIT", &[]).own_name, "localhost");
    }
}
