//! Where the rows in front of a page deep in a long queue are kept: on disk, so that memory does not grow
//! with the queue. SQLite keeps such a database in a file that loses its name at once, and is gone with this process.

use std::path::Path;

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, params};

use super::{Message, Row, Window};

/// How much of it is held in memory, in KiB.
const CACHE: u32 = 1024;

/// Rows with the value that they are ordered by, and their number in the mail server's order.
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
             CREATE TABLE row (number INTEGER PRIMARY KEY, value, arrival INTEGER, message TEXT NOT NULL, left_out INTEGER); BEGIN"
        ))?;
        Ok(Spool { rows, failed: None })
    }

    /// Adds a row. Once that has failed, on a full disk say, nothing is added any more.
    pub fn push(&mut self, number: u64, value: Sql, row: &Row) {
        if self.failed.is_none() {
            self.failed = self.insert(number, value, row).err();
        }
    }

    fn insert(&self, number: u64, value: Sql, row: &Row) -> rusqlite::Result<()> {
        let Row { message, left_out } = row;
        let text =
            serde_json::to_string(message).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        let mut insert = self.rows.prepare_cached("INSERT INTO row VALUES (?1, ?2, ?3, ?4, ?5)")?;
        insert
            .execute(params![number.cast_signed(), value, message.arrival, text, left_out.cast_signed() as i64])
            .map(|_| ())
    }

    /// The rows of a page. What has no value comes last; equal values stay as they were added.
    /// `None` where one has no room any more.
    pub fn page(
        self,
        window: Window,
        descending: bool,
        mut has_room: impl FnMut(&Row) -> bool,
    ) -> rusqlite::Result<Option<Vec<Row>>> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let direction = if descending { "DESC" } else { "ASC" };
        let mut places = self.rows.prepare(&format!(
            "SELECT number FROM row ORDER BY value IS NULL, value {direction}, number LIMIT ?1 OFFSET ?2"
        ))?;
        let numbers = places.query_map([window.per_page, window.first()].map(signed), |row| row.get::<_, i64>(0))?;
        let mut row = self.rows.prepare("SELECT arrival, message, left_out FROM row WHERE number = ?1")?;
        numbers
            .map(|number| {
                let (arrival, text, left_out) =
                    row.query_row([number?], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?)))?;
                let message: Message<'static> = serde_json::from_str(&text).map_err(|error| {
                    rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, error.into())
                })?;
                let row = Row {
                    message: Message { arrival, ..message },
                    left_out: usize::try_from(left_out).unwrap_or_default(),
                };
                Ok(has_room(&row).then_some(row))
            })
            .collect()
    }
}

/// SQLite's integers are signed; so many rows there are not.
fn signed(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
