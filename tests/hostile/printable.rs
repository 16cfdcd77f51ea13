//! Text that acts on a terminal, hides or turns other text, through every way in and at every way out.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread;

use serde_json::{Value, json};

use crate::machine::Machine;
use crate::word;

/// ESC with a colour, BEL, a carriage return, DEL, CSI as one character, a turn of direction, a line separator, and a
/// character without width.
const ACTS: &str = "a\u{1b}[31m\u{7}\rb\u{7f}\u{9b}2J\u{202e}c\u{2028}d\u{200b}e\u{3164}f\u{a0}g\u{fe0f}h";

/// The same on two lines.
const TWO_LINES: &str =
    "a\u{1b}[31m\u{7}\rb\u{7f}\u{9b}2J\u{202e}c\u{2028}d\u{200b}e\u{3164}f\u{a0}g\u{fe0f}h\nbartleby: f";

#[track_caller]
fn assert_shows(what: &str, text: &str) {
    let acts =
        |c: &char| (c.is_control() && *c != '\n') || "\u{202e}\u{2028}\u{200b}\u{3164}\u{a0}\u{fe0f}".contains(*c);
    if let Some((at, c)) = text.char_indices().find(|(_, c)| acts(c)) {
        let start = text[..at].char_indices().rev().nth(80).map_or(0, |(start, _)| start);
        panic!("{what} holds {c:?} behind {:?}", &text[start..at]);
    }
}

/// A command's output, both streams of it. Nothing in it may act, and no line of the log be a stranger's.
#[track_caller]
fn said(what: &str, output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8(bytes.clone()).unwrap());
    assert_shows(what, &out);
    assert_shows(&format!("standard error of {what}"), &err);
    assert!(!err.lines().any(|line| line == "bartleby: f"), "{what}: {err}");
    out
}

fn command(machine: &Machine, words: &[&str]) -> String {
    said(&words.join(" "), &machine.command().args(words).output().unwrap())
}

/// The answer's body, without its head, whose fields are checked as they are.
fn asked(machine: &Machine, query: &str, variables: &[(&str, &[u8])]) -> String {
    let variables = [variables, &[("QUERY_STRING", query.as_bytes())]].concat();
    let mut output = machine.cgi(&variables).output().unwrap();
    // Head and body; a page's own line ends are line feeds.
    let end = |end: &[u8]| Some(output.stdout.windows(end.len()).position(|part| part == end)? + end.len());
    let body = end(b"\r\n\r\n").into_iter().chain(end(b"\n\n")).min().unwrap();
    let body = output.stdout.split_off(body);
    assert_shows("the head", &String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n"));
    output.stdout = body;
    // CSV ends its lines as RFC 4180 has it.
    if query.contains("format=csv") {
        output.stdout = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n").into_bytes();
    }
    let query = query.to_owned();
    said(&query, &output)
}

/// Looks at everything that this machine says.
fn look_at_all(machine: &Machine) {
    for format in ["html", "text", "json", "csv", "openmetrics"] {
        let body = asked(machine, &format!("format={format}"), &[]);
        assert!(format != "json" || serde_json::from_str::<Value>(&body).is_ok(), "{body}");
        if format != "html" {
            asked(machine, &format!("format={format}&sort=age"), &[]);
        }
    }
    for words in [
        &["list"][..],
        &["list", "--format", "json"],
        &["check"],
        &["doctor"],
        &["doctor", "--rehearse"],
        &["metrics"],
        &["watch", "--once"],
        &["outage"],
        &["outage", "--format", "json"],
    ] {
        command(machine, words);
    }
    let csv = machine.command().args(["list", "--format", "csv"]).output().unwrap();
    let stdout = String::from_utf8(csv.stdout).unwrap().replace("\r\n", "\n").into_bytes();
    said("list --format csv", &Output { stdout, ..csv });
    // A terminal's own line ends.
    let list = format!("NO_COLOR=1 {} list", env!("CARGO_BIN_EXE_bartleby"));
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &list, "/dev/null"]).stdin(Stdio::null()).env("SHELL", "/bin/sh");
    let output = terminal.env("BARTLEBY_CONFIG", machine.path("bartleby.toml")).output().unwrap();
    assert_shows("a terminal's list", &String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n"));
}

/// A machine with this configuration; its lister and flusher are there.
fn configured(configuration: &str) -> Machine {
    let machine = Machine::with_fixture("postfix/mixed-json");
    fs::write(machine.path("bartleby.toml"), configuration).unwrap();
    machine
}

