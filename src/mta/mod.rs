//! The mail servers: finding out which one is installed, and what each can be asked.
//!
//! One file a mail server, behind the trait [`Mta`]: which command lists, how its output reads,
//! what its exit means, and which command runs the queue. Parsers are pure functions over lines.

mod date;
mod exim;
mod opensmtpd;
mod postfix;
pub mod privilege;
mod sendmail;
pub mod trouble;
mod verdict;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::mta::trouble::Trouble;
use crate::queue::Message;
use crate::system::Account;
use crate::system::process::{self, Argv, Exit};
pub use date::past_instant;
pub use exim::Exim;
pub use opensmtpd::OpenSmtpd;
pub use postfix::Postfix;
pub use sendmail::Sendmail;

/// The mail servers by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Postfix.
    Postfix,
    /// Sendmail 8.
    Sendmail,
    /// Exim 4.
    Exim,
    /// OpenSMTPD.
    OpenSmtpd,
    /// The DragonFly Mail Agent, which has no queue listing worth the name: found, not read.
    #[serde(skip_deserializing)]
    Dma,
    /// nullmailer: found, not read.
    #[serde(skip_deserializing)]
    Nullmailer,
    /// Courier: found, not read.
    #[serde(skip_deserializing)]
    Courier,
}

impl Kind {
    /// The name as its authors write it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Postfix => "Postfix",
            Kind::Sendmail => "sendmail",
            Kind::Exim => "Exim",
            Kind::OpenSmtpd => "OpenSMTPD",
            Kind::Dma => "the DragonFly Mail Agent",
            Kind::Nullmailer => "nullmailer",
            Kind::Courier => "Courier",
        }
    }

    /// Its systemd unit.
    pub fn unit(self) -> &'static str {
        match self {
            Kind::Postfix => "postfix",
            Kind::Sendmail => "sendmail",
            Kind::Exim => "exim4",
            Kind::OpenSmtpd => "opensmtpd",
            Kind::Dma => "dma",
            Kind::Nullmailer => "nullmailer",
            Kind::Courier => "courier-mta",
        }
    }
}

/// One installed mail server.
pub trait Mta {
    /// Which one.
    fn kind(&self) -> Kind;

    /// A queue id as it gives them: a rule may be asked about, or a command made, before any is seen.
    fn sample_id(&self) -> &'static str;

    /// The commands that list the queue, to be run one after the other: each lists a part of it.
    fn list_commands(&self) -> Vec<Argv>;

    /// The command for a mail server too old for the first one, as which it ended tells.
    fn older_list_command(&self, _exit: &Exit) -> Option<Argv> {
        None
    }

    /// A reader for that command's output.
    fn parser(&self, clock: &Clock) -> Box<dyn Parser>;

    /// Starts to ask for version and settings. What takes a process runs beside the listing.
    fn inquire(&self) -> Inquiry;

