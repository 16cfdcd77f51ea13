//! The rehearsal with real mail servers as the primary, each in several moods. The queue of the fall-back is played: it
//! is asked for nothing but its recipients.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::exim::Exim;
use crate::faults::{STATE, executable};
use crate::machine::{HOSTNAME, Lab};
use crate::mta::{Mta, run};
use crate::opensmtpd::OpenSmtpd;
use crate::postfix::Postfix;
use crate::sendmail::Sendmail;
use crate::syslog::MAIL_LOG;
use crate::{apache, faults, page, syslog, wait};

/// Where the primaries listen.
const ADDRESS: &str = "127.0.0.2";

/// The played queue.
const LISTER: &str = "/usr/local/bin/lister";

/// A real mail server that is the primary for `example.com`, and knows `user0` to `user9` there.
pub struct AsPrimary {
    /// Whose packages it takes.
    of: &'static dyn Mta,
    configure: fn(),
}

impl Mta for AsPrimary {
    /// That of the played queue.
    fn kind(&self) -> &'static str {
        "postfix"
    }

    fn layer(&self) -> &'static str {
        self.of.layer()
    }

    fn packages(&self) -> &'static [&'static str] {
        self.of.packages()
    }

    fn wishes(&self) -> &'static [&'static str] {
        self.of.wishes()
    }

    fn start(&self) {
        faults::make_state_folder();
        (self.configure)();
    }

    fn queue_command(&self) -> Command {
        Command::new(LISTER)
    }

    fn queue_id(&self, reply: &str) -> String {
        reply.to_owned()
    }
}

pub static POSTFIX: AsPrimary = AsPrimary { of: &Postfix, configure: postfix };
pub static EXIM: AsPrimary = AsPrimary { of: &Exim, configure: exim };
pub static OPENSMTPD: AsPrimary = AsPrimary { of: &OpenSmtpd, configure: opensmtpd };
pub static SENDMAIL: AsPrimary = AsPrimary { of: &Sendmail, configure: sendmail };

/// The mail that waits: messages for these recipients, in the words of this mail server's listing.
fn queue(kind: &str, recipients: &[String]) {
    let arrival = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 600;
    let one = |(number, recipient): (usize, &String)| match kind {
        "exim" => format!("10m  1.2K 1xVSDK-{number:06}-2p <alice@example.org>\n          {recipient}\n\n"),
        _ => format!(
            "{{\"queue_name\": \"deferred\", \"queue_id\": \"A{number}\", \"arrival_time\": {arrival}, \"message_size\": 1, \
             \"forced_expire\": false, \"sender\": \"alice@example.org\", \"recipients\": [{{\"address\": \"{recipient}\", \
             \"delay_reason\": \"Connection refused\"}}]}}\n"
        ),
    };
    let text: String = recipients.iter().enumerate().map(one).collect();
    fs::write("/var/tmp/queue", text).unwrap();
    executable(LISTER, "#!/bin/sh\ncat /var/tmp/queue\n");
}

/// Ten recipients: this many that the primary knows, in turn with others.
fn recipients(known: usize) -> Vec<String> {
    let known = (0..known).map(|number| format!("user{number}@example.com"));
    let unknown = (0..10 - known.len()).map(|number| format!("nobody{number}@example.com"));
    let (mut known, mut unknown) = (known.peekable(), unknown.peekable());
    let mut all = Vec::new();
    while known.peek().is_some() || unknown.peek().is_some() {
        all.extend(known.next());
        all.extend(unknown.next());
    }
    all
}

/// Ten recipients of a domain that is relayed here, and that the primary no longer knows.
fn elsewhere() -> Vec<String> {
    (0..10).map(|number| format!("user{number}@other.example")).collect()
}

