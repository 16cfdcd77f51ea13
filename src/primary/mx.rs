//! The records that a fall-back needs in the domain name system (RFC 5321, section 5.1): this host is among a domain's
//! mail exchangers, a primary is preferred to it, and all of them have addresses.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::dns::{Addresses, Exchanger, NoAnswer};
use crate::text::printable;

/// This host, by the names and addresses that its MX record may lead to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ourselves {
    /// Host names in lower case, the one to suggest first.
    pub(crate) names: Vec<String>,
    /// Addresses of its interfaces.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Ourselves {
    /// The mail exchanger of a domain that stands for this host: the one with its name, else the least preferred one
    /// whose addresses are this host's.
    fn among<'f>(&self, found: &'f [Found]) -> Option<&'f Exchanger> {
        let named = found.iter().find(|(exchanger, _)| self.names.contains(&exchanger.host));
        let led_here = || found.iter().rfind(|(_, addresses)| self.answer_at(addresses));
        named.or_else(led_here).map(|(exchanger, _)| exchanger)
    }

    fn answer_at(&self, addresses: &Result<Addresses, NoAnswer>) -> bool {
        addresses.as_ref().is_ok_and(|found| found.list.iter().any(|address| self.addresses.contains(address)))
    }

    fn name(&self) -> &str {
        self.names.first().map_or("this-host.example.com", String::as_str)
    }
}

/// Something in the domain name system that keeps a fall-back from working.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// The fault, in a sentence.
    pub(crate) message: String,
    /// The record to add or to change, and why.
    pub(crate) remedy: String,
}

/// A mail exchanger with its addresses.
pub(crate) type Found = (Exchanger, Result<Addresses, NoAnswer>);

