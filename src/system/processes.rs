//! The processes of other programs, as proc(5) shows them: whether a daemon runs, since when, and with which arguments.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// The clock ticks a second in which proc(5) counts: the kernel's `USER_HZ`, 100 on every architecture that Rust's
/// standard library supports on Linux.
const TICKS: u64 = 100;

/// The most of a process's arguments that is read, in bytes.
const LONGEST: usize = 4096;

/// A process of another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// When it was started.
    pub(crate) started: SystemTime,
    /// Its arguments, the first of them its name; a program may have written something else there (setproctitle(3)).
    pub(crate) arguments: Vec<String>,
}

/// The processes of programs with one of these names, each at most 15 characters long; `None` where this user can't see
/// the processes of others (`hidepid` of proc(5)), so that nothing is known of them.
pub(crate) fn named(names: &[&str]) -> Option<Vec<Process>> {
    named_below(Path::new("/proc"), names, SystemTime::now())
}

fn named_below(proc: &Path, names: &[&str], now: SystemTime) -> Option<Vec<Process>> {
    let name_of = |folder: &Path| fs::read_to_string(folder.join("comm")).ok();
    // Where the first process has no name, that of no other user has one.
    name_of(&proc.join("1"))?;
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let folders = fs::read_dir(proc).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let folders = folders.filter(|folder| folder.file_name().and_then(|name| name.to_str()).is_some_and(is_number));
    let sought = folders.filter(|folder| name_of(folder).is_some_and(|name| names.contains(&name.trim_end())));
    // One that ends meanwhile does not count.
    Some(sought.filter_map(|folder| process(proc, &folder, now)).collect())
}

fn process(proc: &Path, folder: &Path, now: SystemTime) -> Option<Process> {
    let uptime = fs::read_to_string(proc.join("uptime")).ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // The name, in brackets, may hold anything. Behind it the 20th word is the start after the boot (field 22).
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()?;
    let ago = uptime - ticks as f64 / TICKS as f64;
    let arguments = fs::read(folder.join("cmdline")).ok()?;
    let arguments = String::from_utf8_lossy(&arguments[..arguments.len().min(LONGEST)]);
    Some(Process {
        started: now.checked_sub(Duration::try_from_secs_f64(ago.max(0.0)).ok()?)?,
        arguments: arguments.trim_end_matches('\0').split('\0').map(str::to_owned).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(processes: &[(u32, &str, u64, &str)]) -> tempfile::TempDir {
        let proc = tempfile::tempdir().unwrap();
        fs::write(proc.path().join("uptime"), "1000.50 1800.00\n").unwrap();
        for (number, name, ticks, arguments) in processes {
            let folder = proc.path().join(number.to_string());
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("comm"), format!("{name}\n")).unwrap();
            let zeros = "0 ".repeat(18);
            fs::write(folder.join("stat"), format!("{number} ({name}) S {zeros}{ticks} 1 2\n")).unwrap();
            fs::write(folder.join("cmdline"), arguments).unwrap();
        }
        proc
    }

    #[test]
    fn a_daemon_is_known_by_its_name_with_its_start_and_its_arguments() {
        let proc = machine(&[
            (1, "init", 0, "/sbin/init\0"),
            (40, "exim4", 20_050, "/usr/sbin/exim4\0-bdf\0-q30m\0"),
            (41, "a) b (", 1, "x\0"),
            (42, "sendmail-mta", 30_050, "sendmail: MTA: accepting connections\0\0\0"),
        ]);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_434_300);
        let found = named_below(proc.path(), &["exim4", "sendmail-mta"], now).unwrap();
        let mut found: Vec<_> =
            found.into_iter().map(|of| (now.duration_since(of.started).unwrap().as_secs(), of.arguments)).collect();
        found.sort();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            found,
            [
                (700, words(&["sendmail: MTA: accepting connections"])),
                (800, words(&["/usr/sbin/exim4", "-bdf", "-q30m"]))
            ]
        );
        assert_eq!(named_below(proc.path(), &["qmgr"], now), Some(vec![]));
        assert_eq!(named_below(proc.path(), &["a) b ("], now).unwrap().len(), 1);
    }

    #[test]
    fn where_the_processes_of_others_are_hidden_nothing_is_known() {
        let proc = machine(&[(40, "exim4", 1, "/usr/sbin/exim4\0")]);
        assert_eq!(named_below(proc.path(), &["exim4"], SystemTime::now()), None);
    }

    #[test]
    fn this_process_was_started_a_while_ago() {
        let own = fs::read_to_string("/proc/self/comm").unwrap();
        let Some(found) = named(&[own.trim_end()]) else { return };
        let now = SystemTime::now() + Duration::from_secs(1);
        assert!(!found.is_empty() && found.iter().all(|of| of.started < now));
    }
}
