//! What a page of another origin can set off in a real browser: nothing.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;

use crate::browser::Browser;
use crate::client;
use crate::http::{self, ALLOWED};
use crate::machine::{HOSTNAME, Lab};
use crate::mails::Mail;
use crate::page;
use crate::postfix::PostfixWith;
use crate::{story, wait};

const ELSEWHERE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 9), 8080);

const ACCESS_LOG: &str = "/var/log/apache2/access.log";

/// Postfix beside a browser.
pub static POSTFIX_WITH_BROWSER: PostfixWith = PostfixWith {
    layer: "browser",
    packages: &["postfix", "chromium", "chromium-driver", "w3m", "lynx"],
    brings: &["target/axe/node_modules/axe-core/axe.min.js"],
    ..PostfixWith::NOTHING
};

/// The ways in which a page can make a browser ask for FLUSH, and whether it does so without a click.
const TRICKS: [(&str, &str); 9] = [
    ("image", "<img src='FLUSH'>"),
    ("script", "<script src='FLUSH'></script>"),
    ("style", "<link rel='stylesheet' href='FLUSH'>"),
    ("frame", "<iframe src='FLUSH'></iframe>"),
    ("fetch", "<script>fetch('FLUSH', {mode: 'no-cors', credentials: 'include'})</script>"),
    (
        "post",
        "<form method='post' action='FLUSH'><input name='flush'></form><script>document.forms[0].submit()</script>",
    ),
    ("form", "<form action='FLUSH'><input name='flush'></form><script>document.forms[0].submit()</script>"),
    ("redirect", "<meta http-equiv='refresh' content='0; url=FLUSH'>"),
    ("location", "<script>location = 'FLUSH'</script>"),
];

/// What a browser may do in advance or not at all.
const AHEAD: &str = "<link rel='prefetch' href='FLUSH'><link rel='prerender' href='FLUSH'>\
    <script type='speculationrules'>{\"prefetch\": [{\"urls\": [\"FLUSH\"]}], \"prerender\": [{\"urls\": [\"FLUSH\"]}]}</script>";

const SILENT: &str = "<meta name='referrer' content='no-referrer'>";

/// Serves the page that is named by `/TRICK/silent|open/BASE`.
fn serve_elsewhere() {
    let listener = TcpListener::bind(ELSEWHERE).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A connection that the browser opens ahead of time may say nothing.
            thread::spawn(move || stream.and_then(answer));
        }
    });
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut request = String::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    reader.read_line(&mut request)?;
    while reader.read_line(&mut String::new())? > 2 {}
    let path = request.split(' ').nth(1).unwrap_or_default();
    let mut words = path.splitn(4, '/').skip(1);
    let (trick, silent, base) = (words.next(), words.next(), words.next().unwrap_or_default());
    let head = if silent == Some("silent") { SILENT } else { "" };
    let found = TRICKS.iter().find(|(name, _)| Some(*name) == trick).map(|(_, markup)| *markup);
    let markup = match trick {
        Some("link") => "<a href='FLUSH'>Photos of kittens</a>",
        Some("ahead") => AHEAD,
        _ => found.unwrap_or_default(),
    };
    let markup = markup.replace("FLUSH", &format!("http://{base}/bartleby/?flush"));
    let page = format!("<!DOCTYPE html><title>Elsewhere</title>{head}<p>Elsewhere</p>{markup}");
    let length = page.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
    )
}

/// How often the program was asked to run the queue.
fn asked() -> usize {
    let log = fs::read_to_string(ACCESS_LOG).unwrap_or_default();
    log.lines().filter(|line| line.contains("/bartleby/?flush")).count()
}

fn flushes() -> Option<serde_json::Value> {
    page::json(200).flush.last
}

/// A page elsewhere that links, embeds, prefetches and posts makes nothing run; a click on the page's own button
/// does. Both with a host name, to which browsers say little over plain http, and with a loopback address.
pub fn in_a_browser(lab: &mut Lab) {
    fs::write("/etc/bartleby.toml", "[flush]\ncooldown = \"1s\"\n").unwrap();
    client::send(lab.mta, |_| vec![Mail::new("one", "alice@example.org", &["larry@example.com"])]);
    serve_elsewhere();
    let browser = Browser::start();
    for base in [HOSTNAME, "127.0.0.1"] {
        for silent in ["open", "silent"] {
            let elsewhere = |trick: &str| format!("http://{ELSEWHERE}/{trick}/{silent}/{base}");
            for (trick, _) in TRICKS {
                let before = asked();
                browser.open(&elsewhere(trick));
                wait::until("the browser was tricked", 20, || {
                    (asked() > before).then_some(()).ok_or(format!("{trick}, {silent}, {base}: nothing was asked"))
                });
                assert_eq!(flushes(), None, "{trick}, {silent}, {base}");
            }
            browser.open(&elsewhere("ahead"));
            let before = asked();
            browser.open(&elsewhere("link"));
            browser.click("a");
            wait::until("the link was followed", 20, || {
                (asked() > before).then_some(()).ok_or(format!("{silent}, {base}"))
            });
            assert!(browser.address().contains("?flush"), "{}", browser.address());
            assert_eq!(flushes(), None, "a link, {silent}, {base}");
        }
    }
    for (base, number) in [(HOSTNAME, 1), ("127.0.0.1", 2)] {
        story::cooled_down();
        browser.open(&format!("http://{base}/bartleby/"));
        browser.click("button.action");
        let address = wait::until("the button leads to the outcome", 20, || {
            let address = browser.address();
            if address.contains("?flushed=") { Ok(address) } else { Err(address) }
        });
        assert!(address.ends_with(&format!("?flushed={number}")), "{address}");
        assert_eq!(flushes().unwrap()["number"], number);
    }
}

/// Of twenty people who click at once one runs the queue; the others, and the command line, have to wait.
pub fn one_at_a_time(lab: &mut Lab) {
    client::send(lab.mta, |_| vec![Mail::new("one", "alice@example.org", &["larry@example.com"])]);
    wait::until("the mail is deferred", 20, || {
        let listing = page::try_json(200)?;
        (listing.queue.states["deferred"] == 1).then_some(()).ok_or(format!("{listing:?}"))
    });
    let clicks: Vec<_> = (0..20).map(|_| thread::spawn(|| page::get("?flush").status)).collect();
    let statuses: Vec<u16> = clicks.into_iter().map(|click| click.join().unwrap()).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 303).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| [303, 429].contains(status)), "{statuses:?}");
    assert_eq!(flushes().unwrap()["number"], 1);
    let (code, text) = crate::apache::command_line(&["flush"]);
    assert!(code == Some(75) && text.contains("a moment ago") || text.contains("already"), "{code:?} {text}");
    // Nor does asking for the head alone, at any time.
    story::cooled_down();
    http::request(ALLOWED, "HEAD", &page::target("?flush"), &[]).unwrap();
    assert_eq!(flushes().unwrap()["number"], 1);
    // The link has to wait for the command line, too.
    assert_eq!(crate::apache::command_line(&["flush"]).0, Some(0));
    page::get("?flush").expect(429);
}
