//! `doctor --rehearse`: an outage played with reads only.

use crate::machine::Machine;
use crate::played::{Played, accepts, puts_off, refuses};

/// What it says, and its exit status.
fn doctor(machine: &Machine, more: &[&str]) -> (Option<i32>, String) {
    let output = machine.command().arg("doctor").args(more).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// The line on this subject, with its mark.
#[track_caller]
fn line<'a>(text: &'a str, subject: &str) -> &'a str {
    let is_meant = |line: &&str| line.get(6..).is_some_and(|rest| rest.starts_with(&format!("{subject}: ")));
    text.lines().find(is_meant).unwrap_or_else(|| panic!("{subject}: {text}"))
}

#[test]
fn a_primary_that_accepts_three_recipients_is_fine_and_nothing_is_sent_or_run() {
    let primary = Played::new(accepts);
    let machine = primary.machine("");
    let (code, text) = doctor(&machine, &["--rehearse"]);
    let handing = line(&text, "handing over");
    let expected = format!(
        "ok    handing over: {} accepts 3 recipients. (recipients of the mail that waits, as no list of recipients could be read)",
        primary.host
    );
    assert_eq!((code, handing), (Some(1), expected.as_str()), "nothing watches here");
    let heard = primary.heard();
    assert_eq!(heard.iter().filter(|line| line.starts_with("RCPT")).count(), 3, "{heard:?}");
    assert!(!heard.contains(&"DATA".to_owned()) && machine.flushes() == 0);
    for subject in ["port 25 here", "mail log", "refusals", "queue runner"] {
        line(&text, subject);
    }
    // What it says anyhow.
    for subject in ["DNS", "lifetime", "running the queue"] {
        line(&text, subject);
    }
}

#[test]
fn without_the_word_nobody_is_asked_for() {
    let primary = Played::new(accepts);
    let (_, text) = doctor(&primary.machine(""), &[]);
    assert!(!text.contains("handing over") && !text.contains("port 25 here"), "{text}");
    assert_eq!(primary.rehearsals(), 0);
}

#[test]
fn a_primary_that_refuses_or_puts_off_fails_with_its_words_and_is_not_asked_twice() {
    let primary = Played::new(refuses);
    let machine = primary.machine("");
    for _ in 0..2 {
        let (code, text) = doctor(&machine, &["--rehearse"]);
        let handing = line(&text, "handing over");
        assert!(
            handing.starts_with("FAIL ") && handing.contains("refused 3 of 3 recipients for good: “550 5.1.1 "),
            "{text}"
        );
        assert_eq!((code, primary.rehearsals()), (Some(1), 1));
    }
    let primary = Played::new(puts_off);
    let (_, text) = doctor(&primary.machine(""), &["--rehearse"]);
    assert!(line(&text, "handing over").starts_with("FAIL ") && text.contains("“450 4.2.0 Greylisted”"), "{text}");
    let masked = primary.machine("[privacy]\nmask = \"local-part\"");
    let (_, text) = doctor(&masked, &["--rehearse"]);
    assert!(!text.contains("larry@"), "{text}");
}

#[test]
fn what_can_not_be_checked_is_said_to_be_that() {
    let primary = Played::new(accepts);
    primary.says(None);
    let (_, text) = doctor(&primary.machine(""), &["--rehearse"]);
    let handing = line(&text, "handing over");
    assert!(handing.starts_with("?     handing over: could not be checked: It is not known what"), "{text}");
    let unknown = Machine::with_fixture("postfix/mixed-json");
    let (code, text) = doctor(&unknown, &["--rehearse"]);
    let why = "?     handing over: could not be checked: the primary was not asked, as it is not known which server is the main one";
    assert_eq!((code, line(&text, "handing over")), (Some(1), why));
    assert!(
        line(&text, "port 25 here").starts_with("?     port 25 here: could not be checked: it is not known for which")
    );
}

#[test]
fn whether_watch_looks_is_known() {
    let primary = Played::new(accepts);
    let machine = primary.machine("");
    let watch = |text: &str| line(text, "watch").to_owned();
    assert!(watch(&doctor(&machine, &["--rehearse"]).1).starts_with("FAIL  watch: it has never looked"));
    assert!(machine.command().args(["watch", "--once"]).output().unwrap().status.success());
    let (_, text) = doctor(&machine, &["--rehearse"]);
    assert!(watch(&text).starts_with("ok    watch: it looked "), "{text}");
    let file = std::fs::File::options().write(true).open(machine.path("state").join("watch.look")).unwrap();
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(3600)).unwrap();
    let (_, text) = doctor(&machine, &["--rehearse"]);
    assert!(watch(&text).starts_with("FAIL  watch: it looked last 1 hour ago"), "{text}");
}
