//! Postfix's configuration, as postconf(1) prints it: version, settings, and for which domains it relays mail.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::instances::Instance;
use super::lifetime;
use crate::mta::intake::{Intake, IntakeInquiry, List, Softens};
use crate::mta::relay::{domains, keys};
use crate::mta::{Facts, RelayInquiry, Relaying, Wanted};
use crate::system::process::{self, Argv, Running};

/// A value in the lines `name = value` of postconf(1).
pub(super) fn value(output: &str, name: &str) -> Option<String> {
    output.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

/// `relay_domains` of postconf(5) in the settings of each instance: names, files with names, and tables, whose keys
/// postmap(1) prints (`table` asks it), but for those that are delivered here (`relay_domains = $mydestination`): they need
/// no mail exchanger. And the first one's `myhostname`.
fn relaying(settings: &[String], table: impl Fn(&str) -> Option<String>) -> Relaying {
    let all = |name| settings.iter().filter_map(move |settings| value(settings, name));
    let delivered_here: Vec<_> = all("mydestination").flat_map(|names| domains(&names)).collect();
    let named = |relayed: String| {
        let words = relayed.split([',', ' ', '\t', '\n']).map(|word| match word.contains(':') {
            _ if word.starts_with('/') => domains(&fs::read_to_string(word).unwrap_or_default()),
            true => table(word).map_or_else(|| domains(word), |printed| domains(&keys(&printed))),
            false => domains(word),
        });
        words.collect::<Vec<_>>().concat()
    };
    Relaying {
        domains: all("relay_domains").flat_map(named).filter(|domain| !delivered_here.contains(domain)).collect(),
        own_name: settings.first().and_then(|settings| value(settings, "myhostname")),
        just_changed: None,
    }
}

/// Whether postconf(1) waits before it reads the file: until that is two seconds old (`dict_load_file_xt()` of Postfix's dict.c), so that
/// it reads no half of it.
fn is_settling(main_cf: &Path) -> bool {
    const SETTLED: Duration = Duration::from_secs(2);
    let changed = fs::metadata(main_cf).and_then(|found| found.modified());
    changed.is_ok_and(|changed| changed.elapsed().map_or(true, |since| since <= SETTLED))
}

/// Asks postconf(1) for that, of each instance.
pub(super) fn ask(
    postconf: PathBuf,
    postmap: Option<PathBuf>,
    main_cf: PathBuf,
    instances: Vec<Instance>,
) -> RelayInquiry {
    Box::new(move |free, deadline| {
        let start = |program: &PathBuf, arguments: &[&str]| process::start(free, &Argv::new(program, arguments)).ok();
        let answer = |running: Option<Running>| {
            let output = running.map(|running| running.collect(deadline).1).unwrap_or_default();
            String::from_utf8_lossy(&output).into_owned()
        };
        let is_settling = is_settling(&main_cf);
        let question = ["-x", "relay_domains", "mydestination", "myhostname"];
        let asked: Vec<_> = instances.iter().map(|instance| start(&postconf, &instance.arguments(&question))).collect();
        let settings: Vec<_> = asked.into_iter().map(answer).collect();
        let table = |name: &str| postmap.as_ref().map(|postmap| answer(start(postmap, &["-s", name])));
        let just_changed = (settings.first().is_none_or(String::is_empty) && is_settling).then_some("main.cf");
        Relaying { just_changed, ..relaying(&settings, table) }
    })
}

/// Asks postconf(1) for `relay_recipient_maps` and `soft_bounce`, and postmap(1) for the first of the tables that has
/// addresses: all of a table's keys.
pub(super) fn ask_for_intake(postconf: Option<PathBuf>, postmap: Option<PathBuf>) -> IntakeInquiry {
    Box::new(move |free, deadline| {
        let answer = |program: &Option<PathBuf>, arguments: &[&str]| {
            let running = process::start(free, &Argv::new(program.as_ref()?, arguments)).ok()?;
            Some(String::from_utf8_lossy(&running.collect(deadline).1).into_owned())
        };
        let settings = answer(&postconf, &["-x", "relay_recipient_maps", "soft_bounce"]).unwrap_or_default();
        intake(&settings, |table| answer(&postmap, &["-s", table]))
    })
}

fn intake(settings: &str, table: impl Fn(&str) -> Option<String>) -> Intake {
    let maps = value(settings, "relay_recipient_maps").unwrap_or_default();
    let names = maps.split([',', ' ', '\t', '\n']).filter(|word| word.contains(':'));
    let of_table = |name: &str| {
        let printed = keys(&table(name).unwrap_or_default());
        List::of_keys(name.to_owned(), printed.lines())
    };
    let lists: Vec<List> = names.map(of_table).collect();
    let known = lists.iter().position(|list| !list.addresses.is_empty()).unwrap_or_default();
    let softens = value(settings, "soft_bounce").map(|word| if word == "yes" { Softens::Yes } else { Softens::No });
    Intake { list: lists.into_iter().nth(known), softens }
}

/// The file that postlogd(8) writes, if any (since Postfix 3.4).
const LOG: &str = "maillog_file";

/// The parameters that say what is wanted.
pub(super) fn parameters(wanted: Wanted) -> Vec<&'static str> {
    match wanted {
        Wanted::Everything => {
            let names = ["mail_version", "queue_directory", "authorized_flush_users", LOG];
            names.into_iter().chain(lifetime::parameters()).collect()
        }
        Wanted::Permissions => vec!["authorized_flush_users", LOG],
        Wanted::Nothing => Vec::new(),
    }
}

