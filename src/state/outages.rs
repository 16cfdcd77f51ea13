//! How long the primaries were down: each outage that was seen, and how many messages waited at most meanwhile. What nobody
//! saw is not here.

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::database::{as_signed, as_unsigned};
use super::{Condition, Records, StateError};

/// How many outages are kept; the longest of all is kept besides.
const KEPT: i64 = 100;

/// How many are shown.
const SHOWN: i64 = 5;

/// A time in which a primary took no mail, as far as it was seen. Instants are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outage {
    /// Its number, counted from 1; the `N` of `?outage=N`.
    pub(crate) number: u64,
    /// `host:port`.
    pub(crate) host: String,
    /// When it was first seen down.
    pub(crate) down: i64,
    /// When it was first seen up again; `None` while it lasts.
    pub(crate) up: Option<i64>,
    /// The most messages that were seen waiting meanwhile; `None` where nobody looked.
    pub(crate) messages_at_most: Option<u64>,
    /// The part of this program that saw it first down: the word of a [`SeenBy`](super::SeenBy), also of a later version's;
    /// `None` where that is not known.
    pub(crate) down_seen_by: Option<String>,
    /// The same of its end.
    pub(crate) up_seen_by: Option<String>,
}

impl Outage {
    /// How long it was, or has been up to `now`, in seconds.
    pub(crate) fn seconds(&self, now: i64) -> i64 {
        self.up.unwrap_or(now).saturating_sub(self.down).max(0)
    }
}

/// The outages on record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outages {
    /// The last five, the latest first.
    pub(crate) latest: Vec<Outage>,
    /// The longest of all.
    pub(crate) longest: Option<Outage>,
}

impl Outages {
    /// Counts what waits now towards the outages that last. Returns whether it is more than ever before, in one of them.
    pub(crate) fn count(&mut self, messages: u64) -> bool {
        let all = self.latest.iter_mut().chain(&mut self.longest);
        let lasting = all.filter(|outage| outage.up.is_none() && outage.messages_at_most < Some(messages));
        lasting.map(|outage| outage.messages_at_most = Some(messages)).count() > 0
    }

    /// The one that lasts, of this primary.
    pub(crate) fn lasting(&self, host: &str) -> Option<&Outage> {
        self.latest.iter().find(|outage| outage.host == host && outage.up.is_none())
    }
}

impl Records {
    /// The outages on record. Of these hosts alone it is known that an outage lasts: nobody asks any other.
    ///
    /// # Errors
    /// As [`Records::flushes`].
    pub(crate) fn outages(&self, hosts: &[&str], now: i64) -> Result<Outages, StateError> {
        if !self.has_database() {
            return Ok(Outages::default());
        }
        self.with_database(|database| {
            let mut query = database.prepare(&format!("SELECT {COLUMNS} FROM outage ORDER BY number DESC LIMIT ?1"))?;
            let all = query.query_map([KEPT + 1], outage)?.collect::<rusqlite::Result<Vec<_>>>()?;
            let is_known = |outage: &Outage| outage.up.is_some() || hosts.contains(&outage.host.as_str());
            let known: Vec<Outage> = all.into_iter().filter(is_known).collect();
            let longest = known.iter().max_by_key(|outage| outage.seconds(now)).cloned();
            let latest = known.into_iter().take(usize::try_from(SHOWN).unwrap_or_default()).collect();
            Ok(Outages { latest, longest })
        })
    }

    /// One outage, if it is (still) on record; without a number, the latest one.
    ///
    /// # Errors
    /// As [`Records::flushes`].
    pub(crate) fn outage(&self, number: Option<u64>) -> Result<Option<Outage>, StateError> {
        if !self.has_database() {
            return Ok(None);
        }
        let query =
            format!("SELECT {COLUMNS} FROM outage WHERE number = coalesce(?1, number) ORDER BY number DESC LIMIT 1");
        self.with_database(|database| database.query_row(&query, [number.map(as_signed)], outage).optional())
    }

    /// When the next outage of that host began, in seconds since 1970, if there was one.
    ///
    /// # Errors
    /// As [`Records::flushes`].
    pub(crate) fn next_outage(&self, after: &Outage) -> Result<Option<i64>, StateError> {
        let query = "SELECT down FROM outage WHERE host = ?1 AND number > ?2 ORDER BY number LIMIT 1";
        let values = params![after.host, as_signed(after.number)];
        self.with_database(|database| database.query_row(query, values, |row| row.get(0)).optional())
    }

