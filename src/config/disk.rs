//! `[disk]`: when a filesystem is short of room.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use super::{ConfigError, line_of_key};
use crate::system::Reserve;
use crate::text::bytes;

/// `[disk]`: when a filesystem is short of space or inodes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskConfig {
    /// Less free than this is a warning.
    pub warn: Threshold,
    /// Less free than this is critical.
    pub critical: Threshold,
}

impl Default for DiskConfig {
    fn default() -> Self {
        DiskConfig { warn: Threshold::Percent(15.0), critical: Threshold::Percent(5.0) }
    }
}

impl DiskConfig {
    /// A warning below what is critical would never be shown.
    pub(super) fn compare(&self, text: &str, file: &Path) -> Result<(), ConfigError> {
        let is_below = match (self.warn, self.critical) {
            (Threshold::Percent(warn), Threshold::Percent(critical)) => warn < critical,
            (Threshold::Bytes(warn), Threshold::Bytes(critical)) => warn < critical,
            // Which is more depends on the disk.
            _ => false,
        };
        if !is_below {
            return Ok(());
        }
        let at = |key| Some((key, line_of_key(text, "disk", key)?));
        let (key, line) = at("warn").or_else(|| at("critical")).unzip();
        Err(ConfigError {
            file: file.into(),
            line,
            key: Some(format!("[disk] {}", key.unwrap_or("warn"))),
            message: format!(
                "warn ({}) is less than critical ({}), so it would never be shown",
                self.warn, self.critical
            ),
        })
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Threshold::Percent(percent) => write!(to, "{percent}%"),
            Threshold::Bytes(count) => to.write_str(&bytes(*count)),
        }
    }
}

/// An amount of free space: a share of the whole, or bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold {
    /// 0 to 100.
    Percent(f64),
    /// Bytes; says nothing about inodes.
    Bytes(u64),
}

/// What is left free, so that nothing of this program's own makes a filesystem short of space.
impl From<Threshold> for Reserve {
    fn from(threshold: Threshold) -> Reserve {
        match threshold {
            Threshold::Percent(percent) => Reserve::Percent(percent),
            Threshold::Bytes(bytes) => Reserve::Bytes(bytes),
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("“{text}” is neither a percentage such as \"15%\" nor a size such as \"2GiB\"");
        if let Some(number) = text.strip_suffix('%') {
            let percent: f64 = number.trim().parse().map_err(|_| wrong())?;
            return if (0.0..=100.0).contains(&percent) { Ok(Threshold::Percent(percent)) } else { Err(wrong()) };
        }
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: u64 = match unit.trim() {
            "" => return Err(format!("“{text}” has no unit: write \"{text}%\", or a size such as \"2GiB\"")),
            "B" => 1,
            "KiB" | "K" => 1 << 10,
            "MiB" | "M" => 1 << 20,
            "GiB" | "G" => 1 << 30,
            "TiB" | "T" => 1 << 40,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Threshold::Bytes).ok_or_else(wrong)
    }
}

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}
