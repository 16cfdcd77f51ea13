//! The user this program runs as. A static glibc has no name service switch, so user names are read from
//! `/etc/passwd` alone.

use std::fs;

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

/// The user this program runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Numeric user id.
    pub uid: u32,
    /// Login name, or the number where `/etc/passwd` has none.
    pub name: String,
    /// Whether this process, and what it starts, can't gain rights by set-user-id or set-group-id bits (prctl(2)).
    pub bound: bool,
}

impl Account {
    /// The effective user of this process. Must be asked before the sandbox is entered, which binds it.
    pub(crate) fn current() -> Account {
        let uid = geteuid().as_raw();
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = name_in_passwd(&passwd, uid).unwrap_or_else(|| uid.to_string());
        Account { uid, name, bound: nix::sys::prctl::get_no_new_privs().unwrap_or_default() }
    }

    /// Whether this is root.
    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// The login name of `uid` in text of the form of passwd(5).
fn name_in_passwd(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn login_names_come_from_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n";
        assert_eq!(name_in_passwd(passwd, 33).as_deref(), Some("www-data"));
        assert_eq!(name_in_passwd(passwd, 34), None);
        assert_eq!(name_in_passwd("", 0), None);
    }
}
