//! The commands of `examples/notify`, each run by `watch` as shipped, with a local server that plays the other side.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use crate::machine::Machine;
use crate::played::Played;

/// Whether a program that a shipped command needs is there; else the test is skipped, and says so.
fn is_there(program: &str) -> bool {
    let is_there = ["/usr/bin", "/bin"].iter().any(|folder| Path::new(folder).join(program).exists());
    assert!(is_there || std::env::var("BARTLEBY_LAB").as_deref() != Ok("required"), "there is no {program}");
    if !is_there {
        // libtest does not capture this.
        let _ = writeln!(std::io::stderr(), "\n*** An example of [notify] is SKIPPED: there is no {program} ***\n");
    }
    is_there
}

/// A machine whose primary is down, with words that would break a careless script; its events go to this shipped command.
fn machine(primary: &Played, words: &[&str]) -> Machine {
    let machine = primary.machine("");
    let command = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/notify").join(words[0]);
    let words: Vec<_> = words[1..].iter().map(|word| format!("{word:?}")).collect();
    let text = format!(
        "[primary]\nhosts = [\"{}\"]\ndomains = [\"example.com\"]\n[notify]\ncommand = [{command:?}, {}]\n",
        primary.host,
        words.join(", ")
    );
    machine.configure("postfix", &text);
    machine
}

fn down() -> Played {
    Played::new(|_| Some("554 not today\r\n".into()))
}

