//! `doctor --rehearse`: an outage played with reads only, with each mail server as its example configures it.

use std::fs;

use crate::machine::Lab;
use crate::mta::run;
use crate::primary::{Mode, TUCCSTER};
use crate::{apache, client, example, page, wait};

/// What is said of a subject, as the web server's user.
fn said(subject: &str) -> String {
    // As if ten minutes had passed.
    for folder in ["/var/lib", "/run", "/tmp"].into_iter().flat_map(fs::read_dir).flatten().flatten() {
        if folder.file_name().to_string_lossy().starts_with("bartleby") {
            let _ = fs::remove_file(folder.path().join("rehearsals.seen"));
        }
    }
    let (code, text) = apache::command_line(&["doctor", "--rehearse"]);
    assert!(matches!(code, Some(0 | 1)), "{text}");
    let is_meant = |line: &&str| line.get(6..).is_some_and(|rest| rest.starts_with(&format!("{subject}: ")));
    text.lines().find(is_meant).unwrap_or_else(|| panic!("{subject}: {text}")).to_owned()
}

#[track_caller]
fn says(subject: &str, mark: &str, words: &str) {
    let said = said(subject);
    assert!(said.starts_with(mark) && said.contains(words), "{said}");
}

/// Puts the list of recipients in place as it is shipped.
fn ship_the_list(kind: &str) {
    match kind {
        "postfix" => {
            example::install("relay_recipients", "/etc/postfix/relay_recipients", &[], "");
            run("postfix", &["reload"]);
        }
        "exim" => example::install("relay_recipients", "/etc/exim4/relay_recipients", &[], ""),
        "opensmtpd" => {
            example::install("relay_recipients", "/etc/smtpd.relay_recipients", &[], "");
            run("/usr/sbin/smtpctl", &["update", "table", "relay_recipients"]);
        }
        _ => {
            example::install("access", "/etc/mail/access", &[], "");
            run("sh", &["-c", "makemap hash /etc/mail/access < /etc/mail/access"]);
            // Debian keeps it from other users.
            run("chmod", &["640", "/etc/mail/access"]);
        }
    }
    wait::until("the list is in force", 20, || match client::recipient_reply("nobody@example.com") {
        reply if reply.starts_with('5') => Ok(()),
        reply => Err(reply),
    });
}

pub fn of_an_outage(lab: &mut Lab) {
    let host = format!("127.0.0.2:{}", TUCCSTER.port());
    let text = format!("[primary]\nhosts = [\"{host}\"]\ndomains = [\"example.com\", \"sub.example.com\"]\n");
    fs::write("/etc/bartleby.toml", text).unwrap();
    // The lab takes everybody at first.
    says("port 25 here", "FAIL", "@example.com, whom nobody knows");
    ship_the_list(lab.mta.kind());
    if lab.mta.kind() == "sendmail" {
        says("port 25 here", "?  ", "it refuses unknown recipients, and nobody is known who could be asked for");
        run("chmod", &["644", "/etc/mail/access"]);
    }
    says("port 25 here", "ok ", "it takes mail for the 3 recipients that were asked for, and refuses an unknown one");
    says("handing over", "?  ", "connection refused. (recipients of ");
    lab.primary.up(Mode::Refuses);
    says("handing over", "FAIL", "refused 3 of 3 recipients for good: “550 5.1.1 User unknown”.");
    lab.primary.up(Mode::Accepts);
    says("handing over", "ok ", "accepts 3 recipients. (recipients of ");
    says("queue runner", "ok ", "");
    says("refusals", "ok ", "");
    says("watch", "FAIL", "it has never looked");
    // Without a rule for Exim and OpenSMTPD it can't list the queue, which has a line of its own; but it looks.
    let (code, said) = apache::command_line(&["watch", "--once"]);
    assert!(matches!(code, Some(0 | 69)), "{said}");
    says("watch", "ok ", "it looked ");
    if lab.mta.kind() == "postfix" {
        run("postconf", &["-e", "soft_bounce=yes"]);
        run("postfix", &["reload"]);
        wait::until("refusals are softened", 20, || match client::recipient_reply("nobody@example.com") {
            reply if reply.starts_with('4') => Ok(()),
            reply => Err(reply),
        });
        assert_eq!(page::json(200).queue.messages, 0, "no message was sent");
        says("refusals", "FAIL", "soft_bounce is on");
        says("port 25 here", "FAIL", "only puts off an unknown one");
        run("postfix", &["stop"]);
        says("port 25 here", "FAIL", "no mail gets in here: connection refused");
        says("queue runner", "FAIL", "no qmgr is running");
        return;
    }
    assert!(lab.primary.deliveries().is_empty(), "no message was sent");
}
