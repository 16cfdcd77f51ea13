//! Sendmail 8: `sendmail -bp -v`, and the `mailq` of Debian with one section a queue.
//!
//! Sources: mailq(1), `print_single_queue()` and `prtstr()` of sendmail's `queue.c`, and the recorded
//! output under `tests/fixtures/sendmail`. The listing is read by its indentation, which no address
//! can imitate: sendmail prints a byte that is not printable ASCII as `\ooo`, and a backslash as two.

mod lifetime;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use super::intake::{Gate, Intake, List};
use super::parser::{Malformed, text};
use super::relay::{domains, keys};
use super::remedy::{Refused, Remedy};
use super::timing::{InForce, Timing};
use super::{Clock, Facts, Inquiry, Kind, Mta, OwnName, Parser, Part, RelayInquiry, Relaying, Search, Wanted, date};
use crate::mta::trouble::{Act, Trouble};
use crate::queue::{Message, Plan, Recipient, State, beginning};
use crate::system::process::{Argv, Exit};
use crate::system::processes;
use crate::system::{Account, Free};

/// Where sendmail itself is installed: Debian (new and old), Red Hat, FreeBSD and others.
const PROGRAMS: [&str; 4] = [
    "/usr/libexec/sendmail/sendmail",
    "/usr/lib/sm.bin/sendmail",
    "/usr/sbin/sendmail.sendmail",
    "/usr/lib/sendmail-mta",
];

/// The name by which every program calls it.
const COMMON_NAME: &str = "/usr/sbin/sendmail";

const CONFIGURATION: &str = "/etc/mail/sendmail.cf";

/// The domains that mail is relayed for.
const RELAY_DOMAINS: &str = "/etc/mail/relay-domains";

/// Which recipients are taken.
const ACCESS: &str = "/etc/mail/access";

/// The configuration of the mail submission program, which keeps a queue of its own.
const SUBMISSION: &str = "/etc/mail/submit.cf";

/// What sendmail says, on standard output, when its set-group-id bit did not take effect.
const PRIVILEGES_MISSING: &[&str] = &["can not chdir(", "RunAsUser for MSP ignored"];

/// An installed sendmail.
pub(super) struct Sendmail {
    program: PathBuf,
    configuration: PathBuf,
    relay_domains: PathBuf,
    access: PathBuf,
    /// Where messages wait that this machine's own programs have submitted, where that is a queue of its own (`submit.cf`).
    submission: Option<String>,
    /// Debian's settings of how the daemon is started.
    start_settings: PathBuf,
}

impl Sendmail {
    /// The sendmail among the programs of `search`. If there is none, its program is assumed at the usual path.
    pub(super) fn at(search: &Search) -> Sendmail {
        Sendmail {
            program: installed(search).unwrap_or_else(|| COMMON_NAME.into()),
            configuration: search.below_root(Path::new(CONFIGURATION)),
            relay_domains: search.below_root(Path::new(RELAY_DOMAINS)),
            access: search.below_root(Path::new(ACCESS)),
            submission: fs::read_to_string(search.below_root(Path::new(SUBMISSION)))
                .ok()
                .map(|submit_cf| value(&submit_cf, "O QueueDirectory=").unwrap_or_default().to_owned()),
            start_settings: search.below_root(Path::new(lifetime::START_SETTINGS)),
        }
    }

    /// How long mail is kept, and by when it is tried again. An open file, and the processes, say so: no program does.
    fn timing(&self, configuration: Option<&str>) -> Timing {
        // The name of the program itself, and those of Debian and Red Hat; a name has 15 characters at most.
        let processes = processes::named(&["sendmail", "sendmail-mta", "sendmail.sendma"]);
        let since = || processes.iter().flatten().map(|process| process.started);
        let start_settings = Some(&self.start_settings)
            .filter(|file| InForce::of(file, since()) == InForce::Yes)
            .and_then(|file| fs::read_to_string(file).ok());
        let in_force = InForce::of(&self.configuration, since());
        let machine = lifetime::Machine {
            pid_file: configuration.and_then(|text| fs::read_to_string(lifetime::pid_file(text)).ok()),
            start_settings,
            in_force,
            processes,
        };
        lifetime::timing(&self.configuration, configuration, &machine)
    }
}

