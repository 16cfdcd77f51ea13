//! Whether the sandbox holds, and what becomes of an answer whose reader breaks: both are played by the test itself, in
//! processes of its own.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod machine;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::hint;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread;

use bartleby::config::Config;
use bartleby::context::Context;
use bartleby::queue::{Message, Row};
use bartleby::report::{self, Answer, Form, Report, Verdict};
use bartleby::request::{Asked, Format};
use bartleby::sandbox::{Purpose, Sandbox};
use bartleby::state::SeenBy;
use bartleby::system::{Body, Free};
use machine::Machine;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::fstat;
use nix::unistd::{Pid, ftruncate, getppid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Where the process that plays a part learns what it needs.
const STAGE: &str = "BARTLEBY_TEST_STAGE";

/// This test again, as a process that plays one of the parts below, with the program's own environment.
fn play(part: &str, machine: &Machine, stage: &str) -> Command {
    let mut command = machine.command();
    let mut player = Command::new(env::current_exe().unwrap());
    player.args([part, "--exact", "--ignored", "--nocapture", "--test-threads=1"]).env(STAGE, stage);
    player.envs(command.stdin(Stdio::null()).get_envs().filter_map(|(name, value)| Some((name, value?))));
    player
}

#[test]
fn a_parser_that_misbehaves_reaches_nothing_but_its_pipes() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bystander = Command::new("sleep").arg("987").spawn().unwrap();
    let log = machine.path("error.log");
    fs::write(&log, "what stood there before\n").unwrap();
    let stage = format!("{} {}", listener.local_addr().unwrap(), bystander.id());
    let stderr = File::options().append(true).open(&log).unwrap();
    let output = play("the_parser_misbehaves", &machine, &stage).stderr(stderr).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let told: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("* ")?.split_once(": ")).collect();
    for misdeed in MISDEEDS {
        assert!(told.get(misdeed).is_some_and(|outcome| outcome.starts_with("refused")), "{misdeed}: {text}");
    }
    assert_eq!(told.get("strange descriptors").copied(), Some("0"), "{text}");
    assert_eq!(told.get("gap").copied(), Some("None"), "{text}");
    let messages = machine.json().1["queue"]["messages"].to_string();
    assert_eq!(told.get("messages").copied(), Some(messages.as_str()), "{text}");
    assert_eq!(told.get("trouble").copied(), Some("None"), "the listing ended as ever: {text}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "it connected");
    assert!(!machine.path("planted").exists() && !machine.path("state").join("planted").exists());
    assert!(bystander.try_wait().unwrap().is_none(), "it was killed");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    assert!(fs::read_to_string(log).unwrap().starts_with("what stood there before\n"), "the error log was cut");
}

/// What a parser might be made to try.
const MISDEEDS: [&str; 17] = [
    "read a file",
    "read itself",
    "list a folder",
    "make a file",
    "make a file in the state folder",
    "make a folder",
    "start a program",
    "start a thread",
    "connect",
    "send a packet",
    "make a pair of sockets",
    "remove a file",
    "kill another process",
    "kill its parent",
    "truncate descriptor 2",
    "map memory to write and run",
    "make memory executable",
];

/// A form that misbehaves at the first message that it gets.
struct Misbehaving {
    machine: PathBuf,
    host: String,
    bystander: i32,
    told: Vec<(&'static str, io::Result<()>)>,
}

impl Form for Misbehaving {
    fn message(&mut self, _: &Message<'_>, _: &mut Body<'_>) -> io::Result<()> {
        if self.told.is_empty() {
            self.told = self.misbehave().into();
        }
        Ok(())
    }

    fn end(&mut self, report: &Report, _: &[Row], to: &mut Body<'_>) -> io::Result<()> {
        writeln!(to)?;
        for (deed, outcome) in &self.told {
            let outcome = outcome.as_ref().map_or_else(|error| format!("refused: {error}"), |()| "done".into());
            writeln!(to, "* {deed}: {outcome}")?;
        }
        // Its standard streams, the lister's output, and nothing that has a name.
        let strange = |fd: i32| {
            // SAFETY: it is only looked at, and may be closed: then that is an error.
            let found = fstat(unsafe { BorrowedFd::borrow_raw(fd) });
            found.is_ok_and(|found| found.st_mode & libc::S_IFMT != libc::S_IFIFO && found.st_nlink > 0)
        };
        writeln!(to, "* strange descriptors: {}", (0..64).filter(|fd| strange(*fd)).count())?;
        writeln!(to, "* gap: {:?}\n* messages: {}", report.gap, report.listing.summary.messages)?;
        writeln!(to, "* trouble: {:?}", report.listing.trouble)
    }

