//! The records that a fall-back needs in the domain name system (RFC 5321, section 5.1): this host is among a domain's
//! mail exchangers, a primary is preferred to it, and all of them have addresses.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::dns::{Addresses, Exchanger, NoAnswer};
use super::ourselves::{Ourselves, is_public};
use crate::text::printable;

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

    /// The name for an MX record, as it stands there.
    fn in_record(&self) -> String {
        self.full_name().map_or_else(|| "(the full name of this host)".to_owned(), |name| format!("{name}."))
    }
}

/// Something that keeps a fall-back from working, in the domain name system or elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// The fault, in a sentence.
    pub(crate) message: String,
    /// What to do, such as the record to add.
    pub(crate) remedy: String,
}

/// What came of comparing one domain.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// The mail exchangers that are preferred to this host: its primaries.
    pub(crate) primaries: Vec<String>,
    /// What is wrong.
    pub(crate) faults: Vec<Fault>,
    /// What can't be known from here.
    pub(crate) notes: Vec<String>,
    /// Why the mail exchangers are not known, where no name server could say.
    pub(crate) unknown: Option<NoAnswer>,
}

/// A mail exchanger with its addresses.
pub(crate) type Found = (Exchanger, Result<Addresses, NoAnswer>);

/// Compares what a domain's MX records, the most preferred first, say with what they should.
pub(crate) fn examine(domain: &str, found: &Result<Vec<Found>, NoAnswer>, us: &Ourselves) -> Compared {
    let ours = us.in_record();
    let Compared { mut primaries, mut faults, mut notes, unknown } = Compared::default();
    let mut fault = |message: String, remedy: String| faults.push(Fault { message, remedy });
    let is_odd =
        |name: &str| !name.chars().all(|c| c.is_alphanumeric() || "._-".contains(c)) || printable(name) != name;
    if is_odd(domain) {
        let remedy = "Correct it where this host's relay domains are configured, or in [primary] domains.".to_owned();
        fault(format!("“{domain}” is no name of a domain."), remedy);
        return Compared { primaries, faults, notes, unknown };
    }
    // The owner of the zone wrote these names, and what follows puts names into records to be pasted.
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
            return Compared { primaries, faults, notes, unknown };
        }
        Err(error) => {
            fault(format!("The MX records of {domain} are not known: {error}."), ask());
            return Compared { primaries, faults, notes, unknown: Some(error.clone()) };
        }
        Ok(found) => found,
    };
    let (Some((best, _)), Some((worst, _))) = (found.first(), found.last()) else {
        if has_records {
            return Compared { primaries, faults, notes, unknown };
        }
        let remedy = format!("Add:\n    {domain}. IN MX 10 primary.{domain}.\n    {domain}. IN MX 20 {ours}");
        fault(format!("{domain} has no MX records, so no server will send its mail here."), remedy);
        return Compared { primaries, faults, notes, unknown };
    };
    if best.host.is_empty() {
        let remedy = format!("Remove:\n    {domain}. IN MX {} .", best.preference);
        fault(format!("{domain} says that it takes no mail at all (a null MX, RFC 7505)."), remedy);
        return Compared { primaries, faults, notes, unknown };
    }
    let own = us.among(found);
    let is_outside =
        |(_, addresses): &Found| addresses.as_ref().is_ok_and(|found| found.list.iter().any(|a| is_public(*a)));
    match own {
        Some(_) => {}
        // Behind NAT, a public address may lead here.
        None if us.is_hidden() && found.iter().any(is_outside) => notes.push(format!(
            "It is not known whether this host is a mail exchanger for {domain}: no MX record has one of its names ({}), \
             and its own addresses are private, so a public address may or may not lead to it.",
            us.names.join(", ")
        )),
        None => {
            let remedy = format!("Add:\n    {domain}. IN MX {} {ours}", worst.preference.saturating_add(10));
            let message =
                format!("This host is not a mail exchanger for {domain}, so no server will send its mail here.");
            fault(message, remedy);
        }
    }
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
                format!("Give this host a worse preference: {domain}. IN MX {} {ours}", preference.saturating_add(10)),
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
            format!("Add a better one:\n    {domain}. IN MX {} primary.{domain}.", best.preference.saturating_sub(10)),
        );
    }
    Compared { primaries, faults, notes, unknown }
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
        let Compared { primaries, faults, notes, .. } = examine("example.com", &found, &us());
        assert!(notes.is_empty(), "{notes:?}");
        (
            primaries,
            faults
                .into_iter()
                .map(|fault| format!("{} {}", fault.message, fault.remedy))
                .collect::<Vec<_>>()
                .join("\n--\n"),
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
    fn every_fault_is_named_with_the_record_to_add() {
        let primary = || exchanger(10, "mx1.example.com", "192.0.2.1");
        let own = |preference| exchanger(preference, "mx2.example.com", "192.0.2.2");
        for (found, primaries, words) in [
            (Err(NoAnswer::NoName), 0, "There is no domain example.com"),
            (Err(NoAnswer::Silent), 0, "The MX records of example.com are not known: no name server answers."),
            (
                Ok(vec![]),
                0,
                "Add:\n    example.com. IN MX 10 primary.example.com.\n    example.com. IN MX 20 mx2.example.com.",
            ),
            (Ok(vec![exchanger(0, "", "")]), 0, "Remove:\n    example.com. IN MX 0 ."),
            (Ok(vec![primary()]), 1, "Add:\n    example.com. IN MX 20 mx2.example.com."),
            (Ok(vec![own(20)]), 0, "Add a better one:\n    example.com. IN MX 10 primary.example.com."),
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
            assert!(faults.contains(words) && !faults.contains("--"), "{words}: {faults}");
        }
    }

    #[test]
    fn a_host_with_a_short_name_is_found_by_its_full_one_and_never_suggested_by_the_short_one() {
        let records = || Ok(vec![exchanger(10, "mx1.example.com", "192.0.2.1"), exchanger(20, "mx2.example.com", "")]);
        let us = |names: &[&str]| Ourselves {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            addresses: vec![[192, 0, 2, 77].into()],
        };
        let faults = |names| {
            let faults = examine("example.com", &records(), &us(names)).faults;
            faults.into_iter().map(|fault| format!("{} {}", fault.message, fault.remedy)).collect::<Vec<_>>().join("\n")
        };
        let known = faults(&["mx2", "mx2.example.com"]);
        assert!(!known.contains("This host is not"), "{known}");
        let short = faults(&["bartleby"]);
        assert!(short.contains("This host is not a mail exchanger for example.com"), "{short}");
        assert!(short.contains("Add:\n    example.com. IN MX 30 (the full name of this host)"), "{short}");
    }

    #[test]
    fn behind_nat_it_is_said_that_it_is_not_known_whether_this_host_is_meant() {
        let us = Ourselves { names: vec!["bartleby".into()], addresses: vec![[10, 0, 0, 2].into()] };
        let records = |second| Ok(vec![exchanger(10, "mx1.example.com", "10.0.0.1"), second]);
        let outside = examine("example.com", &records(exchanger(20, "mx2.example.com", "203.0.113.7")), &us);
        assert_eq!((outside.faults, outside.primaries), (vec![], vec!["mx1.example.com".to_owned()]));
        let [note] = outside.notes.as_slice() else { panic!("{:?}", outside.notes) };
        assert!(note.contains("not known whether this host is a mail exchanger for example.com"), "{note}");
        let inside = examine("example.com", &records(exchanger(20, "mx2.example.com", "10.0.0.9")), &us);
        assert_eq!((inside.faults.len(), inside.notes.len()), (1, 0), "nothing leads out of this network");
    }
}
