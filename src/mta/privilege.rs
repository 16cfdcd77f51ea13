//! Commands that a sudo or doas rule lets this user run as root: found and used without configuration.

use std::fs;
use std::time::{Duration, Instant};

use crate::system::process::{self, Argv};
use crate::system::{Account, Free};

/// The file for the rule, see `examples/sudoers.*`. sudo is asked only where this file is seen:
/// sudo reports a user who asks without any rule to the administrator, by mail, which would then wait in the queue.
pub(super) const SUDO_RULE: &str = "/etc/sudoers.d/bartleby";

/// doas(1)'s rules.
const DOAS_RULES: &str = "/etc/doas.conf";

/// How long sudo or doas may think about a rule.
const PATIENCE: Duration = Duration::from_secs(2);

/// The words to put before the command so that it runs as root, if a rule allows exactly this command without a
/// password. Root needs no such words.
pub(crate) fn prefix(free: &Free, command: &Argv, account: &Account) -> Option<Argv> {
    if account.is_root() {
        return None;
    }
    if is_seen(SUDO_RULE) && says(free, &Argv::new("sudo", &["-n", "-l", "--"]).and(command), "") {
        return Some(Argv::new("sudo", &["-n", "--"]));
    }
    if is_seen(DOAS_RULES) && says(free, &Argv::new("doas", &["-C", DOAS_RULES]).and(command), "permit nopass") {
        return Some(Argv::new("doas", &["-n"]));
    }
    None
}

fn is_seen(file: &str) -> bool {
    fs::symlink_metadata(file).is_ok()
}

/// Whether the answer to a question is status 0 and these words.
fn says(free: &Free, question: &Argv, words: &str) -> bool {
    process::start(free, question).is_ok_and(|running| {
        let (exit, output) = running.collect(Instant::now() + PATIENCE);
        exit.success() && String::from_utf8_lossy(&output).starts_with(words)
    })
}
