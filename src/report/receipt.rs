//! The receipt of an outage: how long it was, how much waited, and what came of each queue run. What is not known is said to
//! be that.

use crate::state::{Flush, Outage, Outcome, Records, StateError, Tally};

/// For how long after the end of an outage a queue run belongs to it, in seconds.
pub(crate) const AFTERWARDS: i64 = 24 * 60 * 60;

/// How many runs a receipt has.
const RUNS: usize = 50;

/// What is on record of an outage. Instants are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// The outage.
    pub(crate) outage: Outage,
    /// Its queue runs, the earliest first.
    pub(crate) runs: Vec<Flush>,
    /// What keeps it from having all of them.
    pub(crate) gaps: Vec<Gap>,
    /// When it was made.
    pub(crate) now: i64,
}

/// Runs that are not on a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    /// Earlier ones are no longer on record.
    Dropped,
    /// There were more than a receipt has.
    Further,
}

/// What came of all runs together, in recipients, by the mail log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    /// Delivered.
    pub(crate) delivered: u64,
    /// Returned to the sender.
    pub(crate) returned: u64,
    /// Refused for good, with no sender to return to.
    pub(crate) double_bounces: u64,
    /// Left without a record in the mail log, or not looked up there.
    pub(crate) unrecorded: u64,
    /// Of how many runs that is not known.
    pub(crate) unknown_runs: u64,
}

impl Receipt {
    /// The receipt of the outage of this number, or of the latest one; `None` where it is not on record.
    ///
    /// # Errors
    /// The record can't be read.
    pub(crate) fn of(records: &Records, number: Option<u64>, now: i64) -> Result<Option<Receipt>, StateError> {
        let Some(outage) = records.outage(number)? else { return Ok(None) };
        let next = records.next_outage(&outage)?.map_or(i64::MAX, |down| down.saturating_sub(1));
        let end = outage.up.map_or(i64::MAX, |up| up.saturating_add(AFTERWARDS)).min(next);
        let mut runs = records.flushes_between(outage.down, end, RUNS as u32 + 1)?;
        let dropped = records.has_dropped_since(outage.down)?.then_some(Gap::Dropped);
        let further = (runs.len() > RUNS).then_some(Gap::Further);
        runs.truncate(RUNS);
        Ok(Some(Receipt { outage, runs, gaps: dropped.into_iter().chain(further).collect(), now }))
    }

    /// What came of all runs together.
    pub(crate) fn total(&self) -> Total {
        self.runs.iter().fold(Total::default(), |total, run| match run.outcome.as_ref().and_then(known) {
            Some(Tally { delivered, returned, double_bounces, unrecorded, not_looked_up, .. }) => Total {
                delivered: total.delivered + delivered,
                returned: total.returned + returned,
                double_bounces: total.double_bounces + double_bounces,
                unrecorded: total.unrecorded + unrecorded + not_looked_up,
                ..total
            },
            None => Total { unknown_runs: total.unknown_runs + 1, ..total },
        })
    }

    /// How many messages and recipients the last run that was seen to its end left waiting; `None` where none was.
    pub(crate) fn left_waiting(&self) -> Option<(u64, u64)> {
        let whole = self.runs.iter().rev().find(|run| run.target == "all")?;
        let outcome = whole.outcome.as_ref().filter(|outcome| outcome.settled)?;
        Some((outcome.messages_left, outcome.recipients_left))
    }
}

/// What the mail log says of a run that was seen to its end.
fn known(outcome: &Outcome) -> Option<&Tally> {
    outcome.tally.as_ref().filter(|_| outcome.settled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(target: &str, outcome: Option<Outcome>) -> Flush {
        Flush { target: target.into(), outcome, ..Flush::default() }
    }

    fn receipt(runs: Vec<Flush>) -> Receipt {
        let outage = Outage {
            number: 1,
            host: "mx:25".into(),
            down: 100,
            up: None,
            messages_at_most: None,
            down_seen_by: None,
            up_seen_by: None,
        };
        Receipt { outage, runs, gaps: Vec::new(), now: 200 }
    }

    #[test]
    fn runs_of_which_nothing_is_known_are_counted_as_that() {
        let tally = |delivered, returned| Some(Tally { delivered, returned, ..Tally::default() });
        let outcome = |tally, settled, messages_left| {
            Some(Outcome { tally, settled, messages_left, recipients_left: 9, ..Outcome::default() })
        };
        let runs = vec![
            run("id:A", outcome(tally(1, 0), true, 0)),
            run("all", outcome(tally(30, 2), true, 3)),
            run("all", outcome(tally(5, 5), false, 1)),
            run("domain:example.com", outcome(None, true, 0)),
            run("id:B", None),
        ];
        let made = receipt(runs);
        assert_eq!(made.total(), Total { delivered: 31, returned: 2, unknown_runs: 3, ..Total::default() });
        assert_eq!(made.left_waiting(), None, "the last run of all was not seen to its end");
        assert_eq!(receipt(made.runs[..2].to_vec()).left_waiting(), Some((3, 9)));
        assert_eq!(receipt(Vec::new()).total(), Total::default());
    }
}
