//! Postfix: `postqueue -j` (since 3.1) and the older `postqueue -p`.
//!
//! Sources: postqueue(1) with its exit statuses, Postfix's `showq_json.c` and `showq_compat.c`, and
//! the recorded output under `tests/fixtures/postfix`.

mod json;
mod table;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::parser::{Malformed, text};
use super::relay::{domains, keys, printed_name};
use super::remedy::{Refused, Remedy};
use super::{Clock, Facts, Inquiry, Kind, Mta, OwnName, Parser, Part, RelayInquiry, Relaying, Search, Wanted};
use crate::mta::trouble::{Act, Trouble};
use crate::queue::{Message, State};
use crate::system::process::{self, Argv, Exit};
use crate::system::{Account, Free};
use crate::text::plain_word;
use table::Table;

/// `EX_NOPERM` of sysexits(3): postqueue(1) may end so when the user is not authorized.
const EX_NOPERM: i32 = 77;

/// What postqueue says when its set-group-id bit did not take effect.
const PRIVILEGES_MISSING: &[&str] =
    &["showq service: Permission denied", "unable to look up public/qmgr: Permission denied"];

/// What postqueue says when Postfix is stopped. For root, it lists the queue files all the same.
const DOWN: &[&str] = &["mail system is down", "Mail system is down"];

/// An installed Postfix.
pub(super) struct Postfix {
    postqueue: PathBuf,
    postconf: Option<PathBuf>,
    postmap: Option<PathBuf>,
    main_cf: PathBuf,
}

impl Postfix {
    /// The Postfix among the programs of `search`. If there is none, its program is assumed at the usual path.
    pub(super) fn at(search: &Search) -> Postfix {
        Postfix {
            postqueue: search.program("postqueue").unwrap_or_else(|| "/usr/sbin/postqueue".into()),
            postconf: search.program("postconf"),
            postmap: search.program("postmap"),
            main_cf: search.below_root(Path::new("/etc/postfix/main.cf")),
        }
    }

    fn questions(&self, wanted: Wanted) -> Vec<Argv> {
        let names: &[&str] = match wanted {
            Wanted::Everything => &["mail_version", "queue_directory", "authorized_flush_users"],
            Wanted::Permissions => &["authorized_flush_users"],
            Wanted::Nothing => return Vec::new(),
        };
        self.postconf.iter().map(|postconf| Argv::new(postconf, names)).collect()
    }
}

impl Mta for Postfix {
    fn kind(&self) -> Kind {
        Kind::Postfix
    }

