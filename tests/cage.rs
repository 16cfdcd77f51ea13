//! Whether the cage holds: a parser that misbehaves is played by the test itself, in a process of its own.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod machine;

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bartleby::config::Config;
use bartleby::context::Context;
use bartleby::listing;
use bartleby::sandbox::Cage;
use machine::{Answer, Machine};
use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// Where the process that plays a part is told what it needs.
const STAGE: &str = "BARTLEBY_TEST_STAGE";

/// This test once more, as a process that plays one of the parts below, with the program's own environment.
fn play(part: &str, machine: &Machine, stage: &str) -> Command {
    let mut command = machine.command();
    let mut player = Command::new(env::current_exe().unwrap());
    player.args([part, "--exact", "--ignored", "--nocapture", "--test-threads=1"]).env(STAGE, stage);
    player.envs(command.stdin(Stdio::null()).get_envs().filter_map(|(name, value)| Some((name, value?))));
    player
}

#[test]
fn a_parser_that_misbehaves_can_neither_open_a_file_nor_start_a_program_nor_connect() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let output = play("the_parser_misbehaves", &machine, &listener.local_addr().unwrap().to_string()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let told: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("* ")?.split_once(": ")).collect();
    for misdeed in MISDEEDS {
        assert!(told.get(misdeed).is_some_and(|outcome| outcome.starts_with("refused")), "{misdeed}: {text}");
    }
    // It is no wall but a cage: what the program needs is there.
    assert_eq!(told.get("use the own folder").copied(), Some("done"), "{text}");
    assert_eq!(told.get("gap").copied(), Some("None"), "{text}");
    let messages = machine.json().1["queue"]["messages"].to_string();
    assert_eq!(told.get("messages").copied(), Some(messages.as_str()), "{text}");
    assert_eq!(told.get("trouble").copied(), Some("None"), "the listing ended as ever: {text}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "it connected");
    assert!(!machine.path("planted").exists());
}

/// What a parser might be made to try.
const MISDEEDS: [&str; 10] = [
    "read a file",
    "read itself",
    "list a folder",
    "make a file",
    "make a folder",
    "start a program",
    "connect",
    "send a packet",
    "make a pair of sockets",
    "remove a file",
];

#[test]
#[ignore = "a part of another test"]
fn the_parser_misbehaves() {
    let context = Context::gather(Config::load().unwrap());
    let machine = PathBuf::from(env::var_os("BARTLEBY_CONFIG").unwrap()).parent().unwrap().to_owned();
    let host = env::var(STAGE).unwrap();
    let mut told = Vec::new();
    let begun = listing::begin(&context, None).at_first_byte();
    let cage = Cage::enter(context.folder.as_deref());
    let listing = begun.read(&cage, &mut |_| {
        if told.is_empty() {
            told = misbehave(&machine, &host).into();
            let note = context.folder.as_ref().unwrap().join("note");
            let used = fs::write(&note, "mine").and_then(|()| fs::read(&note)).and_then(|_| fs::remove_file(&note));
            told.push(("use the own folder", used));
        }
    });
    println!();
    for (deed, outcome) in told {
        println!("* {deed}: {}", outcome.map_or_else(|error| format!("refused: {error}"), |()| "done".into()));
    }
    println!("* gap: {:?}\n* messages: {}\n* trouble: {:?}", cage.gap(), listing.summary.messages, listing.trouble);
}

fn misbehave(machine: &Path, host: &str) -> [(&'static str, io::Result<()>); 10] {
    let outcomes = [
        File::open("/etc/passwd").map(|_| ()),
        File::open("/proc/self/mem").map(|_| ()),
        fs::read_dir("/").map(|_| ()),
        fs::write(machine.join("planted"), "x"),
        fs::create_dir(machine.join("planted")),
        Command::new("/bin/true").status().map(|_| ()),
        TcpStream::connect(host).map(|_| ()),
        UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"x", host)).map(|_| ()),
        UnixStream::pair().map(|_| ()),
        fs::remove_file(machine.join("list")),
    ];
    let mut outcomes = outcomes.into_iter();
    MISDEEDS.map(|misdeed| (misdeed, outcomes.next().unwrap()))
}

#[test]
fn the_lister_keeps_its_rights_while_its_reader_is_in_the_cage() {
    let machine = Machine::with_lister("postfix", "");
    let told = machine.path("told");
    // The lister looks at itself and, once that is in the cage, at its reader.
    let script = format!(
        "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status > {told}\n\
         echo; i=0; until grep -q '^Seccomp:.2' /proc/$PPID/status || [ $i = 100 ]; do sleep 0.05; i=$((i+1)); done\n\
         grep -E '^(NoNewPrivs|Seccomp):' /proc/$PPID/status >> {told}\n\
         grep -E '^Max (core|open|data)' /proc/$PPID/limits >> {told}\n",
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
fn where_the_cage_does_not_hold_the_page_and_doctor_say_so() {
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
    let words =
        "Senders’ words were read without the cage that keeps them from doing harm: this kernel has no Landlock";
    let doctor = on_old_kernel(&[], "doctor");
    assert!(doctor.contains(&format!("WRONG cage: {words}")), "{doctor}");
    assert!(doctor.contains("Linux 5.13 or later"), "{doctor}");
    let request = [("GATEWAY_INTERFACE", "CGI/1.1"), ("REQUEST_METHOD", "GET"), ("BARTLEBY_ACCESS", "granted")];
    for accept in ["text/html", "text/plain"] {
        let page = on_old_kernel(&[&request[..], &[("HTTP_ACCEPT", accept)]].concat(), "");
        assert!(page.contains(words), "{page}");
        assert!(page.contains("951BB98C3CD"), "it lists all the same: {page}");
    }
    let page: Answer = machine.ask(&[("HTTP_ACCEPT", b"text/html")]);
    assert!(!page.body.contains("without the cage"), "{}", page.body);
    assert!(
        String::from_utf8(machine.command().arg("doctor").output().unwrap().stdout).unwrap().contains("ok    cage: ")
    );
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
