//! Other web servers' ways to start a CGI program, and to take its answer. Each was seen to lose one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use crate::machine::{Answer, Machine};
use crate::start::{behind, post};

/// The smallest pipe there is, in bytes.
const SMALL: i32 = 4096;

/// A pipe that holds hardly anything; its end for the program does not block.
fn small_pipe(flags: OFlag) -> (File, OwnedFd) {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    fcntl(&write, FcntlArg::F_SETPIPE_SZ(SMALL)).unwrap();
    fcntl(&write, FcntlArg::F_SETFL(flags)).unwrap();
    (read.into(), write)
}

/// An answer from what was read.
fn answer(stdout: Vec<u8>) -> Answer {
    Answer::of(Output { status: std::process::ExitStatus::from_raw(0), stdout, stderr: Vec::new() })
}

/// Messages whose listing, in any form, fits into no pipe.
fn many() -> Machine {
    let line = r#"{"queue_name": "deferred", "queue_id": "4X7Qkk0B5bz%05d", "arrival_time": 1795433446, "message_size": 30212, "sender": "a@example.org", "recipients": [{"address": "b@example.com"}]}"#;
    Machine::with_lister(
        "postfix",
        &format!("awk 'BEGIN {{ for (n = 0; n < 3000; n++) printf \"{}\\n\", n }}'", line.replace('"', "\\\"")),
    )
}

#[test]
fn signals_that_the_server_ignores_or_blocks_neither_hang_a_listing_nor_keep_the_program_alive() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "deadline = \"20s\"");
    // webfs ignores SIGCHLD, uWSGI blocks everything.
    for words in [
        &["env", "--ignore-signal=CHLD"][..],
        &["env", "--block-signal"],
        &["env", "--ignore-signal", "--block-signal"],
    ] {
        let started = Instant::now();
        let answer = Answer::of(behind(words, &machine.cgi(&[])).output().unwrap());
        assert!(answer.status == 200 && answer.body.contains("21 messages"), "{words:?}: {}", answer.body);
        assert!(started.elapsed() < Duration::from_secs(15), "{words:?}: {:?}", started.elapsed());
        let hanging = Machine::with_lister("postfix", "sleep 977");
        let mut command = behind(words, &hanging.cgi(&[]));
        let mut program = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(500));
        kill(Pid::from_raw(program.id() as i32), Signal::SIGTERM).unwrap();
        let until = Instant::now() + Duration::from_secs(5);
        while program.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "{words:?}: it lives on");
            thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(program.wait().unwrap().signal(), Some(Signal::SIGTERM as i32), "{words:?}");
    }
    let answer = Answer::of(
        behind(&["env", "--ignore-signal=CHLD"], &machine.cgi(&[("QUERY_STRING", b"flush")])).output().unwrap(),
    );
    assert_eq!((answer.status, machine.flushes()), (303, 1));
}

#[test]
fn on_the_command_line_an_ignored_sigchld_hangs_no_listing() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let mut command = behind(&["env", "--ignore-signal=CHLD"], &machine.command());
    let output = command.arg("list").output().unwrap();
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("21 messages"), "{output:?}");
}

#[test]
fn a_server_without_gateway_interface_gets_the_page_and_its_arguments_are_not_looked_at() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for arguments in [&["flush"][..], &["--version"], &["list", "--format", "csv"], &["--no-such-option"], &[]] {
        for variable in ["GATEWAY_INTERFACE", "REQUEST_METHOD"] {
            let mut command: Command = machine.cgi(&[("QUERY_STRING", b"format=json")]);
            let answer = Answer::of(command.env_remove(variable).args(arguments).output().unwrap());
            assert_eq!(answer.field("content-type"), Some("application/json"), "{arguments:?} without {variable}");
        }
    }
    assert_eq!(machine.flushes(), 0);
}

