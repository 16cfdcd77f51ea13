//! Where the page is: an address of `http`, and the server's own address for it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use ::cgi::http::Uri;

use crate::system::hosts;
use crate::text::shell_quoted;

/// The address of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// The host as in the address: an IPv6 address stands in brackets.
    host: String,
    port: Option<u16>,
    /// Without a query.
    pub(super) path: String,
}

/// Why a word is no address that can be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UrlError {
    /// It is not a URL.
    #[error("“{0}” is no address of a page; one is http://localhost/bartleby/")]
    Nonsense(String),
    /// It leads to a server that speaks TLS.
    #[error(
        "https is not supported: name the page by http on this machine, as in http://localhost/bartleby/ (by https: curl -i {0})"
    )]
    Https(String),
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Url, UrlError> {
        let nonsense = || UrlError::Nonsense(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| nonsense())?;
        match (uri.scheme_str(), uri.host()) {
            (Some("https"), _) => Err(UrlError::Https(shell_quoted(text).map_err(|_| nonsense())?.into_owned())),
            (Some("http"), Some(host)) if !host.is_empty() && !text.contains('@') => {
                Ok(Url { host: host.to_owned(), port: uri.port_u16(), path: uri.path().to_owned() })
            }
            _ => Err(nonsense()),
        }
    }
}

impl Url {
    /// What a client names in `Host` that calls it by this name.
    pub(super) fn authority_of(&self, host: &str) -> String {
        self.port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    /// What a client names in `Host` that asks for the page.
    pub(super) fn authority(&self) -> String {
        self.authority_of(&self.host)
    }

    /// The address as text, with this path.
    pub(super) fn with(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority())
    }

    /// The server to connect to: the address that the host is, the one that `/etc/hosts` has for it, or this machine.
    /// Nobody is asked.
    pub(super) fn server(&self) -> SocketAddr {
        let file = fs::read_to_string("/etc/hosts").unwrap_or_default();
        SocketAddr::new(address(&self.host, &file), self.port.unwrap_or(80))
    }
}

/// The address of a host, by text of the form of hosts(5).
fn address(host: &str, hosts: &str) -> IpAddr {
    let itself = host.trim_start_matches('[').trim_end_matches(']').parse().ok();
    let listed = || {
        let is = |name: &str| name.eq_ignore_ascii_case(host.trim_end_matches('.'));
        hosts::lines(hosts).find_map(|(address, mut names)| names.any(is).then(|| address.parse().ok())?)
    };
    itself.or_else(listed).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_http_is_taken_apart_and_others_are_not() {
        let url = |text: &str| text.parse::<Url>();
        let page = url("http://queue.example.com:8080/bartleby/?x=1#y").unwrap();
        assert_eq!((page.authority().as_str(), page.path.as_str()), ("queue.example.com:8080", "/bartleby/"));
        assert_eq!(url("http://localhost").unwrap().path, "/");
        assert_eq!(url("http://[::1]/").unwrap().authority(), "[::1]");
        assert_eq!(
            url("https://queue.example.com/").unwrap_err().to_string().split(": ").last(),
            Some("curl -i https://queue.example.com/)")
        );
        for text in ["", "localhost", "/bartleby/", "http://", "http:///x", "ftp://x/", "http://a@b/", "http://a b/"] {
            assert_eq!(url(text), Err(UrlError::Nonsense(text.to_owned())), "{text}");
        }
    }

    #[test]
    fn a_name_leads_to_this_machine_or_to_where_hosts_has_it() {
        let hosts = "127.0.0.1 localhost\n127.0.1.1 mx2.example.com mx2\n192.0.2.7 other.example.com\n";
        for (host, expected) in [
            ("localhost", "127.0.0.1"),
            ("MX2.example.com.", "127.0.1.1"),
            ("other.example.com", "192.0.2.7"),
            ("queue.example.com", "127.0.0.1"),
            ("192.0.2.9", "192.0.2.9"),
            ("[::1]", "::1"),
        ] {
            assert_eq!(address(host, hosts).to_string(), expected, "{host}");
        }
    }
}
