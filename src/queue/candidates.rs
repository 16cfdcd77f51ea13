//! What is at stake in a queue run, of the domains that this host is a fall-back for: the recipients that a rehearsal may
//! ask a primary for, the oldest of each domain, how many messages are past their time, and how large the largest are.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::{Clocks, Message, Returns, State};

/// How many recipients of a domain are kept, and how many sizes.
const KEPT: usize = 10;

/// Of how many domains with waiting mail.
const MOST_DOMAINS: usize = 200;

/// No mail server refuses a message for less, in bytes (RFC 5321, section 4.5.3.1.7).
const SMALL: u64 = 64 * 1024;

/// The longest address, in bytes (RFC 5321, section 4.5.3.1.3, without the angle brackets).
const LONGEST: usize = 254;

/// A recipient that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The address.
    pub address: String,
    /// The queue id of the oldest message for it.
    pub id: String,
    /// When that came in, in seconds since 1970; `None` where that is not known.
    pub arrival: Option<i64>,
}

impl Candidate {
    /// Its domain, in lower case.
    pub(crate) fn domain(&self) -> String {
        domain(&self.address)
    }

    /// The oldest first; those of unknown age last.
    fn age(&self) -> i64 {
        self.arrival.unwrap_or(i64::MAX)
    }
}

fn domain(address: &str) -> String {
    address.rsplit_once('@').map_or_else(String::new, |(_, domain)| domain.to_ascii_lowercase())
}

/// What is at stake.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stakes {
    /// The recipients, the oldest first.
    pub candidates: Vec<Candidate>,
    /// By domain, how many messages have waited for longer than the mail server keeps them: these go back at the next
    /// attempt that fails.
    pub overdue: BTreeMap<String, u64>,
    /// By domain, how large the largest messages are, in bytes, the largest first; at most ten.
    pub sizes: BTreeMap<String, Vec<u64>>,
}

/// Collects that while the messages pass by, in bounded memory.
#[derive(Debug, Default)]
pub struct Candidates {
    domains: HashMap<String, Vec<Candidate>>,
    with_mail: usize,
    clocks: Clocks,
    overdue: BTreeMap<String, u64>,
    sizes: BTreeMap<String, Vec<u64>>,
}

impl Candidates {
    /// Of these domains alone, in lower case.
    pub fn of(domains: &[String], clocks: Clocks) -> Candidates {
        let domains = domains.iter().map(|domain| (domain.clone(), Vec::new())).collect();
        Candidates { domains, clocks, ..Candidates::default() }
    }

    /// Looks at a message. Held ones and those on their way back don't count; nor are recipients of null-sender messages
    /// (bounces, notices) asked for.
    pub fn add(&mut self, message: &Message<'_>) {
        if self.domains.is_empty() || message.being_returned || message.state == State::Held {
            return;
        }
        self.add_overdue(message);
        self.add_size(message);
        if message.sender.as_deref().is_some_and(str::is_empty) {
            return;
        }
        for recipient in message.recipients.iter().filter(|recipient| !recipient.delivered) {
            let Some(list) = self.domains.get_mut(&domain(&recipient.address)) else { continue };
            if !is_plain_address(&recipient.address) || (list.is_empty() && self.with_mail == MOST_DOMAINS) {
                continue;
            }
            self.with_mail += usize::from(list.is_empty());
            let new = Candidate {
                address: recipient.address.to_string(),
                id: message.id.to_string(),
                arrival: message.arrival,
            };
            keep(list, new);
        }
    }

    fn add_overdue(&mut self, message: &Message<'_>) {
        // What goes back at a certain time does so without an attempt (OpenSMTPD).
        let is_at_risk = match self.clocks.lifetimes.returns(message) {
            returns @ (Returns::NotBefore(_) | Returns::About(_)) => returns.is_overdue(self.clocks.now),
            Returns::Now | Returns::At(_) | Returns::Never | Returns::Unknown => false,
        };
        if is_at_risk {
            self.domains_of(message).into_iter().for_each(|domain| *self.overdue.entry(domain).or_default() += 1);
        }
    }

    fn add_size(&mut self, message: &Message<'_>) {
        let Some(size) = message.size.filter(|size| *size >= SMALL) else { return };
        for domain in self.domains_of(message) {
            if self.sizes.len() == MOST_DOMAINS && !self.sizes.contains_key(&domain) {
                continue;
            }
            let largest = self.sizes.entry(domain).or_default();
            largest.insert(largest.partition_point(|other| *other >= size), size);
            largest.truncate(KEPT);
        }
    }

