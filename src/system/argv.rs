//! A program and its arguments: never a shell's command line.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::text::{printable, shell_quoted};

/// The `PATH` of every command, and where a bare program name is looked for.
pub(super) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Argv(Vec<OsString>);

impl Argv {
    /// A program with arguments.
    pub(crate) fn new(program: impl Into<OsString>, arguments: &[&str]) -> Argv {
        Argv(std::iter::once(program.into()).chain(arguments.iter().map(OsString::from)).collect())
    }

    /// An argument vector from the configuration; `None` if it is empty.
    pub(crate) fn from_words(words: &[String]) -> Option<Argv> {
        (!words.is_empty()).then(|| Argv(words.iter().map(OsString::from).collect()))
    }

    /// The program and its arguments; `None` where there is no word at all.
    pub(super) fn split(&self) -> Option<(&OsString, &[OsString])> {
        self.0.split_first()
    }

    /// The path of the mail server's program, also where sudo or doas stands before it.
    pub(crate) fn program(&self) -> PathBuf {
        let stands_before = |word: &&OsString| ["sudo", "doas", "-n", "--"].iter().any(|known| *word == known);
        self.0.iter().find(|word| !stands_before(word)).map(PathBuf::from).unwrap_or_default()
    }

    /// Whether its program is there, as far as this user can see.
    pub(crate) fn is_there(&self) -> bool {
        let Some(program) = self.0.first().map(Path::new) else { return false };
        match program.components().count() {
            1 => PATH.split(':').any(|folder| Path::new(folder).join(program).exists()),
            _ => program.exists(),
        }
    }

    /// This vector with another's words behind its own.
    #[must_use]
    pub(crate) fn and(mut self, other: &Argv) -> Argv {
        self.0.extend_from_slice(&other.0);
        self
    }
}

/// The words as sh(1) takes them, for a reader who may run the same by hand. A word that no command to be pasted may
/// hold stands there as it can be shown.
impl fmt::Display for Argv {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            let word = word.to_string_lossy();
            let shown = shell_quoted(&word).unwrap_or_else(|_| printable(&word));
            write!(to, "{}{shown}", if index > 0 { " " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_what_would_run() {
        let words = ["sh", "-c", "cat it's; id", "a\nb"].map(String::from);
        assert_eq!(Argv::from_words(&words).unwrap().to_string(), r"sh -c 'cat it'\''s; id' a␊b");
    }

    #[test]
    fn the_program_of_a_rule_is_the_mail_servers_own() {
        for words in [&["sudo", "-n", "--", "/usr/sbin/postqueue", "-j"][..], &["doas", "-n", "/usr/sbin/postqueue"]] {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            assert_eq!(Argv::from_words(&words).unwrap().program(), PathBuf::from("/usr/sbin/postqueue"));
        }
    }
}