    fn verdict(&self, _: &Report) -> Verdict {
        Verdict::default()
    }
}

impl Misbehaving {
    fn misbehave(&self) -> [(&'static str, io::Result<()>); 17] {
        let page = NonZeroUsize::new(4096).unwrap();
        let map = |rights| {
            // SAFETY: new memory, which nobody knows of but this function.
            let mapped = unsafe { mmap_anonymous(None, page, rights, MapFlags::MAP_PRIVATE) };
            mapped.map_err(io::Error::from)
        };
        let (write, run) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, ProtFlags::PROT_READ | ProtFlags::PROT_EXEC);
        let make_executable = map(write).and_then(|memory| {
            // SAFETY: as above.
            unsafe { mprotect(memory, page.get(), run) }.map_err(io::Error::from)
        });
        let outcomes = [
            File::open("/etc/passwd").map(|_| ()),
            File::open("/proc/self/mem").map(|_| ()),
            fs::read_dir("/").map(|_| ()),
            fs::write(self.machine.join("planted"), "x"),
            fs::write(self.machine.join("state/planted"), "x"),
            fs::create_dir(self.machine.join("planted")),
            Command::new("/bin/true").status().map(|_| ()),
            thread::Builder::new().spawn(|| ()).map(|_| ()),
            TcpStream::connect(&self.host).map(|_| ()),
            UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", &self.host)).map(|_| ()),
            UnixStream::pair().map(|_| ()),
            fs::remove_file(self.machine.join("list")),
            kill(Pid::from_raw(self.bystander), Signal::SIGKILL).map_err(io::Error::from),
            kill(getppid(), Signal::SIGKILL).map_err(io::Error::from),
            ftruncate(io::stderr(), 0).map_err(io::Error::from),
            map(write | run).map(|_| ()),
            make_executable,
        ];
        let mut outcomes = outcomes.into_iter();
        MISDEEDS.map(|misdeed| (misdeed, outcomes.next().unwrap()))
    }
}

/// What every part begins with.
fn context() -> Context {
    Context::gather(Free::of_main(), SeenBy::Page, Config::load().unwrap())
}

#[test]
#[ignore = "a part of another test"]
fn the_parser_misbehaves() {
    let stage = env::var(STAGE).unwrap();
    let (host, bystander) = stage.split_once(' ').unwrap();
    let mut form = Misbehaving {
        machine: PathBuf::from(env::var_os("BARTLEBY_CONFIG").unwrap()).parent().unwrap().to_owned(),
        host: host.to_owned(),
        bystander: bystander.parse().unwrap(),
        told: Vec::new(),
    };
    report::answer(&context(), &Asked::of(Format::Text), &mut form, &Answer::PLAIN).unwrap();
}

/// A form that breaks the reader at the first message, in the way that its name says.
struct Breaking(String);

impl Form for Breaking {
    fn message(&mut self, _: &Message<'_>, to: &mut Body<'_>) -> io::Result<()> {
        match self.0.as_str() {
            "crash" => process::abort(),
            "memory" => drop(hint::black_box(vec![1_u8; 1 << 30])),
            "hang" => loop {
                hint::spin_loop();
            },
            "nothing" => end_without_a_word(),
            "nonsense" => drop(nix::unistd::write(io::stdout(), b"<html>The queue is empty.</html>")?),
            "too long" => drop(nix::unistd::write(io::stdout(), b"c\xff\xff\xff\xff")?),
            // A hundred times what the parent may hold.
            "much" => {
                (0..100 << 10).try_for_each(|_| to.write_all(&[b'.'; 1024]))?;
                self.0.clear();
            }
            "" => {}
            other => panic!("{other}"),
        }
        Ok(())
    }

