//! What came of a flush, as it is kept on record.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::Records;
use super::database::{as_signed, as_unsigned};
use crate::queue::beginning;

/// How many copies that went back are listed one by one; further ones are only counted.
pub(crate) const LISTED: usize = 200;

/// For how many flushes that list is kept.
const LISTS_KEPT: i64 = 20;

/// The longest queue id, address and reason in it, in bytes.
const LONGEST: usize = 300;

/// What came of a flush. Messages that came in after it was started don't count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// When the queue was last looked at, in seconds since 1970.
    pub(crate) sampled: i64,
    /// Messages of the flush that still wait.
    pub(crate) messages_left: u64,
    /// Recipients of the flush that still wait.
    pub(crate) recipients_left: u64,
    /// Why they wait, in words.
    pub(crate) why: String,
    /// Whether the queue has stopped changing: this is the end of it.
    pub(crate) settled: bool,
    /// What became of the recipients that wait no longer, where the mail log could be read.
    pub(crate) tally: Option<Tally>,
    /// How fast it goes, where that is known.
    pub(crate) pace: Option<Pace>,
    /// Recipients that were still waiting at the end of it and wait no longer; as a listing shows, and not on record.
    pub(crate) left_later: u64,
}

/// What became of the recipients that wait no longer, by the mail log. Each recipient of each message counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Those to whom the next mail server took the mail.
    pub(crate) delivered: u64,
    /// Those whose mail went back to its sender.
    pub(crate) returned: u64,
    /// Those whose mail was refused for good and has the null sender, so that it went back to nobody: Postfix and OpenSMTPD
    /// drop it, sendmail gives it to the postmaster.
    pub(crate) double_bounces: u64,
    /// Those of which the log holds no record.
    pub(crate) unrecorded: u64,
    /// Those that were not looked up in the log, as they were too many or it could not be read to its end.
    pub(crate) not_looked_up: u64,
    /// Why most of it went back, in the log's words; empty where nothing did.
    pub(crate) reason: String,
    /// Whose mail went back, 200 at most; only of a flush that was asked for by its number.
    pub(crate) sent_back: Vec<SentBack>,
}

/// Mail that went back to its sender.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentBack {
    /// Its queue id.
    pub(crate) id: String,
    /// For whom it was.
    pub(crate) recipient: String,
    /// Why, in the log's words; may be empty.
    pub(crate) reason: String,
}

/// How fast a flush goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Recipients that left the queue within the last minute.
    pub(crate) per_minute: u64,
    /// The most that did within a minute.
    pub(crate) fastest: u64,
    /// When the rest has left at this pace, in seconds since 1970; `None` where nothing moves.
    pub(crate) done_about: Option<i64>,
}

impl Outcome {
    /// Whether more than a tenth of those that left went back.
    pub(crate) fn is_alarming(&self) -> bool {
        self.tally.as_ref().is_some_and(Tally::is_alarming)
    }
}

impl Tally {
    /// Whether more than a tenth of those that left went back.
    fn is_alarming(&self) -> bool {
        self.returned > 0 && self.returned * 10 > self.left()
    }

    /// How many left in all.
    pub(crate) fn left(&self) -> u64 {
        self.delivered + self.returned + self.double_bounces + self.unrecorded + self.not_looked_up
    }

    /// Whether so much went back that not each is listed: how many are not.
    pub(crate) fn unlisted(&self) -> u64 {
        self.returned.saturating_sub(self.sent_back.len() as u64)
    }
}

impl Pace {
    /// Whether it goes at less than half the speed that it once had.
    pub(crate) fn is_slower(self) -> bool {
        self.per_minute * 2 < self.fastest
    }
}

impl Records {
    /// The outcome with the list of whose mail went back, as far as it is kept.
    pub(super) fn with_list(&self, number: u64, outcome: Outcome) -> Outcome {
        let query = "SELECT sent_back FROM result WHERE number = ?1";
        let list = |row: &Row<'_>| row.get::<_, Option<String>>(0);
        let kept = self.with_database(|database| database.query_row(query, [as_signed(number)], list).optional()).ok();
        // A list that makes no sense does not count.
        let sent_back = kept.flatten().flatten().and_then(|list| serde_json::from_str(&list).ok());
        let tally = outcome.tally.map(|tally| Tally { sent_back: sent_back.unwrap_or_default(), ..tally });
        Outcome { tally, ..outcome }
    }
}

