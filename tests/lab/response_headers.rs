//! The header fields that protect the reader, through Apache, with every kind of answer.

use std::fs;

use crate::client;
use crate::http::{self, ALLOWED, Response};
use crate::machine::Lab;
use crate::mails::Mail;
use crate::page::{self, target};

/// Asks for each status in turn.
pub fn with_every_status(lab: &mut Lab) {
    let mail = Mail::new("one", "alice@example.org", &["larry@example.com"]);
    client::send(lab.mta, |_| vec![mail]);
    let cross_site = [("Sec-Fetch-Site", "cross-site")];
    let ask =
        |method, query, headers: &[(&str, &str)]| http::request(ALLOWED, method, &target(query), headers).unwrap();

    protected(&ask("GET", "", &[("Accept", "text/html")]).expect(200));
    protected(&ask("HEAD", "", &[]).expect(200));
    for query in ["?format=html", "?format=text", "?format=json"] {
        protected(&page::get(query).expect(200));
    }
    protected(&page::get("?state=no-such-state").expect(400));
    protected(&ask("GET", "?flush", &cross_site).expect(403));
    let not_allowed = ask("DELETE", "", &[]).expect(405);
    let allow = not_allowed.header("Allow").unwrap_or_default();
    assert!(["GET", "HEAD", "POST"].iter().all(|method| allow.contains(method)), "Allow: {allow}");
    protected(&not_allowed);
    protected(&page::get("?flush").expect(303));
    let early = page::get("?flush").expect(429);
    assert!(early.header("Retry-After").is_some(), "{early:?}");
    protected(&early);
    fs::write("/etc/bartleby.toml", "[mta]\nkind = \"smail\"\n").unwrap();
    let broken = page::get("").expect(500);
    assert!(broken.body.contains("/etc/bartleby.toml"), "{}", broken.body);
    protected(&broken);
}

fn protected(answer: &Response) {
    let field = |name| answer.header(name).unwrap_or_else(|| panic!("no {name} in {answer:?}"));
    let policy = field("Content-Security-Policy");
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(!policy.contains("unsafe-inline") && !policy.contains("unsafe-eval"), "{policy}");
    assert_eq!(field("X-Content-Type-Options"), "nosniff");
    assert_eq!(field("X-Frame-Options"), "DENY");
    assert_eq!(field("Cross-Origin-Resource-Policy"), "same-origin");
    assert_eq!(field("Referrer-Policy"), "same-origin");
    assert!(field("Cache-Control").contains("no-store"), "{answer:?}");
    assert!(field("Content-Type").contains("charset=utf-8") || field("Content-Type") == "application/json");
}
