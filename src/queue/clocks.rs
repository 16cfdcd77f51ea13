//! When a message goes back to its sender: a judgement over what its listing says, and how long the mail server keeps
//! mail.
//!
//! What the mail servers do was measured with each of them, to the second, with lifetimes of some minutes; `tests/lab`
//! measures it again.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Message, State};

/// How long a mail server keeps mail, in seconds, and from when it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifetimes {
    /// It is not known.
    #[default]
    Unknown,
    /// From the arrival of the message. When that time is over, it goes back at the next attempt that fails in any way
    /// (Postfix, sendmail).
    NotBefore {
        /// The shortest time for which any message is kept.
        message: i64,
        /// The same for a message with the null sender.
        null_sender: i64,
    },
    /// The same for each instance of the mail server by itself (Postfix). Of a message of any other it is not known.
    Each(Vec<OfInstance>),
    /// From the arrival of the message, which goes back to the second, without another attempt (OpenSMTPD).
    At {
        /// For how long each message is kept.
        message: i64,
    },
    /// From the first failure of the host that it goes to. Then all mail for that host goes back, whatever its age
    /// (Exim).
    About {
        /// For how long mail for each of these domains is kept.
        cutoffs: Vec<Cutoff>,
        /// For how long mail for any other is kept, in seconds; `None` where that is not known.
        otherwise: Option<i64>,
        /// The first failure, in seconds since 1970. Where it is not known, it is taken for that of the oldest message.
        failing_since: Option<i64>,
        /// For how long a frozen message is kept from its arrival; `None`: for ever.
        frozen: Option<i64>,
    },
}

/// For how long an instance of a mail server keeps mail, in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfInstance {
    /// Its name, which its messages have.
    pub name: String,
    /// The shortest time for which any message is kept.
    pub message: i64,
    /// The same for a message with the null sender.
    pub null_sender: i64,
}

/// For how long mail for a domain is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cutoff {
    /// The domain, in lower case.
    pub domain: String,
    /// In seconds.
    pub seconds: i64,
    /// When the hosts that it goes to began to fail, in seconds since 1970, where that is known.
    pub failing_since: Option<i64>,
}

/// When a message goes back to its sender. Instants are in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returns {
    /// At the next attempt, or at once: an administrator has let it expire, or it is being returned.
    Now,
    /// Not before this; then at the next attempt that fails.
    NotBefore(i64),
    /// At this instant.
    At(i64),
    /// About at this time, with all other mail for its host.
    About(i64),
    /// Never, as long as it is held.
    Never,
    /// It is not known.
    Unknown,
}

impl Returns {
    /// The instant, in seconds since 1970, where there is one; that of a message that goes back now lies before all
    /// others.
    pub(crate) fn instant(self) -> Option<i64> {
        match self {
            Returns::Now => Some(0),
            Returns::NotBefore(at) | Returns::At(at) | Returns::About(at) => Some(at),
            Returns::Never | Returns::Unknown => None,
        }
    }

    /// The instant before which the message does not go back, in seconds since 1970. There is none where that is only
    /// known roughly.
    pub(crate) fn not_before(self) -> Option<i64> {
        match self {
            Returns::NotBefore(at) | Returns::At(at) => Some(at),
            Returns::Now | Returns::About(_) | Returns::Never | Returns::Unknown => None,
        }
    }

    /// Whether the message is past its time, and still waits for the attempt that returns it.
    pub(crate) fn is_overdue(self, now: i64) -> bool {
        self != Returns::Now && self.is_by(now)
    }

    fn is_by(self, instant: i64) -> bool {
        self.instant().is_some_and(|at| at <= instant)
    }
}

impl Lifetimes {
    /// When this message goes back.
    pub fn returns(&self, message: &Message<'_>) -> Returns {
        let after = |seconds: i64| message.arrival.map(|arrival| arrival.saturating_add(seconds));
        let not_before = |any: i64, null_sender: i64| {
            let seconds = if message.sender.as_deref() == Some("") { null_sender } else { any };
            after(seconds).map_or(Returns::Unknown, Returns::NotBefore)
        };
        let held = message.state == State::Held && !message.plan.partly_held;
        match self {
            _ if message.being_returned && !held => Returns::Now,
            _ if message.plan.held_back => Returns::Unknown,
            Lifetimes::About { frozen: Some(frozen), .. } if held => {
                after(*frozen).map_or(Returns::Unknown, Returns::NotBefore)
            }
            _ if held => Returns::Never,
            Lifetimes::Unknown => Returns::Unknown,
            Lifetimes::NotBefore { message: any, null_sender } => not_before(*any, *null_sender),
            Lifetimes::Each(each) => {
                let of = each.iter().find(|of| message.instance.as_deref() == Some(&of.name));
                of.map_or(Returns::Unknown, |of| not_before(of.message, of.null_sender))
            }
            Lifetimes::At { message: any } => after(*any).map_or(Returns::Unknown, Returns::At),
            Lifetimes::About { cutoffs, otherwise, failing_since, .. } => {
                let at = first_cutoff(cutoffs, *otherwise, failing_since.or(message.arrival), message);
                at.map_or(Returns::Unknown, Returns::About)
            }
        }
    }

