//! Running the queue: who may, how often, and what goes wrong.

use std::fs;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::machine::{Answer, Machine};
use crate::start::post;
use crate::wait::until;

#[test]
fn a_flush_runs_once_and_then_cools_down() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let answer = machine.get("flush");
    assert_eq!((answer.status, answer.field("location")), (303, Some("?flushed=1")));
    answer.assert_safe_headers();
    assert_eq!(machine.flushes(), 1);
    let again = machine.get("flush");
    assert_eq!(again.status, 429);
    assert!(again.body.ends_with(" s.\n"), "{:?}", again.body);
    let wait: u64 = again.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(machine.flushes(), 1);
    let (_, json) = machine.json();
    assert_eq!(json["flush"]["last"]["number"], 1);
    assert_eq!((&json["flush"]["last"]["messages"], &json["flush"]["last"]["by"]), (&21.into(), &"192.0.2.7".into()));
    assert!(json["flush"]["wait_seconds"].as_u64().unwrap() > 0);
    let page = machine.get("flushed=1&format=html");
    assert!(page.body.contains("0 of 21 so far; 21 still wait: "), "{}", page.body);
    assert!(page.body.contains("<progress max=\"21\" value=\"0\""), "{}", page.body);
    assert!(page.body.contains("it can be run again in"));
    assert_eq!(page.field("refresh"), Some("3; url=?flushed=1"));
    for format in ["html", "text", "json"] {
        let unknown = machine.get(&format!("flushed=7&format={format}")).body;
        assert!(unknown.contains("There is no record of run 7."), "{unknown}");
    }
    // The command line is under the same cool-down.
    let output = machine.command().arg("flush").output().unwrap();
    assert_eq!((output.status.code(), machine.flushes()), (Some(75), 1));
}

#[test]
fn a_run_of_an_empty_queue_starts_no_cool_down() {
    let machine = Machine::with_fixture("postfix/empty-json");
    let answer = machine.get("flush");
    assert_eq!((answer.status, machine.flushes()), (404, 0));
    assert!(answer.body.contains("Nothing is waiting, so there was nothing to run."), "{}", answer.body);
    let (_, json) = machine.json();
    assert_eq!((&json["flush"]["wait_seconds"], &json["flush"]["last"]), (&0.into(), &Value::Null));
    fs::copy("tests/fixtures/postfix/mixed-json.stdout", machine.path("listing")).unwrap();
    fs::write(machine.path("list"), "#!/bin/sh\ncat $(dirname $0)/listing\n").unwrap();
    assert_eq!(machine.get("flush").status, 303);
}

#[test]
fn post_flushes_too() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(post(&machine, "6", b"flush=", &[("HTTP_ORIGIN", b"http://mx2.test")]).status, 303);
    assert_eq!(machine.flushes(), 1);
}

#[test]
fn of_twenty_clicks_at_once_one_runs_the_queue() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let children: Vec<Child> = (0..20).map(|_| machine.cgi(&[("QUERY_STRING", b"flush")]).spawn().unwrap()).collect();
    let mut statuses: Vec<u16> =
        children.into_iter().map(|child| Answer::of(child.wait_with_output().unwrap()).status).collect();
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (303, &[429; 19][..]));
    assert_eq!(machine.flushes(), 1);
}

#[test]
fn only_what_waits_can_be_run_and_a_configured_command_runs_the_whole() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let queries = ["flush=id:NOSUCH", "flush=domain:nowhere.example", "flush=id:-f", "flush=domain:example.co"];
    for (query, from) in queries.iter().zip(["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"]) {
        let answer = ask(&machine, from, query);
        assert_eq!(answer.status, 404, "{query}");
        assert!(answer.body.contains("No message ") && answer.body.contains(" is waiting"), "{}", answer.body);
    }
    let answer = ask(&machine, "192.0.2.5", "flush=id:951BB98C3CD");
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("Only the whole queue"), "{}", answer.body);
    assert_eq!(machine.flushes(), 0);
    assert!(!machine.get("format=html").body.contains("value=\"id:"), "not offered, either");
}

