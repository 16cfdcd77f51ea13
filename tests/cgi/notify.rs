//! `[notify]`: what its command gets from `watch`, and what becomes of a watch whose command does not work.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::machine::Machine;
use crate::played::{Played, accepts, refuses};

/// A machine whose watch gives its events to this script, with more in its configuration.
fn machine(primary: &Played, script: &str, more: &str) -> Machine {
    let machine = primary.machine("");
    let told = machine.path("tell");
    fs::write(&told, script.replace("TOLD", machine.path("told").to_str().unwrap())).unwrap();
    fs::set_permissions(&told, fs::Permissions::from_mode(0o755)).unwrap();
    let text = format!(
        "{more}\n[primary]\nhosts = [\"{}\"]\ndomains = [\"example.com\"]\n[notify]\ncommand = [\"{}\", \"a b\"]\n",
        primary.host,
        told.display()
    );
    machine.configure("postfix", &text);
    machine
}

/// Looks once. Returns what it says on standard error.
fn watch(machine: &Machine) -> String {
    let output = machine.command().args(["watch", "--once"]).output().unwrap();
    String::from_utf8(output.stderr).unwrap()
}

/// The events that were given, by their names.
fn told(machine: &Machine) -> Vec<(String, Value)> {
    let text = fs::read_to_string(machine.path("told")).unwrap_or_default();
    let event = |line: &str| -> Value { serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")) };
    text.lines().map(event).map(|event| (event["event"].as_str().unwrap().to_owned(), event)).collect()
}

fn names(machine: &Machine) -> Vec<String> {
    told(machine).into_iter().map(|(name, _)| name).collect()
}

const KEEPS: &str = "#!/bin/sh\n[ \"$1\" = 'a b' ] && cat >>TOLD\n";

fn down(_: &str) -> Option<String> {
    Some("554 not today\r\n".into())
}

#[test]
fn each_change_is_given_once_from_the_outage_to_the_end_of_the_run() {
    let primary = Played::new(down);
    let machine = machine(&primary, KEEPS, "[flush]\ncooldown = \"0s\"");
    for _ in 0..2 {
        assert_eq!(watch(&machine), "");
        assert_eq!(names(&machine), ["primary_down"], "once");
    }
    primary.says(Some(refuses));
    assert_eq!(watch(&machine), "");
    assert_eq!(names(&machine), ["primary_down", "primary_back"]);
    // Three looks, each in a second of its own.
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(watch(&machine), "");
    }
    let all = told(&machine);
    assert_eq!(names(&machine), ["primary_down", "primary_back", "refusals"]);
    let (_, refusals) = &all[2];
    assert_eq!((&refusals["why"], &refusals["primaries"][0]["verdict"]), (&"refusals".into(), &"refuses".into()));
    let words = refusals["primaries"][0]["recipients"][3]["words"].as_str().unwrap();
    assert!(words.starts_with("550 5.1.1 <"), "{refusals:#}");
    // Somebody runs it.
    primary.says(Some(accepts));
    fs::remove_file(machine.path("state").join("rehearsals.seen")).unwrap();
    assert_eq!(machine.get("flush").status, 303);
    assert_eq!(watch(&machine), "");
    assert_eq!(names(&machine)[3..], ["run_started"]);
    let (_, run) = &told(&machine)[3];
    assert_eq!((&run["run"], &run["target"], &run["by"]), (&1.into(), &"all".into(), &"192.0.2.7".into()), "{run:#}");
    assert!(run["text"].as_str().unwrap().contains("Queue run 1 (all) was started by 192.0.2.7; "), "{run:#}");
    // The played queue does not change: the run is over when it has stood still for a while.
    let begun = Instant::now();
    while names(&machine).len() < 5 && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(watch(&machine), "");
    }
    let (name, end) = &told(&machine)[4];
    assert_eq!((name.as_str(), &end["outcome"]["settled"]), ("run_finished", &true.into()), "{end:#}");
    assert_eq!(end["outcome"]["messages_left"], end["messages"], "{end:#}");
    for (_, event) in told(&machine) {
        assert_eq!((&event["version"], event["at"].is_string(), event["host"].is_string()), (&1.into(), true, true));
    }
}

#[test]
fn a_queue_that_can_not_be_listed_and_mail_that_goes_back_are_given() {
    let primary = Played::new(accepts);
    let machine = machine(&primary, KEEPS, "lifetime = \"1d\"");
    watch(&machine);
    assert_eq!(names(&machine), ["return_near"]);
    let lister = machine.path("list");
    let whole = fs::read(&lister).unwrap();
    fs::write(&lister, "#!/bin/sh\necho it is broken >&2\nexit 1\n").unwrap();
    watch(&machine);
    watch(&machine);
    let all = told(&machine);
    assert_eq!(names(&machine), ["return_near", "listing_failed"]);
    let (_, failed) = &all[1];
    assert!(failed["message"].as_str().unwrap().contains("it is broken") && failed["remedy"].is_string(), "{failed:#}");
    fs::write(&lister, whole).unwrap();
    watch(&machine);
    assert_eq!(names(&machine).len(), 2, "it is listed again, and what goes back has been announced");
}

