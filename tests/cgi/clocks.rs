//! The three clocks: since when the primary is down, by when what waits is tried again, and when it goes back.

use std::fs;
use std::net::TcpListener;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::machine::Machine;

const DAY: i64 = 24 * 60 * 60;

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// A Postfix in whose queue a message has waited for each of these times, in seconds.
fn postfix(ages: &[i64], lifetime: &str) -> Machine {
    let message = |(number, age): (usize, &i64)| {
        json!({
            "queue_name": "deferred", "queue_id": format!("A{number}"), "arrival_time": now() - age, "message_size": 9,
            "forced_expire": false, "sender": "a@example.org",
            "recipients": [{"address": "b@example.com", "delay_reason": "connect: Connection refused"}],
        })
        .to_string()
            + "\n"
    };
    let listing: String = ages.iter().enumerate().map(message).collect();
    let machine = Machine::with_lister("postfix", &format!("cat <<'E'\n{listing}E"));
    machine.configure("postfix", lifetime);
    machine
}

fn seconds(instant: &Value) -> i64 {
    instant.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second()
}

#[test]
fn nothing_goes_back_before_the_first_message_has_waited_for_its_lifetime() {
    let machine = postfix(&[60, 2 * DAY], "lifetime = \"6d\"");
    let json = machine.json().1;
    let returns = &json["queue"]["returns"];
    let expected = now() + 4 * DAY;
    assert!((expected - 60..=expected).contains(&seconds(&returns["not_before"])), "{returns}");
    assert_eq!(returns["kind"], "not_before");
    assert_eq!([&returns["overdue"], &returns["lifetime_seconds"]], [0, 6 * DAY]);
    assert_eq!(returns["basis"], "[mta] lifetime = \"6d\"");
    assert_eq!(json["queue"]["returns_error"], Value::Null);
    let of_each: Vec<i64> =
        json["messages"].as_array().unwrap().iter().map(|message| seconds(&message["returns_not_before"])).collect();
    assert_eq!(of_each[0] - of_each[1], 2 * DAY - 60);
    let page = machine.get("format=html").body;
    assert!(page.contains("<em>2 messages are waiting here.</em> None is lost."), "{page}");
    assert!(page.contains("<dt>Nothing goes back before</dt><dd class=\"big\"><time datetime=\""), "{page}");
    assert!(page.contains("kept for 6 days, ") && page.contains("% of the time is used"), "{page}");
    assert!(page.contains("<td>after ") && page.contains("?sort=returns") && !page.contains("more time"), "{page}");
    let text = machine.get("format=text").body;
    assert!(text.contains("\nNothing goes back to its sender before "), "{text}");
    assert!(machine.get("format=csv").body.lines().nth(1).unwrap().ends_with("Z"));
}

/// What was not read may go back first.
#[test]
fn of_a_listing_that_broke_off_nothing_is_claimed() {
    let machine = postfix(&[60, 2 * DAY], "lifetime = \"6d\"");
    let script = fs::read_to_string(machine.path("list")).unwrap();
    fs::write(machine.path("list"), script + "\nexit 1\n").unwrap();
    let (status, json) = machine.json();
    assert_eq!((status, &json["queue"]["messages"], &json["queue"]["returns"]), (503, &json!(2), &Value::Null));
    for format in ["html", "text"] {
        let shown = machine.get(&format!("format={format}")).body;
        // The style sheet has words of its own for a narrow screen.
        let shown = shown.split_once("</style>").map_or(&*shown, |(_, shown)| shown);
        assert!(!shown.contains("goes back") && !shown.contains("is lost"), "{shown}");
    }
}

