//! One listing for all who look at the same time: how many listers are started, who shares, and that nobody holds others up.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::machine::{Answer, Machine};
use crate::start::post;
use crate::wait::until;

/// A lister that is counted, waits until it may go on, and prints this.
fn with_counted_lister(then: &str) -> Machine {
    let machine = Machine::with_lister("postfix", "");
    let folder = machine.path("").display().to_string();
    let script = format!(
        "#!/bin/sh\necho run >> {folder}/listed\necho begun >&2\nwhile [ ! -e {folder}/go ]; do sleep 0.02; done\n{then}\n"
    );
    fs::write(machine.path("list"), script).unwrap();
    configure(&machine, "");
    machine
}

fn configure(machine: &Machine, more: &str) {
    machine
        .configure("postfix", &format!("{more}\n[flush]\ncooldown = \"0s\"\n[disk]\nwarn = \"0%\"\ncritical = \"0%\""));
}

/// Prints a message of this id.
fn message(id: &str) -> String {
    format!(
        "echo '{{\"queue_name\": \"deferred\", \"queue_id\": \"{id}\", \"arrival_time\": 1795434000, \"message_size\": 900, \
         \"sender\": \"a@example.org\", \"recipients\": [{{\"address\": \"r@example.com\", \"delay_reason\": \"x\"}}]}}'"
    )
}

fn listed(machine: &Machine) -> usize {
    fs::read_to_string(machine.path("listed")).unwrap_or_default().lines().count()
}

fn goes_on(machine: &Machine) {
    fs::write(machine.path("go"), "").unwrap();
}

fn begin(machine: &Machine, query: &str) -> Child {
    let mut request = machine.cgi(&[("QUERY_STRING", query.as_bytes())]);
    request.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Starts so many requests, and waits until each has its connection to who lists.
fn begin_all(machine: &Machine, count: usize, query: &str) -> Vec<Child> {
    let all: Vec<_> = (0..count).map(|_| begin(machine, query)).collect();
    for child in &all {
        until("it shares a listing", 60, || {
            let open = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().flatten();
            let links = open.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
            links.into_iter().any(|link| link.to_string_lossy().contains("socket:"))
        });
    }
    all
}

fn json(child: Child) -> (u16, Value) {
    let answer = Answer::of(child.wait_with_output().unwrap());
    (answer.status, serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.body)))
}

#[track_caller]
fn all_have(machine: &Machine, all: Vec<Child>, id: &str) {
    let answers: Vec<_> = all.into_iter().map(json).collect();
    for (status, json) in &answers {
        assert_eq!((*status, &json["queue"]["status"]), (200, &"ok".into()), "{}", json["queue"]);
        assert_eq!(json["messages"][0]["id"], id);
        assert_eq!(json["generated"], answers[0].1["generated"], "of one listing");
    }
    assert!(listed(machine) > 0);
}

/// Nobody keeps a listing any longer.
fn nothing_is_left(machine: &Machine) {
    let folder = machine.path("state").display().to_string();
    until("no process has a file of the state folder", 30, || {
        let open = fs::read_dir("/proc").unwrap().flatten().flat_map(|process| fs::read_dir(process.path().join("fd")));
        let links = open.flatten().flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        !links.into_iter().any(|link| link.to_string_lossy().contains(&folder))
    });
    let names = fs::read_dir(machine.path("state")).unwrap().map(|entry| entry.unwrap().file_name());
    let strange: Vec<_> = names
        .filter(|name| {
            [".", "socket"].iter().any(|part| {
                name.to_string_lossy().split_once(part).is_some_and(|(front, _)| front.is_empty() || *part == "socket")
            })
        })
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn twenty_who_look_at_once_start_one_lister_and_so_do_those_who_come_soon_after() {
    let machine = with_counted_lister(&message("A1"));
    let all = begin_all(&machine, 20, "format=json");
    assert_eq!(listed(&machine), 1);
    goes_on(&machine);
    all_have(&machine, all, "A1");
    assert_eq!(machine.json().1["messages"][0]["id"], "A1");
    let list = machine.command().args(["list", "--format", "json"]).output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&list.stdout).unwrap()["messages"][0]["id"], "A1");
    assert_eq!(listed(&machine), 1, "within five seconds");
    nothing_is_left(&machine);
    assert_eq!(machine.json().0, 200);
    assert_eq!(listed(&machine), 2, "after them");
}

