//! Postfix as the backup MX, and what only Postfix does.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::{self, Queued};
use crate::machine::{BROUGHT, Lab};
use crate::mails::Mail;
use crate::mta::{Mta, run};
use crate::page;
use crate::primary::{self, Mode, OTHER, TUCCSTER};
use crate::session::{self, SLOW, TURNED_AWAY};
use crate::{apache, story, wait};

const RECIPIENTS: &str = "/etc/postfix/relay_recipients";

/// Debian's Postfix.
pub struct Postfix;

impl Mta for Postfix {
    fn kind(&self) -> &'static str {
        "postfix"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["postfix"]
    }

    fn brings(&self) -> &'static [&'static str] {
        &["examples/postfix/main.cf"]
    }

    /// The example as it is. Only what is the lab's own differs: the one address that is listened on, a third
    /// domain, and that not all of 127.0.0.0/8 is this machine, so that there are strangers.
    fn start(&self) {
        let example = fs::read_to_string(Path::new(BROUGHT).join("main.cf")).unwrap();
        let ours = [
            ("inet_interfaces = all", "inet_interfaces = 127.0.0.1"),
            ("inet_protocols = all", "inet_protocols = ipv4"),
            (
                "relay_domains = example.com, sub.example.com",
                "relay_domains = example.com, sub.example.com, other.example",
            ),
            ("mynetworks = 127.0.0.0/8 ", "mynetworks = 127.0.0.1/32 "),
        ];
        let configuration = ours.iter().fold(example, |text, (old, new)| {
            assert!(text.contains(old), "no {old:?} in the example");
            text.replace(old, new)
        });
        fs::write("/etc/postfix/main.cf", configuration).unwrap();
        let next_hop = |at: std::net::SocketAddrV4| format!("smtp:[{}]:{}", at.ip(), at.port());
        let (primary, other) = (next_hop(TUCCSTER), next_hop(OTHER));
        let transport = format!("example.com {primary}\nsub.example.com {primary}\nother.example {other}\n");
        fs::write("/etc/postfix/transport", transport).unwrap();
        fs::write(RECIPIENTS, "@example.com x\n@sub.example.com x\n@other.example x\n").unwrap();
        // Debian's master.cf puts many of them into a chroot that lacks /dev/log.
        run("postconf", &["-F", "*/*/chroot=n"]);
        run("newaliases", &[]);
        run("postfix", &["start"]);
    }

    fn queue_command(&self) -> Command {
        let mut command = Command::new("postqueue");
        command.arg("-p");
        command
    }

    fn queue_id(&self, reply: &str) -> String {
        let (_, id) = reply.split_once("queued as ").unwrap_or_else(|| panic!("no queue id in {reply:?}"));
        id.trim().to_owned()
    }
}

/// The story, with a primary that defers some recipients in the middle of it.
pub fn backup_mx(lab: &mut Lab) {
    let queued = story::outage(lab);
    story::relay_is_closed(lab, &["user@elsewhere.example", "user%elsewhere.example@elsewhere.example"]);
    story::strangers(lab, &queued);
    some_recipients_deferred(lab, &queued);
    story::recovery(lab, &queued);
}

/// Nobody is taken in that the primary does not know.
pub fn unknown_recipient(lab: &mut Lab) {
    fs::write(RECIPIENTS, "larry@example.com x\n").unwrap();
    run("postfix", &["reload"]);
    wait::until("the new list is read", 30, || {
        let reply = client::recipient_reply("nobody@example.com");
        reply.starts_with("550").then_some(()).ok_or(reply)
    });
    assert!(client::recipient_reply("larry@example.com").starts_with("250"));
    story::relay_is_closed(lab, &["nobody@sub.example.com", "root@elsewhere.example"]);
}

/// What only the primary says about a recipient is shown word for word, and nothing else is left.
fn some_recipients_deferred(lab: &mut Lab, queued: &[Queued]) {
    let said = |reply: &str| {
        let host = TUCCSTER.ip();
        format!("host {host}[{host}] said: {reply} (in reply to RCPT TO command)")
    };
    story::partial_recovery(lab, queued, &said(&SLOW.join(" ")), &said(&session::full()));
    let page = page::html(200);
    assert!(page.contains("&lt;script&gt;alert(3)&lt;/script&gt;") && !page.contains("<script>alert(3)"), "{page}");
}

