//! When mail goes back: each mail server with a lifetime of a minute and a primary that is down does what the page said.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::client::{self, Queued};
use crate::machine::Lab;
use crate::mails::Mail;
use crate::mta::run;
use crate::{page, rule, wait};

/// The lifetime, in seconds.
const LIFETIME: i64 = 60;

/// How late a mail server may be, in seconds: a queue run each 5 s, an attempt, a slow machine.
const LATE: i64 = 25;

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// What the program says of the queue, as root or by its rule.
fn clocks() -> Value {
    serde_json::from_str(&page::get("?format=json").expect(200).body).unwrap()
}

fn seconds(instant: &Value) -> i64 {
    let text = instant.as_str().unwrap_or_else(|| panic!("no instant: {instant}"));
    text.parse::<jiff::Timestamp>().unwrap().as_second()
}

fn waits(clocks: &Value, id: &str) -> bool {
    clocks["messages"].as_array().unwrap().iter().any(|message| message["id"] == id)
}

fn send(lab: &Lab, subject: &'static str) -> Queued {
    client::send(lab.mta, |_| vec![Mail::new(subject, "alice@example.org", &["larry@example.com"])]).remove(0)
}

/// What is said of the queue, as soon as it says this.
fn until(what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    wait::until(what, 90, || {
        let clocks = clocks();
        if is_so(&clocks) { Ok(clocks) } else { Err(clocks["queue"].to_string()) }
    })
}

/// The instant at which the first goes back, when that is known.
fn said(kind: &str) -> i64 {
    let clocks = until("it is known when mail goes back", |clocks| !clocks["queue"]["returns"].is_null());
    let returns = &clocks["queue"]["returns"];
    assert_eq!(returns["kind"], kind, "{returns}");
    assert_eq!(returns["lifetime_seconds"], LIFETIME, "{returns}");
    seconds(&returns["not_before"])
}

/// The message is still there the second before the clock says, and is gone a little later.
fn goes_back(queued: &Queued, at: i64) {
    let left = at - 1 - now();
    assert!((0..=LIFETIME).contains(&left), "{left} s left");
    sleep(Duration::from_secs(left.unsigned_abs()));
    let before = clocks();
    assert!(waits(&before, &queued.id) || now() > at, "it went back too early: {before}");
    let page = page::html(200);
    assert!(page.contains("Urgent") && page.contains("goes back"), "{page}");
    wait::until("it has gone back", (LATE + 62).unsigned_abs(), || {
        let clocks = clocks();
        if waits(&clocks, &queued.id) { Err(clocks.to_string()) } else { Ok(()) }
    });
    assert!(now() >= at, "it went back too early");
}

/// The lines of the text that give more time.
fn more_time() -> String {
    let text = page::get("?format=text").expect(200).body;
    let lines: Vec<_> = text.lines().skip_while(|line| !line.contains("more time")).collect();
    assert!(!lines.is_empty(), "{text}");
    lines.join("\n")
}