    /// The commands that make a part of the queue be delivered now.
    fn flush_commands(&self, part: &Part<'_>) -> Vec<Argv>;

    /// Whether they deliver held messages, too.
    fn flushes_held(&self, _part: &Part<'_>) -> bool {
        false
    }

    /// How an administrator releases held messages.
    fn release(&self) -> &'static str;

    /// A question to be asked before a flush, with the same rights.
    fn flush_question(&self) -> Option<Argv> {
        None
    }

    /// What has to be run before the flush, as the answer to that question tells.
    fn flush_preparation(&self, _answer: &str) -> Vec<Argv> {
        Vec::new()
    }

    /// What the mail server's settings have against this user running the queue; `None` where
    /// nothing is known to be in the way.
    fn flush_obstacle(&self, facts: &Facts, account: &Account) -> Option<Trouble>;

    /// Why a flush command that ended so did not run the queue, or `Ok`.
    ///
    /// # Errors
    /// The cause, told from the exit status and what was printed on either stream.
    fn flush_verdict(&self, command: &Argv, exit: &Exit, account: &Account) -> Result<(), Trouble>;

    /// For which domains it relays mail, where its configuration tells.
    fn relay_domains(&self) -> Option<RelayDomains> {
        None
    }

    /// Whether its listing cuts long addresses and reasons short.
    fn cuts_short(&self) -> bool {
        false
    }

    /// The command that tells why a message waits, where the listing does not.
    fn reason_command(&self, _id: &str) -> Option<Argv> {
        None
    }

    /// Whether that command, which failed, was refused.
    ///
    /// # Errors
    /// The refusal; a message that has gone meanwhile is none.
    fn reason_verdict(&self, _command: &Argv, _exit: &Exit, _account: &Account) -> Result<(), Trouble> {
        Ok(())
    }

    /// The recipient and the reason in a line of that command's output; a later line overrides an earlier.
    fn read_reason(&self, _line: &str) -> Option<(String, String)> {
        None
    }
}

/// Finds out for which domains mail is relayed, until a deadline; may take a process.
pub type RelayDomains = Box<dyn FnOnce(Instant) -> Vec<String> + Send>;

/// The words of a configuration that are domains, in lower case.
fn domains(text: &str) -> Vec<String> {
    let is_domain = |word: &&str| {
        word.contains('.')
            && !word.starts_with(['.', '-'])
            && word.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
            && word.parse::<std::net::IpAddr>().is_err()
    };
    text.split([',', ':', ' ', '\t', '\n']).filter(is_domain).map(str::to_lowercase).collect()
}

/// The first words of the lines of a table, whatever stands behind them.
fn keys(table: &str) -> String {
    let key = |line: &'_ str| line.split('#').next()?.split([' ', '\t', ':']).next().map(str::to_owned);
    table.lines().filter_map(key).collect::<Vec<_>>().join("\n")
}

/// What is to be delivered. Ids and domains are those of a listing, never of a request alone.
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
}

/// Reads a listing, line by line.
pub trait Parser {
    /// Reads one line, given without its line feed, and passes each message that is complete on.
    fn line(&mut self, line: &[u8], found: &mut dyn FnMut(&Message<'_>));

    /// Passes the last message on and says what the listing was: all of it, or why not.
    ///
    /// # Errors
    /// The cause, told from what was printed and how the command ended. What was passed on stays true.
    fn end(
        &mut self,
        command: &Argv,
        exit: &Exit,
        account: &Account,
        found: &mut dyn FnMut(&Message<'_>),
    ) -> Result<(), Trouble>;
}

/// The time and zone that listings without year or zone are read by.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The present, in seconds since 1970.
    pub now: i64,
    /// The machine's zone.
    pub zone: TimeZone,
}

/// What is known of a mail server besides its queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its version.
    pub version: Option<String>,
    /// Where it keeps its queue.
    pub queue_directory: Option<PathBuf>,
    /// Postfix: who may run the queue (`authorized_flush_users`).
    pub flush_users: Option<String>,
    /// Exim: whether it takes an admin user to run the queue (`prod_requires_admin`).
    pub flush_needs_admin: Option<bool>,
}

/// An inquiry under way: commands whose output tells version and settings.
pub struct Inquiry {
    running: Vec<process::Running>,
    read: Box<dyn Fn(&str) -> Facts>,
}

impl Inquiry {
    /// Starts the commands, all at once. What they print, on either stream, is for `read`; one that
    /// can't be started prints nothing.
    fn start(commands: &[Argv], read: impl Fn(&str) -> Facts + 'static) -> Inquiry {
        let running = commands.iter().filter_map(|argv| process::start(argv).ok()).collect();
        Inquiry { running, read: Box::new(read) }
    }

    /// The answer, or what is known without it at the deadline.
    pub fn answer(self, deadline: Instant) -> Facts {
        let outputs = self.running.into_iter().map(|running| {
            let (exit, output) = running.collect(deadline);
            format!("{}\n{}\n", String::from_utf8_lossy(&output), exit.said)
        });
        (self.read)(&outputs.collect::<String>())
    }
}

impl Facts {
    /// With the usual queue directory where the settings could not be asked, if it is there.
    fn or_usual(mut self, directory: &str) -> Facts {
        self.queue_directory =
            self.queue_directory.or_else(|| Some(directory.into()).filter(|path: &PathBuf| path.is_dir()));
        self
    }
}

/// A line as text. Nearly all are, and to see that is quicker than what replaces bytes that are none.
fn text(line: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(line).map_or_else(|_| String::from_utf8_lossy(line), Cow::Borrowed)
}

/// Counts the lines that a parser could not read.
#[derive(Debug, Default)]
struct Malformed {
    count: u64,
    first: Option<(u64, String)>,
}

impl Malformed {
    const SHOWN: usize = 120;