    fn end(&mut self, report: &Report, _: &[Row], to: &mut Body<'_>) -> io::Result<()> {
        let peak = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = peak.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        writeln!(
            to,
            "\n* trouble: {:?}\n* peak: {}",
            report.listing.trouble.as_ref().map(ToString::to_string),
            peak.trim()
        )
    }

    fn verdict(&self, report: &Report) -> Verdict {
        Verdict { status: if report.listing.trouble.is_some() { 69 } else { 0 }, ..Verdict::default() }
    }
}

fn end_without_a_word() {
    // SAFETY: it does not return.
    unsafe { libc::_exit(0) }
}

#[test]
#[ignore = "a part of another test"]
fn the_reader_breaks() {
    let mut form = Breaking(env::var(STAGE).unwrap());
    let verdict = report::answer(&context(), &Asked::of(Format::Text), &mut form, &Answer::PLAIN).unwrap();
    let peak = fs::read_to_string("/proc/self/status").unwrap();
    println!(
        "* verdict: {}\n* parent: {}",
        verdict.status,
        peak.lines().find(|line| line.starts_with("VmHWM:")).unwrap()
    );
}

#[test]
fn a_reader_that_breaks_is_named_with_its_cause_and_the_parent_stays_small() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "deadline = \"1s\"");
    for (way, words) in [
        ("crash", "The reader of the listing was killed by signal 6."),
        ("memory", "The reader of the listing was killed by signal 6."),
        ("hang", "The reader of the listing did not finish within 2 s and was stopped."),
        ("nothing", "The reader of the listing ended without an answer."),
        ("nonsense", "The reader of the listing answered nonsense."),
        ("too long", "The reader of the listing answered nonsense."),
        ("much", ""),
    ] {
        let output = play("the_reader_breaks", &machine, way).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let told = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("* {name}: "))).unwrap_or("-");
        let expected = if words.is_empty() { "None".into() } else { format!("Some({words:?})") };
        assert_eq!(told("trouble"), expected, "{way}: {}", &text[text.len().saturating_sub(2000)..]);
        assert_eq!(told("verdict"), if words.is_empty() { "0" } else { "69" }, "{way}");
        let parent: u64 = told("parent").split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(parent < 32 << 10, "{way}: the parent took {parent} KiB");
    }
}

#[test]
fn a_reader_that_is_killed_ends_in_a_page_that_says_so_and_503_for_machines() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/postfix/mixed-json.stdout");
    // The lister's brother is its reader.
    let script = format!(
        "cat {fixture}; killed=; until [ \"$killed\" ]; do sleep 0.3
         for p in $(pgrep -P $PPID); do [ $p = $$ ] || {{ kill -ABRT $p; killed=1; }}; done; done; sleep 9",
    );
    let machine = Machine::with_lister("postfix", &script);
    for (format, status) in [("html", 200), ("text", 503), ("json", 503), ("csv", 503), ("openmetrics", 200)] {
        let answer = machine.get(&format!("format={format}"));
        assert_eq!(answer.status, status, "{format}: {}", answer.body);
        assert!(!answer.body.contains("queue is empty") && !answer.body.contains("951BB98C3CD"), "{}", answer.body);
        match format {
            "openmetrics" => assert!(answer.body.contains("bartleby_up 0\n"), "{}", answer.body),
            _ => assert!(answer.body.contains("The reader of the listing was killed by signal 6."), "{}", answer.body),
        }
        assert!(answer.log.contains("The reader of the listing was killed by signal 6."), "{}", answer.log);
        assert!(answer.body.contains("\"filesystems\":[{") || format != "json", "the rest is there: {}", answer.body);
    }
    let check = machine.command().arg("check").output().unwrap();
    assert_eq!(check.status.code(), Some(3));
    // A queue run counts first, and knows as little.
    assert_eq!(machine.get("flush=id:951BB98C3CD").status, 503);
}