/// The block to paste behind this line of a remedy.
fn block(remedy: &str, behind: &str) -> String {
    let lines = remedy.lines().skip_while(|line| !line.ends_with(behind)).skip(1);
    lines.map_while(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect()
}

fn shell(commands: &str) {
    let output = Command::new("sh").arg("-c").arg(commands).output().unwrap();
    assert!(output.status.success(), "{commands}: {output:?}");
}

/// What was queued before has more time now: about two weeks.
fn has_more_time(queued: &Queued) {
    let later = until("the clock has moved", |clocks| {
        let returns = &clocks["queue"]["returns"]["not_before"];
        returns.is_string() && seconds(returns) > now() + 13 * 24 * 60 * 60
    });
    assert!(waits(&later, &queued.id), "{later}");
}

/// Postfix: not before, then at the next attempt. A changed main.cf is not in force until the reload, and what was put off
/// before that waits as the earlier settings said.
pub fn of_postfix(lab: &mut Lab) {
    let set = |what: &[&str]| run("postconf", &[&["-e"], what].concat());
    sleep(Duration::from_secs(1));
    set(&["maximal_queue_lifetime=60s", "bounce_queue_lifetime=60s", "minimal_backoff_time=5s"]);
    set(&["maximal_backoff_time=5s", "queue_run_delay=5s"]);
    let early = send(lab, "early");
    let changed = until("it is said that main.cf is not in force", |clocks| {
        clocks["queue"]["returns_error"]["remedy"] == "As root:\n    postfix reload"
    });
    assert_eq!(changed["queue"]["returns"], Value::Null);
    run("postfix", &["reload"]);
    // It was put off for five minutes, though the settings say five seconds now.
    let unknown = until("it is said that it is not known when that is tried again", |clocks| {
        let error = clocks["queue"]["next_attempt_error"]["message"].as_str();
        error.is_some_and(|error| error.contains("put off before that") && error.contains("within 10 seconds"))
    });
    assert_eq!(unknown["queue"]["next_attempt"], Value::Null);
    sleep(Duration::from_secs(15));
    assert!(waits(&clocks(), &early.id), "it was tried within the new time");
    run("postsuper", &["-d", &early.id]);
    let queued = send(lab, "one");
    let at = said("not_before");
    let within = &clocks()["queue"]["next_attempt"]["within_seconds"];
    assert_eq!(*within, 10);
    goes_back(&queued, at);
    let second = send(lab, "two");
    until("the second waits", |clocks| waits(clocks, &second.id));
    let commands = block(&more_time(), "As root:");
    assert_eq!(commands.lines().count(), 2, "{commands}");
    shell(&commands);
    has_more_time(&second);
}

/// sendmail: not before, then in the next queue run. The restart runs the queue, so the file comes first.
pub fn of_sendmail(lab: &mut Lab) {
    let short = "s/^O Timeout.queuereturn=.*/O Timeout.queuereturn=60s/";
    run("sed", &["-i", short, "/etc/mail/sendmail.cf"]);
    run("sed", &["-i", "s/^QUEUE_INTERVAL=.*/QUEUE_INTERVAL=\"5s\"/", "/etc/mail/sendmail.conf"]);
    sleep(Duration::from_secs(1));
    run("/etc/init.d/sendmail", &["restart"]);
    // An arrival is known to the minute: so that much of the minute is left.
    let into = now() % 60;
    if into > 20 {
        sleep(Duration::from_secs((60 - into).unsigned_abs()));
    }
    let queued = send(lab, "one");
    let at = said("not_before");
    // The daemon's arguments are not for every user to read: the setting that it was started by is.
    let next = clocks()["queue"]["next_attempt"].clone();
    assert_eq!(next["within_seconds"], 5, "{next}");
    assert_eq!(next["basis"], "QUEUE_INTERVAL = 5s in /etc/mail/sendmail.conf", "{next}");
    let left = at - 1 - now();
    sleep(Duration::from_secs(left.max(0).unsigned_abs()));
    assert!(waits(&clocks(), &queued.id), "it went back too early");
    wait::until("it has gone back", 60 + LATE.unsigned_abs(), || {
        let clocks = clocks();
        if waits(&clocks, &queued.id) { Err(clocks.to_string()) } else { Ok(()) }
    });
    assert!(now() >= at, "it went back too early");
    let second = send(lab, "two");
    until("the second waits", |clocks| waits(clocks, &second.id));
    let more = more_time();
    assert_eq!(block(&more, "Then, never before, as it runs the queue:"), "systemctl restart sendmail\n");
    shell(&block(&more, "First, as root:"));
    sleep(Duration::from_secs(1));
    // There is no systemd in the lab.
    run("/etc/init.d/sendmail", &["restart"]);
    has_more_time(&second);
    sleep(Duration::from_secs(1));
    run("touch", &["/etc/mail/sendmail.conf"]);
    let unknown = until("it is said that the setting may not be the daemon's", |clocks| {
        clocks["queue"]["next_attempt"].is_null()
    });
    let error = &unknown["queue"]["next_attempt_error"];
    assert!(error["message"].as_str().unwrap().contains("can't be seen how often"), "{error}");
    assert!(error["remedy"].as_str().unwrap().contains("bartleby doctor"), "{error}");
    run("/etc/init.d/sendmail", &["stop"]);
    let page = page::html(200);
    assert!(page.contains("daemon is not running, so nothing is tried again"), "{page}");
}

/// Exim: about, and a young message goes with the old one. By the rule for root it is known since when its host fails, and when
/// that is tried next.
pub fn of_exim(lab: &mut Lab) {
    rule::install();
    let first = send(lab, "first");
    let hinted = until("Exim's retry hints are read", |clocks| {
        let queue = &clocks["queue"];
        let says = |basis: &Value, words: &str| basis.as_str().is_some_and(|basis| basis.contains(words));
        says(&queue["next_attempt"]["basis"], "retry hints and -q")
            && says(&queue["returns"]["basis"], "first failure of its host")
    });
    // The shipped rule and the shipped daemon: each a quarter and half of an hour.
    let within = hinted["queue"]["next_attempt"]["within_seconds"].as_i64().unwrap();
    assert!((30 * 60..=45 * 60).contains(&within), "{hinted}");
    let times = Command::new("exim_dumpdb").args(["-z", "/var/spool/exim4", "retry"]).output().unwrap().stdout;
    let times = String::from_utf8(times).unwrap();
    let failed = times.lines().skip_while(|line| !line.starts_with("  T:")).nth(1).unwrap();
    let clock = &failed[12..20];
    let returns = hinted["queue"]["returns"]["not_before"].as_str().unwrap();
    assert!(returns.contains(&format!("T{clock}")), "{returns}, but it failed at {failed}");
    run("exim4", &["-Mrm", &first.id]);
    shell("rm /var/spool/exim4/db/retry*");
    let configuration = "/etc/exim4/exim4.conf";
    let text = fs::read_to_string(configuration).unwrap();
    fs::write(configuration, text.replace("F,6d,15m", "F,60s,5s")).unwrap();
    shell("kill $(pidof exim4); while pidof exim4; do sleep 0.1; done");
    run("/usr/sbin/exim4", &["-bd", "-q5s"]);
    wait::until("Exim takes mail", 20, || {
        TcpStream::connect("127.0.0.1:25").map(drop).map_err(|error| error.to_string())
    });
    let old = send(lab, "old");
    let at = said("about");
    sleep(Duration::from_secs(30));
    let young = send(lab, "young");
    goes_back(&old, at);
    wait::until("the young one has gone with it", 15, || {
        let clocks = clocks();
        if waits(&clocks, &young.id) { Err(clocks.to_string()) } else { Ok(()) }
    });
    assert!(now() < at + LIFETIME - 5, "it was returned by its own age");
    // Its host is given up: that is said of an empty queue, too.
    shell("exim4 -bp | awk '/</ { print $3 }' | xargs -r exim4 -Mrm");
    wait::until("it is said that new mail would go back", 90, || match page::html(200) {
        page if page.contains("The queue is empty, but new mail would go back to its sender at once.") => Ok(()),
        page => Err(page),
    });
    let text = page::get("?format=text").expect(200).body;
    assert!(text.contains("has failed for longer than Exim's retry rule says, so new mail for it goes back"), "{text}");
    let text = fs::read_to_string(configuration).unwrap();
    fs::write(configuration, text.replace("F,60s,5s", "F,14d,15m")).unwrap();
    let third = send(lab, "third");
    has_more_time(&third);
    shell("kill $(pidof exim4)");
    let page = page::html(200);
    assert!(page.contains("daemon is not running, so nothing is tried again"), "{page}");
    run("/usr/sbin/exim4", &["-bd"]);
    let page = page::html(200);
    assert!(page.contains("daemon was started without -q"), "{page}");
}

/// OpenSMTPD: to the second, untried.
pub fn of_opensmtpd(lab: &mut Lab) {
    rule::install();
    let set = |ttl: &str| {
        let text = fs::read_to_string("/etc/smtpd.conf").unwrap();
        let line = text.lines().find(|line| line.starts_with("queue ttl")).unwrap();
        fs::write("/etc/smtpd.conf", text.replace(line, &format!("queue ttl {ttl}"))).unwrap();
    };
    let restart = || {
        shell("kill $(pidof smtpd); for i in 1 2 3 4 5 6 7 8; do pidof smtpd || break; sleep 1; done; sleep 1");
        shell("smtpd -n && (smtpd -d >/dev/null 2>&1 </dev/null &) ; sleep 1");
        wait::until("smtpd answers", 20, || page::try_json(200).map(drop));
    };
    wait::until("smtpd answers", 20, || page::try_json(200).map(drop));
    sleep(Duration::from_secs(1));
    set("60s");
    let queued = send(lab, "one");
    let changed = until("it is said that smtpd.conf is not in force", |clocks| {
        clocks["queue"]["returns_error"]["remedy"].as_str().is_some_and(|remedy| remedy.contains("restart opensmtpd"))
    });
    assert_eq!(changed["queue"]["returns"], Value::Null);
    restart();
    let at = said("at");
    goes_back(&queued, at);
    assert!(now() <= at + 5, "{} s late", now() - at);
    let second = send(lab, "two");
    let clocks = until("the second waits", |clocks| waits(clocks, &second.id));
    assert!(clocks["messages"][0]["attempts"].is_number(), "{clocks}");
    assert!(more_time().contains("First write “queue ttl 14d” into /etc/smtpd.conf"), "{}", more_time());
    set("14d");
    restart();
    has_more_time(&second);
}
