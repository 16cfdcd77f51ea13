//! This host by all its names: a mail exchanger record may have any of them.
//!
//! Debian's installer writes a short name into /etc/hostname and the full one into /etc/hosts alone, as
//! `127.0.1.1 bartleby.example.net bartleby` (Debian reference, section 5.1.1); and a mail server may greet by a name of
//! its own (`myhostname`, `$j`, `primary_hostname`).

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::str::SplitAsciiWhitespace;

use crate::system::{self, hosts};

/// The address that Debian's installer gives a host's own name.
const DEBIANS_OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));

/// Names below these lead nowhere outside of one network (RFC 6761, 6762, 8375, and common practice).
const NOT_PUBLIC: [&str; 7] = ["localhost", "localdomain", "local", "lan", "home", "internal", "home.arpa"];

/// This host, by the names and addresses that its MX record may lead to.
#[derive(Clone, Debug, Default)]
pub struct Ourselves {
    /// Host names in lower case, the one to suggest first.
    pub names: Vec<String>,
    /// Addresses of its interfaces but those that every host has.
    pub addresses: Vec<IpAddr>,
}

impl Ourselves {
    /// This machine, by its host name, the name that its mail server has, where that is known, and `/etc/hosts`.
    pub fn of_machine(host: &str, mail_name: Option<&str>) -> Ourselves {
        let addresses = system::addresses();
        let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
        Ourselves { names: names(host, mail_name, &hosts, &addresses), addresses }
    }

    /// The name that an MX record should have; `None` where only short names are known.
    pub fn full_name(&self) -> Option<&str> {
        let is_public = |name: &&String| {
            let is_below = |top: &&str| name.strip_suffix(*top).is_some_and(|rest| rest.ends_with('.'));
            name.contains('.') && !NOT_PUBLIC.iter().any(is_below)
        };
        self.names.iter().find(is_public).map(String::as_str)
    }

    /// Whether it has no address that the rest of the world could reach: it may be behind NAT.
    pub fn is_hidden(&self) -> bool {
        self.addresses.iter().all(|address| !is_public(*address))
    }
}

/// Whether an address can be reached from everywhere: it is not one of those for one host or one network (RFC 1918, 3927,
/// 4193, 4291, 6598).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let is_carriers = v4.octets()[0] == 100 && (64..128).contains(&v4.octets()[1]);
            !(v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || is_carriers)
        }
        IpAddr::V6(v6) => {
            let is_local = v6.segments()[0] & 0xfe00 == 0xfc00 || v6.segments()[0] & 0xffc0 == 0xfe80;
            !(is_local || v6.is_loopback() || v6.is_unspecified())
        }
    }
}

/// The host name, the mail server's name, and in text of the form of hosts(5) those beside the host name or beside one
/// of this host's addresses.
fn names(host: &str, mail_name: Option<&str>, hosts: &str, addresses: &[IpAddr]) -> Vec<String> {
    let beside = |(address, names): (&str, SplitAsciiWhitespace<'_>)| {
        let address: IpAddr = address.parse().ok()?;
        let names: Vec<String> = names.map(str::to_owned).collect();
        let is_ours = address == DEBIANS_OWN || addresses.contains(&address);
        (is_ours || names.iter().any(|name| name.eq_ignore_ascii_case(host))).then_some(names)
    };
    let given = [Some(host), mail_name].into_iter().flatten().map(str::to_owned);
    let mut all: Vec<String> = Vec::new();
    for name in given.chain(hosts::lines(hosts).filter_map(beside).flatten()) {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if !name.is_empty() && !name.starts_with("localhost") && !name.starts_with("ip6-") && !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_the_names_beside_its_own_name_and_address() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 Bartleby.example.net bartleby # installer's\n::1 ip6-localhost\n\
                     192.0.2.2 mx2.example.com\n192.0.2.1 tuccster.example.com tuccster\n";
        let own = names("bartleby", Some("mail.example.net"), hosts, &[[192, 0, 2, 2].into()]);
        assert_eq!(own, ["bartleby", "mail.example.net", "bartleby.example.net", "mx2.example.com"]);
        let one_line = names("bartleby", None, "127.0.0.1 bartleby.example.net bartleby localhost\n", &[]);
        assert_eq!(one_line, ["bartleby", "bartleby.example.net"]);
    }

    #[test]
    fn a_name_without_a_dot_is_never_the_one_to_suggest() {
        let suggested = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Ourselves { names, addresses: vec![] }.full_name().map(str::to_owned)
        };
        assert_eq!(suggested(&["bartleby", "bartleby.example.net"]).as_deref(), Some("bartleby.example.net"));
        assert_eq!(suggested(&["bartleby", "bartleby.localdomain", "bartleby.lan"]), None);
        assert_eq!(suggested(&[]), None);
    }

    #[test]
    fn a_host_with_private_addresses_alone_is_hidden() {
        let hidden = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            Ourselves { names: vec![], addresses }.is_hidden()
        };
        assert!(hidden(&["10.1.2.3", "192.168.0.1", "172.16.9.9", "100.64.0.1", "fe80::1", "fd00::1", "169.254.1.1"]));
        assert!(!hidden(&["10.1.2.3", "203.0.113.7"]));
        assert!(!hidden(&["2001:db8::1"]));
    }
}
