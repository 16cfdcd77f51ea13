//! `bartleby doctor`: is everything in place, for the user that asks, and if not, the exact fix.

use std::path::Path;

use crate::context::Context;
use crate::primary::Outlook;
use crate::report::disk::Level;
use crate::state::StateError;
use crate::text::{bytes, count, printable};
use crate::view::{Report, sentences};

/// One thing that was looked at.
pub struct Check {
    /// What it is.
    pub subject: &'static str,
    /// What was found, and, where that is wrong, the fix.
    pub found: Result<String, Fault>,
}

/// Something that is wrong.
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// What a look at everything found.
pub fn examine(context: &Context, report: &Report) -> Vec<Check> {
    let Report { listing, flush, outlook, filesystems, .. } = report;
    let fault = |message: String, remedy: String| Err(Fault { message, remedy });
    let told =
        |trouble: &crate::mta::trouble::Trouble| Err(Fault { message: trouble.to_string(), remedy: trouble.remedy() });
    let mail_server = match (&context.source, listing.kind) {
        (Err(trouble), _) => told(trouble),
        (Ok(_), kind) => Ok(format!(
            "{} {}",
            kind.map_or("unknown", |kind| kind.name()),
            listing.facts.version.as_deref().unwrap_or("(its version is not told)")
        )),
    };
    let may_list = match &listing.trouble {
        Some(trouble) => told(trouble),
        None => Ok(format!(
            "{} in {:.2} s, with {}",
            count(listing.summary.messages, "message", "messages"),
            listing.took.as_secs_f64(),
            listing.command
        )),
    };
    let directory = match &listing.facts.queue_directory {
        Some(directory) => Ok(directory.display().to_string()),
        None => fault(
            "it is not known where the mail server keeps its queue, so its filesystem is not marked".into(),
            "Look whether the mail server's configuration can be read by this user.".into(),
        ),
    };
    let may_flush = match &flush.possible {
        Err(trouble) => told(trouble),
        Ok(()) if flush.parts => Ok("the whole queue, a domain, a message".into()),
        Ok(()) => Ok("the whole queue, with the configured flush_command".into()),
    };
    let make_folder = || {
        let configured = context.config.state.directory.as_deref();
        let folder = quoted(&configured.unwrap_or(Path::new("/var/lib/bartleby")).to_string_lossy());
        if context.account.is_root() {
            format!("Look at its owner, and at the folders above it: ls -ld {folder}; namei -l {folder}")
        } else {
            format!("As root: install -d -o {} -m 700 {folder}", context.account.name)
        }
    };
    let state = match (&context.records, &flush.set_aside, &flush.unguarded) {
        (_, Some(file), _) => {
            let file = file.display().to_string();
            fault(
                format!("the log of queue runs was damaged, and was set aside as {file}"),
                format!("As root: rm {}", quoted(&file)),
            )
        }
        (Ok(_), None, Some(reason)) => fault(
            format!("the cool-down is off: {reason}"),
            match reason {
                StateError::Later { .. } => "Run that version here, or move the file away.".into(),
                _ => "Make room there, or correct its owner.".into(),
            },
        ),
        (Ok(records), None, None) => {
            let directory = records.directory().display();
            match (records.instead_of(), records.shared()) {
                (Some(reason), _) => fault(format!("{directory} is used instead, as {reason}"), make_folder()),
                (None, Some(shared)) => {
                    Ok(format!("{directory}, which is root's own, and the locks of {}", shared.display()))
                }
                (None, None) => Ok(directory.to_string()),
            }
        }
        (Err(reason), None, _) => {
            fault(format!("no folder is usable, so the cool-down is off: {reason}"), make_folder())
        }
    };
    let allow: Vec<String> = context.config.access.allow.iter().map(ToString::to_string).collect();
    let config_file =
        context.config.file.as_ref().map_or("none, all defaults".into(), |file| file.display().to_string());
    let mut checks = vec![
        Check { subject: "user", found: Ok(format!("{} ({})", context.account.name, context.account.uid)) },
        Check { subject: "configuration", found: Ok(config_file) },
        Check { subject: "mail server", found: mail_server },
        Check { subject: "queue directory", found: directory },
        Check { subject: "may list", found: may_list },
        Check { subject: "may flush", found: may_flush },
        Check { subject: "state directory", found: state },
        Check {
            subject: "access",
            found: Ok(format!("{}, and whom the web server lets in with BARTLEBY_ACCESS=granted", allow.join(", "))),
        },
    ];
    checks.push(Check {
        subject: "cage",
        found: match &report.gap {
            None => {
                Ok("what strangers wrote is read without the rights to open files, start programs or connect".into())
            }
            Some(gap) => fault(
                sentences::gap(gap),
                "Run Linux 5.13 or later with \"landlock\" among the words of /sys/kernel/security/lsm (kernel \
                 parameter lsm=), and let containers use landlock(7) and seccomp(2)."
                    .into(),
            ),
        },
    });
    checks.extend(primary_checks(outlook));
    for filesystem in filesystems {
        let mount = printable(&filesystem.mount).into_owned();
        let path = quoted(&filesystem.mount);
        let found = match (filesystem.level, filesystem.usage.bytes_available, filesystem.usage.bytes) {
            (Level::Unknown, ..) => match &filesystem.error {
                Some(error) => fault(format!("{mount}: {error}"), format!("Look after that mount: stat -f {path}")),
                None => fault(format!("{mount} does not answer"), format!("Look after that mount: umount -l {path}")),
            },
            (Level::Ok, Some(free), Some(all)) => Ok(format!("{mount}: {} of {} free", bytes(free), bytes(all))),
            _ => fault(
                format!("{mount} is short of space or inodes"),
                format!("Make room: du -xh {path} | sort -h | tail; df -i {path}"),
            ),
        };
        checks.push(Check { subject: if filesystem.queue { "disk (mail queue)" } else { "disk" }, found });
    }
    checks
}

/// A path as a shell takes it.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''"))
}

/// Whether the primaries answer, and whether the domain name system knows them and this host.
fn primary_checks(outlook: &Outlook) -> Vec<Check> {
    let check = |subject, found| Check { subject, found };
    let fault = |message: String, remedy: &str| Err(Fault { message, remedy: remedy.to_owned() });
    let mut checks = Vec::new();
    match &outlook.domains {
        Some(domains) => {
            let faults = outlook.faults.iter().map(|found| check("DNS", fault(found.message.clone(), &found.remedy)));
            checks.extend(faults);
            if checks.is_empty() {
                checks
                    .push(check("DNS", Ok(format!("the MX records of {} are as they should be", domains.join(", ")))));
            }
        }
        None if !outlook.primaries.is_empty() => {
            checks.push(check("DNS", Ok("not compared, as [primary] domains are not configured".into())));
        }
        None => checks.push(check(
            "DNS",
            fault(
                "it is not known for which domains this host is a fall-back".into(),
                "Name them in /etc/bartleby.toml: [primary] domains = [\"example.com\"]",
            ),
        )),
    }
    checks.extend(outlook.primaries.iter().map(|primary| {
        let words = format!("{} is {}: {}", primary.host, primary.state.as_str(), primary.detail);
        let found = match primary.up {
            Some(true) => Ok(words),
            _ => fault(words, "Look after that server, its network and its firewall; mail waits here meanwhile."),
        };
        check("primary", found)
    }));
    checks
}