/// A stream of which some was sent already ends in valid syntax, and says what it lacks.
#[test]
fn a_reader_that_is_killed_in_the_middle_of_a_stream_ends_it_properly() {
    let line = r#"{"queue_name": "deferred", "queue_id": "%d", "arrival_time": 1, "message_size": 1, "sender": "a@example.org", "recipients": [{"address": "b@example.com", "delay_reason": "no"}]}"#;
    let script = format!(
        "awk 'BEGIN {{ for (n = 0; n < 20000; n++) printf \"{}\\n\", n }}'; sleep 1
         for p in $(pgrep -P $PPID); do [ $p = $$ ] || kill -KILL $p; done; sleep 9",
        line.replace('"', "\\\"")
    );
    let machine = Machine::with_lister("postfix", &script);
    let answer = machine.get("format=json");
    assert_eq!(answer.status, 200, "that much was sent before");
    let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let messages = json["messages"].as_array().unwrap().len();
    assert!((1000..20_000).contains(&messages), "{messages}");
    assert_eq!((&json["queue"]["complete"], &json["queue"]["status"]), (&false.into(), &"failed".into()));
    let csv = machine.get("format=csv").body;
    let mut lines = csv::Reader::from_reader(csv.as_bytes());
    let last = lines.records().map(Result::unwrap).last().unwrap();
    assert_eq!((&last[1], &last[2]), ("INCOMPLETE", "failed"));
}

#[test]
fn the_lister_keeps_its_rights_while_its_reader_is_in_the_sandbox() {
    let machine = Machine::with_lister("postfix", "");
    let told = machine.path("told");
    // The lister looks at itself and, once that is in the sandbox, at its reader: its brother.
    let script = format!(
        "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status > {told}\n\
         echo; i=0; reader=; until [ $i = 100 ] || grep -q '^Seccomp:.2' /proc/${{reader:-self}}/status; do\n\
         sleep 0.05; i=$((i+1)); for p in $(pgrep -P $PPID); do [ $p = $$ ] || reader=$p; done; done\n\
         grep -E '^(NoNewPrivs|Seccomp):' /proc/$reader/status >> {told}\n\
         grep -E '^Max (core|open|data)' /proc/$reader/limits >> {told}\n",
        told = told.display()
    );
    fs::write(machine.path("list"), format!("#!/bin/sh\n{script}")).unwrap();
    machine.get("");
    let told = fs::read_to_string(told).unwrap();
    let words: Vec<Vec<&str>> = told.lines().map(|line| line.split_whitespace().collect()).collect();
    let status: Vec<_> = words.iter().take(4).map(|words| (words[0], words[1])).collect();
    let expected = [("NoNewPrivs:", "0"), ("Seccomp:", "0"), ("NoNewPrivs:", "1"), ("Seccomp:", "2")];
    assert_eq!(status, expected, "{told}");
    let limit = |name: &str| words.iter().find(|words| words[1] == name).unwrap().iter().rev().nth(1).copied();
    assert_eq!((limit("core"), limit("open"), limit("data")), (Some("0"), Some("64"), Some("268435456")), "{told}");
}

#[test]
fn where_the_sandbox_does_not_hold_the_page_and_doctor_say_so() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let on_old_kernel = |variables: &[(&str, &str)], argument: &str| {
        let program = env!("CARGO_BIN_EXE_bartleby");
        let mut command = play("the_kernel_is_old", &machine, &format!("{program} {argument}"));
        command.envs(variables.iter().copied()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // What stands before it is the test's own.
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let text: Vec<_> = lines.skip_while(|line| !line.starts_with(BEGIN)).skip(1).collect();
        child.wait().unwrap();
        text.join("\n")
    };
    let words = "The listing was parsed without the sandbox: this kernel has no Landlock";
    let doctor = on_old_kernel(&[], "doctor");
    assert!(doctor.contains(&format!("FAIL  sandbox: {words}")), "{doctor}");
    assert!(doctor.contains("Linux 5.13 or later"), "{doctor}");
    let request = [("GATEWAY_INTERFACE", "CGI/1.1"), ("REQUEST_METHOD", "GET"), ("BARTLEBY_ACCESS", "granted")];
    for accept in ["text/html", "text/plain"] {
        let page = on_old_kernel(&[&request[..], &[("HTTP_ACCEPT", accept)]].concat(), "");
        assert!(page.contains(words), "{page}");
        assert!(page.contains("951BB98C3CD"), "it lists all the same: {page}");
    }
    let page = machine.ask(&[("HTTP_ACCEPT", b"text/html")]);
    assert!(!page.body.contains("without the sandbox"), "{}", page.body);
    // And of the process that asks the primary, which has a sandbox of its own.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    machine.configure("postfix", &format!("[primary]\nhosts = [\"{}\"]", listener.local_addr().unwrap()));
    drop(listener);
    let words = "What the name servers and primaries said was read without the sandbox: this kernel has no Landlock";
    for accept in ["text/html", "text/plain"] {
        let page = on_old_kernel(&[&request[..], &[("HTTP_ACCEPT", accept)]].concat(), "");
        assert!(page.contains(words), "{page}");
    }
    fs::remove_file(machine.path("state").join("primaries.seen")).unwrap();
    assert!(!machine.get("format=html").body.contains("without the sandbox"));
    assert!(
        String::from_utf8(machine.command().arg("doctor").output().unwrap().stdout)
            .unwrap()
            .contains("ok    sandbox: ")
    );
}

