//! OpenSMTPD as the backup MX, with the configuration that is shipped as an example, and what only
//! OpenSMTPD does: it answers nobody but root.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::machine::{BROUGHT, Lab};
use crate::mails::Mail;
use crate::mta::{Mta, run};
use crate::primary::{Mode, OTHER, TUCCSTER};
use crate::session::{self, SLOW};
use crate::{page, rule, story, wait};

/// Debian's OpenSMTPD.
pub struct OpenSmtpd;

impl Mta for OpenSmtpd {
    fn kind(&self) -> &'static str {
        "opensmtpd"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["opensmtpd", "sudo", "doas"]
    }

    fn brings(&self) -> &'static [&'static str] {
        &["examples/opensmtpd/smtpd.conf", "examples/sudoers.opensmtpd", "examples/doas.conf"]
    }

    /// The example as it is. Only what is the lab's own differs: the primary's address, a second next hop
    /// and the one address that is listened on.
    fn start(&self) {
        let example = fs::read_to_string(Path::new(BROUGHT).join("smtpd.conf")).unwrap();
        let ours = [
            ("tuccster.example.com:25".to_owned(), TUCCSTER.to_string()),
            ("listen on 0.0.0.0 port 25\nlisten on :: port 25".to_owned(), "listen on 127.0.0.1 port 25".to_owned()),
        ];
        let configuration = ours.iter().fold(example, |text, (old, new)| {
            assert!(text.contains(old), "no {old:?} in the example");
            text.replace(old, new)
        });
        let other = format!(
            "action \"other\" relay host \"smtp://{OTHER}\"\nmatch from any for domain \"other.example\" action \"other\"\n"
        );
        fs::write("/etc/smtpd.conf", configuration + &other).unwrap();
        fs::write("/etc/smtpd.relay_domains", "example.com\nsub.example.com\n").unwrap();
        fs::write("/etc/smtpd.relay_recipients", "@example.com\n@sub.example.com\n").unwrap();
        run("mkdir", &["-p", "-m", "711", "/var/spool/smtpd"]);
        let mut daemon = Command::new("/usr/sbin/smtpd");
        daemon
            .arg("-d")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create("/var/log/mail.log").unwrap());
        // It stays in the foreground, and ends with the lab.
        std::mem::drop(daemon.spawn().unwrap());
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
    rule::install("sudoers.opensmtpd");
    let queued = story::outage(lab);
    only_our_domains(lab);
    story::strangers(lab, &queued);
    // Of a reply of several lines, it keeps the code once.
    let slow = format!("{} {}", SLOW[0], SLOW[1].trim_start_matches("450 4.2.0 "));
    story::partial_recovery(lab, &queued, &slow, &session::full());
    story::recovery(lab, &queued);
}

/// No open relay, and nobody is taken in that the primary does not know.
fn only_our_domains(lab: &Lab) {
    story::relay_is_closed(lab, &["user@elsewhere.example", "user%elsewhere.example@elsewhere.example"]);
    fs::write("/etc/smtpd.relay_recipients", "larry@example.com\n").unwrap();
    run("/usr/sbin/smtpctl", &["update", "table", "relay_recipients"]);
    story::relay_is_closed(lab, &["nobody@example.com"]);
}

/// doas instead of sudo: the rule is found as well.
pub fn with_doas(lab: &mut Lab) {
    let mail = Mail::new("one", "alice@example.org", &["slow@example.com"]);
    lab.primary.up(Mode::Mixed);
    let queued = crate::client::send(lab.mta, |_| vec![mail]);
    story::not_listed("denied", "doas");
    fs::copy(Path::new(BROUGHT).join("doas.conf"), "/etc/doas.conf").unwrap();
    run("doas", &["-C", "/etc/doas.conf"]);
    wait::until("the mail is deferred", 30, || {
        let listing = page::try_json(200)?;
        (listing.queue.states["deferred"] == 1).then_some(()).ok_or(format!("{listing:?}"))
    });
    story::recovery(lab, &queued);
}
