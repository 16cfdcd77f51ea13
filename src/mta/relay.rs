//! A mail server's own name, and the domains that it relays mail for, as its configuration has them.

use std::time::Instant;

use crate::system::Free;
use crate::system::process::{self, Argv};

/// What a mail server's configuration says of its place among others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relaying {
    /// The domains that it relays mail for.
    pub domains: Vec<String>,
    /// The name by which it greets.
    pub own_name: Option<String>,
    /// Why this is not known yet: this file was changed a moment ago.
    pub just_changed: Option<&'static str>,
}

/// Finds that out, until a deadline. It may start processes.
pub type RelayInquiry = Box<dyn FnOnce(&Free, Instant) -> Relaying>;

/// Finds out what the mail server calls itself, until a deadline. It may start a process.
pub(crate) type OwnName = Box<dyn FnOnce(&Free, Instant) -> Option<String>>;

/// The name that a command prints as its last word.
pub(super) fn printed_name(command: Argv) -> OwnName {
    Box::new(move |free, deadline| {
        let (_, output) = process::start(free, &command).ok()?.collect(deadline);
        Some(String::from_utf8_lossy(&output).split_whitespace().last()?.to_owned())
    })
}

/// Those words of a configuration that are domains, in lower case.
pub(super) fn domains(text: &str) -> Vec<String> {
    let is_domain = |word: &&str| {
        word.contains('.')
            && !word.starts_with(['.', '-'])
            && word.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'))
            && word.parse::<std::net::IpAddr>().is_err()
    };
    text.split([',', ':', ' ', '\t', '\n']).filter(is_domain).map(str::to_lowercase).collect()
}

/// The keys of a table: each line's first word.
pub(super) fn keys(table: &str) -> String {
    let key = |line: &'_ str| line.split('#').next()?.split([' ', '\t', ':']).next().map(str::to_owned);
    table.lines().filter_map(key).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_picked_out_of_a_configuration() {
        let text = "example.com, Sub.Example.org\t192.0.2.0/24 192.0.2.1 $mydestination .example.net hash:/etc/x !no.example @";
        assert_eq!(domains(text), ["example.com", "sub.example.org"]);
        assert_eq!(
            domains(&keys("# c\nexample.com  smtp:[mx.example.net]\nexample.org: x.example\n\n")),
            ["example.com", "example.org"]
        );
    }
}
