//! Requests that no browser sends, through the real Apache: each was seen to make a CGI program fail.

use std::fs;

use crate::http::{self, ALLOWED, FORBIDDEN};
use crate::machine::{Lab, PROGRAM};
use crate::mails::Mail;
use crate::page;
use crate::{apache, client, wait};

/// What follows the request line of a request that is otherwise in order.
const REST: &str = "\r\nHost: localhost\r\nAccept: text/html\r\nConnection: close\r\n\r\n";

/// Enough mail that a page does not fit into a pipe.
const MANY: usize = 1000;

/// Sends each to the program, which answers all of them or is not even asked, and lives on.
pub fn requests(lab: &mut Lab) {
    client::send(lab.mta, |_| vec![Mail::new("filler", "alice@example.org", &["larry@example.com"]); MANY]);
    for (status, start) in passed_on() {
        let answer = http::raw(ALLOWED, &[start.as_slice(), REST.as_bytes()].concat()).unwrap();
        let shown = String::from_utf8_lossy(&start[..start.len().min(120)]).into_owned();
        assert_eq!(answer.status, status, "{shown:?}: {answer:?}");
        assert!(answer.header("Content-Security-Policy").is_some(), "{shown:?}: not from the program: {answer:?}");
        assert!(status != 200 || answer.body.contains("</html>"), "{shown:?}: not the page: {answer:?}");
        lives_on(&shown);
    }
    for request in refused_by_apache() {
        // Without an answer in HTTP's form, Apache took it for HTTP/0.9 or hung up.
        let status = http::raw(ALLOWED, request.as_bytes()).map_or(0, |answer| answer.status);
        assert_ne!(status, 500, "{request:?}");
        lives_on(&request);
    }
    bodies();
    for target in ["?per_page=1000", "?format=json", "?format=text"] {
        for _ in 0..5 {
            http::hang_up(ALLOWED, format!("GET {}{target} HTTP/1.1{REST}", page::BASE).as_bytes()).unwrap();
        }
        lives_on("hanging up");
    }
    for claim in ["X-CGI-Remote-Addr: 127.0.0.1", "X-Forwarded-For: 127.0.0.1", "X-CGI-Remote-User: root"] {
        let request = format!("GET {} HTTP/1.1\r\n{claim}{REST}", page::BASE);
        http::raw(FORBIDDEN, request.as_bytes()).unwrap().expect(403);
    }
    // Through a proxy on this machine everybody is local.
    for field in ["X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9", "X-Real-IP: 203.0.113.9", "Via: 1.1 x"]
    {
        let request = format!("GET {} HTTP/1.1\r\n{field}{REST}", page::BASE);
        let answer = http::raw(ALLOWED, request.as_bytes()).unwrap().expect(403);
        assert!(answer.body.contains("mod_remoteip") && !answer.body.contains("larry"), "{answer:?}");
    }
    wait::until("no program is left running", 30, || match left_running() {
        0 => Ok(()),
        left => Err(format!("{left} still run")),
    });
}

/// Bodies that nobody wants: every answer arrives whole. (Of 13 that were left unread, mod_cgid broke off 9.)
fn bodies() {
    let body = "x".repeat(60_000);
    let length = format!("Content-Length: {}\r\n", body.len());
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let chunked = format!("Transfer-Encoding: chunked\r\n{form}");
    for round in 0..13 {
        for (method, fields, body, status) in [
            ("PUT", &length, &body, 405),
            ("POST", &format!("{length}{form}"), &body, 413),
            ("GET", &length, &body, 200),
            ("POST", &chunked, &"9\r\nflush=all\r\n0\r\n\r\n".to_owned(), 411),
            ("POST", &chunked, &format!("ea60\r\n{body}\r\n0\r\n\r\n"), 411),
        ] {
            let request = format!("{method} {} HTTP/1.1\r\n{fields}", page::target("?format=html"));
            let request = format!("{request}{}{body}", REST.trim_start());
            let answer = http::raw(ALLOWED, request.as_bytes());
            let answer = answer.unwrap_or_else(|error| panic!("round {round}, {method} {fields:?}: {error}"));
            assert_eq!(answer.status, status, "round {round}, {method} {fields:?}: {answer:?}");
            let whole = if status == 200 {
                answer.body.contains("</html>")
            } else {
                answer.body.ends_with('\n') || answer.body.contains("0\r\n\r\n")
            };
            assert!(whole, "round {round}, {method} {fields:?}: cut: {answer:?}");
        }
    }
    assert!(page::json(200).flush.last.is_none());
    lives_on("bodies");
}

fn lives_on(after: &str) {
    let plain = page::get("?format=text");
    assert_eq!(plain.status, 200, "after {after:?}: {plain:?}");
    let log = apache::error_log();
    for trouble in ["panicked", "End of script output before headers", "malformed header", "Bad header"] {
        assert!(!log.contains(trouble), "after {after:?}: {log}");
    }
}

