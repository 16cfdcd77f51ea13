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
use crate::{page, rule, story};

const CONFIGURATION: &str = "/etc/mail/sendmail.cf";

/// At least so much of an address or a reason does sendmail print with `-v`.
const PRINTED: usize = 60;

/// Debian's sendmail.
pub struct Sendmail;

impl Mta for Sendmail {
    fn kind(&self) -> &'static str {
        "sendmail"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["sendmail-bin", "sendmail-cf", "m4", "sudo"]
    }

    fn brings(&self) -> &'static [&'static str] {
        &["examples/sudoers.sendmail"]
    }

    fn start(&self) {
        let port = TUCCSTER.port();
        let source = format!(
            "include(`/usr/share/sendmail/cf/m4/cf.m4')dnl\n\
             VERSIONID(`backup MX')\n\
             OSTYPE(`debian')dnl\n\
             DOMAIN(`debian-mta')dnl\n\
             undefine(`confHOST_STATUS_DIRECTORY')dnl\n\
             define(`confDOMAIN_NAME', `bartleby.example.net')dnl\n\
             define(`confSERVICE_SWITCH_FILE', `/etc/mail/service.switch-nodns')dnl\n\
             define(`confPRIVACY_FLAGS', `needmailhelo,restrictqrun,restrictexpand,nobodyreturn,authwarnings')dnl\n\
             define(`SMTP_MAILER_ARGS', `TCP $h {port}')dnl\n\
             FEATURE(`no_default_msa')dnl\n\
             DAEMON_OPTIONS(`Family=inet, Name=MTA-v4, Port=smtp, Addr=127.0.0.1')dnl\n\
             FEATURE(`accept_unresolvable_domains')dnl\n\
             FEATURE(`mailertable', `hash -o /etc/mail/mailertable')dnl\n\
             RELAY_DOMAIN(`example.com other.example')dnl\n\
             MAILER_DEFINITIONS\n\
             MAILER(`local')dnl\n\
             MAILER(`smtp')dnl\n"
        );
        fs::write("/etc/mail/sendmail.mc", source).unwrap();
        fs::write(CONFIGURATION, run("m4", &["/etc/mail/sendmail.mc"]).stdout).unwrap();
        let (primary, other) = (TUCCSTER.ip(), OTHER.ip());
        let table = format!(
            "example.com\tsmtp:[{primary}]\nsub.example.com\tsmtp:[{primary}]\nother.example\tsmtp:[{other}]\n"
        );
        fs::write("/etc/mail/mailertable", table).unwrap();
        run("sh", &["-c", "makemap hash /etc/mail/mailertable < /etc/mail/mailertable"]);
        run("/etc/init.d/sendmail", &["start"]);
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
    story::relay_is_closed(lab, &["user@elsewhere.example", "user%elsewhere.example@elsewhere.example"]);
    story::strangers(lab, &queued);
    lab.primary.up(Mode::Accepts);
    no_flush_without_a_rule(queued.len());
    no_part_without_a_rule(&queued);
    allow_flush();
    // Of a reply, sendmail keeps the first line.
    let (slow, full) = (format!("Deferred: {}", SLOW[0]), format!("Deferred: {}", session::full()));
    story::partial_recovery(lab, &queued, &slow, &full);
    story::recovery(lab, &queued);
}

/// Without a sudo rule there is no link but the remedy, and asking all the same changes nothing.
fn no_flush_without_a_rule(messages: usize) {
    // Whoever asks sudo without a rule is reported to root, by mail, which waits in this very queue.
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
    assert!(!page.contains("href=\"?flush"), "a link that can't work: {page}");
    let refused = page::get("?flush").expect(503);
    for told in [&page, &refused.body] {
        assert!(told.contains("sudo") && told.contains("/usr/sbin/sendmail -q"), "no remedy in {told}");
    }
    let listing = page::json(200);
    assert_eq!(listing.queue.messages, messages as u64, "asking has made mail: {listing:?}");
    assert_eq!(listing.flush.wait_seconds, 0, "{:?}", listing.flush);
}

fn allow_flush() {
    rule::install("sudoers.sendmail");
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
    fs::write(CONFIGURATION, &permissive).unwrap();
    assert_eq!(page::json(200).queue.messages, 1);
}
