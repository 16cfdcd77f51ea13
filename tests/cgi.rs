//! The built program as a web server runs it: an environment, a body, an answer. The mail server is
//! played by recorded output; the real ones are asked in the lab.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod machine;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use machine::{Answer, Machine};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const FORM: (&str, &[u8]) = ("CONTENT_TYPE", b"application/x-www-form-urlencoded");

fn post(machine: &Machine, length: &str, body: &[u8], more: &[(&str, &[u8])]) -> Answer {
    let variables =
        [&[("REQUEST_METHOD", &b"POST"[..]), ("CONTENT_LENGTH", length.as_bytes()), FORM][..], more].concat();
    let mut child = machine.cgi(&variables).stdin(Stdio::piped()).spawn().unwrap();
    // The program may have answered already.
    let _ = child.stdin.take().unwrap().write_all(body);
    Answer::of(child.wait_with_output().unwrap())
}

// What the cgi crate panics on, see its `parse_request` and `serialize_response`.

#[test]
fn bytes_that_are_no_text_and_raw_characters_get_the_page() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for variables in [
        [("HTTP_X_ODD", &b"\x80\xff"[..]), ("HTTP_USER_AGENT", b"\xe4"), ("HTTP_ACCEPT", b"text/html;\xff")],
        [("PATH_INFO", b"/\xff"), ("REQUEST_URI", b"/index.cgi/%ff"), ("HTTP_ACCEPT", b"text/html")],
        [("QUERY_STRING", b"<{ }|\"^"), ("REQUEST_URI", b"/?<{ }"), ("HTTP_ACCEPT", b"text/html")],
        [("SERVER_PROTOCOL", b"HTTP/3.0"), ("SCRIPT_URI", b"http://[/"), ("HTTP_ACCEPT", b"text/html")],
        [("SERVER_PROTOCOL", b"INCLUDED"), ("HTTP_", b"x"), ("HTTP_ACCEPT", b"text/html")],
        [("CONTENT_LENGTH", b"99999999999999"), ("HTTP_A B", b"x"), ("HTTP_ACCEPT", b"text/html")],
    ] {
        let answer = machine.ask(&variables);
        assert_eq!(answer.status, 200, "{variables:?}: {}", answer.body);
        assert!(answer.body.contains("951BB98C3CD"), "{variables:?}");
    }
}

#[test]
fn other_methods_are_answered_with_405_and_what_is_allowed() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for method in [&b"PUT"[..], b"OPTIONS", b"get", b"\xff\xfe", b"A B", b""] {
        let answer = machine.ask(&[("REQUEST_METHOD", method), ("QUERY_STRING", b"flush")]);
        assert_eq!((answer.status, answer.field("allow")), (405, Some("get, head, post")), "{method:?}");
        answer.assert_safe_headers();
    }
    assert_eq!(machine.flushes(), 0);
}

#[test]
fn a_body_too_long_too_short_or_no_form_is_refused() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(post(&machine, "99999999999999", b"flush", &[]).status, 413);
    assert_eq!(post(&machine, "20000", &[b'x'; 20000], &[]).status, 413);
    assert_eq!(post(&machine, "6", b"flush", &[]).status, 400);
    assert_eq!(post(&machine, "five", b"flush", &[]).status, 400);
    assert_eq!(post(&machine, "5", b"flush", &[("CONTENT_TYPE", b"text/plain")]).status, 400);
    assert_eq!(machine.flushes(), 0);
    let long = "q=".to_owned() + &"x".repeat(20_000);
    assert_eq!(machine.get(&long).status, 413);
}

#[test]
fn a_reader_that_hangs_up_is_no_error() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for query in ["", "format=html", "format=json", "flush"] {
        let mut child: Child = machine.cgi(&[("QUERY_STRING", query.as_bytes())]).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!log.contains("panicked"), "{query}: {log}");
        assert!(output.status.code().is_some(), "{query}: {:?}", output.status);
    }
}

#[test]
fn arguments_are_never_looked_at_under_a_web_server() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let output = machine.cgi(&[]).args(["--version", "flush"]).output().unwrap();
    assert!(Answer::of(output).body.contains("951BB98C3CD"));
    assert_eq!(machine.flushes(), 0);
}

// Access.

#[test]
fn without_the_web_servers_word_only_listed_addresses_are_served() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let denied: &[(&str, &[u8])] = &[("BARTLEBY_ACCESS", b""), ("HTTP_ACCEPT", b"text/html")];
    for more in [
        &[][..],
        &[("HTTP_X_CGI_REMOTE_ADDR", &b"127.0.0.1"[..])],
        &[("HTTP_X_FORWARDED_FOR", b"127.0.0.1")],
        &[("HTTP_BARTLEBY_ACCESS", b"granted")],
        &[("REMOTE_ADDR", b"")],
        &[("QUERY_STRING", b"flush")],
    ] {
        let answer = machine.ask(&[denied, more].concat());
        assert_eq!(answer.status, 403, "{more:?}");
        assert!(answer.body.contains("Require ip") && answer.body.contains("[access] allow"), "{}", answer.body);
        assert!(!answer.body.contains("example.com"), "nothing of the queue is told");
        answer.assert_safe_headers();
    }
    assert_eq!(machine.flushes(), 0);
    assert_eq!(machine.ask(&[denied, &[("REMOTE_ADDR", b"127.0.0.1")]].concat()).status, 200);
    assert_eq!(machine.ask(&[denied, &[("REMOTE_ADDR", b"::1")]].concat()).status, 200);
    fs::write(
        machine.path("bartleby.toml"),
        "[access]\nallow = [\"192.0.2.0/24\"]\n[mta]\nkind = \"postfix\"\nlist_command = [\"/bin/true\"]\n",
    )
    .unwrap();
    assert_eq!(machine.ask(denied).status, 200);
    assert_eq!(machine.ask(&[denied, &[("REMOTE_ADDR", b"127.0.0.1")]].concat()).status, 403);
}

#[test]
fn a_mistake_in_the_configuration_is_told_with_its_line() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "colour = \"red\"");
    let answer = machine.get("format=html");
    assert_eq!(answer.status, 500);
    assert!(answer.body.contains("bartleby.toml, line 5, [mta] colour: unknown field"), "{}", answer.body);
    let stranger = machine.ask(&[("BARTLEBY_ACCESS", b"")]);
    assert_eq!(stranger.status, 403);
    assert!(!stranger.body.contains("colour"));
    let output = machine.command().arg("list").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 5, [mta] colour"));
}

// The listing.

#[test]
fn the_form_follows_accept_and_format() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for (accept, query, media_type) in [
        ("text/html,*/*;q=0.8", "", "text/html; charset=utf-8"),
        ("*/*", "", "text/plain; charset=utf-8"),
        ("application/json", "", "application/json"),
        ("text/html", "format=json", "application/json"),
        ("text/html", "format=text", "text/plain; charset=utf-8"),
        ("*/*", "format=html", "text/html; charset=utf-8"),
    ] {
        let answer = machine.ask(&[("HTTP_ACCEPT", accept.as_bytes()), ("QUERY_STRING", query.as_bytes())]);
        assert_eq!(answer.field("content-type"), Some(media_type), "{accept} {query}");
        answer.assert_safe_headers();
        for id in ["951BB98C3CD", "93BAB98C209", "167A598CA53"] {
            assert!(answer.body.contains(id), "{accept} {query}");
        }
    }
}

