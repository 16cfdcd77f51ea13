//! The tables, and the proof that a database holds nothing else.
//!
//! A database file can be made to do more than hold rows: a view or a trigger under a table's name runs its own SQL
//! with every question, a column's default or a check can be made to take for ever
//! (<https://sqlite.org/security.html>). So each object in it must be one of ours to the letter.

use rusqlite::Connection;

use super::database::Fault;
use super::outages;

/// The version of the tables, in `PRAGMA user_version`. Raised with each change of [`TABLES`].
pub(super) const VERSION: i64 = 7;

/// The first version with outages.
const WITH_OUTAGES: i64 = 3;

/// Each table by its name, as SQLite keeps its definition in `sqlite_schema`.
pub(super) const TABLES: &[(&str, &str)] = &[
    (
        "flush",
        "CREATE TABLE flush (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    started INTEGER NOT NULL,
    target TEXT NOT NULL,
    by TEXT NOT NULL,
    messages INTEGER,
    recipients INTEGER,
    exit TEXT,
    sampled INTEGER,
    messages_left INTEGER NOT NULL DEFAULT 0,
    recipients_left INTEGER NOT NULL DEFAULT 0,
    why TEXT NOT NULL DEFAULT '',
    settled INTEGER NOT NULL DEFAULT 0,
    ids TEXT
)",
    ),
    (
        "primary_host",
        "CREATE TABLE primary_host (
    host TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    since INTEGER NOT NULL,
    back INTEGER NOT NULL DEFAULT 0
)",
    ),
    // Of versions 1 and 2: they have a file of their own since.
    (
        "sample",
        "CREATE TABLE sample (
    taken INTEGER PRIMARY KEY,
    messages INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    bytes INTEGER,
    free INTEGER
)",
    ),
    (
        "transition",
        "CREATE TABLE transition (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    host TEXT NOT NULL,
    at INTEGER NOT NULL,
    state TEXT NOT NULL,
    seen_by TEXT NOT NULL
)",
    ),
    (
        "noticed",
        "CREATE TABLE noticed (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    number INTEGER NOT NULL
)",
    ),
    (
        "outage",
        "CREATE TABLE outage (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    host TEXT NOT NULL,
    down INTEGER NOT NULL,
    up INTEGER,
    messages INTEGER,
    down_seen_by TEXT,
    up_seen_by TEXT
)",
    ),
    (
        "rehearsal",
        "CREATE TABLE rehearsal (
    number INTEGER PRIMARY KEY,
    despite TEXT,
    said TEXT
)",
    ),
    (
        "watch",
        "CREATE TABLE watch (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    good INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    stops INTEGER NOT NULL,
    stopped INTEGER NOT NULL,
    why TEXT NOT NULL
)",
    ),
    (
        "result",
        "CREATE TABLE result (
    number INTEGER PRIMARY KEY,
    boot TEXT NOT NULL,
    delivered INTEGER,
    returned INTEGER,
    unrecorded INTEGER,
    reason TEXT,
    sent_back TEXT,
    per_minute INTEGER,
    fastest INTEGER,
    done_about INTEGER
)",
    ),
    (
        "announced",
        "CREATE TABLE announced (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seen TEXT NOT NULL
)",
    ),
    (
        "notice",
        "CREATE TABLE notice (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    tries INTEGER NOT NULL
)",
    ),
    (
        "further_result",
        "CREATE TABLE further_result (
    number INTEGER PRIMARY KEY,
    double_bounces INTEGER NOT NULL,
    not_looked_up INTEGER NOT NULL
)",
    ),
];

/// The objects that SQLite makes by itself, for AUTOINCREMENT and for a key of text.
const MADE_BY_SQLITE: &[(&str, Option<&str>)] =
    &[("sqlite_sequence", Some("CREATE TABLE sqlite_sequence(name,seq)")), ("sqlite_autoindex_primary_host_1", None)];