/// The path to call an installed sendmail by: the common name, if that leads to it.
pub(super) fn installed(search: &Search) -> Option<PathBuf> {
    let program = PROGRAMS.iter().map(PathBuf::from).find(|path| search.below_root(path).is_file())?;
    let common = PathBuf::from(COMMON_NAME);
    let leads = |path: &Path| search.below_root(path).canonicalize().ok();
    Some(if leads(&common).is_some_and(|target| Some(target) == leads(&program)) { common } else { program })
}

/// Whether a resolved path is sendmail's own program and not another mail server's stand-in.
pub(super) fn is_sendmail(path: &Path) -> bool {
    PROGRAMS.iter().any(|program| path.ends_with(program.trim_start_matches('/')))
}

impl Mta for Sendmail {
    fn kind(&self) -> Kind {
        Kind::Sendmail
    }

    fn sample_id(&self) -> &'static str {
        "6ANBHgOi000123"
    }

    /// Quarantined messages are in a listing of their own (`-qQ`), and so is the submission queue (`-Ac`).
    fn list_commands(&self) -> Vec<Argv> {
        let list = |more: &[&str]| Argv::new(&self.program, &[&["-bp", "-v"], more].concat());
        let mut commands = vec![list(&[]), list(&["-qQ"])];
        if self.submission.is_some() {
            commands.push(list(&["-Ac"]));
        }
        commands
    }

    fn cuts_short(&self) -> bool {
        true
    }

    fn parser(&self, clock: &Clock) -> Box<dyn Parser> {
        Box::new(SendmailParser { submission: self.submission.clone(), ..SendmailParser::new(clock) })
    }

    fn settings_files(&self) -> Vec<PathBuf> {
        let files = [&self.program, &self.configuration, &self.relay_domains, &self.start_settings];
        files.into_iter().cloned().chain(lifetime::PID_FILES.iter().map(PathBuf::from)).collect()
    }

    /// Only root may run the queue, so there is no permission to be asked for.
    fn inquire(&self, free: &Free, wanted: Wanted) -> Inquiry {
        let facts = match wanted {
            Wanted::Everything => {
                let configuration = fs::read_to_string(&self.configuration).ok();
                let timing = self.timing(configuration.as_deref());
                Facts { timing, ..facts(&configuration.unwrap_or_default()) }
            }
            Wanted::Permissions | Wanted::Nothing => facts(""),
        };
        Inquiry::start(free, &[], move |_| facts)
    }

    /// `-qR` looks for a part of the recipient: here the domain, with its `@`. What this machine's own programs have submitted
    /// waits in a queue of its own, which only `-Ac` runs; one that has no such message ends well.
    fn flush_commands(&self, part: &Part<'_>) -> Vec<Argv> {
        let option = match part {
            Part::All | Part::Each { .. } => "-q".to_owned(),
            Part::Domain { name, .. } => format!("-qR@{name}"),
            Part::Message(id) => format!("-qI{id}"),
        };
        let submitted = self.submission.as_ref().map(|_| Argv::new(&self.program, &["-Ac", &option]));
        [Argv::new(&self.program, &[&option])].into_iter().chain(submitted).collect()
    }

    fn release(&self) -> &'static str {
        "To take all messages out of quarantine, and then deliver them, as root:\n    sendmail -qQ -Q"
    }

    /// Only root can run the queue. Where `restrictqrun` is cleared, another user's `-q` even ends
    /// with status 0 and delivers nothing, so it is not tried.
    fn flush_obstacle(&self, _facts: &Facts, account: &Account) -> Option<Trouble> {
        (!account.is_root()).then(|| Trouble::NotPermitted {
            mta: Kind::Sendmail,
            act: Act::Flush,
            account: account.clone(),
            program: self.program.clone(),
            configured: false,
            settings: None,
            words: "You do not have permission to process the queue".into(),
        })
    }

    /// The macro `j`, where it is set to a plain name (cf/README, `confDOMAIN_NAME`).
    fn own_name(&self) -> Option<OwnName> {
        let name = own_name(&fs::read_to_string(&self.configuration).ok()?)?;
        Some(Box::new(move |_, _| Some(name)))
    }

    /// The source of the access table, as the example has it: `To:` and an address or a domain that is taken.
    fn gate(&self) -> Gate {
        let file = self.access.clone();
        Gate {
            ask: Box::new(move |_, _| {
                let list = fs::read_to_string(&file).ok();
                Intake { list: list.map(|text| recipients(&text, file.display().to_string())), softens: None }
            }),
            refusing: "Name every recipient that the primary knows in /etc/mail/access, and refuse the rest of the domain \
                       (see examples/sendmail). Then, as root:\n    makemap hash /etc/mail/access < /etc/mail/access",
            runners: &[],
            softener: None,
        }
    }

    /// Class R, which is read from this file (cf/README), and `$j`.
    fn relaying(&self) -> Option<RelayInquiry> {
        let relayed = fs::read_to_string(&self.relay_domains).ok();
        let own_name = own_name(&fs::read_to_string(&self.configuration).unwrap_or_default());
        if relayed.is_none() && own_name.is_none() {
            return None;
        }
        let domains = domains(&keys(&relayed.unwrap_or_default()));
        Some(Box::new(move |_, _| Relaying { domains, own_name, just_changed: None }))
    }

    fn flush_verdict(&self, command: &Argv, exit: &Exit, account: &Account) -> Result<(), Trouble> {
        // sendmail prints the refusal on standard output; its status is EX_NOPERM of sysexits(3).
        if exit.code == Some(77) {
            let denied = exit.denied_privileges(Kind::Sendmail, PRIVILEGES_MISSING, account);
            return Err(denied.unwrap_or_else(|| exit.not_permitted(Kind::Sendmail, Act::Flush, command, account)));
        }
        exit.verdict(command)
    }
}

