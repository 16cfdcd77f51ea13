//! The mail servers: which one is installed, and what each can be asked.
//!
//! A mail server is one file, which implements the trait [`Mta`], and one row of the table here. To add one, write its
//! file, its row and its variant of [`Kind`]; nothing else names mail servers one by one. Parsers are pure functions
//! over lines: they open, start and ask nothing.

pub mod as_root;
mod date;
mod exim;
mod inquiry;
pub(crate) mod intake;
mod kind;
mod maillog;
pub(crate) mod mark;
mod opensmtpd;
mod parser;
mod postfix;
pub(crate) mod privilege;
mod relay;
mod remedy;
mod search;
mod sendmail;
pub(crate) mod timing;
pub mod trouble;
mod verdict;

use std::path::{Path, PathBuf};
use std::time::Instant;

use self::exim::Exim;
use self::opensmtpd::OpenSmtpd;
use self::postfix::Postfix;
use self::remedy::{Refused, Remedy};
use self::sendmail::Sendmail;
use self::trouble::Trouble;
use crate::queue::Lifetimes;
use crate::system::process::{Argv, Exit};
use crate::system::{Account, Free};
pub(crate) use date::log_instant;
pub use date::past_instant;
pub use inquiry::{Facts, Hint, Hints};
pub(crate) use inquiry::{Inquiry, Wanted};
use intake::Gate;
pub use kind::Kind;
pub(crate) use maillog::text as log_text;
pub use maillog::{MailLog, Outcome};
pub use mark::{FileEnd, Mark};
pub use parser::{Clock, Parser};
pub(crate) use relay::{OwnName, RelayInquiry, Relaying, inquiry as relay_inquiry};
pub use search::Search;

/// Where syslogd(8) writes what mail servers log: on Debian and Ubuntu, and elsewhere.
const SYSLOG: [&str; 2] = ["/var/log/mail.log", "/var/log/maillog"];

/// One installed mail server.
pub trait Mta {
    /// Which one.
    fn kind(&self) -> Kind;

    /// A queue id in its form, to ask whether a rule allows a command before any real id has been seen.
    fn sample_id(&self) -> &'static str;

    /// The commands that list the queue. Each lists a part of it.
    fn list_commands(&self) -> Vec<Argv>;

    /// The listing command for an older version in place of this one, if `exit` shows that it does not know the newer form.
    fn older_list_command(&self, _command: &Argv, _exit: &Exit) -> Option<Argv> {
        None
    }

    /// Whether it takes the command that listed a message to know which part of the queue it is in.
    fn tells_parts_apart(&self) -> bool {
        false
    }

    /// A parser for the output of one of these commands, or of all of them one behind the other.
    fn parser(&self, clock: &Clock) -> Box<dyn Parser>;

    /// The same, where it is known which one it is, by its place among them.
    fn parser_of(&self, clock: &Clock, _place: usize) -> Box<dyn Parser> {
        self.parser(clock)
    }

    /// Starts to ask for version and settings, as far as they are wanted. Its processes run beside the listing.
    fn inquire(&self, free: &Free, wanted: Wanted) -> Inquiry;

    /// What becomes of mail that is kept for so long, in seconds: by default, it goes back at the next attempt that fails.
    fn lifetimes(&self, seconds: i64) -> Lifetimes {
        Lifetimes::NotBefore { message: seconds, null_sender: seconds }
    }

    /// The files on which its settings and its names depend, as far as they are known before it is asked: those of its
    /// programs and of its configuration, and those in which its daemons note that they were started.
    fn settings_files(&self) -> Vec<PathBuf>;

