//! What real and odd primaries answered, as a rehearsal hears it, against the verdict that each shall get.
//!
//! `tests/fixtures/rehearsal` has recorded dialogues (`C:` the client, `S:` the server), most of them longer than a
//! rehearsal is, and in `verdicts-of-the-proposed-rules.txt` what each primary should be taken for.
//! `tests/golden/rehearsal.txt` has what is made of each dialogue; `UPDATE_GOLDEN=1 cargo test --test rehearsal` writes it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use bartleby::mta::Kind;
use bartleby::primary::rehearsal::{Answers, Heard, MOST_REFUSALS, Rehearsal};
use bartleby::primary::reply::{Replies, Reply};
use bartleby::primary::verdict::Verdict;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// What stands for a null sender where none was tried in that recording: the verdicts say what would have come.
const NULL_SENDER_ACCEPTED: [&str; 1] = ["os-sender.txt"];

/// A recorded dialogue.
#[derive(Debug, Default)]
struct Dialogue {
    file: String,
    title: String,
    greeting: Vec<String>,
    /// Each command with the lines of its reply, where one came.
    exchanges: Vec<(String, Vec<String>)>,
    timed_out: bool,
}

impl Dialogue {
    /// Every dialogue of a file.
    fn all(path: &Path) -> Vec<Dialogue> {
        let text = fs::read_to_string(path).unwrap();
        let file = path.file_name().unwrap().to_str().unwrap();
        let mut all: Vec<Dialogue> = Vec::new();
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("### ") {
                all.push(Dialogue { file: file.to_owned(), title: title.to_owned(), ..Dialogue::default() });
            }
            if let (Some(dialogue), Some((_, said))) = (all.last_mut(), line.split_once("s ")) {
                dialogue.add(said);
            }
        }
        all
    }

    fn add(&mut self, said: &str) {
        if let Some(command) = said.strip_prefix("C: ") {
            self.exchanges.push((command.to_owned(), Vec::new()));
        } else if let Some(line) = said.strip_prefix("S: ") {
            // Pipelined, the replies come later, and in order.
            let is_open = |lines: &Vec<String>| lines.last().is_none_or(|line| line.as_bytes().get(3) == Some(&b'-'));
            let replies = std::iter::once(&mut self.greeting).chain(self.exchanges.iter_mut().map(|(_, lines)| lines));
            if let Some(lines) = replies.into_iter().find(|lines| is_open(lines)) {
                lines.push(line.to_owned());
            }
        }
        self.timed_out |= said.starts_with("!! TimeoutError");
    }

    /// Whether a client asks for recipients in it without TLS and SIZE, or did not come as far as that.
    fn is_rehearsal(&self) -> bool {
        let has = |words: &str| self.exchanges.iter().any(|(command, _)| command.contains(words));
        let is_heard = !self.greeting.is_empty() || self.timed_out;
        is_heard && !has("STARTTLS") && !has("SIZE=") && (has("MAIL") || self.timed_out || !has("QUIT"))
    }

    fn recipients(&self) -> Vec<String> {
        let transaction = self.exchanges.iter().skip_while(|(command, _)| !command.starts_with("RCPT"));
        let transaction = transaction.map_while(|(command, _)| command.strip_prefix("RCPT TO:<"));
        let mut recipients: Vec<_> = transaction.map(|rest| rest.trim_end_matches('>').to_owned()).collect();
        // Where it was refused before that, there would have been somebody to ask for.
        if recipients.is_empty() {
            recipients.push("user0@example.com".into());
        }
        recipients
    }

    /// The reply to the command of this number among those that begin so.
    fn reply(&self, begins: &str, number: usize) -> Option<&[String]> {
        let (_, lines) = self.exchanges.iter().filter(|(command, _)| command.starts_with(begins)).nth(number)?;
        (!lines.is_empty()).then_some(lines)
    }

    /// The replies to the null sender and its recipient.
    fn null_sender(&self) -> Option<[&[String]; 2]> {
        let at = self.exchanges.iter().position(|(command, _)| command == "MAIL FROM:<>")?;
        Some([&self.exchanges.get(at)?.1, &self.exchanges.get(at + 1)?.1])
    }
}

