//! What every request and every command starts from.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::mta::as_root::Request;
use crate::mta::privilege::{self, Privilege};
use crate::mta::trouble::Trouble;
use crate::mta::{self, Clock, Mta, Search};
use crate::state::{Basis, Question, Records, SeenBy, StateError};
use crate::system::process::{self, Argv};
use crate::system::{self, Account, Free, Scratch};

/// The configuration and the machine, gathered once.
pub struct Context {
    /// The right to open files, start programs and connect. A process that reads what strangers wrote gets no context.
    pub(crate) free: Free,
    /// The configuration.
    pub(crate) config: Config,
    /// The user this program runs as.
    pub(crate) account: Account,
    /// The present and the machine's zone.
    pub(crate) clock: Clock,
    /// This machine's name.
    pub(crate) host: String,
    /// Whose queue it is, or why there is none.
    pub(crate) source: Result<Source, Trouble>,
    /// What is remembered between requests, or why nothing is.
    pub(crate) records: Result<Records, StateError>,
    /// What this process is, for the record of what it sees.
    pub(crate) seen_by: SeenBy,
    /// Where what does not fit into memory is put as long as an answer takes: in the private folder of what is remembered,
    /// the only one in which files are made. `None` where there is none.
    pub(crate) scratch: Option<Scratch>,
    /// What sudo or doas lets this user do.
    pub(crate) privilege: Privilege,
}

/// The mail server whose queue is shown, and the command that lists it.
pub(crate) struct Source {
    /// The mail server.
    pub(crate) mta: Box<dyn Mta>,
    /// The configured command, or the mail server's own ones.
    pub(crate) commands: Vec<Argv>,
}

impl Context {
    /// Gathers everything.
    pub fn gather(free: Free, seen_by: SeenBy, config: Config) -> Context {
        let account = Account::current();
        let records = Records::open(config.state.directory.as_deref(), &account);
        // Where nothing can be remembered there may still be room for a while.
        let other = || Records::open(None, &account).ok().map(|records| records.directory().to_owned());
        let folder = records.as_ref().map_or_else(|_| other(), |records| Some(records.directory().to_owned()));
        let scratch = folder.map(|folder| Scratch::new(folder, config.disk.critical.into()));
        let context = Context { seen_by, scratch, ..Context::with(free, config, account, records) };
        let said = || context.recall(Question::Rules, &context.basis(&privilege::files())?);
        let said = privilege::is_possible().then(said).flatten();
        Context { privilege: said.map_or_else(Privilege::default, Privilege::said), ..context }
    }

    /// The same for `as-root`, which remembers nothing and makes no file.
    pub(crate) fn of_root(free: Free, config: Config) -> Context {
        Context::with(free, config, Account::current(), Err(StateError::NoFolder(Vec::new())))
    }

    fn with(free: Free, config: Config, account: Account, records: Result<Records, StateError>) -> Context {
        Context {
            free,
            source: Source::find(&config),
            records,
            seen_by: SeenBy::Flush,
            scratch: None,
            clock: Clock { now: jiff::Timestamp::now().as_second(), zone: system::time_zone() },
            host: system::host_name(),
            account,
            config,
            privilege: Privilege::default(),
        }
    }

    /// The command by which root does this, where the one rule allows it.
    pub(crate) fn by_the_one_rule(&self, request: &Request) -> Option<Argv> {
        let rule = || self.privilege.by_the_one_rule(&self.free, &self.account, request);
        let rule = self.config.is_as_roots().then(rule).flatten();
        self.remember_rules();
        rule
    }

    /// The words to put before the mail server's own command, where a rule for just that runs it as root.
    pub(crate) fn by_its_own_rule(&self, command: &Argv) -> Option<Argv> {
        let source = self.source.as_ref().ok()?;
        let rule = self.privilege.by_its_own_rule(&self.free, &self.account, &*source.mta, command);
        self.remember_rules();
        rule
    }

    fn remember_rules(&self) {
        if let (Some(said), Some(basis)) = (self.privilege.news(), self.basis(&privilege::files())) {
            self.keep(Question::Rules, &basis, &said);
        }
    }

    /// What an answer is made from: these files, and the mail server. `None` where it can't be remembered.
    pub(crate) fn basis(&self, files: &[PathBuf]) -> Option<Basis> {
        let kind = self.source.as_ref().map_or("", |source| source.mta.kind().name());
        self.records.as_ref().ok().and_then(|_| Basis::of(&[kind, &self.host], files))
    }

    /// The answer that was given on the same basis a short while ago. `doctor` is asked to look at how it is now.
    pub(crate) fn recall<A: DeserializeOwned>(&self, question: Question, basis: &Basis) -> Option<A> {
        let records = self.records.as_ref().ok().filter(|_| self.seen_by != SeenBy::Doctor)?;
        records.recall(question, basis, self.clock.now)
    }

    /// Keeps an answer for who asks soon.
    pub(crate) fn keep<A: Serialize>(&self, question: Question, basis: &Basis, answer: &A) {
        if let Ok(records) = &self.records {
            records.remember(question, basis, self.clock.now, answer);
        }
    }

    /// Does this with what is remembered. Where somebody looks at a page, another process does it, so that nobody waits for
    /// the disk.
    pub(crate) fn remember(&self, work: impl FnOnce(&Records)) {
        let Ok(records) = &self.records else { return };
        if self.seen_by != SeenBy::Page {
            return work(records);
        }
        let (directory, account) = (self.config.state.directory.as_deref(), &self.account);
        // A copy of a process can't use the database that this one has open.
        let open_and_work = |_| {
            let _ = Records::open(directory, account).map(|records| work(&records));
        };
        // Where it can't be started, that is not remembered.
        let _ = process::branch_off(&self.free, open_and_work);
    }
}

impl Source {
    /// The mail server that the configuration names, or the one that is installed.
    ///
    /// # Errors
    /// [`Trouble::NoMta`], [`Trouble::NotInstalled`] or [`Trouble::Unsupported`].
    pub(crate) fn find(config: &Config) -> Result<Source, Trouble> {
        let search = Search::default();
        if let Some(kind) = config.mta.kind.filter(|kind| config.mta.list_command.is_empty() && !search.has(*kind)) {
            return Err(Trouble::NotInstalled(kind));
        }
        let mta = mta::find(config.mta.kind, &search)?;
        let configured = Argv::from_words(&config.mta.list_command);
        let commands = configured.map_or_else(|| mta.list_commands(), |command| vec![command]);
        Ok(Source { mta, commands })
    }

    /// Whether a configured listing command, where there is one, lists the queue of this machine's own mail server: it is
    /// that one's own program, perhaps behind sudo or doas. The settings found here say nothing of any other queue.
    pub(crate) fn is_local(&self, configured: &[String]) -> bool {
        let is = |word: &str, name: &Path| Path::new(word).file_name() == name.file_name();
        let own = self.mta.list_commands().first().map(Argv::program);
        let is_own = |word: &String| own.as_ref().is_some_and(|own| is(word, own));
        match configured {
            [] => true,
            [first, rest @ ..] if ["sudo", "doas"].iter().any(|name| is(first, Path::new(name))) => {
                rest.iter().any(is_own)
            }
            [first, ..] => is_own(first),
        }
    }
}
