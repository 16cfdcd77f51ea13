//! Mail logs of real queue runs, against what the servers that took the mail saw.
//!
//! `tests/fixtures-log/MTA/CASE.before` and `.after` are the listings around a run, `CASE.log` is what the mail server
//! wrote from its start on while strangers wrote what looks like outcomes, `CASE.truth.json` is what became of each
//! recipient by the answers of the server that the mail was for. The other `.log` files hold the same lines in other
//! forms of syslog and the journal, `.log.1` the part before a rotation, `.intake.log` what was written before the run.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod listed;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bartleby::mta::{Kind, MailLog, Outcome};

use listed::list;

/// Queue id, recipient as it was offered to the next server, and what became of it.
type Truth = BTreeMap<String, BTreeMap<String, String>>;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures-log").join(name)
}

/// A case, read with the lines of one form of its log.
fn outcomes(kind: Kind, name: &str, case: &str, logs: &[PathBuf]) -> Vec<(String, String, Outcome)> {
    let listing = |ending: &str| list(kind, &fs::read(folder(name).join(format!("{case}.{ending}"))).unwrap());
    let mut log = MailLog::of(kind, Some(33)).unwrap();
    listing("before").iter().for_each(|message| log.waited(message));
    for file in logs {
        fs::read(file).unwrap().split(|byte| *byte == b'\n').for_each(|line| log.line(line));
    }
    listing("after").iter().for_each(|message| log.waits(message));
    log.outcomes().map(|(id, recipient, outcome)| (id.to_owned(), recipient.to_owned(), outcome)).collect()
}

/// An address without what mail servers spell differently: case, quotes, escapes, blanks.
fn bare(address: &str) -> String {
    let plain = address.replace("\\011", " ").replace('\t', " ");
    plain.chars().filter(|c| !matches!(c, '"' | '\\')).collect::<String>().to_lowercase()
}

fn is_from_null_sender(kind: Kind, listing: &Path, id: &str) -> bool {
    list(kind, &fs::read(listing).unwrap())
        .iter()
        .any(|message| message.id == id && message.sender.as_deref() == Some(""))
}

fn cases(name: &str) -> Vec<(String, Truth)> {
    let mut cases: Vec<_> = fs::read_dir(folder(name))
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let case = path.file_name()?.to_str()?.strip_suffix(".truth.json")?.to_owned();
            Some((case, serde_json::from_slice(&fs::read(&path).unwrap()).unwrap()))
        })
        .collect();
    cases.sort_by(|one, other| one.0.cmp(&other.0));
    assert!(cases.len() >= 6, "{name}: {}", cases.len());
    cases
}

/// Each form of a case's log, as the files to be read one after another.
fn forms(name: &str, case: &str) -> Vec<Vec<PathBuf>> {
    let older = folder(name).join(format!("{case}.log.1"));
    let forms = ["log", "rfc3339.log", "json.log", "short-iso.log", "short.log"];
    let forms = forms.map(|form| folder(name).join(format!("{case}.{form}")));
    let with_older = |log: PathBuf| [older.clone(), log].into_iter().filter(|file| file.exists()).collect();
    let found: Vec<_> = forms.into_iter().filter(|log| log.exists()).map(with_older).collect();
    assert!(!found.is_empty(), "{name}/{case}");
    found
}

