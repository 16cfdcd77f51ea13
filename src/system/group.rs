//! Process groups: what is left of one that was ended.

use std::fs;

use nix::unistd::Pid;

/// Whether all of a process group have ended, although nobody waits for some of them: in a container, say, whose first
/// process does not.
pub(super) fn has_ended(group: Pid) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    let stats = processes.flatten().filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    // `pid (name) state parent group`, where the name may hold anything (proc_pid_stat(5)).
    let runs = |stat: String| {
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().take(3).collect();
        matches!(fields[..], [state, _, of] if of == group.to_string() && !["Z", "X"].contains(&state))
    };
    !stats.into_iter().any(runs)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::sys::signal::{Signal, kill};

    use super::*;
    use crate::system::Free;
    use crate::system::process::{Argv, Ending, start};

    #[test]
    fn a_group_has_ended_also_where_nobody_has_waited_for_it() {
        let running = start(&Free::of_main(), &Argv::new("/bin/sh", &["-c", "echo $$; exec sleep 987"])).unwrap();
        let mut line = String::new();
        BufReader::new(running.stdout()).read_line(&mut line).unwrap();
        let group = Pid::from_raw(line.trim().parse().unwrap());
        assert!(!has_ended(group));
        kill(group, Signal::SIGKILL).unwrap();
        while !fs::read_to_string(format!("/proc/{group}/stat")).unwrap().contains(") Z ") {
            thread::sleep(Duration::from_millis(5));
        }
        assert!(has_ended(group), "it still has its number");
    }

    #[test]
    fn at_the_deadline_the_whole_process_group_is_gone() {
        let deadline = Instant::now() + Duration::from_millis(300);
        let two = Argv::new("/bin/sh", &["-c", "sleep 987 & echo $!; echo $$; sleep 987"]);
        let (exit, output) = start(&Free::of_main(), &two).unwrap().collect(deadline);
        assert_eq!(exit.ending, Ending::Deadline);
        let lines = String::from_utf8(output).unwrap();
        assert_eq!(lines.lines().count(), 2, "what was printed before is kept");
        for pid in lines.lines() {
            let gone = (0..100).any(|_| {
                thread::sleep(Duration::from_millis(20));
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.is_empty() || stat.contains(") Z ")
            });
            assert!(gone, "{pid} still runs");
        }
    }

    /// As what sudo(8) starts.
    #[test]
    fn what_left_the_group_with_its_output_is_not_said_to_be_stopped() {
        let leaves = Argv::new("/bin/sh", &["-c", "setsid sh -c 'echo $$; exec sleep 987' & wait"]);
        let running = start(&Free::of_main(), &leaves).unwrap();
        let (exit, output) = running.collect(Instant::now() + Duration::from_millis(300));
        assert_eq!(exit.ending, Ending::OutOfReach);
        let pid = String::from_utf8(output).unwrap().trim().parse().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
}
