//! An outage played with reads only, for `doctor --rehearse`: would mail come in here, would it be kept, and would the
//! primary have it afterwards? No message is sent, and nothing is run.
//!
//! What `doctor` says anyhow is not repeated here: the order of the mail exchangers, the lifetime, whether the queue can be
//! run, the disks.

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::context::{Context, Source};
use crate::flush::mail_log::Places;
use crate::flush::rehearsal::{Spoken, reason};
use crate::listing;
use crate::listing::count::Count;
use crate::mta::as_root::Request;
use crate::mta::intake::{Gate, Intake, List, Softens};
use crate::mta::{Facts, Wanted};
use crate::primary::rehearsal::{Answers, Asked, Counts, End};
use crate::primary::verdict::{NotKnown, Verdict};
use crate::primary::{Fault, Grounds};
use crate::queue::{Candidate, Lifetimes, Mask, Stakes, Target, in_turn};
use crate::state::Records;
use crate::system::process::{self, Argv};
use crate::system::processes;
use crate::text::{duration, shell_quoted, to_paste};

/// How many recipients are asked for.
const ASKED_FOR: usize = 3;

/// What stands before the @ of a recipient that nobody knows.
const UNKNOWN: &str = "bartleby-asks-whether-this-is-refused";

/// How long the mail server's settings may take, and how long the journal.
const PATIENCE: Duration = Duration::from_secs(5);

/// After so many seconds without a look, `watch` is taken for stopped. It looks once a minute, and a run of one message may
/// take ten.
const STOPPED: i64 = 15 * 60;

/// Why nothing can be said of a mail server.
const ELSEWHERE: &str =
    "the queue is listed by a configured command, so it may not be that of the mail server on this machine";

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// All is well: what was seen.
    Fine(String),
    /// Nothing is wrong, but something is not known: why, and what would help, if anything does.
    Note(Fault),
    /// It could not be checked: why, and what would help.
    Open(Fault),
    /// Something is wrong, with its fix.
    Wrong(Fault),
    /// Nothing is wrong here, but the primary does not answer.
    Down(Fault),
}

impl From<Result<String, Fault>> for Finding {
    fn from(found: Result<String, Fault>) -> Finding {
        found.map_or_else(Finding::Wrong, Finding::Fine)
    }
}

fn open(message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding::Open(Fault { message: message.into(), remedy: remedy.into() })
}

fn wrong(message: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding::Wrong(Fault { message: message.into(), remedy: remedy.into() })
}

