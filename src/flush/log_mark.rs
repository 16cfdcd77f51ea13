//! Where the mail log ends before a run.

use std::time::{Duration, Instant};

use super::log_files::ends;
use super::mail_log::{Places, journalctl};
use crate::context::Context;
use crate::mta::Mark;
use crate::mta::as_root::Request;
use crate::mta::mark;
use crate::system::process;

/// How long journalctl(1), or root, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer that is read, in bytes.
const LONGEST: usize = 16 * 1024;

/// The mark, as far as this user can see it.
pub(crate) fn note(context: &Context, places: &Places) -> Mark {
    let cursor = match places {
        Places::Named(_) => None,
        Places::Usual(_) => last_entry(context),
    };
    Mark { files: places.files().iter().flat_map(|log| ends(log)).collect(), cursor }
}

/// The same by the one rule for root; `None` where there is none, or root's program is of a version without marks.
pub(super) fn note_by_rule(context: &Context) -> Option<Mark> {
    let command = context.by_the_one_rule(&Request::Mark {})?;
    let running = process::start(&context.free, &command).ok()?;
    let (exit, answer) = running.collect_up_to(LONGEST, Instant::now() + PATIENCE);
    if exit.success() { serde_json::from_slice(&answer).ok() } else { None }
}

/// The place of the journal's last entry from a mail server: only of the system's own journal, so that there is none where
/// this user can read nothing but what he wrote there himself. Of the entry, nothing but its place is printed.
fn last_entry(context: &Context) -> Option<String> {
    let command = journalctl(&["--system", "--lines=1", "--output-fields=_UID"]);
    let running = process::start(&context.free, &command).ok()?;
    let (exit, entry) = running.collect_up_to(LONGEST, Instant::now() + PATIENCE);
    exit.success().then(|| mark::cursor(entry.trim_ascii_end())).flatten()
}