    fn sample_id(&self) -> &'static str {
        "167A598CA53"
    }

    fn list_commands(&self) -> Vec<Argv> {
        vec![Argv::new(&self.postqueue, &["-j"])]
    }

    /// A postqueue before 3.1 does not know `-j` and prints its usage.
    fn older_list_command(&self, exit: &Exit) -> Option<Argv> {
        let unknown = exit.said.contains("usage: ") || exit.said.contains("invalid option");
        (unknown && !exit.success()).then(|| Argv::new(&self.postqueue, &["-p"]))
    }

    fn parser(&self, clock: &Clock) -> Box<dyn Parser> {
        Box::new(PostfixParser::new(clock))
    }

    fn inquire(&self, free: &Free, wanted: Wanted) -> Inquiry {
        Inquiry::start(free, &self.questions(wanted), facts)
    }

    /// The mail for a domain is run message by message. `-s` would silently do nothing for a domain that is not among
    /// `fast_flush_domains`, and it knows only those messages that it has seen deferred.
    fn flush_commands(&self, part: &Part<'_>) -> Vec<Argv> {
        let message = |id: &str| Argv::new(&self.postqueue, &["-i", id]);
        match part {
            Part::All => vec![Argv::new(&self.postqueue, &["-f"])],
            Part::Domain { ids, .. } => ids.iter().map(|id| message(id)).collect(),
            Part::Message(id) => vec![message(id)],
        }
    }

    fn release(&self) -> &'static str {
        "As root: postsuper -H ID (or postsuper -H ALL), then run the queue."
    }

    fn flush_obstacle(&self, facts: &Facts, account: &Account) -> Option<Trouble> {
        let users = facts.flush_users.as_deref()?;
        let mut names = users.split([',', ' ', '\t']).filter(|name| !name.is_empty());
        // Only Postfix itself can look up a table or an exclusion: then only the attempt can show it.
        let plain = !users.contains([':', '/', '!']);
        let listed = names.any(|name| name == account.name);
        (plain && !listed && !account.is_root()).then(|| Trouble::NotPermitted {
            mta: Kind::Postfix,
            act: Act::Flush,
            account: account.clone(),
            program: self.postqueue.clone(),
            configured: false,
            settings: None,
            words: format!("authorized_flush_users = {users}"),
        })
    }

    fn own_name(&self) -> Option<OwnName> {
        self.postconf.as_ref().map(|postconf| printed_name(Argv::new(postconf, &["-hx", "myhostname"])))
    }

    fn relaying(&self) -> Option<RelayInquiry> {
        let (postconf, postmap, main_cf) = (self.postconf.clone()?, self.postmap.clone(), self.main_cf.clone());
        Some(Box::new(move |free, deadline| {
            let ask = |program: &PathBuf, arguments: &[&str]| {
                let output =
                    process::start(free, &Argv::new(program, arguments)).ok().map(|running| running.collect(deadline));
                output.map(|(_, output)| String::from_utf8_lossy(&output).into_owned()).unwrap_or_default()
            };
            let is_settling = is_settling(&main_cf);
            let settings = ask(&postconf, &["-x", "relay_domains", "mydestination", "myhostname"]);
            let table = |name: &str| postmap.as_ref().map(|postmap| ask(postmap, &["-s", name]));
            let just_changed = (settings.is_empty() && is_settling).then_some("main.cf");
            Relaying { just_changed, ..relaying(&settings, table) }
        }))
    }

    fn flush_verdict(&self, command: &Argv, exit: &Exit, account: &Account) -> Result<(), Trouble> {
        verdict(Act::Flush, command, exit, account)
    }
}

