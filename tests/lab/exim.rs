//! Exim as the backup MX, with the configuration that is shipped as an example, and what only Exim does:
//! it lets nobody but its administrators list or run the queue, and keeps the reasons elsewhere.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::client::Queued;
use crate::machine::{BROUGHT, Lab};
use crate::mta::{Mta, run};
use crate::primary::{Mode, OTHER, TUCCSTER};
use crate::session::{self, SLOW};
use crate::{page, rule, story, wait};

const CONFIGURATION: &str = "/etc/exim4/exim4.conf";

/// The options that let any user list and run the queue.
const OPTIONS: [&str; 2] = ["queue_list_requires_admin = false", "prod_requires_admin = false"];

/// Debian's Exim.
pub struct Exim;

impl Mta for Exim {
    fn kind(&self) -> &'static str {
        "exim"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["exim4-daemon-light", "sudo"]
    }

    fn brings(&self) -> &'static [&'static str] {
        &["examples/exim/exim4.conf", "examples/sudoers.exim"]
    }

    /// The example as it is, without its two options at first. Only what is the lab's own differs: the
    /// primary's port, and that it is an address of this very machine, which Exim would not send to.
    fn start(&self) {
        let example = fs::read_to_string(Path::new(BROUGHT).join("exim4.conf")).unwrap();
        let ours = [
            ("PRIMARY_PORT = 25".to_owned(), format!("PRIMARY_PORT = {}", TUCCSTER.port())),
            ("  transport = to_primary".to_owned(), "  transport = to_primary\n  self = send".to_owned()),
            ("<; 0.0.0.0 ; ::0".to_owned(), "127.0.0.1".to_owned()),
            // Of one connection's mails only the first ten would be tried at once, by default.
            ("never_users = root".to_owned(), "never_users = root\nsmtp_accept_queue_per_connection = 0".to_owned()),
        ];
        let without = OPTIONS.map(|option| (option.to_owned(), format!("# {option}")));
        let configuration = ours.iter().chain(&without).fold(example, |text, (old, new)| {
            assert!(text.contains(old), "no {old:?} in the example");
            text.replace(old, new)
        });
        fs::write(CONFIGURATION, configuration).unwrap();
        run("chown", &["root:Debian-exim", CONFIGURATION]);
        let (primary, other) = (TUCCSTER.ip(), OTHER.ip());
        let domains = format!("example.com: {primary}\nsub.example.com: {primary}\nother.example: {other}\n");
        fs::write("/etc/exim4/relay_domains", domains).unwrap();
        run("mkdir", &["-p", "/run/exim4"]);
        run("chown", &["Debian-exim:Debian-exim", "/run/exim4"]);
        run("/usr/sbin/exim4", &["-bd", "-q30m"]);
    }

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
    rule::install("sudoers.exim");
    let queued = story::outage(lab);
    only_our_domains(lab);
    story::strangers(lab, &queued);
    story::partial_recovery(lab, &queued, SLOW[0], &session::full());
    story::recovery(lab, &queued);
}

fn refused() {
    story::not_listed("denied", OPTIONS[0]);
    story::not_listed("denied", "www-data ALL=(root) NOPASSWD: /usr/sbin/exim4 -bp, /usr/sbin/exim4 -qf");
    let listing = page::json(503);
    assert!(!listing.flush.allowed, "{:?}", listing.flush);
    let answer = page::get("?flush").expect(503);
    assert!(answer.body.contains(OPTIONS[1]), "{}", answer.body);
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
    assert!(page.contains("does not let the user www-data read why messages wait"), "{page}");
    assert!(page.contains("-Mvl"), "no remedy in {page}");
    story::recovery(lab, &queued);
}

/// Parts, each by the shipped rule.
pub fn part_of_the_queue(lab: &mut Lab) {
    rule::install("sudoers.exim");
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

/// No open relay, and nobody is taken in that the primary does not know.
fn only_our_domains(lab: &Lab) {
    story::relay_is_closed(lab, &["user@elsewhere.example", "\"user@elsewhere.example\"@elsewhere.example"]);
    fs::write("/etc/exim4/relay_recipients", "larry@example.com\n").unwrap();
    fs::set_permissions("/etc/exim4/relay_recipients", Permissions::from_mode(0o644)).unwrap();
    story::relay_is_closed(lab, &["nobody@example.com"]);
    fs::remove_file("/etc/exim4/relay_recipients").unwrap();
}
