//! The server that this one stands in for: whether it takes mail again, and whether the domain name system knows both
//! servers.
//!
//! The servers to ask come from the configuration, or from the domains that the mail server is configured to relay.
//! They never come from the queue: strangers choose the domains there, and must not choose where this program connects.

mod dns;
mod inquiry;
mod mx;
mod probe;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use serde::{Deserialize, Serialize};

use crate::config::PrimaryConfig;
use crate::mta::RelayDomains;
pub(crate) use crate::state::Condition;
use crate::system::Free;
use dns::{NoAnswer, Resolver};
pub(crate) use inquiry::PrimaryInquiry;
pub(crate) use mx::Fault;
use mx::Ourselves;

/// How long all questions to name servers may take together.
const DNS_PATIENCE: Duration = Duration::from_millis(1500);

/// How long a primary may take, from the connection to its answer.
const PROBE_PATIENCE: Duration = Duration::from_secs(2);

/// How many domains are looked up.
const MOST_DOMAINS: usize = 20;

/// How many mail exchangers of a domain are looked up, and how many hosts are probed.
const MOST_HOSTS: usize = 10;

/// The port of SMTP.
const PORT: u16 = 25;

/// A primary mail server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Primary {
    /// `host:port`.
    pub(crate) host: String,
    /// Its condition.
    pub(crate) state: Condition,
    /// Its words, or what went wrong.
    pub(crate) detail: String,
    /// How long it took.
    pub(crate) milliseconds: u64,
    /// The time since which it is in this condition, in seconds since 1970; `None` where that is not known.
    pub(crate) since: Option<i64>,
}

impl Primary {
    /// Whether it takes mail; `None` where that is not known.
    pub(crate) fn is_up(&self) -> Option<bool> {
        match self.state {
            Condition::Up => Some(true),
            Condition::Busy | Condition::Down => Some(false),
            Condition::Unknown => None,
        }
    }
}

/// The state of the primaries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimaryStatus {
    /// Each of them.
    pub(crate) primaries: Vec<Primary>,
    /// Faults in the domain name system.
    pub(crate) faults: Vec<Fault>,
    /// The domains that were looked up; `None` where neither the configuration nor the mail server names any.
    pub(crate) domains: Option<Vec<String>>,
    /// When they were asked, in seconds since 1970; `None` where nobody was.
    pub(crate) seen: Option<i64>,
}

/// The questions, and the servers that are asked.
struct Questions {
    /// The hosts that the configuration names.
    hosts: Vec<String>,
    /// The domains to look up; `None` where they are not known.
    domains: Option<Vec<String>>,
    own_name: String,
    us: Ourselves,
    resolver: Resolver,
}

impl Questions {
    /// Asks the mail server for its domains where the configuration names none.
    fn gather(free: &Free, config: PrimaryConfig, relayed: Option<RelayDomains>, own_name: String) -> Questions {
        let deadline = Instant::now() + DNS_PATIENCE;
        let domains = match config.domains.as_slice() {
            [] => relayed.map(|relayed| relayed(free, deadline)).filter(|domains| !domains.is_empty()),
            configured => Some(configured.to_vec()),
        };
        let domains = domains.map(|mut domains| {
            // A table has no order, so the choice would change from time to time.
            domains.sort();
            domains.dedup();
            domains.truncate(MOST_DOMAINS);
            domains
        });
        let us = ourselves(&own_name);
        Questions { hosts: config.hosts, domains, us, own_name, resolver: Resolver::of_system(deadline) }
    }

    fn ask(self) -> PrimaryStatus {
        let Questions { hosts, domains, own_name, us, resolver } = self;
        let compared = compare(domains.as_deref().unwrap_or_default(), &resolver, &us);
        let mut probed: Vec<String> = hosts.iter().map(|host| with_port(host)).collect();
        let mut faults = Vec::new();
        for (primaries, found) in compared {
            if hosts.is_empty() {
                probed.extend(primaries.iter().map(|host| with_port(host)));
            }
            faults.extend(found);
        }
        let mut seen = HashSet::new();
        probed.retain(|host| seen.insert(host.clone()));
        probed.truncate(MOST_HOSTS);
        PrimaryStatus { primaries: probe_all(&probed, &resolver, &own_name), faults, domains, seen: None }
    }
}

/// Compares all domains at once with what the domain name system says.
fn compare(domains: &[String], resolver: &Resolver, us: &Ourselves) -> Vec<(Vec<String>, Vec<Fault>)> {
    thread::scope(|scope| {
        let lookups: Vec<_> =
            domains.iter().map(|domain| scope.spawn(move || compare_one(domain, resolver, us))).collect();
        lookups.into_iter().filter_map(|lookup| lookup.join().ok()).collect()
    })
}