#[test]
fn a_bad_value_is_named() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for (query, value) in
        [("state=<b>", "&lt;b&gt;"), ("page=0", "“0”"), ("format=pdf", "“pdf”"), ("flush=everything", "“everything”")]
    {
        let answer = machine.ask(&[("QUERY_STRING", query.as_bytes()), ("HTTP_ACCEPT", b"text/html")]);
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.body.contains(value) && !answer.body.contains("<b>"), "{}", answer.body);
    }
    assert_eq!(machine.flushes(), 0);
}

#[test]
fn json_is_what_the_contract_says() {
    let (status, json) = Machine::with_fixture("postfix/mixed-json").json();
    assert_eq!(status, 200);
    assert_eq!(json["version"], 1);
    assert_eq!(json["program"], concat!("bartleby ", env!("CARGO_PKG_VERSION")));
    assert_eq!(json["mta"]["kind"], "postfix");
    let queue = &json["queue"];
    assert_eq!((&queue["status"], &queue["complete"], &queue["error"]), (&"ok".into(), &true.into(), &Value::Null));
    assert_eq!((&queue["messages"], &queue["recipients"]), (&21.into(), &28.into()));
    assert_eq!(queue["states"], serde_json::json!({"incoming": 0, "active": 0, "deferred": 20, "held": 1}));
    assert_eq!(queue["oldest"], "2026-11-23T11:17:42Z");
    assert_eq!(json["messages"].as_array().unwrap().len(), 21);
    assert_eq!(json["destinations"][0]["domain"], "example.com");
    assert_eq!(json["destinations"][0]["ages"].as_array().unwrap().len(), 10);
    assert_eq!(json["flush"]["allowed"], true);
    assert_eq!(json["flush"]["last"], Value::Null);
    assert_eq!(json["primary"], serde_json::json!([]));
    assert!(json["filesystems"][0]["bytes"].as_u64().unwrap() > 0);
    assert!(json.get("selection").is_none());
}

#[test]
fn filters_sorting_and_pages_select_messages_and_leave_the_totals() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let ask =
        |query: &str| -> Value { serde_json::from_str(&machine.get(&format!("format=json&{query}")).body).unwrap() };
    let ids = |json: &Value| -> Vec<String> {
        json["messages"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
    };
    let filtered = ask("domain=other.example");
    assert_eq!(ids(&filtered), ["9875298C673", "C4D6F98C7A2", "1737F98CA54"]);
    assert_eq!(filtered["queue"]["messages"], 21);
    assert_eq!(ids(&ask("state=held")), ["93BAB98C209"]);
    assert_eq!(ids(&ask("sender=%3C%3E")), ["BE12E98C6B3"]);
    assert_eq!(ids(&ask("reason=greylist")), ["167A598CA53"]);
    assert_eq!(ids(&ask("q=D%C3%9CRER")), ["951BB98C3CD", "C1AE098C702"]);
    let page = ask("sort=-size&per_page=2");
    assert_eq!(page["selection"], serde_json::json!({"matched": 21, "page": 1, "pages": 11}));
    assert_eq!(ids(&page), ["95C7C98C654", "C25CC98C760"]);
    let all: Vec<String> = (1..=11).flat_map(|page| ids(&ask(&format!("sort=id&per_page=2&page={page}")))).collect();
    assert_eq!(all.len(), 21);
    assert!(all.is_sorted());
    let html = machine.get("format=html&per_page=2&page=11").body;
    assert!(html.contains("Messages 21-21 of 21") && html.contains("Page 11 of 11"), "{html}");
    assert!(machine.get("format=html&per_page=2&page=12").body.contains("There is no page 12"));
}

#[test]
fn the_page_tells_what_goes_on_and_isolates_what_strangers_wrote() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let page = machine.get("format=html").body;
    assert!(page.contains("21 messages wait for <bdi>example.com</bdi> and others; the oldest for "), "{page}");
    assert!(page.contains("<bdi>example.com</bdi></a>: 23 recipients; the server there refuses connections"));
    assert!(page.contains("<bdi>&quot;&lt;img src=x onerror=alert(2)&gt;&quot;@example.com</bdi>"));
    assert!(
        !page.contains("<script")
            && !page.contains("<img")
            && !page.contains("javascript:")
            && !page.contains(" style=")
    );
    assert!(page.contains("href=\"?flush\""));
    assert!(page.contains("The listing is complete."));
    let evil = "{\"queue_name\":\"deferred\",\"queue_id\":\"A1\",\"arrival_time\":1795432688,\"message_size\":1,\"sender\":\"a\\u202emoc@x.example\",\"recipients\":[{\"address\":\"b\\u0007\\u001b[31m@x.example\",\"delay_reason\":\"r\\u200b\"}]}";
    let machine = Machine::with_lister("postfix", &format!("cat <<'E'\n{evil}\nE"));
    for format in ["html", "text"] {
        let shown = machine.get(&format!("format={format}")).body;
        assert!(shown.contains("a⟨U+202E⟩moc@x.example") && shown.contains("b␇␛[31m@x.example"), "{shown}");
        assert!(!shown.contains(['\u{202e}', '\u{7}', '\u{1b}', '\u{200b}']));
    }
    let (_, json) = machine.json();
    assert_eq!(json["messages"][0]["sender"], "a\u{202e}moc@x.example", "machines get the text itself");
}

#[test]
fn an_empty_queue_is_called_so_and_offers_no_flush() {
    for case in ["postfix/empty-json", "sendmail/empty-bp", "sendmail/empty-mailq"] {
        let machine = Machine::with_fixture(case);
        let page = machine.get("format=html");
        assert_eq!(page.status, 200);
        assert!(page.body.contains("The queue is empty.") && !page.body.contains("?flush\""), "{case}: {}", page.body);
        let (status, json) = machine.json();
        assert_eq!(
            (status, &json["queue"]["status"], &json["queue"]["messages"]),
            (200, &"ok".into(), &0.into()),
            "{case}"
        );
        assert!(machine.get("format=text").body.starts_with("The queue is empty."), "{case}");
    }
}

#[test]
fn a_listing_that_failed_is_never_an_empty_queue() {
    let bodies: Vec<(Machine, &str)> = vec![
        (Machine::with_fixture("postfix/denied-list"), "denied"),
        (Machine::with_fixture("postfix/as-www-data-nnp-json"), "denied"),
        (Machine::with_fixture("postfix/down-list-www-data"), "down"),
        (Machine::with_fixture("sendmail/denied-list"), "denied"),
        (Machine::with_fixture("sendmail/as-www-data-mailq-nnp"), "denied"),
        (Machine::with_lister("postfix", "exit 1"), "failed"),
        (Machine::with_lister("postfix", "kill -9 $$"), "failed"),
        (Machine::with_lister("postfix", "printf '{\"queue_name\"'"), "failed"),
        (Machine::with_lister("postfix", "echo soup"), "failed"),
        (Machine::with_lister("sendmail", ":"), "failed"),
        (Machine::with_lister("postfix", "echo 'postqueue: fatal: software error' >&2; exit 70"), "failed"),
    ];
    for (machine, word) in bodies {
        let (status, json) = machine.json();
        assert_eq!((status, &json["queue"]["status"]), (503, &word.into()));
        assert_eq!(json["queue"]["complete"], false);
        assert!(!json["queue"]["error"]["message"].as_str().unwrap().is_empty());
        assert!(!json["queue"]["error"]["remedy"].as_str().unwrap().is_empty());
        for format in ["html", "text"] {
            let answer = machine.get(&format!("format={format}"));
            assert_eq!(answer.status, if format == "html" { 200 } else { 503 });
            assert!(!answer.body.contains("queue is empty") && !answer.body.contains("Queue empty"), "{}", answer.body);
            assert!(answer.body.contains("is not known"), "{}", answer.body);
            assert!(answer.log.contains("bartleby: "), "the error log is told, too");
        }
        let output = machine.command().arg("list").output().unwrap();
        assert_eq!(output.status.code(), Some(69));
    }
}

