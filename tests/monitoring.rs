//! What the monitoring examples ask for is what the program says, in the form that Prometheus reads.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

mod machine;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use machine::Machine;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/monitoring");

fn promtool() -> Option<Command> {
    if Command::new("promtool").arg("--version").output().is_ok() {
        return Some(Command::new("promtool"));
    }
    assert!(env::var("BARTLEBY_LAB").as_deref() != Ok("required"), "promtool is required, but there is none.");
    // libtest does not capture this.
    let _ = writeln!(std::io::stderr(), "\n*** What promtool thinks of it is SKIPPED: there is no promtool ***\n");
    None
}

fn metrics(fixture: &str) -> String {
    Machine::with_fixture(fixture).get("format=openmetrics").body
}

#[test]
fn promtool_passes_the_metrics() {
    for fixture in ["postfix/mixed-json", "postfix/empty-json", "postfix/denied-list", "opensmtpd/mixed-show-queue"] {
        let Some(mut promtool) = promtool() else { return };
        let piped =
            promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut check = piped.spawn().unwrap();
        check.stdin.take().unwrap().write_all(metrics(fixture).as_bytes()).unwrap();
        let output = check.wait_with_output().unwrap();
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success() && told.is_empty(), "{fixture}: {told}");
    }
}

#[test]
fn promtool_passes_the_rules_and_their_tests() {
    for arguments in [
        ["check", "rules", "bartleby.rules.yml"],
        ["test", "rules", "bartleby.rules.test.yml"],
        ["check", "config", "prometheus.yml"],
    ] {
        let Some(mut promtool) = promtool() else { return };
        let output = promtool.args(arguments).current_dir(EXAMPLES).output().unwrap();
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{arguments:?}: {told}");
    }
}

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("bartleby_"));
    words.map(str::to_owned).collect()
}

#[test]
fn every_metric_that_is_asked_for_is_given() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "lifetime = \"6d\"\n[primary]\nhosts = [\"127.0.0.1:1\"]");
    assert_eq!(machine.get("flush").status, 303);
    let mut told = names(&machine.get("format=openmetrics").body);
    // Known only of a mail server whose processes are on this machine.
    told.insert("bartleby_queue_runner_up".to_owned());
    for file in ["bartleby.rules.yml", "grafana.json"] {
        let asked = names(&fs::read_to_string(Path::new(EXAMPLES).join(file)).unwrap());
        assert!(asked.len() > 5, "{file}: {asked:?}");
        let missing: Vec<_> = asked.difference(&told).collect();
        assert!(missing.is_empty(), "{file} asks for {missing:?}");
    }
    let dashboard = fs::read_to_string(Path::new(EXAMPLES).join("grafana.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().len() > 5);
}

#[test]
fn the_checks_of_the_examples_are_understood() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "lifetime = \"6d\"");
    let text = fs::read_to_string(Path::new(EXAMPLES).join("nagios.cfg")).unwrap();
    let command = text.lines().find_map(|line| line.split_once("/usr/local/sbin/bartleby ")).unwrap().1;
    let output = machine.command().args(command.split(' ')).output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() != Some(3) && line.contains("messages=21;100;1000;0"), "{line}");
    let icinga = fs::read_to_string(Path::new(EXAMPLES).join("icinga2.conf")).unwrap();
    for option in ["-w", "-c", "--age-warning", "--age-critical", "--return-warning", "--return-critical"] {
        assert!(icinga.contains(&format!("\"{option}\" = ")) && command.contains(option), "{option}");
    }
}
