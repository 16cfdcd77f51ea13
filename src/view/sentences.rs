//! The state of the queue in words, the same on the page and on the terminal.

use crate::mta::Facts;
use crate::mta::trouble::Status;
use crate::primary::Comeback;
use crate::queue::{Cause, Despite, Destination, Stranded, Summary, Target};
use crate::report::{Note, Report, Verdict};
use crate::state::Condition;
use crate::state::{Flush, Outcome};
use crate::text::{count, short, thousands};

/// Destinations that get a sentence of their own.
const NAMED: usize = 5;

/// For whom mail waits: a sentence, and details where there are any.
pub struct Sentences {
    /// The sentence, in three parts: the text before a foreign name, that name, and the text after it. All are empty where
    /// nothing is known to wait.
    pub for_whom: [String; 3],
    /// One for each destination.
    pub details: Vec<Detail>,
}

/// The mail that waits for one destination.
pub struct Detail {
    /// How much waits for it.
    pub(crate) destination: Destination,
    /// The domain, shortened.
    pub name: String,
    /// How many recipients.
    pub(crate) recipients: String,
    /// Why most of them wait, where that is known.
    pub(crate) cause: Option<&'static str>,
    /// The target that runs its mail alone, where that is possible.
    pub(crate) run: Option<Target>,
}

impl Sentences {
    /// Puts a report into words.
    pub fn of(report: &Report) -> Sentences {
        let summary = &report.listing.summary;
        let destinations = summary.destinations(NAMED);
        let many = summary.messages > 1;
        let is_most = |first: &Destination| first.recipients * 2 > summary.recipients;
        let it = if many { "They are" } else { "It is" };
        let (before, first, others) = match destinations.as_slice() {
            _ if summary.messages == 0 => return Sentences { for_whom: Default::default(), details: Vec::new() },
            [] if summary.delivered > 0 => (String::new(), String::new(), ""),
            [] => (format!("{it} for recipients that the mail server does not name"), String::new(), ""),
            [only] => (format!("{it} for "), name(only), ""),
            [first, ..] if many && is_most(first) => ("Most are for ".into(), name(first), ""),
            [first, ..] => (format!("{it} for "), name(first), " and others"),
        };
        let mut parts = Vec::new();
        if !before.is_empty() {
            parts.push(others.to_owned());
            parts.extend(summary.oldest.map(|oldest| {
                let the_oldest = if many { "the oldest has been" } else { "it has been" };
                format!("{the_oldest} waiting for {}", report.waited(oldest))
            }));
            if let [only] = destinations.as_slice() {
                parts.extend(only.cause.map(|cause| cause.phrase().to_owned()));
            }
        }
        let end = if parts.is_empty() { "" } else { "." };
        let details = destinations.into_iter().map(detail).collect();
        Sentences { for_whom: [before, first, format!("{}{end}{}", parts.join("; "), on_hold(summary))], details }
    }
}

/// That some messages wait for an administrator; nothing where none does.
fn on_hold(summary: &Summary) -> String {
    match summary.on_hold {
        0 => String::new(),
        all if all == summary.messages && all > 1 => {
            " All are on hold and stay until an administrator releases them.".into()
        }
        1 if summary.messages == 1 => " It is on hold and stays until an administrator releases it.".into(),
        1 => " 1 is on hold and stays until an administrator releases it.".into(),
        some => format!(" {} are on hold and stay until an administrator releases them.", thousands(some)),
    }
}

/// The note about reasons that the listing does not hold.
pub(crate) fn note(note: Note) -> &'static str {
    match note {
        Note::Blind => "This mail server's listing does not hold reasons, so the filter could not look at them.",
        Note::NoReasons => "This mail server's listing does not say why messages are waiting.",
        Note::Streamed => {
            "This mail server's listing does not hold reasons. They are asked for one message at a time, so only on the \
             page and where per_page is given."
        }
    }
}

/// What is to be known of a run before it: which messages it delivers or leaves although one would not think so.
pub(crate) fn before_a_run(report: &Report) -> Vec<String> {
    let messages = |number| count(number, "message", "messages");
    let held = report.delivered_though_held();
    let held = (held > 0).then(|| format!("A run also delivers the {} on hold.", messages(held)));
    let young = report.listing.summary.too_young;
    let young = (young > 0).then(|| {
        let (are, them) = if young == 1 { ("was", "it") } else { ("were", "them") };
        format!("{} {are} tried a short time ago: a run passes {them} over for now (MinQueueAge).", messages(young))
    });
    let left_out = report.flush.left_out.join(", ");
    let left_out = (!left_out.is_empty()).then(|| {
        format!("No rule allows {left_out}, so a run leaves what this machine's own programs submitted where it is.")
    });
    held.into_iter().chain(young).chain(left_out).collect()
}

/// That there are instances of the mail server whose queues are not listed; `None` where there are none.
pub(crate) fn unlisted(facts: &Facts) -> Option<String> {
    let names = facts.unlisted.join(", ");
    match facts.unlisted.len() {
        0 => None,
        1 => Some(format!("The instance {names} is disabled, so its queue is not listed here and not run.")),
        _ => Some(format!("The instances {names} are disabled, so their queues are not listed here and not run.")),
    }
}

/// The verdict of a form that fails exactly when its listing fails.
pub(crate) fn of_listing(report: &Report) -> Verdict {
    let status = if report.listing.status() == Status::Ok { 0 } else { EX_UNAVAILABLE };
    Verdict { status, ..Verdict::default() }
}

