//! Which clients are let in, and which requests may run the queue.

use ipnet::IpNet;

use super::host::is_own;
use crate::cgi::gateway::{Method, Request};

/// Whether the web server or the configuration lets this client in.
///
/// `REMOTE_ADDR` is the web server's own word (RFC 3875, section 4.1.8); an IPv4 client of an IPv6
/// socket is compared by its IPv4 address.
pub fn is_granted(request: &Request, allow: &[IpNet]) -> bool {
    request.access_granted
        || request
            .remote_addr
            .is_some_and(|address| allow.iter().any(|network| network.contains(&address.to_canonical())))
}

/// What shows that a proxy on this machine handed the request on: the web server then takes every client of the proxy
/// for a local one. A client without an IP address came by a socket of this machine, too.
pub fn local_proxy(request: &Request) -> Option<&'static str> {
    let is_local = request.remote_addr.is_none_or(|address| address.to_canonical().is_loopback());
    request.forwarded_by.filter(|_| is_local)
}

/// Why a request may not run the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMeant {
    /// A page of another site links to us, embeds us or posts to us.
    #[error(
        "The request comes from another site's page, so it does not run the queue. Open this page itself, and use its own button."
    )]
    CrossSite,
    /// Nothing says where the request comes from: another site's page can see to that, and what looks ahead at the
    /// links of mails and chats never says it.
    #[error(
        "Nothing says which page this request comes from, so it does not run the queue. Open this page itself, and use \
         its own button. (From a program: curl, Wget, or a POST.)"
    )]
    Silent,
    /// A browser fetches ahead what nobody asked for yet.
    #[error("The browser asked for this in advance, so it does not run the queue. Ask for it again.")]
    Prefetch,
}

/// Whether somebody means this request to run the queue: not when the browser itself says that
/// another site's page is behind it (Fetch Metadata, `Origin` of RFC 6454; over plain http, where browsers
/// send neither with a link, `Referer`), or that it fetches ahead. A request that says none of these is meant where it
/// comes from a program that somebody called on a command line. Mail programs, chats and their preview bots say none of
/// these either, and they fetch whatever address a stranger sends.
///
/// # Errors
/// Why it is not meant.
pub fn is_meant(request: &Request) -> Result<(), NotMeant> {
    let ahead = ["prefetch", "prerender", "preview"];
    if request.purposes.iter().any(|purpose| ahead.iter().any(|word| purpose.to_ascii_lowercase().contains(word))) {
        return Err(NotMeant::Prefetch);
    }
    let is_ours = match (request.fetch_site.as_deref(), request.referer.as_deref()) {
        (Some(site), _) => matches!(site, "same-origin" | "none"),
        (None, Some(referer)) => is_own(referer, request),
        (None, None) => true,
    };
    let is_own_origin = request.origin.as_deref().is_none_or(|origin| is_own(origin, request));
    let says_nothing = request.fetch_site.is_none() && request.referer.is_none() && request.origin.is_none();
    match () {
        () if !is_ours || !is_own_origin => Err(NotMeant::CrossSite),
        () if says_nothing && !is_program(request) => Err(NotMeant::Silent),
        () => Ok(()),
    }
}

/// Whether a request that does not say where it comes from is a program's that somebody called: a GET by what it accepts
/// and by its name. No preview sends a POST, and every browser says where one comes from.
fn is_program(request: &Request) -> bool {
    let name = request.user_agent.as_deref().unwrap_or_default();
    match request.method {
        Method::Post => !is_browser(name),
        Method::Get | Method::Head => {
            let accepts_anything = request.accept.as_deref().is_none_or(|accept| accept.trim() == "*/*");
            accepts_anything && (name.is_empty() || ["curl/", "Wget/"].iter().any(|known| name.starts_with(known)))
        }
    }
}

/// Whether a `User-Agent` begins as those of all graphical browsers do.
pub(super) fn is_browser(name: &str) -> bool {
    name.starts_with("Mozilla/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> Request {
        Request { remote_addr: address.parse().ok(), ..Request::default() }
    }

    #[test]
    fn only_listed_addresses_are_let_in_unless_the_web_server_decided() {
        let allow = crate::config::AccessConfig::default().allow;
        assert!(is_granted(&from("127.0.0.1"), &allow));
        assert!(is_granted(&from("127.8.8.8"), &allow));
        assert!(is_granted(&from("::1"), &allow));
        assert!(is_granted(&from("::ffff:127.0.0.1"), &allow));
        for address in ["192.0.2.1", "::2", "::ffff:192.0.2.1", "", "localhost"] {
            assert!(!is_granted(&from(address), &allow), "{address}");
            assert!(is_granted(&Request { access_granted: true, ..from(address) }, &allow));
        }
    }

    #[test]
    fn a_request_that_a_browser_calls_foreign_or_early_is_not_meant() {
        let ask = |set: fn(&mut Request)| {
            let mut request = Request { host: Some("mx2.example.com".into()), ..Request::default() };
            set(&mut request);
            is_meant(&request)
        };
        assert_eq!(ask(|_| ()), Ok(()), "a program without a name");
        assert_eq!(ask(|r| r.accept = Some("text/html".into())), Err(NotMeant::Silent));
        assert_eq!(ask(|r| r.user_agent = Some("curling".into())), Err(NotMeant::Silent));
        assert_eq!(ask(|r| (r.method, r.user_agent) = (Method::Post, Some("w3m/0.5.3".into()))), Ok(()));
        assert_eq!(
            ask(|r| (r.method, r.user_agent) = (Method::Post, Some("Mozilla/5.0".into()))),
            Err(NotMeant::Silent)
        );
        assert_eq!(ask(|r| r.fetch_site = Some("same-origin".into())), Ok(()), "our own link");
        assert_eq!(ask(|r| r.fetch_site = Some("none".into())), Ok(()), "typed or a bookmark");
        for site in ["cross-site", "same-site", "bogus", ""] {
            let request = Request { fetch_site: Some(site.into()), ..Request::default() };
            assert_eq!(is_meant(&request), Err(NotMeant::CrossSite), "{site}");
        }
        assert_eq!(ask(|r| r.origin = Some("http://mx2.example.com".into())), Ok(()));
        assert_eq!(ask(|r| r.origin = Some("https://MX2.example.com".into())), Ok(()));
        assert_eq!(ask(|r| r.origin = Some("http://evil.example".into())), Err(NotMeant::CrossSite));
        assert_eq!(ask(|r| r.origin = Some("http://mx2.example.com:8080".into())), Err(NotMeant::CrossSite));
        assert_eq!(ask(|r| r.origin = Some("null".into())), Err(NotMeant::CrossSite));
        assert_eq!(ask(|r| r.purposes = vec!["prefetch;prerender".into()]), Err(NotMeant::Prefetch));
        assert_eq!(ask(|r| r.purposes = vec!["Prefetch".into()]), Err(NotMeant::Prefetch));
    }
}