    fn note(&mut self, line: u64, text: &[u8]) {
        self.count += 1;
        if self.first.is_none() {
            let start = &text[..text.len().min(Self::SHOWN)];
            self.first = Some((line, String::from_utf8_lossy(start).into_owned()));
        }
    }

    /// What is to be told of a listing whose command ended so: lines that made no sense say more than a bad end.
    fn verdict(&self, mta: Kind, end: Result<(), Trouble>) -> Result<(), Trouble> {
        match (&self.first, end) {
            (Some((line, text)), Ok(()) | Err(Trouble::Ended { .. })) => {
                Err(Trouble::NotUnderstood { mta, count: self.count, line: *line, text: text.clone() })
            }
            (_, end) => end,
        }
    }
}

/// The mail server of this machine, or the one of the kind that the configuration names.
///
/// # Errors
/// [`Trouble::NoMta`], or [`Trouble::Unsupported`] where another is installed.
pub fn find(kind: Option<Kind>, search: &Search) -> Result<Box<dyn Mta>, Trouble> {
    match kind.or_else(|| search.installed()) {
        Some(Kind::Postfix) => Ok(Box::new(Postfix::at(search))),
        Some(Kind::Sendmail) => Ok(Box::new(Sendmail::at(search))),
        Some(Kind::Exim) => Ok(Box::new(Exim::at(search))),
        Some(Kind::OpenSmtpd) => Ok(Box::new(OpenSmtpd::at(search))),
        Some(other) => Err(Trouble::Unsupported(other)),
        None => Err(Trouble::NoMta { searched: search.folders.join(", ") }),
    }
}

/// Where programs are looked for: absolute folders, whatever the web server's `PATH` holds.
#[derive(Clone, Debug)]
pub struct Search {
    /// What every path starts with; `/` but in tests.
    root: PathBuf,
    folders: Vec<String>,
}

impl Default for Search {
    fn default() -> Self {
        Search::below(Path::new("/"))
    }
}

impl Search {
    /// Programs below `root`.
    pub fn below(root: &Path) -> Search {
        let folders = ["/usr/sbin", "/usr/bin", "/usr/libexec", "/usr/local/sbin", "/usr/local/bin", "/sbin", "/bin"];
        Search { root: root.into(), folders: folders.map(String::from).into() }
    }

    /// The absolute path of a program.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        self.folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| self.below_root(path).is_file())
    }

