//! The mail servers by name.

use serde::{Deserialize, Serialize};

use super::remedy::{Refused, Remedy};
use super::{ROWS, Row};

/// The mail servers by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Postfix.
    Postfix,
    /// Sendmail 8.
    Sendmail,
    /// Exim 4.
    Exim,
    /// OpenSMTPD.
    OpenSmtpd,
    /// Courier: found, not read.
    #[serde(skip_deserializing)]
    Courier,
    /// nullmailer: found, not read.
    #[serde(skip_deserializing)]
    Nullmailer,
    /// The DragonFly Mail Agent: found, not read.
    #[serde(skip_deserializing)]
    Dma,
}

impl Kind {
    pub(super) fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }

    /// Its name, as its authors write it.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Its systemd unit.
    pub fn unit(self) -> &'static str {
        self.row().unit
    }

    /// What an administrator can do about its refusal; `None` where it is not asked anything.
    pub(super) fn remedy(self, refused: &Refused<'_>) -> Option<Remedy> {
        self.row().reads.as_ref().map(|reads| (reads.remedy)(refused))
    }
}
