//! The rehearsal before a queue run: whether its verdict lets the queue be run, and what is said of it.
//!
//! A run is two ways of returning mail. A primary that answers is not yet one that takes mail: one that was restored
//! without its mailboxes refuses everybody for good. And what waits for longer than the mail server keeps it goes back
//! at the next attempt that fails in any way, of which the run is one.

use std::cmp::Reverse;

use super::Care;
use crate::context::Context;
use crate::mta::timing::{Lifetime, Timing};
use crate::primary::rehearsal::{Answers, Asked, Counts, End, Said};
use crate::primary::verdict::{NotKnown, Refuses, Verdict};
use crate::primary::{Grounds, Lacks, Rehearsed};
use crate::queue::{Candidate, Despite, Mask, Stakes, Target};
use crate::text::{bytes, count, duration, local_time};

/// How many refused recipients a sentence names.
const NAMED: usize = 3;

/// A run that was not started, for what the primaries would do to it.
#[derive(Debug)]
pub(crate) struct NotRun {
    /// What was to be run.
    pub(crate) target: Target,
    /// What they said, the worst first.
    pub(crate) asked: Vec<Spoken>,
    why: Why,
}

/// Why a run would return mail.
#[derive(Debug)]
enum Why {
    /// A primary refuses it.
    Refused,
    /// A primary does not accept it now, and it has waited for longer than it is kept.
    Overdue {
        /// How many messages.
        messages: u64,
        /// For how long they are kept, and what says so.
        kept: Option<String>,
        /// How an administrator gives them more time.
        more_time: String,
    },
}

/// What one primary said, as it may be shown.
#[derive(Clone, Debug)]
pub(crate) struct Spoken {
    /// Its words, without what is to be hidden.
    pub(crate) rehearsed: Rehearsed,
    /// When that was, as people here read it, where it was not now.
    pub(crate) earlier: Option<String>,
    /// Messages that wait for it and are larger than it takes, in a sentence.
    pub(crate) too_large: Option<String>,
}

/// What came of a rehearsal after which the queue may be run.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// In a sentence or two; `None` where none was wanted.
    pub(crate) said: Option<String>,
    /// The oldest message for a recipient that was accepted.
    pub(crate) oldest_accepted: Option<Candidate>,
}

/// Asks the primaries for some of the recipients that wait.
///
/// # Errors
/// A run would return mail.
pub(super) fn rehearse(
    context: &Context,
    grounds: &Grounds,
    target: &Target,
    stakes: &Stakes,
    timing: &Timing,
    care: &Care,
) -> Result<Heard, NotRun> {
    let asked = match grounds.rehearse(context, &stakes.candidates) {
        Ok(asked) => asked,
        Err(lacks) => return Ok(Heard { said: Some(not_asked(lacks)), oldest_accepted: None }),
    };
    let oldest_accepted = asked.iter().filter_map(Rehearsed::oldest_accepted).min_by_key(|one| one.arrival).cloned();
    let mut asked: Vec<_> = asked.into_iter().map(|rehearsed| Spoken::of(rehearsed, stakes, context)).collect();
    asked.sort_by_key(|spoken| Reverse(spoken.rehearsed.verdict));
    let messages = overdue(&asked, stakes);
    let why = match care {
        _ if asked.iter().any(|spoken| spoken.rehearsed.verdict.is_refusal()) => Some(Why::Refused),
        Care::Despite(Despite::Overdue) => None,
        _ if messages > 0 => Some(Why::overdue(messages, timing)),
        _ => None,
    };
    if let Some(why) = why {
        return Err(NotRun { target: target.clone(), asked, why });
    }
    let said = asked.iter().map(Spoken::sentence).collect::<Vec<_>>().join(" ");
    Ok(Heard { said: Some(said), oldest_accepted })
}

/// How many messages are past their time whose primary does not accept them now: the one place where a run asks that.
fn overdue(asked: &[Spoken], stakes: &Stakes) -> u64 {
    let bad = asked.iter().map(|spoken| &spoken.rehearsed).filter(|rehearsed| !rehearsed.verdict.is_good());
    let of_one =
        |rehearsed: &Rehearsed| rehearsed.domains.iter().filter_map(|domain| stakes.overdue.get(domain)).sum::<u64>();
    bad.map(of_one).sum()
}

/// Why nobody was asked.
pub(crate) fn reason(lacks: Lacks) -> &'static str {
    match lacks {
        Lacks::Primary => "it is not known which server is the main one",
        Lacks::Domains => {
            "it is not known for which domains this host is a backup mail server ([primary] domains says so)"
        }
        Lacks::Recipients => "nobody waits whose address could be asked for",
        Lacks::Hosts => "no main mail server is known for these domains",
    }
}

