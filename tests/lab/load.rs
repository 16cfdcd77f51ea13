//! Many readers, slow ones and such as leave: everybody else is served meanwhile, and nothing of them is left.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::faults::{self, STATE};
use crate::http::{self, ALLOWED};
use crate::machine::{Lab, PROGRAM};
use crate::page::{self, target};
use crate::{apache, wait};

/// A long queue, which is made once for each length.
const QUEUE: &str = "/var/tmp/queue";

/// Where its lister notes when it begins and ends.
const LOG: &str = "/var/tmp/queue.log";

/// How long the next page may take, in seconds. It says that it comes, not how quick it is.
const AT_LAST: u64 = 10;

/// Makes the lister list so many messages.
fn queue(messages: usize) {
    fs::write(QUEUE, faults::listing(messages)).unwrap();
    fs::write(LOG, "").unwrap();
    faults::let_all_write(LOG);
    faults::lister(&format!("echo begin >> {LOG}; cat {QUEUE}; echo end >> {LOG}"));
}

/// Fails where a lister waits for a reader.
#[track_caller]
fn every_listing_ends() {
    wait::until("no lister waits for a reader", 20, || {
        let log = fs::read_to_string(LOG).unwrap();
        let [begun, ended] = ["begin", "end"].map(|word| log.lines().filter(|line| *line == word).count());
        if begun == ended { Ok(()) } else { Err(format!("{ended} of {begun} have ended")) }
    });
}

/// An address of the crowd's.
fn somebody(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, 1 + u8::try_from(number % 200).unwrap())
}