fn ask(machine: &Machine, from: &str, query: &str) -> Answer {
    machine.ask(&[("REMOTE_ADDR", from.as_bytes()), ("QUERY_STRING", query.as_bytes())])
}

/// A machine whose lister notes that it runs, and waits for a file `go` if there is one called `wait` when it begins.
fn with_waiting_lister() -> Machine {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let lister = fs::read_to_string(machine.path("list")).unwrap();
    let wait = "cd $(dirname $0); echo run >> listed; [ ! -e wait ] || while [ ! -e go ]; do sleep 0.02; done";
    fs::write(machine.path("list"), lister.replacen('\n', &format!("\n{wait}\n"), 1)).unwrap();
    machine
}

fn listings(machine: &Machine) -> usize {
    fs::read_to_string(machine.path("listed")).unwrap_or_default().lines().count()
}

/// Starts a request whose look at the queue takes until there is a file `go`; later looks take no time.
fn begin_to_look(machine: &Machine, query: &str) -> Child {
    fs::write(machine.path("wait"), "").unwrap();
    let looking = machine.cgi(&[("QUERY_STRING", query.as_bytes())]).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while listings(machine) == 0 {
        assert!(Instant::now() < until, "it does not look");
        thread::sleep(Duration::from_millis(20));
    }
    fs::remove_file(machine.path("wait")).unwrap();
    looking
}

/// In a loop, that kept everybody from running the queue.
#[test]
fn who_asks_for_what_is_not_there_keeps_nobody_from_running_the_queue() {
    let machine = with_waiting_lister();
    let looking = begin_to_look(&machine, "flush=id:NOSUCH");
    assert_eq!(machine.json().1["flush"]["under_way"], false);
    let answer = ask(&machine, "192.0.2.8", "flush");
    assert_eq!(answer.status, 303, "{}", answer.body);
    fs::write(machine.path("go"), "").unwrap();
    assert_eq!(Answer::of(looking.wait_with_output().unwrap()).status, 404);
    assert_eq!(machine.flushes(), 1);
}

#[test]
fn who_asked_in_vain_waits_for_a_moment_and_nobody_else_does() {
    let machine = with_waiting_lister();
    assert_eq!(machine.get("flush=id:NOSUCH").status, 404);
    let before = listings(&machine);
    for _ in 0..3 {
        let again = machine.get("flush=id:951BB98C3CD");
        assert_eq!(again.status, 429, "{}", again.body);
        assert!(["1", "2"].contains(&again.field("retry-after").unwrap()), "{}", again.head);
        assert!(again.body.contains("came to nothing a moment ago"), "{}", again.body);
    }
    assert_eq!(listings(&machine), before, "nothing was started for it");
    assert_eq!(ask(&machine, "192.0.2.8", "flush=id:NOSUCH").status, 404);
    for _ in 0..2 {
        let output = machine.command().args(["flush", "id:NOSUCH"]).output().unwrap();
        assert_eq!(output.status.code(), Some(65), "on the command line there is no loop to be stopped");
    }
    assert_eq!(machine.get("flush").status, 303, "the whole queue can be run at any time");
}

/// It took the run for one of the future, and ran the queue again.
#[test]
fn a_run_between_the_look_and_the_turn_is_not_repeated() {
    let machine = with_waiting_lister();
    let looking = begin_to_look(&machine, "flush");
    // The other run is a later one by the clock, which counts in seconds.
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(ask(&machine, "192.0.2.8", "flush").status, 303);
    fs::write(machine.path("go"), "").unwrap();
    let answer = Answer::of(looking.wait_with_output().unwrap());
    assert_eq!((answer.status, machine.flushes()), (429, 1), "{}", answer.body);
}