/// The exit status, of sysexits(3), where the queue could not be listed.
pub(crate) const EX_UNAVAILABLE: u8 = 69;

/// The one thing to know before the queue is run, where something waits: whether the primary takes mail, and whether
/// what waits is for it.
pub(crate) fn advice(report: &Report) -> Option<String> {
    let waiting = report.listing.summary.messages - report.passed_over();
    let primaries = &report.primary.primaries;
    let any = |up| primaries.iter().any(|primary| primary.is_up() == Some(up));
    let is_busy = primaries.iter().any(|primary| primary.state == Condition::Busy);
    match (any(true), any(false)) {
        _ if waiting == 0 => None,
        (true, others_are_down) => Some(match (what_waited_for_it(report), others_are_down) {
            (Some(waited), false) => waited.sentence() + ": deliver it now.",
            (Some(_), true) => {
                "Some of the main mail servers answer, others do not: trying now delivers what is for those that do."
                    .into()
            }
            (None, false) => "The main mail server accepts mail.".into(),
            (None, true) => "Some of the main mail servers answer, others do not.".into(),
        }),
        (false, true) if report.first_return().is_some_and(|first| first.overdue > 0) => Some(
            "The main mail server does not accept mail. Do not try now: what is past its time would go back to its sender."
                .into(),
        ),
        (false, true) if is_busy => {
            Some("The main mail server answers that it is busy; trying now will hardly help.".into())
        }
        (false, true) => {
            // Seen so at an earlier look.
            let still =
                primaries.iter().any(|of| of.is_up() == Some(false) && of.since.is_some_and(|at| report.age(at) > 0));
            let still = if still { "still does not answer" } else { "does not answer" };
            Some(format!(
                "The main mail server {still}. Its mail is kept here until it is back; trying now will not help."
            ))
        }
        (false, false) => None,
    }
}

/// Mail that has only waited until the primary can be reached.
pub(crate) struct Waited {
    /// Whether the primary was seen to come back; else it just accepts mail.
    pub(crate) is_back: bool,
    /// For how many recipients it is.
    pub(crate) recipients: u64,
    /// Whether its reasons say so. The listing of Exim holds none: there, only the comeback shows what the mail waited for.
    is_explained: bool,
}

impl Waited {
    fn sentence(&self) -> String {
        let server = if self.is_back { "The main mail server is back" } else { "The main mail server accepts mail" };
        let waits = format!("mail for {} is waiting", count(self.recipients, "recipient", "recipients"));
        let because = if self.is_explained { " because it could not be reached" } else { "" };
        format!("{server}, and {waits}{because}")
    }
}

/// That the primary takes mail and some has only waited for that; `None` where the queue can't be run right now, or
/// what waits is for elsewhere or waits for something else.
pub(crate) fn what_waited_for_it(report: &Report) -> Option<Waited> {
    let primaries = &report.primary.primaries;
    let stranded = report.listing.summary.stranded(|domain| report.primary.may_be_for(domain));
    let is_back = primaries.iter().any(|primary| primary.comeback == Comeback::Seen);
    if !report.flush.is_offered() || !report.has_primary_up() {
        return None;
    }
    match stranded {
        Stranded { unreached: 0, unexplained: 0 } => None,
        Stranded { unreached: 0, unexplained } => {
            is_back.then_some(Waited { is_back, recipients: unexplained, is_explained: false })
        }
        Stranded { unreached, .. } => Some(Waited { is_back, recipients: unreached, is_explained: true }),
    }
}

/// What came of a flush, as far as the listing shows.
pub(crate) fn outcome(report: &Report, flush: &Flush, outcome: &Outcome) -> String {
    if report.listing.trouble.is_some() && !outcome.settled {
        return "what came of it is not known".into();
    }
    crate::flush::outcome::sentence(flush, outcome)
}

/// What a run was started in spite of.
pub(crate) fn in_spite_of(despite: Despite) -> &'static str {
    match despite {
        Despite::Refusals => "whatever the main mail server refuses",
        Despite::Overdue => "whatever is past its time",
    }
}

/// That the run that was asked about is not on record; 0 stands for one that could not be put on record.
pub fn unrecorded(number: u64) -> String {
    match number {
        0 => "The run was started. There is no record of it, so look at what still waits.".into(),
        number => format!("There is no record of run {number}."),
    }
}

/// Says that the listing was read without a complete sandbox.
pub(crate) fn gap(gap: &str) -> String {
    format!("The listing was parsed without the sandbox: {gap}.")
}

/// Says that the words of name servers and primaries were read without a complete sandbox.
pub(crate) fn gap_of_primaries(gap: &str) -> String {
    format!("What the name servers and primaries said was read without the sandbox: {gap}.")
}

fn detail(destination: Destination) -> Detail {
    let domain = destination.domain.clone().filter(|domain| !domain.is_empty());
    Detail {
        name: name(&destination),
        recipients: count(destination.recipients, "recipient", "recipients"),
        cause: destination.cause.map(Cause::phrase),
        run: domain.map(Target::Domain).filter(Target::is_plain),
        destination,
    }
}

fn name(destination: &Destination) -> String {
    match destination.domain.as_deref() {
        None => "other domains".into(),
        Some("") => "this machine".into(),
        Some("…") => "domains that the mail server cut off".into(),
        Some(domain) => short(domain),
    }
}
