//! Many requests at once: how many are under way, how long they wait, and what the others are answered.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::machine::{Answer, Machine};
use crate::wait::until;

/// A machine whose lister never ends by itself, so that requests stay under way.
fn with_hanging_lister() -> Machine {
    let machine = Machine::with_lister("postfix", "exec sleep 983");
    machine.configure("postfix", "deadline = \"10m\"");
    machine
}

/// Requests that stay under way, until they are dropped.
struct Waiting(Vec<Child>);

impl Drop for Waiting {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // As a process ends that is short of memory.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn waiting(machine: &Machine, count: usize, from: &str) -> Waiting {
    let begin = || {
        let mut command = machine.cgi(&[("REMOTE_ADDR", from.as_bytes()), ("QUERY_STRING", b"format=json")]);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let before = places_taken(machine);
    let waiting = Waiting((0..count).map(|_| begin()).collect());
    until("each has its place", 120, || places_taken(machine) == before + count);
    waiting
}

/// How many requests have a place: each has two locks, one of everybody's and one of its address's.
fn places_taken(machine: &Machine) -> usize {
    let Ok(file) = fs::metadata(machine.path("state").join("requests.lock")) else { return 0 };
    let inode = format!(":{}", file.ino());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let of_file = |line: &&str| line.contains("OFDLCK") && line.split(' ').any(|word| word.ends_with(&inode));
    locks.lines().filter(of_file).count() / 2
}

fn ask(machine: &Machine, from: &str, query: &str) -> Answer {
    machine.ask(&[("REMOTE_ADDR", from.as_bytes()), ("QUERY_STRING", query.as_bytes())])
}

/// A browser that fetched the page and left, ten times a second, kept 150 processes alive.
#[test]
fn of_one_address_24_requests_are_under_way_and_more_are_turned_away_at_once() {
    let machine = with_hanging_lister();
    let mut crowd = waiting(&machine, 24, "192.0.2.7");
    for (query, words) in [
        ("format=html", "<h2 class=\"headline\">Too many requests"),
        ("format=text", "Too many requests: 24 requests from your address"),
        ("format=csv", "Too many requests: 24 requests from your address"),
        ("format=json", "{\"error\":{\"message\":\"24 requests from your address"),
        ("flush", "Too many requests: 24 requests from your address"),
    ] {
        let answer = ask(&machine, "192.0.2.7", query);
        assert_eq!((answer.status, answer.field("retry-after")), (503, Some("5")), "{query}: {}", answer.body);
        assert!(answer.body.contains(words), "{query}: {}", answer.body);
        answer.assert_safe_headers();
    }
    let head = machine.ask(&[("REMOTE_ADDR", b"192.0.2.7"), ("REQUEST_METHOD", b"HEAD")]);
    assert_eq!((head.status, head.body.as_str()), (503, ""));
    assert_eq!(ask(&machine, "192.0.2.7", "page=0").status, 400, "a refusal takes no place");
    assert_eq!(machine.flushes(), 0);

    let other = waiting(&machine, 1, "192.0.2.8");
    drop(other);
    let mut killed = crowd.0.pop().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    until("the place of a killed request is free", 120, || places_taken(&machine) == 23);
    drop(waiting(&machine, 1, "192.0.2.7"));
    drop(crowd);
    assert_eq!(places_taken(&machine), 0);
}

#[test]
fn of_all_64_requests_are_under_way() {
    let machine = with_hanging_lister();
    let _crowd =
        [("192.0.2.1", 24), ("2001:db8::1", 24), ("192.0.2.3", 16)].map(|(from, count)| waiting(&machine, count, from));
    let answer = ask(&machine, "192.0.2.4", "format=json");
    let json: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("5")), "{json}");
    assert!(json["error"]["message"].as_str().unwrap().starts_with("64 requests are being answered"), "{json}");
    assert_eq!(ask(&machine, "2001:db8::ffff", "").status, 503, "of one network");
}

#[test]
fn who_hangs_up_while_others_list_is_not_waited_for() {
    let machine = with_hanging_lister();
    let _lists = waiting(&machine, 2, "192.0.2.1");
    until("two list", 120, || {
        [0, 1].iter().all(|number| {
            let lock = File::open(machine.path("state").join(format!("listing-{number}.lock")));
            lock.is_ok_and(|lock| lock.try_lock().is_err())
        })
    });
    let mut third = waiting(&machine, 1, "192.0.2.2");
    drop(third.0[0].stdout.take());
    until("it ends", 120, || third.0[0].try_wait().unwrap().is_some());
    until("its place is free", 120, || places_taken(&machine) == 2);
}

