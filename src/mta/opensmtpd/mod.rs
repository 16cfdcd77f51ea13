//! OpenSMTPD: `smtpctl show queue`.
//!
//! Sources: smtpctl(8), `show_queue_envelope()` of OpenSMTPD's `smtpctl.c`, and the recorded output
//! under `tests/fixtures/opensmtpd`. A line is an envelope: one recipient of a message. The first eight
//! hexadecimal digits of its id are the message's.

mod envelope;
mod lifetime;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::intake::{Gate, Intake, List};
use super::parser::{Malformed, text};
use super::remedy::{Refused, Remedy};
use super::timing::{Gap, InForce, Retry, Timing};
use super::{Clock, Facts, Hints, Inquiry, Kind, Mta, OwnName, Parser, Part, Search, Wanted};
use crate::mta::trouble::{Act, Trouble};
use crate::queue::{Lifetimes, Message, Recipient, State};
use crate::system::process::{Argv, Exit};
use crate::system::processes;
use crate::system::{Account, Free};
use envelope::{Envelope, both};

/// What smtpctl says when its set-group-id bit did not take effect (fixture `as-www-data-nnp-show-queue`).
const PRIVILEGES_MISSING: &[&str] = &["this program must be setgid"];

/// Where Debian's OpenSMTPD has its name.
const MAILNAME: &str = "/etc/mailname";

/// Made by the daemon whenever that is started.
const SOCKET: &str = "/var/run/smtpd.sock";

/// Where its configuration may be: Debian, OpenBSD and Alpine, Fedora and Arch, FreeBSD.
const CONFIGURATIONS: [&str; 4] =
    ["/etc/smtpd.conf", "/etc/mail/smtpd.conf", "/etc/opensmtpd/smtpd.conf", "/usr/local/etc/mail/smtpd.conf"];

/// An installed OpenSMTPD.
pub(super) struct OpenSmtpd {
    program: PathBuf,
    daemon: Option<PathBuf>,
    mailname: PathBuf,
    configuration: PathBuf,
}

impl OpenSmtpd {
    /// The OpenSMTPD among the programs of `search`. If there is none, its program is assumed at the usual path.
    pub(super) fn at(search: &Search) -> OpenSmtpd {
        OpenSmtpd {
            program: search.program("smtpctl").unwrap_or_else(|| "/usr/sbin/smtpctl".into()),
            daemon: search.program("smtpd"),
            mailname: search.below_root(Path::new(MAILNAME)),
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

    fn settings_files(&self) -> Vec<PathBuf> {
        let files = [&self.program, &self.configuration].into_iter().chain(&self.daemon).cloned();
        files.chain([PathBuf::from(MAILNAME), PathBuf::from(SOCKET)]).collect()
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
        let text = fs::read_to_string(&self.mailname).ok()?;
        let name = text.lines().next()?.trim().to_owned();
        Some(Box::new(move |_, _| Some(name)))
    }

    /// The file of the table `relay_recipients`, as the example has it.
    fn gate(&self) -> Gate {
        let configuration = self.configuration.clone();
        Gate {
            ask: Box::new(move |_, _| {
                let text = fs::read_to_string(&configuration).unwrap_or_default();
                Intake { list: recipients(&text).and_then(|file| List::of_file(Path::new(file))), softens: None }
            }),
            refusing: "Name every recipient that the primary knows in a table, and match only mail to these \
                       (rcpt-to <relay_recipients>, see examples/opensmtpd).",
            runners: &["smtpd"],
            softener: None,
        }
    }

    fn flush_commands(&self, part: &Part<'_>) -> Vec<Argv> {
        let schedule = |what: &str| Argv::new(&self.program, &["schedule", what]);
        match part {
            Part::All => vec![schedule("all")],
            Part::Domain { ids, .. } | Part::Each { ids } => ids.iter().map(|id| schedule(id)).collect(),
            Part::Message(id) => vec![schedule(id)],
        }
    }

    /// After errors, smtpd disables a route to the primary for up to an hour. A message that is scheduled meanwhile fails
    /// at once and is not tried.
    fn flush_questions(&self) -> Vec<Argv> {
        ["routes", "status"].map(|what| Argv::new(&self.program, &["show", what])).into()
    }

    fn flush_hindrances(&self, answers: &str) -> Vec<String> {
        let is_paused = answers.lines().any(|line| line == PAUSED).then_some(PAUSED);
        answers.lines().filter_map(disabled_route).chain(is_paused).map(str::to_owned).collect()
    }

    /// `pause mta` stops all deliveries; what is scheduled meanwhile is "scheduled", and stays (fixture
    /// `paused-mta-show-status`).
    fn flush_bar(&self, hindrances: &[String]) -> Option<Trouble> {
        let is_paused = hindrances.iter().any(|hindrance| hindrance == PAUSED);
        is_paused.then(|| Trouble::Paused { mta: Kind::OpenSmtpd, words: PAUSED.into() })
    }

    fn flush_preparation(&self, hindrances: &[String]) -> Vec<Argv> {
        let routes = hindrances.iter().filter(|id| is_number(id));
        routes.map(|id| Argv::new(&self.program, &["resume", "route", id])).collect()
    }

    /// Whether deliveries are paused (fixture `paused-mta-show-status`); when each message is tried next, the listing says.
    fn next_command(&self, _queue: &Path) -> Option<Argv> {
        Some(Argv::new(&self.program, &["show", "status"]))
    }

    fn read_next(&self, output: &str) -> Option<Hints> {
        Some(Hints { is_paused: output.lines().any(|line| line == PAUSED), ..Hints::default() })
    }

    fn with_hints(&self, _free: &Free, facts: Facts, hints: &Hints, _now: i64, _deadline: Instant) -> Facts {
        if !hints.is_paused {
            return facts;
        }
        let gap = Gap {
            why: "an administrator has paused OpenSMTPD's deliveries (smtpctl pause mta), so nothing is tried, also by a run"
                .into(),
            remedy: "As root:\n    smtpctl resume mta".into(),
        };
        let timing = Timing { retry: Retry::Unknown(gap.clone()), stopped: Some(gap), ..facts.timing };
        Facts { timing, ..facts }
    }

    /// It logs the envelope's id, of which the message's is the first half (smtpd's `queue.c`, `evpid_to_msgid`).
    fn id_in_log<'a>(&self, word: &'a str) -> &'a str {
        if word.len() == 16 { word.get(..8).unwrap_or(word) } else { word }
    }