/// Asks for a run with this primary, whatever was said a moment ago. Returns the exit status, and what is said.
fn rehearse(kind: &str, host: &str, recipients: &[String]) -> (Option<i32>, String) {
    queue(kind, recipients);
    // As if ten minutes had passed.
    let _ = fs::remove_file(format!("{STATE}/rehearsals.seen"));
    let text = format!(
        "[mta]\nkind = \"{kind}\"\nlist_command = [\"{LISTER}\"]\nflush_command = [\"/bin/true\"]\n\
         [flush]\ncooldown = \"0s\"\n[primary]\nhosts = [\"{host}\"]\ndomains = [\"example.com\", \"other.example\"]\n\
         [state]\ndirectory = \"{STATE}\"\n"
    );
    fs::write("/etc/bartleby.toml", text).unwrap();
    apache::command_line(&["flush"])
}

/// How many recipients were refused or put off, as the primary's log has it.
fn refusals(words: &str) -> usize {
    syslog::so_far().lines().filter(|line| line.contains(words)).count()
}

/// What is said of a primary at this port: the queue is run, or not, with these words; no more than four recipients are
/// refused in its log, which has these words for each.
#[track_caller]
fn says(port: u16, recipients: &[String], in_log: &str, runs: bool, words: &str) {
    let before = refusals(in_log);
    let (code, said) = rehearse("postfix", &format!("{ADDRESS}:{port}"), recipients);
    assert_eq!(code, Some(if runs { 0 } else { 69 }), "port {port}: {said}");
    assert!(said.contains(words), "port {port}: {said}");
    let left = refusals(in_log) - before;
    assert!(left <= 4, "port {port} left {left} refusals");
}

fn answers(port: u16) {
    wait::until("the primary answers", 20, || {
        std::net::TcpStream::connect((ADDRESS, port)).map(drop).map_err(|error| error.to_string())
    });
}

fn postfix() {
    let known: String = (0..10).map(|number| format!("user{number}@example.com x\n")).collect();
    fs::write("/etc/postfix/mailboxes", known).unwrap();
    let main = "compatibility_level = 3.6\nmyhostname = tuccster.example.com\nmydestination =\nmynetworks = 127.0.0.250/32\n\
                virtual_mailbox_domains = example.com\nvirtual_mailbox_maps = texthash:/etc/postfix/mailboxes\n\
                virtual_transport = discard:\ninet_interfaces = loopback-only\nsmtpd_relay_restrictions = reject_unauth_destination\n\
                smtpd_tls_cert_file = /etc/ssl/certs/ssl-cert-snakeoil.pem\n\
                smtpd_tls_key_file = /etc/ssl/private/ssl-cert-snakeoil.key\nsmtpd_tls_security_level = none\n";
    fs::write("/etc/postfix/main.cf", main).unwrap();
    let own_domain = HOSTNAME.split_once('.').unwrap().1;
    let services = [
        (2501, "smtpd", String::new()),
        (2502, "smtpd", "-o smtpd_sender_restrictions=reject_unknown_sender_domain".into()),
        (2504, "smtpd", "-o smtpd_recipient_limit=5".into()),
        (2506, "smtpd", "-o smtpd_sender_restrictions=reject".into()),
        (2507, "smtpd", "-o smtpd_tls_security_level=encrypt".into()),
        (
            2508,
            "smtpd",
            "-o { smtpd_recipient_restrictions=check_recipient_access static:{450 4.2.0 Greylisted} }".into(),
        ),
        (
            2512,
            "smtpd",
            format!("-o {{ smtpd_sender_restrictions=check_sender_access inline:{{ {own_domain}=REJECT }} }}"),
        ),
        (2515, "smtpd", "-o virtual_mailbox_maps=texthash:/nonexistent".into()),
        (2520, "postscreen", "-o postscreen_greet_wait=6s -o postscreen_greet_action=enforce".into()),
    ];
    let mut master = fs::read_to_string("/etc/postfix/master.cf").unwrap();
    for (port, program, options) in services {
        let limit = if program == "postscreen" { "1" } else { "-" };
        master += &format!("{ADDRESS}:{port} inet n - n - {limit} {program} {options}\n");
    }
    master += "smtpd pass - - n - - smtpd\n";
    fs::write("/etc/postfix/master.cf", master).unwrap();
    run("postconf", &["-F", "*/*/chroot=n"]);
    run("postfix", &["start"]);
    answers(2501);
}