fn not_asked(lacks: Lacks) -> String {
    format!("Nothing was asked of the main mail server before the run, as {}.", reason(lacks))
}

impl NotRun {
    /// What is said first.
    pub(crate) fn headline(&self) -> String {
        match &self.why {
            Why::Refused => "Nothing was tried: the main mail server would refuse this mail.".into(),
            Why::Overdue { messages: 1, .. } => {
                "1 message is past its time: the next attempt that fails returns it to its sender.".into()
            }
            Why::Overdue { messages, .. } => format!(
                "{} are past their time: the next attempt that fails returns them to their senders.",
                count(*messages, "message", "messages")
            ),
        }
    }

    /// What each primary said, and what follows from it.
    pub(crate) fn sentences(&self) -> Vec<String> {
        let of_each = self.asked.iter().map(Spoken::sentence);
        match &self.why {
            Why::Refused => {
                of_each.chain(["If the queue ran now, mail would go back to its senders.".to_owned()]).collect()
            }
            Why::Overdue { kept, .. } => {
                let longer = kept
                    .as_ref()
                    .map_or("for longer than they are kept".into(), |kept| format!("for longer than {kept}"));
                let tried = format!(
                    "Nothing was tried: they have waited {longer}, and the main mail server does not take them now."
                );
                [tried].into_iter().chain(of_each).collect()
            }
        }
    }

    /// Each recipient that was asked for, a line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let of_one = |spoken: &Spoken| {
            let host = spoken.rehearsed.host.clone();
            let line = move |asked: &Asked| {
                let answer = match asked.counts {
                    Counts::Accepted => "accepts",
                    Counts::Refused { .. } => "refuses",
                    Counts::PutOff => "puts off",
                };
                format!("{host} {answer} {}: {}", asked.recipient, asked.said.words)
            };
            spoken.rehearsed.answers.recipients.iter().map(line).collect::<Vec<_>>()
        };
        self.asked.iter().flat_map(of_one).collect()
    }

    /// What to do about it.
    pub(crate) fn remedy(&self) -> String {
        match &self.why {
            Why::Refused => {
                "Have the main mail server put right: its administrator needs the words above. The mail waits \
                             here meanwhile."
                    .into()
            }
            Why::Overdue { more_time, .. } if more_time.is_empty() => "Give the mail more time first.".into(),
            Why::Overdue { more_time, .. } => format!("Give the mail more time first.\n{more_time}"),
        }
    }

    /// The word that has the run started all the same.
    pub(crate) fn despite(&self) -> Despite {
        match self.why {
            Why::Refused => Despite::Refusals,
            Why::Overdue { .. } => Despite::Overdue,
        }
    }
}

impl Why {
    fn overdue(messages: u64, timing: &Timing) -> Why {
        let kept = match &timing.lifetime {
            Lifetime::Known { seconds, basis, .. } => Some(format!("{} ({basis})", duration(*seconds))),
            Lifetime::NotInForce { .. } | Lifetime::Unknown(_) => None,
        };
        Why::Overdue { messages, kept, more_time: timing.more_time.clone() }
    }
}

impl std::fmt::Display for NotRun {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{} {}", self.headline(), self.sentences().join(" "))
    }
}

impl Spoken {
    pub(crate) fn of(mut rehearsed: Rehearsed, stakes: &Stakes, context: &Context) -> Spoken {
        if let Some(mask) = context.config.privacy.mask {
            hide(&mut rehearsed.answers, mask);
        }
        let earlier = rehearsed.kept.then(|| local_time(rehearsed.at, &context.clock.zone));
        let too_large = too_large(&rehearsed, stakes);
        Spoken { rehearsed, earlier, too_large }
    }

    /// What it said, in a sentence or two.
    pub(crate) fn sentence(&self) -> String {
        let Rehearsed { host, answers, verdict, .. } = &self.rehearsed;
        let said = sentence(host, answers, *verdict);
        let said = self.too_large.iter().fold(said, |said, too_large| format!("{said} {too_large}"));
        match &self.earlier {
            None => said,
            Some(at) => format!(
                "{said} That was at {at}; it is asked again ten minutes after that, as too many refused recipients \
                 could get this host banned there."
            ),
        }
    }
}

/// What a primary says of its longest message in EHLO (RFC 1870) is a refusal of what is larger.
fn too_large(rehearsed: &Rehearsed, stakes: &Stakes) -> Option<String> {
    let longest = rehearsed.answers.longest?;
    let sizes = rehearsed.domains.iter().filter_map(|domain| stakes.sizes.get(domain)).flatten();
    let larger = sizes.filter(|size| **size > longest).count() as u64;
    let messages = match larger {
        0 => return None,
        1 => "1 message is larger, and would go back".to_owned(),
        // Not more of each domain are known.
        10.. => "10 messages or more are larger, and would go back".to_owned(),
        several => format!("{several} messages are larger, and would go back"),
    };
    Some(format!("It takes {} at the most: {messages}.", bytes(longest)))
}