fn heard(lines: Option<&[String]>, timed_out: bool) -> Heard {
    let Some(lines) = lines.filter(|lines| !lines.is_empty()) else {
        return if timed_out { Heard::Late { begun: None } } else { Heard::Closed };
    };
    let mut replies = Replies::default();
    lines.iter().for_each(|line| replies.push(format!("{line}\r\n").as_bytes()));
    match replies.take() {
        Ok(Some(reply)) => Heard::Reply(reply),
        other => panic!("{lines:?}: {other:?}"),
    }
}

fn ok() -> Heard {
    Heard::Reply(Reply { code: 250, lines: vec!["ok".into()] })
}

/// Plays a dialogue's primary to a rehearsal. `other` is what the same primary said to the null sender.
fn play(dialogue: &Dialogue, other: Option<[&[String]; 2]>) -> Answers {
    let mut rehearsal = Rehearsal::new("backup.example.com", &dialogue.recipients());
    let late = dialogue.timed_out;
    let mut said = heard(Some(&dialogue.greeting), late);
    let (mut asked, mut refusals, mut null) = (0, 0, false);
    while let Some(command) = rehearsal.next(said) {
        let accepts_null = NULL_SENDER_ACCEPTED.contains(&dialogue.file.as_str());
        let of_null = |place: usize| dialogue.null_sender().or(other).map(|replies| replies[place]);
        said = match command.get(..4).unwrap_or_default() {
            "EHLO" => heard(dialogue.reply("EHLO", 0), late),
            "MAIL" if command == "MAIL FROM:<>" => {
                null = true;
                if accepts_null { ok() } else { heard(of_null(0).or(dialogue.reply("MAIL", 0)), late) }
            }
            "MAIL" => heard(dialogue.reply("MAIL", 0), late),
            "RCPT" if null && accepts_null => ok(),
            "RCPT" if null => heard(of_null(1).or(dialogue.reply("RCPT", 0)), late),
            "RCPT" => {
                asked += 1;
                heard(dialogue.reply("RCPT", asked - 1), late)
            }
            // Not recorded of that one, which is said to know HELO only.
            "HELO" | "RSET" | "QUIT" => ok(),
            _ => panic!("{command}"),
        };
        let is_refusal = matches!(&said, Heard::Reply(reply) if reply.code / 100 != 2);
        refusals += usize::from(is_refusal && command.starts_with("RCPT"));
        assert!(
            asked <= 10 && refusals <= MOST_REFUSALS,
            "{} {}: {refusals} of {asked}",
            dialogue.file,
            dialogue.title
        );
    }
    rehearsal.answers()
}