/// The recipients that the access table takes (cf/README, "Anti-spam configuration control"): `OK` and `RELAY`.
fn recipients(access: &str, name: String) -> List {
    let taken = access.lines().filter_map(|line| {
        let (key, value) = line.split('#').next()?.strip_prefix("To:")?.trim().split_once([' ', '\t'])?;
        ["OK", "RELAY"]
            .contains(&value.trim())
            .then(|| if key.contains('@') { key.to_owned() } else { format!("@{key}") })
    });
    let taken: Vec<_> = taken.collect();
    List::of_keys(name, taken.iter().map(String::as_str))
}

/// The name by which it greets, where `sendmail.cf` sets it: the macro `j` (op.me, section 5.2), unless it is made of
/// other macros, as `Dj$w.Foo.COM`.
fn own_name(configuration: &str) -> Option<String> {
    let name = configuration.lines().find_map(|line| line.strip_prefix("Dj"))?.trim();
    (!name.is_empty() && !name.contains('$')).then(|| name.to_owned())
}

/// What stands behind this beginning of a line.
fn value<'c>(configuration: &'c str, start: &str) -> Option<&'c str> {
    configuration.lines().find_map(|line| line.strip_prefix(start)).map(str::trim)
}

/// Version and queue directory from `sendmail.cf`: the macro `Z` and the option `QueueDirectory`.
fn facts(configuration: &str) -> Facts {
    let value = |start: &str| value(configuration, start);
    let directory = value("O QueueDirectory=").map(|path| match path.find('*') {
        // Several directories: the folder that holds them is on the same filesystem, mostly.
        Some(_) => Path::new(path).parent().unwrap_or(Path::new(path)).to_owned(),
        None => PathBuf::from(path),
    });
    Facts {
        version: value("DZ").and_then(|version| version.split('/').next()).map(str::to_owned),
        queue_directory: directory,
        ..Facts::default()
    }
    .or_usual("/var/spool/mqueue")
}

/// `PrivacyOptions` decides who may list: `restrictmailq`, which `goaway` does not include (op.me, section 5.6). Only root may
/// run the queue, whatever that option is.
pub(super) fn remedy(refused: &Refused<'_>) -> Remedy {
    Remedy::Rule(match refused.act {
        Act::List => {
            let of_submission = refused.settings == Some(Path::new(SUBMISSION));
            let name = if of_submission { "submit" } else { "sendmail" };
            format!(
                "{}\nOr without a rule: in /etc/mail/{name}.mc, take restrictmailq out of confPRIVACY_FLAGS \
                 (PrivacyOptions in {name}.cf), then restart sendmail.",
                refused.rule(&["-bp -v", "-bp -v -qQ", "-bp -v -Ac", "-q", "-Ac -q"])
            )
        }
        Act::Flush | Act::Explain => {
            format!("Only root may run sendmail's queue.\n{}", refused.rule(&["-q", "-Ac -q"]))
        }
    })
}

