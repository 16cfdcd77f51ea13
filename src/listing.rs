//! One listing of the queue: starts the mail server's lister and passes its messages on while it runs.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use crate::context::{Context, Source};
use crate::mta::command::{self, Argv, Exit};
use crate::mta::{Clock, Facts, Kind, privilege};
use crate::queue::{Message, Summary};
use crate::system::Account;
use crate::trouble::{Status, Trouble};

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
    let inquiry = source.mta.inquire();
    let summary = &mut listing.summary;
    let mut count_and_pass_on = |message: &Message<'_>| {
        summary.add(message);
        found(message);
    };
    let mut commands = source.commands.clone();
    for command in &mut commands {
        let ways = Ways { source, clock, account, deadline, reader };
        let trouble = ways.list(command, &mut count_and_pass_on);
        // The first trouble is told; what the other parts hold is shown all the same.
        listing.trouble = listing.trouble.or(trouble);
    }
    listing.command = commands.iter().map(Argv::to_string).collect::<Vec<_>>().join("; ");
    listing.facts = inquiry.answer(deadline.min(Instant::now() + INQUIRY_PATIENCE));
    listing.took = started.elapsed();
    listing
}

/// The ways to run one listing command: plainly, in the form for an older mail server, and by a sudo
/// or doas rule where the plain command is refused.
struct Ways<'a> {
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

/// Asks for the reasons of a page's messages where the listing has none (Exim), as far as the mail
/// server lets this user and time allows.
pub fn explain(context: &Context, rows: &mut [Message<'static>]) {
    let Ok(source) = &context.source else { return };
    let deadline = Instant::now() + REASONS_PATIENCE;
    let mut prefix = None;
    for message in rows {
        let Some(command) = source.mta.reason_command(&message.id) else { return };
        let prefix =
            prefix.get_or_insert_with(|| if context.account.is_root() { None } else { privilege::prefix(&command) });
        let command = prefix.clone().map_or(command.clone(), |prefix| prefix.and(&command));
        let Ok(running) = command::start(&command) else { return };
        let (exit, output) = running.collect(deadline);
        if !exit.success() {
            return;
        }
        for (address, reason) in source.mta.read_reasons(&String::from_utf8_lossy(&output)) {
            for recipient in message.recipients.iter_mut().filter(|recipient| recipient.address == address) {
                recipient.reason = Some(reason.clone().into());
            }
        }
    }
}

/// Version and settings of the mail server, without a listing.
pub fn facts(context: &Context) -> Facts {
    let deadline = Instant::now() + INQUIRY_PATIENCE;
    context.source.as_ref().map_or_else(|_| Facts::default(), |source| source.mta.inquire().answer(deadline))
}
