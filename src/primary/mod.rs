//! The server that this one stands in for: whether it takes mail again, and whether the domain name system knows both
//! servers.
//!
//! The servers to ask come from the configuration, or from the domains that the mail server is configured to relay.
//! They never come from the queue: strangers choose the domains there, and must not choose where this program connects.

mod conversation;
mod dns;
mod front_door;
mod inquiry;
mod mx;
mod ourselves;
mod probe;
pub mod rehearsal;
mod rehearsing;
pub mod reply;
pub mod verdict;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::PrimaryConfig;
use crate::mta::{RelayInquiry, Relaying};
pub(crate) use crate::state::Condition;
use crate::system::Free;
use crate::text::is_within;
use dns::{NoAnswer, Resolver};
pub(crate) use inquiry::PrimaryInquiry;
use mx::Compared;
pub(crate) use mx::Fault;
use ourselves::Ourselves;
pub(crate) use rehearsing::{Grounds, Lacks, Rehearsed};

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
    /// Since when it is so, in seconds since 1970; `None` where that is not known.
    pub(crate) since: Option<i64>,
    /// Whether it was seen to come back.
    pub(crate) comeback: Comeback,
}

/// Whether a primary that takes mail was seen to come back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Comeback {
    /// It was never seen otherwise, or the queue has been run since.
    #[default]
    Unseen,
    /// It did not take mail at an earlier look, and the queue has not been run since it does.
    Seen,
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
    /// What is wrong in the domain name system.
    pub(crate) faults: Vec<Fault>,
    /// What can't be known of it from here.
    pub(crate) notes: Vec<String>,
    /// The domains that were looked up; `None` where neither the configuration nor the mail server names any.
    pub(crate) domains: Option<Vec<String>>,
    /// When they were asked, in seconds since 1970; `None` where nobody was.
    pub(crate) seen: Option<i64>,
    /// Why the sandbox does not hold in which their words were read; `None` if it does.
    pub(crate) gap: Option<String>,
}

impl PrimaryStatus {
    /// Whether mail for this domain, in lower case, goes to the primaries, as far as is known: it is one of those looked
    /// up, or below one (Postfix's `parent_domain_matches_subdomains`). Where not all are known, every domain may be.
    pub(crate) fn may_be_for(&self, domain: &str) -> bool {
        let Some(known) = self.domains.as_ref().filter(|known| known.len() < MOST_DOMAINS) else { return true };
        known.iter().any(|known| is_within(domain, known))
    }
}

/// This host's place among mail servers, as far as its own configuration says.
struct Place {
    /// The hosts that the configuration names as primaries.
    hosts: Vec<String>,
    /// The domains that this host is a fall-back for, in order.
    domains: Vec<String>,
    /// A file that was changed a moment ago, so that the mail server does not tell its domains yet.
    just_changed: Option<&'static str>,
    /// The name to greet by.
    own_name: String,
    us: Ourselves,
}

impl Place {
    /// Asks the mail server for its own name, and for its domains where the configuration names none.
    fn find(free: &Free, config: PrimaryConfig, inquiry: Option<RelayInquiry>, host: &str, deadline: Instant) -> Place {
        let Relaying { domains, own_name, just_changed } = inquiry.map(|ask| ask(free, deadline)).unwrap_or_default();
        let just_changed = just_changed.filter(|_| config.domains.is_empty());
        let mut domains = if config.domains.is_empty() { domains } else { config.domains };
        // A table has no order, so the choice would change from time to time.
        domains.sort();
        domains.dedup();
        let us = Ourselves::of_machine(host, own_name.as_deref());
        let own_name = us.full_name().unwrap_or(host).to_owned();
        Place { hosts: config.hosts, domains, just_changed, own_name, us }
    }
}

/// The questions, and the servers that are asked.
struct Questions {
    place: Place,
    resolver: Resolver,
}

impl Questions {
    fn gather(free: &Free, config: PrimaryConfig, inquiry: Option<RelayInquiry>, host: &str) -> Questions {
        let deadline = Instant::now() + DNS_PATIENCE;
        let mut place = Place::find(free, config, inquiry, host, deadline);
        place.domains.truncate(MOST_DOMAINS);
        Questions { place, resolver: Resolver::of_system(deadline) }
    }

