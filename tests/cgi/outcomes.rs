//! What came of running the queue.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::machine::Machine;

/// Each of these waits until a queue has been at rest for a while: they wait at the same time.
#[test]
fn runs_that_leave_mail_behind_come_to_an_end() {
    let cases = [
        what_comes_of_a_flush_is_put_on_record_without_anybody_looking,
        the_command_line_waits_and_its_status_says_what_left,
        a_run_that_moves_nothing_is_called_so,
    ];
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(case);
        }
    });
}

fn what_comes_of_a_flush_is_put_on_record_without_anybody_looking() {
    let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/postfix").join(name);
    let machine = Machine::with_fixture("postfix/mixed-json");
    // The run delivers all but the last five.
    let script = format!(
        "#!/bin/sh\necho '#!/bin/sh\ntail -5 {}' > {}\n",
        fixture("mixed-json.stdout").display(),
        machine.path("list").display()
    );
    fs::write(machine.path("flush"), script).unwrap();
    assert_eq!(machine.get("flush").status, 303);
    let until = Instant::now() + Duration::from_secs(60);
    let log = loop {
        let log = machine.json().1["flush"]["log"].clone();
        if log[0]["outcome"]["settled"] == true {
            break log;
        }
        assert!(Instant::now() < until, "{log:#}");
        thread::sleep(Duration::from_millis(200));
    };
    assert_eq!((&log[0]["exit"], &log[0]["outcome"]["messages_left"]), (&"ended with status 0".into(), &5.into()));
    let page = machine.get("flushed=1&format=html");
    assert!(
        page.body.contains("16 of 21 are gone from here: delivered, or returned to the sender; 5 still wait: "),
        "{}",
        page.body
    );
    assert_eq!(page.field("refresh"), None, "it is over");
}

fn the_command_line_waits_and_its_status_says_what_left() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/postfix/mixed-json.stdout");
    for (rest, code, words) in [
        ("true".to_owned(), 0, "all 21 are gone from here: delivered, or returned to the sender"),
        (
            format!("head -20 {}", fixture.display()),
            1,
            "1 of 21 is gone from here: delivered, or returned to the sender; 20 still wait: ",
        ),
    ] {
        let machine = Machine::with_fixture("postfix/mixed-json");
        let script = format!("#!/bin/sh\necho '#!/bin/sh\n{rest}' > {}\n", machine.path("list").display());
        fs::write(machine.path("flush"), script).unwrap();
        let output = machine.command().args(["flush", "--wait"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.starts_with(&format!("Queue run 1: {words}")), "{text}");
    }
}

#[test]
fn what_came_of_a_flush_is_not_known_while_the_queue_can_not_be_listed() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("flush").status, 303);
    fs::write(machine.path("list"), "#!/bin/sh\necho 'postqueue: fatal: mail system is down' >&2; exit 69\n").unwrap();
    let page = machine.get("flushed=1&format=html");
    assert!(page.body.contains("what came of it is not known"), "{}", page.body);
    assert!(!page.body.contains("gone from here"), "{}", page.body);
    assert_eq!(page.field("refresh"), Some("3; url=?flushed=1"), "it is not over");
}

fn a_run_that_moves_nothing_is_called_so() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("flush=all").status, 303);
    let until = Instant::now() + Duration::from_secs(60);
    while !machine
        .get("flushed=1&format=html")
        .body
        .contains("none could be delivered; all 21 still wait: 14 because the connection was refused")
    {
        assert!(Instant::now() < until, "{}", machine.get("flushed=1&format=html").body);
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn what_came_of_a_flush_is_said_in_text_and_json_too() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("flush").status, 303);
    let text = machine.get("flushed=1&format=text").body;
    assert!(text.contains("Queue run 1: 0 of 21 so far; 21 still wait"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&machine.get("flushed=1&format=json").body).unwrap();
    assert_eq!(json["flush"]["followed"]["outcome"]["messages_left"], 21);
    let words = json["flush"]["followed"]["outcome"]["words"].as_str().unwrap();
    assert!(words.starts_with("0 of 21 so far; 21 still wait: "), "{words}");
}

#[test]
fn mail_that_comes_in_while_the_queue_is_run_does_not_count() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let listing = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/postfix/mixed-json.stdout"));
    // The same second, other ids.
    let newcomers = listing.unwrap().replace("\"queue_id\": \"", "\"queue_id\": \"NEW");
    fs::write(machine.path("newcomers"), newcomers).unwrap();
    let script = format!("#!/bin/sh\ncp {0}/cat {0}/list\n", machine.path("").display());
    fs::write(machine.path("cat"), format!("#!/bin/sh\ncat {}", machine.path("newcomers").display())).unwrap();
    fs::write(machine.path("flush"), script).unwrap();
    assert_eq!(machine.get("flush").status, 303);
    let page = machine.get("flushed=1&format=html");
    assert!(page.body.contains("all 21 are gone from here: delivered, or returned to the sender"), "{}", page.body);
    assert!(page.body.contains("21 messages are waiting"), "{}", page.body);
}

/// That such a run never counts as settled, however long it lasts, is a unit test of the flush.
#[test]
fn a_flush_is_not_over_while_mail_is_being_delivered() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/postfix/mixed-json.stdout");
    // One stays in delivery, as a connection that hangs does.
    let active = fs::read_to_string(fixture).unwrap().lines().next().unwrap().replace("deferred", "active");
    fs::write(machine.path("active"), active + "\n").unwrap();
    fs::write(machine.path("cat"), format!("#!/bin/sh\ncat {}", machine.path("active").display())).unwrap();
    let script = format!("#!/bin/sh\ncp {0}/cat {0}/list\n", machine.path("").display());
    fs::write(machine.path("flush"), script).unwrap();
    assert_eq!(machine.get("flush").status, 303);
    let page = machine.get("flushed=1&format=html");
    assert!(page.body.contains("20 of 21 so far; 1 still waits: 1 is being tried"), "{}", page.body);
    assert_eq!(page.field("refresh"), Some("3; url=?flushed=1"), "it is not over");
    fs::write(machine.path("list"), "#!/bin/sh\n").unwrap();
    let page = machine.get("flushed=1&format=html");
    assert!(page.body.contains("all 21 are gone from here: delivered, or returned to the sender"), "{}", page.body);
}

#[test]
fn a_watcher_that_is_killed_leaves_no_wrong_outcome() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("flush").status, 303);
    machine.kill_all();
    let page = machine.get("flushed=1&format=html").body;
    assert!(page.contains("0 of 21 so far; 21 still wait"), "{page}");
    fs::write(machine.path("list"), "#!/bin/sh\n").unwrap();
    assert!(
        machine
            .get("flushed=1&format=html")
            .body
            .contains("all 21 are gone from here: delivered, or returned to the sender")
    );
}
