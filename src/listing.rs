//! One listing of the queue: starts the mail server's lister and passes its messages on while it runs.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::context::{Context, Source};
use crate::mta::command::{self, Argv, Ending, Exit};
use crate::mta::trouble::{Status, Trouble};
use crate::mta::{Clock, Facts, Kind, privilege};
use crate::queue::{Message, Summary};
use crate::system::Account;

/// How long version and settings may take after the listing.
const INQUIRY_PATIENCE: Duration = Duration::from_secs(2);

/// What is known after a listing, however it ended.
pub struct Listing {
    /// Why the listing is not the whole queue; `None` if it is.
    pub trouble: Option<Trouble>,
    /// Totals of what was read.
    pub summary: Summary,
    /// Which mail server, if one was found.
    pub kind: Option<Kind>,
    /// Its version and settings.
    pub facts: Facts,
    /// The command lines that listed.
    pub command: String,
    /// When it was started, in seconds since 1970.
    pub sampled: i64,
    /// How long it took.
    pub took: Duration,
}

impl Listing {
    /// How the listing ended.
    pub fn status(&self) -> Status {
        self.trouble.as_ref().map_or(Status::Ok, Trouble::status)
    }
}

/// Lists the queue: `found` gets each message as soon as it is read. The listing ends early when
/// `reader`, the far end of our answer, hangs up.
pub fn list(context: &Context, reader: Option<BorrowedFd<'_>>, found: &mut dyn FnMut(&Message<'_>)) -> Listing {
    let Context { config, account, clock, .. } = context;
    let started = Instant::now();
    let mut listing = Listing {
        trouble: None,
        summary: Summary::new(clock.now),
        kind: None,
        facts: Facts::default(),
        command: String::new(),
        sampled: clock.now,
        took: Duration::ZERO,
    };
    let source = match &context.source {
        Ok(source) => source,
        Err(trouble) => {
            listing.trouble = Some(trouble.clone());
            return listing;
        }
    };
    listing.kind = Some(source.mta.kind());
    let deadline = started + config.mta.deadline;
    let place = context.store.as_ref().map_or(Ok(None), |store| store.listing_place(deadline));
    let Ok(_place) = place else {
        listing.trouble = Some(Trouble::Crowded { after: config.mta.deadline });
        return listing;
    };
    let inquiry = source.mta.inquire();
    let summary = &mut listing.summary;
    let mut seen = Seen::default();
    let several = source.commands.len() > 1;
    let mask = config.privacy.mask;
    let mut count_and_pass_on = |message: &Message<'_>| {
        if several && !seen.is_new(&message.id) {
            return;
        }
        let masked = mask.map(|mask| mask.hide(message));
        let message = masked.as_ref().unwrap_or(message);
        summary.add(message);
        found(message);
    };
    let mut commands = source.commands.clone();
    for command in &mut commands {
        let own = config.mta.list_command.is_empty();
        let ways = Ways { own, source, clock, account, deadline, reader };
        let trouble = ways.list(command, &mut count_and_pass_on);
        // The first trouble is told; what the other parts hold is shown all the same.
        listing.trouble = listing.trouble.or(trouble);
    }
    if !source.mta.cuts_short() {
        // An ellipsis is then somebody's own.
        listing.summary.cut = 0;
    }
    listing.command = commands.iter().map(Argv::to_string).collect::<Vec<_>>().join("; ");
    listing.facts = inquiry.answer(deadline.min(Instant::now() + INQUIRY_PATIENCE));
    listing.took = started.elapsed();
    listing
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

    fn is_new(&mut self, id: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let hash = hasher.finish();
        if self.ids.len() >= Self::LIMIT { !self.ids.contains(&hash) } else { self.ids.insert(hash) }
    }
}

/// The ways to run one listing command: plainly, in the form for an older mail server, and by a sudo
/// or doas rule where the plain command is refused.
struct Ways<'a> {
    /// Whether the commands are the mail server's own; a configured one is run as it stands.
    own: bool,
    source: &'a Source,
    clock: &'a Clock,
    account: &'a Account,
    deadline: Instant,
    reader: Option<BorrowedFd<'a>>,
}

