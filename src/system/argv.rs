//! A program and its arguments: never a shell's command line.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The `PATH` of every command, and where a bare program name is looked for.
pub(super) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

/// How much of what a program is told is shown, in characters.
const SHOWN: usize = 200;

/// A program and its arguments, and, where it reads any, its input.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Argv {
    words: Vec<OsString>,
    /// A line for its standard input, without the line feed; empty: it gets no input.
    line: String,
}

impl Argv {
    /// A program with arguments.
    pub fn new(program: impl Into<OsString>, arguments: &[&str]) -> Argv {
        let words = std::iter::once(program.into()).chain(arguments.iter().map(OsString::from)).collect();
        Argv { words, line: String::new() }
    }

    /// An argument vector from the configuration; `None` if it is empty.
    pub fn from_words(words: &[String]) -> Option<Argv> {
        (!words.is_empty()).then(|| Argv { words: words.iter().map(OsString::from).collect(), line: String::new() })
    }

    /// The program and its arguments; `None` where there is no word at all.
    pub(super) fn split(&self) -> Option<(&OsString, &[OsString])> {
        self.words.split_first()
    }

    /// The path of the mail server's program, also where sudo or doas stands before it.
    pub fn program(&self) -> PathBuf {
        let stands_before = |word: &&OsString| ["sudo", "doas", "-n", "--"].iter().any(|known| *word == known);
        self.words.iter().find(|word| !stands_before(word)).map(PathBuf::from).unwrap_or_default()
    }

    /// Whether its program is there, as far as this user can see.
    pub fn is_there(&self) -> bool {
        let Some(program) = self.words.first().map(Path::new) else { return false };
        match program.components().count() {
            1 => PATH.split(':').any(|folder| Path::new(folder).join(program).exists()),
            _ => program.exists(),
        }
    }

    /// This vector with another's words behind its own.
    #[must_use]
    pub fn and(mut self, other: &Argv) -> Argv {
        self.words.extend_from_slice(&other.words);
        self.line.clone_from(&other.line);
        self
    }

    /// The same, with a line for its standard input.
    #[must_use]
    pub(crate) fn told(self, line: String) -> Argv {
        Argv { line, ..self }
    }

    /// The line for its standard input, without the line feed; empty where it gets no input.
    pub(crate) fn line(&self) -> &str {
        &self.line
    }
}

/// The words with a space between them, for a reader; before them, how to give it its input by hand.
impl fmt::Display for Argv {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line.char_indices().nth(SHOWN) {
            _ if self.line.is_empty() => {}
            None => write!(to, "echo '{}' | ", self.line)?,
            Some((end, _)) => write!(to, "echo '{}…' | ", &self.line[..end])?,
        }
        for (index, word) in self.words.iter().enumerate() {
            write!(to, "{}{}", if index > 0 { " " } else { "" }, word.to_string_lossy())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_a_rule_is_the_mail_servers_own() {
        for words in [&["sudo", "-n", "--", "/usr/sbin/postqueue", "-j"][..], &["doas", "-n", "/usr/sbin/postqueue"]] {
            let words: Vec<String> = words.iter().map(ToString::to_string).collect();
            assert_eq!(Argv::from_words(&words).unwrap().program(), PathBuf::from("/usr/sbin/postqueue"));
        }
    }
    #[test]
    fn a_command_that_reads_a_line_can_be_tried_by_hand() {
        let command = Argv::new("sudo", &["-n", "--"]).and(&Argv::new("x", &[]).told("{\"a\":1}".into()));
        assert_eq!(command.to_string(), "echo '{\"a\":1}' | sudo -n -- x");
        assert!(command.told("é".repeat(1000)).to_string().ends_with("é…' | sudo -n -- x"));
    }
}