/// Makes the tables that are missing: version 2 added two to those of version 1, version 3 one, which it fills from what
/// was known, version 4 two, version 5 one, version 6 two, and version 7 one; none was
/// changed. Returns whether there were any, and only if the database holds our tables and
/// nothing else.
pub(super) fn prepare(database: &mut Connection) -> Result<bool, Fault> {
    let earlier = version(database)?;
    if earlier < VERSION {
        let upgrade = database.transaction()?;
        let there = vetted(&upgrade)?;
        for (name, definition) in TABLES {
            if !there.iter().any(|other| other == name) {
                upgrade.execute(definition, [])?;
            }
        }
        if earlier < WITH_OUTAGES {
            outages::of_transitions(&upgrade)?;
        }
        upgrade.pragma_update(None, "user_version", VERSION)?;
        upgrade.commit()?;
    }
    check(database).map(|()| earlier < VERSION)
}

/// Returns only if the database holds our tables and nothing else.
pub(super) fn check(database: &mut Connection) -> Result<(), Fault> {
    if version(database)? < VERSION {
        return Err(Fault::Earlier);
    }
    let there = vetted(database)?;
    match TABLES.iter().find(|(name, _)| !there.iter().any(|other| other == name)) {
        Some((missing, _)) => Err(Fault::Damaged(format!("it has no table {missing}"))),
        None => Ok(()),
    }
}

/// The version of the tables; 0 where there are none yet.
fn version(database: &Connection) -> Result<i64, Fault> {
    match database.query_row("PRAGMA user_version", [], |row| row.get(0))? {
        version @ 0..=VERSION => Ok(version),
        version if version > VERSION => Err(Fault::Later(version)),
        version => Err(Fault::Damaged(format!("its version is {version}"))),
    }
}