    /// The same, where a host's first failure decides and was not known: now taken for that of the oldest message that
    /// waits for it.
    #[must_use]
    pub(crate) fn since_oldest(&self, oldest: Option<i64>) -> Lifetimes {
        match self {
            Lifetimes::About { cutoffs, otherwise, failing_since, frozen } => Lifetimes::About {
                cutoffs: cutoffs.clone(),
                otherwise: *otherwise,
                failing_since: failing_since.or(oldest),
                frozen: *frozen,
            },
            other => other.clone(),
        }
    }
}

/// When the time is over of the first of the recipients still waiting, in seconds since 1970; `since`: when the hosts began to
/// fail of which it is not known.
fn first_cutoff(cutoffs: &[Cutoff], otherwise: Option<i64>, since: Option<i64>, message: &Message<'_>) -> Option<i64> {
    let waiting = message.recipients.iter().filter(|recipient| !recipient.delivered);
    let of_recipient = |domain: &str| match cutoffs.iter().find(|of| of.domain.eq_ignore_ascii_case(domain)) {
        Some(of) => Some(of.failing_since.or(since)?.saturating_add(of.seconds)),
        None => Some(since?.saturating_add(otherwise?)),
    };
    waiting.filter_map(|recipient| of_recipient(recipient.domain())).min()
}

/// The present, and how long mail is kept: what filters, orders and totals go by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clocks {
    /// The present, in seconds since 1970.
    pub now: i64,
    /// How long mail is kept.
    pub lifetimes: Lifetimes,
}

/// The present alone: it is not known how long mail is kept.
impl From<i64> for Clocks {
    fn from(now: i64) -> Clocks {
        Clocks { now, lifetimes: Lifetimes::Unknown }
    }
}

/// When the messages of a queue go back. Instants are in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlines {
    /// The earliest of the instants that are known, past ones too.
    pub first: Option<i64>,
    /// The earliest that is still to come.
    pub next: Option<i64>,
    /// How many messages are past their time, but still wait.
    pub overdue: u64,
    /// How many are being returned, or are at the next attempt: an administrator has let them expire. They count for nothing
    /// else here.
    pub returned: u64,
    /// Of how many that are not held the time is not known.
    pub unknown: u64,
    /// The arrival of the oldest message whose host's first failure decides.
    pub oldest_for_host: Option<i64>,
    /// The earliest next attempt that the listing names.
    pub next_attempt: Option<i64>,
}

impl Deadlines {
    /// Takes a message into account, and returns the instant at which it goes back.
    pub(super) fn add(&mut self, message: &Message<'_>, clocks: &Clocks) -> Option<i64> {
        let earliest = |one: Option<i64>, other: i64| Some(one.map_or(other, |one| one.min(other)));
        let returns = clocks.lifetimes.returns(message);
        match returns {
            Returns::Never => {}
            Returns::Unknown => self.unknown += 1,
            Returns::Now => self.returned += 1,
            Returns::NotBefore(at) | Returns::At(at) | Returns::About(at) => {
                self.first = earliest(self.first, at);
                if at > clocks.now {
                    self.next = earliest(self.next, at);
                }
            }
        }
        self.overdue += u64::from(returns.is_overdue(clocks.now));
        if let (Returns::About(_), Some(arrival)) = (returns, message.arrival) {
            self.oldest_for_host = earliest(self.oldest_for_host, arrival);
        }
        if let Some(next) = message.plan.next_attempt.filter(|_| message.state != State::Held) {
            self.next_attempt = earliest(self.next_attempt, next);
        }
        returns.instant().filter(|_| returns != Returns::Now)
    }
}