    /// The last outages on record, the latest first, of whatever host.
    ///
    /// # Errors
    /// As [`Records::flushes`].
    pub(crate) fn recent_outages(&self, limit: u32) -> Result<Vec<Outage>, StateError> {
        if !self.has_database() {
            return Ok(Vec::new());
        }
        let query = format!("SELECT {COLUMNS} FROM outage ORDER BY number DESC LIMIT ?1");
        self.with_database(|database| database.prepare(&query)?.query_map([limit], outage)?.collect())
    }

    /// Takes note that so many messages wait while an outage lasts.
    ///
    /// # Errors
    /// As [`Records::record`].
    pub(crate) fn note_waiting(&self, messages: u64) -> Result<(), StateError> {
        let statement = "UPDATE outage SET messages = ?1 WHERE up IS NULL AND coalesce(messages, -1) < ?1";
        self.with_database(|database| database.execute(statement, [as_signed(messages)]).map(|_| ()))
    }
}

const COLUMNS: &str = "number, host, down, up, messages, down_seen_by, up_seen_by";

fn outage(row: &Row<'_>) -> rusqlite::Result<Outage> {
    let messages: Option<i64> = row.get(4)?;
    Ok(Outage {
        number: as_unsigned(row.get(0)?),
        host: row.get(1)?,
        down: row.get(2)?,
        up: row.get(3)?,
        messages_at_most: messages.map(as_unsigned),
        down_seen_by: row.get(5)?,
        up_seen_by: row.get(6)?,
    })
}

/// Notes that a primary was found in a condition that is news: an outage begins, or ends. One that puts mail off is as good as
/// down.
pub(super) fn note(
    database: &Connection,
    host: &str,
    condition: Condition,
    now: i64,
    seen_by: Option<&str>,
) -> rusqlite::Result<()> {
    match condition {
        Condition::Unknown => {}
        Condition::Up => {
            let statement = "UPDATE outage SET up = max(down, ?2), up_seen_by = ?3 WHERE host = ?1 AND up IS NULL";
            database.execute(statement, params![host, now, seen_by])?;
        }
        Condition::Busy | Condition::Down => {
            let statement = "INSERT INTO outage (host, down, down_seen_by) SELECT ?1, ?2, ?3
                             WHERE NOT EXISTS (SELECT 1 FROM outage WHERE host = ?1 AND up IS NULL)";
            if database.execute(statement, params![host, now, seen_by])? > 0 {
                let oldest = database.last_insert_rowid() - KEPT;
                database.execute(
                    "DELETE FROM outage WHERE number <= ?1 AND number IS NOT
                     (SELECT number FROM outage WHERE up IS NOT NULL ORDER BY up - down DESC, number LIMIT 1)",
                    [oldest],
                )?;
            }
        }
    }
    Ok(())
}