    fn below_root(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Which mail server is installed, told by the programs that only it brings. `/usr/sbin/sendmail`
    /// is brought by all of them; where several are installed, it tells which one is in use.
    fn installed(&self) -> Option<Kind> {
        let installed = self.all_installed();
        let in_use = self.in_use();
        installed.iter().copied().find(|kind| Some(*kind) == in_use).or_else(|| installed.first().copied())
    }

    fn all_installed(&self) -> Vec<Kind> {
        [
            (Kind::Postfix, self.program("postqueue").is_some()),
            (Kind::Exim, exim::installed(self).is_some()),
            (Kind::OpenSmtpd, self.program("smtpctl").is_some()),
            (Kind::Sendmail, sendmail::installed(self).is_some()),
            (Kind::Courier, self.program("courier").is_some()),
            (Kind::Nullmailer, self.program("nullmailer-send").is_some()),
            (Kind::Dma, self.program("dma").is_some()),
        ]
        .into_iter()
        .filter_map(|(kind, there)| there.then_some(kind))
        .collect()
    }

    /// Whether this mail server is installed.
    pub fn has(&self, kind: Kind) -> bool {
        self.all_installed().contains(&kind)
    }

    /// The mail server that `/usr/sbin/sendmail` leads to, by the names that distributions give.
    fn in_use(&self) -> Option<Kind> {
        let target = self.below_root(Path::new("/usr/sbin/sendmail")).canonicalize().ok()?;
        let target = target.to_str()?;
        [("exim", Kind::Exim), ("smtpctl", Kind::OpenSmtpd), ("postfix", Kind::Postfix)]
            .into_iter()
            .find_map(|(name, kind)| target.contains(name).then_some(kind))
            .or_else(|| sendmail::is_sendmail(Path::new(target)).then_some(Kind::Sendmail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn machine(programs: &[&str], sendmail_leads_to: Option<&str>) -> (tempfile::TempDir, Search) {
        let root = tempfile::tempdir().unwrap();
        for program in programs {
            let path = root.path().join(program.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        if let Some(target) = sendmail_leads_to {
            fs::create_dir_all(root.path().join("usr/sbin")).unwrap();
            let target = root.path().join(target.trim_start_matches('/'));
            symlink(target, root.path().join("usr/sbin/sendmail")).unwrap();
        }
        let search = Search::below(root.path());
        (root, search)
    }

    #[test]
    fn the_mail_server_is_told_by_what_only_it_brings() {
        for (programs, link, kind) in [
            (&["/usr/sbin/postqueue", "/usr/sbin/sendmail"][..], None, Some(Kind::Postfix)),
            (&["/usr/libexec/sendmail/sendmail"], Some("/usr/libexec/sendmail/sendmail"), Some(Kind::Sendmail)),
            (&["/usr/sbin/sendmail.sendmail"], Some("/usr/sbin/sendmail.sendmail"), Some(Kind::Sendmail)),
            (&["/usr/sbin/exim4"], Some("/usr/sbin/exim4"), Some(Kind::Exim)),
            (&["/usr/sbin/smtpctl"], Some("/usr/sbin/smtpctl"), Some(Kind::OpenSmtpd)),
            (&["/usr/sbin/dma"], Some("/usr/sbin/dma"), Some(Kind::Dma)),
            (&["/usr/sbin/nullmailer-send", "/usr/sbin/sendmail"], None, Some(Kind::Nullmailer)),
            (&["/usr/sbin/courier", "/usr/sbin/sendmail"], None, Some(Kind::Courier)),
            (&["/usr/sbin/sendmail"], None, None),
            (&[], None, None),
        ] {
            let (_root, search) = machine(programs, link);
            assert_eq!(search.installed(), kind, "{programs:?}");
        }
    }

    #[test]
    fn of_several_the_one_behind_usr_sbin_sendmail_is_in_use() {
        let programs = ["/usr/sbin/postqueue", "/usr/libexec/sendmail/sendmail"];
        let (_root, search) = machine(&programs, Some("/usr/libexec/sendmail/sendmail"));
        assert_eq!(search.installed(), Some(Kind::Sendmail));
        let programs = ["/usr/sbin/postqueue", "/usr/sbin/sendmail.postfix", "/usr/sbin/sendmail.sendmail"];
        let (_root, search) = machine(&programs, Some("/usr/sbin/sendmail.postfix"));
        assert_eq!(search.installed(), Some(Kind::Postfix));
    }

    #[test]
    fn each_mail_server_is_told_its_own_way_what_to_deliver() {
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
            let told =
                |part: &Part<'_>| mta.flush_commands(part).iter().map(Argv::to_string).collect::<Vec<_>>().join("; ");
            assert_eq!([told(&Part::All), told(&domain), told(&Part::Message("A1"))], [all, one_domain, message]);
        }
    }

    #[test]
    fn domains_are_told_from_what_else_a_configuration_holds() {
        let text = "example.com, Sub.Example.org\t192.0.2.0/24 192.0.2.1 $mydestination .example.net hash:/etc/x !no.example @";
        assert_eq!(domains(text), ["example.com", "sub.example.org"]);
        assert_eq!(
            domains(&keys("# c\nexample.com  smtp:[mx.example.net]\nexample.org: x.example\n\n")),
            ["example.com", "example.org"]
        );
    }

    #[test]
    fn without_a_mail_server_the_folders_are_named() {
        let (_root, search) = machine(&[], None);
        let trouble = find(None, &search).err().unwrap();
        assert!(trouble.to_string().contains("/usr/sbin, "), "{trouble}");
    }
}