/// `returns=`: messages by when they go back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Due {
    /// Those that are past their time.
    Overdue,
    /// Those that go back within so many seconds, or are past their time.
    Within {
        /// More than zero.
        seconds: i64,
        /// As it was written.
        written: String,
    },
    /// Those that never go back, as they are held.
    Never,
}

impl Due {
    pub(super) fn holds(&self, returns: Returns, now: i64) -> bool {
        match self {
            Due::Overdue => returns.is_overdue(now),
            Due::Within { seconds, .. } => returns.is_by(now.saturating_add(*seconds)),
            Due::Never => returns == Returns::Never,
        }
    }
}

/// `overdue`, `never`, or a time such as `90m`, `12h` or `2d`.
impl FromStr for Due {
    type Err = ();

    fn from_str(text: &str) -> Result<Due, ()> {
        let (number, unit) = match text {
            "overdue" => return Ok(Due::Overdue),
            "never" => return Ok(Due::Never),
            _ => text.split_at_checked(text.len().wrapping_sub(1)).ok_or(())?,
        };
        let factor = match unit {
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            _ => return Err(()),
        };
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let number: u32 = number.parse().ok().filter(|number| *number > 0 && digits).ok_or(())?;
        Ok(Due::Within { seconds: i64::from(number) * factor, written: text.to_owned() })
    }
}

