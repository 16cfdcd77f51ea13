//! Readers who take their answer slowly, or not at all: nobody else waits for them.

use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::machine::{Answer, Machine};
use crate::start::behind;
use crate::wait::until;

/// More than a pipe and the memory of an answer hold: some 6 MiB.
const MESSAGES: usize = 20_000;

/// How long the lister may take, in seconds: longer than anything here that does not wait for a reader.
const DEADLINE: u64 = 30;

/// A machine with a long queue. Its lister notes that it begins and ends.
fn with_long_queue() -> Machine {
    let machine = Machine::with_lister("postfix", "");
    let line = |number: usize| {
        format!(
            "{{\"queue_name\": \"deferred\", \"queue_id\": \"{number:010X}\", \"arrival_time\": 1795434000, \
             \"message_size\": 900, \"sender\": \"s{}@example.org\", \"recipients\": [{{\"address\": \"r@example.com\", \
             \"delay_reason\": \"connect to mx.example.com[192.0.2.1]:25: Connection refused, which is said at some length\"}}]}}\n",
            number % 997
        )
    };
    fs::write(machine.path("queue"), (0..MESSAGES).map(line).collect::<String>()).unwrap();
    let (queue, log) = (machine.path("queue"), machine.path("log"));
    let script = format!(
        "#!/bin/sh\necho begin >> {log}\ncat {queue}\necho end >> {log}\n",
        log = log.display(),
        queue = queue.display()
    );
    fs::write(machine.path("list"), script).unwrap();
    configure(&machine, DEADLINE);
    machine
}

fn configure(machine: &Machine, deadline: u64) {
    machine.configure("postfix", &format!("deadline = \"{deadline}s\"\n[disk]\nwarn = \"0%\"\ncritical = \"0%\""));
}

/// A program whose answer is taken byte by byte, or no longer.
struct Reader(Child);

impl Reader {
    /// Starts it, and waits for its first bytes.
    fn begin(mut command: Command) -> Reader {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut first = [0; 9];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        Reader(child)
    }

    fn read_byte(&mut self) {
        self.0.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    }

    /// Reads the rest.
    fn rest(mut self) -> String {
        let mut rest = String::new();
        self.0.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
        self.0.wait().unwrap();
        rest
    }

    /// Leaves. The program ends soon, and not by a signal of ours.
    fn leave(mut self) {
        drop(self.0.stdout.take());
        until("the program ends without its reader", 30, || self.0.try_wait().unwrap().is_some());
    }
}

/// The commands that were started, and those that have ended.
fn listings(machine: &Machine) -> (usize, usize) {
    let log = fs::read_to_string(machine.path("log")).unwrap_or_default();
    let lines = |word| log.lines().filter(|line| *line == word).count();
    (lines("begin"), lines("end"))
}

/// Everybody who reads gets what is asked for.
#[track_caller]
fn others_are_served(machine: &Machine) {
    let (status, json) = machine.json();
    assert_eq!((status, &json["queue"]["status"]), (200, &"ok".into()), "{}", json["queue"]);
    assert_eq!(json["messages"].as_array().unwrap().len(), MESSAGES);
    assert!(machine.get("format=html").body.contains("The listing is complete"));
    assert!(machine.get("format=openmetrics").body.contains("\nbartleby_up 1\n"));
    let check = machine.command().arg("check").output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.code() == Some(0) && said.contains("OK"), "{said}");
}

/// No process of it runs, and every lock is free.
fn nothing_is_left(machine: &Machine) {
    let folder = machine.path("state").display().to_string();
    until("no process has a file of the state folder", 30, || {
        let open = fs::read_dir("/proc").unwrap().flatten().flat_map(|process| fs::read_dir(process.path().join("fd")));
        let links = open.flatten().flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
        !links.into_iter().any(|link| link.to_string_lossy().contains(&folder))
    });
    let names = fs::read_dir(machine.path("state")).unwrap().map(|entry| entry.unwrap().file_name());
    let strange: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with('.')).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

fn json_of(machine: &Machine) -> Command {
    machine.cgi(&[("QUERY_STRING", b"format=json")])
}