fn compare_one(domain: &str, resolver: &Resolver, us: &Ourselves) -> (Vec<String>, Vec<Fault>) {
    let found = resolver.mail_exchangers(domain).map(|mut exchangers| {
        exchangers.truncate(MOST_HOSTS);
        let with_addresses = |exchanger: dns::Exchanger| {
            let addresses = resolver.addresses(&exchanger.host);
            (exchanger, addresses)
        };
        exchangers.into_iter().map(with_addresses).collect()
    });
    mx::examine(domain, &found, us)
}

/// Probes all hosts at once.
fn probe_all(hosts: &[String], resolver: &Resolver, own_name: &str) -> Vec<Primary> {
    thread::scope(|scope| {
        let probes: Vec<_> =
            hosts.iter().map(|host| scope.spawn(move || probe_one(host, resolver, own_name))).collect();
        probes.into_iter().filter_map(|probe| probe.join().ok()).collect()
    })
}

/// Probes the addresses of a host, one after the other, until one is up.
fn probe_one(host: &str, resolver: &Resolver, own_name: &str) -> Primary {
    let started = Instant::now();
    let deadline = started + PROBE_PATIENCE;
    let mut found = (Condition::Unknown, String::new());
    match addresses(host, &resolver.until(deadline)) {
        Err(error) => found.1 = error.to_string(),
        Ok(addresses) if addresses.is_empty() => found.1 = "its name has no address".into(),
        Ok(addresses) => {
            let count = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
            for (index, address) in (0..).zip(addresses) {
                // The remaining addresses share the time that is left.
                let share = deadline.saturating_duration_since(Instant::now()) / (count - index).max(1);
                let (state, detail) = probe::probe(address.ip(), address.port(), own_name, Instant::now() + share);
                if index == 0 || state == Condition::Up {
                    found = (state, detail);
                }
                if state == Condition::Up {
                    break;
                }
            }
        }
    }
    let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Primary { host: host.to_owned(), state: found.0, detail: found.1, milliseconds, since: None }
}

/// `host`, `host:port`, `192.0.2.1` or `2001:db8::1` as `host:port`.
fn with_port(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, PORT).to_string(),
        Err(_) if host.contains(':') => host.to_owned(),
        Err(_) => format!("{host}:{PORT}"),
    }
}

/// The addresses of `host:port`, `192.0.2.1:25` or `[2001:db8::1]:25`.
fn addresses(host: &str, resolver: &Resolver) -> Result<Vec<SocketAddr>, NoAnswer> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let (name, port) = host.rsplit_once(':').ok_or(NoAnswer::NotAName)?;
    let port = port.parse().map_err(|_| NoAnswer::NotAName)?;
    Ok(resolver.addresses(name)?.list.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// This host's names, and the addresses of its interfaces without the loopback ones.
fn ourselves(own_name: &str) -> Ourselves {
    let interfaces = getifaddrs().map(|list| list.collect::<Vec<_>>()).unwrap_or_default();
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
    };
    let addresses = interfaces.into_iter().filter_map(|interface| address(interface.address?));
    Ourselves {
        names: vec![own_name.to_ascii_lowercase()],
        addresses: addresses.filter(|address| !address.is_loopback()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_with_and_without_a_port() {
        let resolver = Resolver::of_system(Instant::now());
        let at = |host| {
            addresses(&with_port(host), &resolver)
                .map(|list| list.iter().map(SocketAddr::to_string).collect::<Vec<_>>())
        };
        assert_eq!(at("192.0.2.1"), Ok(vec!["192.0.2.1:25".into()]));
        assert_eq!(at("192.0.2.1:2525"), Ok(vec!["192.0.2.1:2525".into()]));
        assert_eq!(at("2001:db8::1"), Ok(vec!["[2001:db8::1]:25".into()]));
        assert_eq!(at("[2001:db8::1]:2525"), Ok(vec!["[2001:db8::1]:2525".into()]));
        assert_eq!(with_port("mx.example.com"), "mx.example.com:25");
        assert_eq!(at("mx.example.com:smtp"), Err(NoAnswer::NotAName));
    }

    #[test]
    fn a_primary_that_is_configured_is_probed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        drop(listener);
        let config = PrimaryConfig { hosts: vec![host.clone(), host.clone()], domains: vec![] };
        let status = Questions::gather(&Free::of_main(), config, None, "mx2.example.com".into()).ask();
        let [primary] = status.primaries.as_slice() else { panic!("{status:?}") };
        assert_eq!(
            (primary.host.as_str(), primary.state, primary.detail.as_str()),
            (host.as_str(), Condition::Down, "connection refused")
        );
        assert_eq!((status.domains, status.faults), (None, vec![]));
    }
}
