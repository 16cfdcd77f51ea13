//! Exim as the backup MX, with the configuration that is shipped as an example, and what only Exim does:
//! it lets nobody but its administrators list or run the queue, and keeps the reasons elsewhere.

use std::fs;
use std::process::Command;

use crate::client::Queued;
use crate::machine::Lab;
use crate::mta::{Mta, run};
use crate::primary::{Mode, OTHER, TUCCSTER};
use crate::session::{self, SLOW};
use crate::{example, own_mail, page, programs, relay, rule, shape, story, wait};

const CONFIGURATION: &str = "/etc/exim4/exim4.conf";
const RECIPIENTS: &str = "/etc/exim4/relay_recipients";

/// The options that let any user list and run the queue.
const OPTIONS: [&str; 2] = ["queue_list_requires_admin = false", "prod_requires_admin = false"];

/// Debian's Exim.
pub struct Exim;

impl Mta for Exim {
    fn kind(&self) -> &'static str {
        "exim"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["exim4-daemon-light", "sudo", "doas"]
    }

    fn wishes(&self) -> &'static [&'static str] {
        &["sudo-rs"]
    }

    fn brings(&self) -> Vec<&'static str> {
        vec![
            "examples/exim/exim4.conf",
            "examples/exim/relay_domains",
            "examples/exim/relay_recipients",
            "examples/sudoers",
            "examples/doas.conf",
            "tests/fixtures/exim/mixed-bp.stdout",
            "tests/fixtures/exim/as-www-data-bp.stdout",
            "tests/fixtures/exim/as-www-data-bp.stderr",
            "tests/fixtures/exim/as-www-data-bp.rc",
            "tests/fixtures/exim/as-www-data-flush.stdout",
            "tests/fixtures/exim/as-www-data-flush.stderr",
            "tests/fixtures/exim/as-www-data-flush.rc",
        ]
    }

    /// As its example says, without its two options at first. The primary is an address of this very machine,
    /// which Exim would not send to, and of one connection's mails it would only try the first ten at once.
    fn start(&self) {
        let port = format!("PRIMARY_PORT = {}", TUCCSTER.port());
        let [list, run_queue] = OPTIONS.map(|option| format!("# {option}"));
        example::install(
            "exim4.conf",
            CONFIGURATION,
            &[
                ("PRIMARY_PORT = 25", &port),
                ("  transport = to_primary", "  transport = to_primary\n  self = send"),
                ("never_users = root", "never_users = root\nsmtp_accept_queue_per_connection = 0"),
                (OPTIONS[0], &list),
                (OPTIONS[1], &run_queue),
            ],
            "",
        );
        run("chown", &["root:Debian-exim", CONFIGURATION]);
        let primary = TUCCSTER.ip().to_string();
        let other = format!("other.example: {}\n", OTHER.ip());
        example::install("relay_domains", "/etc/exim4/relay_domains", &[("tuccster.example.com", &primary)], &other);
        example::install("relay_recipients", RECIPIENTS, &[], "*@example.com\n*@other.example\n");
        own_mail::install_aliases();
        run("mkdir", &["-p", "/run/exim4"]);
        run("chown", &["Debian-exim:Debian-exim", "/run/exim4"]);
        run("/usr/sbin/exim4", &["-bd", "-q30m"]);
    }

    /// It never writes to a mailbox as root.
    fn mailbox(&self) -> &'static str {
        "/var/mail/mail"
    }

    /// It reads them for each mail.
    fn read_aliases(&self) {}

    fn queue_command(&self) -> Command {
        let mut command = Command::new("/usr/sbin/exim4");
        command.arg("-bp");
        command
    }

    /// `250 OK id=1xVSDK-0002Gk-2p`
    fn queue_id(&self, reply: &str) -> String {
        reply.split("id=").nth(1).unwrap_or_else(|| panic!("no queue id in {reply:?}")).trim().to_owned()
    }

    /// A page of a listing: with it come the reasons, which are in the message log.
    fn json_query(&self) -> &'static str {
        "?format=json&per_page=100"
    }

    /// What comes in after a first failure is not even tried.
    fn is_refusal(&self, reason: &str) -> bool {
        reason.contains("Connection refused") || reason.starts_with("retry time not reached for any host")
    }

    /// A reason says more than the primary's words, which it has in one line.
    fn shows(&self, shown: &str, whole: &str) -> bool {
        shown == whole || (whole.contains(' ') && shown.contains(whole))
    }
}

/// The story, first as an administrator finds it: nothing may be listed or run.
pub fn backup_mx(lab: &mut Lab) {
    refused();
    by_its_own_rule();
    rule::install();
    let queued = story::outage(lab);
    each_reason_is_dated();
    story::strangers(lab, &queued);
    // One asks why each of the messages waits.
    programs::of_a_second_view(10 + u32::try_from(queued.len()).unwrap());
    story::partial_recovery(lab, &queued, SLOW[0], &session::full());
    shape::is_as_recorded(&["/usr/sbin/exim4", "-bp"], "mixed-bp.stdout");
    story::recovery(lab, &queued);
    example::install("relay_recipients", RECIPIENTS, &[], "");
    relay::is_closed(lab);
    own_mail::is_delivered(lab);
}

