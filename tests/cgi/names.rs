//! Whose name the page is called by: a stranger's name that was made to lead here (DNS rebinding) shows nothing.

use std::fs;

use crate::machine::{Answer, Machine};
use crate::start::post;

const STRANGER: (&str, &[u8]) = ("HTTP_HOST", b"rebound.evil.example:80");

/// Nothing of the queue, of this machine or of this program, but the line to add.
fn assert_tells_nothing(answer: &Answer) {
    assert_eq!(answer.status, 421, "{}", answer.body);
    answer.assert_safe_headers();
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    for secret in ["951BB98C3CD", "example.com", "larry", "21 ", env!("CARGO_PKG_VERSION"), &host] {
        assert!(!answer.body.contains(secret), "{secret}: {}", answer.body);
    }
    let line = answer.body.replace("\\\"", "\"").replace("&quot;", "\"").replace("\\n", "\n");
    assert!(line.contains("[access]\n") && line.contains("hosts = [\"rebound.evil.example\"]"), "{line}");
}

#[test]
fn a_rebound_name_reads_nothing_in_any_form_and_runs_nothing_by_any_method() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let own: &[(&str, &[u8])] = &[
        ("HTTP_ORIGIN", b"http://rebound.evil.example"),
        ("HTTP_REFERER", b"http://rebound.evil.example/"),
        ("HTTP_SEC_FETCH_SITE", b"same-origin"),
        ("HTTP_ACCEPT", b"text/html"),
    ];
    for access in [&b"granted"[..], b""] {
        let who: &[(&str, &[u8])] = &[STRANGER, ("BARTLEBY_ACCESS", access), ("REMOTE_ADDR", b"127.0.0.1")];
        for format in ["html", "text", "json", "csv", "openmetrics", "pdf"] {
            for asked in ["", "&flush", "&flush=soup", "&page=9", "&flushed=1"] {
                let query = format!("format={format}{asked}");
                let what: &[(&str, &[u8])] = &[("QUERY_STRING", query.as_bytes())];
                assert_tells_nothing(&machine.ask(&[who, own, what].concat()));
                let head = machine.ask(&[who, own, what, &[("REQUEST_METHOD", b"HEAD")]].concat());
                assert_eq!((head.status, head.body.as_str()), (421, ""));
            }
        }
        assert_tells_nothing(&post(&machine, "5", b"flush", &[who, own].concat()));
    }
    assert_eq!(machine.flushes(), 0);
}

#[test]
fn a_rebound_name_does_not_learn_what_is_wrong_with_the_configuration() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "colour = \"red\"");
    let answer = machine.ask(&[STRANGER]);
    assert_tells_nothing(&answer);
    assert!(!answer.body.contains("colour") && answer.log.contains("[mta] colour"), "{}{}", answer.body, answer.log);
}

#[test]
fn names_that_no_stranger_can_have_pass_and_those_that_look_alike_do_not() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let configuration = fs::read_to_string(machine.path("bartleby.toml")).unwrap()
        + "[access]\nhosts = [\"Queue.example.org\"]\n[primary]\ndomains = [\"example.net\"]\nhosts = [\"127.0.0.1:1\"]\n";
    fs::write(machine.path("bartleby.toml"), configuration).unwrap();
    let own = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let status = |host: &str| machine.ask(&[("HTTP_HOST", host.as_bytes()), ("QUERY_STRING", b"format=text")]).status;
    for host in [
        "",
        "192.0.2.1",
        "[::1]:8025",
        "localhost",
        "bartleby:80",
        "mx2.internal",
        "queue.example.org",
        "QUEUE.example.org:80",
        "queue.example.org.",
        "mx.example.net",
        &own,
    ] {
        assert_eq!(status(host), 200, "{host}");
    }
    let lookalike = format!("{own}.evil.example");
    for host in [
        "www.queue.example.org",
        "example.org",
        "xexample.net",
        "mx.example.net.evil.example",
        "192.0.2.1.evil.example",
        "evil.example:192.0.2.1",
        "evil.example, localhost",
        "localhost@evil.example",
        "\u{e9}.local",
        &lookalike,
    ] {
        assert_eq!(status(host), 421, "{host}");
    }
    assert_eq!(machine.ask(&[STRANGER, ("HTTPS", b"on")]).status, 200, "a stranger has no certificate");
    assert_eq!(machine.ask(&[STRANGER, ("HTTPS", b"off")]).status, 421);
    assert_eq!(machine.ask(&[STRANGER, ("HTTP_HTTPS", b"on"), ("HTTP_X_FORWARDED_PROTO", b"https")]).status, 421);
}

#[test]
fn where_the_page_comes_from_is_compared_with_the_name_and_its_port() {
    let flush = |more: &[(&str, &[u8])]| {
        let machine = Machine::with_fixture("postfix/mixed-json");
        let answer = machine.ask(&[&[("QUERY_STRING", &b"flush"[..])], more].concat());
        assert_eq!(answer.status == 303, machine.flushes() == 1, "{more:?}");
        answer.status
    };
    // Some servers leave the port out of Host.
    let at_8080: &[(&str, &[u8])] = &[("HTTP_HOST", b"mx2.test"), ("SERVER_PORT", b"8080")];
    assert_eq!(flush(&[at_8080, &[("HTTP_ORIGIN", b"http://mx2.test:8080")]].concat()), 303);
    assert_eq!(flush(&[at_8080, &[("HTTP_REFERER", b"http://mx2.test:8080/?page=2")]].concat()), 303);
    assert_eq!(flush(&[at_8080, &[("HTTP_ORIGIN", b"http://mx2.test:8081")]].concat()), 403);
    let with_port: &[(&str, &[u8])] = &[("HTTP_HOST", b"mx2.test:8080"), ("SERVER_PORT", b"80")];
    assert_eq!(flush(&[with_port, &[("HTTP_ORIGIN", b"http://mx2.test")]].concat()), 403);
    assert_eq!(flush(&[with_port, &[("HTTP_ORIGIN", b"http://mx2.test:8080")]].concat()), 303);
}