/// Checks the MX records of a domain, which come most preferred first. Returns the exchangers that are preferred to this
/// host, its primaries, and all faults.
pub(crate) fn examine(domain: &str, found: &Result<Vec<Found>, NoAnswer>, us: &Ourselves) -> (Vec<String>, Vec<Fault>) {
    let ours = us.name();
    let mut faults = Vec::new();
    let mut fault = |message: String, remedy: String| faults.push(Fault { message, remedy });
    let is_odd =
        |name: &str| !name.chars().all(|c| c.is_alphanumeric() || "._-".contains(c)) || printable(name) != name;
    if is_odd(domain) {
        let remedy = "Correct it where this host's relay domains are configured, or in [primary] domains.".to_owned();
        fault(format!("“{domain}” is no name of a domain."), remedy);
        return (Vec::new(), faults);
    }
    // Whoever owns the zone wrote these names, and what follows puts names into records to be pasted.
    let mut found = found.clone();
    let has_records = found.as_ref().is_ok_and(|found| !found.is_empty());
    for (exchanger, _) in found.iter_mut().flat_map(|found| found.extract_if(.., |(one, _)| is_odd(&one.host))) {
        let remedy = format!("Correct that record where the zone of {domain} is kept.");
        fault(format!("An MX record of {domain} names “{}”, which is no name of a host.", exchanger.host), remedy);
    }
    let ask = || "Look at /etc/resolv.conf, and whether the name servers there answer.".to_owned();
    let found = match &found {
        Err(NoAnswer::NoName) => {
            let remedy = format!("Register it, or take it off the domains that this host relays: {domain}");
            fault(format!("There is no domain {domain} in the domain name system."), remedy);
            return (Vec::new(), faults);
        }
        Err(error) => {
            fault(format!("The MX records of {domain} are not known: {error}."), ask());
            return (Vec::new(), faults);
        }
        Ok(found) => found,
    };
    let (Some((best, _)), Some((worst, _))) = (found.first(), found.last()) else {
        if has_records {
            return (Vec::new(), faults);
        }
        let remedy = format!("Add: {domain}. IN MX 10 primary.{domain}. and {domain}. IN MX 20 {ours}.");
        fault(format!("{domain} has no MX records, so nobody sends its mail here."), remedy);
        return (Vec::new(), faults);
    };
    if best.host.is_empty() {
        let remedy = format!("Remove: {domain}. IN MX {} .", best.preference);
        fault(format!("{domain} says that it takes no mail at all (a null MX, RFC 7505)."), remedy);
        return (Vec::new(), faults);
    }
    let own = us.among(found);
    if own.is_none() {
        let remedy = format!("Add: {domain}. IN MX {} {ours}.", worst.preference.saturating_add(10));
        fault(format!("This host is no mail exchanger of {domain}, so nobody sends its mail here."), remedy);
    }
    let mut primaries = Vec::new();
    for (exchanger, addresses) in found {
        let Exchanger { host, preference } = exchanger;
        match addresses {
            _ if host.parse::<IpAddr>().is_ok() => fault(
                format!("An MX record of {domain} names the address {host} instead of a host."),
                format!("Name a host: {domain}. IN MX {preference} mail.{domain}."),
            ),
            Ok(addresses) if addresses.alias => fault(
                format!("{host}, a mail exchanger of {domain}, is an alias, which RFC 2181 forbids (section 10.3)."),
                format!("Give {host} an A or AAAA record of its own in place of its CNAME."),
            ),
            Ok(addresses) if !addresses.list.is_empty() => {}
            Ok(_) | Err(NoAnswer::NoName | NoAnswer::NotAName) => fault(
                format!("{host}, a mail exchanger of {domain}, has no address."),
                format!("Add its address: {host}. IN A 192.0.2.1 (or AAAA)."),
            ),
            Err(error) => {
                fault(format!("The addresses of {host}, a mail exchanger of {domain}, are not known: {error}."), ask())
            }
        }
        if own == Some(exchanger) {
            continue;
        }
        let is_better = own.map_or(*preference == best.preference, |own| *preference < own.preference);
        if is_better && us.answer_at(addresses) {
            fault(
                format!("{host}, which is preferred, leads to this host itself: mail for {domain} goes in a loop."),
                format!("Correct the address of {host}: it should be the primary's."),
            );
        } else if is_better {
            primaries.push(host.clone());
        } else if own.is_some_and(|own| own.preference == *preference) {
            fault(
                format!(
                    "{host} and this host are equal as mail exchangers of {domain}: neither passes mail on to the other."
                ),
                format!("Give this host a worse preference: {domain}. IN MX {} {ours}.", preference.saturating_add(10)),
            );
        }
    }
    if own == Some(best)
        && found.iter().all(|(exchanger, _)| exchanger.preference != best.preference || exchanger == best)
    {
        fault(
            format!(
                "No mail exchanger of {domain} is preferred to this host, so it has no primary to pass mail on to."
            ),
            format!("Add a better one: {domain}. IN MX {} primary.{domain}.", best.preference.saturating_sub(10)),
        );
    }
    (primaries, faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us() -> Ourselves {
        Ourselves { names: vec!["mx2.example.com".into()], addresses: vec![[192, 0, 2, 2].into()] }
    }

    fn exchanger(preference: u16, host: &str, address: &str) -> Found {
        let addresses = match address {
            "" => Ok(Addresses::default()),
            "alias" => Ok(Addresses { list: vec![[192, 0, 2, 9].into()], alias: true }),
            "silent" => Err(NoAnswer::Silent),
            address => Ok(Addresses { list: vec![address.parse().unwrap()], alias: false }),
        };
        (Exchanger { preference, host: host.into() }, addresses)
    }

    fn told(found: Result<Vec<Found>, NoAnswer>) -> (Vec<String>, String) {
        let (primaries, faults) = examine("example.com", &found, &us());
        (
            primaries,
            faults
                .into_iter()
                .map(|fault| format!("{} {}", fault.message, fault.remedy))
                .collect::<Vec<_>>()
                .join("\n"),
        )
    }

    #[test]
    fn a_fall_back_as_it_should_be_has_no_fault() {
        let primary = || exchanger(10, "mx1.example.com", "192.0.2.1");
        let good = (vec!["mx1.example.com".to_owned()], String::new());
        assert_eq!(told(Ok(vec![primary(), exchanger(20, "mx2.example.com", "192.0.2.2")])), good);
        assert_eq!(told(Ok(vec![primary(), exchanger(20, "backup.example.net", "192.0.2.2")])), good, "by its address");
        assert_eq!(told(Ok(vec![primary(), exchanger(20, "mx2.example.com", "203.0.113.7")])), good, "behind NAT");
        let third = exchanger(30, "mx3.example.com", "192.0.2.3");
        assert_eq!(told(Ok(vec![primary(), exchanger(20, "mx2.example.com", "192.0.2.2"), third])), good);
    }

    #[test]
    fn every_fault_is_told_with_the_record_to_add() {
        let primary = || exchanger(10, "mx1.example.com", "192.0.2.1");
        let own = |preference| exchanger(preference, "mx2.example.com", "192.0.2.2");
        for (found, primaries, words) in [
            (Err(NoAnswer::NoName), 0, "There is no domain example.com"),
            (Err(NoAnswer::Silent), 0, "The MX records of example.com are not known: no name server answers."),
            (
                Ok(vec![]),
                0,
                "Add: example.com. IN MX 10 primary.example.com. and example.com. IN MX 20 mx2.example.com.",
            ),
            (Ok(vec![exchanger(0, "", "")]), 0, "Remove: example.com. IN MX 0 ."),
            (Ok(vec![primary()]), 1, "Add: example.com. IN MX 20 mx2.example.com."),
            (Ok(vec![own(20)]), 0, "Add a better one: example.com. IN MX 10 primary.example.com."),
            (Ok(vec![primary(), own(10)]), 0, "mx1.example.com and this host are equal"),
            (Ok(vec![own(5), primary()]), 0, "No mail exchanger of example.com is preferred to this host"),
            (Ok(vec![exchanger(10, "mx1.example.com", "192.0.2.2"), own(20)]), 0, "goes in a loop"),
            (Ok(vec![exchanger(10, "mx1.example.com", ""), own(20)]), 1, "Add its address: mx1.example.com. IN A"),
            (Ok(vec![exchanger(10, "mx1.example.com", "alias"), own(20)]), 1, "in place of its CNAME"),
            (Ok(vec![exchanger(10, "mx1.example.com", "silent"), own(20)]), 1, "are not known: no name server answers"),
            (Ok(vec![exchanger(10, "192.0.2.1", "192.0.2.1"), own(20)]), 1, "names the address 192.0.2.1"),
            (Ok(vec![primary(), exchanger(15, "mx'; id;'.example.com", ""), own(20)]), 1, "which is no name of a host"),
            (Ok(vec![exchanger(10, "a\\010b", "")]), 0, "“a\\010b”, which is no name of a host"),
        ] {
            let (named, faults) = told(found);
            assert_eq!(named.len(), primaries, "{words}");
            assert!(faults.contains(words) && faults.lines().count() == 1, "{words}: {faults}");
        }
    }
}