/// Reads `sendmail -bp` with and without `-v`, one or several queues one after the other.
struct SendmailParser {
    clock: Clock,
    lines: u64,
    malformed: Malformed,
    verbose: bool,
    message: Option<Draft>,
    refusal: Option<Refusal>,
    partial: Option<Trouble>,
    /// The folder of the submission queue, where there is one, and whether that is being listed.
    submission: Option<String>,
    is_submission: bool,
    unfinished: bool,
    sections: u64,
    section: Section,
}

/// The messages of one section, up to its "Total requests".
#[derive(Default)]
struct Section {
    /// As its queues announce them.
    announced: u64,
    /// Of these, those that sendmail does not print.
    kept_back: u64,
    /// Lines that begin with a queue id.
    printed: u64,
}

/// A message while its lines come in.
struct Draft {
    message: Message<'static>,
    /// The reason for all recipients that have none of their own.
    reason: Option<String>,
}

/// The mark `-`: it was tried less than `MinQueueAge` ago.
const TOO_YOUNG: &str = "too young";

enum Refusal {
    NotPermitted(String),
    NoPrivileges(String),
}

impl SendmailParser {
    /// A parser at the beginning of a listing.
    fn new(clock: &Clock) -> Self {
        SendmailParser {
            clock: clock.clone(),
            lines: 0,
            malformed: Malformed::default(),
            verbose: false,
            message: None,
            refusal: None,
            partial: None,
            submission: None,
            is_submission: false,
            unfinished: false,
            sections: 0,
            section: Section::default(),
        }
    }

