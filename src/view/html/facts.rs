//! The four facts under the headline: the main mail server, the next attempt, the first return, and the disk for mail.

use maud::{Markup, html};

use super::super::clocks::is_by_oldest;
use super::disk::meter;
use super::{short_time, small_name};
use crate::mta::timing::{Gap, Lifetime};
use crate::primary::{Condition, Primary};
use crate::report::Report;
use crate::report::clocks::{FirstReturn, ReturnKind, Urgency};
use crate::report::disk::{Filesystem, Level, Usage};
use crate::text::{at_most, bytes, count, duration, is_same_day, printable, short};

/// One fact.
struct Fact {
    term: &'static str,
    /// `warning` or `critical`, where it is.
    level: &'static str,
    big: Markup,
    more: Markup,
}

/// The facts. One that does not apply leaves its place; one that is not known says so.
pub(crate) fn facts(report: &Report) -> Markup {
    let all = [main_server(report), next_attempt(report), first_return(report), disk(report)];
    html! {
        dl.facts {
            @for Fact { term, level, big, more } in all.into_iter().flatten() {
                div class=(level) { dt { (term) } dd.big { (big) } dd.small { (more) } }
            }
        }
    }
}

fn not_known(term: &'static str, why: &str) -> Fact {
    Fact { term, level: "", big: html! { "not known" }, more: html! { (printable(why)) } }
}

fn main_server(report: &Report) -> Option<Fact> {
    let primaries = &report.primary.primaries;
    let Some(first) = primaries.first() else {
        let nothing = report.primary.faults.is_empty() && report.primary.notes.is_empty();
        let fact = Fact { more: html! { a href="#primary" { "Why, and what to do" } }, ..not_known(MAIN_SERVER, "") };
        return Some(if nothing {
            not_known(MAIN_SERVER, "Nothing names it: neither the mail server nor [primary] hosts in bartleby.toml.")
        } else {
            fact
        });
    };
    if let Some(since) = report.down_since() {
        let term = if primaries.len() == 1 { "Main mail server down since" } else { "Main mail servers down since" };
        let big = html! {
            (short_time(report, since))
            @if is_same_day(since, report.listing.sampling.started, &report.zone) { " today" }
        };
        let more = html! { (duration(report.age(since))) ", as far as was seen" };
        return Some(Fact { term, level: "critical", big, more });
    }
    // The one that takes mail, else the first.
    let shown = primaries.iter().find(|primary| primary.is_up() == Some(true)).unwrap_or(first);
    let (level, words) = match shown.state {
        Condition::Up => ("ok", "accepts mail"),
        Condition::Busy => ("warning", "is busy"),
        Condition::Down => ("critical", "does not answer"),
        Condition::Unknown => ("", "not known"),
    };
    Some(Fact { term: MAIN_SERVER, level, big: html! { (words) }, more: host(report, shown, primaries.len()) })
}

const MAIN_SERVER: &str = "Main mail server";

fn host(report: &Report, shown: &Primary, all: usize) -> Markup {
    let name = shown.host.strip_suffix(":25").unwrap_or(&shown.host);
    html! {
        (small_name(name))
        @if all > 1 { ", one of " (all) }
        @if let Some(age) = shown.since.map(|since| report.age(since)).filter(|age| *age >= 60) {
            ", for " (duration(age)) " as far as was seen"
        }
    }
}

fn next_attempt(report: &Report) -> Option<Fact> {
    const TERM: &str = "Next try, by itself";
    if let Some(Gap { why, .. }) = report.listing.facts.timing.stopped.as_ref().filter(|_| report.has_clocks()) {
        let more = html! { (printable(&short(why))) };
        return Some(Fact { term: TERM, level: "critical", big: html! { "none" }, more });
    }
    Some(match report.next_attempt()? {
        Ok(next) => {
            let now = report.listing.sampling.started;
            // The minute in which it ends.
            let at = now.saturating_add(next.within).saturating_add(59);
            let big = html! { "before " (short_time(report, at - at.rem_euclid(60))) };
            Fact { term: TERM, level: "", big, more: html! { "in " (at_most(next.within)) " at the latest" } }
        }
        Err(gap) => not_known(TERM, &gap.why),
    })
}

