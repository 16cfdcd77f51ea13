//! Exim 4: `exim4 -bp`, and the message log (`-Mvl`) for the reasons, which the listing lacks.
//!
//! Sources: the Exim specification's chapters "The Exim command line" and "Log files",
//! `queue_list()` of Exim's `queue.c`, `string_format_size()` of its `string.c`, and the recorded
//! output under `tests/fixtures/exim`. The listing is read by its columns, which no address can
//! imitate: a message begins within the first five, a recipient in the eleventh.

mod configuration;
mod hints;
mod message_log;
mod retry;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::inquiry::answers;
use super::intake::Gate;
use super::parser::{Malformed, text};
use super::relay::printed_name;
use super::{
    Attempt, Clock, Facts, Hints, Inquiry, Kind, Mta, OwnName, Parser, Part, RelayInquiry, Relaying, Search, Wanted,
};
use crate::mta::trouble::{Act, Trouble};
use crate::queue::{Lifetimes, Message, Plan, Recipient, State};
use crate::system::process::{self, Argv, Exit};
use crate::system::{Account, Free, processes};
pub(super) use configuration::remedy;
use configuration::{last_change, read_by_exim, relaying, settings_file};

/// What Exim says when its set-user-id bit did not take effect (fixture `as-www-data-bp-nnp`).
const PRIVILEGES_MISSING: &[&str] = &["failed to open configuration file"];

/// Exim's own log: on Debian, Red Hat and FreeBSD; where `log_file_path` says syslog, that.
const LOGS: [&str; 5] = [
    "/var/log/exim4/mainlog",
    "/var/log/exim/main.log",
    "/var/log/exim/mainlog",
    "/var/log/mail.log",
    "/var/log/maillog",
];

/// The names of its processes.
const DAEMONS: [&str; 2] = ["exim4", "exim"];

/// An installed Exim.
pub(super) struct Exim {
    program: PathBuf,
    /// What prints its databases.
    dump: PathBuf,
    settings: Option<PathBuf>,
    recipients: PathBuf,
    /// The file by which it goes.
    read: PathBuf,
}

impl Exim {
    /// The Exim among the programs of `search`. If there is none, its program is assumed at Debian's usual path.
    pub(super) fn at(search: &Search) -> Exim {
        let settings = settings_file(search);
        Exim {
            program: installed(search).unwrap_or_else(|| "/usr/sbin/exim4".into()),
            dump: search.program("exim_dumpdb").unwrap_or_else(|| "/usr/sbin/exim_dumpdb".into()),
            recipients: search.below_root(Path::new(configuration::RECIPIENTS)),
            read: read_by_exim(settings.as_deref(), search),
            settings,
        }
    }

    fn questions(&self, wanted: Wanted) -> Vec<Argv> {
        let ask = |arguments: &[&str]| Argv::new(&self.program, arguments);
        let settings = ["-bP", "prod_requires_admin", "spool_directory", "log_file_path"];
        match wanted {
            Wanted::Everything => {
                vec![ask(&[&settings[..], &retry::OPTIONS].concat()), ask(&["-bV"]), ask(&["-bP", "+relay_to_domains"])]
            }
            Wanted::Permissions => vec![ask(&settings)],
            Wanted::Nothing => Vec::new(),
        }
    }
}

pub(super) fn installed(search: &Search) -> Option<PathBuf> {
    search.program("exim4").or_else(|| search.program("exim"))
}

impl Mta for Exim {
    fn kind(&self) -> Kind {
        Kind::Exim
    }