#[test]
fn a_lister_that_hangs_is_stopped_and_what_it_printed_is_kept() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/postfix/mixed-json.stdout");
    let machine = Machine::with_lister("postfix", &format!("head -5 {}; sleep 977", fixture.display()));
    machine.configure("postfix", "deadline = \"300ms\"");
    let (status, json) = machine.json();
    assert_eq!((status, &json["queue"]["status"], &json["queue"]["messages"]), (503, &"timeout".into(), &5.into()));
    assert_eq!(json["messages"].as_array().unwrap().len(), 5);
    let page = machine.get("format=html").body;
    assert!(
        page.contains("At least 5 messages wait")
            && page.contains("These are the first 5 messages: the listing was cut after 0.3 s"),
        "{page}"
    );
}

#[test]
fn a_message_with_very_many_recipients_does_not_take_the_page() {
    let recipients: Vec<_> = (0..40_000).map(|n| format!("{{\"address\":\"r{n}@example.com\"}}")).collect();
    let line = format!(
        "{{\"queue_name\":\"active\",\"queue_id\":\"A1\",\"arrival_time\":0,\"message_size\":1,\"sender\":\"\",\"recipients\":[{}]}}\n",
        recipients.join(",")
    );
    let machine = Machine::with_lister("postfix", "");
    fs::write(machine.path("queue"), line).unwrap();
    fs::write(machine.path("list"), format!("#!/bin/sh\ncat {}\n", machine.path("queue").display())).unwrap();
    let page = machine.get("format=html").body;
    assert!(page.contains("recipients too many for a page") && page.contains("40,000"), "{}", page.len());
    assert!(page.len() < 200_000, "{}", page.len());
    let (_, json) = machine.json();
    assert_eq!(json["messages"][0]["recipients"].as_array().unwrap().len(), 40_000);
}

#[test]
fn the_lister_gets_a_clean_environment_and_no_descriptors() {
    let machine = Machine::with_lister("postfix", ":");
    let seen = machine.path("seen");
    fs::write(machine.path("list"), format!("#!/bin/sh\n(env; ls -l /proc/$$/fd; cat) > {} 2>&1\n", seen.display()))
        .unwrap();
    fs::set_permissions(machine.path("list"), fs::Permissions::from_mode(0o755)).unwrap();
    // The shell passes on a descriptor that no one closed.
    let status = Command::new("/bin/sh")
        .args(["-c", "exec 9</etc/hostname; exec \"$0\"", env!("CARGO_BIN_EXE_bartleby")])
        .env_clear()
        .envs([
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("BARTLEBY_ACCESS", "granted"),
            ("LD_PRELOAD", ""),
            ("HTTP_PROXY", "evil"),
        ])
        .env("BARTLEBY_CONFIG", machine.path("bartleby.toml"))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let seen = fs::read_to_string(seen).unwrap();
    assert!(!seen.contains("HTTP_PROXY") && !seen.contains("GATEWAY") && seen.contains("LC_ALL=C"), "{seen}");
    assert!(!seen.contains("/etc/hostname"), "{seen}");
}

// The flush.

#[test]
fn a_flush_runs_once_and_then_cools_down() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let answer = machine.get("flush");
    assert_eq!((answer.status, answer.field("location")), (303, Some("?flushed=1")));
    answer.assert_safe_headers();
    assert_eq!(machine.flushes(), 1);
    let again = machine.get("flush");
    assert_eq!(again.status, 429);
    let wait: u64 = again.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(machine.flushes(), 1);
    let (_, json) = machine.json();
    assert_eq!(json["flush"]["last"]["number"], 1);
    assert_eq!((&json["flush"]["last"]["messages"], &json["flush"]["last"]["by"]), (&21.into(), &"192.0.2.7".into()));
    assert!(json["flush"]["wait_seconds"].as_u64().unwrap() > 0);
    let page = machine.get("flushed=1&format=html");
    assert!(page.body.contains("0 of 21 have left the queue, 21 still wait: connection refused ("), "{}", page.body);
    assert!(page.body.contains("so far") && page.body.contains("<progress max=\"21\" value=\"0\""), "{}", page.body);
    assert!(page.body.contains("it can be run again in"));
    assert_eq!(page.field("refresh"), Some("3"));
    assert!(machine.get("flushed=7&format=html").body.contains("Of queue run 7 there is no record."));
    // The command line is under the same cool-down.
    let output = machine.command().arg("flush").output().unwrap();
    assert_eq!((output.status.code(), machine.flushes()), (Some(75), 1));
}

#[test]
fn what_comes_of_a_flush_is_put_on_record_without_anybody_looking() {
    let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/postfix").join(name);
    let machine = Machine::with_fixture("postfix/mixed-json");
    // The run delivers all but the last five.
    let script = format!(
        "#!/bin/sh\necho '#!/bin/sh\ntail -5 {}' > {}\n",
        fixture("mixed-json.stdout").display(),
        machine.path("list").display()
    );
    fs::write(machine.path("flush"), script).unwrap();
    assert_eq!(machine.get("flush").status, 303);
    let until = Instant::now() + Duration::from_secs(60);
    let log = loop {
        let log = machine.json().1["flush"]["log"].clone();
        if log[0]["outcome"]["settled"] == true {
            break log;
        }
        assert!(Instant::now() < until, "{log:#}");
        thread::sleep(Duration::from_millis(200));
    };
    assert_eq!((&log[0]["exit"], &log[0]["outcome"]["messages_left"]), (&"ended with status 0".into(), &5.into()));
    let page = machine.get("flushed=1&format=html");
    assert!(page.body.contains("16 of 21 have left the queue, 5 still wait: "), "{}", page.body);
    assert!(page.body.contains("; done</bdi>."), "{}", page.body);
    assert_eq!(page.field("refresh"), None, "it is over");
}

#[test]
fn the_command_line_waits_and_its_status_tells_what_left() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/postfix/mixed-json.stdout");
    for (rest, code, words) in [
        ("true".to_owned(), 0, "all 21 have left the queue"),
        (format!("head -20 {}", fixture.display()), 1, "1 of 21 have left the queue, 20 still wait: "),
    ] {
        let machine = Machine::with_fixture("postfix/mixed-json");
        let script = format!("#!/bin/sh\necho '#!/bin/sh\n{rest}' > {}\n", machine.path("list").display());
        fs::write(machine.path("flush"), script).unwrap();
        let output = machine.command().args(["flush", "--wait"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(text.starts_with(&format!("Queue run 1: {words}")), "{text}");
    }
}

#[test]
fn what_came_of_a_flush_is_not_known_while_the_queue_can_not_be_listed() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("flush").status, 303);
    fs::write(machine.path("list"), "#!/bin/sh\necho 'postqueue: fatal: mail system is down' >&2; exit 69\n").unwrap();
    let page = machine.get("flushed=1&format=html");
    assert!(page.body.contains("what came of it is not known"), "{}", page.body);
    assert!(!page.body.contains("have left the queue; done"), "{}", page.body);
    assert_eq!(page.field("refresh"), Some("3"), "it is not over");
}

