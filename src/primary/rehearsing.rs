//! Who rehearses with the primaries, and how often: one at a time, and not again within some minutes where that left
//! refusals in a primary's log, as these can get this host banned there.
//!
//! The one who rehearses is a process that outlives the request, so that what was said is remembered however that ends.
//! It has another one under it, in the sandbox, that connects.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::conversation::{REHEARSAL, rehearse};
use super::dns::Resolver;
use super::mx::Compared;
use super::rehearsal::{Answers, Counts, MOST_RECIPIENTS};
use super::verdict::Verdict;
use super::{DNS_PATIENCE, MOST_DOMAINS, MOST_HOSTS, Place, addresses, compare_one, with_port};
use crate::context::Context;
use crate::mta::Kind;
use crate::queue::{Candidate, in_turn, is_plain_address};
use crate::sandbox::worker::Worker;
use crate::sandbox::{Purpose, Sandbox};
use crate::state::{Records, Sighting};
use crate::system::Free;

/// For how long a rehearsal that left refusals is not repeated, in seconds: fail2ban counts those of ten minutes.
const HELD_FOR: i64 = 600;

/// How long name servers and primaries may take.
const PATIENCE: Duration = Duration::from_millis(DNS_PATIENCE.as_millis() as u64 * 2 + REHEARSAL.as_millis() as u64);

/// How long who rehearses may take: the same, and a while to write it down.
const WITH_NOTES: Duration = Duration::from_millis(PATIENCE.as_millis() as u64 + 1000);

/// How long a process waits until it looks again whether another one has finished.
const AGAIN: Duration = Duration::from_millis(20);

/// What one primary said in a rehearsal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rehearsed {
    /// `host:port`; the domain where its hosts are not known.
    pub(crate) host: String,
    /// When that was, in seconds since 1970.
    pub(crate) at: i64,
    /// Whether it was not repeated, as it had left refusals.
    pub(crate) kept: bool,
    /// The domains whose recipients were to be asked for.
    pub(crate) domains: Vec<String>,
    /// Those recipients, in the order of the rehearsal.
    candidates: Vec<Candidate>,
    /// Its answers.
    pub(crate) answers: Answers,
    /// What they mean for a queue run.
    pub(crate) verdict: Verdict,
}

impl Rehearsed {
    /// The oldest message for a recipient that was accepted.
    pub(crate) fn oldest_accepted(&self) -> Option<&Candidate> {
        let accepted = self.answers.recipients.iter().filter(|asked| asked.counts == Counts::Accepted);
        let candidate = |address: &str| self.candidates.iter().find(|candidate| candidate.address == address);
        accepted.filter_map(|asked| candidate(&asked.recipient)).min_by_key(|of| of.arrival.unwrap_or(i64::MAX))
    }
}

/// What is missing where nobody was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacks {
    /// Neither a primary nor a domain is known.
    Primary,
    /// It is not known for which domains this host is a fall-back.
    Domains,
    /// No recipient of these waits whose address can be asked for.
    Recipients,
    /// These domains have no primary.
    Hosts,
}

/// What a rehearsal goes by, known before the queue is listed.
pub(crate) struct Grounds(pub(super) Place);

impl Grounds {
    /// Asks the mail server for its own name and domains.
    pub(crate) fn gather(context: &Context) -> Grounds {
        let relaying = context.source.as_ref().ok().and_then(|source| source.mta.relaying());
        let deadline = Instant::now() + DNS_PATIENCE;
        let config = context.config.primary.clone();
        let mut place = Place::find(&context.free, config, relaying, &context.host, deadline);
        place.domains.iter_mut().for_each(|domain| *domain = domain.to_lowercase());
        Grounds(place)
    }

    /// The domains that this host is a fall-back for, in lower case: only their recipients are asked for.
    pub(crate) fn domains(&self) -> &[String] {
        &self.0.domains
    }

    /// Asks the primaries for some of these recipients, or returns what they said a while ago.
    ///
    /// # Errors
    /// [`Lacks`]
    pub(crate) fn rehearse(&self, context: &Context, candidates: &[Candidate]) -> Result<Vec<Rehearsed>, Lacks> {
        let Place { hosts, domains, .. } = &self.0;
        let kind = match &context.source {
            Ok(source) if !domains.is_empty() => source.mta.kind(),
            _ if hosts.is_empty() => return Err(Lacks::Primary),
            _ => return Err(Lacks::Domains),
        };
        // They come from the reader, which read strangers' words.
        let is_ours = |one: &&Candidate| is_plain_address(&one.address) && domains.contains(&one.domain());
        let candidates: Vec<_> = candidates.iter().filter(is_ours).cloned().collect();
        if candidates.is_empty() {
            return Err(Lacks::Recipients);
        }
        let part = Part { grounds: self, kind, since: context.clock.now, candidates };
        let asked = part.asked(context);
        if asked.is_empty() { Err(Lacks::Hosts) } else { Ok(asked) }
    }
}

