//! A mail server's own name, and the domains that it relays mail for, as its configuration has them.

use std::time::Instant;

use super::Mta;
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

/// What a mail server relays and its own name, or that name alone; `None` where its configuration says neither.
pub(crate) fn inquiry(mta: &dyn Mta) -> Option<RelayInquiry> {
    let of_name = |ask: OwnName| -> RelayInquiry {
        Box::new(move |free, deadline| Relaying { own_name: ask(free, deadline), ..Relaying::default() })
    };
    mta.relaying().or_else(|| mta.own_name().map(of_name))
}

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
    use crate::mta::{Kind, Search, find};

    #[test]
    fn a_mail_server_that_says_no_domains_may_say_its_name() {
        let machine = tempfile::tempdir().unwrap();
        let search = Search::below(machine.path());
        let smtpd = |search| find(Some(Kind::OpenSmtpd), search).unwrap();
        assert!(inquiry(&*smtpd(&search)).is_none());
        std::fs::create_dir_all(machine.path().join("etc")).unwrap();
        std::fs::write(machine.path().join("etc/mailname"), "mx2.example.net\n").unwrap();
        let found = inquiry(&*smtpd(&search)).unwrap()(&Free::of_main(), Instant::now());
        assert_eq!(found, Relaying { own_name: Some("mx2.example.net".into()), ..Relaying::default() });
    }

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
