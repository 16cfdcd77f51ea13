//! Every recorded output of the mail servers, read by the parsers, against the expected JSON beside it.
//!
//! `tests/fixtures/MTA/CASE.{stdout,stderr,rc}` is what the real program of Debian 12 printed and returned;
//! `tests/golden/MTA/CASE.json` what it means. `tests/fixtures-debian13` and `tests/golden-debian13` are the same for
//! Debian 13. `UPDATE_GOLDEN=1 cargo test --test golden` writes these
//! files again: read the difference before you keep it.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bartleby::mta::trouble::{Status, Trouble};
use bartleby::mta::{self, Clock, Kind, Mta, Part, Search};
use bartleby::queue::{Message, Summary};
use bartleby::system::Account;
use bartleby::system::process::{Ending, Exit};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

/// The recordings of one release of Debian.
struct Release {
    /// Folders below `tests`.
    fixtures: &'static str,
    golden: &'static str,
    /// They were made before this instant of the same day, in UTC.
    recorded: &'static str,
}

const DEBIAN_12: Release = Release { fixtures: "fixtures", golden: "golden", recorded: "2026-11-23T11:45:00Z" };

const DEBIAN_13: Release =
    Release { fixtures: "fixtures-debian13", golden: "golden-debian13", recorded: "2026-11-24T07:30:00Z" };

impl Release {
    fn clock(&self) -> Clock {
        Clock { now: self.recorded.parse::<jiff::Timestamp>().unwrap().as_second(), zone: TimeZone::UTC }
    }
}

fn clock() -> Clock {
    DEBIAN_12.clock()
}

fn account(case: &str) -> Account {
    if case.contains("root") {
        Account { uid: 0, name: "root".into(), bound: false }
    } else {
        Account { uid: 33, name: "www-data".into(), bound: false }
    }
}

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

struct Fixture {
    stdout: Vec<u8>,
    exit: Exit,
    /// Flushers are judged by what they say on both streams.
    said_on_both: String,
}

fn fixture(mta: &str, case: &str) -> Fixture {
    fixture_of(&DEBIAN_12, mta, case)
}

fn fixture_of(release: &Release, mta: &str, case: &str) -> Fixture {
    let folder = tests().join(release.fixtures).join(mta);
    let read = |ending: &str| fs::read(folder.join(format!("{case}.{ending}"))).unwrap();
    let stdout = read("stdout");
    let said = String::from_utf8(read("stderr")).unwrap();
    let code = String::from_utf8(read("rc")).unwrap().trim().parse().unwrap();
    Fixture {
        said_on_both: format!("{}\n{said}", String::from_utf8_lossy(&stdout)),
        exit: Exit {
            ending: Ending::Exited,
            code: Some(code),
            signal: None,
            said,
            allowed: Duration::from_secs(20),
            unfinished: !stdout.is_empty() && !stdout.ends_with(b"\n"),
        },
        stdout,
    }
}

/// What is read from a listing.
type Listed = (Vec<Message<'static>>, Option<Trouble>);

fn list(mta: &dyn Mta, stdout: &[u8], exit: &Exit, account: &Account) -> Listed {
    list_at(&clock(), mta, stdout, exit, account)
}

fn list_at(clock: &Clock, mta: &dyn Mta, stdout: &[u8], exit: &Exit, account: &Account) -> Listed {
    let mut messages = Vec::new();
    let mut keep = |message: &Message<'_>| messages.push(message.clone().into_owned());
    let mut parser = mta.parser(clock);
    let mut lines: Vec<&[u8]> = stdout.split(|byte| *byte == b'\n').collect();
    lines.pop();
    lines.into_iter().for_each(|line| parser.line(line, &mut keep));
    let trouble = parser.end(&mta.list_commands()[0], exit, account, &mut keep).err();
    (messages, trouble)
}

fn verdict(trouble: Option<&Trouble>) -> Value {
    json!({
        "status": trouble.map_or(Status::Ok, Trouble::status),
        "message": trouble.map(Trouble::to_string),
        "remedy": trouble.map(Trouble::remedy),
    })
}

fn cases(release: &Release, mta: &str) -> Vec<String> {
    let mut cases: Vec<String> = fs::read_dir(tests().join(release.fixtures).join(mta))
        .unwrap()
        // The message log is read by a test of its own.
        .filter(|entry| !entry.as_ref().unwrap().file_name().to_string_lossy().contains("mvl"))
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".stdout").map(str::to_owned))
        .collect();
    cases.sort();
    cases
}

