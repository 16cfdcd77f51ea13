//! The command line.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::machine::Machine;
use crate::start::interruptible;

#[test]
fn the_command_line_lists_and_says_what_it_does_not_know() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let run = |arguments: &[&str]| {
        let output = machine.command().args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, text, _) = run(&["list"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("93BAB98C209") && text.contains("21 messages, 28 recipients"), "{text}");
    let (code, json, _) = run(&["list", "--format", "json"]);
    assert_eq!(code, Some(0));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["queue"]["messages"], 21);
    assert_eq!(run(&["--version"]).1, concat!("bartleby ", env!("CARGO_PKG_VERSION"), "\n"));
    assert!(run(&["--help"]).1.contains("Usage: bartleby list"));
    for wrong in [&["frobnicate"][..], &[], &["list", "--format", "pdf"], &["list", "x"], &["--bogus"], &["flush", "x"]]
    {
        let (code, _, error) = run(wrong);
        assert_eq!(code, Some(64), "{wrong:?}");
        assert!(error.contains("see bartleby --help"), "{error}");
    }
    let started = "Queue run 1 was started. Nothing was asked of the main mail server before the run, as it is not known \
                   which server is the main one.\n";
    assert_eq!(run(&["flush"]), (Some(0), started.into(), String::new()));
    assert_eq!(machine.flushes(), 1);
}

#[test]
fn words_that_once_started_workers_are_no_commands() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for word in ["run-flush", "run-look", "run-outlook", "run-reasons", "run-survey", "as-worker", "worker"] {
        for more in [&[][..], &["all"], &["1", "all"], &["/bin/sh", "-c", "exit 0"]] {
            let output = machine.command().arg(word).args(more).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0), "{word} {more:?}: {said}");
            assert!(said.contains("there is no command") && !machine.path("state").exists(), "{word}: {said}");
        }
    }
    assert_eq!(machine.flushes(), 0);
}

/// What a command prints to a terminal of 60 columns.
fn on_a_terminal(machine: &Machine, words: &str, variables: &str) -> String {
    let command = format!("stty cols 60 rows 24; {variables} {} {words}", env!("CARGO_BIN_EXE_bartleby"));
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::null());
    script.env("BARTLEBY_CONFIG", machine.path("bartleby.toml")).env("SHELL", "/bin/sh").env_remove("NO_COLOR");
    String::from_utf8(script.output().unwrap().stdout).unwrap().replace('\r', "")
}

#[test]
fn on_a_terminal_the_list_is_a_table_with_colours_that_fits() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let coloured = on_a_terminal(&machine, "list", "");
    assert!(coloured.contains("\x1b[1;33m951BB98C3CD") && coloured.contains("\x1b[0m"), "{coloured}");
    assert!(coloured.contains("    full@example.com  host 127.0.0.2[127.0.0.2] said: 452"), "{coloured}");
    let plain = on_a_terminal(&machine, "list", "NO_COLOR=1");
    assert!(!plain.contains('\x1b') && plain.contains("21 messages, 28 recipients"), "{plain}");
    let table = plain.split("21 messages are waiting").next().unwrap();
    assert!(table.lines().all(|line| line.chars().count() <= 60), "{table}");
    let piped = machine.command().arg("list").output().unwrap();
    let piped = String::from_utf8(piped.stdout).unwrap();
    assert!(!piped.contains('\x1b') && piped.lines().any(|line| line.chars().count() > 100), "whole in a pipe");
}

#[test]
fn the_list_is_printed_again_until_it_is_interrupted() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let mut program = interruptible(&machine, &["list", "--watch"]).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(program.stdout.take().unwrap()));
    for _ in 0..2 {
        assert!(lines.any(|line| line.unwrap().starts_with("21 messages, 28 recipients")));
    }
    kill(Pid::from_raw(program.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(program.wait().unwrap().signal(), Some(Signal::SIGINT as i32));
}

#[test]
fn doctor_names_what_is_wrong_and_the_fix() {
    let run = |machine: &Machine| {
        let output = machine.command().arg("doctor").output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let machine = Machine::with_fixture("postfix/denied-list");
    let (code, text) = run(&machine);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("FAIL  listing the queue: Postfix does not let the user")
            && text.contains("authorized_mailq_users"),
        "{text}"
    );
    assert!(text.contains("ok    running the queue: the whole queue, with the configured flush_command"), "{text}");
    let machine = Machine::with_fixture("postfix/mixed-json");
    let (_, text) = run(&machine);
    assert!(text.contains("ok    listing the queue: 21 messages in 0."), "{text}");
    fs::remove_dir_all(machine.path("state")).unwrap();
    fs::write(machine.path("state"), "").unwrap();
    assert!(run(&machine).1.contains("FAIL  state directory: no folder is usable"));
}

#[test]
fn watch_needs_to_know_the_primary_and_runs_nothing_without() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let watch = |machine: &Machine| {
        let output = machine.command().args(["watch", "--once"]).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, text) = watch(&machine);
    assert!(code == Some(69) && text.contains("[primary] hosts"), "{code:?} {text}");
    let primary = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    machine.configure("postfix", &format!("[primary]\nhosts = [\"{}\"]", primary.local_addr().unwrap()));
    drop(primary);
    let (code, text) = watch(&machine);
    assert!(code == Some(0) && text.contains("is down") && text.contains("does not take mail"), "{code:?} {text}");
    fs::write(machine.path("list"), "#!/bin/sh\nexit 1\n").unwrap();
    let (code, text) = watch(&machine);
    assert!(code == Some(69) && text.contains("ended with status 1"), "{code:?} {text}");
    assert_eq!(machine.flushes(), 0);
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_its_line() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "colour = \"red\"");
    let answer = machine.get("format=html");
    assert_eq!(answer.status, 500);
    assert!(answer.body.contains("bartleby.toml, line 5, [mta] colour: there is no `colour` here"), "{}", answer.body);
    let stranger = machine.ask(&[("BARTLEBY_ACCESS", b"")]);
    assert_eq!(stranger.status, 403);
    assert!(!stranger.body.contains("colour"));
    let output = machine.command().arg("list").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 5, [mta] colour"));
}