/// Waits until nobody else rehearses.
fn locked(sighting: Sighting, until: Instant) -> Option<Sighting> {
    while !sighting.try_lock() {
        if Instant::now() >= until {
            return None;
        }
        thread::sleep(AGAIN);
    }
    Some(sighting)
}

/// A rehearsal for some recipients.
struct Part<'a> {
    grounds: &'a Grounds,
    kind: Kind,
    /// When it was asked for, in seconds since 1970: what was said since then is as good.
    since: i64,
    candidates: Vec<Candidate>,
}

impl Part<'_> {
    /// What the primaries said, now or a while ago.
    fn asked(&self, context: &Context) -> Vec<Rehearsed> {
        let records = context.records.as_ref().ok();
        let failed = |why: String| vec![self.of_nobody(self.domains(), format!("the process that asks it {why}"))];
        let asked = match records.and_then(Records::rehearsals) {
            None => Worker::begin_with(&context.free, None, WITH_NOTES, |free| self.ask_and_keep(&free, None)),
            Some(sighting) => match locked(sighting, Instant::now() + WITH_NOTES) {
                None => return failed("is busy".into()),
                Some(lock) => {
                    let lock: OwnedFd = lock.into();
                    let ask = |free: Free| self.ask_and_keep(&free, io::stdin().as_fd().try_clone_to_owned().ok());
                    Worker::begin_lasting(&context.free, Some(lock), WITH_NOTES, ask)
                }
            },
        };
        asked.and_then(Worker::answer).unwrap_or_else(|error| failed(error.to_string()))
    }

    /// The domains of the recipients, those of the oldest first.
    fn domains(&self) -> Vec<String> {
        let mut domains = Vec::new();
        for candidate in in_turn(&self.candidates, usize::MAX) {
            let domain = candidate.domain();
            if domains.len() < MOST_DOMAINS && !domains.contains(&domain) {
                domains.push(domain);
            }
        }
        domains
    }

    /// Asks, and writes down what was said beside what others said, where that can be kept.
    fn ask_and_keep(&self, free: &Free, file: Option<OwnedFd>) -> Vec<Rehearsed> {
        let file = file.map(Sighting::of);
        let now = Timestamp::now().as_second();
        let kept: Vec<Rehearsed> = file
            .as_ref()
            .and_then(Sighting::read)
            .and_then(|seen| serde_json::from_slice(&seen).ok())
            .unwrap_or_default();
        let kept: Vec<_> = kept.into_iter().filter(|one| (0..HELD_FOR).contains(&(now - one.at))).collect();
        let asked = Worker::begin(free, PATIENCE, |free| self.connect(free, &kept)).and_then(Worker::answer);
        let asked = match asked {
            Ok(asked) => asked,
            Err(error) => {
                vec![self.of_nobody(self.domains(), format!("the process that asks it {error}"))]
            }
        };
        let is_older = |one: &Rehearsed| !asked.iter().any(|new| new.host == one.host);
        let all: Vec<_> = kept.iter().filter(|one| is_older(one)).chain(&asked).collect();
        if let (Some(file), Ok(bytes)) = (file, serde_json::to_vec(&all)) {
            // Where there is no room for it, the next one asks again.
            let _ = file.write(&bytes);
        }
        asked
    }

    /// In the sandbox: finds out which host takes which domain's mail, and asks each for its recipients.
    fn connect(&self, free: Free, kept: &[Rehearsed]) -> Vec<Rehearsed> {
        let resolver = Resolver::of_system(Instant::now() + DNS_PATIENCE);
        // Whether a sandbox holds is said of the reader's.
        Sandbox::enter(free, Purpose::Asking);
        let (groups, mut unknown) = self.groups(&resolver);
        let resolver = &resolver.until(Instant::now() + DNS_PATIENCE);
        let mut all: Vec<Rehearsed> = thread::scope(|scope| {
            let asked: Vec<_> = groups
                .iter()
                .map(|(hosts, domains)| scope.spawn(move || self.with_group(hosts, domains, resolver, kept)))
                .collect();
            asked.into_iter().filter_map(|asked| asked.join().ok()).collect()
        });
        all.append(&mut unknown);
        all
    }

    /// The domains by the hosts that take their mail, the most preferred first; and what is said of domains whose hosts
    /// are not known. A domain without a primary is neither.
    fn groups(&self, resolver: &Resolver) -> (BTreeMap<Vec<String>, Vec<String>>, Vec<Rehearsed>) {
        let (domains, place) = (self.domains(), &self.grounds.0);
        let configured: Vec<_> = place.hosts.iter().map(|host| with_port(host)).collect();
        let of_domain = |domain: &str| match configured.as_slice() {
            [_] => Ok(configured.clone()),
            _ => hosts_of(domain, resolver, place).map(|found| assigned(&configured, found)),
        };
        let found: Vec<_> = thread::scope(|scope| {
            let of_domain = &of_domain;
            let lookups: Vec<_> = domains.iter().map(|domain| scope.spawn(move || of_domain(domain))).collect();
            lookups.into_iter().map(|lookup| lookup.join().unwrap_or_else(|_| Ok(Vec::new()))).collect()
        });
        let (mut groups, mut unknown) = (BTreeMap::<_, Vec<_>>::new(), Vec::new());
        for (domain, hosts) in domains.into_iter().zip(found) {
            match hosts {
                Ok(hosts) if !hosts.is_empty() && (groups.len() < MOST_HOSTS || groups.contains_key(&hosts)) => {
                    groups.entry(hosts).or_default().push(domain);
                }
                Ok(_) => {}
                Err(_) if !configured.is_empty() => groups.entry(configured.clone()).or_default().push(domain),
                Err(why) => unknown.push(self.of_nobody(vec![domain], why)),
            }
        }
        (groups, unknown)
    }

    /// Asks the first of these hosts that can be reached for the recipients of these domains.
    fn with_group(&self, hosts: &[String], domains: &[String], resolver: &Resolver, kept: &[Rehearsed]) -> Rehearsed {
        let of_domains: Vec<_> =
            self.candidates.iter().filter(|candidate| domains.contains(&candidate.domain())).cloned().collect();
        let candidates = in_turn(&of_domains, MOST_RECIPIENTS);
        let recipients: Vec<_> = candidates.iter().map(|candidate| candidate.address.clone()).collect();
        let mut last = None;
        for host in hosts {
            if let Some(known) = kept.iter().find(|known| known.host == *host) {
                let covers = domains.iter().all(|domain| known.domains.contains(domain));
                let kept = known.answers.leaves_refusals();
                if kept || (covers && known.at >= self.since) {
                    return Rehearsed { kept, ..known.clone() };
                }
            }
            let answers = match addresses(host, resolver) {
                Ok(addresses) => rehearse(&addresses, &self.grounds.0.own_name, &recipients),
                Err(error) => Answers::unreached(error.to_string()),
            };
            let asked = self.of_host(host.clone(), domains.to_vec(), candidates.clone(), answers);
            if asked.answers.was_reached() {
                return asked;
            }
            last = last.or(Some(asked));
        }
        last.unwrap_or_else(|| self.of_nobody(domains.to_vec(), "it has no host".into()))
    }

    fn of_host(&self, host: String, domains: Vec<String>, candidates: Vec<Candidate>, answers: Answers) -> Rehearsed {
        let verdict = Verdict::on(&answers, self.kind);
        Rehearsed { host, at: Timestamp::now().as_second(), kept: false, domains, candidates, answers, verdict }
    }

    /// What is said where no host could be asked.
    fn of_nobody(&self, domains: Vec<String>, why: String) -> Rehearsed {
        self.of_host(domains.join(", "), domains, Vec::new(), Answers::unreached(why))
    }
}

