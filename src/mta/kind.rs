//! The mail servers by name.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::remedy::{Refused, Remedy};
use super::{ROWS, Row};

/// A mail server: the place of its row in the table. It is serialised as its word in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Postfix.
    Postfix,
    /// Sendmail 8.
    Sendmail,
    /// Exim 4.
    Exim,
    /// OpenSMTPD.
    OpenSmtpd,
    /// Courier: recognised, not read.
    Courier,
    /// nullmailer: recognised, not read.
    Nullmailer,
    /// The DragonFly Mail Agent: recognised, not read.
    Dma,
}

impl Kind {
    pub(super) fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Those whose queues are read: the configuration may name them.
    pub(crate) fn readable() -> impl Iterator<Item = Kind> {
        ROWS.iter().filter(|row| row.reads.is_some()).map(|row| row.kind)
    }

    /// Its name in the configuration, in JSON and between our own processes.
    pub(crate) fn word(self) -> &'static str {
        self.row().word
    }

    /// Its name, as its authors write it.
    pub(crate) fn name(self) -> &'static str {
        self.row().name
    }

    /// Its systemd unit.
    pub(super) fn unit(self) -> &'static str {
        self.row().unit
    }

    /// What an administrator can do about its refusal; `None` where it is not asked anything.
    pub(super) fn remedy(self, refused: &Refused<'_>) -> Option<Remedy> {
        self.row().reads.as_ref().map(|reads| (reads.remedy)(refused))
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.word())
    }
}

/// Any kind, also one whose queue is not read, since one of our processes may have found it for another. The
/// configuration takes only those that are readable.
impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Kind, D::Error> {
        let word = String::deserialize(from)?;
        let row = ROWS.iter().find(|row| row.word == word);
        row.map(|row| row.kind).ok_or_else(|| de::Error::custom(format!("“{word}” is no mail server")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_goes_between_processes_whole() {
        for row in &ROWS {
            let written = serde_json::to_string(&row.kind).unwrap();
            assert_eq!(written, format!("\"{}\"", row.word));
            assert_eq!(serde_json::from_str::<Kind>(&written).unwrap(), row.kind);
        }
        assert!(serde_json::from_str::<Kind>("\"qmail\"").is_err());
    }
}
