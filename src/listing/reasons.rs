//! Why messages wait, where the listing does not tell (Exim): asked message by message, which takes programs to be
//! started after strangers' words were read. A process of its own starts them; it is told queue ids, and passes on
//! what the mail server says without a look at it.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::{self, Write};
use std::mem;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::context::{Context, Source};
use crate::mta::privilege;
use crate::mta::trouble::Trouble;
use crate::queue::Row;
use crate::request::Target;
use crate::sandbox::worker;
use crate::system::Account;
use crate::system::process::{self, Ending, Exit, Running};

/// The word that makes this program ask.
pub const WORKER: &str = "run-reasons";

/// How long the mail server may take to tell the reasons of all messages on a page.
const PATIENCE: Duration = Duration::from_secs(3);

/// How much of a line of the mail server's is looked at, in bytes.
const LONGEST_LINE: usize = 16 * 1024;

/// What a line of the mail server is passed on behind; a line without it is our own.
const PASSED_ON: u8 = b' ';

/// The process that asks, waiting for ids.
pub struct Reasons(Result<Option<Running>, Trouble>);

/// How the question for one message ended.
#[derive(Serialize, Deserialize)]
struct Told {
    id: String,
    end: Result<Exit, Trouble>,
}

impl Reasons {
    /// Starts the process where there is something to ask for.
    pub fn begin(context: &Context) -> Reasons {
        // A configured command may list another machine's queue.
        let own = context.config.mta.list_command.is_empty();
        let asked = own
            && context.source.as_ref().is_ok_and(|source| source.mta.reason_command(source.mta.sample_id()).is_some());
        let start = || Ok(process::start_listening(&worker::again(&context.config, WORKER, &[])?)?);
        Reasons(asked.then(start).transpose())
    }

    /// Fills in the reasons of a page's messages, as far as time allows.
    ///
    /// # Errors
    /// Why the mail server does not tell this user, or that the time was over; what is not told by then stays
    /// without a reason.
    pub fn explain(self, context: &Context, rows: &mut [Row]) -> Result<(), Trouble> {
        let (Some(mut running), Ok(source)) = (self.0?, &context.source) else { return Ok(()) };
        let Some(command) = rows.first().and_then(|row| source.mta.reason_command(&row.message.id)) else {
            return Ok(());
        };
        running.tell(rows.iter().map(|row| format!("{}\n", row.message.id)).collect::<String>().as_bytes());
        let shown: HashSet<String> = rows
            .iter()
            .flat_map(|row| &row.message.recipients)
            .map(|recipient| recipient.address.to_string())
            .collect();
        let mut reasons = HashMap::new();
        // A refusal may be told on either stream.
        let mut first = None;
        let mut refused = Ok(());
        let exit = running.lines(Instant::now() + PATIENCE + PATIENCE, None, |line| match line.split_first() {
            Some((&PASSED_ON, line)) => {
                let line = String::from_utf8_lossy(&line[..line.len().min(LONGEST_LINE)]);
                reasons.extend(source.mta.read_reason(&line).filter(|(address, _)| shown.contains(address)));
                first.get_or_insert_with(|| line.into_owned());
            }
            _ => {
                let (reasons, first) = (mem::take(&mut reasons), first.take().unwrap_or_default());
                let told = serde_json::from_slice(line);
                match told.map(|Told { id, end }| (id, end)) {
                    Ok((_, Ok(exit))) if exit.ending == Ending::Deadline => {
                        refused = Err(Trouble::TooSlow { command: command.to_string(), after: PATIENCE });
                    }
                    Ok((_, Ok(exit))) if !exit.success() => {
                        let exit = Exit { said: format!("{first}\n{}", exit.said), ..exit };
                        // The message may have gone meanwhile; a refusal is one for all.
                        let verdict = source.mta.reason_verdict(&command, &exit, &context.account);
                        refused = mem::replace(&mut refused, Ok(())).and(verdict);
                    }
                    Ok((id, Ok(_))) => {
                        let of_this = rows.iter_mut().map(|row| &mut row.message).filter(|message| message.id == id);
                        for recipient in of_this.flat_map(|message| &mut message.recipients) {
                            recipient.reason =
                                reasons.get(&*recipient.address).map(|reason: &String| reason.clone().into());
                        }
                    }
                    Ok((_, Err(trouble))) => refused = Err(trouble),
                    // It was cut off, which is told by how the process ended.
                    Err(_) => {}
                }
            }
        });
        refused.and_then(|()| exit.verdict(&command))
    }
}

/// The process that asks: reads ids from standard input, one a line, and writes for each what the mail server says,
/// then how that ended.
pub fn work(words: &[OsString]) {
    let Ok((config, _)) = worker::told(words) else { return };
    let Ok(source) = Source::find(&config) else { return };
    let Some(example) = source.mta.reason_command(source.mta.sample_id()) else { return };
    // While the queue is still being listed.
    let prefix = privilege::prefix(&example, &Account::current());
    let mut out = io::BufWriter::new(io::stdout());
    let mut deadline = None;
    for id in io::stdin().lines().map_while(Result::ok).filter(|id| Target::Id(id.clone()).is_plain()) {
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
        let Some(command) = source.mta.reason_command(&id) else { return };
        let command = prefix.clone().map_or(command.clone(), |prefix| prefix.and(&command));
        let end = process::start(&command).map(|running| {
            running.lines(deadline, None, |line| {
                // Whoever asked may have left.
                let _ =
                    out.write_all(&[PASSED_ON]).and_then(|()| out.write_all(line)).and_then(|()| out.write_all(b"\n"));
            })
        });
        let over = end.as_ref().map_or(true, |exit| exit.ending == Ending::Deadline);
        let told = serde_json::to_vec(&Told { id, end: end.map_err(Trouble::from) }).unwrap_or_default();
        let written = out.write_all(&told).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
        if over || written.is_err() {
            return;
        }
    }
}
