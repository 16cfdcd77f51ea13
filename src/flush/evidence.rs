//! What is known of a queue run besides the listings: what was noted before it, and the lines of the mail log since then.
//!
//! The log is read from where it ended then. Where this user can't read the log, root does so by the one rule.

use std::thread;
use std::time::{Duration, Instant};

use super::log_mark;
use super::mail_log::{self, Excerpt, MOST, NoLog, Places, Question};
use crate::context::Context;
use crate::listing::count::Count;
use crate::listing::tally::{Evidence, Noted};
use crate::mta::as_root::{EX_TEMPFAIL, LONGEST, Request};
use crate::mta::{Facts, Mark};
use crate::state::{Flush, Tally};
use crate::system::process;

/// How many bytes of lines are read in all: those of some 50,000 attempts.
const ALL: usize = 24 * 1024 * 1024;

/// How much of a request its ids may take, in bytes: the rest is for the mark.
const IDS: usize = LONGEST - 4096;

/// How long root may take for one answer, and for all of them.
const PATIENCE: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(60);

/// How often it is judged where the log lacks some outcomes, and how long after each other: syslogd(8) may write late.
const TRIES: u32 = 3;
const AGAIN: Duration = Duration::from_secs(2);

/// What was noted before a run.
#[derive(Clone, Debug)]
pub(crate) struct Notes {
    /// The messages that waited.
    noted: Vec<Noted>,
    /// Where the mail server may log.
    places: Places,
    /// The second from which on lines count, in seconds since 1970.
    since: i64,
    /// Where the log ended then, as this user saw it.
    mark: Mark,
    /// The same as root saw it.
    roots: Option<Mark>,
}

impl Notes {
    /// What to note of a run before the queue is looked at. `None` where it is not this machine's queue, and no log is named.
    pub(super) fn begin(context: &Context, facts: &Facts) -> Option<Notes> {
        let source = context.source.as_ref().ok()?;
        let mta = &context.config.mta;
        let is_known = mta.log.is_some() || source.is_local(&mta.list_command);
        is_known.then(|| {
            let since = jiff::Timestamp::now().as_second();
            let places = Places::of(context, source, facts);
            let (mark, roots) = (log_mark::note(context, &places), log_mark::note_by_rule(context));
            Notes { noted: Vec::new(), places, since, mark, roots }
        })
    }

    /// With the messages that the listing had.
    pub(super) fn of(self, noted: Vec<Noted>) -> Notes {
        Notes { noted, ..self }
    }

    /// The lines of the log about these messages since then, as far as they can be had.
    fn lines(&self, context: &Context) -> Result<Excerpt, NoLog> {
        let source = context.source.as_ref().map_err(|trouble| NoLog::NotFound(trouble.to_string()))?;
        let ids: Vec<String> = self.noted.iter().map(|noted| noted.id.clone()).collect();
        let question =
            Question { places: &self.places, ids: &ids, since: self.since, mark: Some(&self.mark), room: ALL };
        let own = mail_log::lines(context, &*source.mta, &question);
        // What this user may read can be another log than the mail server's.
        if own.as_ref().is_ok_and(|excerpt| !excerpt.lines.is_empty()) {
            return own;
        }
        self.by_rule(context, ids).unwrap_or(own)
    }

    /// The same by the one rule for root; `None` where there is none.
    fn by_rule(&self, context: &Context, ids: Vec<String>) -> Option<Result<Excerpt, NoLog>> {
        let until = Instant::now() + LONG;
        let mut excerpt = Excerpt { lines: Vec::new(), whole: true };
        let mut batches = batches(ids, IDS);
        while let Some(mut ids) = batches.pop() {
            if excerpt.lines.len() >= ALL || Instant::now() >= until {
                excerpt.whole = false;
                break;
            }
            let request = Request::Log { ids: ids.clone(), since: self.since, mark: self.roots.clone() };
            let command = context.by_the_one_rule(&request)?;
            let running = match process::start(&context.free, &command) {
                Ok(running) => running,
                Err(error) => return Some(Err(NoLog::Rule(error.to_string()))),
            };
            let (exit, mut output) = running.collect_up_to(MOST, Instant::now() + PATIENCE);
            match exit.code {
                Some(0) => {}
                // There is more than one answer holds, or than can be read.
                Some(code) if code == i32::from(EX_TEMPFAIL) => {
                    let half = ids.split_off(ids.len() / 2);
                    if !ids.is_empty() && output.len() >= MOST / 2 {
                        batches.extend([half, ids]);
                        continue;
                    }
                    excerpt.whole = false;
                }
                _ => return Some(Err(NoLog::Rule(exit.describe()))),
            }
            excerpt.lines.append(&mut output);
        }
        Some(Ok(excerpt))
    }