#[test]
fn a_run_that_moves_nothing_is_called_so() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("flush=all").status, 303);
    let until = Instant::now() + Duration::from_secs(60);
    while !machine.get("flushed=1&format=html").body.contains("nothing moved, all 21 still wait: connection refused (")
    {
        assert!(Instant::now() < until, "{}", machine.get("flushed=1&format=html").body);
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn what_came_of_a_flush_is_told_in_text_and_json_too() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("flush").status, 303);
    let text = machine.get("flushed=1&format=text").body;
    assert!(text.contains("Queue run 1: so far 0 of 21 have left the queue, 21 still wait"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&machine.get("flushed=1&format=json").body).unwrap();
    assert_eq!(json["flush"]["followed"]["outcome"]["messages_left"], 21);
}

#[test]
fn mail_that_comes_in_while_the_queue_is_run_does_not_count() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let listing = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/postfix/mixed-json.stdout"));
    // The same second, other ids.
    let newcomers = listing.unwrap().replace("\"queue_id\": \"", "\"queue_id\": \"NEW");
    fs::write(machine.path("newcomers"), newcomers).unwrap();
    let script = format!("#!/bin/sh\ncp {0}/cat {0}/list\n", machine.path("").display());
    fs::write(machine.path("cat"), format!("#!/bin/sh\ncat {}", machine.path("newcomers").display())).unwrap();
    fs::write(machine.path("flush"), script).unwrap();
    assert_eq!(machine.get("flush").status, 303);
    let page = machine.get("flushed=1&format=html");
    assert!(page.body.contains("all 21 have left the queue"), "{}", page.body);
    assert!(page.body.contains("21 messages wait for"), "{}", page.body);
}

#[test]
fn a_flush_is_not_over_while_mail_is_being_delivered() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/postfix/mixed-json.stdout");
    // One stays in delivery, as a connection that hangs does.
    let active = fs::read_to_string(fixture).unwrap().lines().next().unwrap().replace("deferred", "active");
    fs::write(machine.path("active"), active + "\n").unwrap();
    fs::write(machine.path("cat"), format!("#!/bin/sh\ncat {}", machine.path("active").display())).unwrap();
    let script = format!("#!/bin/sh\ncp {0}/cat {0}/list\n", machine.path("").display());
    fs::write(machine.path("flush"), script).unwrap();
    assert_eq!(machine.get("flush").status, 303);
    // Longer than the queue has to be at rest.
    thread::sleep(Duration::from_secs(18));
    let page = machine.get("flushed=1&format=html");
    assert!(page.body.contains("20 of 21 have left the queue, 1 still waits") && page.body.contains("so far 20"));
    fs::write(machine.path("list"), "#!/bin/sh\n").unwrap();
    assert!(machine.get("flushed=1&format=html").body.contains("all 21 have left the queue"));
}

#[test]
fn held_mail_is_told() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let page = machine.get("format=html");
    assert!(page.body.contains("; 1 held, which a queue run passes over."), "{}", page.body);
}

#[test]
fn over_plain_http_the_referer_tells_of_another_sites_link() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for foreign in
        [&b"http://evil.example/"[..], b"http://mx2.example.com.evil.example/", b"http://x@mx2.example.com/", b"soup"]
    {
        let answer = machine.ask(&[("QUERY_STRING", b"flush"), ("HTTP_REFERER", foreign)]);
        assert_eq!((answer.status, machine.flushes()), (403, 0));
    }
    // With "no-referrer" that page keeps itself secret. A program is no browser.
    let browser = ("HTTP_USER_AGENT", &b"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101"[..]);
    let silent = machine.ask(&[("QUERY_STRING", b"flush"), browser]);
    assert_eq!((silent.status, machine.flushes()), (403, 0));
    let own = machine.ask(&[("QUERY_STRING", b"flush"), browser, ("HTTP_REFERER", b"http://MX2.example.com/?page=2")]);
    assert_eq!((own.status, machine.flushes()), (303, 1));
}

/// A machine whose flush command is this shell script.
fn with_flusher(script: &str) -> Machine {
    let machine = Machine::with_fixture("postfix/mixed-json");
    fs::write(machine.path("flush"), format!("#!/bin/sh\n{script}\n")).unwrap();
    machine
}

#[test]
fn a_flush_command_that_fails_in_any_way_is_told_and_starts_no_cool_down() {
    for (script, words) in [
        ("kill -9 $$", "was killed by signal 9"),
        ("echo oops; exit 3", "ended with status 3: “oops”"),
        ("echo 'postqueue: warning: Mail system is down' >&2; exit 69", "Postfix is not running"),
        ("head -c 9000000 /dev/zero | tr '\\0' x; exit 1", "ended with status 1"),
    ] {
        let machine = with_flusher(script);
        for _ in 0..2 {
            let refused = machine.get("flush");
            assert_eq!(refused.status, 503, "{script}: {}", refused.body);
            assert!(refused.body.contains(words) && refused.body.len() < 4000, "{script}: {}", refused.body);
        }
        assert!(machine.json().1["flush"]["last"].is_null(), "{script}");
    }
}

#[test]
fn a_flush_command_that_floods_or_closes_its_output_is_run_all_the_same() {
    for script in ["head -c 9000000 /dev/zero", "head -c 9000000 /dev/zero >&2", "exec >&- 2>&-; sleep 20"] {
        let machine = with_flusher(script);
        assert_eq!(machine.get("flush").status, 303, "{script}");
        assert_eq!(machine.json().1["flush"]["last"]["number"], 1, "{script}");
    }
}

#[test]
fn a_browser_that_goes_away_stops_no_flush() {
    let machine = with_flusher("sleep 1; echo run >> $(dirname $0)/flushed");
    let mut program = machine.cgi(&[("QUERY_STRING", b"flush")]).spawn().unwrap();
    drop(program.stdout.take());
    thread::sleep(Duration::from_millis(300));
    kill(Pid::from_raw(program.id() as i32), Signal::SIGKILL).unwrap();
    program.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while machine.flushes() == 0 {
        assert!(Instant::now() < until, "the flush ended with its request");
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(machine.json().1["flush"]["last"]["number"], 1);
}

#[test]
fn a_watcher_that_is_killed_leaves_no_wrong_outcome() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("flush").status, 303);
    machine.kill_all();
    let page = machine.get("flushed=1&format=html").body;
    assert!(page.contains("0 of 21 have left the queue, 21 still wait") && page.contains("so far"), "{page}");
    fs::write(machine.path("list"), "#!/bin/sh\n").unwrap();
    assert!(machine.get("flushed=1&format=html").body.contains("all 21 have left the queue"));
}

