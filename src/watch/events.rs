//! What there is to announce: a comparison of what was announced with what a look has seen. A pure function, so that each
//! change is announced once, whatever sees it, and whichever process looks.

use std::collections::BTreeSet;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::flush::rehearsal::NotRun;
use crate::flush::{FOLLOWED, outcome};
use crate::queue::{beginning, rfc3339};
use crate::state::{Flush, Outage};
use crate::text::{bytes, count, local_time, one_line, printable};

/// What is older is not announced, in seconds: nobody can do anything about it.
const NEWS: i64 = 24 * 60 * 60;

/// A run whose end was not seen after so many seconds has none on record: it was followed no longer, and a few minutes more
/// are for the last look.
const LONGEST_RUN: i64 = FOLLOWED.as_secs() as i64 + 10 * 60;

/// The longest text of others in an event, in bytes.
const LONGEST: usize = 300;

/// How many recipients an event names.
const NAMED: usize = 20;

/// The version of an event's form.
const VERSION: u32 = 1;

/// What was announced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Announced {
    /// The number of the latest outage that was looked at.
    outage: u64,
    /// The outages whose end was not announced.
    lasting: BTreeSet<u64>,
    /// The number of the latest run that was looked at.
    run: u64,
    /// The runs whose end was not announced.
    running: BTreeSet<u64>,
    /// That the queue is not run, as mail would go back.
    refused: bool,
    /// That less than a day is left.
    return_near: bool,
    /// The mounts that are short of room.
    disks: BTreeSet<String>,
    /// That the queue can't be listed.
    unlisted: bool,
}

/// What a look has seen.
#[derive(Default)]
pub(super) struct Seen {
    /// Outages and runs on record, in any order.
    pub(super) outages: Vec<Outage>,
    pub(super) runs: Vec<Flush>,
    /// What the listing shows; `None` where the look came to nothing before.
    pub(super) queue: Option<Result<Waiting, Unlisted>>,
    /// Why the queue is not run.
    pub(super) not_run: NotRunYet,
}

/// Why the queue is not run although the primary is back.
#[derive(Default)]
pub(super) enum NotRunYet {
    /// As at the last look.
    #[default]
    AsBefore,
    /// It is run, or there is no reason to run it.
    Nothing,
    /// The primary was asked just now.
    Asked(Box<NotRun>),
}

/// What a listing shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) messages: u64,
    /// When the first of it goes back, if that is within a day, in seconds since 1970.
    pub(super) returns: Option<i64>,
    /// The filesystems that are short of room: mount, and free and all bytes where these are known.
    pub(super) critical: Vec<(String, Option<u64>, Option<u64>)>,
}

/// Why there is no listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unlisted {
    pub(super) message: String,
    pub(super) remedy: String,
}

/// Where and when an event was seen.
pub(super) struct Scene<'a> {
    /// This machine's name.
    pub(super) host: &'a str,
    /// In seconds since 1970.
    pub(super) now: i64,
    pub(super) zone: &'a TimeZone,
}

impl Scene<'_> {
    /// An event as one line of JSON.
    fn event(&self, name: &str, at: i64, text: &str, more: Value) -> String {
        let mut event = Map::new();
        event.insert("version".into(), VERSION.into());
        event.insert("event".into(), name.into());
        event.insert("host".into(), self.host.into());
        event.insert("at".into(), rfc3339(at).into());
        event.insert("text".into(), format!("{}: {}", self.host, printable(beginning(text, 4 * LONGEST))).into());
        if let Value::Object(more) = more {
            event.extend(more);
        }
        Value::Object(event).to_string()
    }

    fn time(&self, at: i64) -> String {
        local_time(at, self.zone)
    }
}