/// Nine moods of Postfix.
pub fn with_postfix(_: &mut Lab) {
    let log = "reject: RCPT";
    let (all, none) = (recipients(10), recipients(0));
    says(2501, &all, log, true, "accepts 10 recipients.");
    says(2501, &none, log, false, "refused 4 of 4 recipients for good: “550 5.1.1 <nobody");
    assert_eq!(refusals(log), 4, "each was said once");
    says(2501, &recipients(5), log, false, "refused 4 of ");
    says(
        2501,
        &recipients(8),
        log,
        true,
        "refuses 2 of 10 recipients for good, whose mail would go back: nobody0@example.com",
    );
    says(2501, &elsewhere(), log, false, "Relay access denied");
    says(2502, &all, log, true, "puts off all recipients that were asked for: “450 4.1.8 <postmaster@");
    says(2504, &all, log, true, "accepts 5 recipients.");
    says(2506, &all, log, false, "refused every sender: “554 5.7.1 ");
    says(2507, &all, log, true, "it wants TLS first");
    says(2508, &all, log, true, "puts off all recipients that were asked for: “450 4.2.0 ");
    says(2512, &all, log, true, "refuses only the sender with which it was asked");
    says(2515, &all, log, true, "puts off all recipients that were asked for: “451 4.3.0 ");
    says(2520, &all, log, true, "accepts 10 recipients.");
    // The page says the same, with each recipient.
    rehearse("postfix", &format!("{ADDRESS}:2501"), &none);
    let refused = page::get("?flush").expect(409);
    for words in
        ["would refuse this mail", "nobody3@example.com", "User unknown in virtual mailbox table", "Run it anyway"]
    {
        assert!(refused.body.contains(words), "{words}: {}", refused.body);
    }
}

/// An Exim at this port, with these lines and ACLs.
fn start_exim(port: u16, lines: &str, acls: &str) {
    let known = (0..10).map(|number| format!("user{number}")).collect::<Vec<_>>().join(":");
    let text = format!(
        "primary_hostname = tuccster.example.com\nlocal_interfaces = {ADDRESS}\ndaemon_smtp_ports = {port}\n\
         domainlist ours = example.com\nqualify_domain = example.com\nsyslog_timestamp = no\nlog_file_path = syslog\nsyslog_duplication = no\n\
         acl_smtp_rcpt = rcpt\n{lines}\nbegin acl\nrcpt:\n  deny !domains = +ours\n    message = relay not permitted\n\
         {acls}  require verify = recipient\n  accept\n\nconnect:\n  deny message = blocked\n\ndata:\n  deny message = no\n\n\
         begin routers\nknown:\n  driver = accept\n  domains = +ours\n  local_parts = {known}\n  transport = nowhere\n\n\
         begin transports\nnowhere:\n  driver = appendfile\n  file = /dev/null\n  user = mail\n"
    );
    let file = format!("/etc/exim4/{port}.conf");
    fs::write(&file, text).unwrap();
    run("/usr/sbin/exim4", &["-C", &file, "-bd", "-oP", &format!("/run/exim4/{port}.pid")]);
    answers(port);
}

fn exim() {
    run("mkdir", &["-p", "/run/exim4"]);
    start_exim(2501, "", "");
    start_exim(2502, "", "  require verify = sender\n");
    start_exim(
        2507,
        "",
        "  drop message = too many unknown recipients\n    !verify = recipient\n    condition = ${if >{$rcpt_fail_count}{2}}\n",
    );
    start_exim(2508, "acl_smtp_data = data", "");
    start_exim(2510, "acl_smtp_connect = connect", "");
    start_exim(2520, "recipients_max = 5", "");
}