impl Ways<'_> {
    /// Lists, and leaves in `command` the form that was used in the end.
    fn list(&self, command: &mut Argv, found: &mut dyn FnMut(&Message<'_>)) -> Option<Trouble> {
        let (mut trouble, mut exit) = self.once(command, found)?;
        if !self.own {
            return Some(trouble.of_configured(self.own_program()));
        }
        if let Some(older) = exit.as_ref().and_then(|exit| self.source.mta.older_list_command(exit)) {
            *command = older;
            (trouble, exit) = self.once(command, found)?;
        }
        let refused = matches!(trouble, Trouble::NotPermitted { .. }) && exit.is_some();
        if let Some(prefix) = refused.then(|| privilege::prefix(command)).flatten() {
            *command = prefix.and(command);
            return self.once(command, found).map(|(trouble, _)| trouble);
        }
        Some(trouble)
    }

    fn own_program(&self) -> PathBuf {
        self.source.mta.list_commands().first().map(Argv::program).unwrap_or_default()
    }

    /// `None` when all was listed, else why not, and how the command ended if it was started.
    fn once(&self, command: &Argv, found: &mut dyn FnMut(&Message<'_>)) -> Option<(Trouble, Option<Exit>)> {
        let running = match command::start(command) {
            Ok(running) => running,
            Err(trouble) => return Some((trouble, None)),
        };
        let mut parser = self.source.mta.parser(self.clock);
        let exit = running.lines(self.deadline, self.reader, |line| parser.line(line, found));
        parser.end(command, &exit, self.account, found).err().map(|trouble| (trouble, Some(exit)))
    }
}

/// How long the mail server may take to tell the reasons of all messages on a page.
const REASONS_PATIENCE: Duration = Duration::from_secs(3);

/// Asks for the reasons of a page's messages where the listing has none (Exim), as far as time allows.
///
/// # Errors
/// Why the mail server does not tell this user, or that the time was over; what is not told by then stays
/// without a reason.
pub fn explain(context: &Context, rows: &mut [Message<'static>]) -> Result<(), Trouble> {
    let Ok(source) = &context.source else { return Ok(()) };
    // A configured command may list another machine's queue.
    if !context.config.mta.list_command.is_empty() {
        return Ok(());
    }
    let started = Instant::now();
    let mut prefix = None;
    for message in rows {
        let Some(command) = source.mta.reason_command(&message.id) else { return Ok(()) };
        let prefix =
            prefix.get_or_insert_with(|| if context.account.is_root() { None } else { privilege::prefix(&command) });
        let command = prefix.clone().map_or(command.clone(), |prefix| prefix.and(&command));
        let mut reasons = HashMap::new();
        // A refusal may be told on either stream.
        let mut first = None;
        let exit = command::start(&command)?.lines(started + REASONS_PATIENCE, None, |line| {
            let line = String::from_utf8_lossy(line);
            reasons.extend(source.mta.read_reason(&line));
            first.get_or_insert_with(|| line.into_owned());
        });
        if exit.ending == Ending::Deadline {
            return Err(Trouble::TooSlow { command: command.to_string(), after: REASONS_PATIENCE });
        }
        if !exit.success() {
            let exit = Exit { said: format!("{}\n{}", first.unwrap_or_default(), exit.said), ..exit };
            // The message may have gone meanwhile; a refusal is one for all.
            source.mta.reason_verdict(&command, &exit, &context.account)?;
            continue;
        }
        for recipient in &mut message.recipients {
            recipient.reason = reasons.get(&*recipient.address).map(|reason| reason.clone().into());
        }
    }
    Ok(())
}

/// Version and settings of the mail server, without a listing.
pub fn facts(context: &Context) -> Facts {
    let deadline = Instant::now() + INQUIRY_PATIENCE;
    context.source.as_ref().map_or_else(|_| Facts::default(), |source| source.mta.inquire().answer(deadline))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_once_however_often_it_is_listed() {
        let mut seen = Seen::default();
        assert_eq!(["A1", "B2", "A1", "A1"].map(|id| seen.is_new(id)), [true, true, false, false]);
        let all = (0..Seen::LIMIT + 10).filter(|number| seen.is_new(&number.to_string())).count();
        assert_eq!(all, Seen::LIMIT + 10, "none is lost");
        assert!(seen.ids.len() <= Seen::LIMIT);
    }
}