    fn sample_id(&self) -> &'static str {
        "1vNAb2-00000c-2p"
    }

    fn list_commands(&self) -> Vec<Argv> {
        vec![Argv::new(&self.program, &["-bp"])]
    }

    fn parser(&self, clock: &Clock) -> Box<dyn Parser> {
        Box::new(EximParser::new(clock, self.settings.clone()))
    }

    fn settings_files(&self) -> Vec<PathBuf> {
        [self.program.clone()].into_iter().chain(configuration::FILES.iter().map(PathBuf::from)).collect()
    }

    fn inquire(&self, free: &Free, wanted: Wanted) -> Inquiry {
        let (program, settings, file) = (self.program.clone(), self.settings.clone(), self.read.clone());
        Inquiry::start_then(free, &self.questions(wanted), move |free, output, deadline| {
            if wanted != Wanted::Everything {
                return facts(output);
            }
            let mut domains = relaying(output, |file| fs::read_to_string(file).unwrap_or_default()).domains;
            domains.sort();
            domains.dedup();
            domains.truncate(retry::MOST_DOMAINS);
            let rule = |domain: &String| Argv::new(&program, &["-brt", domain]);
            let rules = answers(free, &domains.iter().map(rule).collect::<Vec<_>>(), deadline);
            let processes = processes::named(&DAEMONS);
            let rules: Vec<_> = domains.into_iter().zip(rules).collect();
            let asked = retry::Answers {
                options: output,
                rules: &rules,
                processes,
                settings: settings.as_deref(),
                changed: last_change(&file),
            };
            Facts { timing: retry::timing(&asked), ..facts(output) }
        })
    }

    fn lifetimes(&self, seconds: i64) -> Lifetimes {
        Lifetimes::About { cutoffs: Vec::new(), otherwise: Some(seconds), failing_since: None, frozen: None }
    }

    /// `-q` alone skips messages that are not due yet, and after an outage nearly none is. `-qf` blocks until the run
    /// ends.
    fn flush_commands(&self, part: &Part<'_>) -> Vec<Argv> {
        vec![match part {
            Part::All | Part::Each { .. } => Argv::new(&self.program, &["-qf"]),
            Part::Domain { name, .. } => Argv::new(&self.program, &["-qf", "-R", &format!("@{name}")]),
            Part::Message(id) => Argv::new(&self.program, &["-M", id]),
        }]
    }

    /// `-M` thaws the message that it delivers, for an administrator; for another user it ends with status 0, silent,
    /// and does nothing, also without `prod_requires_admin` (fixture `as-www-data-flush-allowed-M-frozen` of Debian 13).
    /// `-qf` skips frozen messages.
    fn flushes_held(&self, part: &Part<'_>) -> bool {
        matches!(part, Part::Message(_))
    }

    fn release(&self) -> &'static str {
        "To release a frozen message and try to deliver it, as root:\n    exim4 -M ID\nOr all of them:\n    exim4 -qff"
    }

    fn flush_obstacle(&self, facts: &Facts, account: &Account) -> Option<Trouble> {
        (facts.flush_needs_admin == Some(true) && !account.is_root()).then(|| Trouble::NotPermitted {
            mta: Kind::Exim,
            act: Act::Flush,
            account: account.clone(),
            program: self.program.clone(),
            configured: false,
            settings: self.settings.clone(),
            words: "prod_requires_admin".into(),
        })
    }

    fn own_name(&self) -> Option<OwnName> {
        Some(printed_name(Argv::new(&self.program, &["-bP", "primary_hostname"])))
    }

    /// The list `relay_to_domains`, as Exim's own and Debian's configurations call it, and `primary_hostname`.
    fn gate(&self) -> Gate {
        configuration::gate(self.recipients.clone())
    }

    fn relaying(&self) -> Option<RelayInquiry> {
        let question = Argv::new(&self.program, &["-bP", "+relay_to_domains", "primary_hostname"]);
        Some(Box::new(move |free, deadline| {
            let Ok(running) = process::start(free, &question) else { return Relaying::default() };
            let output = running.collect(deadline).1;
            relaying(&String::from_utf8_lossy(&output), |file| fs::read_to_string(file).unwrap_or_default())
        }))
    }

    fn flush_verdict(&self, command: &Argv, exit: &Exit, account: &Account) -> Result<(), Trouble> {
        verdict(Act::Flush, command, exit, account).map_err(|trouble| trouble.with_settings(&self.settings))
    }

    fn reason_command(&self, id: &str) -> Option<Argv> {
        Some(Argv::new(&self.program, &["-Mvl", id]))
    }

    fn reason_verdict(&self, command: &Argv, exit: &Exit, account: &Account) -> Result<(), Trouble> {
        if !exit.said.contains("ermission denied") {
            return Ok(());
        }
        verdict(Act::Explain, command, exit, account).map_err(|trouble| trouble.with_settings(&self.settings))
    }

    /// For each host and address that failed: the error, then its first failure, last attempt and next attempt (fixture
    /// `retrydb-root` of Debian 13), with `-z` in UTC.
    fn next_command(&self, queue: &Path) -> Option<Argv> {
        let queue = queue.to_str()?;
        Some(Argv::new(&self.dump, &["-z", queue, "retry"]))
    }

    fn read_next(&self, output: &str) -> Option<Hints> {
        hints::read(output).map(|noted| Hints { noted, ..Hints::default() })
    }

    fn with_hints(&self, free: &Free, facts: Facts, hints: &Hints, now: i64, deadline: Instant) -> Facts {
        let route = |domain: &String| Argv::new(&self.program, &["-bt", &format!("postmaster@{domain}")]);
        let domains = hints::domains(&facts.timing, &hints.noted);
        let routes = answers(free, &domains.iter().map(route).collect::<Vec<_>>(), deadline);
        let processes = processes::named(&DAEMONS);
        Facts { timing: hints::timing(facts.timing, &hints.noted, &routes, processes.as_deref(), now), ..facts }
    }

    fn logs(&self) -> &'static [&'static str] {
        &LOGS
    }

    fn read_reason(&self, line: &str, clock: &Clock) -> Option<Attempt> {
        message_log::attempt(line, clock)
    }
}