#[test]
fn what_is_past_its_time_is_counted_named_and_found() {
    let machine = postfix(&[60, 7 * DAY, 8 * DAY], "lifetime = \"6d\"");
    let json = machine.json().1;
    assert_eq!(json["queue"]["returns"]["overdue"], 2);
    assert!(seconds(&json["queue"]["returns"]["not_before"]) < now());
    let page = machine.get("format=html").body;
    let sentence = "2 messages are past their time and go back at the next attempt that fails. Delivering now counts as an \
                    attempt.";
    let headline =
        "<em>2 messages are past their time: the next attempt that fails returns them to their senders.</em>";
    for part in [sentence, headline, "<dt>Past their time</dt>", "<title>Urgent: 3"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(page.contains("href=\"?returns=overdue\"") && !page.contains("is lost"), "{page}");
    let ids = |query: &str| {
        let found: Value = serde_json::from_str(&machine.get(&format!("format=json&{query}")).body).unwrap();
        found["messages"].as_array().unwrap().iter().map(|of| of["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("returns=overdue"), ["A1", "A2"]);
    assert_eq!(ids("returns=6d"), ["A0", "A1", "A2"]);
    assert_eq!(ids("returns=never"), [""; 0]);
    assert_eq!((ids("sort=returns"), ids("sort=-returns")), (vec!["A2".into(), "A1".into(), "A0".into()], ids("")));
    assert_eq!(machine.get("returns=soon").status, 400);
}

#[test]
fn less_than_a_day_is_an_alarm_and_less_than_a_quarter_a_warning_with_what_gives_more_time() {
    let page = |age: i64| postfix(&[age], "lifetime = \"8d\"").get("format=html").body;
    let (calm, warning, alarm) = (page(5 * DAY), page(6 * DAY + 3600), page(7 * DAY + 3600));
    let more = |page: &str| page.contains("Give waiting mail more time");
    // The mail server's own settings are not known here, and so not which lines to paste.
    assert!(!more(&calm) && !calm.contains("Urgent") && !warning.contains("Urgent") && alarm.contains("Urgent"));
}

#[test]
fn a_lifetime_that_is_not_known_is_said_to_be_that_with_the_remedy() {
    let machine = postfix(&[60], "[disk]\nwarn = \"0%\"\ncritical = \"0%\"");
    let json = machine.json().1;
    assert_eq!(json["queue"]["returns"], Value::Null);
    let error = &json["queue"]["returns_error"];
    assert!(error["message"].as_str().unwrap().contains("the queue is listed by a configured command"), "{error}");
    assert!(error["remedy"].as_str().unwrap().contains("lifetime = \"5d\""), "{error}");
    assert_eq!(json["messages"][0].get("returns_not_before"), None);
    let page = machine.get("format=html").body;
    let not_known =
        "<dt>When mail goes back</dt><dd class=\"big\">not known</dd><dd class=\"small\">the queue is listed by";
    assert!(page.contains(not_known) && page.contains("lifetime = &quot;5d&quot;"), "{page}");
    assert!(!page.contains("<td>after ") && !page.contains("is lost"), "{page}");
    let text = machine.get("format=text").body;
    assert!(text.contains("It is not known when mail goes back to its sender: the queue is listed by"), "{text}");
    let (code, line) = check(&machine, &["--return-critical", "1d"]);
    assert!(code == 3 && line.contains("when mail goes back is not known"), "{line}");
    assert_eq!(check(&machine, &[]).0, 0);
}

fn check(machine: &Machine, arguments: &[&str]) -> (i32, String) {
    let output = machine.command().arg("check").args(arguments).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_monitor_alerts_when_less_time_is_left() {
    let disk = "[disk]\nwarn = \"0%\"\ncritical = \"0%\"";
    let machine = postfix(&[4 * DAY], &format!("lifetime = \"6d\"\n{disk}"));
    for (arguments, code) in [
        (&["--return-warning", "1d"][..], 0),
        (&["--return-warning", "3d", "--return-critical", "1d"], 1),
        (&["--return-critical", "49h"], 2),
    ] {
        let (found, line) = check(&machine, arguments);
        assert_eq!(found, code, "{arguments:?}: {line}");
        assert!(line.contains("none goes back within ") && line.contains(" returns=1"), "{line}");
    }
    let overdue = postfix(&[7 * DAY], &format!("lifetime = \"6d\"\n{disk}"));
    let (code, line) = check(&overdue, &["--return-warning", "1h"]);
    // A day, and however long it took to ask.
    assert!(code == 1 && line.contains("1 message past its time") && line.contains(" returns=-864"), "{line}");
    assert!(line.contains("s;3600:; "), "{line}");
    let metrics = overdue.get("format=openmetrics").body;
    for part in ["bartleby_returns_not_before_timestamp_seconds 1", "bartleby_returns_overdue_messages 1\n"] {
        assert!(metrics.contains(part), "{metrics}");
    }
    let empty = postfix(&[], "lifetime = \"6d\"").get("format=openmetrics").body;
    assert!(
        !empty.contains("bartleby_returns_not_before") && empty.contains("bartleby_queue_lifetime_seconds 518400\n")
    );
}

#[test]
fn opensmtpd_says_how_often_each_message_was_tried_and_when_it_is_tried_next() {
    let creation = now() - 1000;
    let line = format!(
        "c44e9b80594dd7b5|inet4|mta||a@example.org|b@example.com|b@example.com|{creation}|{creation}|0|3|pending|600|no\n"
    );
    let machine = Machine::with_lister("opensmtpd", &format!("cat <<'E'\n{line}E"));
    machine.configure("opensmtpd", "lifetime = \"4d\"");
    let json = machine.json().1;
    let message = &json["messages"][0];
    assert_eq!(message["attempts"], 3);
    assert!((0..60).contains(&(now() + 600 - seconds(&message["next_attempt"]))), "{message}");
    assert_eq!(seconds(&message["returns_not_before"]), creation + 4 * DAY);
    assert_eq!(json["queue"]["returns"]["kind"], "at");
    let page = machine.get("format=html").body;
    assert!(page.contains("tried 3 times, next in 10 minutes"), "{page}");
    assert!(page.contains("<dt>The first goes back at</dt>") && page.contains("it is not tried again first"), "{page}");
}

#[test]
fn an_outage_is_on_the_page_and_in_json_from_the_first_sight_to_the_return() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    drop(listener);
    let machine = postfix(&[60, 70], &format!("lifetime = \"6d\"\n[primary]\nhosts = [\"{host}\"]"));
    let before = now();
    // A view notes what is news behind its answer; this waits for it.
    let doctor = String::from_utf8(machine.command().arg("doctor").output().unwrap().stdout).unwrap();
    assert!(doctor.contains(&format!("DOWN  primary: {host} is down: connection refused")), "{doctor}");
    let json = machine.json().1;
    let [outage] = json["outages"].as_array().unwrap().as_slice() else { panic!("{}", json["outages"]) };
    assert_eq!(
        (&outage["host"], &outage["up"], &outage["messages_at_most"]),
        (&json!(host.to_string()), &Value::Null, &json!(2))
    );
    assert!((before..=now()).contains(&seconds(&outage["down"])), "{outage}");
    let page = machine.get("format=html").body;
    assert!(page.contains("<dt>Main mail server down since</dt>") && page.contains("as far as was seen"), "{page}");
    assert!(page.contains("2 messages are waiting"), "{page}");
    assert!(page.contains("until now, ") && page.contains("at most 2 messages waiting"), "{page}");
    let metrics = machine.get("format=openmetrics").body;
    assert!(metrics.contains(&format!("bartleby_primary_down_timestamp_seconds{{host=\"{host}\"}} ")), "{metrics}");
    // It comes back.
    let listener = TcpListener::bind(host).unwrap();
    crate::advice::mail_server(listener);
    // A view goes by what was seen a moment ago; this always asks.
    machine.command().arg("doctor").output().unwrap();
    let json = machine.json().1;
    assert!(seconds(&json["outages"][0]["up"]) >= seconds(&json["outages"][0]["down"]));
    let page = machine.get("format=html").body;
    assert!(!page.contains("down since") && page.contains(" to ") && !page.contains("until now"), "{page}");
}

#[test]
fn doctor_judges_the_lifetime() {
    let doctor = |lifetime: &str| {
        let machine = postfix(&[60], lifetime);
        let output = machine.command().arg("doctor").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().position(|line| line.contains(" lifetime: ")).unwrap();
        text.lines().skip(line).take(4).collect::<Vec<_>>().join("\n")
    };
    assert!(
        doctor("lifetime = \"6d\"").starts_with("ok    lifetime: mail is kept for 6 days ([mta] lifetime = \"6d\")")
    );
    let short = doctor("lifetime = \"4d\"");
    assert!(
        short.starts_with("FAIL  lifetime: mail is returned after 4 days") && short.contains("RFC 5321"),
        "{short}"
    );
    let unknown = doctor("");
    assert!(
        unknown.contains("it is not known how long mail is kept") && unknown.contains("lifetime = \"5d\""),
        "{unknown}"
    );
}

#[test]
fn what_doctor_does_not_know_is_a_note_and_not_ok() {
    let machine = postfix(&[60], "");
    let output = machine.command().arg("doctor").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let is_noted =
        "\nnote  next attempt: it is not known when what waits is tried again: the queue is listed by a configured";
    assert!(text.contains(is_noted) && !text.contains("ok    next attempt"), "{text}");
    let lines: Vec<_> = text.lines().skip_while(|line| !line.contains("  lifetime: ")).collect();
    assert!(lines[0].starts_with("FAIL ") && lines[1].contains("To do: Write it into /etc/bartleby.toml"), "{text}");
    let after_the_note = lines.iter().skip_while(|line| !line.starts_with("note ")).nth(1).unwrap();
    assert!(!after_the_note.contains("To do"), "the lifetime's remedy is said once: {text}");
}
