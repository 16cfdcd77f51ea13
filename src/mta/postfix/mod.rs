//! Postfix: `postqueue -j` (since 3.1) and the older `postqueue -p`.
//!
//! Sources: postqueue(1) with its exit statuses, Postfix's `showq_json.c` and `showq_compat.c`, and
//! the recorded output under `tests/fixtures/postfix`.

mod configuration;
mod instances;
mod json;
mod lifetime;
mod table;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use super::intake::Gate;
use super::parser::{Malformed, text};
use super::relay::printed_name;
use super::remedy::{Refused, Remedy};
use super::{Clock, Facts, Inquiry, Kind, Mta, OwnName, Parser, Part, RelayInquiry, Search, Wanted};
use crate::mta::trouble::{Act, Trouble};
use crate::queue::{Message, State};
use crate::system::process::{Argv, Exit};
use crate::system::{Account, Free};
use crate::text::{plain_word, to_paste};
use configuration::facts;
use instances::{Instance, Instances};
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
    instances: Instances,
}

impl Postfix {
    /// The Postfix among the programs of `search`. If there is none, its program is assumed at the usual path.
    pub(super) fn at(search: &Search) -> Postfix {
        Postfix {
            postqueue: search.program("postqueue").unwrap_or_else(|| "/usr/sbin/postqueue".into()),
            postconf: search.program("postconf"),
            postmap: search.program("postmap"),
            main_cf: search.below_root(Path::new("/etc/postfix/main.cf")),
            instances: Instances::of(search),
        }
    }

    /// A command of postqueue's for each instance.
    fn each(&self, arguments: &[&str]) -> Vec<Argv> {
        let of = |instance: &Instance| Argv::new(&self.postqueue, &instance.arguments(arguments));
        self.instances.running.iter().map(of).collect()
    }

    fn questions(&self, wanted: Wanted) -> Vec<Argv> {
        let names = configuration::parameters(wanted);
        let ask = |postconf| {
            let of = |instance: &Instance| Argv::new(postconf, &instance.arguments(&names));
            let asked =
                if wanted == Wanted::Everything { &self.instances.running[..] } else { &self.instances.running[..1] };
            asked.iter().map(of).collect()
        };
        self.postconf.as_ref().filter(|_| !names.is_empty()).map(ask).unwrap_or_default()
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
        self.each(&["-j"])
    }

    /// A postqueue before 3.1 does not know `-j` and prints its usage.
    fn older_list_command(&self, command: &Argv, exit: &Exit) -> Option<Argv> {
        let unknown = exit.said.contains("usage: ") || exit.said.contains("invalid option");
        let place = self.list_commands().iter().position(|own| own == command);
        self.each(&["-p"]).into_iter().nth(place.unwrap_or(0)).filter(|_| unknown && !exit.success())
    }

    fn tells_parts_apart(&self) -> bool {
        self.instances.running.len() > 1
    }

    fn parser(&self, clock: &Clock) -> Box<dyn Parser> {
        Box::new(PostfixParser::new(clock))
    }

    fn parser_of(&self, clock: &Clock, place: usize) -> Box<dyn Parser> {
        let instance = self.instances.among_several(place).cloned();
        Box::new(PostfixParser { instance, ..PostfixParser::new(clock) })
    }

    fn settings_files(&self) -> Vec<PathBuf> {
        self.postconf.iter().chain([&self.main_cf]).chain(&self.instances.others).cloned().collect()
    }

    fn inquire(&self, free: &Free, wanted: Wanted) -> Inquiry {
        let (main_cf, unlisted) = (self.main_cf.clone(), self.instances.disabled.clone());
        let instances = self.instances.running.clone();
        Inquiry::start_each(free, &self.questions(wanted), move |outputs| {
            let facts = Facts { unlisted, ..facts(outputs.first().map_or("", String::as_str)) };
            match wanted {
                Wanted::Everything => {
                    let seen = lifetime::Seen::now();
                    Facts { timing: lifetime::timing(&instances, outputs, &main_cf, &seen), ..facts }
                }
                Wanted::Permissions | Wanted::Nothing => facts,
            }
        })
    }