#[test]
fn bytes_that_have_come_are_shown_to_all_before_the_lister_ends() {
    let machine = with_counted_lister("");
    let folder = machine.path("").display().to_string();
    let line = message("A1");
    let script = format!(
        "#!/bin/sh\necho run >> {folder}/listed\nn=0; while [ $n -lt 9000 ]; do {line}; n=$((n+1)); done\n\
         while [ ! -e {folder}/go ]; do sleep 0.02; done\n"
    );
    fs::write(machine.path("list"), script).unwrap();
    let mut all = begin_all(&machine, 3, "format=json");
    for child in &mut all {
        let mut first = [0; 200_000];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut first).unwrap();
    }
    assert!(all.iter_mut().all(|child| child.try_wait().unwrap().is_none()));
    goes_on(&machine);
    assert!(all.into_iter().all(|child| child.wait_with_output().unwrap().stdout.ends_with(b"}\n")));
    assert_eq!(listed(&machine), 1);
}

#[test]
fn a_lister_that_fails_fails_for_all_who_share_it_and_the_next_one_lists_again() {
    let machine = with_counted_lister("echo 'postqueue: fatal: software error' >&2; exit 70");
    let all = begin_all(&machine, 5, "format=json");
    goes_on(&machine);
    for child in all {
        let (status, json) = json(child);
        assert_eq!((status, &json["queue"]["status"]), (503, &"failed".into()));
        assert!(json["queue"]["error"]["message"].as_str().unwrap().contains("ended with status 70"), "{json}");
    }
    assert_eq!(listed(&machine), 1);
    assert_eq!(machine.json().0, 503);
    assert_eq!(listed(&machine), 2, "why it failed may have been mended");
}

#[test]
fn what_was_listed_before_a_run_is_shown_to_nobody_who_comes_after_it() {
    let machine = with_counted_lister(&message("A1"));
    goes_on(&machine);
    assert_eq!(machine.json().0, 200);
    assert_eq!((machine.json().0, listed(&machine)), (200, 1));
    let run = post(&machine, "5", b"flush", &[]);
    assert_eq!(run.status, 303, "{}", run.body);
    until("the queue was run", 30, || machine.flushes() == 1);
    let place = run.field("location").unwrap().rsplit('?').next().unwrap().to_owned();
    let before = listed(&machine);
    let answer = machine.get(&format!("{place}&format=json"));
    assert_eq!(answer.status, 200);
    // Those who follow the run list on their own.
    until("it was listed anew", 30, || listed(&machine) > before);
    let own = fs::read_dir(machine.path("state"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|ending| ending == "socket"));
    let lock = fs::metadata(machine.path("state").join("flush.lock")).unwrap().modified().unwrap();
    assert!(own.map(|door| door.metadata().unwrap().modified().unwrap()).all(|begun| begun > lock));
}

#[test]
fn many_who_follow_a_run_share_their_listings() {
    let machine = with_counted_lister(&message("A1"));
    goes_on(&machine);
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(machine.get("flushed=7&format=json").status, 200);
    }
    let most = 1 + started.elapsed().as_secs() as usize / 5;
    assert!((1..=most).contains(&listed(&machine)), "{} in {:?}", listed(&machine), started.elapsed());
}

#[test]
fn other_commands_and_other_settings_have_a_listing_of_their_own() {
    let machine = with_counted_lister(&message("A1"));
    goes_on(&machine);
    assert_eq!(machine.json().1["messages"][0]["id"], "A1");
    fs::copy(machine.path("list"), machine.path("other")).unwrap();
    let other = fs::read_to_string(machine.path("other")).unwrap().replace("A1", "B2");
    fs::write(machine.path("other"), other).unwrap();
    let text = fs::read_to_string(machine.path("bartleby.toml")).unwrap();
    let named = text.replace(&machine.path("list").display().to_string(), &machine.path("other").display().to_string());
    fs::write(machine.path("bartleby.toml"), named).unwrap();
    assert_eq!(machine.json().1["messages"][0]["id"], "B2", "another command");
    fs::write(machine.path("bartleby.toml"), &text).unwrap();
    assert_eq!((&machine.json().1["messages"][0]["id"], listed(&machine)), (&"A1".into(), 2));
    configure(&machine, "deadline = \"19s\"");
    assert_eq!((machine.json().0, listed(&machine)), (200, 3), "another deadline");
    let newer = fs::read_to_string(machine.path("list")).unwrap().replace("A1", "C3");
    fs::write(machine.path("list"), newer).unwrap();
    assert_eq!(machine.json().1["messages"][0]["id"], "C3", "another program of that name");
}

