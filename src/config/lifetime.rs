//! `[mta] lifetime`: how long the mail server keeps mail.

use serde::{Deserialize, Deserializer, de};

use crate::mta::timing::seconds;

/// How long mail is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct LifetimeConfig {
    /// In seconds: more than zero, at most ten years.
    pub(crate) seconds: i64,
    /// As it is written.
    pub(crate) written: String,
}

/// A time such as `5d` or `36h`.
pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Option<LifetimeConfig>, D::Error> {
    const LONGEST: i64 = 10 * 366 * 24 * 60 * 60;
    let written = String::deserialize(from).map_err(|_| de::Error::custom("write a time such as \"5d\" or \"36h\""))?;
    let seconds = seconds(&written, '?').filter(|seconds| (1..=LONGEST).contains(seconds));
    let wrong = || de::Error::custom(format!("“{written}” is no time such as \"5d\" or \"36h\", at most ten years"));
    seconds.map(|seconds| Some(LifetimeConfig { seconds, written: written.clone() })).ok_or_else(wrong)
}