/// A check and what came of it.
pub(crate) type Checked = (&'static str, Finding);

/// Plays an outage.
pub(crate) fn play(context: &Context) -> Vec<Checked> {
    let Ok(source) = &context.source else {
        return vec![(
            "outage",
            open("it can't be rehearsed without a mail server", "See the line on the mail server above."),
        )];
    };
    let gate = source.mta.gate();
    let (refusing, runners, softener) = (gate.refusing, gate.runners, gate.softener);
    let intake = intake(context, source, gate);
    let facts = listing::facts(context, Wanted::Everything);
    let grounds = Grounds::gather(context);
    let (recipients, origin) = recipients(context, &grounds, intake.list.as_ref());
    vec![
        ("port 25 here", front_door(context, &grounds, intake.list.as_ref(), &recipients, refusing)),
        ("handing over", handing_over(context, &grounds, &recipients, &origin)),
        ("mail log", mail_log(context, source, &facts)),
        ("watch", watch(context)),
        ("refusals", softened(softener, intake.softens)),
        ("queue runner", runner(context, source, &facts, runners)),
    ]
}

fn intake(context: &Context, source: &Source, gate: Gate) -> Intake {
    if !source.is_local(&context.config.mta.list_command) {
        return Intake::default();
    }
    (gate.ask)(&context.free, Instant::now() + PATIENCE)
}

/// Up to three recipients, those of the list or else of the queue, and where they stand.
fn recipients(context: &Context, grounds: &Grounds, list: Option<&List>) -> (Vec<Candidate>, String) {
    let is_ours = |candidate: &Candidate| grounds.domains().contains(&candidate.domain());
    if let Some(list) = list {
        let of_list = |address: &String| Candidate { address: address.clone(), id: String::new(), arrival: None };
        let listed: Vec<_> = list.addresses.iter().map(of_list).filter(is_ours).collect();
        if !listed.is_empty() {
            return (in_turn(&listed, ASKED_FOR), format!("of {}", list.name));
        }
    }
    let waiting = Count::with_stakes(context, &Target::All, grounds.domains(), Lifetimes::Unknown);
    let waiting = in_turn(&waiting.stakes.candidates, ASKED_FOR);
    (waiting, "of the mail that waits, as no list of recipients could be read".to_owned())
}

/// Whether this host takes mail for those it knows, and refuses one that nobody knows.
fn front_door(
    context: &Context,
    grounds: &Grounds,
    list: Option<&List>,
    recipients: &[Candidate],
    refusing: &'static str,
) -> Finding {
    let known: Vec<String> = recipients.iter().map(|candidate| candidate.address.clone()).collect();
    let listed = recipients.first().map(Candidate::domain);
    let Some(domain) = listed.or_else(|| grounds.domains().first().cloned()) else {
        return open(
            "it is not known for which domains this host is a backup mail server, so nobody was asked for",
            "Name them in /etc/bartleby.toml:\n    [primary]\n    domains = [\"example.com\"]",
        );
    };
    let unknown = format!("{UNKNOWN}@{domain}");
    let asked: Vec<String> = known.iter().cloned().chain([unknown.clone()]).collect();
    let answers = grounds.ask_here(context, &asked);
    let open_list = list.filter(|list| list.open.contains(&domain)).map(|list| list.name.as_str());
    judge_door(&answers, &unknown, open_list, refusing, context.config.privacy.mask)
}

/// What this host's answers mean; `open_list` has every address of the unknown one's domain.
fn judge_door(
    answers: &Answers,
    unknown: &str,
    open_list: Option<&str>,
    refusing: &'static str,
    mask: Option<Mask>,
) -> Finding {
    let words = |asked: &Asked| {
        mask.map_or_else(|| asked.said.words.clone(), |mask| mask.text(&asked.said.words, &asked.recipient))
    };
    let name = |address: &str| mask.map_or_else(|| address.to_owned(), |mask| mask.address(address));
    match (&answers.end, &answers.greeting) {
        (End::Unreached(error), _) => {
            return wrong(
                format!("no mail gets in here: {error}"),
                to_paste(
                    "Start the mail server, and let it listen on the addresses that the MX record leads to. To see where it does",
                    &["ss -ltn sport = :25"],
                ),
            );
        }
        (_, Some(said)) if said.code != 220 => {
            return wrong(format!("this host turns itself away: “{}”", said.words), "Look at the mail server's log.");
        }
        (_, None) => return wrong("the mail server here does not greet", "Look at the mail server's log."),
        _ => {}
    }
    let by_hand = "Ask as root:\n    bartleby doctor --rehearse\nOr from another machine: RCPT TO for a known and for an unknown recipient.";
    if answers.recipients.is_empty() || answers.blames_sender() {
        let said = answers.recipients.first().map(|asked| &asked.said).or(answers.mail.as_ref());
        let said = said.map(|said| format!(": “{}”", said.words)).unwrap_or_default();
        return open(format!("the mail server here does not take this host itself for a sender{said}"), by_hand);
    }
    if let Some(asked) =
        answers.recipients.iter().find(|asked| asked.recipient != unknown && asked.counts != Counts::Accepted)
    {
        return wrong(
            format!("mail for {} is not taken here: “{}”", name(&asked.recipient), words(asked)),
            "Compare the list of recipients here, and the domains that are relayed, with those of the primary.",
        );
    }
    let known = answers.recipients.iter().filter(|asked| asked.recipient != unknown).count();
    let taken = match known {
        0 => "nobody is known who could be asked for: there is no list of recipients, or this user can't read it"
            .to_owned(),
        1 => "it takes mail for the recipient that was asked for".to_owned(),
        known => format!("it takes mail for the {known} recipients that were asked for"),
    };
    match answers.recipients.iter().find(|asked| asked.recipient == unknown) {
        None => open(format!("{taken}; whether it refuses unknown ones was not answered"), by_hand),
        Some(asked) => match asked.counts {
            Counts::Refused { .. } if known == 0 => {
                open(format!("it refuses unknown recipients, and {taken}"), by_hand)
            }
            Counts::Refused { .. } => Finding::Fine(format!("{taken}, and refuses an unknown one")),
            Counts::PutOff => wrong(
                format!(
                    "{taken}, but only puts off an unknown one: “{}”; its senders try again for days",
                    words(asked)
                ),
                refusing,
            ),
            Counts::Accepted => {
                let why =
                    open_list.map(|list| format!(", as {list} has every address of that domain")).unwrap_or_default();
                wrong(
                    format!(
                        "{taken}, but also for {}, whom nobody knows{why}: what the primary then refuses goes back to senders \
                         who are mostly forged",
                        name(&asked.recipient)
                    ),
                    refusing,
                )
            }
        },
    }
}

/// Whether the primary accepts these from this host.
fn handing_over(context: &Context, grounds: &Grounds, recipients: &[Candidate], origin: &str) -> Finding {
    let asked = match grounds.rehearse(context, recipients) {
        Ok(asked) => asked,
        Err(lacks) => {
            return open(
                format!("the primary was not asked, as {}", reason(lacks)),
                "Name the primary and its domains in /etc/bartleby.toml: [primary] hosts and domains; and give the mail \
                 server a list of recipients.",
            );
        }
    };
    let worst = asked.iter().map(|rehearsed| rehearsed.verdict).max();
    let said: Vec<_> =
        asked.into_iter().map(|rehearsed| Spoken::of(rehearsed, &Stakes::default(), context).sentence()).collect();
    let said = format!("{} (recipients {origin})", said.join(" "));
    let look = "Its administrator needs these words; mail waits here meanwhile.";
    match worst {
        Some(Verdict::Accepts | Verdict::AcceptsOthers) => Finding::Fine(said),
        Some(Verdict::NotKnown(NotKnown::WantsTls)) | None => {
            open(said, "Send a message through this host, and look into the mail log whether the primary has taken it.")
        }
        Some(Verdict::NotKnown(_)) => open(said, look),
        Some(Verdict::RefusesSome | Verdict::PutsOff | Verdict::Refuses(_)) => wrong(said, look),
    }
}

/// Whether the mail log can be read, which says what a run delivered and what it returned.
fn mail_log(context: &Context, source: &Source, facts: &Facts) -> Finding {
    let mta = &context.config.mta;
    if mta.log.is_none() && !source.is_local(&mta.list_command) {
        return open(
            ELSEWHERE,
            to_paste("Name its log in /etc/bartleby.toml", &["[mta]", "log = \"/var/log/mail.log\""]),
        );
    }
    let places = Places::of(context, source, facts);
    let is_file = |path: &&PathBuf| File::open(path).is_ok_and(|file| file.metadata().is_ok_and(|of| of.is_file()));
    if let Some(path) = places.files().iter().find(is_file) {
        return Finding::Fine(format!("{} can be read", path.display()));
    }
    let request = Request::Log { ids: vec![source.mta.sample_id().to_owned()], since: context.clock.now, mark: None };
    if context.by_the_one_rule(&request).is_some() {
        return Finding::Fine("root reads it, by the one rule for that".into());
    }
    let account = &context.account;
    let name = &account.name;
    let rule = "install the rule of examples/sudoers or examples/doas.conf.";
    let remedy = |group: &str| match shell_quoted(name) {
        _ if account.is_root() => "Let the mail server log: install rsyslog, or look at its own configuration.".into(),
        Ok(name) => {
            let command = format!("usermod -aG {group} {name}");
            to_paste("As root", &[&command]) + &format!("\nThen restart the web server. Or {rule}")
        }
        Err(_) => format!("As root, {rule}"),
    };
    let unknown = "so what a run delivered and what it returned to the senders can't be distinguished";
    if let Some(path) = places.files().iter().find(|path| path.exists()) {
        return wrong(format!("{} can't be read by {name}, {unknown}", path.display()), remedy("adm"));
    }
    if let Places::Usual(_) = places {
        let journal = Argv::new("journalctl", &["--quiet", "--no-pager", "--lines=1", "SYSLOG_FACILITY=2"]);
        let read = process::start(&context.free, &journal).map(|running| running.collect(Instant::now() + PATIENCE));
        if read.is_ok_and(|(exit, lines)| exit.success() && !lines.is_empty()) {
            return Finding::Fine("the journal can be read".into());
        }
    }
    let names = places.names();
    let nowhere = match places {
        Places::Named(_) => format!("there is no {names}"),
        Places::Usual(_) => format!("neither {names} nor the journal holds any mail log that {name} can read"),
    };
    wrong(format!("{nowhere}, {unknown}"), remedy("systemd-journal"))
}

/// Whether `watch` looks.
fn watch(context: &Context) -> Finding {
    let now = context.clock.now;
    let remedy = to_paste("As root", &["systemctl enable --now bartleby-watch.timer"])
        + "\n"
        + &to_paste("Or, without systemd", &["install -m 644 examples/bartleby-watch.cron /etc/cron.d/bartleby"]);
    let consequence =
        "the queue is run by hand alone, and an outage is on record only as far as somebody looked at the page";
    match context.records.as_ref().map(Records::last_look) {
        Err(error) => {
            open(format!("there is nowhere to remember anything: {error}"), "See the line on the state directory.")
        }
        Ok(None) => {
            wrong(format!("it has never looked, as far as {} knows: {consequence}", context.account.name), remedy)
        }
        Ok(Some(at)) if now - at > STOPPED => {
            wrong(format!("it looked last {} ago: {consequence}", duration(now - at)), remedy)
        }
        Ok(Some(at)) => Finding::Fine(format!("it looked {} ago", duration((now - at).max(0)))),
    }
}

/// Whether refusals are put off instead.
fn softened(softener: Option<(&str, &str)>, softens: Option<Softens>) -> Finding {
    match (softener, softens) {
        (None, _) => Finding::Fine("the mail server has no setting that makes deferrals of them".into()),
        (Some((setting, _)), None) => open(format!("{setting} could not be read"), "Look at it by hand."),
        (Some((setting, _)), Some(Softens::No)) => Finding::Fine(format!("{setting} is off")),
        (Some((setting, remedy)), Some(Softens::Yes)) => wrong(
            format!(
                "{setting} is on: what is refused for good is put off, so that senders with a mistyped address wait for days, \
                 and a rehearsal of this host proves little"
            ),
            remedy,
        ),
    }
}

/// Whether something tries again by itself.
fn runner(context: &Context, source: &Source, facts: &Facts, runners: &[&str]) -> Finding {
    if !source.is_local(&context.config.mta.list_command) {
        return open(ELSEWHERE, "Look at it where that queue is.");
    }
    if let Some(gap) = &facts.timing.stopped {
        return wrong(gap.why.clone(), gap.remedy.clone());
    }
    if runners.is_empty() {
        return Finding::Fine("the mail server's daemon tries again by itself, as far as its processes show".into());
    }
    match processes::named(runners) {
        None => open(
            "this user can't see the processes of others (hidepid)",
            "Ask as root:\n    bartleby doctor --rehearse",
        ),
        Some(found) if found.is_empty() => wrong(
            format!("no {} is running, so nothing that waits is tried again by itself", runners.join(" or ")),
            "Start the mail server.",
        ),
        Some(_) => Finding::Fine(format!("{} is running", runners.join(" or "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primary::rehearsal::Said;

    fn said(words: &str) -> Said {
        Said { code: words[..3].parse().unwrap(), words: words.to_owned() }
    }

    /// Answers for these recipients; the last one is the unknown.
    fn answers(replies: &[(&str, &str)]) -> Answers {
        let asked = |(recipient, words): &(&str, &str)| Asked {
            recipient: (*recipient).to_owned(),
            said: said(words),
            counts: match &words[..1] {
                "2" => Counts::Accepted,
                "5" => Counts::Refused { sender: words.contains("sender") },
                _ => Counts::PutOff,
            },
        };
        Answers {
            greeting: Some(said("220 mx2")),
            mail: Some(said("250 ok")),
            recipients: replies.iter().map(asked).collect(),
            ..Answers::default()
        }
    }

    fn judged(answers: &Answers, mask: Option<Mask>) -> (char, String) {
        match judge_door(answers, "nobody@example.com", None, "Name them.", mask) {
            Finding::Fine(said) => ('+', said),
            Finding::Open(fault) | Finding::Note(fault) => ('?', fault.message),
            Finding::Wrong(fault) | Finding::Down(fault) => ('-', fault.message),
        }
    }

    #[test]
    fn a_host_that_takes_the_known_and_refuses_the_unknown_is_fine_and_no_other() {
        let unknown = |reply: &'static str| ("nobody@example.com", reply);
        let known = ("larry@example.com", "250 ok");
        for (answers, kind, words) in [
            (
                answers(&[known, unknown("550 5.1.1 no")]),
                '+',
                "the recipient that was asked for, and refuses an unknown one",
            ),
            (
                answers(&[known, unknown("250 ok")]),
                '-',
                "but also for nobody@example.com, whom nobody knows: what the primary",
            ),
            (answers(&[known, unknown("450 4.1.1 later")]), '-', "only puts off an unknown one: “450 4.1.1 later”"),
            (
                answers(&[("larry@example.com", "550 who?"), unknown("550 no")]),
                '-',
                "mail for larry@example.com is not taken here: “550 who?”",
            ),
            (answers(&[known]), '?', "whether it refuses unknown ones was not answered"),
            (answers(&[unknown("550 no")]), '?', "it refuses unknown recipients, and nobody is known"),
            (answers(&[("larry@example.com", "550 sender"), unknown("550 sender")]), '?', "for a sender: “550 sender”"),
            (Answers { mail: Some(said("550 go away")), ..answers(&[]) }, '?', "for a sender: “550 go away”"),
            (Answers { greeting: Some(said("554 no")), ..answers(&[]) }, '-', "turns itself away: “554 no”"),
            (Answers { greeting: None, ..answers(&[]) }, '-', "does not greet"),
            (Answers::unreached("connection refused".into()), '-', "no mail gets in here: connection refused"),
        ] {
            let found = judged(&answers, None);
            assert!(found.0 == kind && found.1.contains(words), "{words}: {found:?}");
        }
        let hidden = judged(
            &answers(&[("larry@example.com", "550 <larry@example.com> who?"), unknown("550 no")]),
            Some(Mask::LocalPart),
        );
        assert!(!hidden.1.contains("larry"), "{hidden:?}");
    }

    #[test]
    fn a_setting_that_makes_deferrals_of_refusals_is_found() {
        let softener = Some(("soft_bounce", "Switch it off."));
        assert!(
            matches!(softened(softener, Some(Softens::Yes)), Finding::Wrong(fault) if fault.remedy == "Switch it off.")
        );
        assert!(matches!(softened(softener, Some(Softens::No)), Finding::Fine(_)));
        assert!(matches!(softened(softener, None), Finding::Open(_)));
        assert!(matches!(softened(None, None), Finding::Fine(_)));
    }
}
