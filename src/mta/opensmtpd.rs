//! OpenSMTPD: `smtpctl show queue`.
//!
//! Sources: smtpctl(8), `show_queue_envelope()` of OpenSMTPD's `smtpctl.c`, and the recorded output
//! under `tests/fixtures/opensmtpd`. A line is an envelope: one recipient of a message. The first eight
//! hexadecimal digits of its id are the message's.

mod lifetime;

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use super::parser::{Malformed, text};
use super::remedy::{Refused, Remedy};
use super::timing::{InForce, Timing};
use super::{Clock, Facts, Inquiry, Kind, Mta, OwnName, Parser, Part, Search, Wanted};
use crate::mta::trouble::{Act, Trouble};
use crate::queue::{Lifetimes, Message, Plan, Recipient, State};
use crate::system::process::{Argv, Exit};
use crate::system::processes;
use crate::system::{Account, Free};

/// What smtpctl says when its set-group-id bit did not take effect (fixture `as-www-data-nnp-show-queue`).
const PRIVILEGES_MISSING: &[&str] = &["this program must be setgid"];

/// Where Debian's OpenSMTPD has its name.
const MAILNAME: &str = "/etc/mailname";

/// Where its configuration may be: Debian, OpenBSD and Alpine, Fedora and Arch, FreeBSD.
const CONFIGURATIONS: [&str; 4] =
    ["/etc/smtpd.conf", "/etc/mail/smtpd.conf", "/etc/opensmtpd/smtpd.conf", "/usr/local/etc/mail/smtpd.conf"];

/// An installed OpenSMTPD.
pub(super) struct OpenSmtpd {
    program: PathBuf,
    daemon: Option<PathBuf>,
    configuration: PathBuf,
}

impl OpenSmtpd {
    /// The OpenSMTPD among the programs of `search`. If there is none, its program is assumed at the usual path.
    pub(super) fn at(search: &Search) -> OpenSmtpd {
        OpenSmtpd {
            program: search.program("smtpctl").unwrap_or_else(|| "/usr/sbin/smtpctl".into()),
            daemon: search.program("smtpd"),
            configuration: {
                let mut files = CONFIGURATIONS.into_iter().map(|file| search.below_root(Path::new(file)));
                files.clone().find(|file| file.exists()).or_else(|| files.next()).unwrap_or_default()
            },
        }
    }

    /// How long mail is kept, by the configuration, unless that was changed after the daemon's start.
    fn timing(&self) -> Timing {
        let read = |file: &Path| fs::read_to_string(file).ok();
        let daemons = processes::named(&["smtpd"]).unwrap_or_default();
        let is = |file: &PathBuf| InForce::of(file, daemons.iter().map(|daemon| daemon.started));
        let in_force = |files: &[PathBuf]| {
            if files.iter().any(|file| is(file) == InForce::No) { InForce::No } else { InForce::Yes }
        };
        lifetime::timing(&self.configuration, &read, &in_force)
    }
}

impl Mta for OpenSmtpd {
    fn kind(&self) -> Kind {
        Kind::OpenSmtpd
    }

