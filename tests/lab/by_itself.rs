//! The lines by which `watch` is run without anybody looking on, as they are shipped: that of cron and that of systemd.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use crate::client;
use crate::machine::{BROUGHT, Lab, PROGRAM};
use crate::mails::Mail;
use crate::mta::run;
use crate::primary::{self, Mode, TUCCSTER};
use crate::{page, wait};

/// A line that runs a command as a user.
struct Line {
    user: String,
    command: String,
}

fn shipped(name: &str) -> String {
    fs::read_to_string(Path::new(BROUGHT).join(name)).unwrap()
}

/// The line in the file for cron(8): behind five fields the user, then the command, up to the end.
fn of_cron() -> Line {
    let text = shipped("bartleby-watch.cron");
    let line = text.lines().find(|line| line.starts_with("* ")).unwrap();
    let words: Vec<_> = line.splitn(7, ' ').collect();
    Line { user: words[5].to_owned(), command: words[6].to_owned() }
}

fn of_systemd() -> Line {
    let text = shipped("bartleby-watch.service");
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
    Line { user: value("User="), command: value("ExecStart=") }
}

impl Line {
    /// Runs it as that user, with no more in its environment than cron(8) gives.
    fn run(&self) -> String {
        // Each look is of a second of its own.
        sleep(Duration::from_millis(1100));
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={0}", self.user), &format!("--regid={0}", self.user), "--init-groups"]);
        command.args(["/bin/sh", "-c", &self.command]).current_dir("/").env_clear();
        command.envs([("SHELL", "/bin/sh"), ("PATH", "/usr/bin:/bin"), ("HOME", "/var/www")]);
        let output = command.output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{text}");
        text
    }
}

pub fn as_shipped(lab: &mut Lab) {
    run("install", &["-m", "755", &format!("{BROUGHT}/{PROGRAM}"), "/usr/local/sbin/bartleby"]);
    run("install", &["-d", "-o", "www-data", "-m", "700", "/var/lib/bartleby"]);
    run("install", &["-m", "755", "-d", "/usr/local/lib/bartleby"]);
    let host = format!("127.0.0.2:{}", TUCCSTER.port());
    let text = format!(
        "[flush]\ncooldown = \"1s\"\n[primary]\nhosts = [\"{host}\"]\ndomains = [\"example.com\"]\n\
         [notify]\ncommand = [\"/usr/bin/tee\", \"-a\", \"/var/lib/bartleby/told\"]\n"
    );
    fs::write("/etc/bartleby.toml", text).unwrap();
    let (cron, systemd) = (of_cron(), of_systemd());
    let says = |line: &Line, words: &str| {
        let said = line.run();
        assert!(said.contains(words), "{said}");
    };
    let queued = client::send(lab.mta, |_| {
        ["first", "second"].map(|subject| Mail::new(subject, "alice@example.org", &["larry@example.com"])).into()
    });
    wait::until("both are deferred", 20, || {
        let listing = page::try_json(200)?;
        (listing.queue.states["deferred"] == 2).then_some(()).ok_or(format!("{listing:?}"))
    });
    says(&cron, "the primary does not take mail");
    lab.primary.up(Mode::Accepts);
    says(&systemd, "seen 1 of 3 times in a row");
    says(&cron, "seen 2 of 3 times in a row");
    says(&systemd, "the primary is back: queue run 2 was started");
    wait::until("the queue is empty", 30, || {
        let listing = page::try_json(200)?;
        (listing.queue.messages == 0).then_some(()).ok_or(format!("{listing:?}"))
    });
    assert_eq!(lab.primary.deliveries(), primary::due(queued.iter().map(|queued| &queued.mail)));
    // Both share one memory: each event was given once.
    wait::until("the run is over", 60, || {
        cron.run();
        let told = fs::read_to_string("/var/lib/bartleby/told").unwrap();
        let name = |line: &str| line.split_once("\"event\":\"").unwrap().1.split_once('"').unwrap().0.to_owned();
        let mut names: Vec<_> = told.lines().map(name).collect();
        names.sort();
        let all = ["primary_back", "primary_down", "run_finished", "run_finished", "run_started", "run_started"];
        (names == all).then_some(()).ok_or(told)
    });
    // The receipt says who saw it, and claims nothing where this user can't read the mail log.
    let receipt = page::get("?outage=1&format=text").expect(200).body;
    for words in ["(seen by bartleby watch)", "Waited at most          2 messages", "by watch, as the primary is back"]
    {
        assert!(receipt.contains(words), "{words}: {receipt}");
    }
}