    /// The commands that deliver a part of the queue now.
    fn flush_commands(&self, part: &Part<'_>) -> Vec<Argv>;

    /// Whether these deliver held messages, too.
    fn flushes_held(&self, _part: &Part<'_>) -> bool {
        false
    }

    /// How an administrator releases held messages.
    fn release(&self) -> &'static str;

    /// Questions to ask before a flush, with the same rights.
    fn flush_questions(&self) -> Vec<Argv> {
        Vec::new()
    }

    /// What, by the answers to these questions, stands in the flush's way, each by its number or its words there.
    fn flush_hindrances(&self, _answers: &str) -> Vec<String> {
        Vec::new()
    }

    /// Why, by these, a flush would change nothing; `None` where it would.
    fn flush_bar(&self, _hindrances: &[String]) -> Option<Trouble> {
        None
    }

    /// The commands that must run before the flush to clear these away.
    fn flush_preparation(&self, _hindrances: &[String]) -> Vec<Argv> {
        Vec::new()
    }

    /// Why the mail server's settings do not let this user run the queue; `None` where no reason is known.
    fn flush_obstacle(&self, facts: &Facts, account: &Account) -> Option<Trouble>;

    /// Whether a flush command that ended so has run the queue.
    ///
    /// # Errors
    /// Why it did not, by its exit status and by what it printed on either stream.
    fn flush_verdict(&self, command: &Argv, exit: &Exit, account: &Account) -> Result<(), Trouble>;

    /// A way to find out what it calls itself; `None` where its configuration does not say.
    fn own_name(&self) -> Option<OwnName> {
        None
    }

    /// A way to find out for which domains it relays mail, and its own name; `None` where its configuration names
    /// neither.
    fn relaying(&self) -> Option<RelayInquiry> {
        None
    }

    /// Whom it takes mail for, and what tries again by itself, for a rehearsal of an outage.
    fn gate(&self) -> Gate;

    /// Whether its listing cuts long addresses and reasons short.
    fn cuts_short(&self) -> bool {
        false
    }

    /// The command that prints why a message waits, for a mail server whose listing does not.
    fn reason_command(&self, _id: &str) -> Option<Argv> {
        None
    }

    /// Whether that command, which failed, was refused or only found no such message.
    ///
    /// # Errors
    /// The refusal. That a message has left the queue meanwhile is no error.
    fn reason_verdict(&self, _command: &Argv, _exit: &Exit, _account: &Account) -> Result<(), Trouble> {
        Ok(())
    }

    /// The command that prints, for root alone, when mail is tried next and since when a host fails; `None` where there is
    /// nothing beyond the listing. `queue` is where the queue is kept.
    fn next_command(&self, _queue: &Path) -> Option<Argv> {
        None
    }

    /// What that command printed; `None` where it is too much. This is read in the sandbox.
    fn read_next(&self, _output: &str) -> Option<Hints> {
        None
    }

    /// The same facts with what these say, at this time in seconds since 1970.
    fn with_hints(&self, _free: &Free, facts: Facts, _hints: &Hints, _now: i64, _deadline: Instant) -> Facts {
        facts
    }

    /// Where it may log, where its settings don't say, the first that is in use. Where none is, it logs to the journal.
    fn logs(&self) -> &'static [&'static str] {
        &SYSLOG
    }

    /// The queue id of the message that a word in its log is about, if it is one.
    fn id_in_log<'a>(&self, word: &'a str) -> &'a str {
        word
    }

    /// The attempt that a line of that command's output is about. A later line overrides an earlier one.
    fn read_reason(&self, _line: &str, _clock: &Clock) -> Option<Attempt> {
        None
    }
}

/// An attempt to deliver to one recipient, which failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The recipient's address.
    pub recipient: String,
    /// Why it failed, in the mail server's words.
    pub reason: String,
    /// When it had, in seconds since 1970; `None` where that is not known.
    pub ended: Option<i64>,
}

/// A part of the queue, to be delivered. Ids and domains come from a listing, never from a request alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// The whole queue.
    All,
    /// The messages for one domain.
    Domain {
        /// The domain.
        name: &'a str,
        /// Their queue ids.
        ids: &'a [String],
    },
    /// One message, by its queue id.
    Message(&'a str),
    /// What is not on hold, for a mail server whose run of the whole queue delivers that, too.
    Each {
        /// The queue ids.
        ids: &'a [String],
    },
}

/// What there is to know of a mail server before it is asked anything.
struct Row {
    kind: Kind,
    /// Its name in the configuration, in JSON and between our own processes.
    word: &'static str,
    /// Its name, as its authors write it.
    name: &'static str,
    /// Its systemd unit.
    unit: &'static str,
    /// Whether it is installed, seen by a program that no other mail server brings.
    is_installed: fn(&Search) -> bool,
    /// Whether the file that `/usr/sbin/sendmail` leads to is one of its own.
    is_behind_sendmail: fn(&Path) -> bool,
    /// How its queue is read; `None` for one that is recognised and not read.
    reads: Option<Reads>,
}

