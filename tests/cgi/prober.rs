//! What becomes of a view whose process that asks the primary dies or hangs, or is told nonsense without end.

use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use serde_json::Value;

use crate::machine::{Answer, Machine};
use crate::played::{Played, Reply, accepts, asking};
use crate::wait::until;

/// A view that waits for a primary that does not greet.
fn waiting() -> (Played, Machine, Child) {
    let primary = Played::new(|line| if line.is_empty() { Some("22".into()) } else { None });
    let machine = primary.machine("");
    let view = machine.cgi(&[("QUERY_STRING", b"format=json")]).spawn().unwrap();
    until("the primary is asked", 30, || primary.connections() == 1);
    (primary, machine, view)
}

fn ended(view: Child) -> Value {
    let answer = Answer::of(view.wait_with_output().unwrap());
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn a_view_whose_prober_is_killed_shows_the_queue_and_claims_nothing_of_the_primary() {
    let (primary, machine, view) = waiting();
    kill(asking(&view), Signal::SIGKILL).unwrap();
    let shown = ended(view);
    assert_eq!((&shown["queue"]["status"], &shown["primary"]), (&"ok".into(), &serde_json::json!([])), "{shown:#}");
    assert_eq!(shown["outages"], serde_json::json!([]), "nobody saw it down");
    // The next view asks again, and is answered.
    primary.says(Some(accepts));
    let next = machine.json().1;
    assert_eq!(next["primary"][0]["up"], true, "{next:#}");
}

#[test]
fn a_view_whose_prober_hangs_is_answered_in_time() {
    let (_primary, _machine, view) = waiting();
    let stopped = asking(&view);
    kill(stopped, Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    let shown = ended(view);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!((&shown["queue"]["status"], &shown["primary"]), (&"ok".into(), &serde_json::json!([])), "{shown:#}");
    until("it is gone", 30, || kill(stopped, None).is_err());
}

#[test]
fn a_primary_that_answers_by_megabytes_or_without_end_is_down_and_no_view_waits_for_it() {
    let megabytes = |line: &str| if line.is_empty() { Some("2".repeat(9 << 20)) } else { None };
    let endless = |line: &str| if line.is_empty() { Some("220-x\r\n".repeat(100_000)) } else { None };
    let after_hello = |line: &str| if line.is_empty() { accepts(line) } else { Some("250-x\r\n".repeat(100_000)) };
    let empty = |_: &str| Some("\r\n".repeat(50_000));
    for reply in [megabytes as Reply, endless, after_hello, empty] {
        let primary = Played::new(reply);
        let machine = primary.machine("");
        let begun = Instant::now();
        let shown = machine.json().1;
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        let of_it = &shown["primary"][0];
        assert_eq!((&of_it["up"], &shown["queue"]["status"]), (&false.into(), &"ok".into()), "{of_it:#}");
        assert!(of_it["detail"].as_str().unwrap().len() < 400, "{of_it:#}");
    }
}

/// A change was noted with the second in which the answer was there: the next look of `watch` then took the primary for one
/// that had been down since the look before.
#[test]
fn a_primary_is_so_since_it_was_asked_however_long_it_takes() {
    let slow = |line: &str| {
        if line.is_empty() {
            std::thread::sleep(Duration::from_millis(1200));
        }
        accepts(line)
    };
    let primary = Played::new(|_| Some("554 not today\r\n".into()));
    let machine = primary.machine("");
    let watch = || {
        let output = machine.command().args(["watch", "--once"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    watch();
    primary.says(Some(slow));
    assert!(watch().contains("seen 1 of 3 times in a row"));
    let of_it = machine.json().1["primary"][0].clone();
    assert!(of_it["up"] == true && of_it["since"] == of_it["seen"], "{of_it:#}");
    let said = watch();
    assert!(said.contains("seen 2 of 3 times in a row"), "{said}");
}
