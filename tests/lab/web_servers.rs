//! Web servers other than Apache, each with its snippet as it is shipped, over a real Postfix queue: what comes through, what
//! is refused, and that nobody waits for anybody else.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::http::{self, ALLOWED, FORBIDDEN, Response};
use crate::machine::{BROUGHT, Lab};
use crate::mails::Mail;
use crate::mta::{Mta, run};
use crate::postfix::{Postfix, PostfixWith};
use crate::{apache, client, faults, wait};

/// Postfix, and no Apache.
pub static POSTFIX_WITH_WEB_SERVERS: PostfixWith = PostfixWith {
    layer: "web-servers",
    packages: &["postfix", "lighttpd", "nginx-light", "fcgiwrap", "caddy", "busybox"],
    brings: &["lighttpd", "nginx", "caddy", "busybox"],
    start,
    serves: false,
    ..PostfixWith::NOTHING
};

/// How many messages are too many for any buffer on the way.
const MANY: usize = 20_000;

/// How many readers come at once.
const READERS: u8 = 20;

/// As `fcgiwrap` is set up by what the snippets say.
const SOCKET: &str = "/run/fcgiwrap.socket";

fn start() {
    Postfix.start();
    fs::create_dir_all(apache::FOLDER).unwrap();
    apache::install(apache::FOLDER);
    faults::make_state_folder();
}

