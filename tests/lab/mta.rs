//! What the lab must know of a mail server. One file a mail server implements it.

use std::process::{Command, Output};

use crate::machine::HOSTNAME;
use crate::mails::Mail;

/// A mail server of the lab. What acts on it is called on the lab's own machine, as root.
pub trait Mta: Sync {
    /// Its name in the program's JSON.
    fn kind(&self) -> &'static str;

    /// The name of its layer: one for each list of packages.
    fn layer(&self) -> &'static str {
        self.kind()
    }

    /// The Debian packages to install besides Apache.
    fn packages(&self) -> &'static [&'static str];

    /// Packages that are installed besides, where this Debian has them.
    fn wishes(&self) -> &'static [&'static str] {
        &[]
    }

    /// Files of this project, besides program and snippet, that its tests bring along.
    fn brings(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// Configures it as the backup MX and starts it. It relays from this machine to the next hops of
    /// [`crate::primary`], listens on 127.0.0.1:25 and logs to syslog.
    fn start(&self);

    /// Whether the web server's user can learn for which domains it relays.
    fn tells_domains(&self) -> bool {
        true
    }

    /// Whether Apache serves the page beside it from the start.
    fn serves(&self) -> bool {
        true
    }

    /// The name by which it knows itself.
    fn own_name(&self) -> &'static str {
        HOSTNAME
    }

    /// The mailbox that root's mail is delivered to.
    fn mailbox(&self) -> &'static str {
        "/var/mail/root"
    }

    /// Lets it read `/etc/aliases` again.
    fn read_aliases(&self) {
        run("newaliases", &[]);
    }

    /// The command that lists its queue to root.
    fn queue_command(&self) -> Command;

    /// The queue id in its reply to the end of a message.
    fn queue_id(&self, reply: &str) -> String;

    /// How the tests ask the program for JSON.
    fn json_query(&self) -> &'static str {
        "?format=json"
    }

    /// Whether it takes such a mail at all.
    fn takes(&self, _mail: &Mail) -> bool {
        true
    }

    /// Whether a reason is this mail server's way to say that nobody listened.
    fn is_refusal(&self, reason: &str) -> bool {
        reason.contains("Connection refused")
    }

    /// Whether what the program shows is this address or reason, as far as the mail server itself
    /// shows it.
    fn shows(&self, shown: &str, whole: &str) -> bool {
        shown == whole
    }
}

/// Runs a command that must succeed.
pub fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} could not be started: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