#[test]
fn an_empty_header_counts_as_absent() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let empty = ["HTTP_REFERER", "HTTP_ORIGIN", "HTTP_SEC_FETCH_SITE", "HTTP_SEC_PURPOSE", "HTTP_HOST", "HTTP_ACCEPT"];
    let mut variables: Vec<(&str, &[u8])> = empty.iter().map(|name| (*name, &b""[..])).collect();
    variables.extend([("QUERY_STRING", &b"flush"[..]), ("HTTP_USER_AGENT", b"curl/8.5")]);
    assert_eq!((machine.ask(&variables).status, machine.flushes()), (303, 1));
}

#[test]
fn a_browser_whose_accept_the_server_keeps_to_itself_gets_the_page() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let kind = |name: &[u8], accept: &[u8]| {
        let answer = machine.ask(&[("HTTP_USER_AGENT", name), ("HTTP_ACCEPT", accept)]);
        answer.field("content-type").unwrap().to_owned()
    };
    assert!(kind(b"Mozilla/5.0 (X11; Linux x86_64)", b"").starts_with("text/html"));
    assert!(kind(b"Mozilla/5.0 (X11; Linux x86_64)", b"*/*").starts_with("text/plain"), "it says what it takes");
    assert!(kind(b"curl/8.5", b"").starts_with("text/plain"));
    assert!(kind(b"", b"").starts_with("text/plain"));
}

#[test]
fn the_log_does_not_go_into_the_answer_where_the_server_makes_them_one() {
    let machine = Machine::with_fixture("postfix/denied-list");
    for query in ["format=html", "format=json", "format=text", "flush"] {
        let variables: &[(&str, &[u8])] = &[("QUERY_STRING", query.as_bytes())];
        let apart = machine.ask(variables);
        assert!(query == "flush" || apart.log.contains("bartleby: "), "{query}: there is something to log");
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        for (mut from, to) in [(File::from(read), write), (File::from(OwnedFd::from(near)), far.into())] {
            let machine = Machine::with_fixture("postfix/denied-list");
            let mut command = machine.cgi(variables);
            command.stdout(to.try_clone().unwrap()).stderr(to);
            let mut program = command.spawn().unwrap();
            drop(command);
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).unwrap();
            program.wait().unwrap();
            let text = String::from_utf8(bytes.clone()).unwrap();
            assert!(text.starts_with("Status: ") && !text.contains("bartleby: "), "{query}: {text}");
            assert_eq!(answer(bytes).status, apart.status, "{query}");
        }
    }
}

#[test]
fn a_body_that_nobody_wants_is_taken_all_the_same() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let form: (&str, &[u8]) = ("CONTENT_TYPE", b"application/x-www-form-urlencoded");
    let chunked: (&str, &[u8]) = ("HTTP_TRANSFER_ENCODING", b"chunked");
    let (put, posted, got) = (&b"PUT"[..], &b"POST"[..], &b"GET"[..]);
    for (method, more, status) in [
        (put, [("CONTENT_LENGTH", &b"60000"[..]), form], 405),
        (got, [("CONTENT_LENGTH", b"60000"), form], 200),
        (posted, [("CONTENT_LENGTH", b"60000"), form], 413),
        (posted, [("CONTENT_LENGTH", b"60000"), ("HTTP_HOST", b"evil.example")], 413),
        (posted, [chunked, form], 411),
        (put, [chunked, form], 405),
        (got, [chunked, form], 200),
    ] {
        let (read, write) = small_pipe(OFlag::empty());
        let variables = [&[("REQUEST_METHOD", method)][..], &more].concat();
        let mut command = machine.cgi(&variables);
        let program = command.stdin(read).spawn().unwrap();
        drop(command);
        let sent = thread::spawn(move || File::from(write).write_all(&[b'x'; 60_000]));
        let answer = Answer::of(program.wait_with_output().unwrap());
        assert_eq!(answer.status, status, "{variables:?}");
        // A broken pipe here is what makes Apache's mod_cgid reset the connection.
        assert!(sent.join().unwrap().is_ok(), "{variables:?}: the server could not hand the body over");
    }
    assert_eq!(machine.flushes(), 0);
}

