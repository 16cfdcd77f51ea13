//! What a mail server says of itself: its version and its settings.

use std::path::PathBuf;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::timing::Timing;
use crate::system::process::{self, Argv};
use crate::system::{Free, Until};

/// What a caller needs to know of a mail server besides its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// All of [`Facts`].
    Everything,
    /// Whether this user may run the queue: [`Facts::flush_users`] and [`Facts::flush_needs_admin`]; and [`Facts::log`].
    Permissions,
    /// The queue alone: no program is started.
    Nothing,
}

/// What is known of a mail server besides its queue. What was not asked for may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Its version.
    pub(crate) version: Option<String>,
    /// Where it keeps its queue.
    pub(crate) queue_directory: Option<PathBuf>,
    /// Postfix: who may run the queue (`authorized_flush_users`).
    pub(crate) flush_users: Option<String>,
    /// Postfix: instances whose queues are not listed, as they are disabled (`multi_instance_enable`).
    #[serde(default)]
    pub(crate) unlisted: Vec<String>,
    /// Exim: whether it takes an admin user to run the queue (`prod_requires_admin`).
    pub(crate) flush_needs_admin: Option<bool>,
    /// Where its settings say that it logs, where that is a file.
    #[serde(default)]
    pub(crate) log: Option<PathBuf>,
    /// How long mail is kept, and by when it is tried again.
    pub(crate) timing: Timing,
}

/// What only root can learn of when mail is tried next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hints {
    /// What is noted of hosts and addresses that failed.
    pub(crate) noted: Vec<Hint>,
    /// Whether an administrator has paused all deliveries.
    pub(crate) is_paused: bool,
}

/// What a mail server has noted of a host or an address that failed. Instants are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// The host, as the mail server names it there; `None` for an address.
    pub(crate) host: Option<String>,
    /// The first failure.
    pub(crate) first: i64,
    /// The last attempt.
    pub(crate) last: i64,
    /// When it is tried next, at the earliest.
    pub(crate) next: i64,
}

/// An inquiry under way: commands that print version and settings.
pub struct Inquiry {
    running: Vec<Option<process::Running>>,
    read: Box<Read>,
}

/// Reads what the commands printed, and may start others, until the deadline.
type Read = dyn FnOnce(&Free, &[String], Instant) -> Facts;

impl Inquiry {
    /// Starts the commands, all at once. `read` gets all that they print, on either stream. A command that can't be
    /// started prints nothing.
    pub(super) fn start(free: &Free, commands: &[Argv], read: impl FnOnce(&str) -> Facts + 'static) -> Inquiry {
        Inquiry::start_then(free, commands, |_, output, _| read(output))
    }

    /// The same, where `read` gets what each of them prints, in their order; of one that can't be started, that is nothing.
    pub(super) fn start_each(
        free: &Free,
        commands: &[Argv],
        read: impl FnOnce(&[String]) -> Facts + 'static,
    ) -> Inquiry {
        Inquiry { running: all(free, commands), read: Box::new(|_, outputs, _| read(outputs)) }
    }

    /// The same, where `read` may start further commands.
    pub(super) fn start_then(
        free: &Free,
        commands: &[Argv],
        read: impl FnOnce(&Free, &str, Instant) -> Facts + 'static,
    ) -> Inquiry {
        let read = |free: &Free, outputs: &[String], deadline| read(free, &outputs.concat(), deadline);
        Inquiry { running: all(free, commands), read: Box::new(read) }
    }

    /// Waits for the answers. At the deadline, it does without those that are missing.
    pub(crate) fn answer<'a>(self, free: &Free, until: impl Into<Until<'a>>) -> Facts {
        let until = until.into();
        let outputs: Vec<_> = self.running.into_iter().map(|running| printed(running, until)).collect();
        (self.read)(free, &outputs, until.deadline)
    }
}

/// Starts the commands, all at once; `None` for one that can't be started.
fn all(free: &Free, commands: &[Argv]) -> Vec<Option<process::Running>> {
    commands.iter().map(|argv| process::start(free, argv).ok()).collect()
}

/// All that each of these commands prints until a deadline, on either stream, in their order.
pub(super) fn answers(free: &Free, commands: &[Argv], deadline: Instant) -> Vec<String> {
    all(free, commands).into_iter().map(|running| printed(running, deadline)).collect()
}

fn printed<'a>(running: Option<process::Running>, until: impl Into<Until<'a>>) -> String {
    let Some(running) = running else { return String::new() };
    let (exit, output) = running.collect(until);
    format!("{}\n{}\n", String::from_utf8_lossy(&output), exit.said)
}

impl Facts {
    /// Whether they hold for a while: the mail server answered, and nothing is amiss of which somebody may soon look
    /// whether it is mended.
    pub(crate) fn hold(&self) -> bool {
        self.version.is_some() && self.timing.is_settled()
    }

    /// The same facts, with the usual queue directory, if it is there, where the settings name none.
    pub(super) fn or_usual(mut self, directory: &str) -> Facts {
        self.queue_directory =
            self.queue_directory.or_else(|| Some(directory.into()).filter(|path: &PathBuf| path.is_dir()));
        self
    }
}
