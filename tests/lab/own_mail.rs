//! Mail for this machine itself, such as cron's notices: it is delivered here, whether the primary is up or not, or
//! where the alias for root leads; it neither waits, nor dies, nor is lost.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::process::{Command, Stdio};

use crate::client;
use crate::example;
use crate::http::FORBIDDEN;
use crate::machine::Lab;
use crate::mails::Mail;
use crate::primary::{Delivery, Mode, TUCCSTER};
use crate::{page, wait};

const ALIASES: &str = "/etc/aliases";

/// How Debian's cron sends its notices (MAILARGS in its config.h): with its standard input, and these arguments.
const CRON: [&str; 5] = ["-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root"];

/// Puts the shipped aliases in place of what the packages left.
pub fn install_aliases() {
    example::install("aliases", ALIASES, &[], "");
}

/// With the shipped lists, and a primary that is down.
pub fn is_delivered(lab: &mut Lab) {
    lab.primary.down();
    let before = page::json(200).queue.messages;
    let own = lab.mta.own_name();
    send("a program", &["-i", "root"]);
    send("cron", &CRON);
    // Everybody may write to postmaster, also without a domain: RFC 5321, section 4.5.1.
    let recipients = ["postmaster".to_owned(), "Postmaster".to_owned(), format!("postmaster@{own}")];
    let mails = recipients.iter().map(|to| Mail::new("a stranger", "alice@example.org", &[to]));
    let strangers = client::send_from(FORBIDDEN, lab.mta, |_| mails.collect()).len();
    wait::until("mail for this machine is in the mailbox", 30, || {
        let mailbox = fs::read(lab.mta.mailbox()).unwrap_or_default();
        let mailbox = String::from_utf8_lossy(&mailbox);
        let count = |subject: &str| mailbox.lines().filter(|line| *line == format!("Subject: {subject}")).count();
        let counts = [count("a program"), count("cron"), count("a stranger")];
        (counts == [1, 1, strangers]).then_some(()).ok_or(format!("{counts:?} {mailbox}"))
    });
    let listing = page::json(200);
    assert_eq!(listing.queue.messages, before, "{listing:?}");
    // A user who is not there is refused at once: else a stranger could have mail returned to others.
    let reply = client::recipient_reply(&format!("nobody-here@{own}"));
    assert!(reply.starts_with('5'), "{reply}");
    follows_the_alias(lab);
}

/// The administrator may have an address elsewhere.
fn follows_the_alias(lab: &mut Lab) {
    lab.primary.up(Mode::Accepts);
    OpenOptions::new().append(true).open(ALIASES).unwrap().write_all(b"root: larry@example.com\n").unwrap();
    lab.mta.read_aliases();
    send("for the administrator", &["-i", "root"]);
    let arrived = |delivery: &Delivery| {
        (delivery.subject.as_str(), delivery.recipient.as_str(), delivery.server)
            == ("for the administrator", "larry@example.com", TUCCSTER)
    };
    wait::until("the alias leads to the primary", 30, || {
        let deliveries = lab.primary.deliveries();
        deliveries.iter().any(arrived).then_some(()).ok_or(format!("{deliveries:?}"))
    });
}

/// Sends a mail as programs of this machine do.
fn send(subject: &str, arguments: &[&str]) {
    let mut command = Command::new("/usr/sbin/sendmail");
    let mut sendmail = command.args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    let text = format!("From: root (somebody)\nTo: root\nSubject: {subject}\n\nI would prefer not to.\n");
    sendmail.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let status = sendmail.wait().unwrap();
    assert!(status.success(), "{arguments:?}: {status}");
}