/// How the queue of a mail server is read.
struct Reads {
    /// The mail server among the programs of a search; where there is none, at its usual path.
    at: fn(&Search) -> Box<dyn Mta>,
    /// What an administrator can do about its refusal.
    remedy: fn(&Refused<'_>) -> Remedy,
    /// How its log is read.
    log: maillog::Grammar,
}

/// The mail servers, each at the place of its [`Kind`]. Where several are installed and `/usr/sbin/sendmail` leads to
/// none of them, the first counts.
static ROWS: [Row; 7] = [
    Row {
        kind: Kind::Postfix,
        word: "postfix",
        name: "Postfix",
        unit: "postfix",
        is_installed: |search| search.program("postqueue").is_some(),
        is_behind_sendmail: |target| has_word(target, "postfix"),
        reads: Some(Reads {
            at: |search| Box::new(Postfix::at(search)),
            remedy: postfix::remedy,
            log: maillog::postfix,
        }),
    },
    Row {
        kind: Kind::Sendmail,
        word: "sendmail",
        name: "sendmail",
        unit: "sendmail",
        is_installed: |search| sendmail::installed(search).is_some(),
        is_behind_sendmail: sendmail::is_sendmail,
        reads: Some(Reads {
            at: |search| Box::new(Sendmail::at(search)),
            remedy: sendmail::remedy,
            log: maillog::sendmail,
        }),
    },
    Row {
        kind: Kind::Exim,
        word: "exim",
        name: "Exim",
        unit: "exim4",
        is_installed: |search| exim::installed(search).is_some(),
        is_behind_sendmail: |target| has_word(target, "exim"),
        reads: Some(Reads { at: |search| Box::new(Exim::at(search)), remedy: exim::remedy, log: maillog::exim }),
    },
    Row {
        kind: Kind::OpenSmtpd,
        word: "opensmtpd",
        name: "OpenSMTPD",
        unit: "opensmtpd",
        is_installed: |search| search.program("smtpctl").is_some(),
        is_behind_sendmail: |target| has_word(target, "smtpctl"),
        reads: Some(Reads {
            at: |search| Box::new(OpenSmtpd::at(search)),
            remedy: opensmtpd::remedy,
            log: maillog::opensmtpd,
        }),
    },
    Row {
        kind: Kind::Courier,
        word: "courier",
        name: "Courier",
        unit: "courier-mta",
        is_installed: |search| search.program("courier").is_some(),
        is_behind_sendmail: |_| false,
        reads: None,
    },
    Row {
        kind: Kind::Nullmailer,
        word: "nullmailer",
        name: "nullmailer",
        unit: "nullmailer",
        is_installed: |search| search.program("nullmailer-send").is_some(),
        is_behind_sendmail: |_| false,
        reads: None,
    },
    // It has no queue listing worth the name.
    Row {
        kind: Kind::Dma,
        word: "dma",
        name: "the DragonFly Mail Agent",
        unit: "dma",
        is_installed: |search| search.program("dma").is_some(),
        is_behind_sendmail: |_| false,
        reads: None,
    },
];

/// Each row stands at the place of its kind, or this does not compile.
const _: () = {
    let mut place = 0;
    while place < ROWS.len() {
        assert!(ROWS[place].kind as usize == place, "a row of the table is not at the place of its kind");
        place += 1;
    }
};

/// Whether a path holds the name that distributions give a mail server's files.
fn has_word(path: &Path, word: &str) -> bool {
    path.to_str().is_some_and(|path| path.contains(word))
}

/// The mail servers whose queues are read, in a sentence.
fn readable_names() -> String {
    let names: Vec<_> = ROWS.iter().filter(|row| row.reads.is_some()).map(|row| row.name).collect();
    match names.as_slice() {
        [others @ .., last] if !others.is_empty() => format!("{} and {last}", others.join(", ")),
        _ => names.concat(),
    }
}

/// The mail server of this machine, or the one of the kind that the configuration names.
///
/// # Errors
/// [`Trouble::NoMta`], or [`Trouble::Unsupported`] where only one is installed whose queue is not read.
pub fn find(kind: Option<Kind>, search: &Search) -> Result<Box<dyn Mta>, Trouble> {
    let kind = kind.or_else(|| search.installed());
    let kind = kind.ok_or_else(|| Trouble::NoMta { searched: search.folders() })?;
    kind.row().reads.as_ref().map(|reads| (reads.at)(search)).ok_or(Trouble::Unsupported(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mta::trouble::Act;

    #[test]
    fn each_mail_server_has_its_own_commands_to_deliver_a_part() {
        let search = Search::below(Path::new("/nonexistent"));
        let ids = ["A1".to_owned(), "B2".to_owned()];
        let domain = Part::Domain { name: "example.com", ids: &ids };
        for (kind, all, one_domain, message) in [
            (
                Kind::Postfix,
                "/usr/sbin/postqueue -f",
                "/usr/sbin/postqueue -i A1; /usr/sbin/postqueue -i B2",
                "/usr/sbin/postqueue -i A1",
            ),
            (Kind::Sendmail, "/usr/sbin/sendmail -q", "/usr/sbin/sendmail -qR@example.com", "/usr/sbin/sendmail -qIA1"),
            (Kind::Exim, "/usr/sbin/exim4 -qf", "/usr/sbin/exim4 -qf -R @example.com", "/usr/sbin/exim4 -M A1"),
            (
                Kind::OpenSmtpd,
                "/usr/sbin/smtpctl schedule all",
                "/usr/sbin/smtpctl schedule A1; /usr/sbin/smtpctl schedule B2",
                "/usr/sbin/smtpctl schedule A1",
            ),
        ] {
            let mta = find(Some(kind), &search).unwrap();
            let commands =
                |part: &Part<'_>| mta.flush_commands(part).iter().map(Argv::to_string).collect::<Vec<_>>().join("; ");
            assert_eq!(
                [commands(&Part::All), commands(&domain), commands(&Part::Message("A1"))],
                [all, one_domain, message]
            );
        }
    }

    #[test]
    fn sendmails_submission_queue_is_run_too_and_its_messages_are_known() {
        let machine = tempfile::tempdir().unwrap();
        let folder = machine.path().join("etc/mail");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("submit.cf"), "O QueueDirectory=/var/spool/mqueue-client\n").unwrap();
        let mta = find(Some(Kind::Sendmail), &Search::below(machine.path())).unwrap();
        let commands = |part: &Part<'_>| mta.flush_commands(part).iter().map(Argv::to_string).collect::<Vec<_>>();
        assert_eq!(commands(&Part::All), ["/usr/sbin/sendmail -q", "/usr/sbin/sendmail -Ac -q"]);
        assert_eq!(commands(&Part::Message("A1")), ["/usr/sbin/sendmail -qIA1", "/usr/sbin/sendmail -Ac -qIA1"]);

        let clock = Clock { now: 1_795_504_000, zone: jiff::tz::TimeZone::UTC };
        let read = |listing: &str| {
            let mut found = Vec::new();
            let mut parser = mta.parser(&clock);
            let mut keep = |message: &crate::queue::Message<'_>| {
                found.push((message.instance.clone().map(std::borrow::Cow::into_owned), message.too_young));
            };
            listing.lines().for_each(|line| parser.line(line.as_bytes(), &mut keep));
            found
        };
        let submission = Some("submission queue".to_owned());
        let both = read(include_str!("../../tests/fixtures-debian13/sendmail/client-mailq.stdout"));
        assert_eq!(both, [(submission.clone(), false), (None, false), (None, false)]);
        let alone = read(include_str!("../../tests/fixtures-debian13/sendmail/client-bp-v-Ac.stdout"));
        assert_eq!(alone, [(submission, false)]);
        let young = read(include_str!("../../tests/fixtures-debian13/sendmail/tooyoung-bp.stdout"));
        assert_eq!(young, [(None, true), (None, true)]);
    }

    #[test]
    fn without_a_mail_server_the_folders_are_named() {
        let root = tempfile::tempdir().unwrap();
        let trouble = find(None, &Search::below(root.path())).err().unwrap();
        assert!(trouble.to_string().contains("/usr/sbin, "), "{trouble}");
    }

    #[test]
    fn a_refusal_is_answered_with_that_mail_servers_own_programs() {
        let search = Search::below(Path::new("/nonexistent"));
        let account = crate::system::Account { uid: 33, name: "www-data".into(), bound: false };
        // What a remedy may call a mail server: by its name, or by its program.
        let names = |row: &Row| {
            let reads = row.reads.as_ref()?;
            let program = (reads.at)(&search).list_commands()[0].program();
            let file = program.file_name()?.to_str()?.to_owned();
            Some((program, [row.name.to_lowercase(), file]))
        };
        for row in &ROWS {
            let Some((program, own)) = names(row) else { continue };
            for act in [Act::List, Act::Flush, Act::Explain] {
                let refused = Refused { act, account: &account, program: &program, settings: None };
                let (Remedy::Setting(text) | Remedy::Rule(text)) = row.kind.remedy(&refused).unwrap();
                let text = text.to_lowercase();
                let is_named = |names: &[String]| names.iter().any(|name| text.contains(name.as_str()));
                assert!(is_named(&own), "{}: {text}", row.name);
                for other in ROWS.iter().filter(|other| other.kind != row.kind) {
                    let others = names(other).map_or(vec![other.name.to_lowercase()], |(_, names)| names.into());
                    assert!(!is_named(&others), "{}, of {}: {text}", row.name, other.name);
                }
            }
        }
        assert!(
            Kind::Courier
                .remedy(&Refused { act: Act::List, account: &account, program: Path::new("/x"), settings: None })
                .is_none()
        );
    }

    #[test]
    fn those_whose_queues_are_read_are_named_in_a_sentence() {
        assert_eq!(readable_names(), "Postfix, sendmail, Exim and OpenSMTPD");
    }
}