fn dialogues() -> Vec<Dialogue> {
    let mut files: Vec<_> =
        fs::read_dir(tests().join("fixtures/rehearsal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().flat_map(|file| Dialogue::all(file)).filter(Dialogue::is_rehearsal).collect()
}

/// What is made of each dialogue, by file and title.
fn played() -> BTreeMap<(String, String), Answers> {
    let dialogues = dialogues();
    let null_of = |file: &str| {
        let same = |one: &&Dialogue| one.file == file && one.title.contains("null sender");
        dialogues.iter().find(same).and_then(Dialogue::null_sender)
    };
    let key = |dialogue: &Dialogue| (dialogue.file.clone(), dialogue.title.clone());
    dialogues.iter().map(|dialogue| (key(dialogue), play(dialogue, null_of(&dialogue.file)))).collect()
}

/// The mail server of this host, where the verdict depends on it: sendmail and Exim return what a greeting turns away.
const KINDS: [Kind; 4] = [Kind::Postfix, Kind::Sendmail, Kind::Exim, Kind::OpenSmtpd];

fn verdicts(answers: &Answers) -> [Verdict; 4] {
    KINDS.map(|kind| Verdict::on(answers, kind))
}

#[test]
fn every_recorded_primary_gets_its_verdict() {
    let mut text = String::new();
    for ((file, title), answers) in played() {
        let verdicts = verdicts(&answers);
        let (refused, accepted, all) = (answers.refused(), answers.accepted(), answers.recipients.len());
        writeln!(text, "{file}: {title}").unwrap();
        if verdicts.iter().all(|verdict| *verdict == verdicts[0]) {
            writeln!(text, "    {:?}", verdicts[0]).unwrap();
        } else {
            KINDS.iter().zip(&verdicts).for_each(|(kind, verdict)| writeln!(text, "    {kind:?} {verdict:?}").unwrap());
        }
        writeln!(text, "    {all} answered, {accepted} accepted, {refused} refused; {:?}", answers.end).unwrap();
        if let Some(limit) = &answers.limit {
            writeln!(text, "    limit: {}", limit.words).unwrap();
        }
        if let Some(said) = &answers.null_sender {
            writeln!(text, "    null sender: {}", said.words).unwrap();
        }
    }
    let golden = tests().join("golden/rehearsal.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(golden).unwrap());
}

/// The verdict file's names of primaries whose dialogue has another title.
const TITLES: [(&str, &str, &str); 37] = [
    ("postfix: all exist", "pf-exist.txt", "all 10 exist"),
    ("postfix: all unknown", "pf-unknown10.txt", "10 unknown (soft error limit 10, 1 s sleep)"),
    ("postfix: half unknown", "pf-half.txt", "postfix: half unknown"),
    ("postfix: relay denied 554", "pf-relay.txt", "postfix: domain not configured, reject_unauth_destination"),
    (
        "postfix: relay denied 454",
        "pf-relay.txt",
        "postfix: domain not configured, defer_unauth_destination (Debian default relay restrictions)",
    ),
    (
        "postfix: reject_unknown_sender_domain (450 4.1.8)",
        "pf-nodns-sender.txt",
        "reject_unknown_sender_domain, no DNS",
    ),
    ("postfix: recipient limit 5", "pf-rcptlimit5.txt", "smtpd_recipient_limit=5"),
    ("postfix: sender refused at MAIL (no delay_reject)", "pf-nodelay.txt", "smtpd_delay_reject=no, sender refused"),
    (
        "postfix: every sender refused, at RCPT",
        "pf-sender-refused.txt",
        "smtpd_delay_reject=yes (default), sender refused: said at RCPT",
    ),
    ("postfix: TLS required", "pf-tls-required.txt", "TLS required, no STARTTLS"),
    ("postfix: client refused", "pf-client-refused.txt", "smtpd_client_restrictions=reject (shown at RCPT)"),
    ("postfix: reject_unverified_recipient", "pf-unverified.txt", "reject_unverified_recipient"),
    (
        "postfix: own domain as sender refused",
        "pf-own-domain.txt",
        "sender rule: example.com REJECT (own domain from outside)",
    ),
    ("postfix: unknown HELO 450", "pf-helo.txt", "reject_unknown_helo_hostname, no DNS"),
    ("postfix: map file missing 451", "pf-missing-map.txt", "virtual_mailbox_maps file missing"),
    ("postfix: hard error limit 5", "pf-hard5.txt", "smtpd_hard_error_limit=5, 10 unknown"),
    ("postfix: rate limit", "pf-rate.txt", "smtpd_client_recipient_rate_limit=5"),
    (
        "postfix: 4 s sleeps from the second error",
        "pf-slow-errors.txt",
        "soft limit 2, 4 s sleeps; budget 5; then QUIT without waiting",
    ),
    ("postfix: reject_unverified_sender", "pf-unverified-sender.txt", "reject_unverified_sender"),
    ("postscreen, greet wait 6 s (no cache)", "pf-postscreen.txt", "postscreen, budget 12 (second try)"),
    ("postscreen, deep tests", "pf-postscreen-deep.txt", "postscreen deep protocol tests, budget 15"),
    ("exim: all exist", "ex-exist.txt", "exim: all exist"),
    ("exim: unknown", "ex-unknown.txt", "exim: 10 unknown"),
    ("exim: half", "ex-half.txt", "exim: half unknown"),
    ("exim: relay not permitted", "ex-relay.txt", "exim: domain not configured"),
    ("exim: sender verify fails (NXDOMAIN)", "ex-sender-verify-nx.txt", "exim: verify = sender, NXDOMAIN"),
    ("exim: delay 3s on unknown", "ex-delay.txt", "exim: delay = 3s on unknown, budget 5"),
    ("exim: refused after DATA", "ex-data.txt", "exim: all accepted at RCPT, refused after DATA"),
    ("exim: recipients_max 5 (452)", "ex-recipients-max.txt", "exim: recipients_max = 5"),
    ("exim: recipients_max_reject (552)", "ex-recipients-max.txt", "exim: recipients_max = 5, recipients_max_reject"),
    ("opensmtpd: unknown", "os-unknown.txt", "opensmtpd: 10 unknown"),
    ("opensmtpd: tls-require", "os-tls.txt", "opensmtpd: tls-require, no STARTTLS"),
    ("opensmtpd: sender refused", "os-sender.txt", "opensmtpd: filter refuses the sender"),
    ("sendmail: all exist", "sm-exist.txt", "sendmail: all exist, client 127.0.0.77"),
    ("sendmail: unknown", "sm-unknown.txt", "sendmail: 10 unknown, budget 20"),
    ("sendmail: half", "sm-half.txt", "sendmail: half unknown"),
    ("sendmail: relaying denied", "sm-relay.txt", "sendmail: domain not configured"),
];

/// The verdict file's primaries that were only recorded with less time than a rehearsal takes, or not at all.
const OTHERWISE: [&str; 2] = ["odd: greeting after 6 s", "postfix: 2 of 10 unknown"];

/// The verdict in the words of the verdict file.
fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Accepts | Verdict::AcceptsOthers | Verdict::RefusesSome => "RUN",
        Verdict::PutsOff => "LATER",
        Verdict::NotKnown(_) => "NOT KNOWN",
        Verdict::Refuses(_) => "REFUSED",
    }
}

#[test]
fn the_verdicts_are_those_of_the_rules() {
    let played = played();
    let text = fs::read_to_string(tests().join("fixtures/rehearsal/verdicts-of-the-proposed-rules.txt")).unwrap();
    let mut compared = 0;
    for line in text.lines() {
        // A name, the time that it took, the verdict.
        let (name, rest) = line.split_once("  ").unwrap();
        let (_, verdict) = rest.split_once("s  ").unwrap();
        if OTHERWISE.contains(&name) {
            continue;
        }
        let found = TITLES.iter().find(|(known, ..)| *known == name).map(|(_, file, title)| (*file, *title));
        let found = found.or_else(|| name.strip_prefix("odd: ").map(|title| ("odd.txt", title)));
        let of_title = |title: &str| played.keys().find(|(_, known)| known == title).map(|(file, _)| file.as_str());
        let (file, title) = found.or_else(|| Some((of_title(name)?, name))).unwrap_or_else(|| panic!("{name}"));
        let answers = played.get(&(file.to_owned(), title.to_owned())).unwrap_or_else(|| panic!("{file}: {title}"));
        // Of a greeting that turns away, the file says what sendmail and Exim do.
        let taken_for = word(Verdict::on(answers, Kind::Exim));
        assert!(verdict.starts_with(taken_for), "{name}: {verdict}, not {taken_for}: {answers:?}");
        let only_sender = verdict.contains("only this rehearsal's sender");
        assert_eq!(Verdict::on(answers, Kind::Exim) == Verdict::AcceptsOthers, only_sender, "{name}");
        compared += 1;
    }
    assert!(compared > 60, "{compared}");
}
