//! Sendmail as the backup MX, and what only sendmail does: it lets nobody but root run its queue, and
//! calls a queue that it may not show empty.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::client::{self, Queued};
use crate::machine::Lab;
use crate::mails::Mail;
use crate::mta::{Mta, run};
use crate::primary::{Mode, OTHER, TUCCSTER};
use crate::session::{self, SLOW};
use crate::{example, own_mail, page, parts, programs, relay, rule, shape, story, wait};

const CONFIGURATION: &str = "/etc/mail/sendmail.cf";
const PROGRAM: &str = "/usr/sbin/sendmail";

/// At least so much of an address or a reason does sendmail print with `-v`.
const PRINTED: usize = 60;

/// Debian's sendmail.
pub struct Sendmail;

impl Mta for Sendmail {
    fn kind(&self) -> &'static str {
        "sendmail"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["sendmail", "sudo", "doas"]
    }

    fn wishes(&self) -> &'static [&'static str] {
        &["sudo-rs"]
    }

    fn brings(&self) -> Vec<&'static str> {
        vec![
            "examples/sendmail/sendmail.mc",
            "examples/sendmail/access",
            "examples/sendmail/mailertable",
            "examples/sendmail/relay-domains",
            "examples/sudoers",
            "examples/doas.conf",
            "tests/fixtures/sendmail/mixed-bp-verbose.stdout",
            "tests/fixtures/sendmail/as-www-data-flush.stdout",
            "tests/fixtures/sendmail/as-www-data-flush.stderr",
            "tests/fixtures/sendmail/as-www-data-flush.rc",
        ]
    }

    /// As its example says, but without DNS, and however busy this machine is: from a load average of its own choice on,
    /// sendmail puts mail into the queue untried (`QueueLA` in op.me), or takes none (`RefuseLA`).
    fn start(&self) {
        let name = "dnl define(`confDOMAIN_NAME', `bartleby.example.com')dnl\n";
        let ours = format!(
            "{}\
             define(`confSERVICE_SWITCH_FILE', `/etc/mail/service.switch-nodns')dnl\n\
             define(`ESMTP_MAILER_ARGS', `TCP $h {}')dnl\n\
             define(`confQUEUE_LA', `1000')dnl\n\
             define(`confREFUSE_LA', `1000')dnl\n\
             FEATURE(`accept_unresolvable_domains')dnl\n",
            name.trim_start_matches("dnl "),
            TUCCSTER.port()
        );
        example::install("sendmail.mc", "/etc/mail/sendmail.mc", &[(name, &ours)], "");
        let primary = format!("[{}]", TUCCSTER.ip());
        let other = format!("other.example\tesmtp:[{}]\n", OTHER.ip());
        example::install("mailertable", "/etc/mail/mailertable", &[("[tuccster.example.com]", &primary)], &other);
        example::install("relay-domains", "/etc/mail/relay-domains", &[], "other.example\n");
        example::install("access", "/etc/mail/access", &[("ERROR:5.1.1:\"550 User unknown\"", "OK")], "");
        fs::write(CONFIGURATION, run("m4", &["/etc/mail/sendmail.mc"]).stdout).unwrap();
        own_mail::install_aliases();
        self.read_aliases();
        make_map("mailertable");
        make_map("access");
        let every_30_minutes = "s/^QUEUE_INTERVAL=.*/QUEUE_INTERVAL=\"30m\"/";
        run("sed", &["-i", every_30_minutes, "/etc/mail/sendmail.conf"]);
        run("/etc/init.d/sendmail", &["start"]);
    }

    /// One below a domain that is relayed: the map `access` holds for all names below the one that it has.
    fn own_name(&self) -> &'static str {
        "bartleby.example.com"
    }

    fn queue_command(&self) -> Command {
        let mut command = Command::new("/usr/sbin/sendmail");
        command.args(["-bp", "-v"]);
        command
    }

    fn queue_id(&self, reply: &str) -> String {
        reply.split(' ').nth(2).unwrap_or_else(|| panic!("no queue id in {reply:?}")).to_owned()
    }

    /// Sendmail cuts what is long; the program marks that.
    fn shows(&self, shown: &str, whole: &str) -> bool {
        shown == whole
            || shown.strip_suffix('…').is_some_and(|start| start.len() >= PRINTED && whole.starts_with(start))
    }
}