/// The main log by `log_file_path` (specification, "Where the logs are written"): files, with `%s` for the log's name, and
/// the word `syslog`. Where the name holds a date, too, it is not known.
fn log_file(paths: &str) -> Option<PathBuf> {
    let path = paths.split(':').map(str::trim).find(|path| path.starts_with('/') && path.contains("%s"))?;
    let path = path.replace("%s", "main");
    (!path.contains('%')).then(|| path.into())
}

/// The answers to `-bP` and `-bV`.
fn facts(output: &str) -> Facts {
    let line = |start: &str| output.lines().find_map(|line| line.strip_prefix(start));
    let is_set = |name: &str| output.lines().any(|line| line.trim() == name);
    Facts {
        version: line("Exim version ").and_then(|rest| rest.split(' ').next()).map(str::to_owned),
        queue_directory: line("spool_directory = ").map(PathBuf::from),
        flush_needs_admin: match (is_set("prod_requires_admin"), is_set("no_prod_requires_admin")) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        },
        log: line("log_file_path = ").and_then(log_file),
        ..Facts::default()
    }
    .or_usual("/var/spool/exim4")
}

fn verdict(act: Act, command: &Argv, exit: &Exit, account: &Account) -> Result<(), Trouble> {
    let mta = Kind::Exim;
    if !exit.success() {
        if let Some(trouble) = exit.denied_privileges(mta, PRIVILEGES_MISSING, account) {
            return Err(trouble);
        }
        if exit.said.contains("ermission denied") {
            return Err(exit.not_permitted(mta, act, command, account));
        }
    }
    exit.verdict(command)
}

/// Reads `exim -bp`.
struct EximParser {
    now: i64,
    settings: Option<PathBuf>,
    lines: u64,
    malformed: Malformed,
    message: Option<Message<'static>>,
    /// Whether the last message's empty line is still to come.
    open: bool,
}

impl EximParser {
    /// A parser at the beginning of a listing.
    fn new(clock: &Clock, settings: Option<PathBuf>) -> Self {
        EximParser { now: clock.now, settings, lines: 0, malformed: Malformed::default(), message: None, open: false }
    }

