//! What is remembered between requests is not trusted: the state folder may hold anything.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

mod machine;

use std::fs;
use std::time::{Duration, Instant};

use machine::Machine;
use rusqlite::Connection;

/// How long an answer may take, whatever stands in the folder.
const IN_TIME: Duration = Duration::from_secs(10);

/// A machine whose queue was run once, and whose database was then changed by this SQL.
fn with_database(sql: &str) -> Machine {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("flush").status, 303);
    machine.kill_all();
    Connection::open(machine.path("state").join("bartleby.db")).unwrap().execute_batch(sql).unwrap();
    machine
}

#[test]
fn a_database_made_to_run_for_ever_is_set_aside_and_page_and_flush_answer_in_time() {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    for sql in [
        &*format!("DROP TABLE flush; CREATE VIEW flush AS {endless} SELECT i AS number FROM n"),
        &*format!("DROP TABLE sample; CREATE VIEW sample AS {endless} SELECT i AS taken FROM n"),
        &*format!(
            "CREATE TRIGGER more AFTER INSERT ON sample BEGIN
             INSERT INTO flush (started, target, by) SELECT i, '', '' FROM ({endless} SELECT i FROM n); END"
        ),
    ] {
        let machine = with_database(sql);
        let started = Instant::now();
        let page = machine.get("format=html");
        assert!(page.body.contains("The log of queue runs was damaged"), "{sql}: {}", page.body);
        assert!(page.log.contains("was set aside as"), "{sql}: {}", page.log);
        assert_eq!(machine.get("flush").field("location"), Some("?flushed=1"), "{sql}");
        machine.kill_all();

        let machine = with_database(sql);
        let answer = machine.get("flush");
        assert_eq!((answer.field("location"), machine.flushes()), (Some("?flushed=1"), 2), "{sql}: {}", answer.log);
        assert!(started.elapsed() < IN_TIME, "{sql}: {:?}", started.elapsed());
    }
}

#[test]
fn a_pipe_in_the_place_of_any_file_holds_nobody_up() {
    for name in ["flush.lock", "listing-0.lock", "bartleby.db", "bartleby.db-journal"] {
        let machine = Machine::with_fixture("postfix/mixed-json");
        fs::create_dir(machine.path("state")).unwrap();
        fs::set_permissions(machine.path("state"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        nix::unistd::mkfifo(&machine.path("state").join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let started = Instant::now();
        assert_eq!(machine.get("flush").status, 303, "{name}");
        let page = machine.get("format=html");
        // Without places to list there is only no limit on how many list.
        let said = name.starts_with("listing") || page.body.contains("is not a regular file");
        assert!(page.status == 200 && said, "{name}: {}", page.status);
        assert!(started.elapsed() < IN_TIME, "{name}: {:?}", started.elapsed());
    }
}

#[test]
fn doctor_prints_no_name_that_somebody_else_chose() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("format=json").status, 200);
    fs::write(machine.path("state").join("bartleby.db.damaged-1'; id >pwned; echo '"), "").unwrap();
    let output = machine.command().arg("doctor").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("ok    state directory: ") && !text.contains("pwned"), "{text}");
    assert!(!machine.get("format=html").body.contains("pwned"));
}
