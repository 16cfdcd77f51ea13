//! Where a mail log ended before a queue run: what is written from then on stands behind it.
//!
//! A place tells more than a time. Syslog's older stamp has neither year nor zone, and Postfix gives a queue id again in the
//! same second, so that an earlier line can be about another message.

use serde::{Deserialize, Deserializer, Serialize, de};

/// The longest cursor, in bytes; those of systemd 257 have some 130.
const LONGEST_CURSOR: usize = 300;

/// Where a log ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// Of each of its files, as far as they were seen. In JSON each is `[device, inode, size]`.
    pub files: Vec<FileEnd>,
    /// Behind which entry of the journal, where that can be read and has one of a mail server.
    #[serde(deserialize_with = "plain_cursor")]
    pub cursor: Option<String>,
}

/// Where a file ended. Renaming it changes nothing of this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 3]", into = "[u64; 3]")]
pub struct FileEnd {
    /// The device that it is on, as stat(2) numbers it.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// How many bytes it had.
    pub size: u64,
}

impl From<[u64; 3]> for FileEnd {
    fn from([device, inode, size]: [u64; 3]) -> FileEnd {
        FileEnd { device, inode, size }
    }
}

impl From<FileEnd> for [u64; 3] {
    fn from(end: FileEnd) -> [u64; 3] {
        [end.device, end.inode, end.size]
    }
}

/// An entry of the journal, of which only its place is read (systemd.journal-fields(7), "Address Fields").
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "__CURSOR")]
    cursor: String,
}

/// The place of an entry that `journalctl -o json` printed.
pub(crate) fn cursor(entry: &[u8]) -> Option<String> {
    serde_json::from_slice(entry).ok().map(|Entry { cursor }| cursor).filter(|cursor| is_cursor(cursor))
}

/// Whether it is a cursor as the journal makes them: `s=0123abcd;i=7f;...`. It becomes a part of an argument.
fn is_cursor(word: &str) -> bool {
    let is_field = |field: &str| {
        field.split_once('=').is_some_and(|(name, value)| {
            name.len() == 1
                && name.bytes().all(|byte| byte.is_ascii_lowercase())
                && value.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    };
    word.len() <= LONGEST_CURSOR && word.split(';').all(is_field)
}

fn plain_cursor<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let cursor = Option::<String>::deserialize(from)?;
    let is_plain = cursor.as_deref().is_none_or(is_cursor);
    if is_plain { Ok(cursor) } else { Err(de::Error::custom("its cursor can't be one of the journal")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_journal_calls_a_cursor_is_taken_for_one() {
        let real = "s=6d2c0a3b1f;i=7f3;b=9d01;m=2a4f;t=64a5b6c7;x=8e3f";
        let entry = format!(r#"{{"__CURSOR":"{real}","__REALTIME_TIMESTAMP":"1795503951000000"}}"#);
        assert_eq!(cursor(entry.as_bytes()).as_deref(), Some(real));
        for other in ["", "-x", "s=1 --file=/etc/shadow", "s=1;", "s=é", "s", "ss=1", "s=1\n"] {
            assert!(!is_cursor(other), "{other}");
        }
        assert!(!is_cursor(&format!("s={}", "a".repeat(LONGEST_CURSOR))));
        assert_eq!(cursor(b"-- No entries --"), None);
    }

    #[test]
    fn a_mark_is_read_as_it_is_written() {
        let file = FileEnd { device: 64, inode: u64::MAX, size: 7 };
        for cursor in [None, Some("s=1;i=2".to_owned())] {
            let mark = Mark { files: vec![file], cursor };
            let written = serde_json::to_string(&mark).unwrap();
            assert_eq!(serde_json::from_str::<Mark>(&written).unwrap(), mark, "{written}");
        }
        for other in [
            r#"{"files":[[1,1,-1]],"cursor":null}"#,
            r#"{"files":[[1,1]],"cursor":null}"#,
            r#"{"files":[],"cursor":"--file=x"}"#,
            r#"{"files":[],"cursor":null,"path":"/etc/shadow"}"#,
            r#"{"files":["/etc/shadow"],"cursor":null}"#,
        ] {
            assert!(serde_json::from_str::<Mark>(other).is_err(), "{other}");
        }
    }
}
