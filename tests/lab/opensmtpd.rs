//! OpenSMTPD as the backup MX, with the configuration that is shipped as an example, and what only
//! OpenSMTPD does: it answers nobody but root.

use std::fs;
use std::process::Command;

use crate::machine::Lab;
use crate::mails::Mail;
use crate::mta::{Mta, run};
use crate::primary::{self, Mode, OTHER, TUCCSTER};
use crate::session::{self, SLOW};
use crate::{client, example, own_mail, page, parts, programs, relay, rule, shape, story, wait};

const SMTPCTL: &str = "/usr/sbin/smtpctl";

/// What smtpctl can do besides and a web server shall not.
const OTHERS: [&str; 6] = [
    "/usr/sbin/smtpctl show message 0e78358b",
    "/usr/sbin/smtpctl show envelope 0e78358b75d706e3",
    "/usr/sbin/smtpctl remove all",
    "/usr/sbin/smtpctl remove 0e78358b",
    "/usr/sbin/smtpctl pause mta",
    "/usr/sbin/smtpctl log verbose",
];

const RECIPIENTS: &str = "/etc/smtpd.relay_recipients";

/// Debian's OpenSMTPD.
pub struct OpenSmtpd;

impl Mta for OpenSmtpd {
    fn kind(&self) -> &'static str {
        "opensmtpd"
    }

    fn packages(&self) -> &'static [&'static str] {
        // Since 7.6 it does not start without the certificates, whatever its configuration says.
        &["opensmtpd", "ca-certificates", "sudo", "doas"]
    }

    fn wishes(&self) -> &'static [&'static str] {
        &["sudo-rs"]
    }

    fn brings(&self) -> Vec<&'static str> {
        vec![
            "examples/opensmtpd/smtpd.conf",
            "examples/opensmtpd/relay_domains",
            "examples/opensmtpd/relay_recipients",
            "examples/sudoers",
            "examples/doas.conf",
            "tests/fixtures/opensmtpd/mixed-show-queue.stdout",
            "tests/fixtures/opensmtpd/as-www-data-show-queue.stdout",
            "tests/fixtures/opensmtpd/as-www-data-show-queue.stderr",
            "tests/fixtures/opensmtpd/as-www-data-show-queue.rc",
            "tests/fixtures/opensmtpd/as-www-data-schedule.stdout",
            "tests/fixtures/opensmtpd/as-www-data-schedule.stderr",
            "tests/fixtures/opensmtpd/as-www-data-schedule.rc",
        ]
    }

    /// As its example says.
    fn start(&self) {
        let primary = TUCCSTER.to_string();
        let other = format!(
            "action \"other\" relay host \"smtp://{OTHER}\"\nmatch from any for domain \"other.example\" action \"other\"\n"
        );
        example::install("smtpd.conf", "/etc/smtpd.conf", &[("tuccster.example.com:25", &primary)], &other);
        example::install("relay_domains", "/etc/smtpd.relay_domains", &[], "");
        example::install("relay_recipients", RECIPIENTS, &[], "@example.com\n");
        own_mail::install_aliases();
        run("/usr/sbin/smtpd", &["-n"]);
        run("mkdir", &["-p", "-m", "711", "/var/spool/smtpd"]);
        run("/usr/sbin/smtpd", &[]);
    }

    /// smtpctl(8) has no command for it.
    fn tells_domains(&self) -> bool {
        false
    }

    fn read_aliases(&self) {
        run(SMTPCTL, &["update", "table", "aliases"]);
    }

    fn queue_command(&self) -> Command {
        let mut command = Command::new("/usr/sbin/smtpctl");
        command.args(["show", "queue"]);
        command
    }

    /// `250 2.0.0 1a2b3c4d Message accepted for delivery`
    fn queue_id(&self, reply: &str) -> String {
        let is_id = |word: &&str| word.len() == 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        reply.split_whitespace().find(is_id).unwrap_or_else(|| panic!("no queue id in {reply:?}")).to_owned()
    }

    /// It refuses local parts in quotes.
    fn takes(&self, mail: &Mail) -> bool {
        !mail.sender.contains('"') && mail.recipients.iter().all(|recipient| !recipient.contains('"'))
    }

    fn is_refusal(&self, reason: &str) -> bool {
        reason.contains("Network error on destination MXs")
    }
}

/// The story, first as an administrator finds it: nothing may be listed or run.
pub fn backup_mx(lab: &mut Lab) {
    wait::until("smtpd answers", 20, || {
        let output = lab.mta.queue_command().output().map_err(|error| error.to_string())?;
        output.status.success().then_some(()).ok_or(format!("{output:?}"))
    });
    story::not_listed(
        "denied",
        "www-data ALL=(root) NOPASSWD: /usr/sbin/smtpctl show queue, /usr/sbin/smtpctl schedule all",
    );
    let answer = page::get("?flush").expect(503);
    assert!(answer.body.contains("/usr/sbin/smtpctl schedule all"), "{}", answer.body);
    shape::is_refused_as_recorded(&[SMTPCTL, "show", "queue"], "as-www-data-show-queue");
    shape::is_refused_as_recorded(&[SMTPCTL, "schedule", "all"], "as-www-data-schedule");
    rule::install();
    let queued = story::outage(lab);
    story::strangers(lab, &queued);
    // One under sudo: since 1.9.14 (Debian 13) a process of its own watches the command (sudoers(5), use_pty).
    programs::of_a_second_view(6);
    // Of a reply of several lines, it keeps the code once.
    let slow = format!("{} {}", SLOW[0], SLOW[1].trim_start_matches("450 4.2.0 "));
    story::partial_recovery(lab, &queued, &slow, &session::full());
    shape::is_as_recorded(&[SMTPCTL, "show", "queue"], "mixed-show-queue.stdout");
    story::recovery(lab, &queued);
    example::install("relay_recipients", RECIPIENTS, &[], "");
    run("/usr/sbin/smtpctl", &["update", "table", "relay_recipients"]);
    relay::is_closed(lab);
    own_mail::is_delivered(lab);
}

