//! The Debian package, on a machine with Postfix and an Apache that runs as Debian set it up: one command, and the page is
//! there; an upgrade keeps what was edited; a purge leaves nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::client;
use crate::http::{self, ALLOWED};
use crate::machine::{BROUGHT, Lab};
use crate::mails::Mail;
use crate::mta::{Mta, run};
use crate::postfix::{Postfix, PostfixWith};
use crate::{faults, install, wait};

/// What `make deb` leaves.
const PACKAGE: &str = "bartleby.deb";

const SNIPPET: &str = "/etc/apache2/conf-available/bartleby.conf";

const STATE: &str = "/var/lib/bartleby";

/// An address of this machine that is not one that every machine has.
const OWN: &str = "192.0.2.5";

/// Postfix, sudo, and an Apache that serves no page yet.
pub static POSTFIX_WITH_PACKAGE: PostfixWith = PostfixWith {
    layer: "package",
    packages: &["postfix", "sudo"],
    brings: &["target/bartleby.deb"],
    start,
    serves: false,
    ..PostfixWith::NOTHING
};

fn start() {
    Postfix.start();
    run("ip", &["address", "add", &format!("{OWN}/24"), "dev", "lo"]);
    // What a package's scripts call, which finds no systemd here.
    faults::executable("/usr/local/sbin/systemctl", install::SYSTEMCTL);
    faults::executable("/usr/local/sbin/invoke-rc.d", "#!/bin/sh\nexec systemctl \"$2\" \"$1\"\n");
    run("apache2ctl", &["start"]);
    wait::until("Apache answers", 10, http::answers);
}

/// dpkg, which may ask nothing: there is nobody to answer.
fn dpkg(arguments: &[&str]) -> String {
    let mut command = Command::new("dpkg");
    command.args(["--force-confdef", "--force-confold"]).args(arguments).stdin(Stdio::null());
    let output = command.env("DEBIAN_FRONTEND", "readline").output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "dpkg {arguments:?}: {text}");
    text
}