/// A client that has asked, and reads no more than it must.
fn ask(from: Ipv4Addr, query: &str) -> TcpStream {
    let mut stream = http::connect(from, http::SERVER).unwrap();
    // As little as can be.
    socket2::SockRef::from(&stream).set_recv_buffer_size(1).unwrap();
    write!(stream, "GET {} HTTP/1.0\r\nHost: localhost\r\n\r\n", target(query)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream
}

/// `bartleby list --format json` as the web server's user, into a pipe that is not read.
fn list() -> Child {
    let program = Path::new(apache::FOLDER).join(PROGRAM);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=www-data", "--regid=www-data", "--init-groups"]).arg(program);
    command.args(["list", "--format", "json"]).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Takes a byte a second of each, for so many seconds.
fn take_slowly(readers: &mut [&mut dyn Read], seconds: usize) {
    for _ in 0..seconds {
        for reader in readers.iter_mut() {
            reader.read_exact(&mut [0]).unwrap();
        }
        thread::sleep(Duration::from_secs(1));
    }
}

/// The page, `check` and the metrics all say that all is well.
fn others_are_served(messages: u64) {
    let page = page::html(200);
    assert!(page.contains("The listing is complete"), "{messages}: {page}");
    assert_eq!(page::json(200).queue.messages, messages);
    assert!(page::get("?format=openmetrics").expect(200).body.contains("\nbartleby_up 1\n"));
    let (code, said) = apache::command_line(&["check"]);
    assert!(code == Some(0) && said.contains("OK"), "{code:?} {said}");
}

/// Two who read a byte a second kept everybody else from the page.
pub fn of_slow_readers(_lab: &mut Lab) {
    faults::configure_with(30, "[disk]\nwarn = \"0%\"\ncritical = \"0%\"\n");
    let stalled = ask(somebody(0), "?format=json");
    for messages in [20_000, 200_000] {
        queue(messages);
        let mut lists = [list(), list()];
        let mut streams = [ask(ALLOWED, "?format=json"), ask(somebody(1), "?format=json")];
        let mut readers: Vec<&mut dyn Read> = streams.iter_mut().map(|stream| stream as &mut dyn Read).collect();
        readers.extend(lists.iter_mut().map(|list| list.stdout.as_mut().unwrap() as &mut dyn Read));
        take_slowly(&mut readers, 3);
        others_are_served(messages as u64);
        take_slowly(&mut readers, 3);
        every_listing_ends();
        if messages > 100_000 {
            an_honest_reader_gets_all(messages);
        }
        for list in &mut lists {
            drop(list.stdout.take());
        }
        drop(streams);
        for list in &mut lists {
            list.wait().unwrap();
        }
        if messages == 20_000 {
            faults::lister(&format!("cat {QUEUE}"));
        }
    }
    // The one who takes nothing gets no more after a minute, even if it stays. Most of that is over.
    wait::until("nobody waits for who takes nothing", 90, || {
        let left = faults::processes().into_iter().filter(|(_, name)| name == PROGRAM).count();
        if left == 0 { Ok(()) } else { Err(format!("{left} processes")) }
    });
    drop(stalled);
    faults::nothing_is_left("slow readers");
}

/// At 1.5 MB a second: slower than anything here, and in no hurry.
fn an_honest_reader_gets_all(messages: usize) {
    const SHARE: usize = 150_000;
    let mut stream = http::connect(somebody(2), http::SERVER).unwrap();
    write!(stream, "GET {} HTTP/1.0\r\nHost: localhost\r\n\r\n", target("?format=json")).unwrap();
    let (mut answer, mut last) = (Vec::new(), 1);
    while last > 0 {
        last = Read::by_ref(&mut stream).take(SHARE as u64).read_to_end(&mut answer).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let json: Value = serde_json::from_slice(&answer[body..]).unwrap();
    assert_eq!(json["queue"]["complete"], true, "{}", json["queue"]);
    assert_eq!(json["messages"].as_array().unwrap().len(), messages);
}

/// The page comes, sooner or later, and nothing of what was before is left.
#[track_caller]
fn and_then_the_page_comes(after: &str) {
    let page = wait::until(&format!("the page comes after {after}"), AT_LAST, || {
        let answer = page::get("");
        if answer.status == 200 { Ok(answer.body) } else { Err(format!("{answer:?}")) }
    });
    assert!(page.contains("The listing is complete"), "after {after}: {page}");
    faults::nothing_is_left(after);
}

/// More than anybody means to send, within bounds.
pub fn of_a_flood(_lab: &mut Lab) {
    faults::configure_with(20, "");
    queue(20_000);
    page::html(200);
    let request = format!("GET {} HTTP/1.0\r\nHost: localhost\r\n\r\n", target(""));
    for number in 0..200 {
        let from = if number % 2 == 0 { ALLOWED } else { somebody(number) };
        http::hang_up(from, request.as_bytes()).unwrap();
    }
    and_then_the_page_comes("200 requests that were dropped");
    // Those who left have ended their listers.
    fs::write(LOG, "").unwrap();

    let mut slow: Vec<_> = (0..50).map(|number| ask(somebody(number % 5), "?format=json")).collect();
    let mut readers: Vec<&mut dyn Read> = slow.iter_mut().map(|stream| stream as &mut dyn Read).collect();
    take_slowly(&mut readers, 2);
    others_are_served(20_000);
    every_listing_ends();
    drop(slow);
    and_then_the_page_comes("50 slow readers");

    faults::lister(&format!("sleep 0.5; exec cat {QUEUE}"));
    let started = Instant::now();
    let crowd: Vec<_> = (0..150)
        .map(|_| thread::spawn(|| http::request(ALLOWED, "GET", &target("?format=text&per_page=1"), &[]).unwrap()))
        .collect();
    // Somebody else is not turned away.
    let other = http::request(somebody(7), "GET", &target("?format=text&per_page=1"), &[]).unwrap();
    assert_eq!(other.status, 200, "{other:?}");
    let answers: Vec<_> = crowd.into_iter().map(|one| one.join().unwrap()).collect();
    let (served, turned_away): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert!(served.len() >= 24, "{} of 150 were served in {:?}", served.len(), started.elapsed());
    assert!(!turned_away.is_empty(), "nobody was turned away");
    for answer in turned_away {
        assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("5")), "{answer:?}");
        assert!(answer.body.contains("24 requests from your address"), "{answer:?}");
    }
    faults::lister(&format!("exec cat {QUEUE}"));
    and_then_the_page_comes("150 at a time from one address");
    let places = fs::metadata(Path::new(STATE).join("requests.lock")).unwrap();
    assert_eq!(places.len(), 0, "nothing is written there");
}

/// A lister that runs as root by a sudo rule ends when sudo passes SIGTERM on. One that does not heed it can't be stopped:
/// it keeps its place.
pub fn of_listers_out_of_reach(_lab: &mut Lab) {
    const HANGS: &str = "/usr/local/sbin/hangs";
    fs::write("/etc/sudoers.d/lab", format!("www-data ALL=(root) NOPASSWD: {HANGS} \"\"\n")).unwrap();
    faults::lister(&format!("exec sudo -n -- {HANGS}"));
    let hanging = || -> Vec<i32> {
        faults::processes().into_iter().filter(|(_, name)| name == "sleep").map(|(pid, _)| pid).collect()
    };
    faults::executable(HANGS, &format!("#!/bin/sh\nhead -5 {}\nexec sleep 600\n", faults::fixture()));
    let error = page::json(503).queue.error.unwrap().message;
    assert!(error.contains("the first 5 messages: the listing was cut after 3 s"), "{error}");
    faults::nothing_is_left("a lister under sudo");

    faults::executable(HANGS, &format!("#!/bin/sh\ntrap '' TERM HUP\nhead -5 {}\nexec sleep 600\n", faults::fixture()));
    for number in 1..=2 {
        let listing = page::json(503);
        let error = listing.queue.error.unwrap().message;
        assert!(error.contains(" did not end within 3 s and could not be stopped: these are the first 5"), "{error}");
        assert_eq!((listing.queue.messages, hanging().len()), (5, number));
    }
    for pid in hanging() {
        let input = fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
        assert_eq!(input.parent(), Some(Path::new(STATE)), "sudo hands the place on: {input:?}");
    }
    let listing = page::json(503);
    let error = listing.queue.error.unwrap().message;
    assert!(error.starts_with("Two other requests kept listing the queue for 2.3 s"), "{error}");
    assert_eq!(hanging().len(), 2, "none was started");
    for pid in hanging() {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    fs::remove_file("/etc/sudoers.d/lab").unwrap();
    faults::lister(&format!("cat {}", faults::fixture()));
    wait::until("their places are free", AT_LAST, || {
        let answer = page::get("?format=json");
        if answer.status == 200 { Ok(()) } else { Err(answer.body) }
    });
    faults::nothing_is_left("listers out of reach");
}