/// Six moods of Exim.
pub fn with_exim(_: &mut Lab) {
    let log = "rejected RCPT";
    let (all, none) = (recipients(10), recipients(0));
    says(2501, &all, log, true, "accepts 10 recipients.");
    says(2501, &none, log, false, "refused 4 of 4 recipients for good: “550 Unrouteable address”.");
    says(2501, &elsewhere(), log, false, "refused 4 of 4 recipients for good: “550 relay not permitted”.");
    says(
        2502,
        &all,
        log,
        true,
        "refuses only the sender with which it was asked: “550 Verification failed for <postmaster@",
    );
    says(2507, &none, log, false, "refused 4 of 4 recipients for good");
    // No rehearsal sees what comes after DATA.
    says(2508, &all, log, true, "accepts 10 recipients.");
    says(2520, &all, log, true, "accepts 5 recipients.");
    // Turned away by the greeting, Postfix keeps its mail, and Exim would return it.
    says(2510, &all, log, true, "puts mail off: “550 blocked”.");
    let (code, said) = rehearse("exim", &format!("{ADDRESS}:2510"), &all);
    assert_eq!(code, Some(69), "{said}");
    assert!(
        said.contains("turned this host away: “550 blocked”. This host's mail server would return everything"),
        "{said}"
    );
}

fn opensmtpd() {
    let known: String = (0..10).map(|number| format!("user{number}@example.com\n")).collect();
    fs::write("/etc/smtpd.known", known).unwrap();
    fs::write("/etc/smtpd.banned", format!("postmaster@{HOSTNAME}\n")).unwrap();
    let text = format!(
        "table known file:/etc/smtpd.known\ntable banned file:/etc/smtpd.banned\n\
         filter banned phase mail-from match mail-from <banned> reject \"550 5.7.1 sender refused\"\n\
         listen on {ADDRESS} port 2501 hostname tuccster.example.com\n\
         listen on {ADDRESS} port 2503 hostname tuccster.example.com filter banned\n\
         action \"on\" relay host smtp://127.0.0.9\n\
         match from any for domain \"example.com\" rcpt-to <known> action \"on\"\n"
    );
    fs::write("/etc/smtpd.conf", text).unwrap();
    run("/usr/sbin/smtpd", &["-n"]);
    run("mkdir", &["-p", "-m", "711", "/var/spool/smtpd"]);
    // It stays in the foreground, and ends with the lab.
    drop(
        Command::new("/usr/sbin/smtpd")
            .arg("-d")
            .stderr(fs::File::options().append(true).open(MAIL_LOG).unwrap())
            .spawn()
            .unwrap(),
    );
    answers(2501);
}

/// Three moods of OpenSMTPD.
pub fn with_opensmtpd(_: &mut Lab) {
    let log = "550 Invalid recipient";
    says(2501, &recipients(10), log, true, "accepts 10 recipients.");
    says(2501, &recipients(0), log, false, "refused 4 of 4 recipients for good: “550 Invalid recipient");
    says(
        2503,
        &recipients(10),
        log,
        true,
        "refuses only the sender with which it was asked: “550 5.7.1 sender refused”",
    );
}

fn sendmail() {
    let cf = fs::read_to_string("/etc/mail/sendmail.cf").unwrap();
    // Without DNS it would take every recipient, to be looked at later.
    let lines: Vec<_> = cf
        .lines()
        .filter(|line| !line.starts_with("O DaemonPortOptions=") && !line.starts_with("O ServiceSwitchFile="))
        .collect();
    let port = format!("O DaemonPortOptions=Family=inet, Name=MTA-v4, Port=2501, Addr={ADDRESS}");
    let (before, after) = lines.split_at(lines.iter().position(|line| line.starts_with("O ")).unwrap());
    let ours = [port.as_str(), "O ServiceSwitchFile=/etc/mail/service.switch-nodns", "Cwexample.com"];
    fs::write("/etc/mail/sendmail.cf", [before, &ours, after].concat().join("\n") + "\n").unwrap();
    let known: String = (0..10).map(|number| format!("user{number}: /dev/null\n")).collect();
    fs::write("/etc/mail/aliases", known).unwrap();
    run("newaliases", &[]);
    run("/usr/sbin/sendmail", &["-bd", "-OPidFile=/run/primary.pid"]);
    answers(2501);
}

/// sendmail: it greets after a second, and lets who asks for unknown recipients wait.
pub fn with_sendmail(_: &mut Lab) {
    says(2501, &recipients(10), "User unknown", true, "accepts 10 recipients.");
    says(2501, &recipients(0), "User unknown", false, "refused 4 of 4 recipients for good: “550 5.1.1 <nobody");
}