    fn close_message(&mut self, found: &mut dyn FnMut(&Message<'_>)) {
        let Some(Draft { mut message, reason }) = self.message.take() else { return };
        for recipient in &mut message.recipients {
            if recipient.reason.is_none() {
                recipient.reason = reason.clone().map(Into::into);
            }
        }
        found(&message);
    }

    /// A line at the left margin: a message, or a word about the whole listing.
    fn heading(&mut self, line: &str, found: &mut dyn FnMut(&Message<'_>)) -> bool {
        self.close_message(found);
        let is_empty = line.starts_with('/') && line.ends_with(" is empty");
        if is_empty || line.ends_with(" Queue status...") {
            // Until its "Total requests".
            self.unfinished = true;
        } else if line.starts_with("-----Q-ID-----") {
            self.verbose = line.contains("-Priority-");
        } else if line.starts_with("You are not permitted to see the queue") {
            self.refusal.get_or_insert(Refusal::NotPermitted(line.into()));
        } else if PRIVILEGES_MISSING.iter().any(|sign| line.contains(sign)) {
            self.refusal.get_or_insert(Refusal::NoPrivileges(line.into()));
        } else {
            return self.job(line);
        }
        true
    }

    /// `6ANBRNao007963      182      30212 Nov 23 11:27 <sender>`: id, mark, bytes, with -v the
    /// priority and a `+` for a warning sent, local time, sender. Or the id and why there is no more.
    fn job(&mut self, line: &str) -> bool {
        let end = line.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(line.len());
        let (id, rest) = line.split_at(end);
        if id.is_empty() {
            return false;
        }
        let (mark, state) = match rest.bytes().next() {
            Some(b'*') => ("being processed", State::Active),
            Some(b'X') => ("load too high", State::Deferred),
            Some(b'-') => (TOO_YOUNG, State::Deferred),
            Some(b'?') => ("lost", State::Held),
            _ => ("queued", State::Deferred),
        };
        let rest = rest.strip_prefix(['*', 'X', '-', '?']).unwrap_or(rest);
        let message = |size, arrival, sender: Option<String>, word: &str| Draft {
            message: Message {
                id: id.to_owned().into(),
                state,
                mta_state: word.to_owned().into(),
                being_returned: false,
                too_young: word == TOO_YOUNG,
                instance: self.is_submission.then_some(Cow::Borrowed("submission queue")),
                size,
                arrival,
                sender: sender.map(Into::into),
                recipients: Vec::new(),
                plan: Plan::default(),
            },
            reason: None,
        };
        self.section.printed += 1;
        if let Some(word) = rest.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
            match word {
                // It left the queue while the queue was being listed.
                "job completed" => {}
                "permission denied" => {
                    self.refusal.get_or_insert(Refusal::NoPrivileges(line.into()));
                }
                _ => self.message = Some(message(None, None, None, word)),
            }
            return true;
        }
        let Some((size, arrival, sender)) = self.job_fields(rest) else {
            self.section.printed -= 1;
            return false;
        };
        self.message = Some(message(size, arrival, Some(sender), mark));
        true
    }

    fn job_fields(&self, rest: &str) -> Option<(Option<u64>, Option<i64>, String)> {
        let (size, rest) = rest.trim_start().split_once(' ')?;
        // -1 where the message's data file is not there.
        let size = size.parse::<i64>().ok()?.try_into().ok();
        let (date, sender) = if self.verbose {
            let (priority, rest) = rest.trim_start().split_at(rest.trim_start().find([' ', '+'])?);
            priority.parse::<i64>().ok()?;
            rest[1..].split_at_checked("Nov 23 11:27".len())?
        } else {
            let (_weekday, rest) = rest.split_once(' ')?;
            rest.split_at_checked("Nov 23 11:27".len())?
        };
        let arrival = date::past_instant(date, &self.clock)?;
        let sender = match sender.strip_prefix(' ')? {
            // Its own bounces; an address stands in brackets, and no user has this name (fixture `warned-bp-v`).
            "MAILER-DAEMON" => String::new(),
            sender => address(sender, if self.verbose { 78 } else { 39 }),
        };
        Some((size, Some(arrival), sender))
    }

    /// An indented line: totals, or more about the message above.
    fn detail(&mut self, line: &str, found: &mut dyn FnMut(&Message<'_>)) -> bool {
        let text = line.trim_start();
        let recipient_margin = if self.verbose { "\t\t\t\t\t\t" } else { "\t\t\t\t\t " };
        if let Some(recipient) = line.strip_prefix(recipient_margin) {
            let limit = if self.verbose { 71 } else { 38 };
            let Some(draft) = &mut self.message else { return false };
            // "(---user---)" names whose aliases or .forward file this recipient comes from.
            if !recipient.starts_with("(---") {
                let address = address(recipient, limit).into();
                draft.message.recipients.push(Recipient {
                    address,
                    reason: None,
                    delivered: false,
                    last_attempt: None,
                });
            }
            return true;
        }
        if let Some(rest) = line.strip_prefix("\t\t") {
            if let Some(total) = rest.strip_prefix("Total requests: ") {
                self.close_message(found);
                self.unfinished = false;
                self.sections += 1;
                let Section { announced, kept_back, printed } = std::mem::take(&mut self.section);
                return total.parse() == Ok(announced) && printed.checked_add(kept_back) == Some(announced);
            }
            if let Some(reason) = self.reason(text) {
                let last = self.message.as_mut().and_then(|draft| draft.message.recipients.last_mut());
                return last.map(|recipient| recipient.reason = Some(reason.into())).is_some();
            }
            self.close_message(found);
            return self.announcement(rest);
        }
        let Some(reason) = text.strip_prefix("QUARANTINE: ") else { return self.message_reason(text) };
        let word = format!("quarantined: {}", marked(reason, self.reason_limit()));
        let Some(draft) = &mut self.message else { return false };
        draft.message.state = State::Held;
        draft.message.mta_state = word.into();
        true
    }

    /// `/var/spool/mqueue (12 requests)`, or `... (12 requests, only 10 printed)`.
    fn announcement(&mut self, text: &str) -> bool {
        self.unfinished = true;
        let Some((queue, counts)) = text.strip_suffix(')').and_then(|text| text.rsplit_once(" (")) else {
            return false;
        };
        let mut numbers = counts.split_ascii_whitespace().filter_map(|word| word.parse::<u64>().ok());
        let (total, printed) = (numbers.next(), numbers.next());
        self.is_submission = self.submission.as_ref().is_some_and(|folder| *folder == queue);
        self.section.announced = self.section.announced.saturating_add(total.unwrap_or_default());
        if let (Some(total), Some(printed)) = (total, printed) {
            self.section.kept_back = self.section.kept_back.saturating_add(total.saturating_sub(printed));
            let queue = queue.to_owned();
            self.partial.get_or_insert(Trouble::Partial { mta: Kind::Sendmail, queue, printed, total });
        }
        total.is_some()
    }

    /// `      8BITMIME   (Deferred: Connection refused)`: body type, reason, either may be missing.
    fn message_reason(&mut self, text: &str) -> bool {
        let reason = text.find('(').and_then(|start| self.reason(&text[start..]));
        let body_type = text.split('(').next().unwrap_or_default().trim();
        let Some(draft) = &mut self.message else { return false };
        if !body_type.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return false;
        }
        draft.reason = reason.or(draft.reason.take());
        true
    }

    fn reason(&self, text: &str) -> Option<String> {
        let reason = text.strip_prefix('(')?.strip_suffix(')')?;
        Some(marked(reason, self.reason_limit()))
    }

    fn reason_limit(&self) -> usize {
        if self.verbose { 100 } else { 60 }
    }
}

impl Parser for SendmailParser {
    fn line(&mut self, line: &[u8], found: &mut dyn FnMut(&Message<'_>)) {
        self.lines += 1;
        let text = text(line);
        let understood = match line.first() {
            None => true,
            Some(b' ' | b'\t') => self.detail(&text, found),
            Some(_) => self.heading(&text, found),
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
        self.close_message(found);
        let mta = Kind::Sendmail;
        match self.refusal.take() {
            Some(Refusal::NotPermitted(words)) => {
                let (account, program) = (account.clone(), command.program());
                let act = Act::List;
                // The submission queue has a configuration of its own.
                let settings = command.to_string().ends_with(" -Ac").then(|| SUBMISSION.into());
                return Err(Trouble::NotPermitted { mta, act, account, program, words, configured: false, settings });
            }
            Some(Refusal::NoPrivileges(words)) => {
                return Err(Trouble::NoNewPrivileges { mta, words, bound: account.bound });
            }
            None => {}
        }
        self.malformed.verdict(mta, exit.verdict(command))?;
        if let Some(partial) = self.partial.take() {
            return Err(partial);
        }
        if self.unfinished || self.sections == 0 {
            return Err(Trouble::BrokenOff { mta, lines: self.lines });
        }
        Ok(())
    }
}

/// An address as `prtstr()` prints it, at most `limit` characters: without its angle brackets, with
/// its escapes undone, and marked where it was cut.
fn address(printed: &str, limit: usize) -> String {
    let at_limit = printed.chars().count() >= limit;
    let text = unescape(printed);
    let Some(inner) = text.strip_prefix('<') else {
        return if at_limit { text + "…" } else { text };
    };
    match inner.strip_suffix('>') {
        // At the limit, the bracket may be one inside of a quoted local part that goes on.
        Some(whole) if !at_limit || quotes_are_closed(whole) => whole.to_owned(),
        _ => format!("{inner}…"),
    }
}

fn quotes_are_closed(address: &str) -> bool {
    let mut escaped = false;
    let quotes = address.chars().filter(|c| {
        let counts = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        counts
    });
    quotes.count() % 2 == 0
}

fn unescape(printed: &str) -> String {
    if !printed.contains('\\') {
        return printed.to_owned();
    }
    let mut bytes = Vec::with_capacity(printed.len());
    let mut rest = printed.as_bytes();
    while let [first, more @ ..] = rest {
        (rest, _) = match (first, more) {
            (b'\\', [b'\\', after @ ..]) => (after, bytes.push(b'\\')),
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                (after, bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')))
            }
            _ => (more, bytes.push(*first)),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A reason of which sendmail prints `limit` bytes at most.
fn marked(reason: &str, limit: usize) -> String {
    // Each recipient gets a copy. A byte that is not UTF-8 takes more room here than there.
    if reason.len() >= limit { format!("{}…", beginning(reason, 4 * limit)) } else { reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipients_are_those_that_the_access_table_takes() {
        let list = recipients(include_str!("../../examples/sendmail/access"), "access".into());
        assert_eq!(list.addresses.len(), 4, "{list:?}");
        assert_eq!(list.open, ["bartleby.example.com", "sub.example.com"]);
    }

    #[test]
    fn addresses_lose_brackets_and_escapes_and_gain_a_mark_where_cut() {
        for (printed, limit, expected) in [
            ("<larry@example.com>", 71, "larry@example.com"),
            ("<>", 78, ""),
            ("root", 71, "root"),
            (r#"<"john \\"jb\\" doe"@example.com>"#, 71, r#""john \"jb\" doe"@example.com"#),
            (r"<d\303\274rer@example.org>", 78, "dürer@example.org"),
            ("<xxxxxxxxx@example.c", 20, "xxxxxxxxx@example.c…"),
            ("<\"spaces and <angle>", 20, "\"spaces and <angle>…"),
            ("<abcdefgh@example.c>", 20, "abcdefgh@example.c"),
            (r"<a\9b\>", 71, r"a\9b\"),
        ] {
            assert_eq!(address(printed, limit), expected, "{printed}");
        }
    }

    #[test]
    fn the_totals_must_be_those_of_the_messages_that_were_listed() {
        let clock = Clock { now: 1_795_433_446, zone: jiff::tz::TimeZone::UTC };
        let exit = Exit {
            ending: crate::system::process::Ending::Exited,
            code: Some(0),
            signal: None,
            said: String::new(),
            allowed: std::time::Duration::ZERO,
            unfinished: false,
        };
        let account = Account { uid: 0, name: "root".into(), bound: false };
        let verdict = |lines: &[&str]| {
            let mut parser = SendmailParser::new(&clock);
            lines.iter().for_each(|line| parser.line(line.as_bytes(), &mut |_| ()));
            parser.end(&Argv::new("sendmail", &["-bp"]), &exit, &account, &mut |_| ())
        };
        let job = "6ANBRNao007963      182      30212 Nov 23 11:27 <a@example.org>";
        let heading = "-----Q-ID----- --Size-- -Priority- ---Q-Time--- --------Sender/Recipient--------";
        let queue = |count: &str| format!("\t\t/var/spool/mqueue ({count})");
        let good = |count, jobs: &[&str], total| verdict(&[&[&*queue(count), heading], jobs, &[total]].concat());
        assert_eq!(good("1 request", &[job], "\t\tTotal requests: 1"), Ok(()));
        assert_eq!(good("2 requests", &[job, "6ANBRNao007964 (job completed)"], "\t\tTotal requests: 2"), Ok(()));
        assert_eq!(verdict(&["/var/spool/mqueue is empty", "\t\tTotal requests: 0"]), Ok(()));
        let groups = [&*queue("1 request"), heading, job, &*queue("1 request"), heading, job, "\t\tTotal requests: 2"];
        assert_eq!(verdict(&groups), Ok(()));
        let partial = good("9 requests, only 1 printed", &[job], "\t\tTotal requests: 9");
        assert!(matches!(partial, Err(Trouble::Partial { printed: 1, total: 9, .. })), "{partial:?}");
        for (count, jobs, total) in [
            ("3 requests", &[][..], "\t\tTotal requests: 3"),
            ("3 requests", &[job], "\t\tTotal requests: 3"),
            ("1 request", &[job], "\t\tTotal requests: 2"),
        ] {
            assert!(matches!(good(count, jobs, total), Err(Trouble::NotUnderstood { count: 1, .. })), "{count}");
        }
        assert!(verdict(&["\t\tTotal requests: 3"]).is_err());
    }

    #[test]
    fn settings_are_read_from_sendmail_cf() {
        let read = facts("# c\nDZ8.17.1.9/Debian-2\nO QueueDirectory=/var/spool/mqueue\n");
        assert_eq!(read.version.as_deref(), Some("8.17.1.9"));
        assert_eq!(read.queue_directory, Some("/var/spool/mqueue".into()));
        assert_eq!(own_name("#Dj$w.Foo.COM\nDjbartleby.example.net\n").as_deref(), Some("bartleby.example.net"));
        assert_eq!(own_name("Dj$w.Foo.COM\n"), None);
        let read = facts("O QueueDirectory=/var/spool/mqueue/q*\n");
        assert_eq!(read.queue_directory, Some("/var/spool/mqueue".into()));
    }

    #[test]
    fn only_root_may_run_the_queue_and_the_remedy_is_a_sudo_rule() {
        let sendmail = Sendmail::at(&Search::below(Path::new("/nonexistent")));
        let www_data = Account { uid: 33, name: "www-data".into(), bound: false };
        let root = Account { uid: 0, name: "root".into(), bound: false };
        assert_eq!(sendmail.flush_obstacle(&Facts::default(), &root), None);
        let remedy = sendmail.flush_obstacle(&Facts::default(), &www_data).unwrap().remedy();
        assert!(remedy.contains("www-data ALL=(root) NOPASSWD: /usr/sbin/sendmail -q"), "{remedy}");
    }
}