    /// The domains of ours that this message waits for.
    fn domains_of(&self, message: &Message<'_>) -> Vec<String> {
        let waiting = message.recipients.iter().filter(|recipient| !recipient.delivered);
        let mut domains: Vec<_> = waiting.filter_map(|recipient| self.above(&domain(&recipient.address))).collect();
        domains.sort();
        domains.dedup();
        domains
    }

    /// The domain of ours that this one is, or is below.
    fn above(&self, domain: &str) -> Option<String> {
        let parents = domain.match_indices('.').map(|(dot, _)| &domain[dot + 1..]);
        std::iter::once(domain).chain(parents).find(|name| self.domains.contains_key(*name)).map(str::to_owned)
    }

    /// All that was collected.
    pub fn into_stakes(self) -> Stakes {
        let mut candidates: Vec<_> = self.domains.into_values().flatten().collect();
        candidates.sort_by(|one, other| (one.age(), &one.address).cmp(&(other.age(), &other.address)));
        Stakes { candidates, overdue: self.overdue, sizes: self.sizes }
    }
}

/// Keeps a candidate in a list that is sorted by age, if it is one of the oldest; none twice.
fn keep(list: &mut Vec<Candidate>, new: Candidate) {
    if let Some(known) = list.iter().position(|known| known.address == new.address) {
        if list[known].age() <= new.age() {
            return;
        }
        list.remove(known);
    }
    let place = list.partition_point(|known| known.age() <= new.age());
    if place < KEPT {
        list.insert(place, new);
        list.truncate(KEPT);
    }
}

/// One recipient of each domain in turn, the oldest first; at most so many.
pub fn in_turn(candidates: &[Candidate], most: usize) -> Vec<Candidate> {
    let mut domains: Vec<(String, Vec<&Candidate>)> = Vec::new();
    let mut sorted: Vec<_> = candidates.iter().collect();
    sorted.sort_by_key(|candidate| candidate.age());
    for candidate in sorted {
        let domain = candidate.domain();
        match domains.iter_mut().find(|(known, _)| *known == domain) {
            Some((_, list)) if list.iter().any(|known| known.address == candidate.address) => {}
            Some((_, list)) => list.push(candidate),
            None => domains.push((domain, vec![candidate])),
        }
    }
    let rounds = domains.iter().map(|(_, list)| list.len()).max().unwrap_or_default();
    let turns = (0..rounds).flat_map(|round| domains.iter().filter_map(move |(_, list)| list.get(round).copied()));
    turns.take(most).cloned().collect()
}