/// The story. Before the recovery the web server's user is not let to run the queue, then it is.
pub fn backup_mx(lab: &mut Lab) {
    let queued = story::outage(lab);
    for message in page::json(200).messages {
        for recipient in message.recipients {
            let reason = recipient.reason.unwrap_or_default();
            assert!(reason.contains("Connection refused by [127.0.0."), "{reason}");
        }
    }
    story::strangers(lab, &queued);
    lab.primary.up(Mode::Accepts);
    no_flush_without_a_rule(queued.len());
    no_part_without_a_rule(&queued);
    shape::is_refused_as_recorded(&["/usr/sbin/sendmail", "-q"], "as-www-data-flush");
    allow_flush();
    // Two under sudo: since 1.9.14 (Debian 13) a process of its own watches each (sudoers(5), use_pty).
    programs::of_a_second_view(10);
    // Of a reply, sendmail keeps the first line.
    let (slow, full) = (format!("Deferred: {}", SLOW[0]), format!("Deferred: {}", session::full()));
    story::partial_recovery(lab, &queued, &slow, &full);
    shape::is_as_recorded(&["/usr/sbin/sendmail", "-bp", "-v"], "mixed-bp-verbose.stdout");
    story::recovery(lab, &queued);
    only_our_recipients(lab);
}

/// With the shipped list: no open relay, and nobody is taken in that the primary does not know.
fn only_our_recipients(lab: &mut Lab) {
    example::install("access", "/etc/mail/access", &[], "");
    make_map("access");
    relay::is_closed(lab);
    own_mail::is_delivered(lab);
}

fn make_map(name: &str) {
    run("sh", &["-c", &format!("makemap hash /etc/mail/{name} < /etc/mail/{name}")]);
}

/// Without a sudo rule there is no link but the remedy, and asking all the same changes nothing.
fn no_flush_without_a_rule(messages: usize) {
    // A user who asks sudo without a rule is reported to root, by mail, which waits in this very queue.
    // The folder is closed on Red Hat and on older Debians, so that nobody else can look for the rule.
    for mode in [0o755, 0o750] {
        fs::set_permissions("/etc/sudoers.d", Permissions::from_mode(mode)).unwrap();
        refused_with_the_remedy(messages);
    }
}

fn refused_with_the_remedy(messages: usize) {
    let listing = page::json(200);
    assert!(!listing.flush.allowed, "{:?}", listing.flush);
    let page = page::html(200);
    assert!(!page.contains("name=\"flush\""), "a button that can't work: {page}");
    let refused = page::get("?flush").expect(503);
    for told in [&page, &refused.body] {
        assert!(told.contains("sudo") && told.contains("/usr/sbin/sendmail -q"), "no remedy in {told}");
    }
    let listing = page::json(200);
    assert_eq!(listing.queue.messages, messages as u64, "asking has made mail: {listing:?}");
    assert_eq!(listing.flush.wait_seconds, 0, "{:?}", listing.flush);
}

fn allow_flush() {
    rule::install();
    let listing = page::json(200);
    assert!(listing.flush.allowed, "{:?}", listing.flush);
}

/// Nor can a part be run.
fn no_part_without_a_rule(queued: &[Queued]) {
    for part in [format!("id:{}", queued[0].id), "domain:other.example".to_owned()] {
        let refused = page::get(&format!("?flush={part}"));
        assert!([400, 503].contains(&refused.status), "{part}: {refused:?}");
    }
    let listing = page::json(200);
    assert_eq!(listing.queue.messages, queued.len() as u64, "{listing:?}");
}

/// Parts, each by the shipped rule.
pub fn part_of_the_queue(lab: &mut Lab) {
    allow_flush();
    parts::of_the_queue(lab);
}

