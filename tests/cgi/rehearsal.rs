//! What the primary says to some of the recipients, before the queue is run.

use std::process::Child;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::machine::{Answer, Machine};
use crate::played::{Played, Reply, accepts, asking, puts_off, refuses, refuses_one};
use crate::start::post;
use crate::wait::until;

/// The run on record, as JSON.
fn last(machine: &Machine) -> Value {
    machine.json().1["flush"]["last"].clone()
}

fn run_despite(machine: &Machine, body: &str) -> Answer {
    post(machine, &body.len().to_string(), body.as_bytes(), &[("HTTP_ORIGIN", b"http://mx2.test")])
}

#[test]
fn a_primary_that_accepts_its_recipients_gets_the_mail() {
    let primary = Played::new(accepts);
    let machine = primary.machine("");
    assert_eq!(machine.get("flush").status, 303);
    let heard = primary.heard();
    let own = heard[0].strip_prefix("EHLO ").unwrap();
    assert_eq!(heard[1], format!("MAIL FROM:<postmaster@{own}>"));
    let recipients: Vec<_> = heard.iter().filter_map(|line| line.strip_prefix("RCPT TO:")).collect();
    assert!((5..=10).contains(&recipients.len()), "{heard:?}");
    // Of other domains, subdomains included, nobody is asked for; nor anybody twice, nor a name that needs quotes.
    assert!(recipients.iter().all(|path| path.ends_with("@example.com>") && path.is_ascii() && !path.contains('"')));
    assert_eq!(recipients.iter().collect::<std::collections::HashSet<_>>().len(), recipients.len());
    assert!(heard.ends_with(&["RSET".to_owned(), "QUIT".to_owned()]) && !heard.contains(&"DATA".to_owned()));
    let last = last(&machine);
    let said = last["rehearsal"].as_str().unwrap();
    assert_eq!(said, format!("{} accepts {} recipients.", primary.host, recipients.len()));
    assert_eq!((machine.flushes(), &last["despite"]), (1, &Value::Null));
    assert!(machine.get("flushed=1&format=html").body.contains(said));
}

#[test]
fn a_primary_that_refuses_everybody_gets_nothing_and_each_answer_is_shown() {
    let primary = Played::new(refuses);
    let machine = primary.machine("");
    let text = machine.get("flush");
    assert_eq!((text.status, machine.flushes()), (409, 0), "{}", text.body);
    text.assert_safe_headers();
    for words in [
        "Nothing was tried: the main mail server would refuse this mail.",
        "refused 4 of 4 recipients for good: “550 5.1.1 <",
        "If the queue ran now, mail would go back to its senders.",
    ] {
        assert!(text.body.contains(words), "{}", text.body);
    }
    assert_eq!(text.body.matches(" refuses ").count(), 4, "{}", text.body);
    let asked = primary.heard().iter().filter(|line| line.starts_with("RCPT")).count();
    assert_eq!((asked, primary.rehearsals()), (4, 1), "{:?}", primary.heard());
    assert_eq!(last(&machine), Value::Null, "what did not run is not on record, and starts no cool-down");
    // Within ten minutes it is not asked again, for any client and in any form.
    let page = machine.get("flush&format=html");
    assert_eq!(page.status, 409);
    assert!(page.body.contains("name=\"despite\" value=\"refusals\"") && page.body.contains("Run it anyway"));
    assert!(
        page.body.contains("User &lt;b&gt;unknown&lt;/b&gt;") && !page.body.contains("<b>unknown"),
        "{}",
        page.body
    );
    assert!(page.body.contains("That was at ") && page.body.contains("this host banned"), "{}", page.body);
    let json: Value = serde_json::from_str(&machine.get("flush&format=json").body).unwrap();
    let of_one = &json["rehearsal"][0];
    assert_eq!((&of_one["host"], &of_one["verdict"]), (&primary.host.as_str().into(), &"refuses".into()));
    assert_eq!(of_one["recipients"][3]["answer"], "refused", "{json:#}");
    assert!(json["error"]["message"].as_str().unwrap().starts_with("Nothing was tried: "));
    let output = machine.command().arg("flush").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("To run it anyway: bartleby flush --despite-refusals all"), "{said}");
    assert_eq!((primary.rehearsals(), machine.flushes()), (1, 0));
}