#[test]
fn a_damaged_state_database_is_set_aside_and_said() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("flush").status, 303);
    machine.kill_all();
    fs::write(machine.path("state").join("bartleby.db"), [0x42; 9000]).unwrap();
    let page = machine.get("format=html");
    assert!(
        page.body.contains("The log of queue runs was damaged") && page.body.contains("bartleby.db.damaged-"),
        "{}",
        page.body
    );
    assert!(page.log.contains("was set aside as"), "{}", page.log);
    assert_eq!(machine.get("flush").status, 303, "no cool-down is known any more");
    let doctor = machine.command().arg("doctor").output().unwrap();
    assert!(
        String::from_utf8_lossy(&doctor.stdout).contains("WRONG state directory: the log of queue runs was damaged")
    );
}

#[test]
fn a_clock_that_jumps_neither_blocks_a_flush_nor_makes_one_up() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("flush").status, 303);
    machine.kill_all();
    for (started, number) in [("strftime('%s') + 864000", 2), ("0", 3), ("-9000000000", 4)] {
        let log = rusqlite::Connection::open(machine.path("state").join("bartleby.db")).unwrap();
        log.execute(&format!("UPDATE flush SET started = CAST({started} AS INTEGER)"), []).unwrap();
        drop(log);
        let page = machine.get(&format!("flushed={}&format=html", number - 1));
        assert!(page.body.contains("21 still wait"), "{started}: {}", page.body);
        let again = machine.get("flush");
        assert_eq!(again.field("location"), Some(&*format!("?flushed={number}")), "{started}: {}", again.body);
        machine.kill_all();
    }
}

#[test]
fn watch_needs_to_know_the_primary_and_runs_nothing_without() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let watch = |machine: &Machine| {
        let output = machine.command().args(["watch", "--once"]).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, text) = watch(&machine);
    assert!(code == Some(69) && text.contains("[primary] hosts"), "{code:?} {text}");
    let primary = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    machine.configure("postfix", &format!("[primary]\nhosts = [\"{}\"]", primary.local_addr().unwrap()));
    drop(primary);
    let (code, text) = watch(&machine);
    assert!(code == Some(0) && text.contains("is down") && text.contains("does not take mail"), "{code:?} {text}");
    fs::write(machine.path("list"), "#!/bin/sh\nexit 1\n").unwrap();
    let (code, text) = watch(&machine);
    assert!(code == Some(69) && text.contains("ended with status 1"), "{code:?} {text}");
    assert_eq!(machine.flushes(), 0);
}

#[test]
fn post_flushes_too() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(post(&machine, "6", b"flush=", &[("HTTP_ORIGIN", b"http://mx2.example.com")]).status, 303);
    assert_eq!(machine.flushes(), 1);
}

#[test]
fn head_foreign_pages_and_prefetching_run_nothing() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let flush: (&str, &[u8]) = ("QUERY_STRING", b"flush");
    let head = machine.ask(&[flush, ("REQUEST_METHOD", b"HEAD")]);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for guard in [
        ("HTTP_SEC_FETCH_SITE", &b"cross-site"[..]),
        ("HTTP_SEC_FETCH_SITE", b"same-site"),
        ("HTTP_SEC_PURPOSE", b"prefetch"),
        ("HTTP_SEC_PURPOSE", b"prefetch;prerender"),
        ("HTTP_PURPOSE", b"prefetch"),
        ("HTTP_ORIGIN", b"http://evil.example"),
        ("HTTP_ORIGIN", b"null"),
    ] {
        let answer = machine.ask(&[flush, guard]);
        assert_eq!(answer.status, 403, "{guard:?}");
        answer.assert_safe_headers();
    }
    assert_eq!(machine.flushes(), 0);
    assert_eq!(machine.ask(&[flush, ("HTTP_SEC_FETCH_SITE", b"same-origin")]).status, 303);
    assert_eq!(machine.flushes(), 1);
}

#[test]
fn of_twenty_clicks_at_once_one_runs_the_queue() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let children: Vec<Child> = (0..20).map(|_| machine.cgi(&[("QUERY_STRING", b"flush")]).spawn().unwrap()).collect();
    let mut statuses: Vec<u16> =
        children.into_iter().map(|child| Answer::of(child.wait_with_output().unwrap()).status).collect();
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (303, &[429; 19][..]));
    assert_eq!(machine.flushes(), 1);
}

#[test]
fn a_flush_command_that_blocks_does_not_block_the_page_and_holds_the_turn() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "[flush]\ncooldown = \"0s\"");
    let (go, done) = (machine.path("go"), machine.path("done"));
    let script = format!(
        "#!/bin/sh\necho run >> {}\nwhile [ ! -e {} ]; do sleep 0.05; done\necho > {}\n",
        machine.path("flushed").display(),
        go.display(),
        done.display()
    );
    fs::write(machine.path("flush"), script).unwrap();
    let started = Instant::now();
    assert_eq!(machine.get("flush").status, 303);
    assert!(started.elapsed() < Duration::from_secs(15));
    assert_eq!(machine.get("flush").status, 429, "it is under way");
    assert!(machine.get("format=html").body.contains("The queue is being run now."));
    assert_eq!(machine.json().1["flush"]["under_way"], true);
    fs::write(go, "").unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while machine.json().1["flush"]["under_way"] == true {
        assert!(Instant::now() < until, "the turn is never given back");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(done.exists(), "it was left to end by itself");
    assert_eq!(machine.get("flush").status, 303);
    assert_eq!(machine.flushes(), 2);
}

#[test]
fn a_flush_that_the_mail_server_refuses_is_told_so() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    fs::write(
        machine.path("flush"),
        "#!/bin/sh\necho 'postqueue: fatal: User www-data(33) is not allowed to flush the mail queue' >&2\nexit 69\n",
    )
    .unwrap();
    let answer = machine.ask(&[("QUERY_STRING", b"flush"), ("HTTP_ACCEPT", b"text/html")]);
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("authorized_flush_users"), "{}", answer.body);
    fs::write(machine.path("flush"), "#!/bin/sh\nexit 3\n").unwrap();
    let answer = machine.get("flush");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("ended with status 3"), "{}", answer.body);
    assert_eq!(machine.json().1["flush"]["last"], Value::Null, "what did not run is not on record");
}

#[test]
fn without_a_state_directory_it_lists_and_flushes_all_the_same_and_says_so() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    fs::write(machine.path("state"), "a file in the way").unwrap();
    assert_eq!(machine.get("flush").status, 303);
    assert_eq!(machine.get("flush").status, 303);
    assert_eq!(machine.flushes(), 2);
    let page = machine.get("format=html").body;
    assert!(
        page.contains("The cool-down between queue runs and their log are off") && page.contains("is not a folder"),
        "{page}"
    );
}

#[test]
fn only_what_waits_can_be_run_and_a_configured_command_runs_the_whole() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for query in ["flush=id:NOSUCH", "flush=domain:nowhere.example", "flush=id:-f", "flush=domain:example.co"] {
        let answer = machine.get(query);
        assert_eq!(answer.status, 404, "{query}");
        assert!(answer.body.contains("Nothing in the queue is "), "{}", answer.body);
    }
    let answer = machine.get("flush=id:951BB98C3CD");
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("Only the whole queue"), "{}", answer.body);
    assert_eq!(machine.flushes(), 0);
    assert!(!machine.get("format=html").body.contains("flush=id"), "not offered, either");
}

