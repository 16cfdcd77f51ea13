//! What a request may look like: the cgi crate panics on some of it, see its `parse_request` and `serialize_response`.

use std::process::Child;

use crate::machine::{Answer, Machine};
use crate::start::post;

type Variables<'a> = &'a [(&'a str, &'a [u8])];

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
fn who_is_turned_away_learns_neither_host_nor_version() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let refusals: [(u16, Variables<'_>); 4] = [
        (403, &[("BARTLEBY_ACCESS", b"")]),
        (403, &[("REMOTE_ADDR", b"127.0.0.1"), ("HTTP_VIA", b"1.1 x")]),
        (405, &[("REQUEST_METHOD", b"PUT")]),
        (421, &[("HTTP_HOST", b"evil.example")]),
    ];
    for (status, variables) in refusals {
        for accept in [&b"text/html"[..], b"application/json", b"*/*"] {
            let answer = machine.ask(&[variables, &[("HTTP_ACCEPT", accept)]].concat());
            assert_eq!(answer.status, status, "{}", answer.body);
            answer.assert_safe_headers();
            let words =
                answer.body.split("<style>").map(|part| part.split("</style>").last().unwrap()).collect::<String>();
            // The example of addresses to allow has the digits of a version.
            let words = words.replace("192.0.2.0/24", "");
            for secret in [env!("CARGO_PKG_VERSION"), &host, "bartleby 0", "Postfix", "/tmp"] {
                assert!(!words.contains(secret), "{secret}: {}", answer.body);
            }
        }
    }
}

#[test]
fn head_lists_only_where_its_status_depends_on_the_listing() {
    let machine = Machine::with_lister("postfix", "echo run >> $(dirname $0)/listed; exit 1");
    let listed = || std::fs::read_to_string(machine.path("listed")).unwrap_or_default().lines().count();
    for (query, status, lists) in [
        ("format=html", 200, 0),
        ("format=html&flush", 200, 0),
        ("format=html&page=3&sort=size", 200, 0),
        ("format=openmetrics", 200, 0),
        ("format=html&page=0", 400, 0),
        ("format=text", 503, 1),
        ("format=json", 503, 1),
        ("format=csv", 503, 1),
    ] {
        let before = listed();
        let answer = machine.ask(&[("REQUEST_METHOD", b"HEAD"), ("QUERY_STRING", query.as_bytes())]);
        assert_eq!((answer.status, answer.body.as_str(), listed() - before), (status, "", lists), "{query}");
        answer.assert_safe_headers();
        if status != 400 {
            assert_eq!(answer.status, machine.get(query.trim_end_matches("&flush")).status, "{query}: as GET");
        }
    }
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
    assert_eq!(machine.get(&long).status, 414);
}

#[test]
fn a_reader_that_hangs_up_is_no_error_and_stops_no_flush() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for query in ["", "format=html", "format=json", "format=csv", "format=openmetrics", "page=x", "flush"] {
        let mut child: Child = machine.cgi(&[("QUERY_STRING", query.as_bytes())]).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(!log.contains("panicked"), "{query}: {log}");
        assert_eq!(output.status.code(), Some(0), "{query}: {log}");
    }
    assert_eq!(machine.flushes(), 1);
}

#[test]
fn arguments_are_never_looked_at_under_a_web_server() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let output = machine.cgi(&[]).args(["--version", "flush"]).output().unwrap();
    assert!(Answer::of(output).body.contains("951BB98C3CD"));
    assert_eq!(machine.flushes(), 0);
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
