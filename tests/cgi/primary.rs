//! How often the primary is asked, and by whom.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::machine::{Answer, Machine};
use crate::wait::until;

/// A primary that counts who connects.
struct Primary {
    host: String,
    connections: Arc<AtomicUsize>,
    /// Whether it says nothing for the present.
    hangs: Arc<AtomicBool>,
    /// Whether it turns everybody away.
    is_down: Arc<AtomicBool>,
}

impl Primary {
    fn new() -> Primary {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let primary = Primary { host, connections: Arc::default(), hangs: Arc::default(), is_down: Arc::default() };
        let (connections, hangs, is_down) =
            (primary.connections.clone(), primary.hangs.clone(), primary.is_down.clone());
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                connections.fetch_add(1, Ordering::SeqCst);
                let (hangs, is_down) = (hangs.clone(), is_down.clone());
                thread::spawn(move || serve(stream, &hangs, &is_down));
            }
        });
        primary
    }

    fn machine(&self) -> Machine {
        let machine = Machine::with_fixture("postfix/mixed-json");
        machine.configure("postfix", &format!("[primary]\nhosts = [\"{}\"]", self.host));
        machine
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Greeting, EHLO and QUIT.
fn serve(mut stream: TcpStream, hangs: &AtomicBool, is_down: &AtomicBool) {
    while hangs.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(10));
    }
    if is_down.load(Ordering::SeqCst) {
        let _ = stream.write_all(b"554 not today\r\n");
        return;
    }
    let _ = stream.write_all(b"220 primary\r\n");
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while let Some(Ok(_)) = lines.next() {
        if stream.write_all(b"250 primary\r\n").is_err() {
            break;
        }
    }
}