#[test]
fn what_the_mail_server_cut_is_marked_and_counted() {
    let page = Machine::with_fixture("sendmail/mixed-bp-verbose").get("format=html").body;
    assert!(page.contains("The mail server cut 3 addresses or reasons short"), "{page}");
    assert!(page.contains("@example.c…</bdi>"), "{page}");
}

#[test]
fn where_the_mail_server_does_not_tell_reasons_the_page_says_so() {
    // The configured command may list another machine's queue: nothing else is asked.
    let page = Machine::with_fixture("exim/mixed-bp").get("format=html").body;
    assert!(page.contains("1xVSDK-0002Gk-2p") && page.contains("larry@example.com</bdi> (delivered)"), "{page}");
    assert!(
        page.contains("This mail server's listing does not tell why messages wait.") && !page.contains("-Mvl"),
        "{page}"
    );
    let filtered = Machine::with_fixture("exim/mixed-bp").get("format=html&reason=greylisted").body;
    assert!(filtered.contains("so the filter could not look at them"), "{filtered}");
}

#[test]
fn all_four_mail_servers_make_a_page() {
    for (fixture, messages, held) in [
        ("postfix/mixed-json", 21, 1),
        ("sendmail/mixed-bp-verbose", 12, 0),
        ("exim/mixed-bp", 14, 2),
        ("opensmtpd/mixed-show-queue", 11, 0),
    ] {
        let machine = Machine::with_fixture(fixture);
        let (status, json) = machine.json();
        assert_eq!((status, &json["queue"]["messages"]), (200, &messages.into()), "{fixture}");
        assert_eq!(json["queue"]["states"]["held"], held, "{fixture}");
        let page = machine.get("format=html&per_page=5&page=2").body;
        assert!(page.contains(&format!("Messages 6-10 of {messages}")), "{fixture}: {page}");
    }
}

#[test]
fn a_rule_is_never_for_what_the_configuration_names() {
    for words in
        [&["/bin/sh", "-c", "echo 'exim: permission denied'; exit 1"][..], &["sudo", "-n", "-u", "nobody", "x"]]
    {
        let machine = Machine::with_fixture("exim/as-www-data-bp");
        let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        let text = format!("[mta]\nkind = \"exim\"\nlist_command = [{}]\n", quoted.join(", "));
        fs::write(machine.path("bartleby.toml"), text).unwrap();
        let answer = machine.get("format=text").body;
        assert!(!answer.contains("NOPASSWD: /bin/sh") && !answer.contains("NOPASSWD: sudo"), "{answer}");
    }
    let answer = Machine::with_fixture("exim/as-www-data-bp").get("format=text").body;
    assert!(answer.contains("NOPASSWD: /usr/sbin/exim4 -bp, /usr/sbin/exim4 -qf"), "{answer}");
    assert!(answer.contains("Then take the command out of [mta] in the configuration"), "{answer}");
}

#[test]
fn filters_order_and_search_are_plain_links_and_one_form() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let page = machine.get("format=html&domain=example.com&q=larry&sort=-size&per_page=5").body;
    for part in [
        // Each filter can be taken away alone; the others stay.
        "href=\"?domain=example.com&amp;sort=-size&amp;per_page=5\"",
        "href=\"?q=larry&amp;sort=-size&amp;per_page=5\"",
        "text <bdi>“larry”</bdi> ×",
        "domain <bdi>“example.com”</bdi> ×",
        // The order in force is marked; a second click turns it round.
        "aria-sort=\"descending\"><a href=\"?q=larry&amp;domain=example.com&amp;sort=size&amp;per_page=5\">Size ↓</a>",
        "<input type=\"search\" name=\"q\" value=\"larry\">",
        "<input type=\"hidden\" name=\"domain\" value=\"example.com\">",
        "<option value=\"held\">held</option>",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    assert!(machine.get("format=html&state=held").body.contains("<option value=\"held\" selected>"));
    // What a reason has in common leads to all of its kind.
    let page = machine.get("format=html").body;
    assert!(page.contains("connect to …: Connection refused</bdi></a>: 18 recipients"), "{page}");
    let reason = machine.get("format=html&reason=Connection+refused").body;
    assert!(reason.contains("match: ") && reason.contains("reason <bdi>“Connection refused”</bdi>"), "{reason}");
    // A bar of the age profile leads to just those.
    let bar = page.split("<svg class=\"bar\"").nth(1).unwrap();
    assert!(bar.contains("aria-label=\"23 recipients for "), "the age profile has its words: {bar}");
    let link = bar.split("<a href=\"").nth(1).unwrap().split('"').next().unwrap().replace("&amp;", "&");
    assert!(link.starts_with("?domain=example.com&age="), "{link}");
    let behind = machine.get(&format!("format=html&{}", &link[1..])).body;
    assert!(behind.contains("16 messages match: ") && behind.contains("minutes <bdi>“"), "{behind}");
    assert!(machine.get("format=html&age=0-5").body.contains("0 messages match"));
    assert_eq!(machine.get("age=5").status, 400);
}

#[test]
fn one_word_tells_how_it_is_in_the_title_too() {
    for (script, word) in
        [("true", "Empty"), ("cat tests/fixtures/postfix/mixed-json.stdout", "Waiting"), ("echo soup", "Unknown")]
    {
        let script = script.replace("tests", concat!(env!("CARGO_MANIFEST_DIR"), "/tests"));
        let page = Machine::with_lister("postfix", &script).get("format=html").body;
        assert!(page.contains(&format!("<title>{word}")), "{page}");
        assert!(page.contains(&format!("<p class=\"word\">{word}</p>")), "{page}");
    }
}

#[test]
fn how_it_went_is_drawn_from_earlier_looks() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert!(!machine.get("format=html").body.contains("How it went"), "of one look there is no line");
    let log = rusqlite::Connection::open(machine.path("state").join("bartleby.db")).unwrap();
    log.execute("UPDATE sample SET taken = taken - 7200, messages = 7, free = 9000000000000000", []).unwrap();
    let page = machine.get("format=html").body;
    assert!(page.contains("The last day: 7 then, 21 messages now, 21 at the most, 597 KiB at the most"), "{page}");
    assert!(page.contains("<polygon points=\""), "{page}");
}

#[test]
fn a_hundred_rows_fit_into_sixty_kilobytes() {
    let line = r#"{"queue_name": "deferred", "queue_id": "4X7Qkk0B5bz%05d", "arrival_time": 1795433446, "message_size": 30212, "forced_expire": false, "sender": "someone.with.a.name%d@department.example.org", "recipients": [{"address": "somebody.else@example.com", "delay_reason": "connect to tuccster.example.com[192.0.2.25]:25: Connection timed out"}]}"#;
    let script =
        format!("awk 'BEGIN {{ for (n = 0; n < 300; n++) printf \"{}\\n\", n, n }}'", line.replace('"', "\\\""));
    let machine = Machine::with_lister("postfix", &script);
    let page = machine.get("format=html").body;
    assert!(page.contains("Messages 1-100 of 300"));
    // With links that run each message, which a configured command has not.
    let links = 100 * "<a href=\"?flush=id%3A4X7Qkk0B5bz00000\">run</a> ".len();
    assert!(page.len() + links <= 60_000, "{} + {links} bytes", page.len());
    assert!(!page.contains(" src=") && !page.contains("<script") && !page.contains("@import"), "one request");
}