/// Parts, each by the shipped rule.
pub fn part_of_the_queue(lab: &mut Lab) {
    rule::install();
    parts::of_the_queue(lab);
}

/// doas instead of sudo, and for smtpctl itself in place of the one rule: that is found as well.
pub fn with_doas(lab: &mut Lab) {
    let mail = Mail::new("one", "alice@example.org", &["slow@example.com"]);
    lab.primary.up(Mode::Mixed);
    let queued = client::send(lab.mta, |_| vec![mail]);
    story::not_listed("denied", "doas");
    rule::install_doas_for(SMTPCTL);
    rule::doas_allows_only(&["/usr/sbin/smtpctl show queue", "/usr/sbin/smtpctl schedule all"], &OTHERS);
    wait::until("the mail is deferred", 30, || {
        let listing = page::try_json(200)?;
        (listing.queue.states["deferred"] == 1).then_some(()).ok_or(format!("{listing:?}"))
    });
    story::recovery(lab, &queued);
}

/// What an administrator has paused stays where it is, and while all is paused a run is no use.
pub fn with_paused_mail(lab: &mut Lab) {
    fs::write("/etc/bartleby.toml", "[flush]\ncooldown = \"1s\"\n").unwrap();
    rule::install();
    let queued = client::send(lab.mta, |_| {
        let mail = |subject, recipient| Mail::new(subject, "alice@example.org", &[recipient]);
        vec![mail("one", "larry@example.com"), mail("two", "curly@example.com")]
    });
    deferred(2);
    let [one, two] = queued.as_slice() else { panic!("{queued:?}") };
    let smtpctl = |arguments: &[&str]| run(SMTPCTL, arguments);
    smtpctl(&["pause", "envelope", &one.id]);
    let page = page::html(200);
    assert!(page.contains("name=\"flush\"") && !page.contains("A run also delivers"), "{page}");

    smtpctl(&["pause", "mta"]);
    // What was asked is remembered for a minute.
    wait::until("the page says that deliveries are paused", 90, || {
        let page = page::html(200);
        let says = page.contains("paused OpenSMTPD") && page.contains("resume mta");
        says.then_some(()).ok_or(page)
    });
    lab.primary.up(Mode::Accepts);
    let refused = page::get("?flush").expect(503);
    assert!(refused.body.contains("deliveries are paused"), "{}", refused.body);
    assert!(refused.body.contains("smtpctl resume mta"), "{}", refused.body);
    assert_eq!(page::json(200).queue.messages, 2);
    smtpctl(&["resume", "mta"]);

    page::flush("?flush");
    wait::until("the other one is delivered", 30, || {
        let listing = page::try_json(200)?;
        listing.message(&two.id).is_none().then_some(()).ok_or(format!("{listing:?}"))
    });
    assert_eq!(lab.primary.deliveries(), primary::due([&two.mail]));
    story::cooled_down();
    let refused = page::get("?flush").expect(409);
    assert!(refused.body.contains("on hold"), "{}", refused.body);
    assert_eq!(page::json(200).message(&one.id).unwrap().state, "held");

    smtpctl(&["resume", "envelope", &one.id]);
    page::flush("?flush");
    wait::until("it is delivered, too", 30, || {
        let listing = page::try_json(200)?;
        (listing.queue.messages == 0).then_some(()).ok_or(format!("{listing:?}"))
    });
}

/// Right after a connection that failed, smtpd keeps all in hand, and a run is no use.
pub fn with_a_route_that_has_just_failed(lab: &mut Lab) {
    rule::install();
    lab.primary.down();
    client::send(lab.mta, |_| vec![Mail::new("one", "alice@example.org", &["larry@example.com"])]);
    wait::until("it is in flight", 10, || {
        let listing = page::try_json(200)?;
        (listing.queue.states["active"] == 1).then_some(()).ok_or(format!("{listing:?}"))
    });
    let refused = page::get("?flush").expect(503);
    assert!(refused.body.contains("Try again in 20 s"), "{}", refused.body);
    assert!(page::json(200).flush.last.is_none(), "it would use up the cool-down");
    lab.primary.up(Mode::Accepts);
    // As its route was resumed, smtpd may deliver it by itself; else it lets go of it, and a run delivers it.
    wait::until("it is delivered", 60, || {
        let listing = page::try_json(200)?;
        if listing.queue.states["deferred"] == 1 && listing.flush.wait_seconds == 0 {
            page::flush("?flush");
        }
        (listing.queue.messages == 0).then_some(()).ok_or(format!("{listing:?}"))
    });
}

/// Waits until so many messages are deferred.
fn deferred(count: u64) {
    wait::until("all are deferred", 40, || {
        let listing = page::try_json(200)?;
        (listing.queue.states["deferred"] == count).then_some(()).ok_or(format!("{listing:?}"))
    });
}
