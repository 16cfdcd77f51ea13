//! The three clocks in words: since when the primary is down, by when what waits is tried again, and when it goes back to
//! its sender. Each sentence is true for its mail server alone: that is what was measured with each of them.

use crate::queue::{Lifetimes, Message, Returns};
use crate::report::Report;
use crate::report::clocks::{First, FirstReturn, NextAttempt, ReturnKind, Urgency};
use crate::text::{at_most, count, duration, exact_weekday_time, short_moment, weekday_time};

/// The clocks of a queue in which something waits.
pub(crate) struct Clocks {
    /// What each clock says, in whole sentences. The page draws them.
    pub(crate) sentences: Vec<String>,
    /// What else is to be known of them, in whole sentences, the most important first.
    pub(crate) notes: Vec<String>,
    /// What is not known of them, in whole sentences. The page says so among the facts.
    pub(crate) unknown: Vec<String>,
    /// What to do, where something is not known or mail goes back soon: sentences, and commands to be pasted.
    pub(crate) remedies: Vec<String>,
}

impl Clocks {
    /// Puts the clocks into words; `None` where nothing waits that is tried again, and new mail is kept.
    pub(crate) fn of(report: &Report) -> Option<Clocks> {
        let given_up = given_up(report);
        let more = &report.listing.facts.timing.more_time;
        if !report.has_clocks() {
            return given_up.map(|note| Clocks {
                sentences: Vec::new(),
                notes: vec![note],
                unknown: Vec::new(),
                remedies: vec![format!("Give mail more time.\n{more}")],
            });
        }
        let first = report.first_return();
        let (mut sentences, mut notes, mut unknown, mut remedies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        sentences.extend(down(report));
        let overdue = first.as_ref().map_or(0, |first| first.overdue);
        let next = report.next_attempt();
        if let Some(Ok(next)) = &next {
            sentences.push(format!("The mail server {}.", tries(next)));
        }
        sentences.extend(first.as_ref().and_then(|first| goes_back(report, first)));
        if overdue > 0 {
            notes.push(past_their_time(report, overdue));
        }
        notes.extend(being_returned(report));
        notes.extend(given_up);
        let is_stopped = report.listing.facts.timing.stopped.is_some();
        let no_return = report.return_gap();
        match (next.and_then(Result::err), &no_return) {
            (Some(gap), Some(other)) if *gap == *other => {}
            (Some(gap), _) => {
                let what = if is_stopped { "Attention" } else { "It is not known when it is tried again" };
                unknown.push(format!("{what}: {}.", gap.why));
                remedies.push(gap.remedy.clone());
            }
            (None, _) => {}
        }
        if let Some(gap) = no_return {
            unknown.push(format!("It is not known when mail goes back to its sender: {}.", gap.why));
            remedies.push(gap.remedy);
        }
        notes.extend(which_comes_first(report));
        if report.urgency() > Urgency::None && first.is_some() && !more.is_empty() {
            remedies.push(format!("Give waiting mail more time. It also counts for what is already waiting.\n{more}"));
        }
        remedies.retain(|remedy| !remedy.is_empty());
        remedies.dedup();
        Some(Clocks { sentences, notes, unknown, remedies })
    }
}

/// Since when the primary is down.
fn down(report: &Report) -> Option<String> {
    let since = report.down_since()?;
    let (who, has) = match report.primary.primaries.len() {
        1 => ("The main mail server", "has"),
        _ => ("The main mail servers", "have"),
    };
    let when = weekday_time(since, &report.zone);
    let longest = report.outages.longest.as_ref().map(|outage| outage.seconds(report.listing.sampling.started));
    let seconds = report.age(since);
    let longest = match longest {
        Some(longest) if longest > seconds => format!("; the longest time on record is {}", duration(longest)),
        _ => String::new(),
    };
    Some(format!("{who} {has} not answered since {when} ({}), as far as was seen{longest}.", duration(seconds)))
}

/// `tries again by itself within 72 minutes`
fn tries(next: &NextAttempt<'_>) -> String {
    match next.within {
        0 => "tries again by itself now".into(),
        within => format!("tries again by itself within {}", at_most(within)),
    }
}

/// When the first of what is not past its time goes back.
fn goes_back(report: &Report, first: &FirstReturn) -> Option<String> {
    let FirstReturn { kind, next, overdue, .. } = first;
    let at = next.as_ref()?;
    let else_ = if *overdue > 0 { " else" } else { "" };
    let when = weekday_time(*at, &report.zone);
    Some(match kind {
        ReturnKind::NotBefore => format!("Nothing{else_} goes back to its sender before {when}."),
        ReturnKind::At => {
            let when = exact_weekday_time(*at, &report.zone);
            format!(
                "The first{else_} goes back to its sender on {when}, without being tried again, even if the main mail server \
                 is back by then."
            )
        }
        ReturnKind::About => match report.listing.summary.deadlines.oldest_for_host {
            _ if report.has_primary_up() => return None,
            Some(oldest) if is_by_oldest(report) => format!(
                "If the main mail server has been down without a break since {}, all mail for it goes back at about {when}, \
                 also what came a minute ago, and from then on new mail goes back at once.",
                weekday_time(oldest, &report.zone)
            ),
            _ => format!(
                "All mail for the main mail server goes back at about {when}, also what came a minute ago, and from then on \
                 new mail goes back at once."
            ),
        },
    })
}

/// Whether the first failure of the host is only taken for that of the oldest message.
pub(crate) fn is_by_oldest(report: &Report) -> bool {
    let Lifetimes::About { cutoffs, failing_since: None, .. } = report.listing.facts.timing.lifetimes() else {
        return false;
    };
    cutoffs.is_empty() || cutoffs.iter().any(|cutoff| cutoff.failing_since.is_none())
}

/// What happens to messages that are past their time.
fn past_their_time(report: &Report, overdue: u64) -> String {
    let messages = count(overdue, "message is", "messages are");
    let (its, goes) = if overdue == 1 { ("its", "goes") } else { ("their", "go") };
    match ReturnKind::of(&report.listing.summary.lifetimes()) {
        Some(ReturnKind::At) => format!("{messages} past {its} time and {goes} back to the sender at once."),
        Some(ReturnKind::About) => format!(
            "{messages} past {its} time and {goes} back, with all other mail for the same server, at the next attempt that \
             fails. Delivering now counts as an attempt."
        ),
        _ => format!(
            "{messages} past {its} time and {goes} back at the next attempt that fails. Delivering now counts as an attempt."
        ),
    }
}

/// What an administrator has let expire.
fn being_returned(report: &Report) -> Option<String> {
    let returned = report.listing.summary.deadlines.returned;
    let messages = count(returned, "message is", "messages are");
    let sender = if returned == 1 { "its sender" } else { "their senders" };
    (returned > 0).then(|| format!("{messages} being returned to {sender}, now or at the next attempt."))
}

/// That new mail is not kept, for which domains and why; `None` where it is.
pub(crate) fn given_up(report: &Report) -> Option<String> {
    let domains = report.given_up();
    (!domains.is_empty()).then(|| {
        format!(
            "The server for {} has failed for longer than Exim's retry rule says, so new mail for it goes back to its sender at \
             once, untried, until Exim tries that server again; with delay_after_cutoff = false, after one try that fails.",
            domains.join(", ")
        )
    })
}

/// Whether the disk is full before the first mail goes back.
fn which_comes_first(report: &Report) -> Option<String> {
    let first = report.comes_first()?;
    let overdue = report.first_return().is_some_and(|first| first.overdue > 0);
    match first {
        First::FullDisk(full) => Some(format!(
            "At today's rate the disk of the queue is full in {}, before any mail goes back.",
            duration(full)
        )),
        First::Return(full) if report.urgency() > Urgency::None && !overdue => {
            Some(format!("The disk of the queue is full later, at today's rate in {}.", duration(full)))
        }
        First::Return(_) => None,
    }
}

/// When a message goes back, for its row; `None` where that is not known.
pub(crate) fn of_message(report: &Report, lifetimes: &Lifetimes, message: &Message<'_>) -> Option<String> {
    let now = report.listing.sampling.started;
    let when = |at: i64| short_moment(at, now, &report.zone);
    match lifetimes.returns(message) {
        // Its state says so.
        Returns::Now | Returns::Unknown => None,
        Returns::Never => Some("never while on hold".into()),
        Returns::NotBefore(at) if at <= now => Some("at the next attempt that fails".into()),
        Returns::NotBefore(at) => Some(format!("after {}", when(at))),
        Returns::At(at) => Some(when(at)),
        Returns::About(at) if at <= now => Some("with all mail for that server".into()),
        Returns::About(at) => Some(format!("about {}", when(at))),
    }
}

/// How often a message was tried, and when it is tried next, for its row; `None` where that is not known.
pub(crate) fn attempts(report: &Report, message: &Message<'_>) -> Option<String> {
    let attempts = message.plan.attempts?;
    let tried = match attempts {
        0 => "not tried yet".to_owned(),
        attempts => format!("tried {}", count(attempts, "time", "times")),
    };
    let now = report.listing.sampling.started;
    let is_tried = report.listing.facts.timing.stopped.is_none();
    Some(match message.plan.next_attempt.filter(|_| is_tried) {
        Some(next) if next > now => format!("{tried}, next in {}", at_most(next - now)),
        Some(_) => format!("{tried}, next now"),
        None => tried,
    })
}