/// Version and settings.
pub(super) fn facts(output: &str) -> Facts {
    Facts {
        version: value(output, "mail_version"),
        queue_directory: value(output, "queue_directory").map(PathBuf::from),
        flush_users: value(output, "authorized_flush_users"),
        log: value(output, LOG).map(PathBuf::from).filter(|log| log.is_absolute()),
        ..Facts::default()
    }
    .or_usual("/var/spool/postfix")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_that_is_delivered_here_is_not_relayed() {
        let settings = "mydestination = bartleby.example.net, localhost\nmyhostname = bartleby.example.net\n";
        let read = |relayed: &str| {
            let table = |name: &str| (name == "hash:/etc/relay").then(|| "other.example x\n".to_owned());
            relaying(&[format!("relay_domains = {relayed}\n{settings}")], table)
        };
        assert_eq!(read("bartleby.example.net, localhost").domains, [""; 0], "$mydestination");
        assert_eq!(
            read("example.com, hash:/etc/relay, bartleby.example.net").domains,
            ["example.com", "other.example"]
        );
        assert_eq!(read("").own_name.as_deref(), Some("bartleby.example.net"));
        let second = "relay_domains = second.example, bartleby.example.net\nmyhostname = out.example.net\n";
        let both = relaying(&[format!("relay_domains = example.com\n{settings}"), second.to_owned()], |_| None);
        assert_eq!(both.domains, ["example.com", "second.example"]);
        assert_eq!(both.own_name.as_deref(), Some("bartleby.example.net"));
    }

    #[test]
    fn the_recipients_are_those_of_the_first_table_that_has_any() {
        let table =
            |name: &str| (name == "texthash:/b").then(|| "larry@example.com\tx\n@sub.example.com\tx\n".to_owned());
        let read = |settings: &str| intake(settings, table);
        let found = read("relay_recipient_maps = hash:/a, texthash:/b\nsoft_bounce = yes\n");
        let list = found.list.unwrap();
        assert_eq!((list.name.as_str(), list.addresses.len(), list.open.len()), ("texthash:/b", 1, 1));
        assert_eq!(found.softens, Some(Softens::Yes));
        assert_eq!(
            read("relay_recipient_maps =\nsoft_bounce = no\n"),
            Intake { list: None, softens: Some(Softens::No) }
        );
        assert!(
            read("relay_recipient_maps = hash:/a\n").list.unwrap().addresses.is_empty(),
            "named, and not to be read"
        );
        assert_eq!(read(""), Intake::default());
    }

    #[test]
    fn a_main_cf_that_was_changed_a_moment_ago_is_settling() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(is_settling(file.path()));
        let past = std::time::SystemTime::now() - Duration::from_secs(3);
        file.as_file().set_modified(past).unwrap();
        assert!(!is_settling(file.path()));
        assert!(!is_settling(Path::new("/nonexistent")));
    }

    #[test]
    fn settings_are_read_from_postconf() {
        let read = facts("mail_version = 3.7.11\nqueue_directory = /var/spool/postfix\nauthorized_flush_users =\n");
        assert_eq!(read.version.as_deref(), Some("3.7.11"));
        assert_eq!(read.queue_directory, Some("/var/spool/postfix".into()));
        assert_eq!(read.flush_users.as_deref(), Some(""));
        assert_eq!(read.log, None);
        let log = |line: &str| facts(line).log;
        assert_eq!(log("maillog_file = /var/log/postfix.log\n"), Some("/var/log/postfix.log".into()));
        assert_eq!(log("maillog_file =\n"), None);
    }
}
