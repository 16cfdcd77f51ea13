//! What every request and every command starts from.

use crate::config::Config;
use crate::mta::trouble::Trouble;
use crate::mta::{self, Clock, Mta, Search};
use crate::state::{Records, SeenBy, StateError};
use crate::system::process::Argv;
use crate::system::{self, Account, Free, Scratch};

/// The configuration and the machine, gathered once.
pub struct Context {
    /// The right to open files, start programs and connect. Whoever reads what strangers wrote gets no context.
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
        Context {
            free,
            source: Source::find(&config),
            scratch: folder.map(|folder| Scratch::new(folder, config.disk.critical.into())),
            records,
            seen_by,
            clock: Clock { now: jiff::Timestamp::now().as_second(), zone: system::time_zone() },
            host: system::host_name(),
            account,
            config,
        }
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
}
