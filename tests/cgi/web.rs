//! `doctor --web`: the web server is asked, each played one has its own fault, and what is said of it is right.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use crate::machine::Machine;

/// What a web server was asked.
struct Asked {
    path: String,
    query: String,
    host: String,
    forwarded_for: Option<String>,
    peer: SocketAddr,
}

impl Asked {
    fn read(stream: &TcpStream) -> Asked {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        let target = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
        let (path, query) = target.split_once('?').unwrap();
        let (path, query) = (path.to_owned(), query.to_owned());
        let fields: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let field = |name: &str| fields.iter().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let (host, forwarded_for) = (field("Host: ").unwrap(), field("X-Forwarded-For: "));
        Asked { path, query, host, forwarded_for, peer: stream.peer_addr().unwrap() }
    }
}

/// A web server that answers by this, and its port.
fn server(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let asked = Asked::read(&stream);
            // Who asked may not want it all.
            let _ = stream.write_all(&answer(&asked));
        }
    });
    port
}

/// The program as a web server runs it: by this name, for this client, who is let in or not.
fn run(machine: &Machine, asked: &Asked, host: &str, client: &str, access: &str) -> Vec<u8> {
    let mut variables = vec![
        ("QUERY_STRING", asked.query.as_bytes()),
        ("HTTP_HOST", host.as_bytes()),
        ("HTTP_ACCEPT", b"application/json"),
        ("REMOTE_ADDR", client.as_bytes()),
        ("BARTLEBY_ACCESS", access.as_bytes()),
    ];
    variables.extend(asked.forwarded_for.as_ref().map(|client| ("HTTP_X_FORWARDED_FOR", client.as_bytes())));
    let output = machine.cgi(&variables).output().unwrap();
    let head = b"Status: ";
    let at = output.stdout.windows(head.len()).position(|part| part.eq_ignore_ascii_case(head)).unwrap();
    [b"HTTP/1.1 ", &output.stdout[at + head.len()..at + head.len() + 3], b" -\r\n", &output.stdout].concat()
}

