//! Postfix as the backup MX, and what only Postfix does.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::{self, Queued};
use crate::machine::{HOSTNAME, Lab};
use crate::mails::Mail;
use crate::mta::{Mta, run};
use crate::page;
use crate::primary::{Mode, OTHER, TUCCSTER};
use crate::session::{self, SLOW, TURNED_AWAY};
use crate::{apache, example, own_mail, programs, relay, shape, story, wait};

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

    fn brings(&self) -> Vec<&'static str> {
        let further = [
            "apache/htaccess",
            "apache",
            "examples/bartleby-watch.cron",
            "examples/bartleby-watch.service",
            "tests/fixtures/postfix/mixed-json.stdout",
            "tests/fixtures/postfix/mixed-text.stdout",
        ];
        EXAMPLE.into_iter().chain(further).collect()
    }

    fn start(&self) {
        self.configure();
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

/// What every lab of Postfix brings: its example.
pub const EXAMPLE: [&str; 3] =
    ["examples/postfix/main.cf", "examples/postfix/relay_domains", "examples/postfix/relay_recipients"];

/// Postfix with something beside it: a browser, say, or a name server.
pub struct PostfixWith {
    /// The name of its layer.
    pub layer: &'static str,
    /// All packages.
    pub packages: &'static [&'static str],
    /// As in [`Mta::wishes`].
    pub wishes: &'static [&'static str],
    /// Files of this project besides [`EXAMPLE`].
    pub brings: &'static [&'static str],
    /// Starts both.
    pub start: fn(),
    /// As in [`Mta::serves`].
    pub serves: bool,
}

impl PostfixWith {
    /// Nothing beside it.
    pub const NOTHING: PostfixWith = PostfixWith {
        layer: "postfix",
        packages: &["postfix"],
        wishes: &[],
        brings: &[],
        start: || Postfix.start(),
        serves: true,
    };
}

impl Mta for PostfixWith {
    fn kind(&self) -> &'static str {
        Postfix.kind()
    }

    fn layer(&self) -> &'static str {
        self.layer
    }

    fn packages(&self) -> &'static [&'static str] {
        self.packages
    }

    fn wishes(&self) -> &'static [&'static str] {
        self.wishes
    }

    fn brings(&self) -> Vec<&'static str> {
        EXAMPLE.iter().chain(self.brings).copied().collect()
    }

    fn start(&self) {
        (self.start)();
    }

    fn serves(&self) -> bool {
        self.serves
    }

    fn queue_command(&self) -> Command {
        Postfix.queue_command()
    }

    fn queue_id(&self, reply: &str) -> String {
        Postfix.queue_id(reply)
    }
}

impl Postfix {
    /// As its example says.
    pub fn configure(&self) {
        example::install("main.cf", "/etc/postfix/main.cf", &[("bartleby.example.com", HOSTNAME)], "");
        let next_hop = |at: std::net::SocketAddrV4| format!("smtp:[{}]:{}", at.ip(), at.port());
        let primary = ("smtp:[tuccster.example.com]", next_hop(TUCCSTER));
        let other = format!("other.example {}\n", next_hop(OTHER));
        example::install("relay_domains", "/etc/postfix/relay_domains", &[(primary.0, &primary.1)], &other);
        example::install("relay_recipients", RECIPIENTS, &[], "@example.com x\n@other.example x\n");
        own_mail::install_aliases();
        // Debian's master.cf puts many of them into a chroot that lacks /dev/log.
        run("postconf", &["-F", "*/*/chroot=n"]);
        run("newaliases", &[]);
        run("postfix", &["check"]);
    }
}

/// The story, with a primary that defers some recipients in the middle of it.
pub fn backup_mx(lab: &mut Lab) {
    let queued = story::outage(lab);
    story::strangers(lab, &queued);
    programs::of_a_second_view(3);
    some_recipients_deferred(lab, &queued);
    shape::is_as_recorded(&["postqueue", "-j"], "mixed-json.stdout");
    shape::is_as_recorded(&["postqueue", "-p"], "mixed-text.stdout");
    story::recovery(lab, &queued);
    only_our_recipients(lab);
}

/// With the shipped list: no open relay, and nobody is taken in that the primary does not know.
fn only_our_recipients(lab: &mut Lab) {
    example::install("relay_recipients", RECIPIENTS, &[], "");
    run("postfix", &["reload"]);
    wait::until("Postfix has the list", 20, || match client::recipient_reply("nobody@example.com") {
        reply if reply.starts_with("550 5.1.1") => Ok(()),
        reply => Err(reply),
    });
    relay::is_closed(lab);
    own_mail::is_delivered(lab);
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

/// A Postfix that is stopped, or lets only root list or flush, is said to be that.
pub fn refusing_or_down(lab: &mut Lab) {
    let queued = client::send(lab.mta, |_| vec![Mail::new("one", "alice@example.org", &["larry@example.com"])]);

    run("postconf", &["-e", "authorized_mailq_users=root"]);
    story::not_listed("denied", "authorized_mailq_users");
    run("postconf", &["-X", "authorized_mailq_users"]);
    assert_eq!(page::json(200).queue.messages, 1);

    run("postconf", &["-e", "authorized_flush_users=root"]);
    let listing = page::json(200);
    assert!(!listing.flush.allowed, "{:?}", listing.flush);
    assert!(!page::html(200).contains("name=\"flush\""), "a button that can't work");
    let refused = page::get("?flush").expect(503);
    assert!(refused.body.contains("authorized_flush_users"), "{}", refused.body);
    run("postconf", &["-X", "authorized_flush_users"]);

    run("postsuper", &["-h", "ALL"]);
    let held = page::html(200);
    assert!(
        held.contains("It is on hold and stays until an administrator releases it.") && held.contains("postsuper -H"),
        "{held}"
    );
    assert!(!held.contains("name=\"flush\""), "a button that can't work");
    for part in ["?flush".to_owned(), format!("?flush=id:{}", queued[0].id)] {
        let refused = page::get(&part).expect(409);
        assert!(refused.body.contains("on hold") && refused.body.contains("postsuper -H"), "{}", refused.body);
    }
    assert!(page::json(200).flush.last.is_none());
    run("postsuper", &["-H", "ALL"]);

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
