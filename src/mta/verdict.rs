//! What the end of a mail server's command means, as far as all mail servers have it in common.

use super::Kind;
use super::trouble::{Act, Trouble};
use crate::system::Account;
use crate::system::process::{Argv, Ending, Exit, NotStarted};

impl From<NotStarted> for Trouble {
    fn from(NotStarted { command, error }: NotStarted) -> Trouble {
        Trouble::NotStarted { command, error }
    }
}

impl Exit {
    /// Whether the command ended well, as far as any command shows it: by the deadline, signals, and its status.
    ///
    /// # Errors
    /// [`Trouble::TooSlow`], [`Trouble::OutOfReach`] or [`Trouble::Ended`].
    pub(crate) fn verdict(&self, command: &Argv) -> Result<(), Trouble> {
        let command = command.to_string();
        let ended = |how| Err(Trouble::Ended { command: command.clone(), how, words: self.words() });
        match (self.ending, self.code) {
            (Ending::Deadline, _) => Err(Trouble::TooSlow { command, after: self.allowed }),
            (Ending::OutOfReach, _) => Err(Trouble::OutOfReach { command, after: self.allowed, messages: 0 }),
            (Ending::ReaderGone, _) => ended("was stopped, as nobody reads its answer".into()),
            (Ending::Exited, Some(0)) if !self.unfinished => Ok(()),
            (Ending::Exited, _) => ended(self.how()),
        }
    }

    /// The trouble where this user was refused the command.
    pub(super) fn not_permitted(&self, mta: Kind, act: Act, command: &Argv, account: &Account) -> Trouble {
        Trouble::NotPermitted {
            mta,
            act,
            account: account.clone(),
            program: command.program(),
            words: self.words(),
            configured: false,
            settings: None,
        }
    }

    /// The trouble where the command could not take up its own rights, if it says so by one of these signs.
    pub(super) fn denied_privileges(&self, mta: Kind, signs: &[&str], account: &Account) -> Option<Trouble> {
        let says_so = signs.iter().any(|sign| self.said.contains(sign));
        says_so.then(|| Trouble::NoNewPrivileges { mta, words: self.words(), bound: account.bound })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_end_that_is_not_well_is_trouble() {
        let command = Argv::new("x", &["-y"]);
        let exit = |ending, code, unfinished| Exit {
            ending,
            code,
            signal: None,
            said: "oops".into(),
            allowed: Duration::from_secs(1),
            unfinished,
        };
        let verdict = |exit: Exit| exit.verdict(&command);
        assert_eq!(verdict(exit(Ending::Exited, Some(0), false)), Ok(()));
        let ended = verdict(exit(Ending::Exited, Some(3), false)).unwrap_err().to_string();
        assert_eq!(ended, "x -y ended with status 3: “oops”.");
        assert!(matches!(verdict(exit(Ending::Deadline, None, false)), Err(Trouble::TooSlow { .. })));
        let out_of_reach = verdict(exit(Ending::OutOfReach, None, false)).unwrap_err().to_string();
        assert_eq!(out_of_reach, "x -y did not end within 1 s and could not be stopped.");
        assert!(verdict(exit(Ending::Exited, None, false)).is_err());
        assert!(verdict(exit(Ending::Exited, Some(0), true)).is_err());
    }
}