/// The message log has the time of each attempt.
fn each_reason_is_dated() {
    for message in page::json(200).messages {
        for recipient in message.recipients {
            let at = recipient.last_attempt.unwrap_or_default();
            assert!(at.starts_with("20") && at.ends_with('Z'), "{} was tried at {at:?}", recipient.address);
        }
    }
    assert!(page::html(200).contains(" (tried at <time datetime="), "{}", page::html(200));
}

fn refused() {
    story::not_listed("denied", OPTIONS[0]);
    story::not_listed("denied", "www-data ALL=(root) NOPASSWD: /usr/sbin/exim4 -bp, /usr/sbin/exim4 -qf");
    let listing = page::json(503);
    assert!(!listing.flush.allowed, "{:?}", listing.flush);
    let answer = page::get("?flush").expect(503);
    assert!(answer.body.contains(OPTIONS[1]), "{}", answer.body);
    shape::is_refused_as_recorded(&["/usr/sbin/exim4", "-bp"], "as-www-data-bp");
    shape::is_refused_as_recorded(&["/usr/sbin/exim4", "-qf"], "as-www-data-flush");
}

/// A rule for Exim itself gives fewer rights, and is found as well.
fn by_its_own_rule() {
    rule::install_for("/usr/sbin/exim4");
    let listing = page::json(200);
    assert!(listing.queue.complete && listing.flush.allowed, "{listing:?}");
    rule::sudo_allows_only(
        &["/usr/sbin/exim4 -bp", "/usr/sbin/exim4 -qf"],
        &["/usr/sbin/exim4 -qff", "/usr/sbin/exim4 -be", "/usr/sbin/exim4 -Mvb 1xVSDK-0002Gk-2p"],
    );
}

/// With Exim's own two options and without a rule the queue is listed and run, but the reasons are kept.
pub fn by_its_own_options(lab: &mut Lab) {
    let configuration = fs::read_to_string(CONFIGURATION).unwrap();
    fs::write(
        CONFIGURATION,
        OPTIONS.iter().fold(configuration, |text, option| text.replace(&format!("# {option}"), option)),
    )
    .unwrap();
    let mail = crate::mails::Mail::new("one", "alice@example.org", &["larry@example.com"]);
    let queued = crate::client::send(lab.mta, |_| vec![mail]);
    wait::until("the mail is deferred", 30, || {
        let listing = page::try_json(200)?;
        (listing.queue.states["deferred"] == 1 && listing.flush.allowed).then_some(()).ok_or(format!("{listing:?}"))
    });
    let page = page::html(200);
    assert!(page.contains("does not let the user www-data read why messages are waiting"), "{page}");
    assert!(page.contains("/usr/local/sbin/bartleby as-root"), "no remedy in {page}");
    // In a stream nobody is asked for reasons, which is said.
    for format in ["json", "csv", "text"] {
        let told = page::get(&format!("?format={format}")).expect(200).body;
        assert!(told.contains("They are asked for one message at a time"), "{told}");
    }
    frozen(&queued[0].id);
    story::recovery(lab, &queued);
}

/// Without a rule, `-M` of a frozen message ends well and does nothing: it is not offered, and not tried.
fn frozen(id: &str) {
    run("/usr/sbin/exim4", &["-Mf", id]);
    let page = wait::until("the message is frozen", 10, || {
        let page = page::html(200);
        if page.contains("frozen") { Ok(page) } else { Err(page) }
    });
    assert!(!page.contains("flush=id"), "{page}");
    assert!(page.contains("exim4 -M ID"), "no remedy in {page}");
    let refused = page::get(&format!("?flush=id:{id}")).body;
    assert!(refused.contains("What waits is on hold") && refused.contains("exim4 -M ID"), "{refused}");
    run("/usr/sbin/exim4", &["-Mt", id]);
    wait::until("the message is thawed", 10, || {
        let page = page::html(200);
        if page.contains("frozen") { Err(page) } else { Ok(()) }
    });
}

/// Parts, each by the shipped rule.
pub fn part_of_the_queue(lab: &mut Lab) {
    rule::install();
    let queued = story::outage(lab);
    lab.primary.up(Mode::Accepts);
    let gone = |id: &str| {
        wait::until("the part is delivered", 30, || {
            let listing = page::try_json(200)?;
            listing.message(id).is_none().then_some(()).ok_or(format!("{listing:?}"))?;
            Ok(listing)
        })
    };
    // Exim takes what else waits for the same host along, but nothing for another one.
    let one: &Queued = &queued[0];
    let other = queued.iter().find(|queued| queued.mail.recipients[0] == "user@other.example").unwrap();
    page::flush(&format!("?flush=id:{}", one.id));
    assert!(gone(&one.id).message(&other.id).is_some());
    story::cooled_down();
    page::flush("?flush=domain:other.example");
    gone(&other.id);
}