/// The names in the database, if all of them are ours.
fn vetted(database: &Connection) -> Result<Vec<String>, Fault> {
    let mut query = database.prepare("SELECT type, name, sql FROM sqlite_schema")?;
    let mut objects = query.query([])?;
    let mut names = Vec::new();
    while let Some(object) = objects.next()? {
        let (kind, name, definition): (String, String, Option<String>) =
            (object.get(0)?, object.get(1)?, object.get(2)?);
        let ours = TABLES.iter().map(|(name, definition)| (*name, Some(*definition)));
        if !ours.chain(MADE_BY_SQLITE.iter().copied()).any(|ours| ours == (name.as_str(), definition.as_deref())) {
            return Err(Fault::Damaged(format!("the {kind} {name:?} in it is not Bartleby's")));
        }
        names.push(name);
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::log::tests::new_flush;
    use crate::state::tests::records;
    use crate::state::{Condition, Flush, Outage, Outcome, Sample, SeenBy, Tally, Waited, Watching};
    use std::path::Path;
    use std::thread;

    /// What version 1 made, word for word.
    const VERSION_1: &str = "CREATE TABLE IF NOT EXISTS flush (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    started INTEGER NOT NULL,
    target TEXT NOT NULL,
    by TEXT NOT NULL,
    messages INTEGER,
    recipients INTEGER,
    exit TEXT,
    sampled INTEGER,
    messages_left INTEGER NOT NULL DEFAULT 0,
    recipients_left INTEGER NOT NULL DEFAULT 0,
    why TEXT NOT NULL DEFAULT '',
    settled INTEGER NOT NULL DEFAULT 0,
    ids TEXT
);
CREATE TABLE IF NOT EXISTS primary_host (
    host TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    since INTEGER NOT NULL,
    back INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS sample (
    taken INTEGER PRIMARY KEY,
    messages INTEGER NOT NULL,
    recipients INTEGER NOT NULL,
    bytes INTEGER,
    free INTEGER
);
PRAGMA user_version = 1;
INSERT INTO flush VALUES (6, 100, 'all', '::1', 2, 3, 'ended with status 0', 110, 1, 2, 'full (2)', 1, 'A1' || char(10) || 'B2');
INSERT INTO flush VALUES (7, 200, 'id:A1', 'root', NULL, NULL, NULL, NULL, 0, 0, '', 0, NULL);
INSERT INTO primary_host VALUES ('mx1.example.com:25', 'up', 150, 1);
INSERT INTO sample VALUES (60, 2, 3, NULL, 9);";

    fn write_version_1(folder: &Path) {
        Connection::open(folder.join("bartleby.db")).unwrap().execute_batch(VERSION_1).unwrap();
    }

    #[test]
    fn all_rows_of_version_1_survive_and_its_numbers_go_on() {
        let folder = tempfile::tempdir().unwrap();
        write_version_1(folder.path());
        let records = records(folder.path()).unwrap();
        let first = Flush {
            number: 6,
            started: 100,
            exit: Some("ended with status 0".into()),
            outcome: Some(Outcome {
                sampled: 110,
                messages_left: 1,
                recipients_left: 2,
                why: "full (2)".into(),
                settled: true,
                ..Outcome::default()
            }),
            ..new_flush()
        };
        let second = Flush {
            number: 7,
            started: 200,
            target: "id:A1".into(),
            by: "root".into(),
            messages: None,
            recipients: None,
            ..new_flush()
        };
        assert_eq!(records.flushes(10), Ok(vec![second, first.clone()]));
        assert_eq!(records.waited(&first), Waited::Ids(["A1".into(), "B2".into()].into()));
        assert_eq!(records.is_back(&["mx1.example.com:25"]), Ok(true));
        let sample = |taken| Sample { taken, messages: 2, recipients: 3, bytes: None, free: Some(9) };
        assert_eq!(records.add_sample(&sample(120)), [sample(60), sample(120)]);
        assert_eq!(records.record(&records.turn().unwrap(), &new_flush(), &Waited::By(1)), Ok(8));
        let down = [("mx1.example.com:25", Condition::Down)];
        assert_eq!(records.note_primaries(&down, 300, SeenBy::Page), Ok(vec![Some(300)]));
        assert_eq!(records.transitions_unnoticed().unwrap().len(), 1);
        assert_eq!(records.set_aside(), None);
    }

    #[test]
    fn the_outages_of_version_2_are_put_together_from_its_changes() {
        let folder = tempfile::tempdir().unwrap();
        let database = Connection::open(folder.path().join("bartleby.db")).unwrap();
        // Version 2 had the first five tables.
        let made: String = TABLES[..5].iter().map(|(_, definition)| format!("{definition};\n")).collect();
        database.execute_batch(&made).unwrap();
        database
            .execute_batch(
                "PRAGMA user_version = 2;
                 INSERT INTO transition (host, at, state, seen_by) VALUES
                     ('mx1:25', 100, 'up', 'page'), ('mx1:25', 200, 'busy', 'watch'), ('mx1:25', 250, 'down', 'page'),
                     ('mx1:25', 400, 'up', 'check'), ('mx2:25', 500, 'down', 'list'), ('mx1:25', 600, 'down', 'page');
                 INSERT INTO primary_host VALUES ('mx1:25', 'down', 600, 0), ('mx2:25', 'down', 500, 0),
                     ('mx3:25', 'busy', 50, 0), ('mx4:25', 'up', 60, 0);",
            )
            .unwrap();
        drop(database);
        let records = records(folder.path()).unwrap();
        let outage = |number, host: &str, down, up, seen_by: [Option<&str>; 2]| {
            let [down_seen_by, up_seen_by] = seen_by.map(|word| word.map(str::to_owned));
            Outage { number, host: host.into(), down, up, messages_at_most: None, down_seen_by, up_seen_by }
        };
        let hosts = ["mx1:25", "mx2:25", "mx3:25", "mx4:25"];
        let known = records.outages(&hosts, 700).unwrap();
        assert_eq!(
            known.latest,
            [
                outage(4, "mx3:25", 50, None, [None; 2]),
                outage(3, "mx1:25", 600, None, [Some("page"), None]),
                outage(2, "mx2:25", 500, None, [Some("list"), None]),
                outage(1, "mx1:25", 200, Some(400), [Some("watch"), Some("check")]),
            ],
            "what was up at the first sight had been down for a time that nobody saw"
        );
        assert_eq!(known.longest, Some(outage(4, "mx3:25", 50, None, [None; 2])));
        assert_eq!(records.set_aside(), None);
    }

    #[test]
    fn the_runs_of_version_3_were_not_rehearsed() {
        let folder = tempfile::tempdir().unwrap();
        let database = Connection::open(folder.path().join("bartleby.db")).unwrap();
        // Version 3 had the first six tables.
        let made: String = TABLES[..6].iter().map(|(_, definition)| format!("{definition};\n")).collect();
        database.execute_batch(&made).unwrap();
        let flush = "INSERT INTO flush (started, target, by) VALUES (1, 'all', '::1'); PRAGMA user_version = 3";
        database.execute_batch(flush).unwrap();
        drop(database);
        let records = records(folder.path()).unwrap();
        let before = Flush { number: 1, messages: None, recipients: None, ..new_flush() };
        assert_eq!(records.flushes(10), Ok(vec![before]));
        assert_eq!((records.set_aside(), records.watching()), (None, Ok(Watching::default())));
        let turn = records.turn().unwrap();
        let rehearsed = Flush { rehearsal: Some("it accepts".into()), ..new_flush() };
        assert_eq!(records.record(&turn, &rehearsed, &Waited::By(1)), Ok(2));
        assert_eq!(records.flush(2), Ok(Some(Flush { number: 2, ..rehearsed })));
    }

    #[test]
    fn of_the_runs_of_version_4_it_is_not_known_who_got_the_mail() {
        let folder = tempfile::tempdir().unwrap();
        let database = Connection::open(folder.path().join("bartleby.db")).unwrap();
        // Version 4 had the first eight tables.
        let made: String = TABLES[..8].iter().map(|(_, definition)| format!("{definition};\n")).collect();
        database.execute_batch(&made).unwrap();
        let flush = "INSERT INTO flush (started, target, by, sampled, settled) VALUES (1, 'all', '::1', 9, 1);
                     INSERT INTO flush (started, target, by) VALUES (2, 'all', '::1'); PRAGMA user_version = 4";
        database.execute_batch(flush).unwrap();
        drop(database);
        let records = records(folder.path()).unwrap();
        let outcome = Outcome { sampled: 9, settled: true, ..Outcome::default() };
        let before =
            Flush { number: 1, messages: None, recipients: None, outcome: Some(outcome.clone()), ..new_flush() };
        assert_eq!(records.flush(1), Ok(Some(before)));
        assert_eq!(records.set_aside(), None);
        // One that was under way meanwhile goes on.
        let tally = Some(Tally { delivered: 3, ..Tally::default() });
        let outcome = Outcome { tally, ..outcome };
        records.add_outcome(2, &outcome).unwrap();
        assert_eq!(records.flush(2).unwrap().unwrap().outcome, Some(outcome));
    }

    #[test]
    fn of_many_that_find_version_1_one_upgrades_it_and_none_loses_anything() {
        let folder = tempfile::tempdir().unwrap();
        write_version_1(folder.path());
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert_eq!(records(folder.path()).unwrap().flushes(10).unwrap().len(), 2));
            }
        });
        let database = Connection::open(folder.path().join("bartleby.db")).unwrap();
        assert_eq!(database.query_row("PRAGMA user_version", [], |row| row.get(0)), Ok(VERSION));
        let tables = "SELECT count(*) FROM sqlite_schema WHERE sql IS NOT NULL AND name != 'sqlite_sequence'";
        assert_eq!(database.query_row(tables, [], |row| row.get(0)), Ok(TABLES.len() as i64));
    }
}