/// What the log says of every recipient is what happened. Returns how many it does not name.
fn assert_true(kind: Kind, name: &str) -> usize {
    let mut unrecorded = 0;
    let mut wrong = Vec::new();
    for (case, truth) in cases(name) {
        for form in forms(name, &case) {
            let read = outcomes(kind, name, &case, &form);
            assert!(!read.is_empty(), "{name}/{case}");
            for (id, recipient, outcome) in read {
                let of_message = truth.get(&id).unwrap_or_else(|| panic!("{name}/{case}: no {id}"));
                let shown = bare(recipient.trim_end_matches('…'));
                let is_same = |address: &str| {
                    if recipient.ends_with('…') { bare(address).starts_with(&shown) } else { bare(address) == shown }
                };
                let really = of_message.iter().find(|(address, _)| is_same(address));
                let really = really.map_or("nothing", |(_, really)| really.as_str());
                let said = match &outcome {
                    Outcome::Delivered => "delivered",
                    Outcome::Returned(why) => {
                        assert!(!why.is_empty(), "{name}/{case}: {id} {recipient}");
                        "returned"
                    }
                    Outcome::Waiting => "deferred",
                    Outcome::Unrecorded => {
                        unrecorded += 1;
                        eprintln!("{}: {id} {recipient}: no record; really {really}", form[0].display());
                        continue;
                    }
                };
                // Exim keeps a refused message of which nobody can be notified, frozen.
                let stays = kind == Kind::Exim && really == "returned" && outcome == Outcome::Waiting;
                if stays && is_from_null_sender(kind, &folder(name).join(format!("{case}.after")), &id) {
                    continue;
                }
                if said != really {
                    wrong.push(format!("{}: {id} {recipient}: {said}, really {really}", form[0].display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    unrecorded
}

#[test]
fn postfix() {
    assert_eq!(assert_true(Kind::Postfix, "postfix"), 0);
}

#[test]
fn sendmail() {
    assert_eq!(assert_true(Kind::Sendmail, "sendmail"), 0);
}

#[test]
fn exim() {
    assert_eq!(assert_true(Kind::Exim, "exim"), 0);
}

#[test]
fn opensmtpd() {
    assert_eq!(assert_true(Kind::OpenSmtpd, "opensmtpd"), 0);
}

/// What strangers make the mail server write before a run says nothing of it.
#[test]
fn what_was_written_before_the_run_says_nothing_about_it() {
    for (kind, name) in
        [(Kind::Postfix, "postfix"), (Kind::Sendmail, "sendmail"), (Kind::Exim, "exim"), (Kind::OpenSmtpd, "opensmtpd")]
    {
        for (case, _) in cases(name) {
            let intake = folder(name).join(format!("{case}.intake.log"));
            if !intake.exists() {
                continue;
            }
            for (id, recipient, outcome) in outcomes(kind, name, &case, &[intake]) {
                let is_told = !matches!(outcome, Outcome::Waiting | Outcome::Unrecorded);
                assert!(!is_told, "{name}/{case}: {id} {recipient}: {outcome:?}");
            }
        }
    }
}

fn postfix_of(recipients: &[&str], lines: &[&str]) -> Vec<Outcome> {
    let mut log = MailLog::of(Kind::Postfix, Some(33)).unwrap();
    let recipients: Vec<_> = recipients.iter().map(|address| serde_json::json!({ "address": address })).collect();
    let message = serde_json::json!({
        "queue_name": "deferred", "queue_id": "1E7EC9C4458", "arrival_time": 1, "message_size": 1,
        "sender": "bob@example.net", "recipients": recipients,
    });
    list(Kind::Postfix, format!("{message}\n").as_bytes()).iter().for_each(|message| log.waited(message));
    lines.iter().for_each(|line| log.line(line.as_bytes()));
    log.outcomes().map(|(_, _, outcome)| outcome).collect()
}

const SENT: &str = "relay=mx[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)";

#[test]
fn a_line_that_may_have_been_cut_and_one_of_another_program_say_nothing() {
    let smtp = |text: &str| format!("Nov 24 08:14:21 bartleby postfix/smtp[1]: {text}");
    let line = smtp(&format!("1E7EC9C4458: to=<larry@example.com>, {SENT}"));
    assert_eq!(postfix_of(&["larry@example.com"], &[&line]), [Outcome::Delivered]);
    for wrong in [
        line.replace("postfix/smtp[", "postfix/smtpd["),
        line.replace("postfix/smtp[", "sendmail["),
        line.replace("1E7EC9C4458: to", "1E7EC9C4458:  to"),
        line.replace("larry", "moe"),
        line.replace("1E7EC9C4458", "1E7EC9C4459"),
        line.replace("dsn=2.0.0", "dsn=2.0.x"),
        format!("{line}{}", "x".repeat(2000)),
        smtp(&format!("AAAAAAAAAA: message-id=<x> {line}")),
        smtp(&format!("1E7EC9C4458: to=<\"larry@example.com>, {SENT}")),
    ] {
        assert_eq!(postfix_of(&["larry@example.com"], &[&wrong]), [Outcome::Unrecorded], "{wrong}");
    }
}

#[test]
fn the_journal_says_who_wrote_a_line_and_ours_do_not_count() {
    let line = |user: u32| {
        serde_json::json!({
            "MESSAGE": format!("1E7EC9C4458: to=<larry@example.com>, {SENT}"),
            "SYSLOG_IDENTIFIER": "postfix/smtp", "_UID": user.to_string(),
        })
        .to_string()
    };
    assert_eq!(postfix_of(&["larry@example.com"], &[&line(33)]), [Outcome::Unrecorded]);
    assert_eq!(postfix_of(&["larry@example.com"], &[&line(102)]), [Outcome::Delivered]);
}

#[test]
fn another_case_is_taken_for_the_same_recipient_only_where_one_is_meant() {
    let line = format!("Nov 24 08:14:21 bartleby postfix/smtp[1]: 1E7EC9C4458: to=<LARRY@example.com>, {SENT}");
    assert_eq!(postfix_of(&["larry@example.com"], &[&line]), [Outcome::Delivered]);
    let two = postfix_of(&["larry@example.com", "Larry@example.com"], &[&line]);
    assert_eq!(two, [Outcome::Unrecorded, Outcome::Unrecorded]);
}