#[test]
fn a_body_without_a_length_is_said_to_lack_it_and_runs_nothing() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let answer = post(&machine, "", b"flush=all", &[("HTTP_TRANSFER_ENCODING", b"chunked")]);
    assert_eq!((answer.status, machine.flushes()), (411, 0), "{}", answer.body);
    let without = post(&machine, "", b"", &[("QUERY_STRING", b"flush=all")]);
    assert_eq!((without.status, machine.flushes()), (303, 1), "a POST without a body needs no length");
}

#[test]
fn a_body_that_never_comes_is_not_waited_for() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let (read, write) = small_pipe(OFlag::empty());
    let variables: &[(&str, &[u8])] = &[("REQUEST_METHOD", b"PUT"), ("CONTENT_LENGTH", b"60000")];
    let started = Instant::now();
    let output = machine.cgi(variables).stdin(read).output().unwrap();
    assert_eq!(Answer::of(output).status, 405);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    drop(write);
}

#[test]
fn standard_output_that_does_not_block_gets_the_whole_answer() {
    let machine = many();
    for (query, end) in [
        ("format=json", "}\n"),
        ("format=csv", "\n"),
        ("format=text", "\n"),
        ("format=html", "</html>"),
        // Whole answers that are larger than the pipe.
        ("format=html&page=0", "</html>"),
        ("format=html&flush=id:NOSUCH", "</html>"),
    ] {
        // Each from elsewhere, as one address may not ask for what is not there twice at once.
        let from_address =
            |address: &[u8]| machine.cgi(&[("QUERY_STRING", query.as_bytes()), ("REMOTE_ADDR", address)]);
        let whole = Answer::of(from_address(b"192.0.2.7").output().unwrap());
        let (mut from, to) = small_pipe(OFlag::O_NONBLOCK);
        let mut command = from_address(b"192.0.2.8");
        let mut program = command.stdout(to).spawn().unwrap();
        drop(command);
        // Nobody takes anything for a while.
        thread::sleep(Duration::from_millis(700));
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        assert!(program.wait().unwrap().success(), "{query}");
        let answer = answer(bytes);
        assert_eq!(answer.status, whole.status, "{query}");
        assert!(answer.body.ends_with(end), "{query}: cut after {} bytes", answer.body.len());
        // A page grows by its history when a minute has passed since the first: so it is compared with both sides.
        let after = Answer::of(from_address(b"192.0.2.9").output().unwrap());
        let (least, most) = (whole.body.len().min(after.body.len()), whole.body.len().max(after.body.len()));
        let same = (least.saturating_sub(200)..most + 200).contains(&answer.body.len());
        assert!(same, "{query}: {} bytes, {least} to {most} expected", answer.body.len());
    }
}

#[test]
fn a_signal_in_the_middle_of_a_whole_answer_leaves_no_part_of_it_behind() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for variables in [
        &[("QUERY_STRING", &b"format=html&page=0"[..])][..],
        &[("HTTP_HOST", b"evil.example"), ("QUERY_STRING", b"format=html")],
        &[("BARTLEBY_ACCESS", b""), ("QUERY_STRING", b"format=html")],
    ] {
        let (mut from, to) = small_pipe(OFlag::empty());
        let mut command = machine.cgi(variables);
        let mut program = command.stdout(to).spawn().unwrap();
        drop(command);
        // By then the pipe is full.
        thread::sleep(Duration::from_millis(700));
        kill(Pid::from_raw(program.id() as i32), Signal::SIGTERM).unwrap();
        thread::sleep(Duration::from_millis(200));
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        program.wait().unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(bytes.len() > SMALL as usize && text.ends_with("</html>"), "cut after {} bytes", bytes.len());
    }
}
