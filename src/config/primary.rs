//! `[primary]`: the server that this one stands in for.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, de};

/// `[primary]`: the server that this one stands in for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrimaryConfig {
    /// `host:port` of each primary.
    #[serde(deserialize_with = "hosts")]
    pub hosts: Vec<String>,
    /// The domains whose mail is spooled here.
    pub domains: Vec<String>,
}

/// A host as it is written in the file.
#[derive(Deserialize)]
struct WrittenHost(#[serde(deserialize_with = "one_host")] String);

fn hosts<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Vec::<WrittenHost>::deserialize(from)?.into_iter().map(|WrittenHost(host)| host).collect())
}

/// A name or an address, with or without a port, which is a number.
fn one_host<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let text = String::deserialize(from)?;
    let is_name = |name: &str| {
        let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
        !name.is_empty() && !name.starts_with('-') && name.chars().all(fits)
    };
    let is_host = text.parse::<IpAddr>().is_ok()
        || text.parse::<SocketAddr>().is_ok()
        || match text.rsplit_once(':') {
            None => is_name(&text),
            Some((name, port)) => is_name(name) && port.parse::<u16>().is_ok_and(|port| port > 0),
        };
    let wrong = || {
        de::Error::custom(format!(
            "“{text}” is no host such as \"tuccster.example.com\", with or without a port, a number as in \":25\""
        ))
    };
    if is_host { Ok(text) } else { Err(wrong()) }
}