#[test]
fn doctor_lists_by_itself() {
    let machine = with_counted_lister(&message("A1"));
    goes_on(&machine);
    assert_eq!(machine.json().0, 200);
    machine.command().arg("doctor").output().unwrap();
    assert_eq!(listed(&machine), 2);
}

#[test]
fn without_room_each_lists_alone_and_no_more_than_two_at_a_time() {
    let machine = with_counted_lister(&message("A1"));
    machine.configure("postfix", "[disk]\nwarn = \"100%\"\ncritical = \"100%\"");
    let all: Vec<_> = (0..3).map(|_| begin(&machine, "format=json")).collect();
    until("two list", 60, || listed(&machine) == 2);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(listed(&machine), 2);
    goes_on(&machine);
    for child in all {
        assert_eq!(json(child).0, 200);
    }
    assert_eq!(listed(&machine), 3);
}

/// The name of the socket at which those meet who look now.
fn door(machine: &Machine) -> std::path::PathBuf {
    let doors = || {
        let entries = fs::read_dir(machine.path("state")).unwrap().flatten().map(|entry| entry.path());
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "socket")).collect::<Vec<_>>()
    };
    until("there is one", 30, || doors().len() == 1);
    doors().remove(0)
}

#[test]
fn what_others_put_in_the_sockets_place_is_not_believed_and_left_alone() {
    let machine = with_counted_lister(&message("A1"));
    goes_on(&machine);
    assert_eq!(machine.json().0, 200);
    let door = door(&machine);
    nothing_is_left(&machine);
    for (number, plant) in ["file", "folder", "link"].into_iter().enumerate() {
        match plant {
            "file" => fs::write(&door, "soup").unwrap(),
            "folder" => fs::create_dir(&door).unwrap(),
            _ => std::os::unix::fs::symlink("/etc/passwd", &door).unwrap(),
        }
        let before = listed(&machine);
        let (status, json) = machine.json();
        assert_eq!(
            (status, &json["messages"][0]["id"], listed(&machine)),
            (200, &"A1".into(), before + 1),
            "{plant} {number}"
        );
        assert_eq!(fs::symlink_metadata(&door).unwrap().is_dir(), plant == "folder", "it is left as it was");
        if plant == "folder" { fs::remove_dir(&door).unwrap() } else { fs::remove_file(&door).unwrap() }
    }
    // A socket of another program of this user, that says nothing that makes sense.
    let stranger = UnixListener::bind(&door).unwrap();
    stranger.set_nonblocking(true).unwrap();
    let said = thread::spawn(move || {
        let mut came = None;
        until("somebody comes", 30, || {
            came = stranger.accept().ok();
            came.is_some()
        });
        let (mut stream, _) = came.unwrap();
        let words = b"{\"Begun\":{\"began\":1}}\n{\"Ended\":{\"took\":{\"secs\":0,\"nanos\":0},\"ends\":[]}}\nsoup\n";
        let _ = std::io::Write::write_all(&mut stream, words);
    });
    let (status, json) = machine.json();
    said.join().unwrap();
    assert_eq!((status, &json["messages"][0]["id"]), (200, &"A1".into()), "it lists alone");
}

#[test]
fn another_users_socket_is_not_joined() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can make another user's socket");
    }
    let machine = with_counted_lister(&message("A1"));
    goes_on(&machine);
    assert_eq!(machine.json().0, 200);
    let door = door(&machine);
    nothing_is_left(&machine);
    let stranger = UnixListener::bind(&door).unwrap();
    stranger.set_nonblocking(true).unwrap();
    std::os::unix::fs::chown(&door, Some(33), Some(33)).unwrap();
    assert_eq!(machine.json().0, 200);
    assert!(stranger.accept().is_err(), "nobody came");
    assert_eq!(fs::metadata(&door).unwrap().uid(), 33);
}