    /// The mail for a domain is run message by message. `-s` would silently do nothing for a domain that is not among
    /// `fast_flush_domains`, and it knows only those messages that it has seen deferred. An instance that has no message
    /// of that id ends with status 0 and does nothing.
    fn flush_commands(&self, part: &Part<'_>) -> Vec<Argv> {
        match part {
            Part::All | Part::Each { .. } => self.each(&["-f"]),
            Part::Domain { ids, .. } => ids.iter().flat_map(|id| self.each(&["-i", id])).collect(),
            Part::Message(id) => self.each(&["-i", id]),
        }
    }

    fn release(&self) -> &'static str {
        "To release a message on hold, and then deliver it, as root:\n    postsuper -H ID\nOr all of them:\n    postsuper -H ALL"
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

    fn gate(&self) -> Gate {
        Gate {
            ask: configuration::ask_for_intake(self.postconf.clone(), self.postmap.clone()),
            refusing: "Name every recipient that the primary knows in relay_recipient_maps of main.cf \
                       (see examples/postfix). Then, as root:\n    postfix reload",
            runners: &["qmgr"],
            softener: Some(("soft_bounce", "As root:\n    postconf -e soft_bounce=no\n    postfix reload")),
        }
    }

    fn relaying(&self) -> Option<RelayInquiry> {
        let postconf = self.postconf.clone()?;
        Some(configuration::ask(postconf, self.postmap.clone(), self.main_cf.clone(), self.instances.running.clone()))
    }

    fn flush_verdict(&self, command: &Argv, exit: &Exit, account: &Account) -> Result<(), Trouble> {
        verdict(Act::Flush, command, exit, account)
    }
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
    // A further instance has its own.
    let which = match refused.settings.map(|folder| folder.to_string_lossy().into_owned()) {
        Some(folder) => plain_word(&folder).map(|folder| format!(" -c {folder}")),
        None => Ok(String::new()),
    };
    Remedy::Setting(match plain_word(&refused.account.name).and_then(|user| Ok((user, which?))) {
        Ok((user, which)) => to_paste(
            "As root",
            &[
                &format!("postconf{which} -e \"{parameter} = $(postconf{which} -h {parameter}), {user}\""),
                &format!("postfix{which} reload"),
            ],
        ),
        Err(odd) => format!("{odd}. Add that user to {parameter} in main.cf"),
    })
}

/// Reads either form of postqueue's listing. The first line shows which form it is.
struct PostfixParser {
    clock: Clock,
    lines: u64,
    malformed: Malformed,
    table: Option<Table>,
    /// The instance whose queue it is, where there are several.
    instance: Option<Instance>,
}

impl PostfixParser {
    /// A parser at the beginning of a listing.
    fn new(clock: &Clock) -> Self {
        PostfixParser { clock: clock.clone(), lines: 0, malformed: Malformed::default(), table: None, instance: None }
    }
}