/// A string of the configuration; TOML has JSON's escapes, and takes DEL only as one.
fn toml(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

#[test]
fn in_a_query() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let encoded: String = TWO_LINES.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let names = [
        "format", "flush", "flushed", "outage", "q", "domain", "sender", "state", "reason", "age", "sort", "page",
        "per_page", "other",
    ];
    for name in names {
        for format in ["html", "text", "json", "csv", "openmetrics"] {
            asked(&machine, &format!("{name}={encoded}&format={format}"), &[]);
            asked(&machine, &format!("format={format}&{name}={encoded}"), &[]);
        }
    }
    asked(&machine, &format!("flush=domain:{encoded}&format=text"), &[]);
    asked(&machine, &format!("flush=id:{encoded}&format=text"), &[]);
    assert_eq!(machine.flushes(), 0);
}

#[test]
fn in_a_request() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for name in [
        "REQUEST_METHOD",
        "HTTP_HOST",
        "HTTP_ACCEPT",
        "HTTP_ORIGIN",
        "HTTP_REFERER",
        "HTTP_USER_AGENT",
        "HTTP_SEC_FETCH_SITE",
        "REMOTE_ADDR",
        "REMOTE_USER",
        "CONTENT_TYPE",
        "CONTENT_LENGTH",
        "PATH_INFO",
        "SERVER_PROTOCOL",
    ] {
        for query in ["format=text", "format=html", "flush&format=text"] {
            asked(&machine, query, &[(name, TWO_LINES.as_bytes())]);
            machine.kill_all();
            asked(&machine, query, &[(name, TWO_LINES.as_bytes()), ("BARTLEBY_ACCESS", b"")]);
        }
    }
    assert!(machine.flushes() > 0, "REMOTE_USER is who ran it");
    look_at_all(&machine);
}

#[test]
fn on_the_command_line() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for command_word in ["list", "flush", "watch", "check", "metrics", "doctor", TWO_LINES] {
        for argument in
            [TWO_LINES, &format!("--{ACTS}"), &format!("--format={ACTS}"), &format!("-w{ACTS}"), &format!("-{ACTS}")]
        {
            command(&machine, &[command_word, argument]);
        }
    }
    for words in [
        &["flush", &format!("id:{ACTS}")][..],
        &["flush", &format!("domain:{TWO_LINES}")],
        &["check", "-w", TWO_LINES],
        &["check", "--age-critical", TWO_LINES],
        &["list", "--format", TWO_LINES],
        &[&format!("--{TWO_LINES}")],
    ] {
        command(&machine, words);
    }
    let mut other = machine.command();
    other.arg("list").arg(std::ffi::OsStr::from_bytes(b"\xff\x1b[31m"));
    said("bytes that are no text", &other.output().unwrap());
    assert_eq!(machine.flushes(), 0);
}

#[test]
fn in_the_configuration() {
    let usable = format!("kind = \"postfix\"\nlist_command = [\"/bin/true\", {}]\n", toml(TWO_LINES));
    for text in [
        format!("{} = 1\n", toml(TWO_LINES)),
        format!("[mta]\n{} = 1\n", toml(TWO_LINES)),
        format!("[{}]\n", toml(TWO_LINES)),
        format!("[{ACTS}\n"),
        format!("[mta]\nkind = {}\n", toml(TWO_LINES)),
        format!("[mta]\ndeadline = {}\n", toml(TWO_LINES)),
        format!("[disk]\nwarn = {}\n", toml(TWO_LINES)),
        format!("[access]\nallow = [{}]\n", toml(TWO_LINES)),
        format!("[state]\ndirectory = {}\n", toml(TWO_LINES)),
        format!("[mta]\n{usable}label = {}\n", toml(TWO_LINES)),
        format!("[mta]\nkind = \"postfix\"\nlist_command = [{}]\n", toml(&format!("/{TWO_LINES}"))),
        format!("[mta]\n{usable}[state]\ndirectory = {}\n", toml(&format!("/nowhere/{TWO_LINES}"))),
        format!("[mta]\n{usable}[primary]\nhosts = [{}]\ndomains = [{0}]\n", toml(TWO_LINES)),
        format!("[mta]\n{usable}[notify]\ncommand = [{}]\n", toml(&format!("/{TWO_LINES}"))),
    ] {
        let machine = configured(&text);
        let code = machine.command().arg("list").output().unwrap().status.code();
        assert_eq!(code == Some(78), !text.contains("list_command") || text.contains("[primary]"), "{text}");
        look_at_all(&machine);
    }
}