    /// What became of the run's messages, with the count of those that still wait. `None` where that can't be known.
    pub(super) fn judge(&self, context: &Context, flush: &Flush) -> Option<(Count, Tally)> {
        let mut judged = None;
        for number in 0..TRIES {
            if number > 0 {
                thread::sleep(AGAIN);
            }
            // A log may be missing for a while.
            let Ok(Excerpt { lines, whole }) = self.lines(context) else { continue };
            let untrusted = (!context.account.is_root()).then_some(context.account.uid);
            let evidence = Evidence { noted: &self.noted, lines: &lines, untrusted };
            let mut left = Count::of_judged(context, flush, evidence);
            let Some(tally) = left.tally.take().filter(|_| left.trouble.is_none()) else { continue };
            let is_complete = tally.unrecorded == 0;
            let tally = if whole { tally } else { of_a_part(tally) };
            let tally = completed(tally, flush.recipients, left.recipients);
            judged = Some((left, tally));
            if is_complete {
                break;
            }
        }
        judged
    }
}

/// The tally of a log that was not read to its end: what has no record may have one all the same.
fn of_a_part(tally: Tally) -> Tally {
    Tally { unrecorded: 0, not_looked_up: tally.unrecorded, ..tally }
}

/// The tally with all that left: what was not noted, as there was too much, was not looked up.
fn completed(tally: Tally, before: Option<u64>, left: u64) -> Tally {
    let known = tally.delivered + tally.returned + tally.double_bounces;
    let rest = before.map(|before| before.saturating_sub(left).saturating_sub(known));
    let rest = rest.unwrap_or(tally.unrecorded + tally.not_looked_up);
    let unrecorded = tally.unrecorded.min(rest);
    Tally { unrecorded, not_looked_up: rest - unrecorded, ..tally }
}

/// The ids in parts, each of which takes so many bytes at most.
fn batches(ids: Vec<String>, most: usize) -> Vec<Vec<String>> {
    let mut batches: Vec<Vec<String>> = Vec::new();
    let mut room = 0;
    for id in ids {
        let takes = id.len() + 3;
        match batches.last_mut().filter(|_| takes <= room) {
            Some(batch) => {
                room -= takes;
                batch.push(id);
            }
            None => {
                room = most.saturating_sub(takes);
                batches.push(vec![id]);
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mta::FileEnd;

    #[test]
    fn a_request_names_as_many_messages_as_it_has_room_for() {
        let ids: Vec<_> = (0..10_000).map(|number| format!("{number:016X}")).collect();
        let batches = batches(ids.clone(), IDS);
        assert_eq!(batches.concat(), ids);
        assert_eq!(batches.len(), 4);
        // Of each log that there may be, with all its files.
        let mark = Mark {
            files: vec![FileEnd { device: u64::MAX, inode: u64::MAX, size: u64::MAX }; 24],
            cursor: Some(format!("s={}", "a".repeat(290))),
        };
        for ids in batches {
            let request = Request::Log { ids, since: i64::MAX, mark: Some(mark.clone()) };
            assert_eq!(Request::read(format!("{}\n", request.line()).as_bytes()), Ok(request));
        }
        assert_eq!(super::batches(vec!["x".repeat(100)], 10).len(), 1);
    }

    #[test]
    fn what_was_not_noted_or_is_in_a_log_that_was_not_read_whole_was_not_looked_up() {
        let tally = Tally { delivered: 2, returned: 1, double_bounces: 1, unrecorded: 1, ..Tally::default() };
        let of = |tally: &Tally, before| {
            let tally = completed(tally.clone(), before, 2);
            (tally.unrecorded, tally.not_looked_up)
        };
        assert_eq!(of(&tally, Some(10)), (1, 3), "three were not noted");
        assert_eq!(of(&tally, Some(7)), (1, 0));
        assert_eq!(of(&tally, Some(6)), (0, 0), "it waits");
        assert_eq!(of(&tally, None), (1, 0));
        let part = of_a_part(tally);
        assert_eq!(of(&part, Some(10)), (0, 4));
        assert_eq!(of(&part, None), (0, 1));
    }
}