    fn read(&mut self, line: &str, found: &mut dyn FnMut(&Message<'_>)) -> bool {
        if line.is_empty() {
            self.open = false;
            self.message.take().iter().for_each(found);
            return true;
        }
        let indent = line.len() - line.trim_start_matches(' ').len();
        match (&mut self.message, indent) {
            // "          larry@example.com", "        D larry@example.com", "       +D child@example.com".
            (Some(message), 7..) => recipient(line, message),
            // "    *** spool format error: size=0 ***", perhaps with " *** frozen ***" behind it.
            (Some(message), 4) if line.trim_start().starts_with("***") => {
                message.mta_state = line.trim().trim_matches(['*', ' ']).to_owned().into();
                if line.ends_with(FROZEN) {
                    message.state = State::Held;
                }
                true
            }
            (None, _) => {
                self.message = header(line, self.now);
                self.open = true;
                self.message.is_some()
            }
            _ => false,
        }
    }
}

const FROZEN: &str = " *** frozen ***";

/// `25h  2.3K 1xVSDK-0002Gk-2p <carol@example.org> (login) *** frozen ***`. Age and size are missing
/// where the spool file could not be read or is empty.
fn header(line: &str, now: i64) -> Option<Message<'static>> {
    let (line, state) = match line.strip_suffix(FROZEN) {
        Some(line) => (line, State::Held),
        None => (line, State::Deferred),
    };
    let (head, sender) = match line.split_once(" <") {
        Some((head, rest)) => (head, Some(sender(rest)?)),
        None => (line, None),
    };
    let mut words = head.split_ascii_whitespace().rev();
    let id = words.next()?;
    // 16 characters, or, since Exim 4.97, 23.
    let parts: Vec<usize> = id.split('-').map(str::len).collect();
    let is_id = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !is_id || !matches!(parts.as_slice(), [6, 6, 2] | [6, 11, 4]) {
        return None;
    }
    let is_age = |word: &str| {
        let number = word.strip_suffix(['m', 'h', 'd']);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    // From right to left: size, age, and nothing more.
    let size = match (words.next(), words.next(), words.next()) {
        (None, None, None) => None,
        (Some(age), None, None) if is_age(age) => None,
        (Some(size), age, None) if age.is_none_or(is_age) => Some(size_in_bytes(size)?),
        _ => return None,
    };
    Some(Message {
        id: id.to_owned().into(),
        state,
        mta_state: if state == State::Held { "frozen" } else { "queued" }.into(),
        being_returned: false,
        too_young: false,
        instance: None,
        size,
        arrival: arrival(id).map(|arrival| arrival.min(now)),
        sender: sender.map(Into::into),
        recipients: Vec::new(),
        plan: Plan::default(),
    })
}

/// `carol@example.org> (login)`: the address up to the bracket that ends it.
fn sender(rest: &str) -> Option<String> {
    let rest = match rest.strip_suffix(')').and_then(|rest| rest.rsplit_once("> (")) {
        Some((address, _login)) => return Some(address.to_owned()),
        None => rest,
    };
    rest.strip_suffix('>').map(str::to_owned)
}

fn recipient(line: &str, message: &mut Message<'static>) -> bool {
    let Some((marks, address)) = line.split_at_checked(10) else { return false };
    let delivered = match marks.trim() {
        "" => false,
        "D" | "+D" => true,
        _ => return false,
    };
    // "+" marks a delivered recipient that an alias has led to. It is not one of the envelope.
    if !marks.contains('+') {
        message.recipients.push(Recipient {
            address: address.to_owned().into(),
            reason: None,
            delivered,
            last_attempt: None,
        });
    }
    !address.is_empty()
}

/// `433`, `2.3K`, `272K`, `1.5M`; Exim rounds it, so it is only about right from 1 KiB on.
fn size_in_bytes(word: &str) -> Option<u64> {
    let (number, unit) = match word.strip_suffix(['K', 'M']) {
        Some(number) => (number, if word.ends_with('K') { 1024.0 } else { 1024.0 * 1024.0 }),
        None => (word, 1.0),
    };
    number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.')
        .then(|| number.parse::<f64>().ok())
        .flatten()
        .map(|n| (n * unit) as u64)
}

/// The arrival in a message id: its first six characters are the second in base 62, in ids of 16 and,
/// since Exim 4.97, of 23 characters (specification, "Message identification").
fn arrival(id: &str) -> Option<i64> {
    let digits = id.split('-').next().filter(|digits| digits.len() == 6)?;
    digits.bytes().try_fold(0_i64, |sum, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'A'..=b'Z' => byte - b'A' + 10,
            b'a'..=b'z' => byte - b'a' + 36,
            _ => return None,
        };
        Some(sum * 62 + i64::from(digit))
    })
}

