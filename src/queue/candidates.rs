//! The recipients that a rehearsal may ask a primary for: of the domains that this host is a fall-back for, the oldest
//! of each.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{Message, State};

/// How many recipients of a domain are kept.
const KEPT: usize = 10;

/// Of how many domains with waiting mail.
const MOST_DOMAINS: usize = 200;

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

/// Collects them while the messages pass by, in bounded memory.
#[derive(Debug, Default)]
pub struct Candidates {
    domains: HashMap<String, Vec<Candidate>>,
    with_mail: usize,
}

impl Candidates {
    /// Of these domains alone, in lower case.
    pub fn of(domains: &[String]) -> Candidates {
        Candidates { domains: domains.iter().map(|domain| (domain.clone(), Vec::new())).collect(), with_mail: 0 }
    }

    /// Looks at a message. Null-sender messages (bounces, notices), held ones and those on their way back don't count.
    pub fn add(&mut self, message: &Message<'_>) {
        let is_null = message.sender.as_deref().is_some_and(str::is_empty);
        if self.domains.is_empty() || is_null || message.being_returned || message.state == State::Held {
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

    /// All that were kept.
    pub fn into_list(self) -> Vec<Candidate> {
        let mut list: Vec<_> = self.domains.into_values().flatten().collect();
        list.sort_by(|one, other| (one.age(), &one.address).cmp(&(other.age(), &other.address)));
        list
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
    use crate::queue::Recipient;

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
        }
    }

    fn addresses(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|candidate| candidate.address.as_str()).collect()
    }

    #[test]
    fn only_plain_recipients_of_our_domains_are_asked_for_and_the_oldest_first() {
        let mut candidates = Candidates::of(&["example.com".to_owned(), "other.example".to_owned()]);
        candidates.add(&message("C", 30, "a@example.org", &["moe@example.com", "x@elsewhere.example"]));
        candidates.add(&message("A", 10, "a@example.org", &["larry@Example.COM", "\"a b\"@example.com"]));
        candidates.add(&message("B", 20, "", &["bounce@example.com"]));
        candidates.add(&message("D", 5, "a@example.org", &["moe@example.com", "u@sub.example.com"]));
        candidates.add(&Message { state: State::Held, ..message("E", 1, "a@example.org", &["held@example.com"]) });
        candidates.add(&message("F", 40, "a@example.org", &["user@other.example", "curly@example.com"]));
        let list = candidates.into_list();
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
        let mut candidates = Candidates::of(&["example.com".to_owned()]);
        for number in (0..1000).rev() {
            candidates.add(&message("A", number / 2, "a@example.org", &[&format!("user{number}@example.com")]));
        }
        let list = candidates.into_list();
        assert_eq!(list.len(), KEPT);
        assert!(list.iter().all(|candidate| candidate.arrival < Some(5)), "{list:?}");
        let many: Vec<_> = (0..MOST_DOMAINS * 2).map(|number| format!("d{number}.example")).collect();
        let mut candidates = Candidates::of(&many);
        many.iter().for_each(|domain| candidates.add(&message("A", 1, "a@example.org", &[&format!("x@{domain}")])));
        assert_eq!(candidates.into_list().len(), MOST_DOMAINS);
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
}
