//! The tables, and the proof that a database holds nothing else.
//!
//! A database file can be made to do more than hold rows: a view or a trigger under a table's name runs its own SQL
//! with every question, a column's default or a check can be made to take for ever
//! (<https://sqlite.org/security.html>). So each object in it must be one of ours to the letter.

use rusqlite::{Connection, TransactionBehavior};

use super::database::Fault;

/// The version of the tables, in `PRAGMA user_version`. Raised with each change of [`TABLES`].
pub(super) const VERSION: i64 = 1;

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
];

/// What SQLite makes by itself for AUTOINCREMENT and for a key that is text.
const MADE_BY_SQLITE: &[(&str, Option<&str>)] =
    &[("sqlite_sequence", Some("CREATE TABLE sqlite_sequence(name,seq)")), ("sqlite_autoindex_primary_host_1", None)];

/// Makes the tables that are missing. Returns only if the database holds our tables and nothing else.
pub(super) fn prepare(database: &mut Connection) -> Result<(), Fault> {
    if version(database)? < VERSION {
        // Whoever gets here second finds it done.
        let upgrade = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if version(&upgrade)? < VERSION {
            let there = vetted(&upgrade)?;
            for (name, definition) in TABLES {
                if !there.iter().any(|other| other == name) {
                    upgrade.execute(definition, [])?;
                }
            }
            upgrade.pragma_update(None, "user_version", VERSION)?;
        }
        upgrade.commit()?;
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
