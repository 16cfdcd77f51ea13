//! Whose name a request calls this page by.
//!
//! Access by address alone falls to DNS rebinding: a stranger's page makes its own name lead to this machine, and the
//! reader's browser, which is let in, takes the two for one site. What gives it away is that name, which the browser
//! puts into `Host` (RFC 9110, section 7.2). So a name passes only where no stranger can have it.

use std::fs;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::gateway::Request;
use crate::config::{Config, is_name};
use crate::context::Source;
use crate::state::{Basis, Question, Records};
use crate::system::{self, Account, Free, hosts};
use crate::text::is_within;

/// Domains that nobody can register: RFC 6761 (`localhost`, `test`), RFC 6762 (`local`), RFC 8375 (`home.arpa`), ICANN's
/// resolutions on `internal` (2024) and on `home` and `corp` (2018), and `lan`, which many routers use and no registry has.
const PRIVATE: [&str; 8] = ["localhost", "local", "internal", "home.arpa", "lan", "home", "corp", "test"];

/// How long the mail server may take to say what it is called and for which domains it relays mail.
const PATIENCE: Duration = Duration::from_secs(2);

/// `host[:port]` of RFC 3986, section 3.2, without user information; the name in lower case and without the root's dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    name: String,
    port: Option<u16>,
}

impl Authority {
    /// Takes it apart; `None` where no browser would send it.
    pub fn parse(text: &str) -> Option<Authority> {
        let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
        let (name, port) = text.split_at(end);
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return None,
            // RFC 3986, section 3.2.3: it may be empty.
            Some("") => None,
            Some(digits) => Some(digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?),
        };
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let authority = Authority { name, port };
        (authority.is_address() || is_name(&authority.name)).then_some(authority)
    }

    /// The host and the port that a URL leads to.
    fn of_url(url: &str) -> Option<Authority> {
        let (scheme, rest) = url.split_once("://")?;
        let Authority { name, port } = Authority::parse(rest.split(['/', '?', '#']).next()?)?;
        let usual = if scheme.eq_ignore_ascii_case("https") { 443 } else { 80 };
        Some(Authority { name, port: port.or(Some(usual)) })
    }

    fn is_address(&self) -> bool {
        let bare = self.name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        match bare {
            Some(v6) => matches!(v6.parse(), Ok(IpAddr::V6(_))),
            None => matches!(self.name.parse(), Ok(IpAddr::V4(_))),
        }
    }

    /// Whether nobody can have this name: an address, which no stranger's page has as its name; a name without a dot;
    /// a domain that can't be registered.
    fn is_nobodys(&self) -> bool {
        self.is_address() || !self.name.contains('.') || PRIVATE.iter().any(|domain| is_within(&self.name, domain))
    }
}

/// Whether a URL, of `Origin` or `Referer`, is one of the host that was asked. A `Host` without a port means the
/// scheme's usual one, or that on which the web server listens (some leave it out).
pub(super) fn is_own(url: &str, request: &Request) -> bool {
    let host = request.host.as_deref().and_then(Authority::parse);
    let (Some(url), Some(host)) = (Authority::of_url(url), host) else { return false };
    let is_usual = || [Some(80), Some(443), request.server_port].contains(&url.port);
    url.name == host.name && if host.port.is_some() { url.port == host.port } else { is_usual() }
}

/// A request that calls this page by a name which may be a stranger's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Misdirected {
    /// The name, where it is one.
    pub name: Option<String>,
}

/// Vets `Host`. What takes files or programs is looked at last, for the few names that did not pass before.
///
/// # Errors
/// The name does not pass.
pub(super) fn vet(free: &Free, request: &Request, config: &Config) -> Result<(), Misdirected> {
    let host = match request.host.as_deref() {
        // No browser leaves it out; and with TLS, the stranger lacks a certificate for the name.
        None => return Ok(()),
        Some(_) if request.by_tls => return Ok(()),
        Some(host) => Authority::parse(host).ok_or(Misdirected { name: None })?,
    };
    let is = |name: &String| name.trim_end_matches('.').eq_ignore_ascii_case(&host.name);
    let is_below = |domain: &String| is_within(&host.name, domain.trim_end_matches('.'));
    let passes = host.is_nobodys()
        || config.access.hosts.iter().any(is)
        || config.primary.domains.iter().any(is_below)
        || own_names().iter().any(is)
        || is_the_mail_servers(free, config, is, is_below);
    if passes { Ok(()) } else { Err(Misdirected { name: Some(host.name) }) }
}

/// This machine's full names: its host name, and what `/etc/hosts` has beside that.
fn own_names() -> Vec<String> {
    let host = system::host_name();
    let file = fs::read_to_string("/etc/hosts").unwrap_or_default();
    let mut names = names_beside(&host, &file);
    names.push(host);
    names
}

/// The names that stand in one line with this one, in text of the form of hosts(5). (Other lines name other machines,
/// or, in a list against advertisements, strangers.)
fn names_beside(host: &str, hosts: &str) -> Vec<String> {
    let lines = hosts::lines(hosts).map(|(_, names)| names);
    let beside = lines.filter(|names| names.clone().any(|name| name.eq_ignore_ascii_case(host)));
    beside.flatten().map(str::to_owned).collect()
}