/// Begins the record of what comes of a flush that was started since this boot.
pub(super) fn begin(database: &Connection, number: i64, boot: &str, oldest: i64) -> rusqlite::Result<()> {
    database.execute("INSERT OR REPLACE INTO result (number, boot) VALUES (?1, ?2)", params![number, boot])?;
    database.execute("DELETE FROM result WHERE number < ?1", [oldest])?;
    database.execute("DELETE FROM further_result WHERE number < ?1", [oldest])?;
    database.execute("UPDATE result SET sent_back = NULL WHERE number <= ?1", [number - LISTS_KEPT])?;
    Ok(())
}

/// Adds what came of it so far. Only to be called for a flush that is not settled.
pub(super) fn add(database: &Connection, number: i64, outcome: &Outcome) -> rusqlite::Result<()> {
    let Outcome { tally, pace, .. } = outcome;
    let pace_values = params![
        number,
        pace.map(|pace| as_signed(pace.per_minute)),
        pace.map(|pace| as_signed(pace.fastest)),
        pace.and_then(|pace| pace.done_about)
    ];
    // A flush of an earlier version has no row.
    database.execute("INSERT OR IGNORE INTO result (number, boot) VALUES (?1, '')", [number])?;
    database
        .execute("UPDATE result SET per_minute = ?2, fastest = ?3, done_about = ?4 WHERE number = ?1", pace_values)?;
    let Some(Tally { delivered, returned, double_bounces, unrecorded, not_looked_up, reason, sent_back }) = tally
    else {
        return Ok(());
    };
    database.execute(
        "INSERT OR REPLACE INTO further_result (number, double_bounces, not_looked_up) VALUES (?1, ?2, ?3)",
        params![number, as_signed(*double_bounces), as_signed(*not_looked_up)],
    )?;
    let cut = |text: &str| beginning(text, LONGEST).to_owned();
    let bounded =
        |one: &SentBack| SentBack { id: cut(&one.id), recipient: cut(&one.recipient), reason: cut(&one.reason) };
    let list: Vec<_> = sent_back.iter().take(LISTED).map(bounded).collect();
    let list = (!list.is_empty()).then(|| serde_json::to_string(&list).unwrap_or_default());
    database.execute(
        "UPDATE result SET delivered = ?2, returned = ?3, unrecorded = ?4, reason = ?5, sent_back = ?6 \
         WHERE number = ?1",
        params![number, as_signed(*delivered), as_signed(*returned), as_signed(*unrecorded), cut(reason), list],
    )?;
    Ok(())
}

/// What [`tally_and_pace`] reads, in its order.
pub(super) const COLUMNS: &str =
    "delivered, returned, unrecorded, reason, per_minute, fastest, done_about, double_bounces, not_looked_up";

