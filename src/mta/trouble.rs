//! What can be wrong with a mail server's answer, and what a person can do about it.
//!
//! The variant is the cause, `Display` the sentence for the reader, [`Trouble::remedy`] the exact
//! fix. Whatever goes wrong ends here: nothing else stands between a refusal and an "empty" queue.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::remedy::{Refused, Remedy};
use super::{Kind, as_root, readable_names};
use crate::queue::NoRows;
use crate::system::Account;
use crate::text::count;

/// How a listing ended; the word in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Listed; no messages means that the queue is really empty.
    Ok,
    /// The mail server refuses to list for this user.
    Denied,
    /// The mail server does not run.
    Down,
    /// No mail server was found.
    Missing,
    /// The listing took too long.
    Timeout,
    /// Anything else, output that was not understood included.
    Failed,
}

/// Why a queue could not be listed, or not be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Trouble {
    /// No mail server that this program knows is installed.
    #[error("No mail server was found on this machine (looked for {} in {searched}).", readable_names())]
    NoMta {
        /// The folders that were searched.
        searched: String,
    },
    /// The mail server that the configuration names is not installed.
    #[error("{}, which the configuration names, was not found on this machine.", .0.name())]
    NotInstalled(Kind),
    /// A mail server was found that this program does not support.
    #[error("{} was found here. It keeps its queue in a way that Bartleby does not read.", .0.name())]
    Unsupported(Kind),
    /// The mail server's own rules refuse this user.
    #[error("{} does not let the user {} {}{}.", .mta.name(), .account.name, .act.verb(), by_what(.words))]
    NotPermitted {
        /// Who refused.
        mta: Kind,
        /// What was refused.
        act: Act,
        /// The user this program runs as.
        account: Account,
        /// The mail server's own program for it.
        program: PathBuf,
        /// Whether the configuration names another command.
        configured: bool,
        /// The file in which its settings count, where it is known.
        settings: Option<PathBuf>,
        /// What the mail server said.
        words: String,
    },
    /// `bartleby as-root`, which a rule lets this user run, did not do what it was asked.
    #[error("The rule for “{} {}” is there, but that refuses: {words}.", as_root::program(), as_root::WORD)]
    RootRefuses {
        /// Its words, with the fix in them where there is one.
        words: String,
    },
    /// `no_new_privs` kept the mail server's set-id program from its rights.
    #[error("{}'s command did not get its set-uid or set-gid privileges: “{words}”.", .mta.name())]
    NoNewPrivileges {
        /// Whose command it was.
        mta: Kind,
        /// What it said.
        words: String,
        /// Whether this process itself was started under `no_new_privs`.
        bound: bool,
    },
    /// The mail server does not run.
    #[error("{} is not running: “{words}”.", .mta.name())]
    NotRunning {
        /// Which one.
        mta: Kind,
        /// What its command said.
        words: String,
    },
    /// An administrator has paused all deliveries.
    #[error("{}'s deliveries are paused (“{words}”), so a run would change nothing.", .mta.name())]
    Paused {
        /// Whose.
        mta: Kind,
        /// What it said.
        words: String,
    },
    /// The mail server has all of it in hand already.
    #[error(
        "{} had nothing to start: it is trying all of it already, or waits after a connection that failed a moment ago.",
        .mta.name()
    )]
    InHand {
        /// Which one.
        mta: Kind,
        /// After how many seconds it has let go of what can't be delivered.
        seconds: u64,
    },
    /// The command did not finish in time.
    #[error("{command} did not finish within {} s and was stopped.", tenths(.after))]
    TooSlow {
        /// The command line.
        command: String,
        /// The deadline.
        after: Duration,
    },
    /// The listing was cut at the deadline.
    #[error("These are the first {}: the listing was cut after {} s, as {command} had not ended.",
        count(*.messages, "message", "messages"), tenths(.after))]
    Cut {
        /// The command line.
        command: String,
        /// The deadline.
        after: Duration,
        /// Messages that were listed by then.
        messages: u64,
    },
    /// The command did not finish in time, and is not ours to stop: it runs as another user.
    #[error("{command} did not end within {} s and could not be stopped{}.", tenths(.after), only_first(*.messages))]
    OutOfReach {
        /// The command line.
        command: String,
        /// The deadline.
        after: Duration,
        /// Messages that were listed by then.
        messages: u64,
    },
    /// Others were listing all the time.
    #[error("Two other requests kept listing the queue for {} s, so this one gave up.", tenths(.after))]
    Crowded {
        /// How long this one waited.
        after: Duration,
    },
    /// The process of this program that reads the listing failed. What it said is in the error log.
    #[error("The reader of the listing {how}.")]
    Reader {
        /// "was killed by signal 6", "answered nonsense", "did not finish within 30 s and was stopped".
        how: String,
    },
    /// A signal ended this program, as when the web server stops.
    #[error("The answer ends here: this program was stopped, as when the web server is restarted.")]
    Stopped,
    /// The command could not be started.
    #[error("{command} could not be started: {error}.")]
    NotStarted {
        /// The command line.
        command: String,
        /// The system's words.
        error: String,
    },
    /// The command ended with an error, or was killed.
    #[error("{command} {how}{}.", if .words.is_empty() { String::new() } else { format!(": “{}”", .words) })]
    Ended {
        /// The command line.
        command: String,
        /// "ended with status 70", "was killed by signal 9".
        how: String,
        /// What it said.
        words: String,
    },
    /// The listing ended without its closing line, or in the middle of a line.
    #[error("The listing of {} breaks off after {lines} lines: its end is missing.", .mta.name())]
    BrokenOff {
        /// Whose listing.
        mta: Kind,
        /// Lines that were read.
        lines: u64,
    },
    /// The mail server itself printed only a part of its queue.
    #[error("{} printed only {printed} of the {total} messages in {queue}.", .mta.name())]
    Partial {
        /// Whose listing.
        mta: Kind,
        /// The queue directory.
        queue: String,
        /// Messages printed.
        printed: u64,
        /// Messages there.
        total: u64,
    },
    /// The rows of the page that was asked for could not be put together.
    #[error("This page could not be built: {why}.")]
    NoPage {
        /// Why not.
        why: NoRows,
    },
    /// Some lines made no sense.
    #[error(
        "{count} {} in the listing of {} not understood; the first is line {line}: “{text}”.",
        if *.count == 1 { "line" } else { "lines" }, .mta.name()
    )]
    NotUnderstood {
        /// Whose listing.
        mta: Kind,
        /// How many lines.
        count: u64,
        /// Number of the first, from 1.
        line: u64,
        /// Its beginning.
        text: String,
    },
}

