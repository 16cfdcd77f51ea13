//! What an administrator can do where a mail server refuses this user.

use std::path::Path;

use super::privilege::SUDO_RULE;
use super::trouble::Act;
use crate::system::Account;

/// What was refused, and to whom.
pub(super) struct Refused<'a> {
    /// What the mail server was asked to do.
    pub act: Act,
    /// The user this program runs as.
    pub account: &'a Account,
    /// The mail server's own program for it.
    pub program: &'a Path,
    /// The file in which its settings count, where it is known.
    pub settings: Option<&'a Path>,
}

/// What to do about it, as sentences and commands to be pasted.
pub(super) enum Remedy {
    /// Change the mail server's settings.
    Setting(String),
    /// Allow this user the mail server's own command by a sudo or doas rule; perhaps a setting does instead.
    Rule(String),
}

impl Refused<'_> {
    /// A sudo rule for the program with each of these arguments, to be pasted. `examples/` holds the same rules as
    /// files, and as doas.conf. The folder is made searchable, as Debian's is, so that the rule can be seen without
    /// asking sudo: see [`super::privilege`].
    pub(super) fn rule(&self, arguments: &[&str]) -> String {
        let Account { name, uid, .. } = self.account;
        // A user that /etc/passwd does not know is written as a number behind a mark (sudoers(5)).
        let user = if *name == uid.to_string() { format!("#{uid}") } else { name.clone() };
        let program = self.program.display();
        let commands: Vec<_> = arguments.iter().map(|arguments| format!("{program} {arguments}")).collect();
        format!(
            "As root (needs the package sudo, or, with examples/doas.conf, doas; nothing else to configure): \
             echo '{user} ALL=(root) NOPASSWD: {}' > {SUDO_RULE} && chmod 440 {SUDO_RULE} && chmod a+x /etc/sudoers.d",
            commands.join(", ")
        )
    }
}
