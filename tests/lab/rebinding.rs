//! DNS rebinding in a real browser: a stranger's page makes its own name lead to this machine, and the browser, whose
//! address is let in, takes both for one site. Over plain http to a name, so that the browser sends no Fetch Metadata.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::apache::SNIPPET;
use crate::browser::Browser;
use crate::client::{self, Queued};
use crate::http::ALLOWED;
use crate::machine::Lab;
use crate::mails::Mail;
use crate::mta::run;
use crate::{page, wait};

const NAME: &str = "rebound.evil.example";

/// Both servers have this port, as a site is known by its name and port.
const PORT: u16 = 8081;

/// Where the stranger's own server is.
const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

const HOSTS: &str = "/etc/hosts";

/// The name leads elsewhere: a browser asks again where the file has changed.
fn lead_to(address: Ipv4Addr, others: &str) {
    fs::write(HOSTS, format!("{others}{address} {NAME}\n")).unwrap();
}

/// The stranger's page, served until the name leads elsewhere.
fn serve_stranger(over: &Arc<AtomicBool>) {
    let over = Arc::clone(over);
    let listener = TcpListener::bind(SocketAddrV4::new(STRANGER, PORT)).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            if over.load(Ordering::SeqCst) {
                break;
            }
            let Ok(mut stream) = stream else { continue };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while reader.read_line(&mut String::new()).is_ok_and(|length| length > 2) {}
            let page = "<!DOCTYPE html><title>Stranger</title><p>Photos of kittens</p>";
            let length = page.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
            );
        }
    });
}

/// Tries all that a page can do with its own site, and returns what it has read.
fn attack(browser: &Browser) -> String {
    let mut read = String::new();
    for (method, query) in [
        ("GET", ""),
        ("GET", "?format=json"),
        ("GET", "?format=csv"),
        ("GET", "?flush"),
        ("POST", "?flush=all"),
        ("POST", ""),
    ] {
        let form = if method == "POST" {
            "body: 'flush=all', headers: {'Content-Type': 'application/x-www-form-urlencoded'},"
        } else {
            ""
        };
        let found = browser.run_async(&format!(
            "const done = arguments[arguments.length - 1];
             fetch('/bartleby/{query}', {{method: '{method}', {form} redirect: 'manual'}}).then(
                 answer => answer.text().then(text => done(answer.status + ' ' + text)), error => done('failed: ' + error));"
        ));
        read += &format!("{method} {query}: {}\n", found.as_str().unwrap());
    }
    // A window of the same site is an open book, and its buttons can be pressed.
    let found = browser.run_async(
        "const done = arguments[arguments.length - 1];
         const other = window.open('/bartleby/');
         setTimeout(() => {
             const text = other ? other.document.documentElement.outerHTML : 'no window';
             const button = other && other.document.querySelector('button[name=flush], a[href*=flush]');
             if (button) button.click();
             setTimeout(() => done(text + ' ' + Boolean(button)), 1500);
         }, 2500);",
    );
    read += &format!("window: {}\n", found.as_str().unwrap());
    browser.run("location = '/bartleby/?flush'");
    thread::sleep(std::time::Duration::from_secs(2));
    read += &format!("location: {}\n", browser.run("return document.documentElement.outerHTML").as_str().unwrap());
    read
}

/// With Apache's rule, and by the program alone, such a page reads nothing and runs nothing; the right name still works.
pub fn of_a_name(lab: &mut Lab) {
    fs::write("/etc/bartleby.toml", "[flush]\ncooldown = \"1s\"\n").unwrap();
    let queued = client::send(lab.mta, |_| vec![Mail::new("one", "alice@example.org", &["larry@example.com"])]);
    let others = fs::read_to_string(HOSTS).unwrap();
    let snippet = fs::read_to_string(format!("/etc/apache2/conf-available/{SNIPPET}")).unwrap();
    // The stranger's port, on the address that is this machine's.
    let with_port = |rules: &str| format!("Listen {ALLOWED}:{PORT}\n{rules}");
    let any_name = snippet.replacen("Require expr \"%{HTTPS} == 'on'\"", "Require all granted", 1);
    assert_ne!(any_name, snippet, "the snippet no longer has a rule for names");
    for (rules, status) in [(&snippet, "403"), (&any_name, "421")] {
        let conf = Path::new("/etc/apache2/conf-available").join(SNIPPET);
        fs::write(&conf, with_port(rules)).unwrap();
        run("apache2ctl", &["restart"]);
        wait::until("Apache answers", 20, || page::try_json(200).map(drop));
        rebound(&queued, &others, status);
    }
}

fn rebound(queued: &[Queued], others: &str, status: &str) {
    lead_to(STRANGER, others);
    let over = Arc::new(AtomicBool::new(false));
    serve_stranger(&over);
    let browser = Browser::start();
    browser.open(&format!("http://{NAME}:{PORT}/"));
    assert_eq!(browser.run("return document.title"), "Stranger");
    lead_to(ALLOWED, others);
    over.store(true, Ordering::SeqCst);
    // The one that the listener still waits for.
    drop(std::net::TcpStream::connect(SocketAddrV4::new(STRANGER, PORT)));
    wait::until("the browser asks this machine by the stranger's name", 150, || {
        let server = browser.run_async(
            "const done = arguments[arguments.length - 1];
             fetch('/', {cache: 'no-store'}).then(answer => done(String(answer.headers.get('Server'))), error => done('failed: ' + error));",
        );
        let server = server.as_str().unwrap();
        server.contains("Apache").then_some(()).ok_or(server.to_owned())
    });
    let read = attack(&browser);
    for secret in [queued[0].id.as_str(), "larry", "example.com", "alice"] {
        assert!(!read.contains(secret), "{secret} was read: {read}");
    }
    assert_eq!(read.matches(&format!(": {status} ")).count(), 6, "{read}");
    let flush = page::json(200).flush;
    assert!(flush.last.is_none(), "a stranger's page has run the queue: {flush:?}\n{read}");
    drop(browser);
    fs::write(HOSTS, others).unwrap();
}
