//! Several instances of Postfix: all are listed and run, each message with its instance.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::client;
use crate::machine::Lab;
use crate::mails::Mail;
use crate::mta::run;
use crate::page::{self, Listing};
use crate::primary::{Mode, TUCCSTER};
use crate::{story, wait};

/// The second instance, and its folder.
const NAME: &str = "postfix-out";
const FOLDER: &str = "/etc/postfix-out";

/// A second instance beside that of the example (MULTI_INSTANCE_README): it relays what this machine sends.
pub fn of_postfix(lab: &mut Lab) {
    fs::write("/etc/bartleby.toml", "[flush]\ncooldown = \"1s\"\n").unwrap();
    run("postmulti", &["-e", "init"]);
    run("postmulti", &["-I", NAME, "-e", "create"]);
    let next_hop = format!("relayhost = [{}]:{}", TUCCSTER.ip(), TUCCSTER.port());
    for setting in [&*next_hop, "authorized_submit_users = static:anyone", "alias_maps =", "inet_protocols = ipv4"] {
        run("postconf", &["-c", FOLDER, "-e", setting]);
    }
    run("postconf", &["-c", FOLDER, "-e", "maximal_queue_lifetime = 1d", "bounce_queue_lifetime = 1d"]);
    run("postconf", &["-c", FOLDER, "-F", "*/*/chroot=n"]);
    run("postmulti", &["-i", NAME, "-e", "enable"]);
    run("postmulti", &["-i", NAME, "-p", "start"]);
    // The first one's main.cf names the second one now.
    sleep(Duration::from_secs(1));
    run("postfix", &["-c", "/etc/postfix", "reload"]);
    run("postfix", &["-c", FOLDER, "reload"]);

    let first = client::send(lab.mta, |_| vec![Mail::new("one", "alice@example.org", &["larry@example.com"])]);
    submit("two", "curly@example.com");
    let listing = waiting(2);
    let instance = |listing: &Listing, id: &str| listing.message(id).unwrap().instance.clone();
    assert_eq!(instance(&listing, &first[0].id).as_deref(), Some("postfix"));
    let second = listing.messages.iter().find(|message| message.id != first[0].id).unwrap().id.clone();
    assert_eq!(instance(&listing, &second).as_deref(), Some(NAME));
    let days = |id: &str| {
        let json: Value = serde_json::from_str(&page::get("?format=json").expect(200).body).unwrap();
        assert_eq!(json["queue"]["returns"]["basis"], "maximal_queue_lifetime = 1d of postfix-out", "{json}");
        let message = json["messages"].as_array().unwrap().iter().find(|message| message["id"] == id).unwrap().clone();
        let instant = |key: &str| message[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_second();
        (instant("returns_not_before") - instant("arrival")) / (24 * 60 * 60)
    };
    assert_eq!([days(&first[0].id), days(&second)], [6, 1], "each instance's own lifetime");
    assert!(page::html(200).contains(&format!(" in <bdi>{NAME}</bdi>")), "{}", page::html(200));

    lab.primary.up(Mode::Accepts);
    page::flush(&format!("?flush=id:{second}"));
    assert!(waiting(1).message(&first[0].id).is_some(), "the other one was run");
    submit("three", "moe@example.com");
    story::cooled_down();
    page::flush("?flush");
    waiting(0);

    run("postmulti", &["-i", NAME, "-p", "stop"]);
    let down = page::json(503);
    assert_eq!(down.queue.status, "down");
    let message = down.queue.error.unwrap().message;
    assert!(message.contains(&format!("{NAME}: postqueue: ")), "{message}");
    run("postmulti", &["-i", NAME, "-e", "disable"]);
    let disabled = page::json(200);
    assert_eq!(disabled.mta.unlisted.as_deref(), Some(&[NAME.to_owned()][..]));
    assert!(page::html(200).contains("postfix-out is disabled"), "{}", page::html(200));
}

/// A listing with so many messages.
fn waiting(count: u64) -> Listing {
    wait::until("so many wait", 30, || {
        let listing = page::try_json(200)?;
        let is_settled = listing.queue.messages == count && listing.queue.states["deferred"] == count;
        if is_settled { Ok(listing) } else { Err(format!("{listing:?}")) }
    })
}

/// Hands a message of this machine's own to the second instance.
fn submit(subject: &str, recipient: &str) {
    let mut sendmail = Command::new("/usr/sbin/sendmail")
        .args(["-C", FOLDER, "-f", "bob@example.net", recipient])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    write!(sendmail.stdin.take().unwrap(), "Subject: {subject}\n\nx\n").unwrap();
    assert!(sendmail.wait().unwrap().success());
}