#[test]
fn who_runs_the_queue_against_refusals_says_so_by_a_post_and_is_on_record_with_it() {
    let primary = Played::new(refuses);
    let machine = primary.machine("[flush]\ncooldown = \"0s\"");
    assert_eq!(machine.get("flush").status, 409);
    let link = machine.get("flush=all&despite=refusals");
    assert_eq!((link.status, link.field("allow"), machine.flushes()), (405, Some("post"), 0), "{}", link.body);
    // It was meant against something else: the refusals still count.
    assert_eq!(run_despite(&machine, "flush=all&despite=overdue").status, 409);
    assert_eq!(run_despite(&machine, "flush=all&despite=refusals").status, 303);
    assert_eq!((machine.flushes(), primary.rehearsals()), (1, 1), "it was not asked again");
    assert_eq!(last(&machine)["despite"], "refusals");
    let page = machine.get("format=html").body;
    assert!(page.contains(", whatever the main mail server refuses"), "{page}");
    let output = machine.command().args(["flush", "--despite-refusals"]).output().unwrap();
    assert_eq!((output.status.code(), machine.flushes(), primary.rehearsals()), (Some(0), 2, 1));
    let foreign = post(&machine, "26", b"flush=all&despite=refusals", &[("HTTP_ORIGIN", b"http://evil.example")]);
    assert_eq!((foreign.status, machine.flushes()), (403, 2));
}