#[test]
fn a_flush_that_the_mail_server_refuses_is_said_to_be_refused() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    fs::write(
        machine.path("flush"),
        "#!/bin/sh\necho 'postqueue: fatal: User www-data(33) is not allowed to flush the mail queue' >&2\nexit 69\n",
    )
    .unwrap();
    let browser: &[(&str, &[u8])] = &[("HTTP_ACCEPT", b"text/html"), ("HTTP_REFERER", b"http://mx2.test/")];
    let answer = machine.ask(&[&[("QUERY_STRING", &b"flush"[..])], browser].concat());
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("authorized_flush_users"), "{}", answer.body);
    fs::write(machine.path("flush"), "#!/bin/sh\nexit 3\n").unwrap();
    let answer = machine.get("flush");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("ended with status 3"), "{}", answer.body);
    assert_eq!(machine.json().1["flush"]["last"], Value::Null, "what did not run is not on record");
}

/// A machine whose flush command is this shell script.
fn with_flusher(script: &str) -> Machine {
    let machine = Machine::with_fixture("postfix/mixed-json");
    fs::write(machine.path("flush"), format!("#!/bin/sh\n{script}\n")).unwrap();
    machine
}

#[test]
fn a_flush_command_that_fails_in_any_way_is_reported_and_starts_no_cool_down() {
    for (script, words) in [
        ("kill -9 $$", "was killed by signal 9"),
        ("echo oops; exit 3", "ended with status 3: “oops”"),
        ("echo 'postqueue: warning: Mail system is down' >&2; exit 69", "Postfix is not running"),
        ("head -c 9000000 /dev/zero | tr '\\0' x; exit 1", "ended with status 1"),
    ] {
        let machine = with_flusher(script);
        for _ in 0..2 {
            let refused = machine.get("flush");
            assert_eq!(refused.status, 503, "{script}: {}", refused.body);
            assert!(refused.body.contains(words) && refused.body.len() < 4000, "{script}: {}", refused.body);
        }
        assert!(machine.json().1["flush"]["last"].is_null(), "{script}");
    }
}

#[test]
fn a_flush_command_that_floods_or_closes_its_output_is_run_all_the_same() {
    for script in ["head -c 9000000 /dev/zero", "head -c 9000000 /dev/zero >&2", "exec >&- 2>&-; sleep 20"] {
        let machine = with_flusher(script);
        assert_eq!(machine.get("flush").status, 303, "{script}");
        assert_eq!(machine.json().1["flush"]["last"]["number"], 1, "{script}");
    }
}

#[test]
fn a_flush_command_that_blocks_does_not_block_the_page_and_holds_the_turn() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "[flush]\ncooldown = \"0s\"");
    let (go, done) = (machine.path("go"), machine.path("done"));
    let script = format!(
        "#!/bin/sh\necho run >> {}\nwhile [ ! -e {} ]; do sleep 0.05; done\necho > {}\n",
        machine.path("flushed").display(),
        go.display(),
        done.display()
    );
    fs::write(machine.path("flush"), script).unwrap();
    let started = Instant::now();
    assert_eq!(machine.get("flush").status, 303);
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!(machine.get("flush").status, 429, "it is under way");
    assert!(machine.get("format=html").body.contains("The queue is being run now."));
    assert_eq!(machine.json().1["flush"]["under_way"], true);
    fs::write(go, "").unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while machine.json().1["flush"]["under_way"] == true {
        assert!(Instant::now() < until, "the turn is never given back");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(done.exists(), "it was left to end by itself");
    assert_eq!(machine.get("flush").status, 303);
    assert_eq!(machine.flushes(), 2);
}

#[test]
fn a_browser_that_goes_away_stops_no_flush() {
    let machine = with_flusher("echo > $(dirname $0)/begun; sleep 1; echo run >> $(dirname $0)/flushed");
    let mut program = machine.cgi(&[("QUERY_STRING", b"flush")]).spawn().unwrap();
    drop(program.stdout.take());
    until("it has begun", 120, || machine.path("begun").exists());
    kill(Pid::from_raw(program.id() as i32), Signal::SIGKILL).unwrap();
    program.wait().unwrap();
    until("the flush has ended", 120, || machine.flushes() > 0);
    assert_eq!(machine.json().1["flush"]["last"]["number"], 1);
}
