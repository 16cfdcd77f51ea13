//! The installation, as the README has it, on a machine whose Apache runs as Debian set it up; and what `doctor --web` says
//! of an Apache that somebody set up otherwise.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::client;
use crate::http::{self, ALLOWED, Response};
use crate::machine::{HOSTNAME, Lab};
use crate::mails::Mail;
use crate::mta::{Mta, run};
use crate::postfix::{Postfix, PostfixWith};
use crate::{apache, wait};

/// The source, as far as it is installed.
const SOURCE: &str = "/lab";

const SNIPPET: &str = "/etc/apache2/conf-available/bartleby.conf";

/// A folder that Apache serves by itself.
const FOLDER: &str = "/var/www/html/queue";

/// An address of this machine that is not one that every machine has.
const OWN: &str = "192.0.2.5";

/// There is no systemd in a lab: this does what the unit says, and waits as systemd does.
pub const SYSTEMCTL: &str = r#"#!/bin/sh
set -eu
line() { sed -n "s/^Exec$1=//p" "/usr/lib/systemd/system/$unit.service"; }
verb=$1 unit=$2
case $verb in
reload) $(line Reload) ;;
restart)
    $(line Stop)
    while [ -e /run/apache2/apache2.pid ]; do sleep 0.1; done
    $(line Start)
    ;;
*) exit 64 ;;
esac
"#;

/// What of the source is installed, or installs it.
pub const SOURCES: &[&str] = &[
    "Makefile",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "LICENSE",
    "apache",
    "lighttpd",
    "nginx",
    "caddy",
    "busybox",
    "docs",
    "examples",
    "man",
    "completions",
];

/// Postfix, beside an Apache that serves no page yet.
pub static POSTFIX_TO_INSTALL: PostfixWith = PostfixWith {
    layer: "install",
    packages: &["postfix", "sudo", "make"],
    brings: SOURCES,
    start,
    serves: false,
    ..PostfixWith::NOTHING
};

fn start() {
    Postfix.start();
    fs::write("/usr/local/sbin/systemctl", SYSTEMCTL).unwrap();
    fs::set_permissions("/usr/local/sbin/systemctl", Permissions::from_mode(0o755)).unwrap();
    run("ip", &["address", "add", &format!("{OWN}/24"), "dev", "lo"]);
    // As `make` leaves it, which is the first line of the README's.
    fs::create_dir_all(format!("{SOURCE}/target")).unwrap();
    apache::install(&format!("{SOURCE}/target"));
    run("apache2ctl", &["start"]);
    wait::until("Apache answers", 10, || http::get(ALLOWED, "/").map_err(|error| error.to_string()));
}

