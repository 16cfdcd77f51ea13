//! What machines read: CSV, metrics, and the check for monitors.

use std::fs;

use crate::machine::Machine;

#[test]
fn csv_has_a_line_a_recipient_and_says_when_it_is_not_all() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let answer = machine.get("format=csv");
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/csv; charset=utf-8; header=present")));
    let mut lines = csv::Reader::from_reader(answer.body.as_bytes());
    let columns = ["id", "state", "mta_state", "size", "arrival", "sender", "recipient", "delivered", "reason"];
    let columns = [&columns[..], &["last_attempt", "being_returned", "instance", "returns_not_before"]].concat();
    assert_eq!(lines.headers().unwrap(), &csv::StringRecord::from(columns));
    let rows: Vec<_> = lines.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 28);
    let returned: Vec<_> = rows.iter().filter(|row| &row[10] == "yes").map(|row| &row[2]).collect();
    assert_eq!(returned, ["deferred, returned to the sender at the next attempt"]);
    assert!(rows.iter().all(|row| !row.iter().any(|field| field.starts_with(['=', '+', '-', '@']))));
    let held = csv::Reader::from_reader(machine.get("format=csv&state=held").body.as_bytes()).records().count();
    assert_eq!(held, 1);
    let denied = Machine::with_fixture("postfix/denied-list").get("format=csv");
    assert_eq!(denied.status, 503);
    assert!(denied.body.lines().nth(1).unwrap().starts_with(",INCOMPLETE,denied,"), "{}", denied.body);
}

#[test]
fn metrics_have_all_states_and_a_failed_listing_has_none() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let answer = machine.get("format=openmetrics");
    assert_eq!(answer.status, 200);
    assert!(answer.field("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    for line in [
        "bartleby_up 1",
        "bartleby_queue_messages{state=\"incoming\"} 0",
        "bartleby_queue_messages{state=\"active\"} 0",
        "bartleby_queue_messages{state=\"deferred\"} 20",
        "bartleby_queue_messages{state=\"held\"} 1",
        "bartleby_queue_recipients{state=\"deferred\"} 27",
        "bartleby_destination_recipients{destination=\"example.com\"} 23",
        "# TYPE bartleby_queue_oldest_age_seconds gauge",
    ] {
        assert!(answer.body.lines().any(|told| told == line), "no {line} in {}", answer.body);
    }
    assert!(answer.body.ends_with("\n# EOF\n"));
    let empty = Machine::with_fixture("postfix/empty-json").get("format=openmetrics").body;
    assert!(empty.contains("bartleby_up 1\n") && empty.contains("bartleby_queue_messages{state=\"deferred\"} 0\n"));
    let denied = Machine::with_fixture("postfix/denied-list").get("format=openmetrics");
    assert_eq!(denied.status, 200, "or it would not be taken for an answer at all");
    assert!(denied.body.contains("bartleby_up 0\n") && !denied.body.contains("bartleby_queue"), "{}", denied.body);
    let output = machine.command().arg("metrics").output().unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stdout).contains("bartleby_up 1")),
        (Some(0), true)
    );
    // As Prometheus asks.
    let accept = b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
    assert!(machine.ask(&[("HTTP_ACCEPT", accept)]).body.contains("bartleby_up 1"));
}

#[test]
fn a_check_never_takes_a_failure_for_an_empty_queue() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "[disk]\nwarn = \"0%\"\ncritical = \"0%\"");
    let check = |machine: &Machine, arguments: &[&str]| {
        let output = machine.command().arg("check").args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    for (arguments, code, word) in [
        (&[][..], 0, "OK"),
        (&["-w", "20"], 1, "WARNING"),
        (&["-w", "10", "-c", "20"], 2, "CRITICAL"),
        (&["-w", "21", "-c", "30"], 0, "OK"),
        (&["--age-warning", "1m"], 1, "WARNING"),
        (&["--age-critical", "1m", "--age-warning", "30s"], 2, "CRITICAL"),
        (&["-w", "soup"], 3, "UNKNOWN"),
        (&["--frobnicate"], 3, "UNKNOWN"),
    ] {
        let (found, line) = check(&machine, arguments);
        assert_eq!(found, code, "{arguments:?}: {line}");
        assert!(line.starts_with(&format!("BARTLEBY {word} - ")) && line.lines().count() == 1, "{line}");
    }
    let (_, line) = check(&machine, &["-w", "20", "-c", "100"]);
    assert!(line.contains(" | messages=21;20;100;0 recipients=28;;;0 age="), "{line}");
    for fixture in ["postfix/denied-list", "postfix/down-list-www-data"] {
        let (code, line) = check(&Machine::with_fixture(fixture), &[]);
        assert!(code == 3 && line.starts_with("BARTLEBY UNKNOWN - Postfix "), "{line}");
    }
    machine.configure("postfix", "[disk]\nwarn = \"100%\"\ncritical = \"0%\"");
    assert_eq!(check(&machine, &[]).0, 1, "the disk counts, too");
    fs::write(machine.path("bartleby.toml"), "[soup]").unwrap();
    assert_eq!(check(&machine, &[]).0, 3);
}