/// Looks once: the command must take the event.
fn watch(machine: &Machine) {
    let output = machine.command().args(["watch", "--once"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// What an HTTP server that answers with this status is asked: the head and the body of one request.
fn http(status: &'static str) -> (String, JoinHandle<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        let length = |line: &str| line.to_lowercase().strip_prefix("content-length: ")?.trim().parse::<usize>().ok();
        let mut body = vec![0; head.lines().find_map(length).unwrap_or_default()];
        reader.read_exact(&mut body).unwrap();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
        stream.write_all(answer.as_bytes()).unwrap();
        (head, String::from_utf8(body).unwrap())
    };
    (address, thread::spawn(serve))
}

/// What the service gets.
fn hooked(service: &str, path: &str, header: &str) -> (String, String) {
    let primary = down();
    let (address, server) = http("200 OK");
    let machine = machine(&primary, &["webhook", service, "SETTINGS"]);
    let settings = machine.path("settings.curl");
    fs::write(&settings, format!("url = \"http://{address}{path}\"\nheader = \"{header}\"\n")).unwrap();
    let text = fs::read_to_string(machine.path("bartleby.toml")).unwrap();
    fs::write(machine.path("bartleby.toml"), text.replace("SETTINGS", settings.to_str().unwrap())).unwrap();
    watch(&machine);
    let (head, body) = server.join().unwrap();
    assert!(head.contains(header), "{head}");
    (head, body)
}

#[test]
fn ntfy_gets_the_sentence_and_a_title() {
    if !is_there("curl") {
        return;
    }
    let (head, body) = hooked("ntfy", "/topic", "Authorization: Bearer secret");
    assert!(head.starts_with("POST /topic HTTP/1.1") && head.contains("Title: Bartleby: primary_down"), "{head}");
    assert!(body.contains(" takes no mail since ") && !body.contains(['{', '\\']), "{body}");
}

#[test]
fn gotify_matrix_and_slack_get_their_own_json() {
    if !is_there("curl") {
        return;
    }
    let json = |body: &str| serde_json::from_str::<Value>(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    let says = |value: &Value| value.as_str().unwrap().contains(" takes no mail since ");
    let (head, body) = hooked("gotify", "/message", "X-Gotify-Key: secret");
    let sent = json(&body);
    assert!(head.starts_with("POST /message HTTP/1.1") && says(&sent["message"]), "{head}{body}");
    assert_eq!((&sent["title"], &sent["priority"]), (&"Bartleby: primary_down".into(), &4.into()));
    let (head, body) =
        hooked("matrix", "/_matrix/client/v3/rooms/!r:e/send/m.room.message/", "Authorization: Bearer secret");
    let is_put = head.starts_with("PUT /_matrix/client/v3/rooms/!r:e/send/m.room.message/1");
    assert!(is_put && json(&body)["msgtype"] == "m.text" && says(&json(&body)["body"]), "{head}{body}");
    let (head, body) = hooked("slack", "/services/x", "X-A: b");
    assert!(head.starts_with("POST /services/x HTTP/1.1") && says(&json(&body)["text"]), "{head}{body}");
}

#[test]
fn a_service_that_refuses_has_not_taken_the_event() {
    if !is_there("curl") {
        return;
    }
    let primary = down();
    let (address, server) = http("403 Forbidden");
    let machine = machine(&primary, &["webhook", "slack", "SETTINGS"]);
    let settings = machine.path("settings.curl");
    fs::write(&settings, format!("url = \"http://{address}/\"\n")).unwrap();
    let text = fs::read_to_string(machine.path("bartleby.toml")).unwrap();
    fs::write(machine.path("bartleby.toml"), text.replace("SETTINGS", settings.to_str().unwrap())).unwrap();
    let output = machine.command().args(["watch", "--once"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("has not taken primary_down: it ended with status 22") && said.contains("403"), "{said}");
    server.join().unwrap();
}

/// What a mail server that takes everything hears: each command, and the message.
fn smtp(stream: &mut TcpStream) -> (Vec<String>, String) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let mut say = |line: &str| stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    let (mut commands, mut message) = (Vec::new(), String::new());
    say("220 smarthost ESMTP");
    while let Some(line) = lines.next() {
        commands.push(line.clone());
        match line.as_str() {
            "DATA" => {
                say("354 go on");
                for line in lines.by_ref().take_while(|line| line != ".") {
                    message += &(line + "\n");
                }
                say("250 taken");
            }
            "QUIT" => {
                say("221 bye");
                break;
            }
            _ => say("250 ok"),
        }
    }
    (commands, message)
}

#[test]
fn another_mail_server_gets_a_whole_message() {
    if !is_there("curl") {
        return;
    }
    let primary = down();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || smtp(&mut listener.accept().unwrap().0));
    let machine = machine(&primary, &["mail", "bartleby@example.org", "larry@example.net", "SETTINGS"]);
    let settings = machine.path("settings.curl");
    fs::write(&settings, format!("url = \"smtp://{address}\"\n")).unwrap();
    let text = fs::read_to_string(machine.path("bartleby.toml")).unwrap();
    fs::write(machine.path("bartleby.toml"), text.replace("SETTINGS", settings.to_str().unwrap())).unwrap();
    watch(&machine);
    let (commands, message) = server.join().unwrap();
    let is_told = |words: &str| commands.iter().any(|command| command.starts_with(words));
    assert!(is_told("MAIL FROM:<bartleby@example.org>") && is_told("RCPT TO:<larry@example.net>"), "{commands:?}");
    let (head, body) = message.split_once("\n\n").unwrap();
    for field in [
        "From: Bartleby <bartleby@example.org>",
        "To: <larry@example.net>",
        "Subject: Bartleby: primary_down",
        "Auto-Submitted: auto-generated",
    ] {
        assert!(head.lines().any(|line| line == field), "{field}: {head}");
    }
    assert!(
        head.contains("\nDate: ") && head.contains("\nMessage-ID: <") && body.contains(" takes no mail since "),
        "{message}"
    );
}

#[test]
fn the_log_gets_one_line() {
    if !is_there("logger") {
        return;
    }
    let primary = down();
    let machine = machine(&primary, &["log", "--socket", "SOCKET"]);
    let socket = machine.path("log.socket");
    let log = UnixDatagram::bind(&socket).unwrap();
    log.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let text = fs::read_to_string(machine.path("bartleby.toml")).unwrap();
    fs::write(machine.path("bartleby.toml"), text.replace("SOCKET", socket.to_str().unwrap())).unwrap();
    watch(&machine);
    let mut line = [0; 2000];
    let length = log.recv(&mut line).unwrap();
    let line = String::from_utf8_lossy(&line[..length]);
    // daemon (3) and warning (4), RFC 3164.
    assert!(
        line.starts_with("<28>") && line.contains("bartleby: primary_down: ") && line.contains("takes no mail since"),
        "{line}"
    );
}

/// A sentence with all that a shell, a JSON string or a regular expression may stumble over.
#[test]
fn whatever_an_event_says_reaches_the_other_side_as_it_is() {
    if !is_there("curl") {
        return;
    }
    let text = "mx2: \"quoted\" \\ $(id) `id` %s 'x' & ; * “…” \\\"text\\\":\\\"no\\\" ü";
    let event =
        serde_json::json!({"at": "x", "event": "refusals", "text": text, "words": "\"text\":\"false\""}).to_string();
    let folder = tempfile::tempdir().unwrap();
    for service in ["ntfy", "slack"] {
        let (address, server) = http("200 OK");
        let settings = folder.path().join("settings.curl");
        fs::write(&settings, format!("url = \"http://{address}/\"\n")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/notify/webhook");
        let mut command = std::process::Command::new(script);
        command.arg(service).arg(&settings).env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C");
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(format!("{event}\n").as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        let (head, body) = server.join().unwrap();
        match service {
            "ntfy" => assert!(body == text && head.contains("Priority: high"), "{head}{body}"),
            _ => assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["text"], text, "{body}"),
        }
    }
}