fn sentence(host: &str, answers: &Answers, verdict: Verdict) -> String {
    let all = answers.recipients.len();
    let (accepted, refused) = (answers.accepted(), answers.refused());
    let quoted = |said: &Option<Said>| said.as_ref().map_or_else(String::new, |said| format!(": “{}”", said.words));
    let first = |wanted: fn(Counts) -> bool| {
        let found = answers.recipients.iter().find(|asked| wanted(asked.counts));
        quoted(&found.map(|asked| asked.said.clone()))
    };
    let is_refused = |counts| matches!(counts, Counts::Refused { .. });
    let of_all = |some: usize| format!("{some} of {}", count(all as u64, "recipient", "recipients"));
    match verdict {
        Verdict::Accepts if accepted == all => {
            format!(
                "{host} accepts {}.",
                count(all as u64, "recipient", "recipients").replacen(
                    "1 recipient",
                    "the recipient",
                    usize::from(all == 1)
                )
            )
        }
        Verdict::Accepts => format!(
            "{host} accepts {} and puts the others off{}.",
            of_all(accepted),
            first(|counts| counts == Counts::PutOff)
        ),
        Verdict::AcceptsOthers => format!(
            "{host} refuses only the sender with which it was asked{}; it accepts the null sender, so this says nothing against the mail that waits.",
            if answers.recipients.is_empty() { quoted(&answers.mail) } else { first(is_refused) }
        ),
        Verdict::RefusesSome => {
            let named = answers.recipients.iter().filter(|asked| is_refused(asked.counts)).take(NAMED);
            let named = named.map(|asked| format!("{} (“{}”)", asked.recipient, asked.said.words)).collect::<Vec<_>>();
            let more = refused.saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!(
                "{host} refuses {} for good, whose mail would go back: {}{more}.",
                of_all(refused),
                named.join(", ")
            )
        }
        Verdict::PutsOff if all > 0 => {
            format!("{host} puts off all recipients that were asked for{}.", first(|counts| counts == Counts::PutOff))
        }
        Verdict::PutsOff => {
            let said = [&answers.null_sender, &answers.mail, &answers.hello, &answers.greeting];
            format!("{host} puts mail off{}.", quoted(said.into_iter().find(|said| said.is_some()).unwrap_or(&None)))
        }
        Verdict::Refuses(Refuses::Recipients) => {
            format!("{host} refused {} for good{}.", of_all(refused), first(is_refused))
        }
        Verdict::Refuses(Refuses::Senders) => format!("{host} refused every sender{}.", quoted(&answers.null_sender)),
        Verdict::Refuses(Refuses::Connection) => format!(
            "{host} turned this host away{}. This host's mail server would return everything because of that.",
            quoted(&answers.greeting)
        ),
        Verdict::NotKnown(why) => {
            format!("It is not known what {host} would do with the mail: {}.", unknown(why, answers))
        }
    }
}

fn unknown(why: NotKnown, answers: &Answers) -> String {
    match (why, &answers.end) {
        (NotKnown::Unreached, End::Unreached(error)) => error.clone(),
        (NotKnown::Nonsense, End::Nonsense(nonsense)) => nonsense.clone(),
        (NotKnown::LetsWait, _) => "it is up, but lets callers wait for its greeting for too long".into(),
        (NotKnown::WantsTls, _) => "it wants TLS first, which only the mail server itself can do".into(),
        (NotKnown::NoGreeting, End::Closed) => "it took the connection, and ended it without a word".into(),
        (NotKnown::NoAnswer, End::Closed) => "it ended the connection before it answered for any recipient".into(),
        (NotKnown::NoGreeting, _) => "it does not greet".into(),
        (NotKnown::Unreached | NotKnown::Nonsense | NotKnown::NoAnswer, _) => {
            "it answered for no recipient in time".into()
        }
    }
}

/// Hides parts of the addresses in what a primary said.
fn hide(answers: &mut Answers, mask: Mask) {
    let alone =
        [&mut answers.greeting, &mut answers.hello, &mut answers.mail, &mut answers.limit, &mut answers.null_sender];
    for said in alone.into_iter().flatten() {
        said.words = mask.text(&said.words, "");
    }
    for asked in &mut answers.recipients {
        asked.said.words = mask.text(&asked.said.words, &asked.recipient);
        asked.recipient = mask.address(&asked.recipient);
    }
}