    fn sample_id(&self) -> &'static str {
        "0a1b2c3d"
    }

    fn list_commands(&self) -> Vec<Argv> {
        vec![Argv::new(&self.program, &["show", "queue"])]
    }

    fn parser(&self, clock: &Clock) -> Box<dyn Parser> {
        Box::new(OpenSmtpdParser::new(clock))
    }

    /// Only root may run the queue, so there is no permission to be asked for.
    fn inquire(&self, free: &Free, wanted: Wanted) -> Inquiry {
        let daemon = self.daemon.iter().filter(|_| wanted == Wanted::Everything);
        let version = daemon.map(|daemon| Argv::new(daemon, &["-h"])).collect::<Vec<_>>();
        let timing = if wanted == Wanted::Everything { self.timing() } else { Timing::default() };
        Inquiry::start(free, &version, |output| Facts { timing, ..facts(output) })
    }

    fn lifetimes(&self, seconds: i64) -> Lifetimes {
        Lifetimes::At { message: seconds }
    }

    /// smtpd.conf(5): the first line of this file, where there is one.
    fn own_name(&self) -> Option<OwnName> {
        let text = fs::read_to_string(MAILNAME).ok()?;
        let name = text.lines().next()?.trim().to_owned();
        Some(Box::new(move |_, _| Some(name)))
    }

    fn flush_commands(&self, part: &Part<'_>) -> Vec<Argv> {
        let schedule = |what: &str| Argv::new(&self.program, &["schedule", what]);
        match part {
            Part::All => vec![schedule("all")],
            Part::Domain { ids, .. } => ids.iter().map(|id| schedule(id)).collect(),
            Part::Message(id) => vec![schedule(id)],
        }
    }

    /// After errors, smtpd disables a route to the primary for up to an hour. A message that is scheduled meanwhile fails
    /// at once and is not tried.
    fn flush_question(&self) -> Option<Argv> {
        Some(Argv::new(&self.program, &["show", "routes"]))
    }

    fn flush_hindrances(&self, answer: &str) -> Vec<String> {
        answer.lines().filter_map(disabled_route).map(str::to_owned).collect()
    }

    fn flush_preparation(&self, hindrances: &[String]) -> Vec<Argv> {
        let routes = hindrances.iter().filter(|id| is_number(id));
        routes.map(|id| Argv::new(&self.program, &["resume", "route", id])).collect()
    }

    /// It logs the envelope's id, of which the message's is the first half (smtpd's `queue.c`, `evpid_to_msgid`).
    fn id_in_log<'a>(&self, word: &'a str) -> &'a str {
        if word.len() == 16 { word.get(..8).unwrap_or(word) } else { word }
    }

    /// `schedule` runs what smtpd holds back while a route is down, and also paused (`suspend`) envelopes: seen with
    /// 6.8.0p2.
    fn flushes_held(&self, _part: &Part<'_>) -> bool {
        true
    }

    fn release(&self) -> &'static str {
        "As root: smtpctl resume envelope ID, then run the queue."
    }

    /// Only root may ask the daemon anything.
    fn flush_obstacle(&self, _facts: &Facts, account: &Account) -> Option<Trouble> {
        (!account.is_root()).then(|| Trouble::NotPermitted {
            mta: Kind::OpenSmtpd,
            act: Act::Flush,
            account: account.clone(),
            program: self.program.clone(),
            configured: false,
            settings: None,
            words: "need root privileges".into(),
        })
    }

    fn flush_verdict(&self, command: &Argv, exit: &Exit, account: &Account) -> Result<(), Trouble> {
        verdict(Act::Flush, command, exit, account)
    }
}

/// `version: OpenSMTPD 6.8.0p2`, on standard error.
fn facts(output: &str) -> Facts {
    let version = output.lines().find_map(|line| line.strip_prefix("version: OpenSMTPD "));
    Facts { version: version.map(str::to_owned), ..Facts::default() }.or_usual("/var/spool/smtpd")
}