fn list_of(machine: &Machine) -> Command {
    let mut command = machine.command();
    command.args(["list", "--format", "json"]);
    command
}

#[test]
fn readers_who_do_not_read_on_keep_no_place_among_those_that_list() {
    let machine = with_long_queue();
    let mut slow: Vec<_> = [json_of, json_of, list_of, list_of].iter().map(|of| Reader::begin(of(&machine))).collect();
    others_are_served(&machine);
    // One reads on, at its own pace.
    for _ in 0..20 {
        slow[0].read_byte();
        thread::sleep(Duration::from_millis(20));
    }
    let (begun, ended) = listings(&machine);
    assert_eq!(begun, ended, "no lister waits for a reader");
    let late = format!("Status: 2{}", slow.remove(1).rest());
    let (_, body) = late.split_once("\r\n\r\n").unwrap();
    let json: Value = serde_json::from_str(body).unwrap();
    assert_eq!((json["messages"].as_array().unwrap().len(), &json["queue"]["complete"]), (MESSAGES, &true.into()));
    slow.into_iter().for_each(Reader::leave);
    nothing_is_left(&machine);
}

/// A stopped terminal (Ctrl-S) takes less than what poll(2) promises room for.
#[test]
fn a_terminal_that_was_stopped_keeps_no_place_among_those_that_list() {
    let machine = with_long_queue();
    let on_terminal = || {
        let mut command = Command::new("script");
        let words = format!("{} list", env!("CARGO_BIN_EXE_bartleby"));
        command.args(["--quiet", "--command", &words, "/dev/null"]).env("SHELL", "/bin/sh");
        command.env("BARTLEBY_CONFIG", machine.path("bartleby.toml"));
        command
    };
    // script(1) itself stops when its own output is not read.
    let slow = [0, 1, 2].map(|_| Reader::begin(on_terminal()));
    others_are_served(&machine);
    for Reader(mut child) in slow {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    nothing_is_left(&machine);
}

/// A program with so little room in its state folder that nothing of an answer can be kept there; `None`, loudly, where
/// that can't be arranged.
fn without_room(machine: &Machine, command: &Command) -> Option<Command> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can make a small filesystem");
        return None;
    }
    fs::create_dir_all(machine.path("state")).unwrap();
    let script =
        format!("mount -t tmpfs -o size=64k,mode=700 state {} && exec \"$0\"", machine.path("state").display());
    Some(behind(&["unshare", "--mount", "sh", "-c", &script], command))
}

#[test]
fn without_room_to_keep_an_answer_its_reader_holds_the_listing_up_to_the_deadline_which_is_said() {
    let machine = with_long_queue();
    configure(&machine, 2);
    let Some(command) = without_room(&machine, &json_of(&machine)) else { return };
    let slow = Reader::begin(command);
    until("the lister is stopped", 30, || {
        let (begun, ended) = listings(&machine);
        let lists = |process: &fs::DirEntry| {
            let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).into_owned();
            words.contains(&machine.path("list").display().to_string()) && !words.contains("unshare")
        };
        begun == 1 && ended == 0 && !fs::read_dir("/proc").unwrap().flatten().any(|process| lists(&process))
    });
    let answer = format!("Status: 2{}", slow.rest());
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let json: Value = serde_json::from_str(body).unwrap();
    let (queue, messages) = (&json["queue"], json["messages"].as_array().unwrap().len());
    assert_eq!((&queue["status"], &queue["complete"]), (&"timeout".into(), &false.into()), "{queue}");
    assert!((1..MESSAGES).contains(&messages) && queue["messages"] == messages, "{messages} {queue}");
    assert!(queue["error"]["message"].as_str().unwrap().contains("the listing was cut after 2 s"), "{queue}");
}