/// The hosts that take a domain's mail in place of this one.
///
/// # Errors
/// Why that is not known.
fn hosts_of(domain: &str, resolver: &Resolver, place: &Place) -> Result<Vec<String>, String> {
    let Compared { primaries, unknown, .. } = compare_one(domain, resolver, &place.us);
    match unknown {
        Some(error) => Err(format!("the name servers do not say which server takes its mail: {error}")),
        None => Ok(primaries.iter().map(|host| with_port(host)).collect()),
    }
}

/// Of the configured hosts, where there are several, those that the domain name system has for the domain; all of them
/// where it has none of them.
fn assigned(configured: &[String], found: Vec<String>) -> Vec<String> {
    if configured.is_empty() {
        return found;
    }
    let name = |host: &str| host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
    let is_found = |host: &&String| found.iter().any(|found| name(found) == name(host));
    let both: Vec<_> = configured.iter().filter(is_found).cloned().collect();
    if both.is_empty() { configured.to_vec() } else { both }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_configured_hosts_a_domain_has_its_own() {
        let hosts = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let configured = hosts(&["a.example:25", "B.example:2525"]);
        assert_eq!(assigned(&configured, hosts(&["b.example:25", "c.example:25"])), ["B.example:2525"]);
        assert_eq!(assigned(&configured, hosts(&["c.example:25"])), configured);
        assert_eq!(assigned(&[], hosts(&["c.example:25"])), ["c.example:25"]);
    }
}