/// A parser that was taken over could fill the disk that the mail queue is on.
#[test]
fn the_one_file_of_a_reader_grows_no_further_than_there_was_room() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let output = play("a_file_grows", &machine, "").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("* grown: 5, then File too large (os error 27), 5\n"), "{output:?}");
}

#[test]
#[ignore = "a part of another test"]
fn a_file_grows() {
    let mut file = tempfile::tempfile().unwrap();
    Sandbox::enter(Free::of_main(), Purpose::Reading { room: 5 });
    file.write_all(b"12345").unwrap();
    let before = file.seek(SeekFrom::End(0)).unwrap();
    let error = file.write_all(b"6").unwrap_err();
    println!("\n* grown: {before}, then {error}, {}", file.seek(SeekFrom::End(0)).unwrap());
    io::stdout().flush().unwrap();
    end_without_a_word();
}

#[test]
fn a_thread_from_before_is_a_gap_that_is_named() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for (part, gap) in [
        ("a_thread_runs_beside_the_sandbox", "Some(\"another thread runs beside it\")"),
        ("nothing_runs_beside", "None"),
    ] {
        let output = play(part, &machine, "").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(&format!("* gap: {gap}\n")), "{part}: {output:?}");
        // The filter binds it all the same.
        assert!(!text.contains("* the thread opened a file"), "{text}");
    }
}

#[test]
#[ignore = "a part of another test"]
fn a_thread_runs_beside_the_sandbox() {
    static STEP: AtomicU8 = AtomicU8::new(0);
    let reached = |step| {
        while STEP.load(Ordering::SeqCst) < step {
            hint::spin_loop();
        }
    };
    thread::spawn(move || {
        // How a thread begins is not what the sandbox is made for, either.
        STEP.store(1, Ordering::SeqCst);
        reached(2);
        STEP.store(if File::open("/etc/passwd").is_ok() { 4 } else { 3 }, Ordering::SeqCst);
        // How a thread ends is not what the sandbox is made for.
        reached(9);
    });
    reached(1);
    let sandbox = Sandbox::enter(Free::of_main(), Purpose::Reading { room: 0 });
    STEP.store(2, Ordering::SeqCst);
    reached(3);
    println!("\n* gap: {:?}", sandbox.gap());
    if STEP.load(Ordering::SeqCst) == 4 {
        println!("* the thread opened a file");
    }
    io::stdout().flush().unwrap();
    end_without_a_word();
}

/// libtest itself has a thread beside that of the test: a branch has not.
#[test]
#[ignore = "a part of another test"]
fn nothing_runs_beside() {
    let mut form =
        Misbehaving { machine: PathBuf::new(), host: String::new(), bystander: 0, told: vec![("x", Ok(()))] };
    report::answer(&context(), &Asked::of(Format::Text), &mut form, &Answer::PLAIN).unwrap();
}

/// What the program's own output comes behind.
const BEGIN: &str = "* begin";

#[test]
#[ignore = "a part of another test"]
fn the_kernel_is_old() {
    let stage = env::var(STAGE).unwrap();
    let (program, arguments) = stage.split_once(' ').unwrap();
    let unknown = [libc::SYS_landlock_create_ruleset, libc::SYS_seccomp];
    let filter = SeccompFilter::new(
        unknown.map(|call| (call, Vec::new())).into(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS as u32),
        TargetArch::try_from(env::consts::ARCH).unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&filter).unwrap();
    println!("\n{BEGIN}");
    let error = Command::new(program).args(arguments.split_whitespace()).env_remove(STAGE).exec();
    panic!("{program}: {error}");
}
