//! The mail servers: finding out which one is installed, and what each can be asked.
//!
//! One file a mail server, behind the trait [`Mta`]: which command lists, how its output reads,
//! what its exit means, and which command runs the queue. Parsers are pure functions over lines.

mod date;
mod exim;
mod inquiry;
mod kind;
mod opensmtpd;
mod parser;
mod postfix;
pub mod privilege;
mod relay;
mod search;
mod sendmail;
pub mod trouble;
mod verdict;

use crate::mta::trouble::Trouble;
use crate::system::Account;
use crate::system::process::{Argv, Exit};
pub use date::past_instant;
pub use exim::Exim;
pub use inquiry::{Facts, Inquiry};
pub use kind::Kind;
pub use opensmtpd::OpenSmtpd;
pub use parser::{Clock, Parser};
pub use postfix::Postfix;
pub use relay::RelayDomains;
pub use search::Search;
pub use sendmail::Sendmail;

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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

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
    fn without_a_mail_server_the_folders_are_named() {
        let root = tempfile::tempdir().unwrap();
        let trouble = find(None, &Search::below(root.path())).err().unwrap();
        assert!(trouble.to_string().contains("/usr/sbin, "), "{trouble}");
    }
}