fn first_return(report: &Report) -> Option<Fact> {
    if let Some(gap) = report.return_gap() {
        return Some(not_known("When mail goes back", &gap.why));
    }
    let FirstReturn { kind, overdue, next, .. } = report.first_return()?;
    let level = match report.urgency() {
        Urgency::None => "",
        Urgency::Warning => "warning",
        Urgency::Alarm => "critical",
    };
    if overdue > 0 {
        let big = html! { a href="?returns=overdue" { (count(overdue, "message", "messages")) } };
        let more = match kind {
            ReturnKind::At => "being returned to the sender",
            ReturnKind::NotBefore | ReturnKind::About => "may be returned at the next attempt that fails",
        };
        return Some(Fact { term: "Past their time", level, big, more: html! { (more) } });
    }
    let at = next?;
    let time = short_time(report, at);
    let kept = kept(report, at);
    Some(match kind {
        ReturnKind::NotBefore => Fact { term: "Nothing goes back before", level, big: time, more: kept },
        ReturnKind::At => {
            let more = html! { (kept) "; it is not tried again first" };
            Fact { term: "The first goes back at", level, big: time, more }
        }
        ReturnKind::About if report.has_primary_up() => return None,
        ReturnKind::About => {
            let big = html! { "about " (time) };
            let unless =
                if is_by_oldest(report) { "if the main server has been down since the oldest came; " } else { "" };
            let more = html! { (unless) "from then on new mail goes back at once" };
            Fact { term: "All mail for it goes back", level, big, more }
        }
    })
}

/// How much of the time for which mail is kept is over for the first that goes back, and how much is left.
fn kept(report: &Report, at: i64) -> Markup {
    let left = at.saturating_sub(report.listing.sampling.started);
    let Lifetime::Known { seconds, .. } = &report.listing.facts.timing.lifetime else {
        return html! { (duration(left)) " left" };
    };
    let used = 1.0 - left as f64 / (*seconds).max(1) as f64;
    html! {
        (meter(used, "of the time is used"))
        "kept for " (duration(*seconds)) ", " (duration(left)) " left"
    }
}

fn disk(report: &Report) -> Option<Fact> {
    let free = |disk: &Filesystem| {
        let Usage { bytes, bytes_available, .. } = disk.usage;
        bytes_available.unwrap_or(0) as f64 / bytes.unwrap_or(1).max(1) as f64
    };
    let of_mail = report.filesystems.iter().find(|disk| disk.queue);
    // Where it is not known which one holds the queue, the fullest that answers.
    let answers = report.filesystems.iter().filter(|disk| disk.level != Level::Unknown);
    let shown = of_mail.or_else(|| answers.min_by(|one, other| free(one).total_cmp(&free(other))))?;
    let term = if shown.queue { "Disk for mail" } else { "Fullest disk" };
    let Filesystem { usage, level, error, mount, .. } = shown;
    let (Some(free), Some(all)) = (usage.bytes_available, usage.bytes.filter(|all| *all > 0)) else {
        return Some(not_known(term, error.as_deref().unwrap_or("it does not answer")));
    };
    let inodes = usage.inodes_available.filter(|_| *level != Level::Ok);
    let level = match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Critical | Level::Unknown => "critical",
    };
    let more = html! {
        (meter(1.0 - free as f64 / all as f64, "used"))
        "of " (bytes(all))
        @if of_mail.is_none() { " on " (small_name(mount)) }
        @if let Some(seconds) = report.seconds_until_full() { ", full in " (duration(seconds)) " at today's rate" }
        @if let Some(inodes) = inodes { ", " (count(inodes, "inode", "inodes")) " free" }
    };
    Some(Fact { term, level, big: html! { (bytes(free)) " free" }, more })
}
