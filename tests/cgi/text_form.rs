//! The lines of the text form that stay as they are, as the manual page has them: old checks search for them.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::machine::Machine;

/// The regular expressions of the section on the text form.
fn expressions() -> Vec<String> {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/bartleby.8")).unwrap();
    let section = page.split(".Sh THE TEXT FORM\n").nth(1).unwrap().split(".Sh ").next().unwrap();
    let items = section.lines().filter_map(|line| line.strip_prefix(".It Li \"")?.strip_suffix('"'));
    items.map(|item| item.replace("\\(ha", "^")).collect()
}

/// How many lines each of them finds in the answer, which must have this status.
#[track_caller]
fn found(case: &str, status: u16) -> Vec<usize> {
    let answer = Machine::with_fixture(case).get("format=text");
    assert_eq!(answer.status, status, "{}", answer.body);
    expressions().iter().map(|expression| matches(expression, &answer.body)).collect()
}

/// As a check does it.
fn matches(expression: &str, text: &str) -> usize {
    let mut grep = Command::new("grep");
    grep.args(["-Ec", "--", expression]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut grep = grep.spawn().unwrap();
    grep.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = grep.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn the_lines_that_the_manual_promises_are_there() {
    // All that waits, an error, nothing waits, messages, recipients, reasons.
    assert_eq!(found("postfix/mixed-json", 200)[..5], [1, 0, 0, 21, 28]);
    assert!(found("postfix/mixed-json", 200)[5] > 5);
    assert_eq!(found("postfix/empty-json", 200), [0, 0, 1, 0, 0, 0]);
    assert_eq!(found("postfix/denied-list", 503), [0, 1, 0, 0, 0, 0]);
    assert_eq!(found("sendmail/mixed-bp-verbose", 200)[1..3], [0, 0]);
    assert_eq!(found("sendmail/mixed-bp-verbose", 200)[0], 1);
}
