//! What a rehearsal says of a queue run: the first row of a table that fits.
//!
//! Which replies make a mail server return mail was seen with Postfix 3.7, sendmail 8.17, Exim 4.96 and OpenSMTPD 6.8
//! as the fall-back; `tests/fixtures/rehearsal` has what primaries answer.

use serde::{Deserialize, Serialize};

use super::rehearsal::{Answers, Counts, End, Said};
use crate::mta::Kind;

/// What a primary would do with the mail that waits, as far as an envelope shows. The later one is the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// It accepts the recipients.
    Accepts,
    /// It refuses the rehearsal's own sender, and accepts the null sender: it says nothing against the mail that waits.
    AcceptsOthers,
    /// It refuses fewer than half of the recipients.
    RefusesSome,
    /// It puts all of them off.
    PutsOff,
    /// It is not known.
    NotKnown(NotKnown),
    /// It refuses what waits: a queue run would return it to its senders.
    Refuses(Refuses),
}

/// Why nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NotKnown {
    /// It can't be reached.
    Unreached,
    /// It did not greet.
    NoGreeting,
    /// It began to greet: it is up, and lets callers wait.
    LetsWait,
    /// It wants TLS first, which this program does not speak.
    WantsTls,
    /// It answered for no recipient.
    NoAnswer,
    /// It said what no mail server says.
    Nonsense,
}

/// What is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Refuses {
    /// The connection, which makes this host's mail server return everything.
    Connection,
    /// Every sender.
    Senders,
    /// Half of the recipients that it answered for, or more.
    Recipients,
}

impl Verdict {
    /// The verdict on these answers, for the mail server of this host.
    pub fn on(answers: &Answers, kind: Kind) -> Verdict {
        let is = |said: &Option<Said>, class: u16| said.as_ref().is_some_and(|said| said.code / 100 == class);
        let Answers { greeting, hello, mail, null_sender, end, .. } = answers;
        let (refused, accepted, answered) = (answers.refused(), answers.accepted(), answers.recipients.len());
        let by_recipients = match () {
            () if answered == 0 => Verdict::NotKnown(NotKnown::NoAnswer),
            () if refused * 2 >= answered => Verdict::Refuses(Refuses::Recipients),
            () if matches!(end, End::Nonsense(_)) => Verdict::NotKnown(NotKnown::Nonsense),
            () if refused > 0 => Verdict::RefusesSome,
            () if accepted == 0 => Verdict::PutsOff,
            () => Verdict::Accepts,
        };
        let seems_sender = is(mail, 5) || answers.blames_sender();
        match (end, greeting, null_sender) {
            (End::Unreached(_), ..) => Verdict::NotKnown(NotKnown::Unreached),
            _ if is(greeting, 5) && !keeps_at_greeting(kind) => Verdict::Refuses(Refuses::Connection),
            _ if is(greeting, 5) => Verdict::PutsOff,
            (End::Late(true), None, _) => Verdict::NotKnown(NotKnown::LetsWait),
            (End::Nonsense(_), None, _) => Verdict::NotKnown(NotKnown::Nonsense),
            (_, None, _) => Verdict::NotKnown(NotKnown::NoGreeting),
            _ if answers.wants_tls() => Verdict::NotKnown(NotKnown::WantsTls),
            (_, _, Some(said)) if seems_sender => match said.code / 100 {
                2 => Verdict::AcceptsOthers,
                5 => Verdict::Refuses(Refuses::Senders),
                _ => Verdict::PutsOff,
            },
            _ if is(greeting, 4) || is(hello, 4) || is(mail, 4) => Verdict::PutsOff,
            (End::Nonsense(_), ..) if answered == 0 => Verdict::NotKnown(NotKnown::Nonsense),
            _ => by_recipients,
        }
    }

    /// In a word, for machines.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verdict::Accepts => "accepts",
            Verdict::AcceptsOthers => "accepts_others",
            Verdict::RefusesSome => "refuses_some",
            Verdict::PutsOff => "puts_off",
            Verdict::NotKnown(_) => "not_known",
            Verdict::Refuses(_) => "refuses",
        }
    }

    /// Whether the queue can be run, as far as refusals and deferrals are concerned.
    pub fn is_good(self) -> bool {
        self < Verdict::PutsOff
    }

    /// Whether a run would return the mail that waits.
    pub fn is_refusal(self) -> bool {
        matches!(self, Verdict::Refuses(_))
    }
}

/// Whether this host's mail server keeps mail that is turned away by the greeting (554, 521): Postfix and OpenSMTPD do,
/// sendmail and Exim return it. Of others it is not known.
fn keeps_at_greeting(kind: Kind) -> bool {
    matches!(kind, Kind::Postfix | Kind::OpenSmtpd)
}

impl Counts {
    /// In a word, for machines.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Counts::Accepted => "accepted",
            Counts::Refused { .. } => "refused",
            Counts::PutOff => "put_off",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primary::rehearsal::Asked;

    fn said(words: &str) -> Option<Said> {
        Some(Said { code: words[..3].parse().unwrap(), words: words.to_owned() })
    }