/// How many processes of the program there are.
fn left_running() -> usize {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    processes
        .filter(|process| fs::read_to_string(process.path().join("comm")).is_ok_and(|name| name.trim() == PROGRAM))
        .count()
}

/// Starts of requests that Apache passes on, and how the program answers.
fn passed_on() -> Vec<(u16, Vec<u8>)> {
    let long = "x".repeat(4000);
    let requests: [(u16, &[u8]); 23] = [
        // Paths and queries that are no URI.
        (200, b"GET /bartleby/index.cgi/%ff HTTP/1.1"),
        (200, b"GET /bartleby/index.cgi/<script>{ HTTP/1.1"),
        (200, b"GET /bartleby/?q=<script>{alert(1)} HTTP/1.1"),
        (200, b"GET /bartleby/?q=%ff%fe%00 HTTP/1.1"),
        (200, b"GET /bartleby/?q=\xff\xfe HTTP/1.1"),
        (200, b"GET /bartleby/?q=\"'`|^\\ HTTP/1.1"),
        (400, b"GET /bartleby/?q=%zz&%&&==&page=99999999999999999999 HTTP/1.1"),
        (400, b"GET /bartleby/?page=-1&per_page=0 HTTP/1.1"),
        (200, b"GET http://localhost/bartleby/ HTTP/1.1"),
        // Apache makes arguments of a query without "=".
        (200, b"GET /bartleby/index.cgi?--version+foo HTTP/1.1"),
        (200, b"GET /bartleby/index.cgi?--help HTTP/1.1"),
        (200, b"GET /bartleby/index.cgi?run-flush+/bin/sh HTTP/1.1"),
        // Methods and versions.
        (405, b"BREW /bartleby/ HTTP/1.1"),
        (405, b"get /bartleby/ HTTP/1.1"),
        (405, b"OPTIONS /bartleby/index.cgi HTTP/1.1"),
        (405, b"PROPFIND /bartleby/ HTTP/1.1"),
        (200, b"GET /bartleby/ HTTP/1.2"),
        (200, b"GET /bartleby/ HTTP/3.0"),
        // Header fields.
        (200, b"GET /bartleby/ HTTP/1.1\r\nProxy: http://elsewhere.example/"),
        (200, b"GET /bartleby/ HTTP/1.1\r\nAccept: ;;;,,q=\r\nOrigin: \r\nSec-Fetch-Site: "),
        (200, b"GET /bartleby/ HTTP/1.1\r\nUser-Agent: \x80\xff\xfe"),
        (200, b"GET /bartleby/ HTTP/1.1\r\nAccept: text/html\xff\r\nCookie: \xc3"),
        (200, b"GET /bartleby/?format=html HTTP/1.1\r\nAccept: "),
    ];
    let long = format!("GET /bartleby/?q={long} HTTP/1.1\r\nX-Long: {long}");
    requests.into_iter().map(|(status, start)| (status, start.to_vec())).chain([(200, long.into_bytes())]).collect()
}

/// Requests that Apache answers itself, some of them after it has started the program.
fn refused_by_apache() -> Vec<String> {
    let form = "POST /bartleby/ HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let nines = "9".repeat(14);
    let mut requests: Vec<String> = [
        "GET /bartleby/index.cgi/%00 HTTP/1.1",
        "GET /bartleby/index.cgi/a b HTTP/1.1",
        "GET /bartleby/?q=a b HTTP/1.1",
        "G{T /bartleby/ HTTP/1.1",
        "TRACE /bartleby/ HTTP/1.1",
        "CONNECT localhost:25 HTTP/1.1",
        // By a name that is not ours, for Apache takes it for the Host.
        "GET http://elsewhere.example/bartleby/ HTTP/1.1",
        "GET /bartleby/ HTTP/1.999",
        "GET /bartleby/ INCLUDED",
        "GET /bartleby/",
        "GET /bartleby/ HTTP/1.1\r\nX-Control: a\x01b",
        "POST /bartleby/ HTTP/1.1\r\nContent-Type: \x01\r\nContent-Length: 0",
        &format!("{form}Content-Length: {nines}"),
        &format!("{form}Content-Length: {nines}{nines}"),
        &format!("{form}Content-Length: -1"),
        &format!("{form}Content-Length: 100"),
        &format!("{form}Transfer-Encoding: chunked"),
    ]
    .map(|start| format!("{start}{REST}"))
    .into();
    // A body that breaks off.
    requests.push(format!("{form}Content-Length: 100{REST}q=short"));
    requests.push(format!("{form}Transfer-Encoding: chunked{REST}ffff\r\nq=short"));
    requests
}