/// It was held back for its status, and what could have released it found no room: it never came.
#[test]
fn one_long_message_comes_also_where_there_is_no_room_to_keep_it() {
    let script = "printf '{\"queue_name\": \"deferred\", \"queue_id\": \"A1\", \"arrival_time\": 1, \"message_size\": 1, \"sender\": \"a@example.org\", \"recipients\": ['
        awk 'BEGIN { for (n = 0; n < 30000; n++) printf \"%s{\\\"address\\\": \\\"r%d@example.com\\\", \\\"delay_reason\\\": \\\"connect to mx.example.com[192.0.2.1]:25: Connection refused\\\"}\", n ? \", \" : \"\", n }'
        echo ']}'";
    let machine = Machine::with_lister("postfix", script);
    configure(&machine, 30);
    let Some(mut command) = without_room(&machine, &json_of(&machine)) else { return };
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(child.id() as i32);
    let answering = thread::spawn(move || child.wait_with_output().unwrap());
    let end = Instant::now() + Duration::from_secs(25);
    while !answering.is_finished() && Instant::now() < end {
        thread::sleep(Duration::from_millis(20));
    }
    if !answering.is_finished() {
        kill(pid, Signal::SIGKILL).unwrap();
    }
    let answer = Answer::of(answering.join().unwrap());
    let json: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, json["messages"][0]["recipients"].as_array().unwrap().len()), (200, 30_000));
}

/// What had been sent was followed by a second beginning.
#[test]
fn a_list_whose_reader_is_killed_in_the_middle_stays_valid_and_says_so() {
    let machine = with_long_queue();
    let lister = fs::read_to_string(machine.path("list")).unwrap();
    fs::write(machine.path("list"), lister.replace("echo end", "sleep 20; echo end")).unwrap();
    let slow = Reader::begin(list_of(&machine));
    let parent = slow.0.id();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    let is_reader =
        |pid: &&str| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "bartleby");
    let reader = children.split_whitespace().find(is_reader).unwrap().parse().unwrap();
    kill(Pid::from_raw(reader), Signal::SIGKILL).unwrap();
    let text = format!("{{\"version{}", slow.rest());
    let json: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {}", &text[text.len() - 2000..]));
    assert_eq!(json["queue"]["complete"], false);
    let message = json["queue"]["error"]["message"].as_str().unwrap();
    assert!(message.contains("was killed by signal 9"), "{message}");
}

/// The web server stops in the middle of a listing, or while the end of an answer waits: what was sent is valid, and is
/// not taken for the whole.
#[test]
fn an_answer_that_a_signal_ends_in_the_middle_is_valid_and_says_so() {
    let machine = with_long_queue();
    for (from, to, status, complete) in
        [("echo end", "sleep 20; echo end", "failed", false), ("sleep 20; echo end", "echo end", "ok", true)]
    {
        let script = fs::read_to_string(machine.path("list")).unwrap().replace(from, to);
        fs::write(machine.path("list"), script).unwrap();
        let mut command = behind(&["env", "--default-signal"], &json_of(&machine));
        command.env("REMOTE_ADDR", "192.0.2.9");
        let slow = Reader::begin(command);
        let pid = Pid::from_raw(slow.0.id() as i32);
        if complete {
            // Its lister has ended, and its reader.
            let children = format!("/proc/{pid}/task/{pid}/children");
            until("all that waits is the answer", 30, || {
                listings(&machine).1 > 0 && fs::read_to_string(&children).is_ok_and(|pids| pids.is_empty())
            });
        }
        kill(pid, Signal::SIGTERM).unwrap();
        let text = slow.rest();
        let (_, body) = text.split_once("\r\n\r\n").unwrap();
        let json: Value =
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {}", &body[body.len() - 999..]));
        assert_eq!((&json["queue"]["status"], &json["queue"]["complete"]), (&status.into(), &complete.into()));
        let said = json["queue"]["error"]["message"].as_str().unwrap_or_default();
        assert_eq!(said.contains("this program was stopped"), !complete, "{said}");
    }
    nothing_is_left(&machine);
}

/// A reader who hangs up while its answer waits is noticed, and nothing of it stays.
#[test]
fn a_reader_who_leaves_a_long_answer_leaves_nothing_behind() {
    let machine = with_long_queue();
    let slow = Reader::begin(json_of(&machine));
    let pid = slow.0.id();
    until("the answer waits in a file without a name", 30, || {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        open.filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .any(|link| link.to_string_lossy().ends_with("(deleted)"))
    });
    assert_eq!(
        fs::read_dir(machine.path("state"))
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'))
            .count(),
        0
    );
    slow.leave();
    nothing_is_left(&machine);
}