#[test]
fn addresses_can_be_masked() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "[privacy]\nmask = \"local-part\"");
    for query in ["format=html", "format=json", "format=text", "format=csv"] {
        let body = machine.get(query).body;
        assert!(body.contains("…@example.com") && body.contains("Connection refused"), "{body}");
        for name in ["larry", "carol@", "full@", "slow@"] {
            assert!(!body.contains(name), "{name} in {body}");
        }
    }
    machine.configure("postfix", "[privacy]\nmask = \"everything\"");
    assert!(machine.get("format=text").body.contains("[privacy] mask: unknown variant"));
}

// What machines read.

#[test]
fn csv_has_a_line_a_recipient_and_says_when_it_is_not_all() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let answer = machine.get("format=csv");
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/csv; charset=utf-8; header=present")));
    let mut lines = csv::Reader::from_reader(answer.body.as_bytes());
    let columns = ["id", "state", "mta_state", "size", "arrival", "sender", "recipient", "delivered", "reason"];
    assert_eq!(lines.headers().unwrap(), &csv::StringRecord::from(columns.to_vec()));
    let rows: Vec<_> = lines.records().map(Result::unwrap).collect();
    assert_eq!(rows.len(), 28);
    assert!(rows.iter().all(|row| !row.iter().any(|field| field.starts_with(['=', '+', '-', '@']))));
    let held = csv::Reader::from_reader(machine.get("format=csv&state=held").body.as_bytes()).records().count();
    assert_eq!(held, 1);
    let denied = Machine::with_fixture("postfix/denied-list").get("format=csv");
    assert_eq!(denied.status, 503);
    assert!(denied.body.lines().nth(1).unwrap().starts_with(",INCOMPLETE,denied,"), "{}", denied.body);
}

#[test]
fn metrics_have_all_states_and_a_failed_listing_has_none() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let answer = machine.get("format=openmetrics");
    assert_eq!(answer.status, 200);
    assert!(answer.field("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    for line in [
        "bartleby_up 1",
        "bartleby_queue_messages{state=\"incoming\"} 0",
        "bartleby_queue_messages{state=\"active\"} 0",
        "bartleby_queue_messages{state=\"deferred\"} 20",
        "bartleby_queue_messages{state=\"held\"} 1",
        "bartleby_queue_recipients{state=\"deferred\"} 27",
        "bartleby_destination_recipients{destination=\"example.com\"} 23",
        "# TYPE bartleby_queue_oldest_age_seconds gauge",
    ] {
        assert!(answer.body.lines().any(|told| told == line), "no {line} in {}", answer.body);
    }
    assert!(answer.body.ends_with("\n# EOF\n"));
    let empty = Machine::with_fixture("postfix/empty-json").get("format=openmetrics").body;
    assert!(empty.contains("bartleby_up 1\n") && empty.contains("bartleby_queue_messages{state=\"deferred\"} 0\n"));
    let denied = Machine::with_fixture("postfix/denied-list").get("format=openmetrics");
    assert_eq!(denied.status, 200, "or it would not be taken for an answer at all");
    assert!(denied.body.contains("bartleby_up 0\n") && !denied.body.contains("bartleby_queue"), "{}", denied.body);
    let output = machine.command().arg("metrics").output().unwrap();
    assert_eq!(
        (output.status.code(), String::from_utf8_lossy(&output.stdout).contains("bartleby_up 1")),
        (Some(0), true)
    );
    // As Prometheus asks.
    let accept = b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1";
    assert!(machine.ask(&[("HTTP_ACCEPT", accept)]).body.contains("bartleby_up 1"));
}

#[test]
fn a_check_never_takes_a_failure_for_an_empty_queue() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "[disk]\nwarn = \"0%\"\ncritical = \"0%\"");
    let check = |machine: &Machine, arguments: &[&str]| {
        let output = machine.command().arg("check").args(arguments).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    for (arguments, code, word) in [
        (&[][..], 0, "OK"),
        (&["-w", "20"], 1, "WARNING"),
        (&["-w", "10", "-c", "20"], 2, "CRITICAL"),
        (&["-w", "21", "-c", "30"], 0, "OK"),
        (&["--age-warning", "1m"], 1, "WARNING"),
        (&["--age-critical", "1m", "--age-warning", "30s"], 2, "CRITICAL"),
        (&["-w", "soup"], 3, "UNKNOWN"),
        (&["--frobnicate"], 3, "UNKNOWN"),
    ] {
        let (found, line) = check(&machine, arguments);
        assert_eq!(found, code, "{arguments:?}: {line}");
        assert!(line.starts_with(&format!("BARTLEBY {word} - ")) && line.lines().count() == 1, "{line}");
    }
    let (_, line) = check(&machine, &["-w", "20", "-c", "100"]);
    assert!(line.contains(" | messages=21;20;100;0 recipients=28;;;0 age="), "{line}");
    for fixture in ["postfix/denied-list", "postfix/down-list-www-data"] {
        let (code, line) = check(&Machine::with_fixture(fixture), &[]);
        assert!(code == 3 && line.starts_with("BARTLEBY UNKNOWN - Postfix "), "{line}");
    }
    machine.configure("postfix", "[disk]\nwarn = \"100%\"\ncritical = \"0%\"");
    assert_eq!(check(&machine, &[]).0, 1, "the disk counts, too");
    fs::write(machine.path("bartleby.toml"), "[soup]").unwrap();
    assert_eq!(check(&machine, &[]).0, 3);
}

// The command line.

/// What a command prints to a terminal of 60 columns.
fn on_a_terminal(machine: &Machine, words: &str, variables: &str) -> String {
    let command = format!("stty cols 60 rows 24; {variables} {} {words}", env!("CARGO_BIN_EXE_bartleby"));
    let mut script = Command::new("script");
    script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::null());
    script.env("BARTLEBY_CONFIG", machine.path("bartleby.toml")).env("SHELL", "/bin/sh").env_remove("NO_COLOR");
    String::from_utf8(script.output().unwrap().stdout).unwrap().replace('\r', "")
}

#[test]
fn on_a_terminal_the_list_is_a_table_with_colours_that_fits() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let coloured = on_a_terminal(&machine, "list", "");
    assert!(coloured.contains("\x1b[1;33m951BB98C3CD") && coloured.contains("\x1b[0m"), "{coloured}");
    assert!(coloured.contains("    full@example.com  host 127.0.0.2[127.0.0.2] said: 452"), "{coloured}");
    let plain = on_a_terminal(&machine, "list", "NO_COLOR=1");
    assert!(!plain.contains('\x1b') && plain.contains("21 messages, 28 recipients"), "{plain}");
    let table = plain.split("21 messages wait").next().unwrap();
    assert!(table.lines().all(|line| line.chars().count() <= 60), "{table}");
    let piped = machine.command().arg("list").output().unwrap();
    let piped = String::from_utf8(piped.stdout).unwrap();
    assert!(!piped.contains('\x1b') && piped.lines().any(|line| line.chars().count() > 100), "whole in a pipe");
}