#[test]
fn a_few_refusals_or_a_primary_that_puts_off_keep_nobody_from_a_run_and_are_said() {
    for (reply, words) in [
        (refuses_one as Reply, "for good, whose mail would go back: moe@example.com (“550 5.1.1 "),
        (puts_off, "puts off all recipients that were asked for: “450 4.2.0 Greylisted”."),
    ] {
        let primary = Played::new(reply);
        let machine = primary.machine("");
        assert_eq!(machine.get("flush").status, 303);
        let said = last(&machine)["rehearsal"].as_str().unwrap().to_owned();
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_message_that_is_larger_than_the_primary_takes_is_said_to_go_back() {
    let small = |line: &str| {
        let said = accepts(line)?;
        Some(said.replace("SIZE 50000000", "SIZE 200000"))
    };
    let primary = Played::new(small);
    let machine = primary.machine("");
    assert_eq!(machine.get("flush").status, 303);
    let said = last(&machine)["rehearsal"].as_str().unwrap().to_owned();
    assert!(said.ends_with("It takes 195 KiB at the most: 1 message is larger, and would go back."), "{said}");
}

#[test]
fn what_no_primary_says_is_not_known_and_the_queue_is_run_as_before() {
    let endless = |line: &str| if line.is_empty() { Some("220-x\r\n".repeat(100_000)) } else { accepts(line) };
    let huge = |line: &str| if line.starts_with("RCPT") { Some("2".repeat(9 << 20)) } else { accepts(line) };
    let silent = |line: &str| if line.starts_with("MAIL") { None } else { accepts(line) };
    let lets_wait = |line: &str| if line.is_empty() { Some("220-wait\r\n".into()) } else { accepts(line) };
    let cases: [(Reply, &str); 4] = [
        (endless, "its reply has no end"),
        (huge, "its reply has no end"),
        (silent, "it answered for no recipient in time"),
        (lets_wait, "it is up, but lets callers wait"),
    ];
    thread::scope(|scope| {
        for (reply, words) in cases {
            scope.spawn(move || {
                let primary = Played::new(reply);
                let machine = primary.machine("");
                assert_eq!(machine.get("flush").status, 303);
                let said = last(&machine)["rehearsal"].as_str().unwrap().to_owned();
                assert!(said.contains("It is not known what") && said.contains(words), "{said}");
            });
        }
    });
    let nobody = Played::new(accepts);
    nobody.says(None);
    let machine = nobody.machine("");
    assert_eq!(machine.get("flush").status, 303);
    let said = last(&machine)["rehearsal"].as_str().unwrap().to_owned();
    assert!(said.ends_with("it took the connection, and ended it without a word."), "{said}");
}

#[test]
fn mail_past_its_time_is_not_run_against_a_primary_that_does_not_accept_it_now() {
    let nobody = |_: &str| Some("421 not today\r\n".to_owned());
    let cases: [(Reply, &str); 2] = [(puts_off, "450 4.2.0 Greylisted"), (nobody, "421 not today")];
    for (reply, words) in cases {
        let primary = Played::new(reply);
        let machine = primary.machine("lifetime = \"1d\"\n[flush]\ncooldown = \"0s\"");
        let text = machine.get("flush");
        assert_eq!((text.status, machine.flushes()), (409, 0), "{}", text.body);
        for words in [
            "messages are past their time: the next attempt that fails returns them to their senders.",
            "Nothing was tried: they have waited for longer than 24 hours ([mta] lifetime = \"1d\"), and the main mail server does \
             not take them now.",
            words,
            "Give the mail more time first.",
        ] {
            assert!(text.body.contains(words), "{words}: {}", text.body);
        }
        let page = machine.get("flush&format=html").body;
        assert!(page.contains("name=\"despite\" value=\"overdue\"") && page.contains("Try it anyway"), "{page}");
        let output = machine.command().arg("flush").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(69) && said.contains("flush --despite-overdue all"), "{said}");
        assert_eq!(run_despite(&machine, "flush=all&despite=overdue").status, 303);
        assert_eq!((machine.flushes(), &last(&machine)["despite"]), (1, &"overdue".into()));
        // It delivers them, as soon as the primary takes them.
        primary.says(Some(accepts));
        // What it said in the same second is good for all.
        thread::sleep(Duration::from_millis(1100));
        assert_eq!((machine.get("flush").status, machine.flushes()), (303, 2));
        // And what still has time is only tried in vain.
        let machine = primary.machine("lifetime = \"3000d\"");
        primary.says(Some(reply));
        assert_eq!(machine.get("flush").status, 303);
    }
}

fn begin(machine: &Machine, query: &str) -> Child {
    machine.cgi(&[("QUERY_STRING", query.as_bytes())]).spawn().unwrap()
}

#[test]
fn a_process_that_dies_while_it_asks_leaves_nothing_known() {
    let primary = Played::new(|line| if line.starts_with("RCPT") { None } else { accepts(line) });
    let machine = primary.machine("");
    let run = begin(&machine, "flush");
    until("it asks", 30, || primary.heard().iter().any(|line| line.starts_with("RCPT")));
    kill(asking(&run), Signal::SIGKILL).unwrap();
    assert_eq!(Answer::of(run.wait_with_output().unwrap()).status, 303);
    let said = last(&machine)["rehearsal"].as_str().unwrap().to_owned();
    assert!(said.ends_with("the process that asks it was killed by signal 9."), "{said}");
}

/// Who reloads in impatience must not find out that nothing is known.
#[test]
fn a_request_that_ends_early_ends_no_rehearsal() {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let primary = Played::new(|line| {
            if line.starts_with("RCPT") {
                thread::sleep(Duration::from_millis(300));
            }
            refuses(line)
        });
        let machine = primary.machine("");
        let mut run = begin(&machine, "flush");
        until("it asks", 30, || primary.heard().iter().any(|line| line.starts_with("RCPT")));
        kill(Pid::from_raw(run.id().cast_signed()), signal).unwrap();
        run.wait().unwrap();
        let again = machine.get("flush");
        assert_eq!((again.status, primary.rehearsals()), (409, 1), "{}", again.body);
    }
}