    /// Answers to these recipients: `a`ccepted, `r`efused, `p`ut off.
    fn answers(recipients: &str) -> Answers {
        let asked = |kind: char| Asked {
            recipient: "user@example.com".into(),
            said: Said { code: 250, words: "250 ok".into() },
            counts: match kind {
                'a' => Counts::Accepted,
                'r' => Counts::Refused { sender: false },
                's' => Counts::Refused { sender: true },
                _ => Counts::PutOff,
            },
        };
        let recipients = recipients.chars().map(asked).collect();
        Answers {
            greeting: said("220 mx"),
            hello: said("250 mx"),
            mail: said("250 ok"),
            recipients,
            ..Answers::default()
        }
    }

    fn verdict(answers: &Answers) -> Verdict {
        Verdict::on(answers, Kind::Postfix)
    }

    #[test]
    fn half_of_the_recipients_refused_is_a_refusal_and_fewer_are_a_note() {
        for (recipients, expected) in [
            ("aaaaaaaaaa", Verdict::Accepts),
            ("aaapaaaaaa", Verdict::Accepts),
            ("araaaraaaa", Verdict::RefusesSome),
            ("arar", Verdict::Refuses(Refuses::Recipients)),
            ("r", Verdict::Refuses(Refuses::Recipients)),
            ("rp", Verdict::Refuses(Refuses::Recipients)),
            ("rpp", Verdict::RefusesSome),
            ("pppp", Verdict::PutsOff),
            ("", Verdict::NotKnown(NotKnown::NoAnswer)),
        ] {
            assert_eq!(verdict(&answers(recipients)), expected, "{recipients}");
        }
    }

    #[test]
    fn what_is_said_against_the_sender_alone_is_not_against_the_mail() {
        let with_null = |recipients: &str, null: &str| Answers { null_sender: said(null), ..answers(recipients) };
        assert_eq!(verdict(&with_null("sss", "250 ok")), Verdict::AcceptsOthers);
        assert_eq!(verdict(&with_null("sss", "450 later")), Verdict::PutsOff);
        assert_eq!(verdict(&with_null("sss", "550 no")), Verdict::Refuses(Refuses::Senders));
        assert_eq!(verdict(&answers("sss")), Verdict::Refuses(Refuses::Recipients), "the null sender was not answered");
        assert_eq!(verdict(&answers("saa")), Verdict::RefusesSome);
        let at_mail = Answers { mail: said("550 no"), ..answers("") };
        assert_eq!(verdict(&at_mail), Verdict::NotKnown(NotKnown::NoAnswer));
        assert_eq!(verdict(&Answers { null_sender: said("250 ok"), ..at_mail }), Verdict::AcceptsOthers);
    }

    #[test]
    fn a_greeting_that_turns_away_returns_mail_with_some_mail_servers_alone() {
        let answers = Answers { greeting: said("554 no service"), ..Answers::default() };
        for (kind, expected) in [
            (Kind::Postfix, Verdict::PutsOff),
            (Kind::OpenSmtpd, Verdict::PutsOff),
            (Kind::Sendmail, Verdict::Refuses(Refuses::Connection)),
            (Kind::Exim, Verdict::Refuses(Refuses::Connection)),
        ] {
            assert_eq!(Verdict::on(&answers, kind), expected);
        }
    }

    #[test]
    fn what_is_not_answered_is_not_known() {
        let ended = |end, recipients: &str| verdict(&Answers { end, ..answers(recipients) });
        let greeted = |end| verdict(&Answers { end, ..Answers::default() });
        assert_eq!(greeted(End::Late(false)), Verdict::NotKnown(NotKnown::NoGreeting));
        assert_eq!(greeted(End::Closed), Verdict::NotKnown(NotKnown::NoGreeting));
        assert_eq!(greeted(End::Late(true)), Verdict::NotKnown(NotKnown::LetsWait));
        assert_eq!(greeted(End::Unreached("refused".into())), Verdict::NotKnown(NotKnown::Unreached));
        let nonsense = || End::Nonsense("its reply has no end".into());
        assert_eq!(greeted(nonsense()), Verdict::NotKnown(NotKnown::Nonsense));
        assert_eq!(ended(nonsense(), ""), Verdict::NotKnown(NotKnown::Nonsense));
        assert_eq!(ended(nonsense(), "aaa"), Verdict::NotKnown(NotKnown::Nonsense), "what comes next may be anything");
        assert_eq!(ended(nonsense(), "rr"), Verdict::Refuses(Refuses::Recipients));
        assert_eq!(ended(End::Closed, "aaa"), Verdict::Accepts);
        assert_eq!(ended(End::Late(false), "aaa"), Verdict::Accepts, "what was answered counts");
        let tls =
            Answers { mail: said("530 5.7.0 Must issue a STARTTLS command first"), offers_tls: true, ..answers("") };
        assert_eq!(verdict(&tls), Verdict::NotKnown(NotKnown::WantsTls));
    }

    #[test]
    fn the_worse_verdict_is_the_later_one() {
        let refuses = Verdict::Refuses(Refuses::Connection);
        let order = [Verdict::Accepts, Verdict::AcceptsOthers, Verdict::RefusesSome, Verdict::PutsOff];
        assert!(order.is_sorted() && order[3] < Verdict::NotKnown(NotKnown::Unreached));
        assert!(refuses > Verdict::NotKnown(NotKnown::Nonsense));
        assert!(
            refuses.is_refusal() && !refuses.is_good() && Verdict::RefusesSome.is_good() && !Verdict::PutsOff.is_good()
        );
    }
}