/// What doctor says of a page, and its exit status.
fn doctor(machine: &Machine, url: &str) -> (Option<i32>, String) {
    let output = machine.command().args(["doctor", "--web", url]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

/// Of what doctor says of a page at this port, the lines on the web server.
fn told(machine: &Machine, port: u16) -> String {
    let (_, text) = doctor(machine, &format!("http://localhost:{port}/bartleby/"));
    assert_eq!(machine.flushes(), 0, "nothing is run by asking");
    let lines = text.lines().skip_while(|line| !line.contains(" web page: "));
    lines.take_while(|line| !line.contains(" sandbox: ")).collect::<Vec<_>>().join("\n")
}

fn with_fixture() -> Arc<Machine> {
    Arc::new(Machine::with_fixture("postfix/mixed-json"))
}

#[test]
fn a_page_that_comes_and_turns_strangers_away_is_found_to() {
    let machine = with_fixture();
    let own = Arc::clone(&machine);
    let port = server(move |asked| match &*asked.path {
        // mod_dir, for a folder without its slash.
        "/bartleby" => {
            let place = format!("http://{}/bartleby/?{}", asked.host, asked.query);
            format!("HTTP/1.1 301 Moved Permanently\r\nLocation: {place}\r\n\r\n").into_bytes()
        }
        "/bartleby/" => run(&own, asked, &asked.host, &asked.peer.ip().to_string(), ""),
        other => panic!("{other}"),
    });
    for path in ["/bartleby/", "/bartleby"] {
        let (_, text) = doctor(&machine, &format!("http://127.0.0.1:{port}{path}"));
        let program = concat!("bartleby ", env!("CARGO_PKG_VERSION"));
        for line in [
            &format!("ok    web page: {program} answers at http://127.0.0.1:{port}/bartleby/ in "),
            "ok    web, other names: called by the name stranger.example, it shows nothing (421)",
            "ok    web, other addresses: ",
            "ok    web, proxies: through a proxy here, 203.0.113.9 is shown nothing (403)",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
    // Trusted by the configuration, a proxy decides.
    machine.configure("postfix", "[access]\nproxy = true\n");
    assert!(told(&machine, port).contains("ok    web, proxies: by [access] proxy, a proxy here decides"));
    assert_eq!(machine.flushes(), 0);
}

#[test]
fn a_page_that_says_what_is_wrong_is_quoted() {
    let machine = Arc::new(Machine::with_fixture("postfix/denied-list"));
    let own = Arc::clone(&machine);
    let text = told(&machine, server(move |asked| run(&own, asked, "localhost", "127.0.0.1", "granted")));
    let fault = "/bartleby/ answers, but it can't list the queue: Postfix does not let the user";
    assert!(text.contains("FAIL  web page: ") && text.contains(fault), "{text}");
    assert!(text.contains("authorized_mailq_users") && text.contains("web, other names"), "{text}");
    // The program itself refuses this machine, or cannot read its configuration.
    let machine = with_fixture();
    let own = Arc::clone(&machine);
    let text = told(&machine, server(move |asked| run(&own, asked, "localhost", "192.0.2.7", "")));
    assert!(text.contains("answers 403: This page is for certain addresses only"), "{text}");
    assert!(text.contains("SetEnv BARTLEBY_ACCESS granted") && !text.contains("other names"), "{text}");
}

#[test]
fn a_web_server_that_shows_strangers_the_queue_is_found_out() {
    // The proxy in front always names itself.
    let machine = with_fixture();
    let own = Arc::clone(&machine);
    let text = told(&machine, server(move |asked| run(&own, asked, "localhost", "127.0.0.1", "granted")));
    assert!(text.contains("FAIL  web, other names: called by the name stranger.example, it shows the queue"), "{text}");
    assert!(text.contains("\n            ProxyPreserveHost On\n"), "{text}");
    // A proxy is trusted to name the client, and everybody is let in.
    let machine = with_fixture();
    let own = Arc::clone(&machine);
    let port = server(move |asked| {
        let client = asked.forwarded_for.clone().unwrap_or("127.0.0.1".into());
        let asked = Asked {
            forwarded_for: None,
            query: asked.query.clone(),
            path: String::new(),
            host: String::new(),
            ..*asked
        };
        run(&own, &asked, "localhost", &client, "granted")
    });
    let text = told(&machine, port);
    assert!(text.contains("FAIL  web, proxies: through a proxy here, 203.0.113.9 is shown the queue"), "{text}");
    assert!(text.contains("\n            Require ip 192.0.2.0/24"), "{text}");
}

#[test]
fn a_queue_that_is_too_long_to_be_read_to_its_end_is_one_all_the_same() {
    let machine = with_fixture();
    let port = server(|_| {
        let program = concat!("bartleby ", env!("CARGO_PKG_VERSION"));
        let begin = format!("HTTP/1.1 200 OK\r\n\r\n{{\"version\":1,\"program\":\"{program}\",\"messages\":[");
        [begin.as_bytes(), &b"{},".repeat(1 << 20)].concat()
    });
    let text = told(&machine, port);
    assert!(text.contains("ok    web page: ") && text.contains("FAIL  web, other names"), "{text}");
}

#[test]
fn each_fault_of_a_web_server_is_named_with_its_fix() {
    let machine = with_fixture();
    let program = std::fs::read(env!("CARGO_BIN_EXE_bartleby")).unwrap();
    let file = [b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n", &*program].concat();
    let text = told(&machine, server(move |_| file.clone()));
    assert!(text.contains("offers the program for download, in place of running it"), "{text}");
    assert!(text.contains("\n            a2enmod cgid\n") && text.contains("AllowOverride"), "{text}");
    for (answer, fault, fix) in [
        (
            "503 -\r\n\r\n<html>",
            "answers 503: Apache's CGI daemon does not run",
            "\n            systemctl restart apache2\n",
        ),
        ("403 -\r\n\r\nNot by this name.\x1b[2J", "answers 403: Not by this name.␛[2J", "See the Require lines"),
        ("404 -\r\n\r\n", "there is nothing at http://localhost", "\n            a2enconf bartleby\n"),
        ("500 -\r\n\r\n", "answers 500", "\n            tail /var/log/apache2/error.log\n"),
        (
            "200 -\r\n\r\n<title>Index of /</title>",
            "is something else; it answers 200: <title>Index of",
            "Name the page's",
        ),
        (
            "301 -\r\nLocation: https://localhost/\r\n\r\n",
            "leads to https://localhost/, which is not followed",
            "browser",
        ),
        (
            "200 -\r\n\r\n{\"version\":1,\"program\":\"bartleby 0.0.1\",\"messages\":[],\"queue\":{\"error\":null}}",
            "is of another version: bartleby 0.0.1, and this is",
            "\n            make install",
        ),
    ] {
        let text = told(&machine, server(move |_| format!("HTTP/1.1 {answer}").into_bytes()));
        assert!(text.starts_with("FAIL  web page: ") && text.contains(fault) && text.contains(fix), "{answer}: {text}");
    }
    for (answer, fault) in [("", "hangs up without an answer"), ("220 mail ESMTP\r\n", "this is no web server")] {
        let text = told(&machine, server(|_| answer.into()));
        assert!(text.starts_with("FAIL  web page: 127.0.0.1:") && text.contains(fault), "{answer}: {text}");
    }
    // A log-in is no fault.
    let text = told(&machine, server(|_| b"HTTP/1.1 401 Unauthorized\r\n\r\n".into()));
    assert!(text.starts_with("ok    web page: ") && text.contains("asks for a name and a password"), "{text}");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let text = told(&machine, port);
    assert!(text.contains(&format!("nobody listens at 127.0.0.1:{port}")), "{text}");
    assert!(text.contains("\n            systemctl start apache2\n"), "{text}");
}

#[test]
fn what_can_not_be_asked_is_said_before_anything_else() {
    let machine = with_fixture();
    for (url, words) in [
        ("https://localhost/bartleby/", "https is not supported"),
        ("https://localhost/bartleby/", "curl -i https://localhost/bartleby/"),
        ("localhost/bartleby/", "“localhost/bartleby/” is no address of a page; one is http://localhost/bartleby/"),
        ("ftp://localhost/", "is no address of a page"),
    ] {
        let (code, text) = doctor(&machine, url);
        assert!(code == Some(64) && text.contains(words), "{url}: {code:?} {text}");
    }
}