/// What the mail server was asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// To list the queue.
    List,
    /// To run the queue.
    Flush,
    /// To print why messages wait, for a mail server whose listing does not.
    Explain,
}

impl Act {
    fn verb(self) -> &'static str {
        match self {
            Act::List => "list the queue",
            Act::Flush => "run the queue",
            Act::Explain => "read why messages are waiting (its listing does not say)",
        }
    }
}

/// What a mail server said, or the setting that says so.
fn by_what(words: &str) -> String {
    let is_setting =
        |name: &str| name.contains('_') && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let name = words.split_once(" =").map_or(words, |(name, _)| name);
    if is_setting(name) { format!(" (its setting {words})") } else { format!(": “{words}”") }
}

/// That a listing has no more than these.
fn only_first(messages: u64) -> String {
    if messages == 0 {
        String::new()
    } else {
        format!(": these are the first {}", count(messages, "message", "messages"))
    }
}

/// A time in seconds, to a tenth.
fn tenths(time: &Duration) -> f32 {
    (time.as_secs_f32() * 10.0).round() / 10.0
}

impl Trouble {
    /// The same trouble, of a command that the configuration names in place of the mail server's program `own`. A rule
    /// must be for `own`: the configured command may be a shell, or sudo itself.
    pub(crate) fn of_configured(self, own: PathBuf) -> Trouble {
        match self {
            Trouble::NotPermitted { mta, act, account, words, settings, .. } => {
                Trouble::NotPermitted { mta, act, account, words, settings, program: own, configured: true }
            }
            other => other,
        }
    }

    /// The same trouble, of a mail server whose settings count in this file.
    pub(super) fn with_settings(self, file: &Option<PathBuf>) -> Trouble {
        match self {
            Trouble::NotPermitted { mta, act, account, program, configured, words, .. } => {
                Trouble::NotPermitted { mta, act, account, program, configured, words, settings: file.clone() }
            }
            other => other,
        }
    }

    /// The same trouble, of a listing that passed on this many messages before.
    pub(crate) fn after_messages(self, messages: u64) -> Trouble {
        match self {
            Trouble::TooSlow { command, after } if messages > 0 => Trouble::Cut { command, after, messages },
            Trouble::OutOfReach { command, after, .. } => Trouble::OutOfReach { command, after, messages },
            other => other,
        }
    }