/// Puts together the outages of a database that has none yet, from the changes of the primaries that it has.
pub(super) fn of_transitions(database: &Connection) -> rusqlite::Result<()> {
    let mut changes = database.prepare("SELECT host, state, at, seen_by FROM transition ORDER BY number")?;
    let mut rows = changes.query([])?;
    while let Some(row) = rows.next()? {
        let (host, seen_by): (String, String) = (row.get(0)?, row.get(3)?);
        note(database, &host, row.get(1)?, row.get(2)?, Some(&seen_by))?;
    }
    // The first sight of a primary is no change.
    let mut primaries = database.prepare("SELECT host, state, since FROM primary_host ORDER BY since")?;
    let mut rows = primaries.query([])?;
    while let Some(row) = rows.next()? {
        let (host, condition): (String, Condition) = (row.get(0)?, row.get(1)?);
        if condition != Condition::Up {
            note(database, &host, condition, row.get(2)?, None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::SeenBy;
    use crate::state::tests::records;

    fn outage(host: &str, down: i64, up: Option<i64>, messages_at_most: Option<u64>) -> Outage {
        let (number, down_seen_by, up_seen_by) = (0, None, None);
        Outage { number, host: host.into(), down, up, messages_at_most, down_seen_by, up_seen_by }
    }

    /// The outages on record, without their numbers and who saw them.
    fn known(records: &Records, now: i64) -> Outages {
        let bare = |of: Outage| outage(&of.host, of.down, of.up, of.messages_at_most);
        let Outages { latest, longest } = records.outages(&["mx"], now).unwrap();
        Outages { latest: latest.into_iter().map(bare).collect(), longest: longest.map(bare) }
    }

    #[test]
    fn an_outage_lasts_from_the_first_sight_to_the_first_time_up() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let note = |condition, now| records.note_primaries(&[("mx", condition)], now, SeenBy::Page).unwrap();
        let outages = |messages: Option<u64>, now| {
            let mut found = known(&records, now);
            let shown = messages.map(|messages| (found.count(messages), found.clone()));
            messages.into_iter().for_each(|messages| records.note_waiting(messages).unwrap());
            let noted = known(&records, now);
            assert!(shown.is_none_or(|(_, shown)| shown == noted), "what is shown is what is then on record");
            noted
        };
        assert_eq!(outages(Some(5), 1), Outages::default(), "nothing was ever written");
        note(Condition::Down, 100);
        assert_eq!(outages(Some(3), 110).latest, [outage("mx", 100, None, Some(3))]);
        note(Condition::Busy, 200);
        assert_eq!(outages(Some(40), 210).latest, [outage("mx", 100, None, Some(40))], "it still takes no mail");
        note(Condition::Unknown, 250);
        assert_eq!(outages(Some(2), 260).lasting("mx").unwrap().messages_at_most, Some(40));
        note(Condition::Up, 300);
        let over = outage("mx", 100, Some(300), Some(40));
        assert_eq!(outages(Some(99), 310), Outages { latest: vec![over.clone()], longest: Some(over.clone()) });
        note(Condition::Down, 1000);
        assert_eq!(outages(None, 1100).latest, [outage("mx", 1000, None, None), over.clone()]);
        assert_eq!(outages(None, 1100).longest, Some(over));
        assert_eq!(outages(None, 9999).longest.unwrap().seconds(9999), 8999, "the one that lasts");
        note(Condition::Up, 900);
        assert_eq!(outages(None, 900).latest[0], outage("mx", 1000, Some(1000), None), "the clock was set back");
    }

    #[test]
    fn of_a_primary_that_nobody_asks_any_longer_nothing_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        records.note_primaries(&[("old", Condition::Down), ("mx", Condition::Down)], 100, SeenBy::Watch).unwrap();
        let found = known(&records, 500);
        assert_eq!(found.latest, [outage("mx", 100, None, None)]);
        assert!(found.lasting("old").is_none());
    }

    #[test]
    fn the_longest_is_kept_however_many_follow() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let note = |condition, now| records.note_primaries(&[("mx", condition)], now, SeenBy::Page).unwrap();
        note(Condition::Down, 0);
        note(Condition::Up, 100_000);
        for number in 1..=KEPT + 10 {
            note(Condition::Down, 100_000 + number * 10);
            note(Condition::Up, 100_000 + number * 10 + 5);
        }
        let found = known(&records, 200_000);
        assert_eq!((found.latest.len(), found.longest), (5, Some(outage("mx", 0, Some(100_000), None))));
        let count = "SELECT count(*) FROM outage";
        let kept = records.with_database(|database| database.query_row(count, [], |row| row.get::<_, i64>(0)));
        assert_eq!(kept, Ok(KEPT + 1));
    }

    #[test]
    fn one_outage_is_found_by_its_number_with_who_saw_it() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        assert_eq!(records.outage(None), Ok(None));
        records.note_primaries(&[("mx", Condition::Down)], 100, SeenBy::Page).unwrap();
        records.note_primaries(&[("mx", Condition::Up)], 300, SeenBy::Watch).unwrap();
        records.note_primaries(&[("mx", Condition::Down)], 500, SeenBy::Check).unwrap();
        let first = records.outage(Some(1)).unwrap().unwrap();
        assert_eq!((first.number, first.down, first.up), (1, 100, Some(300)));
        assert_eq!((first.down_seen_by.as_deref(), first.up_seen_by.as_deref()), (Some("page"), Some("watch")));
        let latest = records.outage(None).unwrap().unwrap();
        assert_eq!((latest.number, latest.up, latest.down_seen_by.as_deref()), (2, None, Some("check")));
        assert_eq!(records.outage(Some(3)), Ok(None));
        assert_eq!((records.next_outage(&first), records.next_outage(&latest)), (Ok(Some(500)), Ok(None)));
    }
}
