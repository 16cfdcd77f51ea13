//! What an administrator can do where a mail server refuses this user.

use std::path::Path;

use super::as_root;
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
}

/// What to do about it, as sentences and commands to be pasted.
pub(super) enum Remedy {
    /// Change the mail server's settings.
    Setting(String),
    /// Allow this user what the mail server keeps for root by a sudo or doas rule; perhaps a setting does instead.
    Rule(String),
}

impl Refused<'_> {
    /// The one sudo rule, to be pasted; behind it, with fewer rights, one for the program with each of these arguments,
    /// where these do without a pattern, which sudo-rs refuses. `examples/` holds the first as a file, and as doas.conf.
    /// The folder is made searchable, as Debian's is, so that the rule can be seen without asking sudo: see
    /// [`super::privilege`].
    pub(super) fn rule(&self, arguments: &[&str]) -> String {
        let Account { name, uid, .. } = self.account;
        // A user that /etc/passwd does not know is written as a number behind a mark (sudoers(5)).
        let user = if *name == uid.to_string() { format!("#{uid}") } else { name.clone() };
        let line = |commands: &str| format!("{user} ALL=(root) NOPASSWD: {commands}");
        let one = line(&as_root::command().to_string());
        let program = self.program.display();
        let commands: Vec<_> = arguments.iter().map(|arguments| format!("{program} {arguments}")).collect();
        let fewer = match commands.as_slice() {
            [] => String::new(),
            commands => format!(". For fewer rights, this line instead: {}", line(&commands.join(", "))),
        };
        format!(
            "As root (needs the package sudo, or doas with examples/doas.conf, and root's own copy of this program at {}, \
             where make install puts it): echo '{one}' > {SUDO_RULE} && chmod 440 {SUDO_RULE} && \
             chmod a+x /etc/sudoers.d{fewer}",
            as_root::PROGRAM
        )
    }
}