    /// `schedule` runs what smtpd holds back while a route is down, and also paused (`suspend`) envelopes: seen with
    /// 6.8.0p2 and 7.6.0p1.
    fn flushes_held(&self, part: &Part<'_>) -> bool {
        matches!(part, Part::All | Part::Message(_))
    }

    fn release(&self) -> &'static str {
        "To release a message, and then deliver it, as root:\n    smtpctl resume envelope ID"
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

/// What `show status` says where deliveries are paused.
const PAUSED: &str = "MTA paused";

/// For how long smtpd leaves a server alone after a connection that failed, and keeps its envelopes in flight, in seconds,
/// and a little longer (measured with 6.8.0p2: 15 s, also where its route was resumed in between).
const LEFT_ALONE: u64 = 20;

/// How many envelopes `schedule` says it has scheduled, in all its answers: `3 envelopes scheduled`; `None` where it says
/// nothing of that.
fn scheduled(said: &str) -> Option<u64> {
    let number = |line: &str| {
        let (number, rest) = line.split_once(" envelope")?;
        let number = number.parse::<u64>().ok()?;
        matches!(rest, " scheduled" | "s scheduled").then_some(number)
    };
    said.lines().filter_map(number).reduce(u64::saturating_add)
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
    if act == Act::Flush && exit.said.contains(PAUSED) {
        return Err(Trouble::Paused { mta, words: PAUSED.into() });
    }
    exit.verdict(command)?;
    // All of it is in flight.
    let is_in_hand = act == Act::Flush && scheduled(&exit.said) == Some(0);
    if is_in_hand { Err(Trouble::InHand { mta, seconds: LEFT_ALONE }) } else { Ok(()) }
}

/// smtpctl works for root alone, and no setting changes that.
pub(super) fn remedy(refused: &Refused<'_>) -> Remedy {
    let rule = refused.rule(&["show queue", "schedule all"]);
    Remedy::Rule(format!("Only root may ask OpenSMTPD.\n{rule}"))
}

/// Reads `smtpctl show queue`, grouping envelopes that follow each other into messages.
struct OpenSmtpdParser {
    now: i64,
    lines: u64,
    malformed: Malformed,
    message: Option<Message<'static>>,
    /// Whether an administrator has paused it, or a part of it.
    is_paused: bool,
    offline: bool,
}

impl OpenSmtpdParser {
    /// A parser at the beginning of a listing.
    fn new(clock: &Clock) -> Self {
        let (malformed, message) = (Malformed::default(), None);
        OpenSmtpdParser { now: clock.now, lines: 0, malformed, message, is_paused: false, offline: false }
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
                let was_paused = self.is_paused;
                self.is_paused |= envelope.is_paused();
                if self.is_paused {
                    // A run of the message would run what an administrator has paused of it.
                    (message.state, message.plan.held_back) = (State::Held, false);
                    if !was_paused || !envelope.is_paused() {
                        message.mta_state = "paused in part".into();
                        message.plan.partly_held = true;
                    }
                } else if message.state == State::Held || state == State::Active {
                    // It counts as held back only while all of it is, and as active while any of it is.
                    (message.state, message.mta_state) = (state, envelope.word());
                }
            }
            other => {
                self.is_paused = envelope.is_paused();
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

/// The file of the table of recipients in smtpd.conf(5).
fn recipients(configuration: &str) -> Option<&str> {
    configuration.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let is_meant = words.next() == Some("table") && words.next() == Some("relay_recipients");
        words.next().filter(|_| is_meant)?.strip_prefix("file:")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paused_deliveries_are_known_before_a_run() {
        let opensmtpd = OpenSmtpd::at(&Search::below(Path::new("/nonexistent")));
        let recorded = include_str!("../../../tests/fixtures-clocks/opensmtpd/paused-mta-show-status.stdout");
        let stopped = |status: &str| {
            let hints = opensmtpd.read_next(status).unwrap();
            let now = Instant::now();
            opensmtpd.with_hints(&Free::of_main(), Facts::default(), &hints, 0, now).timing.stopped
        };
        assert!(stopped(recorded).unwrap().remedy.contains("resume mta"));
        assert_eq!(stopped(&recorded.replace("paused", "running")), None);
        assert_eq!(opensmtpd.next_command(Path::new("/x")).unwrap().to_string(), "/usr/sbin/smtpctl show status");
    }

    #[test]
    fn the_file_of_the_recipients_is_found() {
        let shipped = include_str!("../../../examples/opensmtpd/smtpd.conf");
        assert_eq!(recipients(shipped), Some("/etc/smtpd.relay_recipients"));
        assert_eq!(recipients("table other file:/x\n#table relay_recipients file:/y\n"), None);
    }

    #[test]
    fn what_is_not_clear_is_no_word_of_the_daemons() {
        let forged = concat!(
            "c44e9b80594dd7b5|inet4|mta||",
            r#""x@a|1|1|1|1|offline||"@b.example|a@b|a@b"#,
            "|1795433446|1795433446|0|1|pending|-4|"
        );
        let mut parser = OpenSmtpdParser::new(&Clock { now: 1, zone: jiff::tz::TimeZone::UTC });
        parser.line(forged.as_bytes(), &mut |_| {});
        assert!(!parser.offline);
    }

    #[test]
    fn a_message_that_is_paused_in_part_is_on_hold() {
        let line = |id: &str, flags: &str, state: &str| {
            format!("{id}|inet4|mta|{flags}|a@x.example|b@y.example|b@y.example|1|1|0|1|{state}|4|")
        };
        let read = |envelopes: [(&str, &str); 2]| {
            let mut parser = OpenSmtpdParser::new(&Clock { now: 9, zone: jiff::tz::TimeZone::UTC });
            let [first, second] = envelopes;
            parser.line(line("c44e9b80594dd7b5", first.0, first.1).as_bytes(), &mut |_| {});
            parser.line(line("c44e9b80594dd7b6", second.0, second.1).as_bytes(), &mut |_| {});
            let message = parser.message.unwrap();
            (message.state, message.is_on_hold(), message.mta_state.into_owned())
        };
        let (paused, held) = (("suspend", "pending"), ("hold", "pending"));
        assert_eq!(read([paused, paused]), (State::Held, true, "pending, suspend".into()));
        for (first, second) in [(paused, ("", "inflight")), (("", "inflight"), paused), (held, paused), (paused, held)]
        {
            assert_eq!(read([first, second]), (State::Held, true, "paused in part".into()), "{first:?} {second:?}");
        }
        assert_eq!(read([held, held]), (State::Held, false, "pending, hold".into()), "smtpd's own");
        assert_eq!(read([held, ("", "inflight")]).0, State::Active);
    }

    #[test]
    fn what_keeps_a_run_from_doing_anything_is_said() {
        let smtpd = OpenSmtpd::at(&Search::below(std::path::Path::new("/nonexistent")));
        let recorded = include_str!("../../../tests/fixtures-clocks/opensmtpd/paused-mta-show-status.stdout");
        let routes = "3. [] <-> 127.0.0.2 (tuccster.example.com) ND-- nconn=0 nerror=0 penalty=1 timeout=10s\n";
        let hindrances = smtpd.flush_hindrances(&format!("{routes}{recorded}"));
        assert_eq!(hindrances, ["3", PAUSED]);
        let trouble = smtpd.flush_bar(&hindrances).unwrap();
        assert!(trouble.remedy().contains("smtpctl resume mta"), "{}", trouble.remedy());
        assert_eq!(smtpd.flush_bar(&["3".to_owned()]), None);
        let resumed: Vec<_> = smtpd.flush_preparation(&hindrances).iter().map(Argv::to_string).collect();
        assert_eq!(resumed, ["/usr/sbin/smtpctl resume route 3"]);
        assert_eq!(scheduled("0 envelope scheduled\n"), Some(0));
        assert_eq!(scheduled("command succeeded\n1 envelope scheduled\n2 envelopes scheduled\n"), Some(3));
        assert_eq!(scheduled("1 envelope paused"), None);
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
}
