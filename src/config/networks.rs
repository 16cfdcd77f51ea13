//! The networks of `[access] allow`.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

/// A network as it is written in the file.
#[derive(Deserialize)]
struct Written(#[serde(deserialize_with = "one_network")] IpNet);

/// Networks and single addresses.
pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    Ok(Vec::<Written>::deserialize(from)?.into_iter().map(|Written(network)| network).collect())
}

fn one_network<'de, D: Deserializer<'de>>(from: D) -> Result<IpNet, D::Error> {
    network(&String::deserialize(from)?).map_err(de::Error::custom)
}

/// A network, or an address as a network of one.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map(as_ipv4)
        .map_err(|_| format!("“{text}” is neither an address nor a network such as \"192.0.2.0/24\""))
}

/// `::ffff:192.0.2.0/120` as the IPv4 network that it stands for: clients are compared by their IPv4 address.
fn as_ipv4(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(v6) => v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    mapped.and_then(|(address, length)| IpNet::new(address.into(), length).ok()).unwrap_or(network)
}