/// Starts a program that goes on until the lab ends.
#[expect(clippy::zombie_processes, reason = "it ends with the lab's namespaces")]
fn daemon(words: &[&str]) {
    Command::new(words[0]).args(&words[1..]).spawn().unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

/// As systemd's socket makes it: only its user and its group may write to it.
fn fcgiwrap() {
    let words = ["fcgiwrap", "-c", "4", "-s"];
    let rights = ["setpriv", "--reuid=www-data", "--regid=www-data", "--clear-groups"];
    let folder = Path::new(SOCKET).parent().unwrap();
    fs::create_dir_all(folder).unwrap();
    run("chmod", &["1777", &folder.to_string_lossy()]);
    daemon(&[&rights[..], &words, &[&format!("unix:{SOCKET}")]].concat());
    wait::until("fcgiwrap listens", 10, || Path::new(SOCKET).exists().then_some(()).ok_or("no socket".to_owned()));
    run("chmod", &["660", SOCKET]);
}

/// Puts a shipped file where it belongs.
fn install(shipped: &str, to: &str) {
    fs::copy(Path::new(BROUGHT).join(shipped), to).unwrap();
}

/// lighttpd.
pub fn lighttpd(lab: &mut Lab) {
    install("lighttpd/bartleby.conf", "/etc/lighttpd/conf-available/90-bartleby.conf");
    run("lighty-enable-mod", &["bartleby"]);
    fs::create_dir_all("/run/lighttpd").unwrap();
    run("chown", &["www-data:", "/run/lighttpd", "/var/log/lighttpd"]);
    daemon(&["lighttpd", "-D", "-f", "/etc/lighttpd/lighttpd.conf"]);
    serves(lab, "/bartleby/");
    hides_the_rest_of_the_folder("/bartleby/");
}

/// nginx, with fcgiwrap.
pub fn nginx(lab: &mut Lab) {
    install("nginx/bartleby.conf", "/etc/nginx/snippets/bartleby.conf");
    let site = "server {\n listen 127.0.0.1:80;\n root /var/www/html;\n include snippets/bartleby.conf;\n}\n";
    fs::write("/etc/nginx/sites-available/default", site).unwrap();
    fcgiwrap();
    daemon(&["nginx", "-g", "daemon off;"]);
    serves(lab, "/bartleby/");
    hides_the_rest_of_the_folder("/bartleby/");
}

/// Caddy, with fcgiwrap.
pub fn caddy(lab: &mut Lab) {
    install("caddy/bartleby.caddyfile", "/etc/caddy/bartleby.caddyfile");
    fs::write("/etc/caddy/Caddyfile", ":80 {\n\tbind 127.0.0.1\n\timport bartleby.caddyfile\n}\n").unwrap();
    run("usermod", &["-aG", "www-data", "caddy"]);
    fcgiwrap();
    let rights = ["setpriv", "--reuid=caddy", "--regid=caddy", "--init-groups", "--ambient-caps=+net_bind_service"];
    let rights = [&rights[..], &["--inh-caps=+net_bind_service", "env", "HOME=/var/lib/caddy"]].concat();
    daemon(&[&rights[..], &["caddy", "run", "--config", "/etc/caddy/Caddyfile"]].concat());
    serves(lab, "/bartleby/");
    hides_the_rest_of_the_folder("/bartleby/");
}

/// busybox's httpd, which serves a folder of its own.
pub fn busybox(lab: &mut Lab) {
    // Its first comment says how, line by line.
    fs::create_dir_all("target").unwrap();
    apache::install("target");
    let snippet = fs::read_to_string(format!("{BROUGHT}/busybox/httpd.conf")).unwrap();
    let lines: Vec<_> = snippet.lines().filter_map(|line| line.strip_prefix("#   ")).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let script = format!("ln -s {BROUGHT}/busybox busybox\nset -e\n{}", lines.join("\n"));
    run("sh", &["-c", &script]);
    serves(lab, "/");
}

/// Apache's shipped snippet.
fn snippet() -> String {
    fs::read_to_string(Path::new(BROUGHT).join(apache::SNIPPET)).unwrap()
}

/// Apache with threads, as Debian sets it up.
pub fn apache_with_cgid(lab: &mut Lab) {
    apache::start(&snippet());
    serves(lab, "/bartleby/");
    hides_the_rest_of_the_folder("/bartleby/");
}

/// Apache with processes.
pub fn apache_with_prefork(lab: &mut Lab) {
    apache::start_with(&snippet(), &["mpm_prefork", "cgi"]);
    serves(lab, "/bartleby/");
    hides_the_rest_of_the_folder("/bartleby/");
}

/// Apache with fcgiwrap, by the lines that its snippet has for that.
pub fn apache_with_fcgiwrap(lab: &mut Lab) {
    fcgiwrap();
    let (before, rest) = snippet().split_once("    # Without a CGI module").map(owned).unwrap();
    let (_, after) = rest.split_once("\n    </IfModule>\n").map(owned).unwrap();
    let with = (before + &after).replace("        SetHandler cgi-script\n", "").replace("#SetHandler", "SetHandler");
    let with = with.replace("#ProxyFCGIBackendType", "ProxyFCGIBackendType");
    apache::start_with(&with, &["mpm_event", "proxy_fcgi"]);
    serves(lab, "/bartleby/");
    hides_the_rest_of_the_folder("/bartleby/");
}

fn owned((before, after): (&str, &str)) -> (String, String) {
    (before.to_owned(), after.to_owned())
}

/// Apache behind nginx, which is trusted to name the client.
pub fn apache_behind_nginx(lab: &mut Lab) {
    fs::write("/etc/apache2/ports.conf", "Listen 127.0.0.1:8080\n").unwrap();
    let trust = "RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 127.0.0.1\n";
    fs::write("/etc/apache2/conf-enabled/proxy.conf", trust).unwrap();
    let forward = "proxy_pass http://127.0.0.1:8080;\n proxy_set_header Host $http_host;\n \
                   proxy_set_header X-Forwarded-For $remote_addr;\n";
    let site = format!("server {{\n listen 127.0.0.1:80;\n location / {{\n {forward} }}\n}}\n");
    fs::write("/etc/nginx/sites-available/default", site).unwrap();
    daemon(&["nginx", "-g", "daemon off;"]);
    apache::start_with(&snippet(), &["mpm_event", "cgid", "remoteip"]);
    serves(lab, "/bartleby/");
    hides_the_rest_of_the_folder("/bartleby/");
}

/// An answer, whatever it is.
fn ask(from: Ipv4Addr, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("{method} {target} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n");
    http::exchange(from, head.as_bytes()).unwrap()
}

/// What is expected of every web server with the program at `base`.
fn serves(lab: &mut Lab, base: &str) {
    const PAGE: [(&str, &str); 1] = [("Accept", "text/html")];
    wait::until("the web server answers", 10, http::answers);
    let queued = client::send(lab.mta, |_| vec![Mail::new("one", "alice@example.org", &["larry@example.com"])]);
    let id = &queued[0].id;

    let page = ask(ALLOWED, "GET", base, &PAGE).expect(200);
    assert!(page.body.contains(id) && page.body.trim_end().ends_with("</html>"), "{}", page.body);
    let policy = page.header("Content-Security-Policy").unwrap();
    assert!(policy.contains("default-src 'none'") && page.header("X-Frame-Options") == Some("DENY"), "{policy}");
    assert_eq!(page.header("Cache-Control"), Some("no-store"));
    let text = ask(ALLOWED, "GET", base, &[("User-Agent", "curl/8.0"), ("Accept", "*/*")]).expect(200);
    assert!(text.header("Content-Type").unwrap().starts_with("text/plain") && text.body.contains(id), "{text:?}");
    let head = ask(ALLOWED, "HEAD", base, &PAGE).expect(200);
    assert_eq!((head.body.as_str(), head.header("Content-Type")), ("", page.header("Content-Type")));

    // Who may not, and by which name nobody may.
    let stranger = ask(FORBIDDEN, "GET", base, &PAGE).expect(403);
    assert!(!stranger.body.contains(id), "{stranger:?}");
    let foreign = format!("GET {base} HTTP/1.0\r\nHost: evil.example\r\nAccept: text/html\r\n\r\n");
    let foreign = http::exchange(ALLOWED, foreign.as_bytes()).unwrap();
    // Apache's snippet refuses it before the program does.
    assert!([421, 403].contains(&foreign.status) && !foreign.body.contains(id), "{foreign:?}");

    // nginx before Apache names the client itself; what is said here of another proxy goes on to the program.
    for header in ["Forwarded", "X-Real-IP", "Via"] {
        let proxied = ask(ALLOWED, "GET", base, &[("Accept", "text/html"), (header, "203.0.113.9")]).expect(403);
        assert!(!proxied.body.contains(id), "{header}: {proxied:?}");
    }

    every_status(base);

    many_at_once(base);
    slow_and_gone(base);

    // The form, then the link.
    let form = "Host: localhost\r\nOrigin: http://localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    let form = format!("POST {base} HTTP/1.0\r\n{form}Content-Length: 9\r\n\r\nflush=all");
    let runs = http::exchange(ALLOWED, form.as_bytes()).unwrap().expect(303);
    let place = runs.header("Location").unwrap().to_owned();
    let (_, query) = place.split_once('?').unwrap();
    assert!(query.starts_with("flushed="), "{place}");
    ask(ALLOWED, "GET", &format!("{base}?{query}"), &PAGE).expect(200);
    let link = ask(ALLOWED, "GET", &format!("{base}?flush"), &[("User-Agent", "curl/8.0")]).expect(429);
    assert!(link.header("Retry-After").unwrap().parse::<u32>().unwrap() > 0, "{link:?}");
}

fn every_status(base: &str) {
    let wrong = ask(ALLOWED, "GET", &format!("{base}?sort=colour"), &[]).expect(400);
    assert!(wrong.body.contains("colour"), "{wrong:?}");
    ask(ALLOWED, "GET", &format!("{base}?flush=id:NOSUCH"), &[("User-Agent", "curl/8.0")]).expect(404);
    let refused = ask(ALLOWED, "GET", &format!("{base}?flush"), &[("Sec-Fetch-Site", "cross-site")]).expect(403);
    assert!(!refused.body.is_empty(), "{refused:?}");
    faults::configure_with(20, "");
    faults::lister("echo 'postqueue: fatal: nothing' >&2; exit 69");
    let failed = ask(ALLOWED, "GET", &format!("{base}?format=json"), &[]).expect(503);
    let json: Value = serde_json::from_str(&failed.body).unwrap();
    assert_eq!(json["queue"]["complete"], false, "{json}");
    fs::remove_file("/etc/bartleby.toml").unwrap();
}

fn many_at_once(base: &str) {
    let pages: Vec<_> = (0..READERS)
        .map(|_| {
            let base = base.to_owned();
            thread::spawn(move || ask(ALLOWED, "GET", &base, &[("Accept", "text/html")]))
        })
        .collect();
    for page in pages {
        page.join().unwrap().expect(200);
    }
}

/// A connection that has asked.
fn begin(base: &str, query: &str) -> TcpStream {
    let mut stream = http::connect(ALLOWED, http::SERVER).unwrap();
    write!(stream, "GET {base}{query} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    stream
}

/// A long answer is whole for a slow reader; others are served meanwhile; who leaves leaves nothing.
fn slow_and_gone(base: &str) {
    let long = "/var/tmp/long";
    fs::write(long, faults::listing(MANY)).unwrap();
    faults::configure_with(20, "[disk]\nwarn = \"0%\"\ncritical = \"0%\"\n");
    faults::lister(&format!("cat {long}"));
    let mut slow = begin(base, "?format=json");
    let mut answer = vec![0; 1];
    slow.read_exact(&mut answer).unwrap();
    thread::sleep(Duration::from_secs(1));
    let page = ask(ALLOWED, "GET", base, &[("Accept", "text/html")]).expect(200);
    assert!(page.body.contains("20,000"), "{}", page.body);
    let gone = begin(base, "?format=json");
    gone.shutdown(Shutdown::Both).unwrap();
    drop(gone);
    slow.read_to_end(&mut answer).unwrap();
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let json: Value = serde_json::from_slice(&answer[body..]).unwrap();
    assert_eq!(json["queue"]["complete"], true);
    assert_eq!(json["messages"].as_array().map(Vec::len), Some(MANY));
    faults::nothing_is_left("a reader who left");
    fs::remove_file("/etc/bartleby.toml").unwrap();
}

fn hides_the_rest_of_the_folder(base: &str) {
    fs::write(format!("{}/secret.txt", apache::FOLDER), "the secret of the folder").unwrap();
    for name in ["secret.txt", "no-such-file", "index.cgi/../secret.txt", "%73ecret.txt"] {
        let answer = ask(ALLOWED, "GET", &format!("{base}{name}"), &[]);
        assert!([403, 404].contains(&answer.status) && !answer.body.contains("secret of"), "{name}: {answer:?}");
    }
    let place = ask(ALLOWED, "GET", base.trim_end_matches('/'), &[]);
    assert!([301, 302].contains(&place.status), "{place:?}");
    assert!(place.header("Location").unwrap().ends_with(base), "{place:?}");
}
