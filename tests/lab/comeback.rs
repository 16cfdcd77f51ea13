//! The primary as the backup MX sees it: found by a real name server that serves the example's zone, down, back,
//! and going up and down; and what `watch` does about it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::client::{self, Queued};
use crate::http::{self, ALLOWED};
use crate::machine::{HOSTNAME, Lab};
use crate::mails::Mail;
use crate::mta::run;
use crate::page::{self, target};
use crate::postfix::{Postfix, PostfixWith};
use crate::primary::{self, Mode, OTHER, TUCCSTER};
use crate::{apache, example, story, wait};

const ZONE: &str = "/etc/nsd/example.com.zone";

/// Postfix beside a name server.
pub static POSTFIX_WITH_NAMES: PostfixWith = PostfixWith {
    layer: "names",
    packages: &["postfix", "nsd"],
    brings: &["examples/zone.example.com"],
    start,
    ..PostfixWith::NOTHING
};

/// Leaves the primaries' port 25 to them.
fn start() {
    Postfix.configure();
    run("postconf", &["-e", "inet_interfaces=127.0.0.1"]);
    // As Debian's installer leaves a machine: a short name, and the full one in /etc/hosts alone.
    let (short, _) = HOSTNAME.split_once('.').unwrap();
    run("hostname", &[short]);
    fs::write("/etc/hosts", format!("127.0.0.1 localhost\n127.0.1.1 {HOSTNAME} {short}\n")).unwrap();
    run("postfix", &["start"]);
    zone("20");
    let own =
        "$TTL 60\n@ IN SOA ns1 hostmaster 1 2 3 4 5\n@ IN NS ns1\nbartleby IN A 198.51.100.25\nns1 IN A 127.0.0.1\n";
    fs::write("/etc/nsd/example.net.zone", own).unwrap();
    let other = "$TTL 60\n@ IN SOA ns1.other.example. hostmaster 1 2 3 4 5\n@ IN NS ns1\n@ IN MX 10 mail\n\
                 @ IN MX 20 bartleby.example.net.\nmail IN A 127.0.0.3\nns1 IN A 127.0.0.1\n";
    fs::write("/etc/nsd/other.example.zone", other).unwrap();
    let zones = ["example.com", "example.net", "other.example"]
        .map(|name| format!("zone:\n  name: {name}\n  zonefile: /etc/nsd/{name}.zone\n"))
        .concat();
    let server = "server:\n  ip-address: 127.0.0.1\n  username: \"\"\n  pidfile: /run/nsd.pid\n  server-count: 1\n";
    fs::write("/etc/nsd/nsd.conf", format!("{server}{zones}")).unwrap();
    run("nsd", &["-c", "/etc/nsd/nsd.conf"]);
}

/// Writes the example's zone with this machine's names and addresses, and this preference for the backup MX.
fn zone(preference: &str) {
    let own = format!("IN MX {preference} {HOSTNAME}.");
    let replaced =
        [("192.0.2.25", "127.0.0.2"), ("            IN AAAA  2001:db8::25\n", ""), ("IN MX 20 bartleby", own.as_str())];
    example::install("zone.example.com", ZONE, &replaced, "");
}

/// The page's JSON.
fn json() -> Value {
    serde_json::from_str(&http::get(ALLOWED, &target("?format=json")).unwrap().expect(200).body).unwrap()
}

/// Waits until these are deferred.
fn deferred(lab: &Lab, subject: &'static str) -> Vec<Queued> {
    let queued = client::send(lab.mta, |_| {
        vec![
            Mail::new(subject, "alice@example.org", &["larry@example.com"]),
            Mail::new(subject, "bob@example.net", &["user@other.example"]),
        ]
    });
    wait::until("all are deferred", 20, || {
        let listing = page::try_json(200)?;
        (listing.queue.states["deferred"] == 2).then_some(()).ok_or(format!("{listing:?}"))
    });
    queued
}

fn delivered(lab: &Lab, all: &[&Queued]) {
    wait::until("the queue is empty", 30, || {
        let listing = page::try_json(200)?;
        (listing.queue.messages == 0).then_some(()).ok_or(format!("{listing:?}"))
    });
    assert_eq!(lab.primary.deliveries(), primary::due(all.iter().map(|queued| &queued.mail)));
}

