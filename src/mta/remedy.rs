//! What an administrator can do where a mail server refuses this user.

use std::path::Path;

use super::as_root;
use super::privilege::SUDO_RULE;
use super::trouble::Act;
use crate::system::Account;
use crate::text::{Odd, plain_word, shell_quoted, to_paste};

/// What was refused, and to whom.
pub(super) struct Refused<'a> {
    /// What the mail server was asked to do.
    pub(crate) act: Act,
    /// The user this program runs as.
    pub(crate) account: &'a Account,
    /// The mail server's own program for it.
    pub(crate) program: &'a Path,
    /// The file in which its settings count, where it is known.
    pub(crate) settings: Option<&'a Path>,
}

/// What to do about it, as sentences and commands to be pasted.
pub(super) enum Remedy {
    /// Change the mail server's settings.
    Setting(String),
    /// Allow this user what the mail server keeps for root, by a sudo or doas rule; perhaps a setting does instead.
    Rule(String),
}

impl Refused<'_> {
    /// The one sudo rule, to be pasted; behind it, with fewer rights, one for the program with each of these arguments,
    /// where these do without a pattern, which sudo-rs refuses. Where a name in it is odd, that it is. `examples/` holds
    /// the first as a file, and as doas.conf. The folder is made searchable, as Debian's is, so that the rule can be seen
    /// without asking sudo: see [`super::privilege`].
    pub(super) fn rule(&self, arguments: &[&str]) -> String {
        self.sudo_rule(arguments).unwrap_or_else(|odd| odd.to_string())
    }

    fn sudo_rule(&self, arguments: &[&str]) -> Result<String, Odd> {
        let Account { name, uid, .. } = self.account;
        // A user that /etc/passwd does not know is written as a number behind a mark (sudoers(5)).
        let user = if *name == uid.to_string() { format!("#{uid}") } else { plain_word(name)?.to_owned() };
        let line = |commands: &str| format!("{user} ALL=(root) NOPASSWD: {commands}");
        let one = line(&as_root::command().to_string());
        let program = self.program.to_string_lossy();
        let fewer = match (arguments, plain_word(&program)) {
            ([], _) => String::new(),
            (arguments, Ok(program)) => {
                let commands: Vec<_> = arguments.iter().map(|arguments| format!("{program} {arguments}")).collect();
                format!(
                    "\n{}",
                    to_paste("For fewer rights, this line in that file instead", &[&line(&commands.join(", "))])
                )
            }
            (_, Err(odd)) => format!("\nFor fewer rights: {odd}."),
        };
        let rule = [
            format!("echo {} > {SUDO_RULE}", shell_quoted(&one)?),
            format!("chmod 440 {SUDO_RULE}"),
            "chmod a+x /etc/sudoers.d".to_owned(),
        ];
        let before = format!(
            "With sudo, as root (it takes the package sudo, and root's own copy of this program at {}, where make install puts \
             it)",
            as_root::program()
        );
        Ok(to_paste(&before, &rule.each_ref().map(String::as_str))
            + "\nWith doas instead: see examples/doas.conf."
            + &fewer)
    }
}
