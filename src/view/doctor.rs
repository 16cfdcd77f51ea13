//! `bartleby doctor`: whether everything is in place for the user that asks, and the exact fix where it is not.

use std::io;
use std::path::{Path, PathBuf};

use super::clocks::given_up;
use super::sentences;
use crate::context::Context;
use crate::mta::timing::{Gap, Lifetime, Retry};
use crate::mta::trouble::Trouble;
use crate::primary::{Fault, PrimaryStatus};
use crate::queue::Row;
use crate::report::disk::Level;
use crate::report::drill::{Checked, Finding};
use crate::report::{Form, Report, Verdict};
use crate::state::{Records, StateError};
use crate::system::{Account, Body};
use crate::text::{Odd, at_most, bytes, count, duration, shell_quoted, to_paste};

/// One thing that was checked.
struct Check {
    /// Its name.
    subject: &'static str,
    /// What was found.
    found: Finding,
}

impl Check {
    fn new(subject: &'static str, found: Result<String, Fault>) -> Check {
        Check { subject, found: found.into() }
    }
}

/// The state folder in use.
struct Folder {
    directory: PathBuf,
    /// Why the folder that should be used is not.
    instead_of: Option<StateError>,
    /// The folder whose locks alone are used.
    shared: Option<PathBuf>,
    /// The folder that the installation would have made.
    missing: Option<PathBuf>,
}

impl Folder {
    fn of(records: &Records) -> Folder {
        Folder {
            directory: records.directory().to_owned(),
            instead_of: records.instead_of().cloned(),
            shared: records.shared().map(Path::to_owned),
            missing: records.missing().map(Path::to_owned),
        }
    }
}

/// The facts that were gathered before the listing.
pub(crate) struct Doctor {
    account: Account,
    /// Why there is no mail server to ask.
    no_source: Option<Trouble>,
    state: Result<Folder, StateError>,
    /// The folder that should be used.
    wanted: PathBuf,
    allow: String,
    configuration: Option<PathBuf>,
    /// The configured command that runs the queue; empty where none is configured.
    flush_command: Vec<String>,
    /// What the web server was found to do, where it was asked.
    web: Vec<(&'static str, Result<String, Fault>)>,
    /// What came of a rehearsed outage, where one was asked for.
    drill: Vec<Checked>,
}

impl Doctor {
    /// Takes the facts that are known before the queue is listed, what the web server was found to do, and what came of a
    /// rehearsed outage.
    pub(crate) fn of(
        context: &Context,
        web: Vec<(&'static str, Result<String, Fault>)>,
        drill: Vec<Checked>,
    ) -> Doctor {
        let Context { config, account, source, records, .. } = context;
        let allow: Vec<String> = config.access.allow.iter().map(ToString::to_string).collect();
        Doctor {
            account: account.clone(),
            no_source: source.as_ref().err().cloned(),
            state: records.as_ref().map(Folder::of).map_err(Clone::clone),
            wanted: config.state.directory.clone().unwrap_or_else(|| "/var/lib/bartleby".into()),
            allow: allow.join(", "),
            configuration: config.file.clone(),
            flush_command: config.mta.flush_command.clone(),
            web,
            drill,
        }
    }
}

impl Form for Doctor {
    fn end(&mut self, report: &Report, _rows: &[Row], to: &mut Body<'_>) -> io::Result<()> {
        for Check { subject, found } in examine(self, report) {
            let is_down = matches!(found, Finding::Down(_));
            match found {
                Finding::Fine(found) => to.line(format_args!("ok    {subject}: {found}"))?,
                Finding::Wrong(Fault { message, remedy }) | Finding::Down(Fault { message, remedy }) => {
                    let word = if is_down { "DOWN" } else { "FAIL" };
                    to.line(format_args!("{word}  {subject}: {message}"))?;
                    to_do(&remedy, to)?;
                }
                Finding::Note(Fault { message, remedy }) => {
                    to.line(format_args!("note  {subject}: {message}"))?;
                    to_do(&remedy, to)?;
                }
                Finding::Open(Fault { message, remedy }) => {
                    to.line(format_args!("?     {subject}: could not be checked: {message}"))?;
                    to_do(&remedy, to)?;
                }
            }
        }
        Ok(())
    }

