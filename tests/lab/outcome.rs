//! What came of a queue run, by the mail log of each mail server: exact where root lends it, and honest without.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::client;
use crate::machine::Lab;
use crate::mails::Mail;
use crate::primary::Mode;
use crate::syslog::MAIL_LOG;
use crate::{mta, page, rule, story, wait};

const CONFIGURATION: &str = "/etc/bartleby.toml";

const POSTFIXS_LOG: &str = "/var/log/postfix.log";
const EXIMS_LOG: &str = "/var/log/exim4/mainlog";

/// A run without the rule, and one with it.
pub fn of_a_run(lab: &mut Lab) {
    fs::write(CONFIGURATION, "[flush]\ncooldown = \"1s\"\nrehearse = false\n").unwrap();
    // As Debian's rsyslog makes it; Exim's own is in a folder that others can't enter.
    fs::set_permissions(MAIL_LOG, Permissions::from_mode(0o640)).unwrap();
    match lab.mta.kind() {
        "sendmail" => rule::install_for("/usr/sbin/sendmail"),
        "exim" => rule::install_for("/usr/sbin/exim4"),
        "opensmtpd" => rule::install_for("/usr/sbin/smtpctl"),
        _ => rule::remove(),
    }
    let outcome = run(lab, 7);
    assert_eq!(["delivered", "returned", "unrecorded"].map(|key| &outcome[key]), [&Value::Null; 3], "{outcome:#}");
    let words = outcome["words"].as_str().unwrap();
    assert!(words.contains("gone from here: delivered, or returned to the sender"), "{words}");
    assert!(!words.contains("returned to the sender ("), "{words}");

    rule::remove();
    rule::install();
    // The two that waited at the end of the first run do so still, and so may the notices of what it returned.
    let outcome = run(lab, 9);
    let of = page::json(200).flush.last.unwrap();
    let before = of["recipients"].as_u64().unwrap();
    assert!(before >= 9, "{of:#}");
    assert_eq!(figures(&outcome), [3, 2, 0, before - 5], "{outcome:#}");
    let words = outcome["words"].as_str().unwrap();
    let expected = format!("of {before} recipients: 3 delivered, 2 returned to the sender (550 5.1.1");
    assert!(words.starts_with(&expected), "{words}");
    assert!(words.contains(&format!("), {} still waiting", before - 5)), "{words}");
    let number = of["number"].clone();
    let shown = page::get(&format!("?flushed={number}&format=html")).expect(200).body;
    assert!(shown.contains("Returned to the sender</h2>") && shown.contains("<bdi>gone@example.com</bdi>"), "{shown}");
    assert!(shown.contains("class=\"outcome alarm\""), "{shown}");
    assert!(!shown.contains("<th scope=\"row\"><bdi>larry@example.com</bdi>"), "{shown}");

    // Once all is taken, nothing but that is said.
    lab.primary.up(Mode::Accepts);
    let outcome = flush_and_wait();
    let before = page::json(200).flush.last.unwrap()["recipients"].as_u64().unwrap();
    assert_eq!(figures(&outcome), [4, 0, 0, before - 4], "{outcome:#}");
    assert!(outcome["words"].as_str().unwrap().contains("4 delivered"), "{outcome:#}");
    assert!(outcome["returned_for"].is_null(), "{outcome:#}");
    if lab.mta.kind() == "postfix" {
        of_a_named_log(lab);
    }
}

/// The same where the log is the journal, which root lends.
pub fn of_a_run_in_the_journal(lab: &mut Lab) {
    fs::write(CONFIGURATION, "[flush]\ncooldown = \"1s\"\nrehearse = false\n").unwrap();
    let outcome = run(lab, 7);
    assert_eq!(figures(&outcome)[..3], [3, 2, 0], "{outcome:#}");
    fs::remove_file(CONFIGURATION).unwrap();
}