    fn ask(self) -> PrimaryStatus {
        let Questions { place: Place { hosts, domains, just_changed, own_name, us }, resolver } = self;
        let compared = compare(&domains, &resolver, &us);
        let mut probed: Vec<String> = hosts.iter().map(|host| with_port(host)).collect();
        let (mut faults, mut notes) = (Vec::new(), Vec::new());
        faults.extend(just_changed.map(|file| Fault {
            message: format!("{file} was changed a moment ago, so the mail server does not say yet what it relays."),
            remedy: "Look again in a few seconds.".into(),
        }));
        for one in compared {
            if hosts.is_empty() {
                probed.extend(one.primaries.iter().map(|host| with_port(host)));
            }
            faults.extend(one.faults);
            notes.extend(one.notes);
        }
        let mut seen = HashSet::new();
        probed.retain(|host| seen.insert(host.clone()));
        probed.truncate(MOST_HOSTS);
        let domains = Some(domains).filter(|domains| !domains.is_empty());
        PrimaryStatus {
            primaries: probe_all(&probed, &resolver, &own_name),
            faults,
            notes,
            domains,
            seen: None,
            gap: None,
        }
    }
}

/// Compares all domains at once with what the domain name system says.
fn compare(domains: &[String], resolver: &Resolver, us: &Ourselves) -> Vec<Compared> {
    thread::scope(|scope| {
        let lookups: Vec<_> =
            domains.iter().map(|domain| scope.spawn(move || compare_one(domain, resolver, us))).collect();
        lookups.into_iter().filter_map(|lookup| lookup.join().ok()).collect()
    })
}

fn compare_one(domain: &str, resolver: &Resolver, us: &Ourselves) -> Compared {
    let found = resolver.mail_exchangers(domain).map(|mut exchangers| {
        exchangers.truncate(MOST_HOSTS);
        let with_addresses = |exchanger: dns::Exchanger| {
            // What /etc/hosts says here, no other server sees.
            let addresses = resolver.addresses_in_dns(&exchanger.host);
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
    let (state, detail) = found;
    Primary { host: host.to_owned(), state, detail, milliseconds, since: None, comeback: Comeback::Unseen }
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
        let status = Questions::gather(&Free::of_main(), config, None, "mx2.example.com").ask();
        let [primary] = status.primaries.as_slice() else { panic!("{status:?}") };
        assert_eq!(
            (primary.host.as_str(), primary.state, primary.detail.as_str()),
            (host.as_str(), Condition::Down, "connection refused")
        );
        assert_eq!((status.domains, status.faults), (None, vec![]));
    }

    #[test]
    fn a_mail_server_that_can_not_name_its_domains_yet_is_not_one_without_domains() {
        let found = |config: PrimaryConfig| {
            let changed = Relaying { just_changed: Some("main.cf"), ..Relaying::default() };
            let inquiry: RelayInquiry = Box::new(move |_, _| changed);
            Questions::gather(&Free::of_main(), config, Some(inquiry), "mx2.example.com").ask().faults
        };
        assert!(found(PrimaryConfig::default())[0].message.starts_with("main.cf was changed a moment ago"));
        let configured = PrimaryConfig { hosts: vec![], domains: vec!["two words..x".into()] };
        assert!(found(configured).iter().all(|fault| !fault.message.contains("main.cf")));
    }

    #[test]
    fn mail_for_elsewhere_is_not_for_the_primary() {
        let status = |domains: &[&str]| PrimaryStatus {
            domains: Some(domains.iter().map(|domain| (*domain).to_owned()).collect()),
            ..PrimaryStatus::default()
        };
        let known = status(&["example.com", "Other.example"]);
        let meant = ["example.com", "sub.example.com", "other.example", "notexample.com", "example.org", ""];
        assert_eq!(meant.map(|domain| known.may_be_for(domain)), [true, true, true, false, false, false]);
        assert!(status(&["x.example"; MOST_DOMAINS]).may_be_for("example.org"), "there may be more");
        assert!(PrimaryStatus::default().may_be_for("example.org"));
    }
}