    fn verdict(&self, report: &Report) -> Verdict {
        let wrong =
            examine(self, report).iter().any(|check| !matches!(check.found, Finding::Fine(_) | Finding::Note(_)));
        Verdict { status: u8::from(wrong), ..Verdict::default() }
    }
}

/// What to do, where there is anything: sentences, and lines to be pasted.
fn to_do(remedy: &str, to: &mut Body<'_>) -> io::Result<()> {
    if remedy.is_empty() {
        return Ok(());
    }
    let mut lines = remedy.lines();
    to.line(format_args!("      To do: {}", lines.next().unwrap_or_default()))?;
    lines.try_for_each(|line| to.line(format_args!("        {line}")))
}

/// Checks everything.
fn examine(doctor: &Doctor, report: &Report) -> Vec<Check> {
    let Report { listing, flush, primary, filesystems, .. } = report;
    let fault = |message: String, remedy: String| Err(Fault { message, remedy });
    let told = |trouble: &Trouble| Err(Fault { message: trouble.to_string(), remedy: trouble.remedy() });
    let mail_server = match (&doctor.no_source, listing.kind) {
        (Some(trouble), _) => told(trouble),
        (None, kind) => Ok(format!(
            "{} {}",
            kind.map_or("unknown", |kind| kind.name()),
            listing.facts.version.as_deref().unwrap_or("(its version is unknown)")
        )),
    };
    let may_list = match &listing.trouble {
        Some(trouble) => told(trouble),
        None => Ok(format!(
            "{} in {:.2} s, with {}",
            count(listing.summary.messages, "message", "messages"),
            listing.sampling.took.as_secs_f64(),
            listing.sampling.command
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
        Ok(()) => Ok(whole_queue(&doctor.flush_command)),
    };
    let state = match (&doctor.state, &flush.set_aside, &flush.unguarded) {
        (_, Some(file), _) => {
            let file = file.display().to_string();
            fault(
                format!("the log of queue runs was damaged, and was set aside as {file}"),
                pasted(shell_quoted(&file).map(|file| to_paste("As root", &[&format!("rm {file}")]))),
            )
        }
        (Ok(_), None, Some(reason)) => fault(
            format!("the cool-down is off: {reason}"),
            match reason {
                StateError::Later { .. } => "Run that version here, or move the file away.".into(),
                _ => "Make room there, or correct its owner.".into(),
            },
        ),
        (Ok(Folder { directory, instead_of, shared, missing }), None, None) => {
            let directory = directory.display();
            match (instead_of, shared) {
                (Some(reason), _) => fault(format!("{directory} is used instead, as {reason}"), make_folder(doctor)),
                (None, Some(shared)) => {
                    Ok(format!("{directory}, which is root's own, and the locks of {}", shared.display()))
                }
                (None, None) => Ok(match missing {
                    Some(missing) => {
                        format!("{directory}, as there is no {}, which make install makes", missing.display())
                    }
                    None => directory.to_string(),
                }),
            }
        }
        (Err(reason), None, _) => {
            fault(format!("no folder is usable, so the cool-down is off: {reason}"), make_folder(doctor))
        }
    };
    let config_file =
        doctor.configuration.as_ref().map_or("none, all defaults".into(), |file| file.display().to_string());
    let mut checks = vec![
        Check::new("user", Ok(format!("{} ({})", doctor.account.name, doctor.account.uid))),
        Check::new("configuration", Ok(config_file)),
        Check::new("mail server", mail_server),
        Check::new("queue directory", directory),
        Check::new("listing the queue", may_list),
        Check::new("running the queue", may_flush),
        Check::new("state directory", state),
        Check::new(
            "access",
            Ok(format!("{}, and whom the web server lets in with BARTLEBY_ACCESS=granted", doctor.allow)),
        ),
    ];
    checks.extend(doctor.web.iter().map(|(subject, found)| Check::new(subject, found.clone())));
    checks.extend(sentences::unlisted(&listing.facts).map(|unlisted| Check::new("mail server", Ok(unlisted))));
    let gap = report.gap.as_deref().map(sentences::gap);
    let sandbox = match gap.or_else(|| primary.gap.as_deref().map(sentences::gap_of_primaries)) {
        None => Ok("what strangers wrote is read without the rights to open files, start programs or connect".into()),
        Some(gap) => fault(
            gap,
            "Run Linux 5.13 or later with \"landlock\" among the words of /sys/kernel/security/lsm (kernel \
                 parameter lsm=), and let containers use landlock(7) and seccomp(2)."
                .into(),
        ),
    };
    checks.push(Check::new("sandbox", sandbox));
    checks.extend(clock_checks(report));
    checks.extend(primary_checks(primary));
    for filesystem in filesystems {
        let mount = &filesystem.mount;
        let path = shell_quoted(&filesystem.mount);
        let remedy = |command: fn(&str) -> String| pasted(path.clone().map(|path| command(&path)));
        let found = match (filesystem.level, filesystem.usage.bytes_available, filesystem.usage.bytes) {
            (Level::Unknown, ..) => match &filesystem.error {
                Some(error) => fault(
                    format!("{mount}: {error}"),
                    remedy(|path| to_paste("Look after that mount", &[&format!("stat -f {path}")])),
                ),
                None => fault(
                    format!("{mount} does not answer"),
                    remedy(|path| to_paste("Look after that mount", &[&format!("umount -l {path}")])),
                ),
            },
            (Level::Ok, Some(free), Some(all)) => Ok(format!("{mount}: {} of {} free", bytes(free), bytes(all))),
            _ => fault(
                format!("{mount} is short of space or inodes"),
                remedy(|path| {
                    to_paste(
                        "Make room. To see what takes it",
                        &[&format!("du -xh {path} | sort -h | tail"), &format!("df -i {path}")],
                    )
                }),
            ),
        };
        checks.push(Check::new(if filesystem.queue { "disk (mail queue)" } else { "disk" }, found));
    }
    checks.extend(doctor.drill.iter().map(|(subject, found)| Check { subject, found: found.clone() }));
    checks
}

/// A command to be pasted, or why there is none.
fn pasted(command: Result<String, Odd>) -> String {
    command.unwrap_or_else(|odd| odd.to_string())
}

/// How to get the state folder that was to be used.
fn make_folder(doctor: &Doctor) -> String {
    let command = || {
        let path = doctor.wanted.to_string_lossy();
        let (folder, user) = (shell_quoted(&path)?, shell_quoted(&doctor.account.name)?);
        Ok(if doctor.account.is_root() {
            let look = [format!("ls -ld {folder}"), format!("namei -l {folder}")];
            to_paste("Look at its owner, and at the folders above it", &look.each_ref().map(String::as_str))
        } else {
            to_paste("As root", &[&format!("install -d -o {user} -m 700 {folder}")])
        })
    };
    pasted(command())
}

/// That the whole queue can be run, but no part of it, and by which command.
fn whole_queue(configured: &[String]) -> String {
    match configured {
        [] => "the whole queue; no rule allows a part of it".into(),
        command => format!("the whole queue, with the configured flush_command: {}", command.join(" ")),
    }
}

/// Less than this is too short for a fall-back, in seconds: RFC 5321, section 4.5.4.1, asks for at least 4 to 5 days.
const LEAST_LIFETIME: i64 = 5 * 24 * 60 * 60;

/// Whether mail is kept long enough, and tried again by itself.
fn clock_checks(report: &Report) -> Vec<Check> {
    let timing = &report.listing.facts.timing;
    let fault = |message: String, remedy: String| Err(Fault { message, remedy });
    let longest = report.outages.longest.as_ref().map_or(0, |of| of.seconds(report.listing.sampling.started));
    let more = || match timing.more_time.as_str() {
        "" => "Raise it in the mail server's own configuration, and [mta] lifetime with it.".to_owned(),
        more => more.to_owned(),
    };
    let lifetime = match &timing.lifetime {
        Lifetime::Known { .. } if !report.given_up().is_empty() => fault(given_up(report).unwrap_or_default(), more()),
        Lifetime::Known { seconds, basis, .. } if *seconds < LEAST_LIFETIME => fault(
            format!(
                "mail is returned after {} ({basis}), but the last server that has it should keep it for at least 5 days (RFC 5321, section 4.5.4.1)",
                duration(*seconds)
            ),
            more(),
        ),
        Lifetime::Known { seconds, basis, .. } if *seconds < longest => fault(
            format!(
                "mail is returned after {} ({basis}), but the primary was once down for {}",
                duration(*seconds),
                duration(longest)
            ),
            more(),
        ),
        Lifetime::Known { seconds, basis, .. } => Ok(format!("mail is kept for {} ({basis})", duration(*seconds))),
        Lifetime::NotInForce { basis, file, step, .. } => fault(
            format!("{file} was changed after the mail server was started, so {basis} there may not be in force"),
            step.clone(),
        ),
        Lifetime::Unknown(gap) => {
            fault(format!("it is not known how long mail is kept: {}", gap.why), gap.remedy.clone())
        }
    };
    let not_known = |what: &str, gap: &Gap| {
        // What would help the lifetime is said there.
        let is_said = matches!(&timing.lifetime, Lifetime::Unknown(other) if other == gap);
        let remedy = if is_said { String::new() } else { gap.remedy.clone() };
        Finding::Note(Fault { message: format!("it is not known when {what} is tried again: {}", gap.why), remedy })
    };
    let retry = match (&timing.stopped, &timing.retry) {
        (Some(gap), _) => Finding::Wrong(Fault { message: gap.why.clone(), remedy: gap.remedy.clone() }),
        (None, Retry::Within { seconds, basis, .. }) => match report.next_attempt() {
            Some(Err(gap)) => not_known("all that waits", &gap),
            _ => Finding::Fine(format!("what waits is tried again within {} ({basis})", at_most(*seconds))),
        },
        (None, Retry::Listed { basis }) => Finding::Fine(format!("{basis} says when each message is tried again")),
        (None, Retry::Unknown(gap)) => not_known("what waits", gap),
    };
    vec![Check::new("lifetime", lifetime), Check { subject: "next attempt", found: retry }]
}

/// Whether the primaries answer, and whether the domain name system knows them and this host.
fn primary_checks(status: &PrimaryStatus) -> Vec<Check> {
    let check = Check::new;
    let fault = |message: String, remedy: &str| Err(Fault { message, remedy: remedy.to_owned() });
    let faults = status.faults.iter().map(|found| check("DNS", fault(found.message.clone(), &found.remedy)));
    let notes = status.notes.iter().map(|note| check("DNS", Ok(note.clone())));
    let mut checks: Vec<_> = faults.chain(notes).collect();
    if checks.is_empty() {
        let found = match &status.domains {
            Some(domains) => Ok(format!("the MX records of {} are as they should be", domains.join(", "))),
            None if !status.primaries.is_empty() => Ok("not compared, as [primary] domains are not configured".into()),
            None => fault(
                "it is not known for which domains this host is a backup mail server".into(),
                "Name them in /etc/bartleby.toml:\n    [primary]\n    domains = [\"example.com\"]",
            ),
        };
        checks.push(check("DNS", found));
    }
    checks.extend(status.primaries.iter().map(|primary| {
        let words = format!("{} is {}: {}", primary.host, primary.state.as_str(), primary.detail);
        let found = match primary.is_up() {
            Some(true) => Finding::Fine(words),
            is_up => {
                let remedy = "Look after that server, its network and its firewall; mail waits here meanwhile.".into();
                let fault = Fault { message: words, remedy };
                if is_up == Some(false) { Finding::Down(fault) } else { Finding::Wrong(fault) }
            }
        };
        Check { subject: "primary", found }
    }));
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_command_is_named_only_where_one_is_configured() {
        assert_eq!(whole_queue(&[]), "the whole queue; no rule allows a part of it");
        let command = ["sudo".to_owned(), "-n".to_owned(), "x".to_owned()];
        assert_eq!(whole_queue(&command), "the whole queue, with the configured flush_command: sudo -n x");
    }
}