/// Whether the mail server calls itself so, or relays mail for a domain above.
fn is_the_mail_servers(
    free: &Free,
    config: &Config,
    is: impl Fn(&String) -> bool,
    is_below: impl Fn(&String) -> bool,
) -> bool {
    let Names { own_name, domains } = names(free, config).unwrap_or_default();
    // Configured domains stand in place of the mail server's.
    own_name.iter().any(is) || (config.primary.domains.is_empty() && domains.iter().any(is_below))
}

/// What the mail server calls itself, and for which domains it relays mail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Names {
    own_name: Option<String>,
    domains: Vec<String>,
}

/// Asks the mail server for its names, unless it was asked a short while ago; `None` where there is none.
fn names(free: &Free, config: &Config) -> Option<Names> {
    let Source { mta, .. } = Source::find(config).ok()?;
    let records = Records::open(config.state.directory.as_deref(), &Account::current()).ok();
    let basis = Basis::of(&[mta.kind().name(), &system::host_name()], &mta.settings_files());
    let (now, asked) = (jiff::Timestamp::now().as_second(), records.as_ref().zip(basis.as_ref()));
    if let Some(names) = asked.and_then(|(records, basis)| records.recall(Question::Names, basis, now)) {
        return Some(names);
    }
    let deadline = Instant::now() + PATIENCE;
    let own_name = mta.own_name().and_then(|ask| ask(free, deadline));
    let relaying = mta.relaying().map(|ask| ask(free, deadline)).unwrap_or_default();
    let names = Names { own_name, domains: relaying.domains };
    // One that took too long may not have said all.
    if let Some((records, basis)) = asked.filter(|_| names != Names::default() && Instant::now() < deadline) {
        records.remember(Question::Names, basis, now, &names);
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Option<Authority> {
        Authority::parse(text)
    }

    #[test]
    fn a_name_that_a_stranger_could_have_does_not_pass_by_itself() {
        for text in [
            "127.0.0.1",
            "192.0.2.1:8080",
            "[::1]",
            "[2001:db8::1]:443",
            "localhost",
            "LOCALHOST:80",
            "bartleby",
            "mx2.",
            "bartleby.local",
            "a.b.internal",
            "x.home.arpa",
            "nas.lan",
            "nas.home",
            "mx.corp",
            "mx2.test:8025",
            "a.localhost",
        ] {
            assert!(host(text).is_some_and(|host| host.is_nobodys()), "{text}");
        }
        for text in [
            "evil.example",
            "evil.example.",
            "bartleby.evil.example:80",
            "127.0.0.1.evil.example",
            "local.evil.example",
            "evil.xlocal",
            "notinternal.example",
            "1.2.3.example",
        ] {
            assert!(host(text).is_some_and(|host| !host.is_nobodys()), "{text}");
        }
        for text in [
            "",
            ":80",
            "[::1",
            "[evil.example]",
            "[127.0.0.1]",
            "evil.example:x",
            "evil.example:+80",
            "a b.test",
            "x@mx2.test",
            "mx2.test, evil.example",
            "mx2..test",
            ".test",
            "é.test",
            "[::1]x",
            "mx2.test:99999",
            "localhost..",
            "[fe80::1%25eth0]",
        ] {
            assert_eq!(host(text), None, "{text}");
        }
    }

    #[test]
    fn a_url_is_ours_by_name_and_port() {
        let asked =
            |host: &str, port: u16| Request { host: Some(host.into()), server_port: Some(port), ..Request::default() };
        for (url, host, port) in [
            ("http://mx2.test", "mx2.test", 80),
            ("https://MX2.test/x", "mx2.test", 443),
            ("http://mx2.test:80/", "mx2.test.", 80),
            ("http://mx2.test:8080/?x", "mx2.test:8080", 80),
            ("http://mx2.test:8080/", "mx2.test", 8080),
            ("https://mx2.test/", "mx2.test", 8080),
            ("http://[::1]:8025/", "[::1]:8025", 8025),
        ] {
            assert!(is_own(url, &asked(host, port)), "{url} {host} {port}");
        }
        for (url, host, port) in [
            ("http://mx2.test:8080", "mx2.test", 80),
            ("http://mx2.test", "mx2.test:8080", 8080),
            ("http://x@mx2.test/", "mx2.test", 80),
            ("http://mx2.test.evil.example/", "mx2.test", 80),
            ("null", "mx2.test", 80),
            ("", "mx2.test", 80),
            ("mx2.test", "mx2.test", 80),
        ] {
            assert!(!is_own(url, &asked(host, port)), "{url} {host} {port}");
        }
        assert!(!is_own("http://mx2.test", &Request::default()), "nobody knows how we are called");
    }

    #[test]
    fn of_hosts_only_this_machines_own_lines_count() {
        let hosts =
            "127.0.0.1 localhost\n127.0.1.1\tmx2.example.org mx2 # evil.example\n0.0.0.0 evil.example\n#1 mx2 x\n";
        assert_eq!(names_beside("mx2", hosts), ["mx2.example.org", "mx2"]);
        assert_eq!(names_beside("mx3", hosts), Vec::<String>::new());
    }
}
