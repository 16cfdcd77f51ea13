//! Where the rows in front of a page deep in a long queue are kept: on disk, so that memory does not grow
//! with the queue. SQLite keeps such a database in a file that loses its name at once, and is gone with this process.

use std::path::Path;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params};

use super::{Message, Window};

/// How much of it is held in memory, in KiB.
const CACHE: u32 = 1024;

/// Messages with the value that they are ordered by.
pub struct Spool {
    rows: Connection,
    failed: Option<rusqlite::Error>,
}

impl Spool {
    /// An empty spool, with its files in a private folder.
    pub fn new(folder: &Path) -> rusqlite::Result<Spool> {
        let rows = Connection::open("")?;
        rows.pragma_update(None, "temp_store_directory", folder.to_string_lossy())?;
        rows.execute_batch(&format!(
            "PRAGMA temp_store = FILE; PRAGMA cache_size = -{CACHE}; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;
             CREATE TABLE row (number INTEGER PRIMARY KEY, value, arrival INTEGER, message TEXT NOT NULL); BEGIN"
        ))?;
        Ok(Spool { rows, failed: None })
    }

    /// Adds a message. Once that has failed, on a full disk say, nothing is added any more.
    pub fn push(&mut self, value: Sql, message: &Message<'_>) {
        if self.failed.is_none() {
            self.failed = self.insert(value, message).err();
        }
    }

    fn insert(&self, value: Sql, message: &Message<'_>) -> rusqlite::Result<()> {
        let text =
            serde_json::to_string(message).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let mut insert = self.rows.prepare_cached("INSERT INTO row (value, arrival, message) VALUES (?1, ?2, ?3)")?;
        insert.execute(params![value, message.arrival, text]).map(|_| ())
    }

    /// The rows of a page. What has no value comes last; equal values stay as they were added.
    pub fn page(self, window: Window, descending: bool) -> rusqlite::Result<Vec<Message<'static>>> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let direction = if descending { "DESC" } else { "ASC" };
        let mut places = self.rows.prepare(&format!(
            "SELECT number FROM row ORDER BY value IS NULL, value {direction}, number LIMIT ?1 OFFSET ?2"
        ))?;
        let numbers = places.query_map([window.per_page, window.first()].map(signed), |row| row.get::<_, i64>(0))?;
        let mut row = self.rows.prepare("SELECT arrival, message FROM row WHERE number = ?1")?;
        numbers
            .map(|number| {
                let (arrival, text) = row.query_row([number?], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
                let message: Message<'static> = serde_json::from_str(&text).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, error.into())
                })?;
                Ok(Message { arrival, ..message })
            })
            .collect()
    }
}

/// SQLite's integers are signed; so many rows there are not.
fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