/// The id of a disabled route in `2. [] <-> 192.0.2.1 (mx.example.com) -D-- nconn=0 nerror=3 penalty=2 timeout=1m`
/// (`IMSG_CTL_MTA_SHOW_ROUTES` of OpenSMTPD's `mta.c`).
fn disabled_route(line: &str) -> Option<&str> {
    let (id, rest) = line.split_once(". ")?;
    let flags = rest.split(' ').find(|word| word.len() == 4 && word.bytes().all(|byte| b"-NDQK".contains(&byte)))?;
    (flags.as_bytes()[1] == b'D' && is_number(id)).then_some(id)
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

fn verdict(act: Act, command: &Argv, exit: &Exit, account: &Account) -> Result<(), Trouble> {
    let mta = Kind::OpenSmtpd;
    if !exit.success() {
        if let Some(trouble) = exit.denied_privileges(mta, PRIVILEGES_MISSING, account) {
            return Err(trouble);
        }
        if exit.said.contains("need root privileges") {
            return Err(exit.not_permitted(mta, act, command, account));
        }
        if exit.said.contains("smtpd doesn't seem to be running") {
            return Err(Trouble::NotRunning { mta, words: exit.words() });
        }
    }
    exit.verdict(command)
}

/// smtpctl works for root alone, and no setting changes that.
pub(super) fn remedy(refused: &Refused<'_>) -> Remedy {
    let rule = refused.rule(&["show queue", "schedule all"]);
    Remedy::Rule(format!("Only root may ask OpenSMTPD. {rule}"))
}

/// Reads `smtpctl show queue`, grouping envelopes that follow each other into messages.
struct OpenSmtpdParser {
    now: i64,
    lines: u64,
    malformed: Malformed,
    message: Option<Message<'static>>,
    offline: bool,
}

impl OpenSmtpdParser {
    /// A parser at the beginning of a listing.
    fn new(clock: &Clock) -> Self {
        OpenSmtpdParser { now: clock.now, lines: 0, malformed: Malformed::default(), message: None, offline: false }
    }

    fn add(&mut self, envelope: Envelope<'_>, found: &mut dyn FnMut(&Message<'_>)) {
        // A line that can be read in more than one way proves nothing of the daemon.
        self.offline |= envelope.run_state == "offline" && envelope.sender.is_some();
        let state = envelope.state();
        let plan = envelope.plan(self.now);
        let recipient = Recipient {
            address: envelope.recipient.to_owned().into(),
            reason: Some(envelope.error).filter(|error| !error.is_empty()).map(|error| error.to_owned().into()),
            delivered: false,
            last_attempt: None,
        };
        match &mut self.message {
            Some(message) if message.id == envelope.message_id => {
                message.recipients.push(recipient);
                message.plan = both(message.plan, plan);
                // A message counts as held only while all of it is, and as active while any of it is.
                if message.state == State::Held || state == State::Active {
                    (message.state, message.mta_state) = (state, envelope.word());
                }
            }
            other => {
                let before = other.replace(Message {
                    id: envelope.message_id.to_owned().into(),
                    state,
                    mta_state: envelope.word(),
                    being_returned: false,
                    too_young: false,
                    instance: None,
                    size: None,
                    arrival: Some(envelope.creation.min(self.now)),
                    sender: envelope.sender.map(|sender| sender.to_owned().into()),
                    recipients: vec![recipient],
                    plan,
                });
                before.iter().for_each(found);
            }
        }
    }
}

/// One line, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Envelope<'a> {
    message_id: &'a str,
    flags: &'a str,
    /// `None` where the line can be read in more than one way.
    sender: Option<&'a str>,
    recipient: &'a str,
    creation: i64,
    tries: u64,
    run_state: &'static str,
    /// Seconds until the next try, or since it is due; `None` where no try is pending.
    wait: Option<i64>,
    error: &'a str,
}

impl<'a> Envelope<'a> {
    /// Reads `id|source|agent|flags|sender|recipient|resolved recipient|creation|expiry|last try|
    /// tries|state|seconds|last error`.
    ///
    /// Local parts may hold a `|`, and the last error may hold anything; smtpctl escapes neither. There is one reading
    /// all the same, as smtpd takes no address of another form ([`three_addresses`]): what looks like the fields of
    /// fixed form is only that behind the third address (fixture `forged-offline-show-queue`). Where no such fields
    /// are there, this looks for them and keeps the addresses as one text, unread.
    fn read(line: &'a str) -> Option<Envelope<'a>> {
        let mut rest = line;
        let [id, _source, _agent, flags] = fields(&mut rest)?;
        if id.len() != 16 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let read = three_addresses(rest).and_then(|(addresses, fields)| Some((addresses, Anchor::read(fields)?)));
        let (sender, recipient, anchor) = match read {
            Some(([sender, _, resolved], anchor)) => (Some(if sender == "@" { "" } else { sender }), resolved, anchor),
            None => {
                let mut bars = memchr::memchr_iter(b'|', rest.as_bytes());
                let (bar, anchor) = bars.find_map(|bar| Some((bar, Anchor::read(&rest[bar + 1..])?)))?;
                (None, &rest[..bar], anchor)
            }
        };
        Some(Envelope {
            message_id: &id[..8],
            flags,
            sender,
            recipient,
            creation: anchor.creation,
            tries: anchor.tries,
            run_state: anchor.run_state,
            wait: anchor.wait,
            error: anchor.error,
        })
    }

    fn has_flag(&self, sought: &str) -> bool {
        self.flags.split(',').any(|flag| flag == sought)
    }

    /// How often it was tried, and when it is tried next. One that smtpd holds back while its route is down (`hold`) does
    /// not expire until that is up again.
    fn plan(&self, now: i64) -> Plan {
        let is_paused = self.has_flag("suspend");
        Plan {
            attempts: Some(self.tries),
            next_attempt: self
                .wait
                .filter(|_| !is_paused && !self.has_flag("hold"))
                .map(|wait| now.saturating_add(wait)),
            held_back: self.has_flag("hold") && !is_paused,
        }
    }

    fn state(&self) -> State {
        if self.has_flag("suspend") || self.has_flag("hold") {
            State::Held
        } else if self.run_state == "inflight" {
            State::Active
        } else {
            State::Deferred
        }
    }

    fn word(&self) -> Cow<'static, str> {
        if self.flags.is_empty() && self.sender.is_some() {
            return Cow::Borrowed(self.run_state);
        }
        let ambiguous = if self.sender.is_none() { " (addresses not clear)" } else { "" };
        let flags = if self.flags.is_empty() { String::new() } else { format!(", {}", self.flags) };
        Cow::Owned(format!("{}{flags}{ambiguous}", self.run_state))
    }
}