/// What is to be announced, and what is announced then. At first (`None`) only what lasts is news.
pub(super) fn news(before: Option<Announced>, seen: &Seen, scene: &Scene<'_>) -> (Announced, Vec<String>) {
    let mut events = Vec::new();
    let mut now = before.unwrap_or_else(|| {
        let over = |outage: &&Outage| outage.up.is_some();
        Announced {
            outage: seen.outages.iter().filter(over).map(|outage| outage.number).max().unwrap_or_default(),
            run: seen.runs.iter().map(|run| run.number).max().unwrap_or_default(),
            ..Announced::default()
        }
    });
    of_outages(&mut now, seen, scene, &mut events);
    of_runs(&mut now, seen, scene, &mut events);
    of_refusals(&mut now, &seen.not_run, scene, &mut events);
    match &seen.queue {
        None => {}
        Some(Ok(waiting)) => of_queue(&mut now, waiting, scene, &mut events),
        Some(Err(unlisted)) => of_failure(&mut now, unlisted, scene, &mut events),
    }
    (now, events)
}

fn of_outages(now: &mut Announced, seen: &Seen, scene: &Scene<'_>, events: &mut Vec<String>) {
    let mut outages: Vec<&Outage> = seen.outages.iter().collect();
    outages.sort_by_key(|outage| outage.number);
    for outage in &outages {
        let Outage { number, host, down, up, messages_at_most, .. } = outage;
        let more = json!({
            "primary": host, "outage": number, "down": rfc3339(*down), "up": up.and_then(rfc3339),
            "messages_at_most": messages_at_most,
        });
        if *number > now.outage {
            now.outage = *number;
            now.lasting.insert(*number);
            if scene.now - down < NEWS {
                let text = format!("{host} takes no mail since {}. Nothing is lost: it waits here.", scene.time(*down));
                events.push(scene.event("primary_down", *down, &text, more.clone()));
            }
        }
        if let Some(up) = up.filter(|_| now.lasting.remove(number))
            && scene.now - up < NEWS
        {
            let waited = messages_at_most.map_or_else(String::new, |most| {
                format!("; at most {} waited here", count(most, "message", "messages"))
            });
            let text = format!("{host} takes mail again since {}{waited}.", scene.time(up));
            events.push(scene.event("primary_back", up, &text, more));
        }
    }
    // What is no longer on record has no end.
    now.lasting.retain(|number| outages.iter().any(|outage| outage.number == *number));
}

fn of_runs(now: &mut Announced, seen: &Seen, scene: &Scene<'_>, events: &mut Vec<String>) {
    let mut runs: Vec<&Flush> = seen.runs.iter().collect();
    runs.sort_by_key(|run| run.number);
    for run in &runs {
        let of_run = |outcome: Value| {
            json!({
                "run": run.number, "target": run.target, "by": cut(&run.by), "started": rfc3339(run.started),
                "messages": run.messages, "recipients": run.recipients, "outcome": outcome,
            })
        };
        if run.number > now.run {
            now.run = run.number;
            now.running.insert(run.number);
            if scene.now - run.started < NEWS {
                let waited = run
                    .messages
                    .map_or_else(String::new, |all| format!("; {} waited", count(all, "message", "messages")));
                let text = format!("Queue run {} ({}) was started by {}{waited}.", run.number, run.target, run.by);
                events.push(scene.event("run_started", run.started, &text, of_run(Value::Null)));
            }
        }
        let is_settled = run.outcome.as_ref().is_some_and(|outcome| outcome.settled);
        let is_over = is_settled || run.restarted || scene.now - run.started > LONGEST_RUN;
        if is_over && now.running.remove(&run.number) && scene.now - run.started < NEWS {
            let said = match &run.outcome {
                Some(outcome) if is_settled => outcome::sentence(run, outcome),
                Some(outcome) => format!("its end was not seen; when last seen, {}", outcome::sentence(run, outcome)),
                None => "what came of it was not seen".to_owned(),
            };
            let text = format!("Queue run {} ({}): {said}.", run.number, run.target);
            let value = run.outcome.as_ref().map(|outcome| {
                let tally = outcome.tally.as_ref();
                json!({
                    "settled": outcome.settled,
                    "delivered": tally.map(|tally| tally.delivered), "returned": tally.map(|tally| tally.returned),
                    "unrecorded": tally.map(|tally| tally.unrecorded),
                    "double_bounces": tally.map(|tally| tally.double_bounces),
                    "not_looked_up": tally.map(|tally| tally.not_looked_up),
                    "messages_left": outcome.messages_left, "recipients_left": outcome.recipients_left,
                    "why": cut(&outcome.why),
                })
            });
            events.push(scene.event("run_finished", scene.now, &text, of_run(value.unwrap_or_default())));
        }
    }
    now.running.retain(|number| runs.iter().any(|run| run.number == *number));
}