fn figures(outcome: &Value) -> [u64; 4] {
    ["delivered", "returned", "unrecorded", "recipients_left"].map(|key| outcome[key].as_u64().unwrap())
}

/// A file that Postfix writes itself, which it renames and compresses at once in the middle of the run.
fn of_a_named_log(lab: &mut Lab) {
    mta::run("postconf", &["-e", &format!("maillog_file = {POSTFIXS_LOG}"), "maillog_file_prefixes = /var"]);
    let postlog = "postlog/unix-dgram=postlog unix-dgram n - n - 1 postlogd";
    mta::run("postconf", &["-M", postlog]);
    mta::run("postfix", &["stop"]);
    mta::run("postfix", &["start"]);
    queue_until(lab, 7);
    lab.primary.up(Mode::Torn);
    story::cooled_down();
    page::flush("?flush");
    wait::until("the first lines are there", 20, || {
        let log = fs::read_to_string(POSTFIXS_LOG).unwrap_or_default();
        if log.contains("status=sent") { Ok(()) } else { Err(log) }
    });
    mta::run("postfix", &["logrotate"]);
    let outcome = settled();
    let compressed = fs::read_dir("/var/log").unwrap().flatten().filter(|file| {
        let name = file.file_name().into_string().unwrap();
        name.starts_with("postfix.log.") && name.ends_with(".gz")
    });
    assert_eq!(compressed.count(), 1);
    assert_eq!(figures(&outcome)[..3], [3, 2, 0], "{outcome:#}");
    lab.primary.up(Mode::Accepts);
    flush_and_wait();
}

/// Queues mail for seven recipients, in a queue in which so many of `example.com` wait then.
fn queue_until(lab: &mut Lab, waiting: usize) {
    // It is up: OpenSMTPD leaves one alone for a while that was down.
    lab.primary.up(Mode::PutsOffData);
    client::send(lab.mta, |_| {
        vec![
            Mail::new("one", "alice@example.org", &["larry@example.com"]),
            Mail::new("two", "bob@example.net", &["curly@example.com", "gone@example.com"]),
            Mail::new("three", "carol@example.org", &["gone@example.com"]),
            Mail::new("four", "dave@example.org", &["slow@example.com"]),
            Mail::new("five", "erin@example.org", &["moe@example.com", "slow@example.com"]),
        ]
    });
    let is_exim = lab.mta.kind() == "exim";
    wait::until("all are deferred", 60, || {
        let listing = page::try_json(200)?;
        let ours = listing.waiting().filter(|(address, _)| address.ends_with("@example.com"));
        // Why it waits is not in Exim's listing, but in its log.
        let tried = ours.filter(|(_, reason)| is_exim || !reason.is_empty()).count();
        let is_tried = !is_exim || fs::read_to_string(EXIMS_LOG).unwrap_or_default().matches(" == ").count() >= waiting;
        let is_settled = listing.messages.iter().all(|message| message.state == "deferred");
        (is_settled && is_tried && tried == waiting).then_some(()).ok_or(format!("{listing:?}"))
    });
}

/// Of these seven recipients the primary takes three, refuses two and puts off two. Runs the queue, and returns what came
/// of it.
fn run(lab: &mut Lab, waiting: usize) -> Value {
    queue_until(lab, waiting);
    let before = lab.primary.deliveries().len();
    lab.primary.up(Mode::Torn);
    let outcome = flush_and_wait();
    assert_eq!(lab.primary.deliveries().len() - before, 3, "the primary took them");
    outcome
}

fn flush_and_wait() -> Value {
    story::cooled_down();
    page::flush("?flush");
    settled()
}

fn settled() -> Value {
    wait::until("the run is over", 150, || {
        let outcome = page::try_json(200)?.flush.last.ok_or("no run")?["outcome"].clone();
        if outcome["settled"] == true { Ok(outcome) } else { Err(format!("{outcome:#}")) }
    })
}