#[test]
fn a_disk_that_is_nearly_full_is_given_once() {
    let primary = Played::new(accepts);
    let machine = machine(&primary, KEEPS, "[disk]\nwarn = \"100%\"\ncritical = \"100%\"");
    watch(&machine);
    watch(&machine);
    let names = names(&machine);
    let critical = names.iter().filter(|name| *name == "disk_critical").count();
    let mounts: std::collections::HashSet<_> =
        told(&machine).iter().map(|(_, event)| event["mount"].to_string()).collect();
    assert!(critical >= 1 && critical == mounts.len(), "{names:?} {mounts:?}");
}

#[test]
fn a_command_that_fails_is_tried_three_times_and_stops_nothing() {
    let primary = Played::new(down);
    let machine = machine(&primary, "#!/bin/sh\ncat >>TOLD\necho no network >&2\nexit 7\n", "");
    let said: Vec<String> = (0..4).map(|_| watch(&machine)).collect();
    let fails = "the command of [notify] has not taken primary_down: it ended with status 7: “no network”; ";
    for (said, next) in
        said.iter().zip(["it is tried again at the next look", "it is tried again", "that was the last try"])
    {
        assert!(said.contains(fails) && said.contains(next), "{said}");
    }
    assert_eq!((said[3].as_str(), names(&machine)), ("", vec!["primary_down".to_owned(); 3]));
    machine.configure(
        "postfix",
        &format!("[primary]\nhosts = [\"{}\"]\n[notify]\ncommand = [\"/nonexistent/tell\"]\n", primary.host),
    );
    primary.says(Some(accepts));
    let said = watch(&machine);
    assert!(said.contains("has not taken primary_back: /nonexistent/tell could not be started"), "{said}");
}

#[test]
fn a_notice_that_could_not_be_given_is_given_at_the_next_look() {
    let primary = Played::new(down);
    let machine = machine(&primary, "#!/bin/sh\n[ -e TOLD.ready ] && exec cat >>TOLD\nexit 1\n", "");
    assert!(watch(&machine).contains("it is tried again at the next look"));
    fs::write(machine.path("told.ready"), "").unwrap();
    assert_eq!(watch(&machine), "");
    assert_eq!((watch(&machine).as_str(), names(&machine)), ("", vec!["primary_down".to_owned()]));
}

#[test]
fn a_command_that_hangs_is_ended_after_ten_seconds_and_killed_if_need_be() {
    let primary = Played::new(down);
    let machine = machine(&primary, "#!/bin/sh\ntrap '' TERM\necho $$ >TOLD.pid\nwhile :; do sleep 1; done\n", "");
    let begun = Instant::now();
    let output = machine.command().args(["watch", "--once"]).output().unwrap();
    let took = begun.elapsed();
    let (said, line) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    assert!(said.contains("it did not end within 10 s, and was stopped"), "{said}");
    assert!((Duration::from_secs(10)..Duration::from_secs(25)).contains(&took), "{took:?}");
    assert!(output.status.success() && line.contains("the primary does not take mail"), "{line}");
    let pid = fs::read_to_string(machine.path("told.pid")).unwrap();
    assert!(!std::path::Path::new("/proc").join(pid.trim()).exists(), "it still runs");
}

#[test]
fn without_a_command_nothing_is_kept_and_a_later_one_hears_of_what_lasts() {
    let primary = Played::new(down);
    let machine = primary.machine("");
    watch(&machine);
    primary.says(Some(accepts));
    watch(&machine);
    primary.says(Some(down));
    let told_later = machine.path("tell");
    fs::write(&told_later, format!("#!/bin/sh\ncat >>{}\n", machine.path("told").display())).unwrap();
    fs::set_permissions(&told_later, fs::Permissions::from_mode(0o755)).unwrap();
    machine.configure(
        "postfix",
        &format!(
            "[primary]\nhosts = [\"{}\"]\ndomains = [\"example.com\"]\n[notify]\ncommand = [\"{}\"]\n",
            primary.host,
            told_later.display()
        ),
    );
    watch(&machine);
    let all = told(&machine);
    assert_eq!(names(&machine), ["primary_down"], "{all:?}");
    assert_eq!(all[0].1["outage"], 2, "the one that lasts");
}

#[test]
fn a_mistake_in_its_section_ends_with_78_and_names_the_line() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "[notify]\ncommand = \"logger\"\n");
    let output = machine.command().args(["watch", "--once"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("bartleby.toml, line ") && said.contains("[notify] command: a list such as"), "{said}");
}
