//! The reader's half of a listing: in the sandbox, it parses what the lister prints.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use serde::de::DeserializeOwned;

use super::lines::Lines;
use super::session::PartEnd;
use crate::context::Source;
use crate::mta::trouble::Trouble;
use crate::mta::{Clock, as_root};
use crate::queue::{Clocks, Lifetimes, Mask, Message, Summary};
use crate::sandbox::Sandbox;
use crate::system::Account;
use crate::system::poll::{READABLE, ready};
use crate::system::process::{Argv, Exit, PIPE};

/// How much is read at once, in bytes.
const CHUNK: usize = PIPE;

/// How much of a part is still read when the parent has said that it is over, in bytes: more than a pipe holds, in case
/// its lister can't be stopped.
const REMAINDER: usize = 4 * PIPE;

/// For ever, as far as a listing is concerned.
const LONG: Duration = Duration::from_secs(24 * 60 * 60);

/// What the parent says, line by line, on standard input.
#[derive(Default)]
pub(crate) struct Words {
    unread: Vec<u8>,
}

impl Words {
    /// The next line, which is JSON.
    ///
    /// # Errors
    /// The parent has gone.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let end = loop {
            match memchr::memchr(b'\n', &self.unread) {
                Some(end) => break end,
                None => self.read()?,
            }
        };
        let line: Vec<u8> = self.unread.drain(..=end).collect();
        Ok(serde_json::from_slice(&line)?)
    }

    fn has_line(&self) -> bool {
        memchr::memchr(b'\n', &self.unread).is_some()
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match nix::unistd::read(io::stdin(), &mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => {
                self.unread.extend_from_slice(&buffer[..length]);
                Ok(())
            }
        }
    }
}

/// What the reader knows of the queue.
pub(crate) struct Task<'a> {
    /// The mail server.
    pub(crate) source: &'a Source,
    /// The present.
    pub(crate) clock: &'a Clock,
    /// For whom it is listed.
    pub(crate) account: &'a Account,
    /// What of the addresses is hidden.
    pub(crate) mask: Option<Mask>,
    /// Whether the listing command is a configured one.
    pub(crate) configured: bool,
    /// How long mail is kept, as far as that is known before it is read.
    pub(crate) lifetimes: Lifetimes,
}

/// What was read.
pub(crate) struct Outcome {
    /// Why that is not the whole queue; `None` if it is.
    pub(crate) trouble: Option<Trouble>,
    /// Totals.
    pub(crate) summary: Summary,
    /// The command lines that listed.
    pub(crate) command: String,
}

/// Reads a listing to its end: `found` gets each message as soon as it is read.
///
/// # Errors
/// The parent has gone.
pub(crate) fn read(
    _: &Sandbox,
    task: &Task<'_>,
    parts: Vec<Option<File>>,
    words: &mut Words,
    found: &mut dyn FnMut(&Message<'_>),
) -> io::Result<Outcome> {
    let Task { source, clock, account, mask, configured, lifetimes } = task;
    let clocks = Clocks { now: clock.now, lifetimes: lifetimes.clone() };
    let mut outcome = Outcome { trouble: None, summary: Summary::new(clocks), command: String::new() };
    let mut seen = Seen::default();
    // Root prints them one behind the other.
    let own_parts = source.mta.list_commands().len();
    let several = parts.len() > 1 || own_parts > 1;
    let is_each_known = !configured && parts.len() == own_parts;
    let summary = &mut outcome.summary;
    let mut count_and_pass_on = |message: &Message<'_>| {
        if several && !seen.is_new(message.instance.as_deref(), &message.id) {
            return;
        }
        let masked = mask.map(|mask| mask.hide(message));
        let message = masked.as_ref().unwrap_or(message);
        summary.add(message);
        found(message);
    };
    let mut commands = Vec::new();
    for (place, output) in parts.into_iter().enumerate() {
        let mut parser = if is_each_known { source.mta.parser_of(clock, place) } else { source.mta.parser(clock) };
        let mut lines = Lines::default();
        if let Some(output) = output {
            read_part(output, words, &mut |chunk| {
                lines.feed(chunk, &mut |line| parser.line(line, &mut count_and_pass_on));
            })?;
        }
        let PartEnd { command, end } = words.next()?;
        let listed = end.and_then(|exit| {
            as_root::verdict(&command, &exit)?;
            let exit = Exit { unfinished: lines.is_unfinished(), ..exit };
            parser.end(&command, &exit, account, &mut count_and_pass_on)
        });
        let own = || source.mta.list_commands().first().map(Argv::program).unwrap_or_default();
        let listed = listed.map_err(|trouble| if *configured { trouble.of_configured(own()) } else { trouble });
        // The first trouble counts; what the other parts hold is shown all the same.
        outcome.trouble = outcome.trouble.or(listed.err());
        commands.push(command.to_string());
    }
    outcome.trouble = outcome.trouble.map(|trouble| trouble.after_messages(outcome.summary.messages));
    if !source.mta.cuts_short() {
        // An ellipsis is then somebody's own.
        outcome.summary.cut = 0;
    }
    outcome.command = commands.join("; ");
    Ok(outcome)
}

/// Reads a part until it ends. One whose lister can't be stopped ends where the parent says so.
fn read_part(mut output: File, words: &mut Words, chunk: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let input = io::stdin();
    let mut left = usize::MAX;
    while left > 0 {
        let is_over = words.has_line();
        let watched = [(Some(output.as_fd()), READABLE), ((!is_over).then(|| input.as_fd()), READABLE)];
        let found = ready(&watched, if is_over { Duration::ZERO } else { LONG });
        let [more, word] = found[..] else { return Ok(()) };
        if !more.is_empty() {
            match output.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    chunk(&buffer[..length]);
                    left = left.saturating_sub(length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        } else if is_over {
            return Ok(());
        }
        if !word.is_empty() {
            words.read()?;
            left = left.min(REMAINDER);
        }
    }
    Ok(())
}

/// The messages of a listing in several parts: one that moves from part to part meanwhile (sendmail's
/// submission queue, its quarantine) is listed twice. Of very long queues only the first are remembered.
#[derive(Default)]
struct Seen {
    ids: HashSet<u64>,
}

impl Seen {
    /// Messages that are remembered, in at most about one MiB.
    const LIMIT: usize = 50_000;

    /// Two instances of a mail server may give the same id.
    fn is_new(&mut self, instance: Option<&str>, id: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        (instance, id).hash(&mut hasher);
        let hash = hasher.finish();
        if self.ids.len() >= Self::LIMIT { !self.ids.contains(&hash) } else { self.ids.insert(hash) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_once_however_often_it_is_listed() {
        let mut seen = Seen::default();
        assert_eq!(["A1", "B2", "A1", "A1"].map(|id| seen.is_new(None, id)), [true, true, false, false]);
        assert!(seen.is_new(Some("postfix-out"), "A1"), "another instance's");
        let all = (0..Seen::LIMIT + 10).filter(|number| seen.is_new(None, &number.to_string())).count();
        assert_eq!(all, Seen::LIMIT + 10, "none is lost");
        assert!(seen.ids.len() <= Seen::LIMIT);
    }
}