/// The command lines under "Install" in the README, and the address of the page with this machine's name.
fn readme() -> (Vec<String>, String) {
    let text = fs::read_to_string(format!("{SOURCE}/README.md")).unwrap();
    let section = text.split("\n## Install\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let lines = section.trim_start_matches('\n').lines().map_while(|line| line.strip_prefix("    ")).map(str::to_owned);
    let address = section.split('`').find(|word| word.starts_with("http://this-host")).unwrap();
    (lines.collect(), address.replace("this-host", HOSTNAME))
}

/// Runs a command line where the source is: whether it ended well, and all that it printed.
fn sh(line: &str) -> (bool, String) {
    let output = Command::new("sh").args(["-c", &format!("{line} 2>&1")]).current_dir(SOURCE).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The same, which must end well.
fn must(line: &str) -> String {
    let (well, text) = sh(line);
    assert!(well, "{line}: {text}");
    text
}

/// A page by its address.
fn get(address: &str) -> Response {
    let (host, path) = address.strip_prefix("http://").unwrap().split_once('/').unwrap();
    http::raw(ALLOWED, format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\nAccept: text/html\r\n\r\n").as_bytes()).unwrap()
}

/// What doctor says of the web server, as the web server's user, of a page at this path.
fn doctor(path: &str) -> String {
    let (_, text) = sh(&format!("sudo -u www-data bartleby doctor --web http://localhost{path}"));
    let lines = text.lines().skip_while(|line| !line.contains(" web page: "));
    lines.take_while(|line| !line.contains(" sandbox: ")).collect::<Vec<_>>().join("\n")
}

/// Fails unless doctor finds this fault and names this fix.
fn finds(path: &str, fault: &str, fix: &str) {
    let found = doctor(path);
    assert!(found.starts_with("FAIL  web page: "), "{found}");
    assert!(found.contains(fault) && found.contains(fix), "{fault}, {fix}: {found}");
}

/// Every line of the README, on a running Apache, to the letter; then the page is there.
pub fn as_the_readme_says(lab: &mut Lab) {
    let queued = client::send(lab.mta, |_| vec![Mail::new("one", "alice@example.org", &["larry@example.com"])]);
    let (lines, address) = readme();
    let [build, install, enable, look] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(build, "make");
    get(&address).expect(404);
    let said = must(install);
    let well = must(enable);
    assert!(!well.contains("rror"), "{well}");
    let page = get(&address).expect(200);
    assert!(page.body.contains(&queued[0].id), "{}", page.body);
    // The installer's last words are the same.
    for line in [enable.replace("sudo ", ""), look.clone()] {
        assert!(said.lines().any(|said| said.trim() == line), "{line}: {said}");
    }
    let (_, found) = sh(look);
    for line in [
        "ok    listing the queue: 1 message in ",
        "ok    web page: bartleby ",
        "ok    web, other names: called by the name stranger.example, it shows nothing (403)",
        "ok    web, other addresses: asked from 192.0.2.5, this machine's address in its network, it shows nothing (403)",
        "ok    web, proxies: through a proxy here, 203.0.113.9 is shown nothing (403)",
    ] {
        assert!(found.contains(line), "{line}: {found}");
    }
    // What the page says of a network is what is done.
    let snippet = fs::read_to_string(SNIPPET).unwrap();
    let opened = snippet.replacen("#Require ip 192.0.2.0/24", "Require ip 192.0.2.0/24", 1);
    assert_ne!(opened, snippet);
    fs::write(SNIPPET, opened).unwrap();
    must("systemctl reload apache2");
    wait::until("the network is let in", 10, || {
        let found = doctor("/bartleby/");
        found.contains("192.0.2.5, this machine's address in its network, is let in").then_some(()).ok_or(found)
    });
    fs::write(SNIPPET, snippet).unwrap();
    must("sudo make uninstall && sudo systemctl reload apache2");
    wait::until("the page is gone", 10, || match get(&address).status {
        404 => Ok(()),
        status => Err(status.to_string()),
    });
}

/// Each way to set Apache up wrongly is found out, with its fix; and the program is offered to nobody.
pub fn set_up_wrongly(_lab: &mut Lab) {
    must("sudo make install");
    finds("/bartleby/", "there is nothing at http://localhost/bartleby/", "a2enconf bartleby");
    // A mere reload.
    must("a2enmod cgid && a2enconf bartleby && systemctl reload apache2");
    wait::until("the page is a 503", 10, || match get("http://localhost/bartleby/").status {
        503 => Ok(()),
        status => Err(status.to_string()),
    });
    finds("/bartleby/", "answers 503: Apache's CGI daemon does not run", "\n            systemctl restart apache2\n");
    must("systemctl restart apache2");
    assert!(doctor("/bartleby/").starts_with("ok    web page: "), "{}", doctor("/bartleby/"));
    assert!(doctor("/bartleby").starts_with("ok    web page: "), "{}", doctor("/bartleby"));
    with_htaccess();
    without_a_cgi_module();
    trusting_a_proxy();
    must("apache2ctl stop");
    wait::until("Apache has ended", 10, || match doctor("/bartleby/") {
        found if found.contains("nobody listens at 127.0.0.1:80") => Ok(()),
        found => Err(found),
    });
    finds("/bartleby/", "nobody listens at 127.0.0.1:80", "systemctl start apache2");
}

/// Where the server's configuration is out of reach.
fn with_htaccess() {
    fs::create_dir_all(format!("{FOLDER}/below")).unwrap();
    apache::install(FOLDER);
    fs::copy(format!("{SOURCE}/apache/htaccess"), format!("{FOLDER}/.htaccess")).unwrap();
    // As it is in Debian's /var/www.
    finds("/queue/", "offers the program for download, in place of running it", "needs AllowOverride");
    let overrides =
        format!("<Directory {FOLDER}>\n AllowOverride AuthConfig FileInfo Indexes Options=ExecCGI\n</Directory>\n");
    fs::write("/etc/apache2/conf-available/queue.conf", overrides).unwrap();
    must("a2enconf --quiet queue && systemctl restart apache2");
    for path in ["/queue/", "/queue", "/queue/index.cgi"] {
        assert!(doctor(path).starts_with("ok    web page: "), "{path}: {}", doctor(path));
    }
    let place = get("http://localhost/queue").expect(301);
    assert_eq!(place.header("Location"), Some("http://localhost/queue/"));
    // A folder's name leads there for those who are let in, and nothing else is served.
    get("http://evil.example/queue").expect(403);
    fs::write(format!("{FOLDER}/below/secret.txt"), "the secret of the folder").unwrap();
    for path in ["below/", "below/secret.txt", ".htaccess", "no-such-file"] {
        get(&format!("http://localhost/queue/{path}")).expect(403);
    }
}

fn without_a_cgi_module() {
    must("a2dismod --quiet --force cgid && systemctl restart apache2");
    for page in ["bartleby/", "bartleby/index.cgi", "queue/", "queue/index.cgi", "queue"] {
        let refused = get(&format!("http://localhost/{page}")).expect(403);
        assert!(refused.body.contains("Apache has no CGI module") && !refused.body.contains("ELF"), "{refused:?}");
        finds(&format!("/{page}"), "Apache has no CGI module, so it can't run the program", "a2enmod cgid");
    }
    must("a2enmod --quiet cgid && systemctl restart apache2");
}

/// A proxy on this machine that is trusted to name the client, with and without a rule for clients.
fn trusting_a_proxy() {
    let trust = "RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 127.0.0.1\n";
    fs::write("/etc/apache2/conf-available/proxy.conf", trust).unwrap();
    must("a2enmod --quiet remoteip && a2enconf --quiet proxy && systemctl restart apache2");
    let found = doctor("/bartleby/");
    assert!(found.contains("ok    web, proxies: through a proxy here, 203.0.113.9 is shown nothing (403)"), "{found}");
    let snippet = fs::read_to_string(SNIPPET).unwrap();
    fs::write(SNIPPET, snippet.replacen("Require local", "Require all granted", 1)).unwrap();
    must("systemctl restart apache2");
    let found = doctor("/bartleby/");
    assert!(found.contains("FAIL  web, proxies: through a proxy here, 203.0.113.9 is shown the queue"), "{found}");
    assert!(found.contains("192.0.2.5, this machine's address in its network, is let in"), "{found}");
    assert!(found.contains("ok    web, other names: "), "{found}");
    fs::write(SNIPPET, snippet).unwrap();
}
