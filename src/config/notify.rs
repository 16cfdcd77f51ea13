//! `[notify]`: who is to hear what `watch` sees.

use serde::{Deserialize, Deserializer, de};

/// `[notify]`: who is to hear what `watch` sees.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifyConfig {
    /// The command that gets each event as one line of JSON on its standard input; empty: none.
    #[serde(deserialize_with = "command")]
    pub(crate) command: Vec<String>,
}

/// A program, by an absolute path or a bare name, and its arguments: `watch` leaves the folder that it was started in.
fn command<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let words = Vec::<String>::deserialize(from)?;
    match words.first() {
        None => Err(de::Error::custom("a command has at least one word, its program")),
        Some(program) if program.is_empty() || (program.contains('/') && !program.starts_with('/')) => Err(
            de::Error::custom(format!("“{program}” is no program: write an absolute path, or the bare name of one")),
        ),
        Some(_) if words.iter().any(|word| word.contains('\0')) => {
            Err(de::Error::custom("a word of it holds a byte that no argument can hold"))
        }
        Some(_) => Ok(words),
    }
}
