//! The worker of a queue run: runs the commands, which may take as long as the run does, while another process follows what
//! comes of them.

use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Notes, follow};
use crate::config::Config;
use crate::context::Context;
use crate::sandbox::worker::answer;
use crate::state::SeenBy;
use crate::system::process::{self, Argv, Exit};
use crate::system::{Free, close_standard_streams, log};

/// The longest time for which the worker lets the commands run.
const RUN_LIMIT: Duration = Duration::from_secs(60 * 60);

/// How the commands ended: the first one that failed, or else the last one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ended {
    /// Which command, from 0.
    pub(crate) command: usize,
    /// How it ended, or why it could not be started.
    pub(crate) end: Result<Exit, String>,
}

/// How long the follower waits for a refusal before its first look, where the commands have not ended by then.
const UNREFUSED: Duration = Duration::from_secs(3);

/// How often it looks whether they have.
const SOON: Duration = Duration::from_millis(50);

/// Runs the commands one after the other, answers how they [`Ended`], and records that under the run's number (0: it
/// has none). Another process follows the run meanwhile. The first `prepared` commands are a preparation.
pub(super) fn work(free: Free, config: Config, number: u64, commands: &[Argv], prepared: usize, notes: Option<&Notes>) {
    if number > 0 {
        // Where it can't be started, the page shows its own count.
        let _ = process::branch_off(&free, |free| watch_over(free, config.clone(), number, notes));
    }
    let ended = run_all(&free, commands, prepared);
    answer(&ended);
    // The parent stops waiting, and the lock is released.
    close_standard_streams();
    let Some(Ended { command, end: Ok(exit) }) = ended else { return };
    // Nothing was run; the parent takes it off the record.
    if number == 0 || (command <= prepared && !exit.success()) {
        return;
    }
    let context = Context::gather(free, SeenBy::Flush, config);
    if let Ok(records) = &context.records
        && let Err(error) = records.add_exit(number, &exit.describe())
    {
        log(&error.to_string());
    }
}

/// Follows the run of this number, unless it is taken off the record.
fn watch_over(free: Free, config: Config, number: u64, notes: Option<&Notes>) {
    let context = Context::gather(free, SeenBy::Flush, config);
    let Ok(records) = &context.records else { return };
    let begin = Instant::now() + UNREFUSED;
    while records.is_taken() && Instant::now() < begin {
        thread::sleep(SOON);
    }
    if let Ok(Some(flush)) = records.flush(number) {
        follow(&context, &flush, notes, |_| ());
    }
}

fn run_all(free: &Free, commands: &[Argv], prepared: usize) -> Option<Ended> {
    let deadline = Instant::now() + RUN_LIMIT;
    let mut last = None;
    for (command, argv) in commands.iter().enumerate() {
        let end = process::start(free, argv).map_err(|not_started| not_started.error).map(|running| {
            let (exit, output) = running.collect(deadline);
            Exit { said: format!("{}\n{}", String::from_utf8_lossy(&output), exit.said), ..exit }
        });
        let failed = !end.as_ref().is_ok_and(Exit::success);
        last = Some(Ended { command, end });
        if failed && command >= prepared {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preparation_may_fail_and_what_was_run_is_named_by_its_number() {
        let run = |scripts: &[&str], prepared| {
            let commands: Vec<_> = scripts.iter().map(|script| Argv::new("/bin/sh", &["-c", script])).collect();
            let ended = run_all(&Free::of_main(), &commands, prepared).unwrap();
            (ended.command, ended.end.map(|exit| exit.code))
        };
        assert_eq!(run(&["exit 1", "exit 0"], 1), (1, Ok(Some(0))));
        assert_eq!(run(&["exit 1", "exit 2", "exit 0"], 1), (1, Ok(Some(2))));
        assert_eq!(run(&["exit 0", "exit 3", "exit 0"], 0), (1, Ok(Some(3))));
        let missing = run_all(&Free::of_main(), &[Argv::new("/nonexistent", &[])], 0).unwrap();
        assert!(missing.end.unwrap_err().contains("No such file"));
    }
}