/// All files but those of what is running and of dpkg itself.
fn files() -> BTreeSet<String> {
    let output =
        Command::new("find").args(["/etc", "/usr", "/lib", "/var", "-xdev", "!", "-type", "d"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let others =
        ["/var/log/", "/var/cache/", "/var/lib/dpkg/", "/var/lib/postfix/", "/var/spool/", "/var/lib/apache2/"];
    text.lines().filter(|file| !others.iter().any(|other| file.starts_with(other))).map(str::to_owned).collect()
}

/// The same package with another version, and with this added to its snippet.
fn another(version: &str, remark: &str) -> String {
    let (folder, package) = (format!("/var/tmp/{version}"), format!("/var/tmp/{version}.deb"));
    run("dpkg-deb", &["-R", &format!("{BROUGHT}/{PACKAGE}"), &folder]);
    let control = format!("{folder}/DEBIAN/control");
    let text = fs::read_to_string(&control).unwrap();
    let line = text.lines().find(|line| line.starts_with("Version: ")).unwrap();
    fs::write(&control, text.replace(line, &format!("Version: {version}"))).unwrap();
    let snippet = format!("{folder}{SNIPPET}");
    let text = fs::read_to_string(&snippet).unwrap();
    fs::write(&snippet, text + remark).unwrap();
    run("dpkg-deb", &["-b", &folder, &package]);
    fs::remove_dir_all(&folder).unwrap();
    package
}

/// The page from this machine, which shows the message.
fn shows(id: &str) {
    wait::until("Apache has taken the package up", 10, || {
        let page = http::get(ALLOWED, "/bartleby/").map_err(|error| error.to_string())?;
        (page.status == 200 && page.body.contains(id)).then_some(()).ok_or(format!("{page:?}"))
    });
}

/// Installed, upgraded, removed and purged.
pub fn of_debian(lab: &mut Lab) {
    if !Path::new(BROUGHT).join(PACKAGE).exists() {
        assert!(std::env::var("BARTLEBY_LAB").as_deref() != Ok("required"), "There is no target/{PACKAGE}: make deb");
        let _ =
            writeln!(io::stderr(), "*** The Debian package is NOT tested: there is no target/{PACKAGE} (make deb) ***");
        return;
    }
    let queued = client::send(lab.mta, |_| vec![Mail::new("one", "alice@example.org", &["larry@example.com"])]);
    let id = &queued[0].id;
    let before = files();

    let said = dpkg(&["-i", &another("0.1.0", "# version 0.1.0\n")]);
    shows(id);
    assert!(!said.contains("rror"), "{said}");
    is_whole(id);

    // An upgrade replaces what nobody edited, and keeps what somebody did; the log of runs stays.
    let installed = fs::read_to_string(SNIPPET).unwrap();
    fs::write(format!("{STATE}/kept"), "").unwrap();
    dpkg(&["-i", &format!("{BROUGHT}/{PACKAGE}")]);
    let shipped = fs::read_to_string(SNIPPET).unwrap();
    assert_eq!(shipped.clone() + "# version 0.1.0\n", installed);
    let edited = shipped.replacen("#Require ip 192.0.2.0/24", "Require ip 192.0.2.0/24", 1);
    assert_ne!(edited, shipped);
    fs::write(SNIPPET, &edited).unwrap();
    dpkg(&["-i", &another("9.0.0", "# version 9\n")]);
    assert_eq!(fs::read_to_string(SNIPPET).unwrap(), edited);
    assert!(Path::new(STATE).join("kept").exists());
    shows(id);

    // What an administrator has disabled stays so.
    run("a2disconf", &["--quiet", "bartleby"]);
    run("systemctl", &["reload", "apache2"]);
    dpkg(&["-i", &another("9.0.1", "# version 9.1\n")]);
    wait::until("the page is gone", 10, || match http::get(ALLOWED, "/bartleby/").unwrap().status {
        404 => Ok(()),
        status => Err(status.to_string()),
    });

    dpkg(&["--remove", "bartleby"]);
    assert!(Path::new(SNIPPET).exists() && Path::new(STATE).join("kept").exists(), "only a purge takes them away");
    dpkg(&["--purge", "bartleby"]);
    assert!(!Path::new(STATE).exists());
    let after = files();
    let left: Vec<_> = after.difference(&before).filter(|file| !file.starts_with("/var/tmp/")).collect();
    // The CGI module was enabled, and others may use it since.
    let module = ["/etc/apache2/mods-enabled/cgid.load", "/etc/apache2/mods-enabled/cgid.conf"];
    assert!(left.iter().all(|file| module.contains(&file.as_str())), "{left:?}");
    let lost: Vec<_> = before.difference(&after).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

/// All that belongs to it is there, and nothing runs by itself.
fn is_whole(id: &str) {
    for file in [
        "/usr/sbin/bartleby",
        "/usr/share/man/man8/bartleby.8.gz",
        "/usr/share/man/man5/bartleby.toml.5.gz",
        "/usr/share/bash-completion/completions/bartleby",
        "/usr/share/doc/bartleby/examples/sudoers",
        "/usr/share/doc/bartleby/README.md",
    ] {
        assert!(Path::new(file).exists(), "{file}");
    }
    let rule = fs::read_to_string("/usr/share/doc/bartleby/examples/sudoers").unwrap();
    assert!(rule.contains("NOPASSWD: /usr/sbin/bartleby as-root") && !rule.contains("/usr/local"), "{rule}");
    let unit = ["/lib", "/usr/lib"].map(|lib| format!("{lib}/systemd/system/bartleby-watch.service"));
    let unit = unit.iter().find_map(|unit| fs::read_to_string(unit).ok()).unwrap();
    assert!(unit.contains("ExecStart=/usr/sbin/bartleby watch --once"), "{unit}");
    assert!(!Path::new("/etc/systemd/system/timers.target.wants/bartleby-watch.timer").exists());
    run("install", &["-m", "440", "/usr/share/doc/bartleby/examples/sudoers", "/etc/sudoers.d/bartleby"]);
    let doctor = Command::new("setpriv")
        .args(["--reuid=www-data", "--regid=www-data", "--init-groups"])
        .args(["/usr/sbin/bartleby", "doctor", "--web", "http://localhost/bartleby/"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    for line in [
        "ok    listing the queue: 1 message in ",
        "ok    web page: bartleby ",
        "ok    web, other addresses: asked from 192.0.2.5, this machine's address in its network, it shows nothing (403)",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // As the rule that comes with it allows.
    let mut rule = Command::new("setpriv")
        .args(["--reuid=www-data", "--regid=www-data", "--init-groups", "sudo", "-n", "/usr/sbin/bartleby", "as-root"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    rule.stdin.take().unwrap().write_all(b"{\"do\":\"list\"}\n").unwrap();
    let listed = rule.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains(id), "{listed:?}");
    fs::remove_file("/etc/sudoers.d/bartleby").unwrap();
}
