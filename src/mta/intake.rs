//! Whom a mail server takes mail for, as this project's examples configure it: the list of recipients, for a rehearsal of
//! an outage. Where a list is kept otherwise, it is not known.

use std::fs;
use std::path::Path;
use std::time::Instant;

use crate::queue::is_plain_address;
use crate::system::Free;

/// How many addresses of a list are looked at.
const MOST: usize = 1000;

/// What a mail server's configuration says of the mail that it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Intake {
    /// The recipients that it knows; `None` where no list was found.
    pub(crate) list: Option<List>,
    /// Whether it puts off all that it should refuse for good; `None` where it has no such setting, or it is not known.
    pub(crate) softens: Option<Softens>,
}

/// Whether refusals are made deferrals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Softens {
    /// They are.
    Yes,
    /// They are what they are.
    No,
}

/// A list of recipients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct List {
    /// The table or file.
    pub(crate) name: String,
    /// Addresses in it, the first ones, in lower case.
    pub(crate) addresses: Vec<String>,
    /// Domains of which it takes every address, in lower case.
    pub(crate) open: Vec<String>,
}

/// What is known of a mail server before it is asked for its [`Intake`].
pub struct Gate {
    /// Finds it out, until a deadline. It may start processes.
    pub(crate) ask: IntakeInquiry,
    /// How an administrator has unknown recipients refused, in a sentence.
    pub(crate) refusing: &'static str,
    /// The processes that try again by themselves, by their names; empty where [`super::timing::Timing::stopped`] is enough.
    pub(crate) runners: &'static [&'static str],
    /// The setting that makes refusals deferrals, and how it is switched off; `None` where there is no such setting.
    pub(crate) softener: Option<(&'static str, &'static str)>,
}

/// Finds out whom a mail server takes mail for, until a deadline. It may start processes.
pub(crate) type IntakeInquiry = Box<dyn FnOnce(&Free, Instant) -> Intake>;

impl List {
    /// The keys of a table: `larry@example.com`; `@example.com` or `*@example.com` is all of a domain.
    pub(super) fn of_keys<'a>(name: String, keys: impl Iterator<Item = &'a str>) -> List {
        let mut list = List { name, ..List::default() };
        for key in keys.take(MOST).map(str::to_lowercase) {
            match key.split_once('@') {
                Some(("" | "*", domain)) if !domain.is_empty() => list.open.push(domain.to_owned()),
                Some(_) if is_plain_address(&key) => list.addresses.push(key),
                _ => {}
            }
        }
        list
    }

    /// The same of a file with one on each line, whatever stands behind it; `None` where it can't be read.
    pub(super) fn of_file(file: &Path) -> Option<List> {
        let text = fs::read_to_string(file).ok()?;
        let key = |line: &'_ str| line.split('#').next()?.split([' ', '\t', ':']).next().map(str::to_owned);
        let keys: Vec<_> = text.lines().filter_map(key).collect();
        Some(List::of_keys(file.display().to_string(), keys.iter().map(String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_addresses_and_domains_that_are_open() {
        let keys =
            ["postmaster@Example.com", "@sub.example.com", "*@open.example", "x", "", "@", "\"a b\"@example.com"];
        let list = List::of_keys("t".into(), keys.into_iter());
        assert_eq!(list.addresses, ["postmaster@example.com"]);
        assert_eq!(list.open, ["sub.example.com", "open.example"]);
    }

    #[test]
    fn the_shipped_files_are_read() {
        for file in ["exim/relay_recipients", "opensmtpd/relay_recipients", "postfix/relay_recipients"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(file);
            let list = List::of_file(&path).unwrap();
            assert_eq!(list.addresses.len(), 4, "{list:?}");
            assert_eq!(list.open, ["sub.example.com"], "{file}");
        }
        assert_eq!(List::of_file(Path::new("/nonexistent")), None);
    }
}
