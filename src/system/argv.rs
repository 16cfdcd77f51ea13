//! A program and its arguments: never a shell's command line.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::text::{printable, shell_quoted};

/// The `PATH` of every command, and where a bare program name is looked for.
pub(super) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

/// How much of a program's input is shown, in characters.
const SHOWN: usize = 200;

/// A program and its arguments; for one that reads a line, this line, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Argv {
    words: Vec<OsString>,
    /// The line for its standard input, without the line feed; empty where it reads none.
    input: String,
}

impl Argv {
    /// A program with arguments.
    pub(crate) fn new(program: impl Into<OsString>, arguments: &[&str]) -> Argv {
        let words = std::iter::once(program.into()).chain(arguments.iter().map(OsString::from)).collect();
        Argv { words, input: String::new() }
    }

    /// An argument vector from the configuration; `None` if it is empty.
    pub(crate) fn from_words(words: &[String]) -> Option<Argv> {
        (!words.is_empty()).then(|| Argv { words: words.iter().map(OsString::from).collect(), input: String::new() })
    }

    /// The program and its arguments; `None` where there is no word at all.
    pub(super) fn split(&self) -> Option<(&OsString, &[OsString])> {
        self.words.split_first()
    }

    /// The path of the mail server's program, also where sudo or doas stands before it.
    pub(crate) fn program(&self) -> PathBuf {
        let stands_before = |word: &&OsString| ["sudo", "doas", "-n", "--"].iter().any(|known| *word == known);
        self.words.iter().find(|word| !stands_before(word)).map(PathBuf::from).unwrap_or_default()
    }

    /// Whether its program is there, as far as this user can see.
    pub(crate) fn is_there(&self) -> bool {
        let Some(program) = self.words.first().map(Path::new) else { return false };
        match program.components().count() {
            1 => PATH.split(':').any(|folder| Path::new(folder).join(program).exists()),
            _ => program.exists(),
        }
    }

    /// This vector with another's words behind its own, and with the other's input.
    #[must_use]
    pub(crate) fn and(mut self, other: &Argv) -> Argv {
        self.words.extend_from_slice(&other.words);
        self.input.clone_from(&other.input);
        self
    }

    /// The same, with a line for its standard input.
    #[must_use]
    pub(crate) fn with_input(self, line: String) -> Argv {
        Argv { input: line, ..self }
    }

    /// The line for its standard input, without the line feed; empty where it reads none.
    pub(crate) fn input(&self) -> &str {
        &self.input
    }
}

/// The words as sh(1) takes them, for a reader who may run the same by hand, with the input before them. A word that no
/// command to be pasted may hold stands there as it can be shown; of a long input, the beginning.
impl fmt::Display for Argv {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |word: &str| shell_quoted(word).unwrap_or_else(|_| printable(word)).into_owned();
        match self.input.char_indices().nth(SHOWN) {
            _ if self.input.is_empty() => {}
            None => write!(to, "echo {} | ", shown(&self.input))?,
            Some((end, _)) => write!(to, "echo {} | ", shown(&format!("{}…", &self.input[..end])))?,
        }
        for (index, word) in self.words.iter().enumerate() {
            write!(to, "{}{}", if index > 0 { " " } else { "" }, shown(&word.to_string_lossy()))?;
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

    #[test]
    fn a_command_that_reads_a_line_can_be_tried_by_hand() {
        let asked = Argv::new("x", &[]).with_input("{\"a\":1}".into());
        let command = Argv::new("sudo", &["-n", "--"]).and(&asked);
        assert_eq!(command.to_string(), "echo '{\"a\":1}' | sudo -n -- x");
        assert!(command.with_input("é".repeat(1000)).to_string().ends_with("é…' | sudo -n -- x"));
    }
}