/// "You are not permitted to see the queue. Total requests: 0" is no empty queue.
pub fn refusing(lab: &mut Lab) {
    let mail = Mail::new("one", "alice@example.org", &["larry@example.com"]);
    client::send(lab.mta, |_| vec![mail]);
    let permissive = fs::read_to_string(CONFIGURATION).unwrap();
    let option = permissive.lines().find(|line| line.starts_with("O PrivacyOptions=")).unwrap();
    for flags in ["restrictmailq", "goaway,restrictmailq", "needmailhelo,restrictmailq,restrictqrun"] {
        fs::write(CONFIGURATION, permissive.replace(option, &format!("O PrivacyOptions={flags}"))).unwrap();
        story::not_listed("denied", "restrictmailq");
    }
    // All other flags let the queue be listed.
    fs::write(CONFIGURATION, permissive.replace(option, "O PrivacyOptions=goaway")).unwrap();
    assert_eq!(page::json(200).queue.messages, 1);
    fs::write(CONFIGURATION, permissive.replace(option, "O PrivacyOptions=restrictmailq")).unwrap();
    // The shipped rule has a part for this.
    rule::install_for(PROGRAM);
    assert_eq!(page::json(200).queue.messages, 1);
    rule::sudo_allows_only(
        &["/usr/sbin/sendmail -q"],
        &["/usr/sbin/sendmail -bd", "/usr/sbin/sendmail -qf", "/usr/sbin/sendmail -qI6ANBQvux007847"],
    );
    rule::remove();
    story::not_listed("denied", "restrictmailq");
    // And so has the one for root.
    rule::install();
    assert_eq!(page::json(200).queue.messages, 1);
    rule::remove();
    fs::write(CONFIGURATION, &permissive).unwrap();
    assert_eq!(page::json(200).queue.messages, 1);
}

/// What this machine's own programs submit waits in a queue of its own: it is shown as that, and is run, too.
pub fn submitted_mail(lab: &mut Lab) {
    fs::write("/etc/bartleby.toml", "[flush]\ncooldown = \"1s\"\n").unwrap();
    run("/etc/init.d/sendmail", &["stop"]);
    // Without DNS.
    let switch = "s|^#\\?O ServiceSwitchFile=.*|O ServiceSwitchFile=/etc/mail/service.switch-nodns|";
    run("sed", &["-i", switch, "/etc/mail/submit.cf"]);
    run("sh", &["-c", "printf 'Subject: one\\n\\nx\\n' | /usr/sbin/sendmail -oi larry@example.com"]);
    let listing = wait::until("it waits to be submitted", 20, || {
        let listing = page::try_json(200)?;
        if listing.queue.states["deferred"] == 1 { Ok(listing) } else { Err(format!("{listing:?}")) }
    });
    assert_eq!(listing.messages[0].instance.as_deref(), Some("submission queue"));
    assert!(page::html(200).contains(" in <bdi>submission queue</bdi>"), "{}", page::html(200));

    // Debian's script would run that queue by itself.
    run("/usr/sbin/sendmail", &["-bd", "-q30m"]);
    lab.primary.up(Mode::Accepts);
    let only_its_queue = "www-data ALL=(root) NOPASSWD: /usr/sbin/sendmail -q\n";
    fs::write("/etc/sudoers.d/bartleby", only_its_queue).unwrap();
    fs::set_permissions("/etc/sudoers.d/bartleby", Permissions::from_mode(0o440)).unwrap();
    fs::set_permissions("/etc/sudoers.d", Permissions::from_mode(0o751)).unwrap();
    let page = page::html(200);
    assert!(page.contains("No rule allows /usr/sbin/sendmail -Ac -q"), "{page}");
    page::flush("?flush");
    story::cooled_down();
    let listing = page::json(200);
    assert_eq!(listing.queue.messages, 1, "asking for more than the rule allows has made mail: {listing:?}");
    allow_flush();
    assert!(!page::html(200).contains("No rule allows"), "{}", page::html(200));
    page::flush("?flush");
    wait::until("it is delivered", 30, || {
        let listing = page::try_json(200)?;
        (listing.queue.messages == 0).then_some(()).ok_or(format!("{listing:?}"))
    });
    assert_eq!(lab.primary.deliveries().len(), 1);
}
