//! The receipt of an outage: page, text and JSON, and on the command line.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::machine::Machine;
use crate::played::{Played, accepts};
use crate::wait::until;

fn down(_: &str) -> Option<String> {
    Some("554 not today\r\n".into())
}

/// A machine on which three messages wait; a run delivers one, and another one goes back, by the mail log.
fn machine(primary: &Played) -> Machine {
    let machine = Machine::with_lister("postfix", "");
    let message = |number: usize| {
        format!(
            "{{\"queue_name\": \"deferred\", \"queue_id\": \"A0000{number:02}\", \"arrival_time\": 1, \"message_size\": 1, \
             \"sender\": \"bob@example.net\", \"recipients\": [{{\"address\": \"r{number}@example.com\", \"delay_reason\": \
             \"connection refused\"}}]}}\n"
        )
    };
    fs::write(machine.path("before"), (1..=3).map(message).collect::<String>()).unwrap();
    fs::write(machine.path("after"), message(3)).unwrap();
    let folder = machine.path("").display().to_string();
    let says = |number: usize, status: &str| {
        format!(
            "echo \"$(date +%Y-%m-%dT%H:%M:%S%:z) bartleby postfix/smtp[1]: A0000{number:02}: to=<r{number}@example.com>, \
             relay=mx[192.0.2.1]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status={status}\" >> mail.log\n"
        )
    };
    let run = says(1, "sent (250 ok)")
        + &says(2, "bounced (host mx[192.0.2.1] said: 550 5.1.1 unknown (in reply to RCPT TO command))");
    let write = |name: &str, script: &str| {
        fs::write(machine.path(name), script).unwrap();
        fs::set_permissions(machine.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    write("list", &format!("#!/bin/sh\ncd {folder}\n[ -e done ] && exec cat after\nexec cat before\n"));
    write("flush", &format!("#!/bin/sh\ncd {folder}\n{run}: > done\n"));
    let text = format!(
        "log = \"{folder}/mail.log\"\n[flush]\ncooldown = \"0s\"\n[primary]\nhosts = [\"{}\"]\ndomains = [\"example.com\"]\n",
        primary.host
    );
    machine.configure("postfix", &text);
    machine
}

/// `doctor` looks at the primary as it is now.
fn look(machine: &Machine) {
    machine.command().arg("doctor").output().unwrap();
}

fn receipt(machine: &Machine, number: u64) -> Value {
    let answer = machine.get(&format!("outage={number}&format=json"));
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

fn outage(machine: &Machine, arguments: &[&str]) -> (Option<i32>, String) {
    let output = machine.command().arg("outage").args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn an_outage_has_a_receipt_with_its_runs_in_every_form() {
    let primary = Played::new(down);
    let machine = machine(&primary);
    // A view does not wait until that is noted.
    until("the outage and what waits are on record", 30, || {
        machine.get("");
        machine.get("outage=1&format=text").body.contains("3 messages, as far as")
    });
    // While it lasts, that is said, and nothing is claimed that nobody saw.
    let lasting = machine.get("outage=1&format=text").body;
    for words in [
        "Up again                It is still going on, as far as was seen.",
        " so far\n",
        "(seen by a view of the page)",
        "Waited at most          3 messages, as far as was seen",
        "Delivered               Not known: the queue was not run.",
        "The queue was not run.\n",
    ] {
        assert!(lasting.contains(words), "{words}: {lasting}");
    }
    assert_eq!(receipt(&machine, 1)["outage"]["lasts"], true);
    primary.says(Some(accepts));
    look(&machine);
    assert_eq!(machine.get("flush").status, 303);
    until("the run is over", 90, || receipt(&machine, 1)["runs"][0]["outcome"]["settled"] == true);
    let made = receipt(&machine, 1);
    let outage_of = &made["outage"];
    assert_eq!((&outage_of["host"], &outage_of["lasts"]), (&primary.host.as_str().into(), &false.into()), "{made:#}");
    assert_eq!((&outage_of["down_seen_by"], &outage_of["up_seen_by"]), (&"page".into(), &"doctor".into()));
    assert_eq!(outage_of["messages_at_most"], 3);
    let total = &made["total"];
    let figures = ["delivered", "returned", "unrecorded", "runs", "unknown_runs", "messages_left", "recipients_left"];
    assert_eq!(figures.map(|key| total[key].as_u64()), [1, 1, 0, 1, 0, 1, 1].map(Some), "{made:#}");
    assert_eq!((&made["runs"][0]["by"], &made["runs"][0]["target"]), (&"192.0.2.7".into(), &"all".into()));
    // The same on the page, which the list of outages leads to, as text, and on the command line.
    assert!(machine.get("format=html").body.contains("href=\"?outage=1\""));
    let page = machine.get("outage=1&format=html");
    page.assert_safe_headers();
    let (code, text) = outage(&machine, &[]);
    assert_eq!((page.status, code), (200, Some(0)), "{text}");
    for words in [
        "1 recipient",
        "1 delivered, 1 returned to the sender",
        "1 message for 1 recipient when the last run of the whole queue was over",
        "(seen by bartleby doctor)",
    ] {
        assert!(text.contains(words), "{words}: {text}");
        assert!(page.body.contains(words), "{words}: {}", page.body);
    }
    assert!(page.body.contains("href=\"?flushed=1\"") && page.body.contains("<dt>Down from</dt>"), "{}", page.body);
    let (code, json) = outage(&machine, &["--format", "json", "1"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &json["total"], &json["runs"]), (Some(0), &made["total"], &made["runs"]));
    assert_eq!(machine.get("outage=1&format=text").body.lines().count(), text.lines().count());
}

#[test]
fn an_outage_that_is_not_on_record_is_not_found_and_said_so() {
    let primary = Played::new(accepts);
    let machine = machine(&primary);
    for format in ["html", "text", "json"] {
        let answer = machine.get(&format!("outage=7&format={format}"));
        assert_eq!(answer.status, 404);
        assert!(answer.body.contains("There is no outage 7 on record."), "{}", answer.body);
    }
    let bad = machine.get("outage=x");
    assert!(bad.status == 400 && bad.body.contains("“x” of “outage”"), "{}", bad.body);
    let (code, said) = outage(&machine, &[]);
    assert!(code == Some(65) && said.contains("no outage of the primary is on record"), "{said}");
    let (code, said) = outage(&machine, &["7"]);
    assert!(code == Some(65) && said.contains("there is no outage 7 on record"), "{said}");
    for wrong in [&["x"][..], &["0"], &["1", "2"], &["--format", "html"]] {
        assert_eq!(outage(&machine, wrong).0, Some(64), "{wrong:?}");
    }
    assert_eq!(machine.ask(&[("QUERY_STRING", b"outage=7"), ("BARTLEBY_ACCESS", b"")]).status, 403);
}

#[test]
fn runs_without_a_readable_log_are_not_counted_as_deliveries() {
    let primary = Played::new(down);
    let machine = machine(&primary);
    machine.configure(
        "postfix",
        &format!(
            "[flush]\ncooldown = \"0s\"\n[primary]\nhosts = [\"{}\"]\ndomains = [\"example.com\"]\n",
            primary.host
        ),
    );
    machine.get("");
    until("the outage is on record", 30, || machine.get("outage=1").status == 200);
    primary.says(Some(accepts));
    look(&machine);
    assert_eq!(machine.get("flush").status, 303);
    let total = receipt(&machine, 1)["total"].clone();
    assert_eq!((&total["delivered"], &total["unknown_runs"]), (&0.into(), &1.into()), "{total}");
    let text = machine.get("outage=1&format=text").body;
    assert!(text.contains("Delivered               Not known: the mail log could not be read"), "{text}");
    assert!(
        text.contains("Still waiting           Not known: no run of the whole queue was seen to its end."),
        "{text}"
    );
}