/// Whether an address may be put into a command as it is: a dot-string (RFC 5321, section 4.1.2) without the characters
/// that once routed mail elsewhere (`%`, `!`) or that mail servers take for an attack (`/`, `|`), and a domain of letters,
/// digits, dots and hyphens.
pub fn is_plain_address(address: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let is_label = |label: &str| {
        let fits = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        fits && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_atom = |atom: &str| {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"#$&'*+-=?^_`{}~".contains(&byte);
        !atom.is_empty() && atom.bytes().all(fits)
    };
    address.len() <= LONGEST && local.len() <= 64 && local.split('.').all(is_atom) && domain.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Lifetimes, Plan, Recipient};

    fn message(id: &str, arrival: i64, sender: &str, recipients: &[&str]) -> Message<'static> {
        Message {
            id: id.to_owned().into(),
            state: State::Deferred,
            mta_state: "deferred".into(),
            size: None,
            arrival: Some(arrival),
            sender: Some(sender.to_owned().into()),
            recipients: recipients
                .iter()
                .map(|address| Recipient {
                    address: address.to_string().into(),
                    reason: None,
                    delivered: false,
                    last_attempt: None,
                })
                .collect(),
            being_returned: false,
            too_young: false,
            instance: None,
            plan: Plan::default(),
        }
    }

    fn addresses(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|candidate| candidate.address.as_str()).collect()
    }

    #[test]
    fn only_plain_recipients_of_our_domains_are_asked_for_and_the_oldest_first() {
        let mut candidates = Candidates::of(&["example.com".to_owned(), "other.example".to_owned()], Clocks::default());
        candidates.add(&message("C", 30, "a@example.org", &["moe@example.com", "x@elsewhere.example"]));
        candidates.add(&message("A", 10, "a@example.org", &["larry@Example.COM", "\"a b\"@example.com"]));
        candidates.add(&message("B", 20, "", &["bounce@example.com"]));
        candidates.add(&message("D", 5, "a@example.org", &["moe@example.com", "u@sub.example.com"]));
        candidates.add(&Message { state: State::Held, ..message("E", 1, "a@example.org", &["held@example.com"]) });
        candidates.add(&message("F", 40, "a@example.org", &["user@other.example", "curly@example.com"]));
        let list = candidates.into_stakes().candidates;
        assert_eq!(
            addresses(&list),
            ["moe@example.com", "larry@Example.COM", "curly@example.com", "user@other.example"]
        );
        assert_eq!(list[0].id, "D", "the oldest for it");
        assert_eq!(addresses(&in_turn(&list, 3)), ["moe@example.com", "user@other.example", "larry@Example.COM"]);
        assert_eq!(in_turn(&list, 9).len(), 4);
    }

    #[test]
    fn of_a_long_queue_the_oldest_of_each_domain_are_kept() {
        let mut candidates = Candidates::of(&["example.com".to_owned()], Clocks::default());
        for number in (0..1000).rev() {
            candidates.add(&message("A", number / 2, "a@example.org", &[&format!("user{number}@example.com")]));
        }
        let list = candidates.into_stakes().candidates;
        assert_eq!(list.len(), KEPT);
        assert!(list.iter().all(|candidate| candidate.arrival < Some(5)), "{list:?}");
        let many: Vec<_> = (0..MOST_DOMAINS * 2).map(|number| format!("d{number}.example")).collect();
        let mut candidates = Candidates::of(&many, Clocks::default());
        many.iter().for_each(|domain| candidates.add(&message("A", 1, "a@example.org", &[&format!("x@{domain}")])));
        assert_eq!(candidates.into_stakes().candidates.len(), MOST_DOMAINS);
    }

    #[test]
    fn an_address_is_plain_or_is_never_said_to_a_primary() {
        for plain in ["larry@example.com", "a.b+c=d'e@sub.example.com", "x@localhost"] {
            assert!(is_plain_address(plain), "{plain}");
        }
        let long = format!("{}@example.com", "x".repeat(65));
        for odd in [
            "",
            "root",
            "@example.com",
            "a@",
            "a b@example.com",
            "\"a\"@example.com",
            "a@b@example.com",
            "a>b@example.com",
            "a\r\nQUIT@example.com",
            "ü@example.com",
            "a@bücher.example",
            "a…@example.com",
            "a..b@example.com",
            "a@example.com…",
            "a%b@example.com",
            "b!a@example.com",
            "|x@example.com",
            "a@[192.0.2.1]",
            "a@-x.example",
            &long,
        ] {
            assert!(!is_plain_address(odd), "{odd}");
        }
    }

    #[test]
    fn messages_past_their_time_are_counted_where_a_failed_attempt_returns_them() {
        let overdue = |lifetimes: Lifetimes| {
            let clocks = Clocks { now: 1000, lifetimes };
            let mut candidates = Candidates::of(&["example.com".to_owned(), "other.example".to_owned()], clocks);
            candidates.add(&message("A", 100, "a@example.org", &["moe@example.com", "larry@sub.example.com"]));
            candidates.add(&message("B", 200, "", &["moe@example.com", "user@other.example"]));
            candidates.add(&message("C", 900, "a@example.org", &["moe@example.com"]));
            candidates.add(&message("D", 100, "a@example.org", &["x@elsewhere.example"]));
            candidates.add(&Message { state: State::Held, ..message("E", 1, "a@example.org", &["moe@example.com"]) });
            candidates.add(&Message { being_returned: true, ..message("F", 1, "a@example.org", &["moe@example.com"]) });
            candidates.into_stakes().overdue.into_iter().collect::<Vec<_>>()
        };
        let not_before = Lifetimes::NotBefore { message: 500, null_sender: 500 };
        assert_eq!(overdue(not_before), [("example.com".to_owned(), 2), ("other.example".to_owned(), 1)]);
        let exim = Lifetimes::About { cutoffs: vec![], otherwise: Some(500), failing_since: None, frozen: None };
        assert_eq!(overdue(exim).len(), 2);
        assert_eq!(overdue(Lifetimes::At { message: 500 }), []);
        assert_eq!(overdue(Lifetimes::Unknown), []);
    }

    #[test]
    fn the_largest_messages_of_a_domain_are_known() {
        let mut candidates = Candidates::of(&["example.com".to_owned()], Clocks::default());
        for size in (1..100).map(|number| number * 10_000) {
            let sized = |to: &'static str| Message { size: Some(size), ..message("A", 1, "a@example.org", &[to]) };
            candidates.add(&sized("moe@example.com"));
            candidates.add(&sized("x@elsewhere.example"));
        }
        candidates.add(&message("B", 1, "a@example.org", &["moe@example.com"]));
        let sizes = candidates.into_stakes().sizes;
        let largest = &sizes["example.com"];
        assert_eq!((sizes.len(), largest.len(), largest[0], largest[9]), (1, KEPT, 990_000, 900_000));
    }
}