impl fmt::Display for Due {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Due::Overdue => "overdue",
            Due::Within { written, .. } => written,
            Due::Never => "never",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Plan, Recipient};

    const DAY: i64 = 24 * 60 * 60;

    fn message(arrival: i64, sender: &'static str) -> Message<'static> {
        let recipient = |address: &'static str, delivered| Recipient {
            address: address.into(),
            reason: None,
            delivered,
            last_attempt: None,
        };
        Message {
            id: "4F1A".into(),
            state: State::Deferred,
            mta_state: "deferred".into(),
            size: None,
            arrival: Some(arrival),
            sender: Some(sender.into()),
            recipients: vec![recipient("a@Example.com", false), recipient("b@other.example", true)],
            being_returned: false,
            too_young: false,
            instance: None,
            plan: Plan::default(),
        }
    }

    fn held(message: Message<'static>) -> Message<'static> {
        Message { state: State::Held, ..message }
    }

    fn expiring(message: Message<'static>) -> Message<'static> {
        Message { being_returned: true, ..message }
    }

    fn exim(failing_since: Option<i64>, frozen: Option<i64>) -> Lifetimes {
        let cutoff =
            |domain: &str, days: i64| Cutoff { domain: domain.to_owned(), seconds: days * DAY, failing_since: None };
        Lifetimes::About {
            cutoffs: vec![cutoff("example.com", 6), cutoff("other.example", 1)],
            otherwise: None,
            failing_since,
            frozen,
        }
    }

    #[test]
    fn a_message_is_kept_for_the_lifetime_of_its_sender() {
        let postfix = Lifetimes::NotBefore { message: 5 * DAY, null_sender: 2 * DAY };
        assert_eq!(postfix.returns(&message(100, "a@example.org")), Returns::NotBefore(100 + 5 * DAY));
        assert_eq!(postfix.returns(&message(100, "")), Returns::NotBefore(100 + 2 * DAY));
        assert_eq!(postfix.returns(&held(message(100, ""))), Returns::Never);
        assert_eq!(postfix.returns(&Message { arrival: None, ..message(0, "") }), Returns::Unknown);
        let of = |name: &str, days: i64| OfInstance { name: name.into(), message: days * DAY, null_sender: DAY };
        let each = Lifetimes::Each(vec![of("postfix", 5), of("postfix-out", 2)]);
        let from = |instance: &'static str, sender| Message { instance: Some(instance.into()), ..message(100, sender) };
        assert_eq!(each.returns(&from("postfix-out", "x")), Returns::NotBefore(100 + 2 * DAY));
        assert_eq!(each.returns(&from("postfix", "x")), Returns::NotBefore(100 + 5 * DAY));
        assert_eq!(each.returns(&from("postfix", "")), Returns::NotBefore(100 + DAY));
        assert_eq!(each.returns(&from("other", "x")), Returns::Unknown);
        assert_eq!(each.returns(&message(100, "x")), Returns::Unknown);
        let opensmtpd = Lifetimes::At { message: 4 * DAY };
        let partly = Plan { partly_held: true, ..Plan::default() };
        let partly = Message { plan: partly, ..held(message(100, "")) };
        assert_eq!(opensmtpd.returns(&partly), Returns::At(100 + 4 * DAY), "of the recipients that are not held");
        assert_eq!(opensmtpd.returns(&message(100, "")), Returns::At(100 + 4 * DAY));
        assert_eq!(opensmtpd.returns(&held(message(100, ""))), Returns::Never);
    }

    #[test]
    fn what_an_administrator_lets_expire_goes_back_now_unless_it_is_held() {
        for lifetimes in [Lifetimes::Unknown, Lifetimes::At { message: DAY }, exim(None, None)] {
            assert_eq!(lifetimes.returns(&expiring(message(100, ""))), Returns::Now);
            assert_eq!(lifetimes.returns(&held(expiring(message(100, "")))), Returns::Never);
            let held_back = Message { plan: Plan { held_back: true, ..Plan::default() }, ..message(100, "") };
            assert_eq!(lifetimes.returns(&held_back), Returns::Unknown);
        }
    }

    #[test]
    fn a_hosts_first_failure_counts_for_all_its_mail() {
        let returns = |lifetimes: Lifetimes, message: &Message<'_>| lifetimes.returns(message);
        assert_eq!(returns(exim(Some(50), None), &message(100, "x")), Returns::About(50 + 6 * DAY));
        assert_eq!(returns(exim(None, None), &message(100, "x")), Returns::About(100 + 6 * DAY));
        assert_eq!(returns(exim(None, None).since_oldest(Some(60)), &message(100, "x")), Returns::About(60 + 6 * DAY));
        assert_eq!(
            returns(exim(Some(50), None).since_oldest(Some(60)), &message(1, "x")),
            Returns::About(50 + 6 * DAY)
        );
        let elsewhere = Message { recipients: Vec::new(), ..message(100, "x") };
        assert_eq!(returns(exim(Some(50), None), &elsewhere), Returns::Unknown, "no rule is known");
        assert_eq!(returns(exim(Some(50), None), &held(message(100, "x"))), Returns::Never);
        assert_eq!(returns(exim(Some(50), Some(DAY)), &held(message(100, "x"))), Returns::NotBefore(100 + DAY));
    }

    #[test]
    fn totals_have_the_first_return_and_count_what_is_overdue() {
        let clocks = Clocks { now: 1000, lifetimes: Lifetimes::NotBefore { message: 500, null_sender: 100 } };
        let mut all = Deadlines::default();
        let next = |next| Plan { next_attempt: Some(next), ..Plan::default() };
        for message in [
            message(600, "x"),
            Message { plan: next(1500), ..message(400, "x") },
            Message { plan: next(1400), ..message(950, "") },
            Message { plan: next(1300), ..held(message(100, "x")) },
            Message { arrival: None, ..message(0, "x") },
        ] {
            all.add(&message, &clocks);
        }
        let expected = Deadlines {
            first: Some(900),
            next: Some(1050),
            overdue: 1,
            returned: 0,
            unknown: 1,
            oldest_for_host: None,
            next_attempt: Some(1400),
        };
        assert_eq!(all, expected);
        all.add(&expiring(message(999, "x")), &clocks);
        assert_eq!((all.overdue, all.returned, all.first), (1, 1, Some(900)));
    }

    #[test]
    fn without_a_lifetime_nothing_is_claimed() {
        let mut all = Deadlines::default();
        all.add(&message(600, "x"), &Clocks::from(1000));
        assert_eq!(all, Deadlines { unknown: 1, ..Deadlines::default() });
    }

    #[test]
    fn messages_are_asked_for_by_when_they_go_back() {
        let due = |text: &str| text.parse::<Due>();
        let holds = |text: &str, returns| due(text).unwrap().holds(returns, 1000);
        assert!(holds("overdue", Returns::NotBefore(1000)) && !holds("overdue", Returns::NotBefore(1001)));
        assert!(holds("1m", Returns::At(1060)) && !holds("1m", Returns::At(1061)) && holds("1m", Returns::Now));
        assert!(!holds("overdue", Returns::Now));
        assert!(holds("never", Returns::Never) && !holds("never", Returns::Unknown) && !holds("9d", Returns::Unknown));
        for text in ["overdue", "never", "90m", "12h", "2d"] {
            assert_eq!(due(text).unwrap().to_string(), text);
        }
        for text in ["", "d", "0h", "-1h", "+1h", "1w", "1.5h", "99999999999d", "1é", "Never"] {
            assert_eq!(due(text), Err(()), "{text}");
        }
    }
}