/// The tally and the pace of a row, from this column on.
pub(super) fn tally_and_pace(row: &Row<'_>, first: usize) -> rusqlite::Result<(Option<Tally>, Option<Pace>)> {
    let unsigned = |index| row.get::<_, Option<i64>>(first + index).map(|number| number.map(as_unsigned));
    let tally = match (unsigned(0)?, unsigned(1)?, unsigned(2)?) {
        (Some(delivered), Some(returned), Some(unrecorded)) => {
            let reason = row.get::<_, Option<String>>(first + 3)?.unwrap_or_default();
            // A flush of an earlier version has neither of the further ones.
            let [double_bounces, not_looked_up] = [unsigned(7)?, unsigned(8)?].map(Option::unwrap_or_default);
            Some(Tally {
                delivered,
                returned,
                double_bounces,
                unrecorded,
                not_looked_up,
                reason,
                sent_back: Vec::new(),
            })
        }
        _ => None,
    };
    let pace = match (unsigned(4)?, unsigned(5)?) {
        (Some(per_minute), Some(fastest)) => Some(Pace { per_minute, fastest, done_about: row.get(first + 6)? }),
        _ => None,
    };
    Ok((tally, pace))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::log::tests::new_flush;
    use crate::state::tests::records;
    use crate::state::{Flush, Waited};

    fn sent_back(number: usize, reason: &str) -> SentBack {
        SentBack { id: format!("A{number}"), recipient: format!("r{number}@example.com"), reason: reason.into() }
    }

    #[test]
    fn what_the_mail_log_said_is_kept_with_those_whose_mail_went_back() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let turn = records.turn().unwrap();
        let number = records.record(&turn, &new_flush(), &Waited::By(1)).unwrap();
        let pace = Pace { per_minute: 30, fastest: 90, done_about: Some(1234) };
        let so_far =
            Outcome { sampled: 9, messages_left: 3, recipients_left: 3, pace: Some(pace), ..Outcome::default() };
        records.add_outcome(number, &so_far).unwrap();
        assert_eq!(records.flush(number).unwrap().unwrap().outcome, Some(so_far.clone()));
        let tally = Tally {
            delivered: 38,
            returned: 2,
            double_bounces: 4,
            unrecorded: 1,
            not_looked_up: 5,
            reason: "550 no such user".into(),
            sent_back: vec![sent_back(1, "550 no such user"), sent_back(2, "")],
        };
        let settled = Outcome { settled: true, tally: Some(tally.clone()), pace: None, ..so_far.clone() };
        records.add_outcome(number, &settled).unwrap();
        // What is settled stays so.
        records.add_outcome(number, &so_far).unwrap();
        assert_eq!(records.flush(number).unwrap().unwrap().outcome, Some(settled.clone()));
        let without_list = Outcome { tally: Some(Tally { sent_back: vec![], ..tally }), ..settled };
        assert_eq!(records.flushes(1).unwrap()[0].outcome, Some(without_list), "many are read without their lists");
    }

    #[test]
    fn lists_are_bounded_in_length_and_number() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let turn = records.turn().unwrap();
        let record = || records.record(&turn, &new_flush(), &Waited::By(1)).unwrap();
        let first = record();
        let long = "é".repeat(LONGEST);
        let sent_back: Vec<_> = (0..LISTED + 50).map(|number| sent_back(number, &long)).collect();
        let tally = Tally { returned: sent_back.len() as u64, sent_back, ..Tally::default() };
        records.add_outcome(first, &Outcome { settled: true, tally: Some(tally), ..Outcome::default() }).unwrap();
        let kept = || records.flush(first).unwrap().unwrap().outcome.unwrap().tally.unwrap();
        assert_eq!((kept().sent_back.len(), kept().unlisted()), (LISTED, 50));
        assert!(kept().sent_back[0].reason.len() <= LONGEST);
        (0..LISTS_KEPT).for_each(|_| _ = record());
        assert_eq!((kept().sent_back.len(), kept().returned), (0, LISTED as u64 + 50), "the number stays");
    }

    #[test]
    fn a_run_that_was_under_way_when_the_machine_was_restarted_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let turn = records.turn().unwrap();
        let number = records.record(&turn, &new_flush(), &Waited::By(1)).unwrap();
        let restarted = || records.flush(number).unwrap().unwrap().restarted;
        assert!(!restarted());
        let reboot = |boot: &str| {
            let update = "UPDATE result SET boot = ?1";
            records.with_database(|database| database.execute(update, [boot])).unwrap();
        };
        reboot("another boot");
        assert!(restarted());
        reboot("");
        assert!(!restarted(), "which boot it was is not known");
        reboot("another boot");
        records.add_outcome(number, &Outcome { settled: true, ..Outcome::default() }).unwrap();
        assert!(!restarted(), "it had come to its end before");
        assert_eq!(
            records.flush(number).unwrap(),
            Some(Flush { outcome: Some(Outcome { settled: true, ..Outcome::default() }), number, ..new_flush() })
        );
    }

    #[test]
    fn more_than_a_tenth_is_alarming_and_half_the_speed_is_slower() {
        let tally = |delivered, returned| Tally { delivered, returned, ..Tally::default() };
        assert_eq!(
            [tally(9, 1), tally(8, 1), tally(0, 0), tally(0, 1)].map(|tally| tally.is_alarming()),
            [false, true, false, true]
        );
        let pace = |per_minute, fastest| Pace { per_minute, fastest, done_about: None };
        assert_eq!([pace(50, 100), pace(49, 100), pace(0, 0)].map(Pace::is_slower), [false, true, false]);
    }
}
