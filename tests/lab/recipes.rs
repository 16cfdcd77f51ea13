//! The recipes of docs/recipes.md for Apache and nginx, with their lines as they stand there.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::http::{self, ALLOWED, FORBIDDEN, Response};
use crate::machine::{BROUGHT, Lab};
use crate::mta::run;
use crate::page::BASE;
use crate::postfix::{Postfix, PostfixWith};
use crate::{apache, wait};

const SNIPPET: &str = "/etc/apache2/conf-available/bartleby.conf";

/// Whom Apache lets in, in the lab's copy of the snippet.
const ALLOWING: &str = "Require ip 127.0.0.1 127.0.1.0/24";

/// What belongs to no snippet.
const MORE: &str = "/etc/apache2/conf-enabled/more.conf";

/// Postfix and Apache, with what stands before it.
pub static POSTFIX_WITH_RECIPES: PostfixWith = PostfixWith {
    layer: "recipes",
    packages: &["postfix", "nginx-light", "openssl"],
    brings: &["docs/recipes.md"],
    start: || crate::mta::Mta::start(&Postfix),
    ..PostfixWith::NOTHING
};

/// The indented blocks below this heading.
fn blocks(heading: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("{BROUGHT}/recipes.md")).unwrap();
    let section = text.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let blocks = section.split("\n\n").filter(|block| block.trim_start_matches('\n').starts_with("    "));
    blocks
        .map(|block| block.lines().map(|line| line.trim_start_matches("    ")).collect::<Vec<_>>().join("\n"))
        .collect()
}

/// Apache takes its configuration, and is started anew.
fn restart() {
    let test = Command::new("apache2ctl").arg("-t").output().unwrap();
    assert!(test.status.success(), "{}", String::from_utf8_lossy(&test.stderr));
    run("apache2ctl", &["stop"]);
    wait::until("Apache has ended", 60, || {
        let runs = std::path::Path::new("/run/apache2/apache2.pid").exists();
        if runs { Err("it still runs".to_owned()) } else { Ok(()) }
    });
    run("apache2ctl", &["start"]);
}

#[track_caller]
fn status(from: std::net::Ipv4Addr, target: &str, headers: &[(&str, &str)], expected: u16) -> Response {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n");
    let answer = || http::exchange(from, request.as_bytes()).map_err(|error| error.to_string());
    wait::until("a web server answers", 60, answer).expect(expected)
}

/// Each of them, one after the other.
pub fn as_written(_lab: &mut Lab) {
    let shipped = fs::read_to_string(SNIPPET).unwrap();
    in_place_of_a_script();
    with_a_log_in(&shipped);
    with_tls();
    behind_a_proxy();
}

fn in_place_of_a_script() {
    run("a2enconf", &["--quiet", "serve-cgi-bin"]);
    fs::write(MORE, &blocks("In place of an old Perl script")[0]).unwrap();
    restart();
    let place = status(ALLOWED, "/cgi-bin/queue.pl?flush", &[], 301);
    assert_eq!(place.header("Location"), Some("http://localhost/bartleby/?flush"));
    fs::remove_file(MORE).unwrap();
}

fn with_a_log_in(shipped: &str) {
    let [command, lines] = &blocks("A log-in")[..] else { panic!("two blocks") };
    // With the password that it would ask for.
    let command = command.replace("htpasswd -c", "htpasswd -b -c") + " secret";
    run("sh", &["-c", &command]);
    let with = shipped.replace(ALLOWING, lines);
    assert_ne!(with, shipped);
    fs::write(SNIPPET, with).unwrap();
    restart();
    status(ALLOWED, BASE, &[], 401);
    // larry:secret
    status(FORBIDDEN, BASE, &[("Authorization", "Basic bGFycnk6c2VjcmV0")], 200);
    status(FORBIDDEN, BASE, &[("Authorization", "Basic bGFycnk6Z3Vlc3M=")], 401);
    fs::write(SNIPPET, shipped).unwrap();
}

/// With a certificate in the place where Debian's ssl-cert puts one.
fn with_tls() {
    let commands = &blocks("TLS")[0];
    let (commands, restarts) = commands.rsplit_once('\n').unwrap();
    assert_eq!(restarts, "systemctl restart apache2");
    let certificate = "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -days 2 \
                       -keyout /etc/ssl/private/ssl-cert-snakeoil.key -out /etc/ssl/certs/ssl-cert-snakeoil.pem";
    run("sh", &["-ec", &format!("mkdir -p /etc/ssl/private && {certificate} && {commands}")]);
    restart();
    status(ALLOWED, BASE, &[], 200);
    // A name that a stranger could have passes by TLS, and only so.
    let stranger = format!("GET {BASE} HTTP/1.0\r\nHost: queue.stranger.example\r\n\r\n");
    assert_eq!(http::raw(ALLOWED, stranger.as_bytes()).unwrap().status, 403);
    assert!(by_tls(&stranger).starts_with("HTTP/1.1 200 "), "{}", by_tls(&stranger));
    fs::write(MORE, "<Location \"/bartleby/\">\nSSLRequireSSL\n</Location>\n").unwrap();
    restart();
    status(ALLOWED, BASE, &[], 403);
    assert!(by_tls(&stranger).starts_with("HTTP/1.1 200 "), "{}", by_tls(&stranger));
    fs::remove_file(MORE).unwrap();
}

fn by_tls(request: &str) -> String {
    let mut client = Command::new("openssl");
    client.args(["s_client", "-quiet", "-connect", "127.0.0.1:443", "-bind", "127.0.0.1:0"]);
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    client.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
    String::from_utf8_lossy(&client.wait_with_output().unwrap().stdout).into_owned()
}

#[expect(clippy::zombie_processes, reason = "it ends with the lab's namespaces")]
fn behind_a_proxy() {
    let [enable, trust, access, location] = &blocks("Behind a reverse proxy")[..] else { panic!("four blocks") };
    fs::write("/etc/apache2/ports.conf", "Listen 127.0.0.1:8080\n").unwrap();
    run("a2dissite", &["--quiet", "default-ssl"]);
    restart();
    let site = format!("server {{\nlisten 127.0.0.1:80;\n{location}\n}}\n");
    fs::write("/etc/nginx/sites-available/default", site).unwrap();
    run("nginx", &["-t"]);
    Command::new("nginx").args(["-g", "daemon off;"]).spawn().unwrap();
    // Before anything was done, every visitor looks local.
    status(FORBIDDEN, BASE, &[], 403);
    fs::write("/etc/bartleby.toml", access).unwrap();
    status(FORBIDDEN, BASE, &[], 200);
    fs::remove_file("/etc/bartleby.toml").unwrap();

    run("sh", &["-c", enable]);
    fs::write(MORE, trust).unwrap();
    restart();
    status(ALLOWED, BASE, &[], 200);
    status(FORBIDDEN, BASE, &[], 403);
    assert!(!apache::error_log().contains("panicked"));
}
