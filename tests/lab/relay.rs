//! No open relay: what a stranger gets who offers mail for others than those the primary knows.

use std::net::{Ipv6Addr, TcpListener, TcpStream};

use crate::machine::Lab;
use crate::{client, page};

/// A recipient of every shipped list.
const KNOWN: &str = "larry@example.com";

/// Other domains, in all the ways that relays were once tricked with, a subdomain that is not listed,
/// and a user that the primary does not know.
const REFUSED: [&str; 8] = [
    "user@elsewhere.example",
    "user@[127.0.0.2]",
    "user@elsewhere.sub.example.com",
    "user%elsewhere.example@example.com",
    "elsewhere.example!user@example.com",
    "@example.com:user@elsewhere.example",
    "user@elsewhere.example@example.com",
    "nobody@example.com",
];

/// The same by way of this machine's own name.
fn through_us(own: &str) -> [String; 3] {
    ["user%elsewhere.example", "elsewhere.example!user", "\"user@elsewhere.example\""]
        .map(|local_part| format!("{local_part}@{own}"))
}

/// With the shipped list of recipients, each of these is refused for good and nothing is queued; and it is
/// the shipped configuration that listens, on IPv6 too.
pub fn is_closed(lab: &Lab) {
    let before = page::json(200).queue.messages;
    let reply = client::recipient_reply(KNOWN);
    assert!(reply.starts_with("25"), "{} does not take mail for {KNOWN}: {reply}", lab.mta.kind());
    for recipient in REFUSED.map(str::to_owned).into_iter().chain(through_us(lab.mta.own_name())) {
        let reply = client::recipient_reply(&recipient);
        assert!(reply.starts_with('5'), "{} takes mail for {recipient}: {reply}", lab.mta.kind());
    }
    assert_eq!(page::json(200).queue.messages, before);
    let is_there = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let answers = TcpStream::connect((Ipv6Addr::LOCALHOST, 25)).is_ok();
    assert!(answers || !is_there, "{} does not listen on IPv6", lab.mta.kind());
}
