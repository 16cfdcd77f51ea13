//! One listing for all who look at the same time: how many listers are started, who shares, and that nobody holds others up.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::machine::{Answer, Machine};
use crate::start::{behind, post};
use crate::wait::until;

/// A lister that is counted, takes so long that it is worth sharing, waits until it may go on, and prints this.
fn with_counted_lister(then: &str) -> Machine {
    let mut machine = Machine::with_lister("postfix", "");
    machine.shares = true;
    let folder = machine.path("").display().to_string();
    let script = format!(
        "#!/bin/sh\necho run >> {folder}/listed\necho begun >&2\nsleep 0.1\nwhile [ ! -e {folder}/go ]; do sleep 0.02; done\n{then}\n"
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

/// Fails unless so many were listed since that time; and where this took longer, one more for each five seconds.
#[track_caller]
fn shares(machine: &Machine, lists: usize, since: Instant) {
    let (listed, time) = (listed(machine), since.elapsed());
    assert!((lists..=lists + time.as_secs() as usize / 5).contains(&listed), "{listed} in {time:?}");
}

fn goes_on(machine: &Machine) {
    fs::write(machine.path("go"), "").unwrap();
}

fn begin(machine: &Machine, query: &str) -> Child {
    let mut request = machine.cgi(&[("QUERY_STRING", query.as_bytes())]);
    request.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// The files without a name that a process has in the state folder: their link counts, and their modes.
fn nameless_files(machine: &Machine, process: &str) -> Vec<(u64, u32)> {
    let folder = machine.path("state");
    let open = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let is_one = |link: PathBuf| link.starts_with(&folder) && link.to_string_lossy().ends_with("(deleted)");
    let ours = open.filter(|open| fs::read_link(open.path()).is_ok_and(is_one));
    let found = ours.filter_map(|open| fs::metadata(open.path()).ok());
    found.map(|found| (found.nlink(), found.permissions().mode() & 0o777)).collect()
}

/// Starts so many requests, and waits until each has joined.
fn begin_all(machine: &Machine, count: usize, query: &str) -> Vec<Child> {
    let all: Vec<_> = (0..count).map(|_| begin(machine, query)).collect();
    for child in &all {
        until("it shares a listing", 60, || {
            // The notes, and the listing.
            nameless_files(machine, &child.id().to_string()).len() == 2
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
        let one = listed(machine) > 1 || json["generated"] == answers[0].1["generated"];
        assert!(one, "of one listing");
    }
}

/// Nobody keeps a listing any longer.
fn nothing_is_left(machine: &Machine) {
    let folder = machine.path("state").display().to_string();
    until("no process has a file of the state folder", 30, || {
        let open = fs::read_dir("/proc").unwrap().flatten().flat_map(|process| fs::read_dir(process.path().join("fd")));
        let links = open.flatten().flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        !links.into_iter().any(|link| link.to_string_lossy().contains(&folder))
    });
}

#[test]
fn twenty_who_look_at_once_start_one_lister_and_so_do_those_who_come_soon_after() {
    let machine = with_counted_lister(&message("A1"));
    let started = Instant::now();
    let all = begin_all(&machine, 20, "format=json");
    shares(&machine, 1, started);
    goes_on(&machine);
    all_have(&machine, all, "A1");
    assert_eq!(machine.json().1["messages"][0]["id"], "A1");
    let list = machine.command().args(["list", "--format", "json"]).output().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&list.stdout).unwrap()["messages"][0]["id"], "A1");
    shares(&machine, 1, started);
    nothing_is_left(&machine);
    let before = listed(&machine);
    assert_eq!(machine.json().0, 200);
    assert_eq!(listed(&machine), before + 1, "after five seconds");
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
    let started = Instant::now();
    let mut all = begin_all(&machine, 3, "format=json");
    for child in &mut all {
        let mut first = [0; 200_000];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    }
    assert!(all.iter_mut().all(|child| child.try_wait().unwrap().is_none()));
    goes_on(&machine);
    assert!(all.into_iter().all(|child| child.wait_with_output().unwrap().stdout.ends_with(b"}\n")));
    shares(&machine, 1, started);
}

#[test]
fn a_lister_that_fails_fails_for_all_who_share_it_and_the_next_one_lists_again() {
    let machine = with_counted_lister("echo 'postqueue: fatal: software error' >&2; exit 70");
    let started = Instant::now();
    let all = begin_all(&machine, 5, "format=json");
    goes_on(&machine);
    for child in all {
        let (status, json) = json(child);
        assert_eq!((status, &json["queue"]["status"]), (503, &"failed".into()));
        assert!(json["queue"]["error"]["message"].as_str().unwrap().contains("ended with status 70"), "{json}");
    }
    shares(&machine, 1, started);
    let before = listed(&machine);
    assert_eq!(machine.json().0, 503);
    assert_eq!(listed(&machine), before + 1, "why it failed may have been mended");
}

#[test]
fn what_was_listed_before_a_run_is_shown_to_nobody_who_comes_after_it() {
    let machine = with_counted_lister(&message("A1"));
    goes_on(&machine);
    let started = Instant::now();
    assert_eq!([machine.json().0, machine.json().0], [200, 200]);
    shares(&machine, 1, started);
    let run = post(&machine, "5", b"flush", &[]);
    assert_eq!(run.status, 303, "{}", run.body);
    until("the queue was run", 30, || machine.flushes() == 1);
    let place = run.field("location").unwrap().rsplit('?').next().unwrap().to_owned();
    let before = listed(&machine);
    let answer = machine.get(&format!("{place}&format=json"));
    assert_eq!(answer.status, 200);
    assert!(listed(&machine) > before, "it was listed anew");
}

#[test]
fn many_who_follow_a_run_share_their_listings() {
    let machine = with_counted_lister(&message("A1"));
    goes_on(&machine);
    let started = Instant::now();
    for _ in 0..20 {
        assert_eq!(machine.get("flushed=7&format=json").status, 200);
    }
    shares(&machine, 1, started);
}

#[test]
fn other_commands_and_other_settings_have_a_listing_of_their_own() {
    let machine = with_counted_lister(&message("A1"));
    goes_on(&machine);
    let started = Instant::now();
    assert_eq!(machine.json().1["messages"][0]["id"], "A1");
    fs::copy(machine.path("list"), machine.path("other")).unwrap();
    let other = fs::read_to_string(machine.path("other")).unwrap().replace("A1", "B2");
    fs::write(machine.path("other"), other).unwrap();
    let text = fs::read_to_string(machine.path("bartleby.toml")).unwrap();
    let named = text.replace(&machine.path("list").display().to_string(), &machine.path("other").display().to_string());
    fs::write(machine.path("bartleby.toml"), named).unwrap();
    assert_eq!(machine.json().1["messages"][0]["id"], "B2", "another command");
    fs::write(machine.path("bartleby.toml"), &text).unwrap();
    assert_eq!(machine.json().1["messages"][0]["id"], "A1");
    shares(&machine, 2, started);
    configure(&machine, "deadline = \"19s\"");
    let before = listed(&machine);
    assert_eq!((machine.json().0, listed(&machine)), (200, before + 1), "another deadline");
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

/// The disk takes no more in the middle of it: who has sent nothing lists alone, who has says so.
#[test]
fn a_listing_for_which_the_room_runs_out_is_lost_to_those_who_share_it_and_not_cut_short() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can make a small filesystem");
    }
    let machine = with_counted_lister("");
    let long = message("A1").replace("\"x\"", &format!("\"{}\"", "x".repeat(16 << 10)));
    let one = long.strip_prefix("echo '").and_then(|line| line.strip_suffix('\'')).unwrap();
    fs::write(machine.path("one"), format!("{one}\n").repeat(70)).unwrap();
    // What makes the answer begin.
    let small = message("B2").trim_start_matches("echo '").trim_end_matches('\'').to_owned();
    fs::write(machine.path("many"), format!("{small}\n").repeat(9000)).unwrap();
    let folder = machine.path("").display().to_string();
    let script = format!(
        "#!/bin/sh\necho run >> {folder}/listed\ncat {folder}/many; while [ ! -e {folder}/go ]; do sleep 0.02; done\n\
         [ $(wc -l < {folder}/listed) -gt 2 ] && exit\nn=0; while [ $n -lt 70 ]; do cat {folder}/one; n=$((n+1)); done\n"
    );
    fs::write(machine.path("list"), script).unwrap();
    configure(&machine, "deadline = \"120s\"");
    fs::create_dir_all(machine.path("state")).unwrap();
    let begin = |query: &str| {
        let mount =
            format!("mount -t tmpfs -o size=66m,mode=700 state {}; exec \"$0\"", machine.path("state").display());
        let request = machine.cgi(&[("QUERY_STRING", query.as_bytes())]);
        let mut request = behind(&["unshare", "--mount", "sh", "-c", &mount], &request);
        request.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut stream = begin("format=json");
    let mut first = vec![0; 200_000];
    stream.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    goes_on(&machine);
    let rest = stream.wait_with_output().unwrap().stdout;
    let answer = String::from_utf8([first, rest].concat()).unwrap();
    let stream: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    let queue = &stream["queue"];
    assert_eq!((&queue["status"], &queue["complete"]), (&"failed".into(), &false.into()), "{queue}");
    assert!(queue["error"]["message"].as_str().unwrap().contains("was lost before its end"), "{queue}");
    assert_eq!(listed(&machine), 1);
    let page = json(begin("format=json&per_page=1")).1;
    assert_eq!((&page["queue"]["status"], &page["queue"]["messages"]), (&"ok".into(), &9000.into()));
    assert_eq!(listed(&machine), 3, "it was listed once more");
}

#[test]
fn a_quick_listing_is_shared_only_with_those_who_would_have_to_wait() {
    let machine = with_counted_lister(&message("A1"));
    plant(&machine, String::new);
    fs::remove_file(machine.path("go")).unwrap();
    let places: Vec<File> = (0..2)
        .map(|place| File::create(machine.path("state").join(format!("listing-{place}.lock"))).unwrap())
        .collect();
    places.iter().for_each(|place| place.try_lock().unwrap());
    let waiting = begin_all(&machine, 3, "format=json");
    assert_eq!(listed(&machine), 1, "there is no place");
    drop(places);
    until("it is listed", 60, || listed(&machine) == 2);
    goes_on(&machine);
    all_have(&machine, waiting, "A1");
    nothing_is_left(&machine);
    plant(&machine, String::new);
    let before = listed(&machine);
    let all = [begin(&machine, "format=json"), begin(&machine, "format=json")];
    until("each lists alone", 60, || listed(&machine) == before + 2);
    assert!(all.map(json).iter().all(|(status, _)| *status == 200));
    let (before, started) = (listed(&machine), Instant::now());
    assert_eq!([machine.json().0, machine.json().0], [200, 200]);
    assert!(listed(&machine) <= before + 1 + started.elapsed().as_secs() as usize / 5, "it was not quick");
}

#[test]
fn what_others_put_in_its_place_is_not_believed_and_left_alone() {
    let machine = with_counted_lister(&message("A1"));
    goes_on(&machine);
    let notice = machine.path("state").join("listing.seen");
    assert_eq!(machine.json().0, 200);
    nothing_is_left(&machine);
    for plant in ["soup", "folder", "link", "pipe"] {
        fs::remove_file(&notice).unwrap();
        match plant {
            "soup" => fs::write(&notice, "soup").unwrap(),
            "folder" => fs::create_dir(&notice).unwrap(),
            "pipe" => nix::unistd::mkfifo(&notice, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            _ => std::os::unix::fs::symlink("/etc/passwd", &notice).unwrap(),
        }
        let before = (listed(&machine), fs::symlink_metadata(&notice).unwrap().file_type());
        let (status, json) = machine.json();
        assert_eq!((status, &json["messages"][0]["id"]), (200, &"A1".into()), "{plant}");
        assert_eq!((listed(&machine), fs::symlink_metadata(&notice).unwrap().file_type()), (before.0 + 1, before.1));
        if plant == "folder" {
            fs::remove_dir(&notice).unwrap();
            fs::write(&notice, "").unwrap();
        }
    }
}

/// Lets one request list, and puts this in the place of its host afterwards: the numbers of a process and of its files.
fn plant(machine: &Machine, host: impl FnOnce() -> String) -> File {
    let all = begin_all(machine, 1, "format=json");
    let seen = machine.path("state").join("listing.seen");
    let said = || String::from_utf8(fs::read(&seen).ok()?.get(8..)?.to_vec()).ok().filter(|said| said.contains(' '));
    until("it lists", 60, || said().is_some());
    let said = said().unwrap();
    goes_on(machine);
    all_have(machine, all, "A1");
    nothing_is_left(machine);
    let (said, mut sum) = (said.split(' ').next().unwrap().to_owned() + &host(), DefaultHasher::new());
    said.as_bytes().hash(&mut sum);
    fs::write(&seen, [&sum.finish().to_le_bytes(), said.as_bytes()].concat()).unwrap();
    File::open(seen).unwrap()
}

/// Plays a host with these notes, as long as these files are open.
fn plays_host(machine: &Machine, notes: &str) -> Vec<File> {
    let mut files = Vec::new();
    let notice = plant(machine, || {
        files.extend((0..2).map(|_| tempfile::tempfile_in(machine.path("state")).unwrap()));
        files[0].write_all(notes.as_bytes()).unwrap();
        files[0].try_lock().unwrap();
        // Without notes, without a file.
        let numbers = files.iter().filter(|_| !notes.is_empty()).map(|file| format!(" {}", file.as_raw_fd()));
        format!(" {}{}", std::process::id(), numbers.collect::<String>())
    });
    notice.try_lock().unwrap();
    files.push(notice);
    files
}

#[test]
fn a_host_that_says_nothing_that_makes_sense_is_left_and_each_lists_alone() {
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    for notes in ["", "soup\n", "bNOW\nsoup\n", "e0\n"] {
        let machine = with_counted_lister(&message("A1"));
        let files = plays_host(&machine, notes);
        files[0].write_at(notes.replace("NOW", &now().to_string()).as_bytes(), 0).unwrap();
        assert_eq!((machine.json().1["messages"][0]["id"].clone(), listed(&machine)), ("A1".into(), 2), "{notes}");
    }
}

#[test]
fn the_first_who_is_killed_or_leaves_takes_nothing_from_the_others() {
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGPIPE] {
        let started = Instant::now();
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
        shares(&machine, 1, started);
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
    for child in all {
        let (status, json) = json(child);
        assert_eq!((status, &json["messages"][0]["id"]), (200, &"A1".into()));
    }
    assert_eq!(listed(&machine), 4);
    nothing_is_left(&machine);
    assert_eq!((machine.json().0, listed(&machine)), (200, 5));
}

#[test]
fn one_who_does_not_read_holds_nobody_up() {
    let machine = with_counted_lister(&format!("n=0; while [ $n -lt 9000 ]; do {}; n=$((n+1)); done", message("A1")));
    let started = Instant::now();
    let slow = begin_all(&machine, 1, "format=json").remove(0);
    let others = begin_all(&machine, 2, "format=json");
    goes_on(&machine);
    for child in others {
        let (status, json) = json(child);
        assert_eq!((status, json["queue"]["messages"].as_u64()), (200, Some(9000)));
    }
    assert_eq!(json(slow).1["queue"]["messages"], 9000);
    shares(&machine, 1, started);
}

#[test]
fn nobody_else_can_open_what_is_shared_and_it_has_no_name() {
    let machine = with_counted_lister(&message("A1"));
    let all = begin_all(&machine, 1, "format=json");
    until("it is listed", 60, || listed(&machine) == 1);
    let files = || nameless_files(&machine, &all[0].id().to_string());
    assert!(files().iter().all(|found| *found == (0, 0o600)), "{:?}", files());
    goes_on(&machine);
    all_have(&machine, all, "A1");
}

/// Again where the machine was too busy for all of them to come in time.
#[test]
fn the_foot_says_when_it_was_listed_and_ages_are_of_then() {
    for _ in 0..5 {
        let machine = with_counted_lister(&message("A1"));
        let first = begin_all(&machine, 1, "format=json").remove(0);
        thread::sleep(Duration::from_millis(1100));
        let others = ["format=text", "format=html"].map(|query| begin_all(&machine, 1, query).remove(0));
        goes_on(&machine);
        let first = json(first).1;
        let others = others.map(|child| Answer::of(child.wait_with_output().unwrap()).body);
        if listed(&machine) == 1 {
            let time = first["generated"].as_str().unwrap().split('T').nth(1).unwrap().trim_end_matches('Z').to_owned();
            return others.iter().for_each(|answer| assert!(answer.contains(&time[3..]), "{time}: {answer}"));
        }
    }
    panic!("they never came in time");
}