#[test]
fn the_first_who_is_killed_or_leaves_takes_nothing_from_the_others() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGPIPE] {
        let machine = with_counted_lister(&message("A1"));
        let mut first = begin_all(&machine, 1, "format=json").remove(0);
        let others = begin_all(&machine, 3, "format=json");
        if signal == Signal::SIGPIPE {
            drop(first.stdout.take());
        } else {
            kill(Pid::from_raw(first.id() as i32), signal).unwrap();
        }
        first.wait().unwrap();
        goes_on(&machine);
        all_have(&machine, others, "A1");
        assert_eq!(listed(&machine), 1, "{signal}");
    }
}

#[test]
fn a_lister_for_which_nobody_waits_any_longer_is_stopped() {
    let machine = with_counted_lister(&message("A1"));
    for mut child in begin_all(&machine, 3, "format=json") {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    nothing_is_left(&machine);
    goes_on(&machine);
    assert_eq!((machine.json().0, listed(&machine)), (200, 2));
}

#[test]
fn who_lists_for_all_and_is_killed_leaves_each_to_list_alone() {
    let machine = with_counted_lister(&message("A1"));
    let all = begin_all(&machine, 3, "format=json");
    until("it is listed", 60, || listed(&machine) == 1);
    let children = |pid: u32| fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    // The child that has a child: the lister.
    let hosts = || {
        let of_all = all.iter().flat_map(|child| {
            children(child.id()).split_whitespace().map(|pid| pid.parse::<u32>().unwrap()).collect::<Vec<_>>()
        });
        of_all.filter(|pid| !children(*pid).is_empty()).collect::<Vec<_>>()
    };
    until("it has its lister", 60, || hosts().len() == 1);
    kill(Pid::from_raw(hosts()[0] as i32), Signal::SIGKILL).unwrap();
    goes_on(&machine);
    all_have(&machine, all, "A1");
    let door = machine.path("state");
    assert!(fs::read_dir(door).unwrap().count() > 0);
}

#[test]
fn one_who_does_not_read_holds_nobody_up() {
    let machine = with_counted_lister(&format!("n=0; while [ $n -lt 9000 ]; do {}; n=$((n+1)); done", message("A1")));
    let slow = begin_all(&machine, 1, "format=json").remove(0);
    let others = begin_all(&machine, 2, "format=json");
    goes_on(&machine);
    for child in others {
        let (status, json) = json(child);
        assert_eq!((status, json["queue"]["messages"].as_u64()), (200, Some(9000)));
    }
    assert_eq!(json(slow).1["queue"]["messages"], 9000);
    assert_eq!(listed(&machine), 1);
}

#[test]
fn nobody_else_can_open_what_is_shared_and_it_has_no_name() {
    let machine = with_counted_lister(&message("A1"));
    let all = begin_all(&machine, 1, "format=json");
    until("it is listed", 60, || listed(&machine) == 1);
    let folder = machine.path("state");
    let files = || {
        let open = fs::read_dir("/proc").unwrap().flatten().flat_map(|process| fs::read_dir(process.path().join("fd")));
        open.flatten()
            .flatten()
            .filter(|fd| {
                fs::read_link(fd.path())
                    .is_ok_and(|link| link.starts_with(&folder) && link.to_string_lossy().ends_with("(deleted)"))
            })
            .filter_map(|fd| File::open(fd.path()).ok()?.metadata().ok())
            .map(|found| (found.nlink(), found.permissions().mode() & 0o777))
            .collect::<Vec<_>>()
    };
    until("the file is there", 60, || !files().is_empty());
    assert!(files().iter().all(|found| *found == (0, 0o600)), "{:?}", files());
    goes_on(&machine);
    all_have(&machine, all, "A1");
}

#[test]
fn the_foot_says_when_it_was_listed_and_ages_are_of_then() {
    let machine = with_counted_lister(&message("A1"));
    goes_on(&machine);
    let first = machine.json().1;
    thread::sleep(Duration::from_millis(2100));
    assert_eq!(machine.json().1["generated"], first["generated"]);
    let foot = |page: String| page.split(" at ").nth(1).map(str::to_owned).unwrap_or_default();
    let text = machine.get("format=text").body;
    let time = first["generated"].as_str().unwrap().split('T').nth(1).unwrap().trim_end_matches('Z').to_owned();
    let minutes_and_seconds = &time[3..];
    assert!(text.contains(minutes_and_seconds), "{time}: {text}");
    let page = machine.get("format=html").body;
    assert!(page.contains(minutes_and_seconds), "{time}: {}", foot(page));
    assert_eq!(listed(&machine), 1);
}