    /// The status word of a listing that ended so.
    pub fn status(&self) -> Status {
        match self {
            Trouble::NoMta { .. } | Trouble::NotInstalled(_) | Trouble::Unsupported(_) => Status::Missing,
            Trouble::NotPermitted { .. } | Trouble::RootRefuses { .. } | Trouble::NoNewPrivileges { .. } => {
                Status::Denied
            }
            Trouble::NotRunning { .. } => Status::Down,
            Trouble::TooSlow { .. } | Trouble::Cut { .. } | Trouble::OutOfReach { .. } | Trouble::Crowded { .. } => {
                Status::Timeout
            }
            Trouble::Reader { .. }
            | Trouble::Stopped
            | Trouble::NotStarted { .. }
            | Trouble::Ended { .. }
            | Trouble::BrokenOff { .. }
            | Trouble::Partial { .. }
            | Trouble::NoPage { .. }
            | Trouble::Paused { .. }
            | Trouble::InHand { .. }
            | Trouble::NotUnderstood { .. } => Status::Failed,
        }
    }

    /// What an administrator can do about it, as commands to be pasted where possible.
    pub fn remedy(&self) -> String {
        match self {
            Trouble::NoMta { .. } => "Install a mail server, or name its command in /etc/bartleby.toml:\n    [mta]\n    \
                 kind = \"postfix\"\n    list_command = [\"/path/to/postqueue\", \"-j\"]"
                .into(),
            Trouble::NotInstalled(_) => "Correct or delete [mta] kind in /etc/bartleby.toml, or install it; where its programs \
                 are in an unusual place, name them: list_command, flush_command."
                .into(),
            Trouble::Unsupported(_) => not_read(),
            Trouble::NotPermitted { mta, act, account, program, configured, settings, .. } => {
                match mta.remedy(&Refused { act: *act, account, program, settings: settings.as_deref() }) {
                    Some(Remedy::Rule(remedy)) if *configured => format!(
                        "{remedy}\nThen take the command out of [mta] in the configuration: a rule is found by itself."
                    ),
                    Some(Remedy::Setting(remedy) | Remedy::Rule(remedy)) => remedy,
                    None => not_read(),
                }
            }
            Trouble::RootRefuses { .. } => format!(
                "Put right what it says. To try it, as root:\n    echo '{}' | {} {}",
                as_root::Request::List {}.line(),
                as_root::program(),
                as_root::WORD
            ),
            Trouble::NoNewPrivileges { bound: false, .. } => "Look at its program: either its \
                 set-user-id or set-group-id bit is lost, or its filesystem is mounted nosuid (findmnt -T). Under a \
                 sandbox that can't be seen from here (a web server's unit with NoNewPrivileges=yes), as root (Red Hat: \
                 httpd):\n    systemctl edit apache2\nAdd these two lines:\n    [Service]\n    NoNewPrivileges=no\nThen:\n    \
                 systemctl restart apache2"
                .into(),
            Trouble::NoNewPrivileges { .. } => "The web server was started with “no new privileges”, which also binds \
                 the programs that it starts. Give the web server's unit back what its children need. As root \
                 (Red Hat: httpd):\n    systemctl edit apache2\nAdd these two lines:\n    [Service]\n    \
                 NoNewPrivileges=no\nThen:\n    systemctl restart apache2\nOther sandbox settings (SystemCallFilter=, PrivateDevices=, \
                 RestrictSUIDSGID= ...) of a unit without root imply it, too."
                .into(),
            Trouble::NotRunning { mta, .. } => {
                let unit = mta.unit();
                // Debian 12's postfix.service does nothing itself: what is logged is that of postfix@-.service.
                format!("As root:\n    systemctl start {unit}\nIf it does not stay up:\n    journalctl -u '{unit}*' -e")
            }
            Trouble::Paused { .. } => "As root:\n    smtpctl resume mta".into(),
            Trouble::InHand { seconds, .. } => format!(
                "Try again in {seconds} s. If it stays so, look whether deliveries are paused, as root:\n    smtpctl show status"
            ),
            Trouble::TooSlow { .. } | Trouble::Cut { .. } => "The machine may be overloaded, or its disk slow. Reload in a minute; for a \
                 very long queue raise [mta] deadline in /etc/bartleby.toml (and the web server's CGI time limit)."
                .into(),
            Trouble::OutOfReach { .. } => "Until it ends it keeps one of the two places for listing the queue. \
                 As root, look for it (ps -ef), and end it (kill) where it hangs."
                .into(),
            Trouble::Crowded { .. } => "Reload in a minute. If it stays so, look as root whether an old \
                 listing command hangs (ps -ef), and check who requests this page so often.".into(),
            Trouble::Reader { .. } => "Reload. If it happens again, please report it with the mail server's listing. What the \
                 reader said is in the web server's error log."
                .into(),
            Trouble::Stopped => "Reload.".into(),
            Trouble::NotStarted { .. } => "Look whether the program is there and may be executed by the web server's \
                 user."
                .into(),
            Trouble::Ended { .. } => "Run the same command by hand as the web server's user; the mail server's log \
                 says more."
                .into(),
            Trouble::BrokenOff { .. } => "Reload; if it stays so, run the command of the page's foot by hand.".into(),
            Trouble::Partial { .. } => {
                "In /etc/mail/sendmail.cf, raise MaxQueueRunSize (confMAX_QUEUE_RUN_SIZE).".into()
            }
            Trouble::NoPage { why: NoRows::TooLong } => "Request fewer rows per page (per_page), or the whole queue, without page and per_page.".into(),
            Trouble::NoPage { why: NoRows::NotKept(_) } => "Make room in the state directory (bartleby doctor names it); until then turn the order round or set a filter, so \
                 that the page is nearer to the beginning."
                .into(),
            Trouble::NotUnderstood { .. } => "Bartleby does not know this form of the listing: please report it with \
                 the line above. What could be read is shown."
                .into(),
        }
    }
}