impl Parser for PostfixParser {
    fn line(&mut self, line: &[u8], found: &mut dyn FnMut(&Message<'_>)) {
        self.lines += 1;
        let text = text(line);
        if self.lines == 1 && table::is_table(&text) {
            self.table = Some(Table::of(self.instance.as_ref().map(|instance| instance.name.clone())));
        }
        let understood = match &mut self.table {
            Some(table) => table.line(&text, &self.clock, found),
            None => json::line(&text, self.instance.as_ref().map(|instance| &*instance.name), found),
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
        let ended = verdict(Act::List, command, exit, account);
        let ended =
            ended.map_err(|trouble| self.instance.as_ref().map_or(trouble.clone(), |of| of.blamed_for(trouble)));
        self.malformed.verdict(Kind::Postfix, ended)?;
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
    /// That of a message in this queue which an administrator has made expire.
    fn forced(queue: &str) -> Expiry {
        if queue == "active" { Expiry::Returned } else { Expiry::AtNextAttempt }
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
    use std::fs;

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
        let exit = |said: &str, code| Exit { code: Some(code), ..down(said) };
        let usage = "postqueue: fatal: usage: postqueue -f | postqueue -i queueid | postqueue -p | postqueue -s site";
        let older = postfix.older_list_command(&postfix.list_commands()[0], &exit(usage, 69)).unwrap();
        assert_eq!(older.to_string(), "/usr/sbin/postqueue -p");
        for (said, code) in [("postqueue: fatal: Queue report unavailable", 69), ("", 0)] {
            assert_eq!(postfix.older_list_command(&postfix.list_commands()[0], &exit(said, code)), None);
        }
    }

    #[test]
    fn of_several_instances_all_are_listed_and_run() {
        let machine = tempfile::tempdir().unwrap();
        let write = |folder: &str, text: &str| {
            let folder = machine.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("main.cf"), text).unwrap();
        };
        write("etc/postfix", "multi_instance_directories = /etc/postfix-out /etc/postfix-old\n");
        write("etc/postfix-out", "multi_instance_enable = yes\n");
        let postfix = Postfix::at(&Search::below(machine.path()));
        let lines = |commands: Vec<Argv>| commands.iter().map(Argv::to_string).collect::<Vec<_>>();
        let of_both = |arguments: &str| {
            let second = format!("/usr/sbin/postqueue -c /etc/postfix-out {arguments}");
            [format!("/usr/sbin/postqueue {arguments}"), second]
        };
        assert_eq!(lines(postfix.list_commands()), of_both("-j"));
        assert_eq!(lines(postfix.flush_commands(&Part::All)), of_both("-f"));
        assert_eq!(lines(postfix.flush_commands(&Part::Message("A1"))), of_both("-i A1"));
        let exit = Exit { code: Some(69), said: "usage: postqueue -f".into(), ..down("") };
        let older = postfix.older_list_command(&postfix.list_commands()[1], &exit).unwrap();
        assert_eq!(older.to_string(), of_both("-p")[1]);

        let clock = Clock { now: 1_795_433_446, zone: jiff::tz::TimeZone::UTC };
        let line = r#"{"queue_name":"deferred","queue_id":"A1","arrival_time":1,"message_size":9,"sender":"a@b.example","recipients":[]}"#;
        let instance = |place| {
            let mut found = None;
            let mut parser = postfix.parser_of(&clock, place);
            parser.line(line.as_bytes(), &mut |message| found = message.instance.clone().map(Cow::into_owned));
            let words = "mail system is down";
            (found, parser.end(&postfix.list_commands()[place], &down(words), &account(), &mut |_| ()).unwrap_err())
        };
        let (found, trouble) = instance(1);
        assert_eq!(found.as_deref(), Some("postfix-out"));
        assert!(trouble.to_string().contains("“postfix-out: mail system is down”"), "{trouble}");
        assert_eq!(instance(0).0.as_deref(), Some("postfix"));
    }

    fn down(said: &str) -> Exit {
        Exit {
            ending: crate::system::process::Ending::Exited,
            code: Some(69),
            signal: None,
            said: said.into(),
            allowed: std::time::Duration::ZERO,
            unfinished: false,
        }
    }

    #[test]
    fn one_postconf_answers_what_is_wanted() {
        let machine = tempfile::tempdir().unwrap();
        let folder = machine.path().join("usr/sbin");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("postconf"), "").unwrap();
        let postfix = Postfix::at(&Search::below(machine.path()));
        let questions = |wanted| postfix.questions(wanted).iter().map(Argv::to_string).collect::<Vec<_>>();
        let everything = "/usr/sbin/postconf mail_version queue_directory authorized_flush_users maillog_file \
                          maximal_queue_lifetime bounce_queue_lifetime maximal_backoff_time queue_run_delay";
        assert_eq!(questions(Wanted::Everything), [everything]);
        assert_eq!(questions(Wanted::Permissions), ["/usr/sbin/postconf authorized_flush_users maillog_file"]);
        assert!(questions(Wanted::Nothing).is_empty());
    }
}
