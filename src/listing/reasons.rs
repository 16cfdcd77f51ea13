//! Why messages wait, where the listing does not say (Exim): asked message by message. The reader names queue ids, the
//! parent runs the mail server's command for each, and hands what that prints to the reader without a look at it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::context::{Context, Source};
use crate::mta::privilege;
use crate::mta::trouble::Trouble;
use crate::queue::{Row, Target};
use crate::system::process::{self, Ending, Exit};

/// How long the mail server may take to explain all messages of a page.
const PATIENCE: Duration = Duration::from_secs(3);

/// How much of what is said of a message is looked at, in bytes: the end, as the last attempt counts.
const LOOKED_AT: usize = 32 * 1024;

/// What the mail server said.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Explained {
    /// Of which message, and what.
    said: Vec<(String, String)>,
    /// Why it did not explain them all to this user.
    pub trouble: Option<Trouble>,
}

/// Asks the mail server of these messages, until it refuses or time is over.
pub(crate) fn ask(context: &Context, ids: &[String]) -> Explained {
    let mut explained = Explained::default();
    // A configured command may list another machine's queue.
    let (Ok(source), true) = (&context.source, context.config.mta.list_command.is_empty()) else { return explained };
    let deadline = Instant::now() + PATIENCE;
    let mut prefix = None;
    for id in ids.iter().filter(|id| Target::Id(id.to_string()).is_plain()) {
        let Some(command) = source.mta.reason_command(id) else { return explained };
        let prefix = prefix.get_or_insert_with(|| privilege::prefix(&context.free, &command, &context.account));
        let asked = prefix.clone().map_or(command.clone(), |prefix| prefix.and(&command));
        let (exit, output) = match process::start(&context.free, &asked) {
            Ok(running) => running.collect_end(LOOKED_AT, deadline),
            Err(not_started) => {
                explained.trouble = Some(not_started.into());
                return explained;
            }
        };
        let output = String::from_utf8_lossy(&output).into_owned();
        explained.trouble = match exit.ending {
            Ending::Deadline => Some(Trouble::TooSlow { command: command.to_string(), after: PATIENCE }),
            Ending::OutOfReach => {
                Some(Trouble::OutOfReach { command: command.to_string(), after: PATIENCE, messages: 0 })
            }
            // A refusal may be said on either stream, and is one for all; one message may have gone meanwhile.
            _ if !exit.success() => {
                let first = output.lines().next().unwrap_or_default();
                let exit = Exit { said: format!("{first}\n{}", exit.said), ..exit };
                source.mta.reason_verdict(&command, &exit, &context.account).err()
            }
            _ => None,
        };
        if explained.trouble.is_some() {
            return explained;
        }
        if !output.is_empty() {
            explained.said.push((id.clone(), output));
        }
    }
    explained
}

impl Explained {
    /// Fills in the reasons of these messages, as far as they are known.
    pub fn fill_in(&self, source: &Source, rows: &mut [Row]) {
        for (id, output) in &self.said {
            // A later line overrides an earlier.
            let reasons: HashMap<String, String> =
                output.lines().filter_map(|line| source.mta.read_reason(line)).collect();
            let of_this = rows.iter_mut().map(|row| &mut row.message).filter(|message| message.id == *id);
            for recipient in of_this.flat_map(|message| &mut message.recipients) {
                recipient.reason = reasons.get(&*recipient.address).map(|reason| reason.clone().into());
            }
        }
    }
}