#[test]
fn of_many_clicks_at_once_one_asks_the_primary() {
    let primary = Played::new(accepts);
    let machine = primary.machine("");
    let clicks: Vec<Child> = (0..8).map(|_| begin(&machine, "flush")).collect();
    let mut statuses: Vec<u16> =
        clicks.into_iter().map(|click| Answer::of(click.wait_with_output().unwrap()).status).collect();
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..], machine.flushes()), (303, &[429; 7][..], 1));
    // A request a second after the first may have asked again.
    assert!(primary.rehearsals() <= 3, "{}", primary.rehearsals());
}

#[test]
fn nobody_is_asked_where_that_is_not_wanted_or_nothing_is_known_to_ask() {
    let primary = Played::new(refuses);
    let machine = primary.machine("[flush]\nrehearse = false");
    assert_eq!(machine.get("flush").status, 303);
    assert_eq!((primary.connections(), &last(&machine)["rehearsal"]), (0, &Value::Null));
    let unknown = Machine::with_fixture("postfix/mixed-json");
    let output = unknown.command().arg("flush").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("it is not known which server is the main one"), "{said}");
    let machine = primary.machine("");
    machine
        .configure("postfix", &format!("[primary]\nhosts = [\"{}\"]\ndomains = [\"nowhere.example\"]", primary.host));
    assert_eq!(machine.get("flush").status, 303);
    let said = last(&machine)["rehearsal"].as_str().unwrap().to_owned();
    assert!(said.contains("nobody waits whose address could be asked for") && primary.rehearsals() == 0, "{said}");
}

#[test]
fn masked_addresses_are_asked_for_whole_and_shown_masked() {
    let primary = Played::new(refuses);
    let machine = primary.machine("[privacy]\nmask = \"local-part\"");
    for format in ["html", "text", "json"] {
        let answer = machine.get(&format!("flush&format={format}"));
        assert_eq!(answer.status, 409);
        assert!(answer.body.contains("…@example.com") && !answer.body.contains("larry@"), "{}", answer.body);
    }
    assert!(primary.heard().iter().any(|line| line == "RCPT TO:<larry@example.com>"), "{:?}", primary.heard());
}

#[test]
fn watch_wants_to_see_the_primary_back_three_times_and_asks_it_first() {
    let primary = Played::new(accepts);
    let machine = primary.machine("[flush]\ncooldown = \"0s\"");
    let watch = || {
        let output = machine.command().args(["watch", "--once"]).output().unwrap();
        // Each look is of a second of its own.
        thread::sleep(Duration::from_millis(1100));
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    assert!(watch().contains("it was never seen down"));
    primary.says(Some(|_| Some("554 not today\r\n".into())));
    assert!(watch().contains("the primary does not take mail"));
    primary.says(Some(refuses));
    assert!(watch().contains("seen 1 of 3 times in a row"));
    primary.says(Some(|_| Some("421 not now\r\n".into())));
    assert!(watch().contains("the primary does not take mail"));
    primary.says(Some(refuses));
    assert!(watch().contains("seen 1 of 3 times in a row"));
    assert!(watch().contains("seen 2 of 3 times in a row"));
    assert_eq!(primary.rehearsals(), 0);
    let said = watch();
    assert!(said.contains("the queue is not run: Nothing was tried: the main mail server would refuse"), "{said}");
    assert!(said.contains("The next try is due in 300 s"), "{said}");
    let said = watch();
    assert!(said.contains("the main mail server would refuse"), "{said}");
    assert_eq!((primary.rehearsals(), machine.flushes()), (1, 0), "it waits");
    // A person may, and then it is done.
    assert_eq!(run_despite(&machine, "flush=all&despite=refusals").status, 303);
    assert!(watch().contains("the queue was run since the primary came back"));
}
