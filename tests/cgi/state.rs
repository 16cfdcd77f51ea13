//! What is remembered between requests, and what happens where that fails.

use std::fs;

use crate::machine::Machine;

#[test]
fn without_a_state_directory_it_lists_and_flushes_all_the_same_and_says_so() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    fs::write(machine.path("state"), "a file in the way").unwrap();
    assert_eq!(machine.get("flush").status, 303);
    assert_eq!(machine.get("flush").status, 303);
    assert_eq!(machine.flushes(), 2);
    let page = machine.get("format=html").body;
    assert!(
        page.contains("The cool-down between queue runs and their log are off") && page.contains("is not a folder"),
        "{page}"
    );
}

#[test]
fn a_damaged_state_database_is_set_aside_and_said() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("flush").status, 303);
    machine.kill_all();
    fs::write(machine.path("state").join("bartleby.db"), [0x42; 9000]).unwrap();
    let page = machine.get("format=html");
    assert!(
        page.body.contains("The log of queue runs was damaged") && page.body.contains("bartleby.db.damaged-"),
        "{}",
        page.body
    );
    assert!(page.log.contains("was set aside as"), "{}", page.log);
    assert_eq!(machine.get("flush").status, 303, "the cool-down is no longer known");
    let doctor = machine.command().arg("doctor").output().unwrap();
    assert!(
        String::from_utf8_lossy(&doctor.stdout).contains("FAIL  state directory: the log of queue runs was damaged")
    );
}

#[test]
fn a_clock_that_jumps_neither_blocks_a_flush_nor_makes_one_up() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("flush").status, 303);
    machine.kill_all();
    for (started, number) in [("strftime('%s') + 864000", 2), ("0", 3), ("-9000000000", 4)] {
        let log = machine.database();
        log.execute(&format!("UPDATE flush SET started = CAST({started} AS INTEGER)"), []).unwrap();
        drop(log);
        let page = machine.get(&format!("flushed={}&format=html", number - 1));
        assert!(page.body.contains("21 still wait"), "{started}: {}", page.body);
        let again = machine.get("flush");
        assert_eq!(again.field("location"), Some(&*format!("?flushed={number}")), "{started}: {}", again.body);
        machine.kill_all();
    }
}