/// A value in the lines `name = value` of postconf(1).
fn value(output: &str, name: &str) -> Option<String> {
    output.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// `relay_domains` of postconf(5): names, files with names, and tables, whose keys postmap(1) prints (`table` asks it),
/// but for those that are delivered here (`relay_domains = $mydestination`): they need no mail exchanger. And `myhostname`.
fn relaying(settings: &str, table: impl Fn(&str) -> Option<String>) -> Relaying {
    let delivered_here = domains(&value(settings, "mydestination").unwrap_or_default());
    let relayed = value(settings, "relay_domains").unwrap_or_default();
    let named = relayed.split([',', ' ', '\t', '\n']).flat_map(|word| match word.contains(':') {
        _ if word.starts_with('/') => domains(&fs::read_to_string(word).unwrap_or_default()),
        true => table(word).map_or_else(|| domains(word), |printed| domains(&keys(&printed))),
        false => domains(word),
    });
    Relaying {
        domains: named.filter(|domain| !delivered_here.contains(domain)).collect(),
        own_name: value(settings, "myhostname"),
        just_changed: None,
    }
}

/// Whether postconf(1) waits before it reads the file: until that is two seconds old (`dict_load_file_xt()` of Postfix's dict.c), so that
/// it reads no half of it.
fn is_settling(main_cf: &Path) -> bool {
    const SETTLED: Duration = Duration::from_secs(2);
    let changed = fs::metadata(main_cf).and_then(|found| found.modified());
    changed.is_ok_and(|changed| changed.elapsed().map_or(true, |since| since <= SETTLED))
}

fn facts(output: &str) -> Facts {
    Facts {
        version: value(output, "mail_version"),
        queue_directory: value(output, "queue_directory").map(PathBuf::from),
        flush_users: value(output, "authorized_flush_users"),
        ..Facts::default()
    }
    .or_usual("/var/spool/postfix")
}

/// What postqueue's exit means. The refusals are recognised by their words, since nearly all of them end with status
/// 69 (fixtures `denied-*`, `down-*`, `*-nnp`).
fn verdict(act: Act, command: &Argv, exit: &Exit, account: &Account) -> Result<(), Trouble> {
    let mta = Kind::Postfix;
    if exit.code.is_some() {
        let says = |signs: &[&str]| signs.iter().any(|sign| exit.said.contains(sign));
        // This comes first, since a flush without its rights says, wrongly, that the mail system is down.
        if let Some(trouble) = exit.denied_privileges(mta, PRIVILEGES_MISSING, account) {
            return Err(trouble);
        }
        if says(&["is not allowed to"]) || exit.code == Some(EX_NOPERM) {
            return Err(exit.not_permitted(mta, act, command, account));
        }
        if says(DOWN) {
            return Err(Trouble::NotRunning { mta, words: exit.words() });
        }
    }
    exit.verdict(command)
}

/// Who may list and who may run the queue are settings (postconf(5)); the command keeps the users that are in them.
pub(super) fn remedy(refused: &Refused<'_>) -> Remedy {
    let parameter = match refused.act {
        Act::List => "authorized_mailq_users",
        Act::Flush | Act::Explain => "authorized_flush_users",
    };
    Remedy::Setting(match plain_word(&refused.account.name) {
        Ok(user) => {
            format!("As root: postconf -e \"{parameter} = $(postconf -h {parameter}), {user}\" && postfix reload")
        }
        Err(odd) => format!("{odd}. Add that user to {parameter} in main.cf"),
    })
}

/// Reads either form of postqueue's listing. The first line shows which form it is.
struct PostfixParser {
    clock: Clock,
    lines: u64,
    malformed: Malformed,
    table: Option<Table>,
}

impl PostfixParser {
    /// A parser at the beginning of a listing.
    fn new(clock: &Clock) -> Self {
        PostfixParser { clock: clock.clone(), lines: 0, malformed: Malformed::default(), table: None }
    }
}

impl Parser for PostfixParser {
    fn line(&mut self, line: &[u8], found: &mut dyn FnMut(&Message<'_>)) {
        self.lines += 1;
        let text = text(line);
        if self.lines == 1 && table::is_table(&text) {
            self.table = Some(Table::default());
        }
        let understood = match &mut self.table {
            Some(table) => table.line(&text, &self.clock, found),
            None => json::line(&text, found),
        };
        if !understood {
            self.malformed.note(self.lines, line);
        }
    }

    fn end(
        &mut self,
        command: &Argv,
        exit: &Exit,
        account: &Account,
        found: &mut dyn FnMut(&Message<'_>),
    ) -> Result<(), Trouble> {
        let complete = self.table.as_mut().is_none_or(|table| table.end(found));
        self.malformed.verdict(Kind::Postfix, verdict(Act::List, command, exit, account))?;
        if complete { Ok(()) } else { Err(Trouble::BrokenOff { mta: Kind::Postfix, lines: self.lines }) }
    }
}

/// Whether a message goes back to its sender.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expiry {
    /// Not yet.
    None,
    /// At the next attempt, which an administrator has made the last (`postsuper -e`): for a message on hold, once it is
    /// released.
    AtNextAttempt,
    /// It is being returned.
    Returned,
}

impl Expiry {
    fn of(forced: bool, queue: &str) -> Expiry {
        match (forced, queue) {
            (false, _) => Expiry::None,
            (true, "active") => Expiry::Returned,
            (true, _) => Expiry::AtNextAttempt,
        }
    }

    /// The name of the queue that the message is in, and what becomes of the message.
    fn word(self, queue: Cow<'_, str>) -> Cow<'_, str> {
        match self {
            Expiry::None => queue,
            Expiry::AtNextAttempt => Cow::Owned(format!("{queue}, returned to the sender at the next attempt")),
            Expiry::Returned => Cow::Owned(format!("{queue}, being returned to the sender")),
        }
    }
}

/// The envelope sender. showq(8) prints the null sender as `MAILER-DAEMON`, in JSON too, and a real address always has a
/// domain.
fn sender(printed: Cow<'_, str>) -> Cow<'_, str> {
    if printed == "MAILER-DAEMON" { Cow::Borrowed("") } else { printed }
}

/// The state of a message in one of Postfix's queues (qmgr(8), pickup(8)).
fn state(queue: &str) -> State {
    match queue {
        "maildrop" | "incoming" => State::Incoming,
        "active" => State::Active,
        "hold" => State::Held,
        _ => State::Deferred,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account() -> Account {
        Account { uid: 33, name: "www-data".into(), bound: false }
    }

    #[test]
    fn who_may_flush_is_known_before_it_is_tried() {
        let postfix = Postfix::at(&Search::default());
        let obstacle = |users: &str| {
            let facts = Facts { flush_users: Some(users.into()), ..Facts::default() };
            postfix.flush_obstacle(&facts, &account())
        };
        assert_eq!(obstacle("static:anyone"), None, "the default");
        assert_eq!(obstacle("root, www-data"), None);
        assert_eq!(obstacle("!mallory, static:anyone"), None, "left to Postfix");
        let trouble = obstacle("root,postmaster").unwrap();
        assert!(trouble.remedy().contains("$(postconf -h authorized_flush_users), www-data"), "{}", trouble.remedy());
        assert!(obstacle("").is_some(), "nobody may");
        assert_eq!(postfix.flush_obstacle(&Facts::default(), &account()), None);
    }

    #[test]
    fn a_postfix_before_3_1_is_asked_in_its_own_way() {
        let postfix = Postfix::at(&Search::below(std::path::Path::new("/nonexistent")));
        let exit = |said: &str, code| Exit {
            ending: crate::system::process::Ending::Exited,
            code: Some(code),
            signal: None,
            said: said.into(),
            allowed: std::time::Duration::ZERO,
            unfinished: false,
        };
        let usage = "postqueue: fatal: usage: postqueue -f | postqueue -i queueid | postqueue -p | postqueue -s site";
        let older = postfix.older_list_command(&exit(usage, 69)).unwrap();
        assert_eq!(older.to_string(), "/usr/sbin/postqueue -p");
        assert_eq!(postfix.older_list_command(&exit("postqueue: fatal: Queue report unavailable", 69)), None);
        assert_eq!(postfix.older_list_command(&exit("", 0)), None);
    }

    #[test]
    fn one_postconf_answers_what_is_wanted() {
        let machine = tempfile::tempdir().unwrap();
        let folder = machine.path().join("usr/sbin");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("postconf"), "").unwrap();
        let postfix = Postfix::at(&Search::below(machine.path()));
        let questions = |wanted| postfix.questions(wanted).iter().map(Argv::to_string).collect::<Vec<_>>();
        let everything = "/usr/sbin/postconf mail_version queue_directory authorized_flush_users";
        assert_eq!(questions(Wanted::Everything), [everything]);
        assert_eq!(questions(Wanted::Permissions), ["/usr/sbin/postconf authorized_flush_users"]);
        assert!(questions(Wanted::Nothing).is_empty());
    }

    #[test]
    fn a_domain_that_is_delivered_here_is_not_relayed() {
        let settings = "mydestination = bartleby.example.net, localhost\nmyhostname = bartleby.example.net\n";
        let read = |relayed: &str| {
            let table = |name: &str| (name == "hash:/etc/relay").then(|| "other.example x\n".to_owned());
            relaying(&format!("relay_domains = {relayed}\n{settings}"), table)
        };
        assert_eq!(read("bartleby.example.net, localhost").domains, [""; 0], "$mydestination");
        assert_eq!(
            read("example.com, hash:/etc/relay, bartleby.example.net").domains,
            ["example.com", "other.example"]
        );
        assert_eq!(read("").own_name.as_deref(), Some("bartleby.example.net"));
    }

    #[test]
    fn a_main_cf_that_was_changed_a_moment_ago_is_settling() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(is_settling(file.path()));
        let past = std::time::SystemTime::now() - Duration::from_secs(3);
        file.as_file().set_modified(past).unwrap();
        assert!(!is_settling(file.path()));
        assert!(!is_settling(Path::new("/nonexistent")));
    }

    #[test]
    fn settings_are_read_from_postconf() {
        let read = facts("mail_version = 3.7.11\nqueue_directory = /var/spool/postfix\nauthorized_flush_users =\n");
        assert_eq!(read.version.as_deref(), Some("3.7.11"));
        assert_eq!(read.queue_directory, Some("/var/spool/postfix".into()));
        assert_eq!(read.flush_users.as_deref(), Some(""));
    }
}