/// What is to become of a message with these two envelopes.
fn both(one: Plan, other: Plan) -> Plan {
    let earliest = [one.next_attempt, other.next_attempt].into_iter().flatten().min();
    let held_back = one.held_back || other.held_back;
    Plan { attempts: one.attempts.max(other.attempts), next_attempt: earliest, held_back }
}

/// The fields of fixed form.
struct Anchor<'a> {
    creation: i64,
    tries: u64,
    run_state: &'static str,
    wait: Option<i64>,
    error: &'a str,
}

impl<'a> Anchor<'a> {
    fn read(text: &'a str) -> Option<Anchor<'a>> {
        let is_number = |field: &str| !field.is_empty() && field.bytes().all(|byte| byte.is_ascii_digit());
        let mut rest = text;
        // Most bars are not where these fields begin, and the first field shows it.
        let [creation] = fields(&mut rest).filter(|[field]| is_number(field))?;
        let [expiry, last_try, tries, state, wait] = fields(&mut rest)?;
        let run_state = ["pending", "inflight", "invalid", "offline"].into_iter().find(|known| *known == state)?;
        let is_wait = wait.is_empty() || is_number(wait.strip_prefix('-').unwrap_or(wait));
        let is_fixed = is_wait && [expiry, last_try, tries].into_iter().all(is_number);
        is_fixed.then_some(())?;
        let wait = wait.parse().ok().filter(|_| run_state == "pending");
        Some(Anchor { creation: creation.parse().ok()?, tries: tries.parse().ok()?, run_state, wait, error: rest })
    }
}

/// Takes so many fields, each with the `|` behind it.
fn fields<'a, const N: usize>(rest: &mut &'a str) -> Option<[&'a str; N]> {
    let mut fields = [""; N];
    for field in &mut fields {
        let end = memchr::memchr(b'|', rest.as_bytes())?;
        (*field, *rest) = (&rest[..end], &rest[end + 1..]);
    }
    Some(fields)
}

/// Sender, recipient and resolved recipient, and what stands behind their last `|`. Of several ways to split a text
/// there is only one of this form: smtpd takes no `@` and no `"` in a local part and no `|` in a domain
/// (`valid_localpart()` and `valid_domainpart()` of OpenSMTPD's `util.c`), so each address goes up to the first `|`
/// behind its only `@`.
fn three_addresses(text: &str) -> Option<([&str; 3], &str)> {
    let mut rest = text;
    let mut addresses = [""; 3];
    for address in &mut addresses {
        let at = memchr::memchr(b'@', rest.as_bytes())?;
        let end = at + memchr::memchr(b'|', &rest.as_bytes()[at..])?;
        *address = &rest[..end];
        if rest[..at].contains('"') || rest[at + 1..end].contains(['@', '"']) {
            return None;
        }
        rest = &rest[end + 1..];
    }
    Some((addresses, rest))
}