fn begin(machine: &Machine, number: usize) -> Child {
    // Of one address, fewer are under way at a time.
    let from = format!("192.0.2.{number}");
    let mut view = machine.cgi(&[("REMOTE_ADDR", from.as_bytes()), ("QUERY_STRING", b"format=json")]);
    view.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(view: Child) -> Value {
    let answer = Answer::of(view.wait_with_output().unwrap());
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str::<Value>(&answer.body).unwrap()["primary"][0].clone()
}

/// A hundred views made a hundred connections within a second.
#[test]
fn many_views_at_once_ask_the_primary_once() {
    let primary = Primary::new();
    let machine = primary.machine();
    let started = Instant::now();
    let views: Vec<_> = (0..50).map(|number| begin(&machine, number)).collect();
    for view in views {
        assert_eq!(end(view)["up"], true);
    }
    let most = 1 + usize::try_from(started.elapsed().as_secs() / 60).unwrap();
    assert!((1..=most).contains(&primary.connections()), "{} connections", primary.connections());
}

#[test]
fn a_reader_who_asks_while_the_primary_is_asked_waits_for_the_same_answer() {
    let primary = Primary::new();
    let machine = primary.machine();
    primary.hangs.store(true, Ordering::SeqCst);
    let first = begin(&machine, 1);
    until("the primary is asked", 30, || primary.connections() == 1);
    let others: Vec<_> = (2..6).map(|number| begin(&machine, number)).collect();
    thread::sleep(Duration::from_millis(200));
    primary.hangs.store(false, Ordering::SeqCst);
    let first = end(first);
    assert_eq!(first["up"], true, "{first}");
    for other in others {
        assert_eq!(end(other), first);
    }
    assert_eq!(primary.connections(), 1);
}

#[test]
fn what_was_seen_is_said_with_its_time_and_not_as_newer_than_it_is() {
    let primary = Primary::new();
    let machine = primary.machine();
    let seen = end(begin(&machine, 1));
    assert!(seen["up"] == true && seen["seen"].is_string() && seen["since"].is_string(), "{seen}");
    primary.is_down.store(true, Ordering::SeqCst);
    thread::sleep(Duration::from_millis(1100));
    assert_eq!(end(begin(&machine, 2)), seen, "of that time");
    let page = machine.get("format=html").body;
    assert!(page.contains("<p class=\"soft\">Seen ") && page.contains(" ago.</p>"), "{page}");
    let text = machine.get("format=text").body;
    assert!(text.contains("\nPrimary, seen ") && text.contains(" ago:\n"), "{text}");
    assert_eq!(primary.connections(), 1);
    // A check whether all is in place is about the present.
    let doctor = machine.command().arg("doctor").output().unwrap();
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(said.contains(&format!("{} is down: 554 not today", primary.host)), "{said}");
    let down = end(begin(&machine, 3));
    assert!(down["up"] == false && down["seen"].as_str() > seen["seen"].as_str(), "{down}");
    assert_eq!(primary.connections(), 2);
}

/// What was seen of the primaries, as if it had been seen so many seconds earlier.
fn make_older(machine: &Machine, seconds: i64) {
    let file = machine.path("state").join("primaries.seen");
    let bytes = fs::read(&file).unwrap();
    let mut seen: Value = serde_json::from_slice(&bytes[8..]).unwrap();
    seen["status"]["seen"] = (seen["status"]["seen"].as_i64().unwrap() - seconds).into();
    let seen = serde_json::to_vec(&seen).unwrap();
    let mut hasher = DefaultHasher::new();
    seen[..].hash(&mut hasher);
    fs::write(&file, [&hasher.finish().to_le_bytes(), &seen[..]].concat()).unwrap();
}

/// Even EHLO and QUIT are logged there, and count for some jails.
#[test]
fn what_was_seen_is_good_for_every_view_within_a_minute_and_watch_looks_itself() {
    let primary = Primary::new();
    let machine = primary.machine();
    assert_eq!(end(begin(&machine, 1))["up"], true);
    // The clock goes on meanwhile.
    make_older(&machine, 50);
    assert_eq!(end(begin(&machine, 2))["up"], true);
    for command in ["check", "metrics", "list"] {
        machine.command().arg(command).output().unwrap();
    }
    assert_eq!(primary.connections(), 1);
    make_older(&machine, 10);
    assert_eq!(end(begin(&machine, 3))["up"], true);
    assert_eq!(primary.connections(), 2, "that was a minute ago");
    for looks in [3, 4] {
        machine.command().args(["watch", "--once"]).output().unwrap();
        assert_eq!(primary.connections(), looks, "what is acted upon is looked at");
    }
}

/// Nobody noticed for twelve seconds, and the look at the queue was put on record as if somebody had seen it.
#[test]
fn a_client_who_leaves_while_the_primary_is_awaited_is_not_waited_for() {
    let primary = Primary::new();
    let machine = primary.machine();
    assert_eq!(end(begin(&machine, 1))["up"], true);
    fs::remove_file(machine.path("state").join("samples.table")).unwrap();
    let seen = fs::File::options().write(true).open(machine.path("state").join("primaries.seen")).unwrap();
    seen.set_len(0).unwrap();
    // Somebody else seems to ask.
    seen.try_lock().unwrap();
    let lister = machine.path("list");
    let text = fs::read_to_string(&lister).unwrap();
    fs::write(&lister, text.replace("exit", &format!("echo >{}; exit", machine.path("listed").display()))).unwrap();
    let mut view = begin(&machine, 2);
    until("it has listed", 30, || machine.path("listed").exists());
    thread::sleep(Duration::from_millis(300));
    drop(view.stdout.take());
    until("it ends", 30, || view.try_wait().unwrap().is_some());
    assert!(!machine.path("state").join("samples.table").exists(), "it went on to the end");
}

#[test]
fn only_what_this_very_program_saw_of_these_primaries_is_said() {
    let primary = Primary::new();
    let machine = primary.machine();
    let file = machine.path("state").join("primaries.seen");
    assert_eq!(end(begin(&machine, 1))["up"], true);
    let good = fs::read(&file).unwrap();
    for planted in [&b"soup"[..], &[0; 100], &good[..good.len() - 1], &vec![b'x'; 3 << 20]] {
        let before = primary.connections();
        fs::write(&file, planted).unwrap();
        assert_eq!(end(begin(&machine, 2))["up"], true);
        assert_eq!(primary.connections(), before + 1, "{} bytes", planted.len());
    }
    let other = Primary::new();
    machine.configure("postfix", &format!("[primary]\nhosts = [\"{}\"]", other.host));
    assert_eq!(end(begin(&machine, 3))["host"], other.host);
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert_eq!(end(begin(&machine, 4))["up"], true, "where nothing can be kept it is asked each time");
    assert_eq!(end(begin(&machine, 5))["up"], true);
    assert_eq!(other.connections(), 3);
}

#[test]
fn a_view_that_ends_while_it_asks_leaves_nothing_and_nobody_without_an_answer() {
    let primary = Primary::new();
    let machine = primary.machine();
    primary.hangs.store(true, Ordering::SeqCst);
    let mut first = begin(&machine, 1);
    until("the primary is asked", 30, || primary.connections() == 1);
    let second = begin(&machine, 2);
    first.kill().unwrap();
    first.wait().unwrap();
    until("the next one asks", 30, || primary.connections() == 2);
    primary.hangs.store(false, Ordering::SeqCst);
    assert_eq!(end(second)["up"], true);
    let seen = fs::File::open(machine.path("state").join("primaries.seen")).unwrap();
    until("nobody holds the lock", 30, || seen.try_lock().is_ok());
}
