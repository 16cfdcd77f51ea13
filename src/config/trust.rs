//! Which configuration root obeys: it names commands, and root would run them.

use std::path::{Path, absolute};

use super::ConfigError;
use crate::system::trust::{Last, Untrusted, is_root, only_roots};
use crate::text::{Odd, shell_quoted};

/// Refuses, for root, a file that another user could change, or replace by way of a folder or link that leads to it. For
/// any other user all is well: they run nothing that they could not run without.
pub(super) fn vet(file: &Path) -> Result<(), ConfigError> {
    if !is_root() {
        return Ok(());
    }
    let path = absolute(file).unwrap_or_else(|_| file.into());
    only_roots(&path, Last::File).map(|_| ()).map_err(|untrusted| ConfigError::of_file(file, reason(&untrusted)))
}

/// What is wrong with it, and the command that mends it.
fn reason(untrusted: &Untrusted) -> String {
    let refusal = |by: &Path, is: &str, command: &str| {
        let mend =
            || -> Result<String, Odd> { Ok(format!("As root: {command} {}", shell_quoted(&by.to_string_lossy())?)) };
        let mend = mend().unwrap_or_else(|odd| odd.to_string());
        format!("root obeys no configuration that another user can change, and {} {is}. {mend}", by.display())
    };
    match untrusted {
        Untrusted::System(_, error) => format!("it can't be read: {error}"),
        Untrusted::NotAFile(_) => "it is not a regular file".into(),
        Untrusted::NotAFolder(by) => format!("{} is not a folder", by.display()),
        Untrusted::Foreign(by, owner) => refusal(by, &format!("belongs to user {owner}"), "chown -h root"),
        Untrusted::Open(by) => refusal(by, "can be written to by others", "chmod go-w"),
    }
}