/// As if so much time had passed that what was seen of the primary, and what it said, is no longer good.
pub fn later() {
    forget(&["primaries.seen", "rehearsals.seen"]);
}

fn forget(files: &[&str]) {
    let parents = ["/var/lib", "/run", "/tmp"].into_iter().flat_map(fs::read_dir).flatten().flatten();
    for folder in parents.filter(|entry| entry.file_name().to_string_lossy().starts_with("bartleby")) {
        // Only one of them is used.
        for file in files {
            let _ = fs::remove_file(folder.path().join(file));
        }
    }
}

/// What `watch` says; each look is of a second of its own.
#[track_caller]
fn watch(words: &str) {
    sleep(Duration::from_millis(1100));
    let (code, text) = apache::command_line(&["watch", "--once"]);
    assert!(code == Some(0) && text.contains(words), "{code:?} {text}");
}

/// The page says when the primary is back; `watch` runs the queue then, once.
pub fn of_the_primary(lab: &mut Lab) {
    fs::write("/etc/bartleby.toml", "[flush]\ncooldown = \"1s\"\n").unwrap();
    lab.primary.also_at([TUCCSTER, OTHER].map(|address| SocketAddrV4::new(*address.ip(), 25)));
    assert_eq!(TUCCSTER.ip(), &Ipv4Addr::new(127, 0, 0, 2), "as in the zone");

    // Down. Nobody but the domains' own primaries is asked.
    let first = deferred(lab, "first");
    let told = json();
    let hosts: Vec<_> =
        told["primary"].as_array().unwrap().iter().map(|primary| primary["host"].as_str().unwrap()).collect();
    assert_eq!(hosts, ["tuccster.example.com:25", "mail.other.example:25"], "{told:#}");
    for primary in told["primary"].as_array().unwrap() {
        assert_eq!((&primary["up"], &primary["detail"]), (&false.into(), &"connection refused".into()), "{told:#}");
    }
    assert_eq!(told["dns"]["faults"], serde_json::json!([]), "{told:#}");
    let page = page::html(200);
    assert!(page.contains("does not answer. Its mail is kept here until it is back"), "{page}");
    watch("the primary does not take mail");
    let (_, text) = apache::command_line(&["doctor"]);
    assert!(text.contains("ok    DNS: the MX records of example.com, "), "{text}");
    assert!(text.contains("DOWN  primary: tuccster.example.com:25 is down: connection refused"), "{text}");

    // It greets, but not for us.
    lab.primary.up(Mode::TurnsAway);
    later();
    assert_eq!(json()["primary"][0]["state"], "busy");
    assert!(page::html(200).contains("The main mail server answers that it is busy"));
    lab.primary.up(Mode::Hangs);
    later();
    let told = json();
    assert_eq!(told["primary"][0]["detail"], "it does not answer in time", "{told:#}");

    refuses(lab);
    takes_no_message_yet(lab);

    // Back: the page says so, and nothing is run by looking at it.
    forget(&["bartleby.db"]);
    lab.primary.down();
    watch("the primary does not take mail");
    lab.primary.up(Mode::Accepts);
    later();
    let page = page::html(200);
    assert!(
        page.contains("<em>The main mail server is back.</em> Mail for 1 recipient can be delivered now."),
        "{page}"
    );
    assert!(json()["flush"]["last"].is_null());
    watch("the primary is back, seen 1 of 3 times in a row");
    watch("seen 2 of 3 times in a row");
    watch("the primary is back: queue run 2 was started");
    delivered(lab, &first.iter().collect::<Vec<_>>());
    let told = json();
    assert_eq!(told["flush"]["last"]["by"], "watch, as the primary is back");
    // One message went before the other.
    let targets: Vec<_> =
        told["flush"]["log"].as_array().unwrap().iter().map(|run| run["target"].as_str().unwrap()).collect();
    assert!(targets[0] == "all" && targets[1].starts_with("id:"), "{targets:?}");
    assert!(
        told["flush"]["last"]["rehearsal"].as_str().unwrap().contains("tuccster.example.com:25 accepts"),
        "{told:#}"
    );
    watch("the queue was run since the primary came back");

    // Up and down again, too soon to run the queue by itself; a person may.
    lab.primary.down();
    later();
    let second = deferred(lab, "second");
    later();
    watch("the primary does not take mail");
    lab.primary.up(Mode::Accepts);
    later();
    watch("seen 1 of 3 times in a row");
    watch("seen 2 of 3 times in a row");
    watch("goes up and down: the next queue run is due in ");
    assert_eq!(json()["queue"]["messages"], 2);
    story::cooled_down();
    page::flush("?flush");
    delivered(lab, &first.iter().chain(&second).collect::<Vec<_>>());
    refuses_messages(lab);
    names_that_are_wrong();
}