fn of_refusals(now: &mut Announced, not_run: &NotRunYet, scene: &Scene<'_>, events: &mut Vec<String>) {
    let not_run = match not_run {
        NotRunYet::Nothing => {
            now.refused = false;
            return;
        }
        NotRunYet::AsBefore => return,
        NotRunYet::Asked(not_run) => not_run,
    };
    if std::mem::replace(&mut now.refused, true) {
        return;
    }
    let mut left = NAMED;
    let asked = not_run.asked.iter().map(|spoken| {
        let rehearsed = &spoken.rehearsed;
        let named: Vec<_> = rehearsed.answers.recipients.iter().take(left).collect();
        left -= named.len();
        let of_one = |asked: &&crate::primary::rehearsal::Asked| {
            json!({"address": cut(&asked.recipient), "answer": asked.counts.as_str(), "words": cut(&asked.said.words)})
        };
        json!({
            "primary": rehearsed.host, "verdict": rehearsed.verdict.as_str(), "words": cut(&spoken.sentence()),
            "recipients": named.iter().map(of_one).collect::<Vec<_>>(),
        })
    });
    let asked: Vec<_> = asked.collect();
    let text = format!("The queue is not run. {not_run}");
    let more = json!({"why": not_run.despite().as_str(), "primaries": asked, "remedy": not_run.remedy()});
    events.push(scene.event("refusals", scene.now, &text, more));
}

fn of_queue(now: &mut Announced, waiting: &Waiting, scene: &Scene<'_>, events: &mut Vec<String>) {
    let Waiting { messages, returns, critical } = waiting;
    now.unlisted = false;
    let was_near = std::mem::replace(&mut now.return_near, returns.is_some());
    if let Some(at) = returns.filter(|_| !was_near) {
        let when = if at <= scene.now {
            "is past its time, and goes back".to_owned()
        } else {
            format!("goes back from {} on", scene.time(at))
        };
        let text = format!(
            "Waiting mail {when} to its senders, unless it is delivered before; {} in the queue.",
            count(*messages, "message is", "messages are")
        );
        let more = json!({"returns": rfc3339(at), "messages": messages});
        events.push(scene.event("return_near", scene.now, &text, more));
    }
    for (mount, free, all) in critical.iter().filter(|(mount, ..)| !now.disks.contains(mount)) {
        let left =
            free.zip(*all).map_or_else(String::new, |(free, all)| format!(": {} of {} free", bytes(free), bytes(all)));
        let text = format!("The disk at {mount} is nearly full{left}. Where it is full, no mail is taken.");
        let more = json!({"mount": cut(mount), "bytes_available": free, "bytes": all});
        events.push(scene.event("disk_critical", scene.now, &text, more));
    }
    now.disks = critical.iter().map(|(mount, ..)| mount.clone()).collect();
}

fn of_failure(now: &mut Announced, unlisted: &Unlisted, scene: &Scene<'_>, events: &mut Vec<String>) {
    if std::mem::replace(&mut now.unlisted, true) {
        return;
    }
    let Unlisted { message, remedy } = unlisted;
    let text = format!("The mail queue could not be listed: {message} {}", one_line(remedy));
    let more = json!({"message": cut(message), "remedy": remedy});
    events.push(scene.event("listing_failed", scene.now, &text, more));
}

