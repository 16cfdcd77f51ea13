//! What is said of the primary, and of the mail that waits for it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use crate::machine::Machine;

/// A mail server that takes mail for as long as the tests run.
pub fn mail_server(listener: TcpListener) {
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut to = stream.try_clone().unwrap();
            let _ = to.write_all(b"220 mx\r\n");
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let _ = to.write_all(if line == "QUIT" { b"221 bye\r\n" } else { b"250 mx\r\n" });
            }
        }
    });
}

/// An address of this machine at which nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A machine in whose queue one message waits for each of these recipients and reasons.
fn machine(waiting: &[(&str, &str)], more: &str) -> Machine {
    let message = |(number, (address, reason)): (usize, &(&str, &str))| {
        let recipient = match *reason {
            "" => serde_json::json!({"address": address}),
            reason => serde_json::json!({"address": address, "delay_reason": reason}),
        };
        let message = serde_json::json!({
            "queue_name": "deferred", "queue_id": format!("A{number}"), "arrival_time": 1_795_432_662,
            "message_size": 9, "forced_expire": false, "sender": "a@example.org", "recipients": [recipient],
        });
        message.to_string() + "\n"
    };
    let machine = Machine::with_lister("postfix", "cat $(dirname $0)/listing");
    fs::write(machine.path("listing"), waiting.iter().enumerate().map(message).collect::<String>()).unwrap();
    machine.configure("postfix", more);
    machine
}

/// The advice after another look at the primary.
fn advice(machine: &Machine) -> String {
    // As though what was seen a moment ago were older.
    let _ = fs::write(machine.path("state/primaries.seen"), "");
    let (_, json) = machine.json();
    json["advice"].as_str().unwrap_or_default().to_owned()
}

const REFUSED: &str = "connect to mx1.example.com[192.0.2.1]:25: Connection refused";
const FULL: &str = "host mx1.example.com[192.0.2.1] said: 452 4.2.2 mailbox full (in reply to RCPT TO command)";

#[test]
fn a_run_is_advised_only_for_mail_that_could_not_reach_the_primary() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    mail_server(listener);
    let all = format!("[primary]\nhosts = [\"{address}\"]");
    let own = format!("{all}\ndomains = [\"example.com\"]");
    let accepts = "The main mail server accepts mail.";
    for (waiting, more, expected) in [
        (&[("a@example.com", FULL)][..], &all, accepts),
        (&[("a@example.com", "")], &all, accepts),
        (&[("a@elsewhere.example", REFUSED)], &own, accepts),
        (
            &[("a@elsewhere.example", REFUSED), ("b@example.com", FULL), ("c@sub.example.com", REFUSED)],
            &own,
            "The main mail server accepts mail, and mail for 1 recipient is waiting because it could not be reached: \
             deliver it now.",
        ),
    ] {
        assert_eq!(advice(&machine(waiting, more)), expected, "{waiting:?}");
    }
}

#[test]
fn it_is_back_only_where_it_was_seen_down_and_still_down_only_at_the_second_look() {
    let address = nobody();
    let configuration = format!("[primary]\nhosts = [\"{address}\"]\n[flush]\ncooldown = \"0s\"");
    let machine = machine(&[("a@example.com", REFUSED), ("b@example.com", REFUSED)], &configuration);
    let down = "does not answer. Its mail is kept here until it is back; trying now will not help.";
    assert_eq!(advice(&machine), format!("The main mail server {down}"));
    thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(advice(&machine), format!("The main mail server still {down}"));

    mail_server(TcpListener::bind(address).unwrap());
    let back = "The main mail server is back, and mail for 2 recipients is waiting because it could not be reached: \
                deliver it now.";
    assert_eq!(advice(&machine), back);
    let text = machine.get("format=text").body;
    assert!(text.contains(back), "{text}");
    let page = machine.get("format=html").body;
    assert!(
        page.contains("<em>The main mail server is back.</em> Mail for 2 recipients can be delivered now."),
        "{page}"
    );
    // For ever it is not: a run has been made.
    assert_eq!(machine.get("flush").status, 303);
    machine.kill_all();
    assert!(advice(&machine).starts_with("The main mail server accepts mail"), "{}", advice(&machine));
}

#[test]
fn mail_without_a_reason_is_advised_to_be_run_only_when_the_primary_was_seen_down() {
    let address = nobody();
    let machine = machine(&[("a@example.com", "")], &format!("[primary]\nhosts = [\"{address}\"]"));
    assert!(advice(&machine).starts_with("The main mail server does not answer."), "{}", advice(&machine));
    mail_server(TcpListener::bind(address).unwrap());
    assert_eq!(advice(&machine), "The main mail server is back, and mail for 1 recipient is waiting: deliver it now.");
}