impl Parser for EximParser {
    fn line(&mut self, line: &[u8], found: &mut dyn FnMut(&Message<'_>)) {
        self.lines += 1;
        let text = text(line);
        if !self.read(&text, found) {
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
        self.message.take().iter().for_each(found);
        let ended = verdict(Act::List, command, exit, account).map_err(|trouble| trouble.with_settings(&self.settings));
        self.malformed.verdict(Kind::Exim, ended)?;
        if self.open { Err(Trouble::BrokenOff { mta: Kind::Exim, lines: self.lines }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn ids_of_both_lengths_hold_their_second() {
        assert_eq!(arrival("1xVSDK-0002Gk-2p"), Some(1_795_433_282));
        assert_eq!(arrival("1xVSDK-00000002Gk0-2p01"), Some(1_795_433_282));
        assert_eq!(arrival("x-y-z"), None);
    }

    #[test]
    fn headers_in_all_their_forms() {
        let read = |line: &str| {
            let message = header(line, i64::MAX)?;
            Some((message.size, message.sender.map(|sender| sender.into_owned()), message.state))
        };
        let id = "1xVSDK-0002Gk-2p";
        let queued = |size, sender: &str| Some((size, Some(sender.to_owned()), State::Deferred));
        assert_eq!(read(&format!(" 0m   433 {id} <a@example.org>")), queued(Some(433), "a@example.org"));
        assert_eq!(read(&format!("25h  2.3K {id} <>")), queued(Some(2355), ""));
        assert_eq!(read(&format!(" 3d       {id} <a@example.org>")), queued(None, "a@example.org"));
        assert_eq!(read(&format!("12m  272K {id} <a@example.org> (root)")), queued(Some(278_528), "a@example.org"));
        assert_eq!(read(&format!(" 0m    1M {id} <a@b> *** frozen ***")).unwrap().2, State::Held);
        assert_eq!(read(&format!("      {id}")), Some((None, None, State::Deferred)));
        let hostile = r#""x> *** frozen ***"@example.org"#;
        assert_eq!(read(&format!(" 0m     1 {id} <{hostile}>")), queued(Some(1), hostile));
        for soup in ["", "hello", " 0m", " 0m 1 <a@b>", &format!("7x 1 {id} <a@b>"), &format!(" 0m 1 {id} <a@b")] {
            assert_eq!(read(soup), None, "{soup}");
        }
    }

    #[test]
    fn the_version_takes_a_process_only_where_it_is_wanted() {
        let exim = Exim::at(&Search::below(Path::new("/nonexistent")));
        let questions = |wanted| exim.questions(wanted).iter().map(Argv::to_string).collect::<Vec<_>>();
        let settings = "/usr/sbin/exim4 -bP prod_requires_admin spool_directory log_file_path";
        let more = format!("{settings} timeout_frozen_after retry_interval_max");
        let domains = "/usr/sbin/exim4 -bP +relay_to_domains";
        assert_eq!(questions(Wanted::Everything), [&more, "/usr/sbin/exim4 -bV", domains]);
        assert_eq!(questions(Wanted::Permissions), [settings]);
        assert!(questions(Wanted::Nothing).is_empty());
    }

    #[test]
    fn settings_are_read_from_bp_and_bv() {
        let read =
            facts("prod_requires_admin\nspool_directory = /var/spool/exim4\nExim version 4.96 #2 built 27-May\n");
        assert_eq!((read.version.as_deref(), read.flush_needs_admin), (Some("4.96"), Some(true)));
        assert_eq!(facts("no_prod_requires_admin\n").flush_needs_admin, Some(false));
        let log = |paths: &str| facts(&format!("log_file_path = {paths}\n")).log;
        assert_eq!(log("/var/log/exim4/%slog"), Some("/var/log/exim4/mainlog".into()));
        assert_eq!(log("syslog : /srv/exim/%s.log"), Some("/srv/exim/main.log".into()));
        assert_eq!([log(""), log("syslog"), log("/srv/exim/%slog-%D")], [None, None, None]);
        assert_eq!(facts("").flush_needs_admin, None);
    }
}