/// The beginning of what others wrote, so that it can be shown.
fn cut(text: &str) -> String {
    printable(beginning(text, LONGEST)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Outcome, Tally};

    const NOW: i64 = 1_795_500_000;

    fn outage(number: u64, down: i64, up: Option<i64>) -> Outage {
        let (host, messages_at_most) = ("mx:25".to_owned(), Some(40));
        Outage { number, host, down, up, messages_at_most, down_seen_by: None, up_seen_by: None }
    }

    fn run(number: u64, started: i64, outcome: Option<Outcome>) -> Flush {
        Flush {
            number,
            started,
            target: "all".into(),
            by: "larry".into(),
            messages: Some(3),
            outcome,
            ..Flush::default()
        }
    }

    /// What a look announces, each event's name, and the events.
    fn look(announced: &mut Option<Announced>, seen: &Seen) -> (Vec<String>, Vec<Value>) {
        let scene = Scene { host: "mx2.example.com", now: NOW, zone: &TimeZone::UTC };
        let (after, events) = news(announced.take(), seen, &scene);
        let (again, repeated) = news(Some(after.clone()), &Seen { not_run: NotRunYet::AsBefore, ..copy(seen) }, &scene);
        assert!(repeated.is_empty() && again == after, "the same is announced once: {repeated:?}");
        *announced = Some(after);
        let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        (events.iter().map(|event| event["event"].as_str().unwrap().to_owned()).collect(), events)
    }

    fn copy(seen: &Seen) -> Seen {
        let Seen { outages, runs, queue, .. } = seen;
        Seen { outages: outages.clone(), runs: runs.clone(), queue: queue.clone(), not_run: NotRunYet::AsBefore }
    }

    #[test]
    fn an_outage_is_announced_when_it_begins_and_when_it_ends_no_matter_who_saw_it() {
        let of = |outages: Vec<Outage>| Seen { outages, ..Seen::default() };
        let mut announced = None;
        // A command that is configured later hears of what lasts, and not of what is over.
        let before = of(vec![outage(1, NOW - 900, Some(NOW - 800)), outage(2, NOW - 60, None)]);
        let (names, events) = look(&mut announced, &before);
        assert_eq!(names, ["primary_down"]);
        assert_eq!(
            (&events[0]["primary"], &events[0]["outage"], &events[0]["up"]),
            (&"mx:25".into(), &2.into(), &Value::Null)
        );
        assert!(events[0]["text"].as_str().unwrap().starts_with("mx2.example.com: mx:25 takes no mail since "));
        let (names, events) = look(&mut announced, &of(vec![outage(2, NOW - 60, Some(NOW - 5))]));
        assert_eq!(names, ["primary_back"]);
        assert!(events[0]["text"].as_str().unwrap().ends_with("; at most 40 messages waited here."), "{events:?}");
        // Down and up again between two looks.
        assert_eq!(
            look(&mut announced, &of(vec![outage(3, NOW - 50, Some(NOW - 40))])).0,
            ["primary_down", "primary_back"]
        );
        assert!(look(&mut announced, &of(vec![outage(4, NOW - NEWS - 1, Some(NOW - NEWS))])).0.is_empty(), "it is old");
    }

    #[test]
    fn a_run_is_announced_when_it_starts_and_with_what_came_of_it() {
        let of = |runs: Vec<Flush>| Seen { runs, ..Seen::default() };
        let mut announced = None;
        assert!(look(&mut announced, &of(vec![run(6, NOW - 99, None)])).0.is_empty(), "of an earlier time");
        let (names, events) = look(&mut announced, &of(vec![run(7, NOW - 30, Some(Outcome::default()))]));
        assert_eq!((names, &events[0]["messages"]), (vec!["run_started".to_owned()], &3.into()));
        let tally = Some(Tally { delivered: 2, returned: 1, ..Tally::default() });
        let settled = Some(Outcome { settled: true, tally, ..Outcome::default() });
        let (names, events) = look(&mut announced, &of(vec![run(7, NOW - 30, settled)]));
        assert_eq!(names, ["run_finished"]);
        let outcome = &events[0]["outcome"];
        assert_eq!(
            (&outcome["delivered"], &outcome["returned"], &outcome["settled"]),
            (&2.into(), &1.into(), &true.into())
        );
        // Without the mail log nothing is claimed of either.
        let unread = Some(Outcome { settled: true, ..Outcome::default() });
        let (_, events) = look(&mut announced, &of(vec![run(8, NOW - 30, unread)]));
        assert_eq!(events[1]["outcome"]["delivered"], Value::Null);
        let (names, events) = look(&mut announced, &of(vec![run(9, NOW - LONGEST_RUN - 1, None)]));
        assert_eq!(names, ["run_started", "run_finished"]);
        assert!(events[1]["text"].as_str().unwrap().ends_with("what came of it was not seen."), "{events:?}");
        let restarted = Flush { restarted: true, ..run(10, NOW - 30, None) };
        assert_eq!(look(&mut announced, &of(vec![restarted])).0.len(), 2);
    }

    #[test]
    fn what_lasts_is_announced_when_it_begins_and_again_when_it_has_been_over() {
        let of = |queue| Seen { queue: Some(queue), ..Seen::default() };
        let calm = || of(Ok(Waiting { messages: 3, ..Waiting::default() }));
        let near = || of(Ok(Waiting { messages: 3, returns: Some(NOW + 3600), ..Waiting::default() }));
        let full = |mounts: &[&str]| {
            let critical = mounts.iter().map(|mount| ((*mount).to_owned(), Some(1), Some(100))).collect();
            of(Ok(Waiting { critical, ..Waiting::default() }))
        };
        let failed = || of(Err(Unlisted { message: "It was refused.".into(), remedy: "Allow it.".into() }));
        let mut announced = Some(Announced::default());
        for (seen, names) in [
            (calm(), &[][..]),
            (near(), &["return_near"]),
            (near(), &[]),
            (calm(), &[]),
            (near(), &["return_near"]),
            (full(&["/"]), &["disk_critical"]),
            (full(&["/", "/var"]), &["disk_critical"]),
            (full(&["/var"]), &[]),
            (full(&["/", "/var"]), &["disk_critical"]),
            (failed(), &["listing_failed"]),
            (failed(), &[]),
            // A look that came to nothing changes nothing.
            (Seen::default(), &[]),
            (failed(), &[]),
            (calm(), &[]),
            (failed(), &["listing_failed"]),
        ] {
            assert_eq!(look(&mut announced, &seen).0, names);
        }
        let past = of(Ok(Waiting { messages: 1, returns: Some(NOW - 9), ..Waiting::default() }));
        let (_, events) = look(&mut Some(Announced::default()), &past);
        assert!(
            events[0]["text"].as_str().unwrap().contains("is past its time, and goes back to its senders"),
            "{events:?}"
        );
    }

    #[test]
    fn an_event_is_one_short_line_whatever_others_wrote() {
        let hostile = "x\n\u{1b}[31m\u{202e}\"\\".repeat(5000);
        let seen = Seen {
            queue: Some(Err(Unlisted { message: hostile.clone(), remedy: "Look.".into() })),
            runs: vec![Flush { by: hostile, ..run(1, NOW, None) }],
            ..Seen::default()
        };
        let scene = Scene { host: "mx2", now: NOW, zone: &TimeZone::UTC };
        let (_, events) = news(Some(Announced::default()), &seen, &scene);
        assert_eq!(events.len(), 2);
        for event in events {
            assert!(event.len() < 8000 && !event.contains(['\n', '\u{1b}', '\u{202e}']), "{} bytes", event.len());
        }
    }
}
