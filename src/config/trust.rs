//! Which configuration root obeys: it names commands, and root would run them.

use std::path::{Path, absolute};

use super::{Config, ConfigError, DEFAULT_PATH, MtaConfig};
use crate::system::trust::{Last, Untrusted, is_root, only_roots};

/// Refuses, for root, a file that another user could change, or replace by way of a folder or link that leads to it. For
/// any other user all is well: they run nothing that they could not run without.
pub(super) fn vet(file: &Path) -> Result<(), ConfigError> {
    if !is_root() {
        return Ok(());
    }
    let path = absolute(file).unwrap_or_else(|_| file.into());
    only_roots(&path, Last::File).map(|_| ()).map_err(|untrusted| {
        let reason = match &untrusted {
            Untrusted::System(_, error) => format!("it can't be read: {error}"),
            Untrusted::NotAFile(_) => "it is not a regular file".into(),
            untrusted => untrusted.reason("root obeys no configuration"),
        };
        ConfigError::of_file(file, reason)
    })
}

impl Config {
    /// What `as-root` takes from `/etc/bartleby.toml`, whatever the environment says. Commands that are configured there
    /// are left out: as root, nothing is run that a file names.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn of_root() -> Result<Config, ConfigError> {
        let config = Config::of_machine()?;
        let mta = MtaConfig { list_command: Vec::new(), flush_command: Vec::new(), ..config.mta };
        Ok(Config { mta, ..config })
    }

    /// Whether `as-root`, which reads `/etc/bartleby.toml` alone, has the same mail server in mind.
    pub(crate) fn is_as_roots(&self) -> bool {
        self.mta.kind.is_none() || self.file.as_deref() == Some(Path::new(DEFAULT_PATH))
    }
}