/// A request that got a place at the very end was answered that the mail server did not finish within 0 s.
#[test]
fn a_reader_who_waits_for_others_in_vain_hears_of_them_and_not_of_the_mail_server() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "deadline = \"2s\"");
    assert_eq!(machine.json().0, 200);
    let places = [0, 1].map(|number| {
        let lock = File::create(machine.path("state").join(format!("listing-{number}.lock"))).unwrap();
        lock.try_lock().unwrap();
        lock
    });
    let answer = machine.get("format=json");
    drop(places);
    let json: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, &json["queue"]["status"]), (503, &"timeout".into()));
    let words = "Two other requests kept listing the queue for 1.5 s, so this one gave up.";
    assert_eq!(json["queue"]["error"]["message"], words);
}

/// The web server's user on Debian.
const WWW_DATA: u32 = 33;

/// A machine on which the web server's user lists by a program that runs as root and never ends, as under sudo(8);
/// `None`, loudly, where that can't be arranged.
fn with_lister_out_of_reach() -> Option<Machine> {
    let machine = Machine::with_lister("postfix", "");
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can be two users");
        return None;
    }
    fs::set_permissions(machine.path(""), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(machine.path("state")).unwrap();
    fs::set_permissions(machine.path("state"), Permissions::from_mode(0o700)).unwrap();
    chown(machine.path("state"), Some(WWW_DATA), Some(WWW_DATA)).unwrap();
    let sudo = machine.path("sudo");
    // As what another test starts just now would inherit a copy that is being written.
    assert!(Command::new("cp").arg("/usr/bin/setpriv").arg(&sudo).status().unwrap().success());
    fs::set_permissions(&sudo, Permissions::from_mode(0o4755)).unwrap();
    let words = ["--reuid=0", "--regid=0", "--clear-groups"];
    let user = Command::new(&sudo).args(words).args(["id", "-u"]).uid(WWW_DATA).gid(WWW_DATA).output().unwrap();
    if user.stdout != b"0\n" {
        eprintln!("SKIPPED: no set-user-ID program works here");
        return None;
    }
    let listed = r#"{"queue_name": "deferred", "queue_id": "A1", "arrival_time": 1, "message_size": 1, "sender": "", "recipients": []}"#;
    let script = format!("#!/bin/sh\necho '{listed}'\nexec {} {} sleep 979\n", sudo.display(), words.join(" "));
    fs::write(machine.path("list"), script).unwrap();
    machine.configure("postfix", "deadline = \"800ms\"");
    Some(machine)
}

/// The processes that have a place among those that list.
fn that_hang(machine: &Machine) -> Vec<i32> {
    let has_place = |process: &fs::DirEntry| {
        fs::read_link(process.path().join("fd/0")).is_ok_and(|input| {
            input.parent() == Some(&machine.path("state")) && input.to_string_lossy().contains("/listing-")
        })
    };
    let processes = fs::read_dir("/proc").unwrap().flatten().filter(has_place);
    processes.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
}

/// Each request started one more, and said of it that it was stopped.
#[test]
fn listers_that_can_not_be_stopped_keep_their_places_so_that_two_hang_and_no_more() {
    let Some(machine) = with_lister_out_of_reach() else { return };
    let ask = || {
        let mut request = machine.cgi(&[("QUERY_STRING", b"format=json")]);
        let answer = Answer::of(request.uid(WWW_DATA).gid(WWW_DATA).output().unwrap());
        assert_eq!(answer.status, 503, "{}", answer.body);
        let json: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(json["queue"]["status"], "timeout");
        json["queue"]["error"]["message"].as_str().unwrap().to_owned()
    };
    for number in 1..=2 {
        let said = ask();
        let words = " did not end within 0.8 s and could not be stopped: these are the first 1 message.";
        assert!(said.ends_with(words), "{said}");
        assert_eq!(that_hang(&machine).len(), number);
    }
    assert_eq!(ask(), "Two other requests kept listing the queue for 0.6 s, so this one gave up.");
    let hanging = that_hang(&machine);
    assert_eq!(hanging.len(), 2, "none was started");
    for pid in hanging {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    until("they have ended", 120, || that_hang(&machine).is_empty());
    fs::write(machine.path("list"), "#!/bin/sh\n").unwrap();
    let mut request = machine.cgi(&[("QUERY_STRING", b"format=json")]);
    assert_eq!(Answer::of(request.uid(WWW_DATA).gid(WWW_DATA).output().unwrap()).status, 200, "their places are free");
}

#[test]
fn a_lister_that_does_not_heed_a_request_to_end_is_ended() {
    let machine = Machine::with_lister("postfix", "trap '' TERM; while :; do sleep 979; done");
    machine.configure("postfix", "deadline = \"500ms\"");
    let (_, json) = machine.json();
    let said = json["queue"]["error"]["message"].as_str().unwrap();
    assert!(said.ends_with(" did not finish within 0.5 s and was stopped."), "{said}");
    assert_eq!(that_hang(&machine), [0; 0]);
}