/// A Postfix that is stopped, or lets only root list or flush, is told as that.
pub fn refusing_or_down(lab: &mut Lab) {
    client::send(lab.mta, |_| vec![Mail::new("one", "alice@example.org", &["larry@example.com"])]);

    run("postconf", &["-e", "authorized_mailq_users=root"]);
    story::not_listed("denied", "authorized_mailq_users");
    run("postconf", &["-X", "authorized_mailq_users"]);
    assert_eq!(page::json(200).queue.messages, 1);

    run("postconf", &["-e", "authorized_flush_users=root"]);
    let listing = page::json(200);
    assert!(!listing.flush.allowed, "{:?}", listing.flush);
    assert!(!page::html(200).contains("href=\"?flush"), "a link that can't work");
    let refused = page::get("?flush").expect(503);
    assert!(refused.body.contains("authorized_flush_users"), "{}", refused.body);
    run("postconf", &["-X", "authorized_flush_users"]);

    run("postfix", &["stop"]);
    story::not_listed("down", "postfix");
    page::get("?flush").expect(503);
    run("postfix", &["start"]);
    wait::until("Postfix lists again", 20, || page::try_json(200).map(drop));
}

/// A primary that turns mail away is quoted; one that hangs holds up neither page nor flush. With a
/// configuration file, for a short cool-down.
pub fn ill_primary(lab: &mut Lab) {
    fs::write("/etc/bartleby.toml", "[flush]\ncooldown = \"1s\"\n").unwrap();
    lab.primary.up(Mode::TurnsAway);
    let mail = Mail::new("one", "alice@example.org", &["larry@example.com"]);
    let queued = client::send(lab.mta, |_| vec![mail]);
    let host = TUCCSTER.ip();
    story::waits_only(
        lab,
        &[("larry@example.com", &format!("host {host}[{host}] refused to talk to me: {TURNED_AWAY}"))],
    );

    lab.primary.up(Mode::Hangs);
    story::cooled_down();
    let start = Instant::now();
    page::flush("?flush");
    wait::until("the message is tried", 20, || {
        let listing = page::try_json(200)?;
        let active = listing.message(&queued[0].id).is_some_and(|message| message.state == "active");
        active.then_some(()).ok_or(format!("{listing:?}"))
    });
    assert!(start.elapsed() < Duration::from_secs(10), "held up for {:?}", start.elapsed());
    assert!(!apache::error_log().contains("panicked"), "{}", apache::error_log());
}

/// One message, then one domain is run: that is delivered, and nothing else. What is not in the queue
/// is not run.
pub fn part_of_the_queue(lab: &mut Lab) {
    fs::write("/etc/bartleby.toml", "[flush]\ncooldown = \"1s\"\n").unwrap();
    let queued = client::send(lab.mta, |_| {
        vec![
            Mail::new("one", "alice@example.org", &["larry@example.com"]),
            Mail::new("two", "bob@example.net", &["curly@example.com"]),
            Mail::new("three", "dave@example.org", &["user@other.example"]),
        ]
    });
    wait::until("all are deferred", 20, || {
        let listing = page::try_json(200)?;
        (listing.queue.states["deferred"] == 3).then_some(()).ok_or(format!("{listing:?}"))
    });
    lab.primary.up(Mode::Accepts);
    for unknown in ["id:0", "id:-f", "id:ALL", "domain:elsewhere.example", "domain:com", "domain:-f", "everything"] {
        let refused = page::get(&format!("?flush={unknown}"));
        assert!([400, 404].contains(&refused.status), "{unknown}: {refused:?}");
    }
    assert!(page::json(200).flush.last.is_none());

    let [one, two, three] = queued.as_slice() else { panic!("{queued:?}") };
    page::flush(&format!("?flush=id:{}", two.id));
    delivered(lab, &[two]);
    story::cooled_down();
    page::flush("?flush=domain:other.example");
    delivered(lab, &[two, three]);
    assert!(page::json(200).message(&one.id).is_some());
}

/// Waits until exactly these have left the queue, and have arrived.
fn delivered(lab: &Lab, gone: &[&Queued]) {
    wait::until("the part is delivered", 20, || {
        let listing = page::try_json(200)?;
        let left = listing.queue.messages as usize == 3 - gone.len();
        (left && gone.iter().all(|queued| listing.message(&queued.id).is_none()))
            .then_some(())
            .ok_or(format!("{listing:?}"))
    });
    assert_eq!(lab.primary.deliveries(), primary::due(gone.iter().map(|queued| &queued.mail)));
}