#[test]
fn in_the_name_of_the_configuration() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let named: PathBuf = machine.path(TWO_LINES);
    for there in [false, true] {
        if there {
            fs::copy(machine.path("bartleby.toml"), &named).unwrap();
        }
        for words in [&["list"][..], &["check"], &["doctor"], &["watch", "--once"]] {
            let output = machine.command().env("BARTLEBY_CONFIG", &named).args(words).output().unwrap();
            said("a configuration of that name", &output);
        }
        for format in ["text", "html", "json"] {
            let query = format!("format={format}");
            asked(&machine, &query, &[("BARTLEBY_CONFIG", named.as_os_str().as_bytes())]);
        }
    }
}

/// A machine whose lister prints this on its two streams, and ends so.
fn listing(kind: &str, out: &str, err: &str, status: u8) -> Machine {
    let machine =
        Machine::with_lister(kind, &format!("printf %s {}; printf %s {} >&2; exit {status}", word(out), word(err)));
    machine.configure(kind, &format!("label = {}", toml(TWO_LINES)));
    assert!(machine.get("format=text").body.contains("[a␛[31m"), "the configuration is usable");
    machine
}

#[test]
fn in_a_listing() {
    let message = json!({
        "queue_name": "deferred", "queue_id": TWO_LINES, "arrival_time": 1_795_434_000, "message_size": 344,
        "sender": format!("{TWO_LINES}@example.org"),
        "recipients": [{"address": format!("x@{TWO_LINES}"), "delay_reason": TWO_LINES}, {"address": TWO_LINES}],
    });
    look_at_all(&listing("postfix", &format!("{message}\n"), "", 0));
    for (kind, line) in [
        ("exim", format!(" 0m   433 1vNCoX-000000003Ft-2kZt <{ACTS}>\n          {ACTS}@{ACTS}\n\n")),
        ("opensmtpd", format!("c44e9b80594dd7b5|inet4|mta||a@{ACTS}|b@c|b@c|1|1|0|1|pending|-4|{ACTS}\n")),
    ] {
        look_at_all(&listing(kind, &line, "", 0));
    }
    for kind in ["postfix", "sendmail", "exim", "opensmtpd"] {
        look_at_all(&listing(kind, &format!("{TWO_LINES}\n"), "", 0));
        look_at_all(&listing(kind, "", TWO_LINES, 1));
        look_at_all(&listing(kind, "", &format!("ermission denied, need root privileges: {TWO_LINES}"), 69));
    }
}

#[test]
fn in_what_a_flusher_says() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "[flush]\ncooldown = \"0s\"");
    let says = word(&format!("{TWO_LINES}\n"));
    fs::write(machine.path("flush"), format!("#!/bin/sh\nprintf %s {says}; printf %s {says} >&2; exit 3\n")).unwrap();
    for query in ["flush&format=text", "flush&format=html", "flush&format=json"] {
        asked(&machine, query, &[("REMOTE_USER", TWO_LINES.as_bytes())]);
        machine.kill_all();
    }
    command(&machine, &["flush"]);
    machine.kill_all();
    asked(&machine, "flushed=1&format=html", &[]);
    look_at_all(&machine);
}

#[test]
fn in_the_words_of_a_run_that_is_followed() {
    let reason = "x\u{1b}[31m\u{202e}y\u{200b}z";
    let recipients = json!([{"address": "a@example.com", "delay_reason": reason}]);
    let message = json!({"queue_name": "deferred", "queue_id": "A1", "arrival_time": 1_795_434_000, "message_size": 3,
        "sender": reason, "recipients": recipients});
    let machine = listing("postfix", &format!("{message}\n"), "", 0);
    let output = machine.command().args(["flush", "--wait"]).output().unwrap();
    let text = said("flush --wait", &output);
    assert!(text.contains("Queue run 1: "), "{output:?}");
}

#[test]
fn in_the_greeting_of_a_primary() {
    for code in [220, 421, 554, 0] {
        let machine = Machine::with_fixture("postfix/mixed-json");
        let primary = TcpListener::bind("127.0.0.1:0").unwrap();
        machine.configure("postfix", &format!("[primary]\nhosts = [\"{}\"]", primary.local_addr().unwrap()));
        thread::spawn(move || {
            while let Ok((mut stream, _)) = primary.accept() {
                let _ = write!(stream, "{code} {ACTS}\r\n");
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while let Some(Ok(_)) = lines.next() {
                    let _ = write!(stream, "250 {ACTS}\r\n");
                }
            }
        });
        look_at_all(&machine);
    }
}