impl Parser for OpenSmtpdParser {
    fn line(&mut self, line: &[u8], found: &mut dyn FnMut(&Message<'_>)) {
        self.lines += 1;
        let text = text(line);
        match Envelope::read(&text) {
            Some(envelope) => self.add(envelope, found),
            None => self.malformed.note(self.lines, line),
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
        self.malformed.verdict(Kind::OpenSmtpd, verdict(Act::List, command, exit, account))?;
        if self.offline {
            // As root, smtpctl reads the queue's files itself where there is no daemon to ask.
            return Err(Trouble::NotRunning { mta: Kind::OpenSmtpd, words: "offline".into() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(addresses: &str, error: &str) -> String {
        format!("c44e9b80594dd7b5|inet4|mta||{addresses}|1795433446|1795433446|0|1|pending|-4|{error}")
    }

    #[test]
    fn a_bar_in_an_address_or_an_error_is_no_field() {
        let read = |addresses: &str, error: &str| {
            let line = line(addresses, error);
            let envelope = Envelope::read(&line).unwrap();
            (envelope.sender.map(str::to_owned), envelope.recipient.to_owned(), envelope.error.to_owned())
        };
        let plain = |sender: &str, recipient: &str, error: &str| {
            (Some(sender.to_owned()), recipient.to_owned(), error.to_owned())
        };
        assert_eq!(read("a@x.example|b@y.example|b@y.example", ""), plain("a@x.example", "b@y.example", ""));
        assert_eq!(read("@|b@y.example|c@z.example", "450 no|w"), plain("", "c@z.example", "450 no|w"));
        assert_eq!(read("a|b@x.example|c@y.example|c@y.example", ""), plain("a|b@x.example", "c@y.example", ""));
        let forged = "x|1|1|0|0|offline||y@example.org";
        assert_eq!(read(&format!("{forged}|b@y.example|b@y.example"), ""), plain(forged, "b@y.example", ""));
        let error = "x|1|1|1|1|pending|1|y";
        assert_eq!(read("a@x.example|b@y.example|b@y.example", error), plain("a@x.example", "b@y.example", error));
    }

    #[test]
    fn addresses_of_a_form_that_smtpd_does_not_take_are_not_guessed_at() {
        for addresses in
            [r#""a@b|c"@x.example|d@y.example|d@y.example"#, "x@y@z.example|a@b|a@b", "x|y|z", &"|".repeat(500)]
        {
            let line = line(addresses, "");
            let envelope = Envelope::read(&line).unwrap();
            assert_eq!((envelope.sender, envelope.recipient), (None, addresses));
            assert!(envelope.word().contains("not clear"));
        }
        let forged = line(r#""x@a|1|1|1|1|offline||"@b.example|a@b|a@b"#, "");
        let mut parser = OpenSmtpdParser::new(&Clock { now: 1, zone: jiff::tz::TimeZone::UTC });
        parser.line(forged.as_bytes(), &mut |_| {});
        assert!(!parser.offline, "what is not clear is no word of the daemon's");
    }

    #[test]
    fn disabled_routes_are_resumed() {
        let line = |flags| format!("12. [] <-> 127.0.0.2 {flags} nconn=0 nerror=3 penalty=1 timeout=12s");
        assert_eq!(disabled_route(&line("-D--")), Some("12"));
        assert_eq!(disabled_route(&line("NDQ-")), Some("12"));
        assert_eq!(disabled_route(&line("----")), None);
        assert_eq!(disabled_route("soup"), None);
        assert_eq!(disabled_route("-x. a -D--"), None);
    }

    #[test]
    fn states_follow_flags_first() {
        for (flags, run_state, state) in [
            ("", "pending", State::Deferred),
            ("", "inflight", State::Active),
            ("suspend", "inflight", State::Held),
            ("auth,hold", "pending", State::Held),
            ("bounce", "pending", State::Deferred),
        ] {
            let line = format!("c44e9b80594dd7b5|inet6|mta|{flags}|a@x|b@y|b@y|1|1|0|1|{run_state}|4|");
            assert_eq!(Envelope::read(&line).unwrap().state(), state, "{flags} {run_state}");
        }
    }
}