/// The program as it is started from a terminal. What runs in the background ignores some signals, which is inherited.
fn interruptible(machine: &Machine, arguments: &[&str]) -> Command {
    let mut command = behind(&["env", "--default-signal"], &machine.command());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_list_is_printed_again_until_it_is_interrupted() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let mut program = interruptible(&machine, &["list", "--watch"]).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(program.stdout.take().unwrap()));
    for _ in 0..2 {
        assert!(lines.any(|line| line.unwrap().starts_with("21 messages, 28 recipients")));
    }
    kill(Pid::from_raw(program.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(program.wait().unwrap().signal(), Some(Signal::SIGINT as i32));
}

#[test]
fn doctor_names_what_is_wrong_and_the_fix() {
    let run = |machine: &Machine| {
        let output = machine.command().arg("doctor").output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let machine = Machine::with_fixture("postfix/denied-list");
    let (code, text) = run(&machine);
    assert_eq!(code, Some(1));
    assert!(
        text.contains("WRONG may list: Postfix does not let the user") && text.contains("authorized_mailq_users"),
        "{text}"
    );
    assert!(text.contains("ok    may flush: the whole queue, with the configured flush_command"), "{text}");
    let machine = Machine::with_fixture("postfix/mixed-json");
    let (_, text) = run(&machine);
    assert!(text.contains("ok    may list: 21 messages in 0.0"), "{text}");
    fs::remove_dir_all(machine.path("state")).unwrap();
    fs::write(machine.path("state"), "").unwrap();
    assert!(run(&machine).1.contains("WRONG state directory: no folder is usable"));
}

#[test]
fn the_command_line_lists_and_says_what_it_does_not_know() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let run = |arguments: &[&str]| {
        let output = machine.command().args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, text, _) = run(&["list"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("93BAB98C209") && text.contains("21 messages, 28 recipients"), "{text}");
    let (code, json, _) = run(&["list", "--format", "json"]);
    assert_eq!(code, Some(0));
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["queue"]["messages"], 21);
    assert_eq!(run(&["--version"]).1, concat!("bartleby ", env!("CARGO_PKG_VERSION"), "\n"));
    assert!(run(&["--help"]).1.contains("Usage: bartleby list"));
    for wrong in [&["frobnicate"][..], &[], &["list", "--format", "pdf"], &["list", "x"], &["--bogus"], &["flush", "x"]]
    {
        let (code, _, error) = run(wrong);
        assert_eq!(code, Some(64), "{wrong:?}");
        assert!(error.contains("see bartleby --help"), "{error}");
    }
    assert_eq!(run(&["flush"]), (Some(0), "Queue run 1 was started.\n".into(), String::new()));
    assert_eq!(machine.flushes(), 1);
}

// The process.

#[test]
fn a_signal_that_ends_the_program_ends_the_lister_too() {
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        let machine = Machine::with_lister("postfix", "exec sleep 987");
        let listers = || {
            let is_ours = |process: &fs::DirEntry| {
                fs::read(process.path().join("cmdline")).is_ok_and(|words| words == b"sleep\0987\0")
                    && fs::read_link(process.path().join("cwd")).is_ok_and(|folder| folder == Path::new("/"))
            };
            fs::read_dir("/proc").unwrap().flatten().filter(is_ours).count()
        };
        let before = listers();
        let mut program = interruptible(&machine, &["list"]).spawn().unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while listers() <= before {
            assert!(Instant::now() < until, "the lister was not started");
            thread::sleep(Duration::from_millis(20));
        }
        kill(Pid::from_raw(program.id() as i32), signal).unwrap();
        assert_eq!(program.wait().unwrap().signal(), Some(signal as i32));
        while listers() > before {
            assert!(Instant::now() < until, "the lister is still there");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn what_can_not_be_written_is_no_success() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for arguments in [&["list"][..], &["list", "--format", "json"], &["--help"], &["doctor"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = machine.command().args(arguments).stdout(full).output().unwrap();
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"), "{arguments:?}: {output:?}");
    }
}

#[test]
fn a_mail_server_that_is_configured_but_not_installed_is_missing() {
    let machine = Machine::with_lister("postfix", "");
    fs::write(machine.path("bartleby.toml"), "[mta]\nkind = \"opensmtpd\"\n").unwrap();
    if Path::new("/usr/sbin/smtpctl").exists() {
        return;
    }
    let (status, json) = machine.json();
    assert_eq!((status, &json["queue"]["status"]), (503, &"missing".into()));
    assert!(
        json["queue"]["error"]["message"].as_str().unwrap().starts_with("OpenSMTPD, which the configuration names")
    );
}

#[test]
fn the_memory_does_not_grow_with_the_page() {
    let line = r#"{"queue_name": "deferred", "queue_id": "%d", "arrival_time": %d, "message_size": 1, "forced_expire": false, "sender": "alice@example.org", "recipients": [{"address": "larry@example.com", "delay_reason": "connect to 192.0.2.1[192.0.2.1]:25: Connection timed out"}]}"#;
    let script = format!(
        "awk 'BEGIN {{ for (n = 0; n < 60000; n++) printf \"{}\\n\", n, 1000000000 + n }}'",
        line.replace('"', "\\\"")
    );
    let machine = Machine::with_lister("postfix", &script);
    // In front of the last page stand some 25 MiB of messages.
    for (query, first) in [
        ("page=600&format=json", "59900"),
        ("page=600&sort=age&format=json", "99"),
        ("page=600&sort=-sender&format=json", "59900"),
    ] {
        let output = behind(&["prlimit", "--data=12582912"], &machine.cgi(&[("QUERY_STRING", query.as_bytes())]))
            .output()
            .unwrap();
        let answer = Answer::of(output);
        let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, &json["selection"]["pages"]), (200, &600.into()), "{}", json["queue"]["error"]);
        assert_eq!((json["messages"].as_array().unwrap().len(), &json["messages"][0]["id"]), (100, &first.into()));
    }
}

/// Postfix's table has a reason once; told for each of its recipients, as here, it would take 50 MiB.
#[test]
fn one_reason_for_very_many_recipients_takes_no_memory() {
    let script = "echo '-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------'
        echo '95C7C98C654   300356 Mon Nov 23 11:18:08  big@example.org'
        awk 'BEGIN { printf \"(\"; for (n = 0; n < 1000; n++) printf \"full \"; print \")\"
            for (n = 0; n < 10000; n++) printf \"%41s%d@example.com\\n\", \"\", n
            printf \"\\n-- 293 Kbytes in 1 Request.\\n\" }'";
    let machine = Machine::with_lister("postfix", script);
    let answer = |format: &str| {
        let query = format!("format={format}");
        let command = machine.cgi(&[("QUERY_STRING", query.as_bytes())]);
        Answer::of(behind(&["prlimit", "--data=16777216"], &command).output().unwrap())
    };
    for format in ["html", "text", "csv", "openmetrics", "json"] {
        let answer = answer(format);
        assert_eq!(answer.status, 200, "{format}: {}", &answer.body[..answer.body.len().min(500)]);
        if format == "json" {
            let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(json["messages"][0]["recipients"][9_999]["address"], "9999@example.com");
        }
    }
    let answer = answer("json&page=1");
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains(r#"they take more than 16 MiB.","remedy":"Ask for fewer a page"#), "{}", answer.body);
}

/// The same command, started by another program with the words in front.
fn behind(words: &[&str], command: &Command) -> Command {
    let mut behind = Command::new(words[0]);
    behind.args(&words[1..]).arg(command.get_program()).env_clear();
    behind.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    behind
}