fn is_flush(case: &str) -> bool {
    ["flush", "bad-id", "schedule"].iter().any(|word| case.contains(word))
}

fn compare(kind: Kind, name: &str) {
    compare_with(&DEBIAN_12, kind, name);
    compare_with(&DEBIAN_13, kind, name);
}

fn compare_with(release: &Release, kind: Kind, name: &str) {
    let mta = mta::find(Some(kind), &Search::below(Path::new("/nonexistent"))).unwrap();
    let mut wrong = Vec::new();
    let cases = cases(release, name);
    assert!(!cases.is_empty());
    for case in &cases {
        let Fixture { stdout, exit, said_on_both } = fixture_of(release, name, case);
        let result = if is_flush(case) {
            let exit = Exit { said: said_on_both, ..exit };
            let command = &mta.flush_commands(&Part::All)[0];
            json!({ "flush": verdict(mta.flush_verdict(command, &exit, &account(case)).err().as_ref()) })
        } else {
            let (messages, trouble) = list_at(&release.clock(), &*mta, &stdout, &exit, &account(case));
            json!({ "list": verdict(trouble.as_ref()), "messages": messages })
        };
        let file = tests().join(release.golden).join(name).join(format!("{case}.json"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, serde_json::to_string_pretty(&result).unwrap() + "\n").unwrap();
        }
        let expected: Value = serde_json::from_slice(&fs::read(&file).unwrap_or_default()).unwrap_or_default();
        if expected != result {
            wrong.push(format!("{case}: {result:#}\ninstead of {expected:#}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
}

#[test]
fn every_postfix_fixture_reads_as_expected() {
    compare(Kind::Postfix, "postfix");
}

#[test]
fn every_sendmail_fixture_reads_as_expected() {
    compare(Kind::Sendmail, "sendmail");
}

#[test]
fn every_exim_fixture_reads_as_expected() {
    compare(Kind::Exim, "exim");
}

#[test]
fn every_opensmtpd_fixture_reads_as_expected() {
    compare(Kind::OpenSmtpd, "opensmtpd");
}

#[test]
fn both_listings_of_postfix_describe_the_same_queue() {
    let mta = mta::find(Some(Kind::Postfix), &Search::default()).unwrap();
    for (release, json, table) in
        [(&DEBIAN_12, "mixed-json", "mixed-text"), (&DEBIAN_13, "expired-json", "expired-text")]
    {
        let read = |case| {
            let Fixture { stdout, exit, .. } = fixture_of(release, "postfix", case);
            list_at(&release.clock(), &*mta, &stdout, &exit, &account(case))
        };
        let ((json, _), (table, trouble)) = (read(json), read(table));
        assert_eq!(trouble, None);
        assert!(json == table, "the two forms differ");
    }
}

/// A listing that is cut anywhere, or whose lister fails, is never taken for an empty or whole queue.
#[test]
fn a_listing_that_breaks_off_is_never_taken_for_whole() {
    for (kind, name, case) in [
        (Kind::Postfix, "postfix", "mixed-text"),
        (Kind::Postfix, "postfix", "empty-text"),
        (Kind::Sendmail, "sendmail", "mixed-bp-verbose"),
        (Kind::Sendmail, "sendmail", "mixed-mailq"),
        (Kind::Sendmail, "sendmail", "empty-mailq"),
        (Kind::Exim, "exim", "mixed-bp"),
    ] {
        let mta = mta::find(Some(kind), &Search::default()).unwrap();
        let Fixture { stdout, exit, .. } = fixture(name, case);
        let account = account(case);
        let (whole, trouble) = list(&*mta, &stdout, &exit, &account);
        assert_eq!(trouble, None, "{case}");
        for end in 1..stdout.len() {
            let exit = Exit { unfinished: stdout[end - 1] != b'\n', ..exit.clone() };
            let (part, trouble) = list(&*mta, &stdout[..end], &exit, &account);
            assert!(part.len() <= whole.len());
            // A listing that is whole so far looks like a whole one: each section of Debian's mailq is a listing of
            // its own, and Exim's has neither head nor end. There, only the exit status shows the difference.
            let whole_so_far = stdout[..end].ends_with(b"Total requests: 0\n")
                || (kind == Kind::Exim && stdout[..end].ends_with(b"\n\n"));
            assert!(trouble.is_some() || whole_so_far, "{case} cut at byte {end} is taken for whole");
        }
    }
    // JSON has neither head nor end. There, only a line that is cut and the exit status show the difference.
    let mta = mta::find(Some(Kind::Postfix), &Search::default()).unwrap();
    let Fixture { stdout, exit, .. } = fixture("postfix", "mixed-json");
    for end in 1..stdout.len() {
        let exit = Exit { unfinished: stdout[end - 1] != b'\n', ..exit.clone() };
        let (_, trouble) = list(&*mta, &stdout[..end], &exit, &account("x"));
        assert_eq!(trouble.is_none(), stdout[end - 1] == b'\n', "cut at byte {end}");
    }
    for (code, signal) in [(Some(1), None), (Some(70), None), (None, Some(9))] {
        let exit = Exit { code, signal, ..exit.clone() };
        let (messages, trouble) = list(&*mta, &stdout, &exit, &account("x"));
        assert_eq!(trouble.unwrap().status(), Status::Failed);
        assert!(!messages.is_empty(), "what was read is kept");
    }
}

#[test]
fn byte_soup_fails_with_its_line_and_never_panics() {
    let soups: [&[u8]; 8] = [
        b"\xff\xfe\x00\n",
        b"{\"queue_name\": 5}\n",
        b"[]\nnull\n",
        b"<html>\n",
        b"\t\t\t\t\t\t<a@b>\n",
        b"6ANBRNao007963\n",
        b"6ANBRNao007963      182      30212 Nov 23\n",
        b"   (\n\t\t (x)\n",
    ];
    for kind in [Kind::Postfix, Kind::Sendmail, Kind::Exim, Kind::OpenSmtpd] {
        let mta = mta::find(Some(kind), &Search::default()).unwrap();
        let exit = fixture("postfix", "empty-json").exit;
        for soup in soups {
            let (messages, trouble) = list(&*mta, soup, &exit, &account("x"));
            assert!(messages.is_empty());
            let trouble = trouble.unwrap();
            assert_eq!(trouble.status(), Status::Failed);
            assert!(trouble.to_string().contains("the first is line 1"), "{trouble}");
        }
    }
}

#[test]
fn one_bad_line_in_the_middle_hides_no_message() {
    for (kind, name, case) in [
        (Kind::Postfix, "postfix", "mixed-json"),
        (Kind::Postfix, "postfix", "mixed-text"),
        (Kind::Sendmail, "sendmail", "mixed-bp-verbose"),
        (Kind::Sendmail, "sendmail", "mixed-mailq"),
        (Kind::Exim, "exim", "mixed-bp"),
        (Kind::OpenSmtpd, "opensmtpd", "mixed-show-queue"),
    ] {
        let mta = mta::find(Some(kind), &Search::default()).unwrap();
        let Fixture { stdout, exit, .. } = fixture(name, case);
        let (whole, trouble) = list(&*mta, &stdout, &exit, &account(case));
        assert_eq!(trouble, None, "{case}");
        assert!(whole.len() > 2, "{case}");
        // Before the first line of the message in the middle.
        let id = whole[whole.len() / 2].id.as_bytes();
        let mut lines: Vec<&[u8]> = stdout.split(|byte| *byte == b'\n').collect();
        let middle = lines.iter().position(|line| line.windows(id.len()).any(|word| word == id)).unwrap();
        lines.insert(middle, b"what?");
        let (messages, trouble) = list(&*mta, &lines.join(&b'\n'), &exit, &account(case));
        assert!(messages == whole, "{name}/{case}: {} messages of {}", messages.len(), whole.len());
        let expected = Trouble::NotUnderstood { mta: kind, count: 1, line: middle as u64 + 1, text: "what?".into() };
        assert_eq!(trouble, Some(expected), "{name}/{case}");
    }
}

#[test]
fn counts_add_up() {
    let mta = mta::find(Some(Kind::Postfix), &Search::default()).unwrap();
    let Fixture { stdout, exit, .. } = fixture("postfix", "mixed-json");
    let (messages, _) = list(&*mta, &stdout, &exit, &account("x"));
    let mut summary = Summary::new(clock().now);
    messages.iter().for_each(|message| summary.add(message));
    let recipients: usize = messages.iter().map(|message| message.recipients.len()).sum();
    assert_eq!(summary.messages, stdout.split(|byte| *byte == b'\n').count() as u64 - 1);
    assert_eq!(summary.recipients, recipients as u64);
    assert_eq!(summary.destinations(100).iter().map(|d| d.recipients).sum::<u64>(), summary.recipients);
}