/// It takes recipients and refuses every message: what is tried first goes back, which only the mail log shows, and the
/// other stays.
fn refuses_messages(lab: &mut Lab) {
    let taken = lab.primary.deliveries().len();
    forget(&["bartleby.db"]);
    lab.primary.down();
    later();
    let queued = deferred(lab, "third");
    watch("the primary does not take mail");
    lab.primary.up(Mode::RefusesData);
    later();
    watch("seen 1 of 3 times in a row");
    watch("seen 2 of 3 times in a row");
    watch("and it went back to its sender: 554 5.7.1 Not this one");
    let told = json();
    let (last, runs) = (&told["flush"]["last"], told["flush"]["log"].as_array().unwrap().len());
    assert_eq!(
        (runs, &last["outcome"]["returned"], &last["outcome"]["delivered"]),
        (1, &1.into(), &0.into()),
        "{last:#}"
    );
    let listing = page::try_json(200).unwrap();
    let waits = queued.iter().filter(|queued| listing.message(&queued.id).is_some()).count();
    assert_eq!((waits, lab.primary.deliveries().len()), (1, taken), "{listing:?}");
    // So that the domains' names can be tried without it.
    lab.primary.up(Mode::Accepts);
    story::cooled_down();
    page::flush("?flush");
}

/// Restored without its mailboxes: nothing is run, and nothing goes back.
fn refuses(lab: &mut Lab) {
    lab.primary.up(Mode::Refuses);
    later();
    let refused = page::get("?flush").expect(409);
    for words in
        ["tuccster.example.com:25 refused 1 of 1 recipient", "mail.other.example:25 refused", "550 5.1.1 User unknown"]
    {
        assert!(refused.body.contains(words), "{words}: {}", refused.body);
    }
    assert_eq!(json()["queue"]["messages"], 2);
}

/// It takes recipients and no message: the one message that is tried first keeps the others here.
fn takes_no_message_yet(lab: &mut Lab) {
    lab.primary.up(Mode::PutsOffData);
    later();
    watch("seen 1 of 3 times in a row");
    watch("seen 2 of 3 times in a row");
    watch("the queue is not run: one message was tried first (id:");
    watch("and it still waits");
    let told = json();
    assert_eq!((&told["queue"]["messages"], &told["flush"]["log"].as_array().unwrap().len()), (&2.into(), &1));
}

/// Each fault in the domain name system is named, with the record to add.
fn names_that_are_wrong() {
    zone("10");
    fs::write(ZONE, fs::read_to_string(ZONE).unwrap().replace("2026112301", "2026112302")).unwrap();
    let pid = fs::read_to_string("/run/nsd.pid").unwrap();
    run("kill", &["-HUP", pid.trim()]);
    let page = wait::until("the new zone is served", 20, || {
        later();
        let page = page::html(200);
        if page.contains("tuccster.example.com and this host are equal") { Ok(page) } else { Err(page) }
    });
    assert!(page.contains(&format!("Give this host a worse preference: example.com. IN MX 20 {HOSTNAME}.")), "{page}");
    let (code, text) = apache::command_line(&["doctor"]);
    assert!(code == Some(1) && text.contains("FAIL  DNS: tuccster.example.com and this host are equal"), "{text}");

    // Without a name server nothing is guessed.
    run("kill", &[pid.trim()]);
    let page = wait::until("the name server is gone", 20, || {
        later();
        let page = page::html(200);
        if page.contains("The MX records of example.com are not known") { Ok(page) } else { Err(page) }
    });
    assert!(!page.contains("The main mail server"), "{page}");
}