/// The remedy for a mail server whose queue is not read.
fn not_read() -> String {
    format!(
        "Bartleby reads the queues of {}. Or name a command that prints in the format of one of them in \
         /etc/bartleby.toml:\n    [mta]\n    kind = \"postfix\"\n    list_command = [...]",
        readable_names()
    )
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    /// The variant behind this one: a new variant does not compile before it has its place here.
    fn behind(trouble: &Trouble) -> Option<Trouble> {
        let mta = Kind::Courier;
        let text = || "“x”\n".to_owned();
        let after = Duration::from_millis(2500);
        let account = Account { uid: 33, name: "www-data".into(), bound: true };
        Some(match trouble {
            Trouble::NoMta { .. } => Trouble::NotInstalled(mta),
            Trouble::NotInstalled(_) => Trouble::Unsupported(mta),
            Trouble::Unsupported(_) => Trouble::NotPermitted {
                mta,
                act: Act::Explain,
                account,
                program: "/usr/sbin/x".into(),
                configured: true,
                settings: Some("/etc/x.conf".into()),
                words: text(),
            },
            Trouble::NotPermitted { .. } => Trouble::RootRefuses { words: text() },
            Trouble::RootRefuses { .. } => Trouble::NoNewPrivileges { mta, words: text(), bound: true },
            Trouble::NoNewPrivileges { .. } => Trouble::NotRunning { mta, words: text() },
            Trouble::NotRunning { .. } => Trouble::Paused { mta, words: text() },
            Trouble::Paused { .. } => Trouble::InHand { mta, seconds: 20 },
            Trouble::InHand { .. } => Trouble::TooSlow { command: text(), after },
            Trouble::TooSlow { .. } => Trouble::Cut { command: text(), after, messages: u64::MAX },
            Trouble::Cut { .. } => Trouble::OutOfReach { command: text(), after, messages: 5 },
            Trouble::OutOfReach { .. } => Trouble::Crowded { after },
            Trouble::Crowded { .. } => Trouble::Reader { how: "was killed by signal 6".into() },
            Trouble::Reader { .. } => Trouble::Stopped,
            Trouble::Stopped => Trouble::NotStarted { command: text(), error: text() },
            Trouble::NotStarted { .. } => Trouble::Ended { command: text(), how: text(), words: text() },
            Trouble::Ended { .. } => Trouble::BrokenOff { mta, lines: 3 },
            Trouble::BrokenOff { .. } => Trouble::Partial { mta, queue: text(), printed: 1, total: 2 },
            Trouble::Partial { .. } => Trouble::NoPage { why: NoRows::TooLong },
            Trouble::NoPage { .. } => Trouble::NotUnderstood { mta, count: 1, line: 2, text: text() },
            Trouble::NotUnderstood { .. } => return None,
        })
    }

    #[test]
    fn every_trouble_goes_between_processes_whole() {
        for trouble in iter::successors(Some(Trouble::NoMta { searched: "/usr/sbin".into() }), behind) {
            let written = serde_json::to_vec(&trouble).unwrap();
            assert_eq!(serde_json::from_slice::<Trouble>(&written).unwrap(), trouble);
            assert!(!trouble.remedy().is_empty(), "{trouble}");
        }
    }

    #[test]
    fn a_reader_that_fails_is_a_listing_that_failed() {
        let trouble = Trouble::Reader { how: "was killed by signal 6".into() };
        assert_eq!(trouble.to_string(), "The reader of the listing was killed by signal 6.");
        assert_eq!(trouble.status(), Status::Failed);
        assert!(trouble.remedy().contains("error log"), "{}", trouble.remedy());
    }
}
