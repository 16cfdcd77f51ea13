//! This host's own port 25, asked as a stranger asks it: does it take mail for the recipients that it knows, and does it
//! refuse one that cannot exist? Without any mail: no further than RCPT.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::conversation::{REHEARSAL, rehearse};
use super::rehearsal::Answers;
use super::rehearsing::Grounds;
use super::{PORT, Place};
use crate::context::Context;
use crate::sandbox::worker::Worker;
use crate::sandbox::{Purpose, Sandbox};

/// How long all of it may take: the conversation, and a while to start it.
const PATIENCE: Duration = Duration::from_millis(REHEARSAL.as_millis() as u64 + 1000);

impl Grounds {
    /// What this host's own mail server answers for these recipients, at the first of its addresses that takes the
    /// connection: those that others see before that of the machine itself.
    pub(crate) fn ask_here(&self, context: &Context, recipients: &[String]) -> Answers {
        let Place { us, own_name, .. } = &self.0;
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let is_usable = |address: &&IpAddr| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let addresses: Vec<_> = us.addresses.iter().filter(is_usable).copied().chain(loopback).collect();
        let asked = Worker::begin(&context.free, PATIENCE, |free| {
            // Whether a sandbox holds is said of the reader's.
            Sandbox::enter(free, Purpose::Asking);
            at(&addresses, PORT, own_name, recipients)
        });
        let answers = asked.and_then(Worker::answer);
        answers.unwrap_or_else(|error| Answers::unreached(format!("the process that asks it {error}")))
    }
}

fn at(addresses: &[IpAddr], port: u16, own_name: &str, recipients: &[String]) -> Answers {
    let addresses: Vec<_> = addresses.iter().map(|address| SocketAddr::new(*address, port)).collect();
    rehearse(&addresses, own_name, recipients)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::primary::rehearsal::{Counts, End};

    #[test]
    fn it_is_asked_at_its_first_address_that_answers_and_never_for_more_than_recipients() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = Vec::new();
            stream.write_all(b"220 mx2.example.com\r\n").unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for line in lines.map_while(Result::ok) {
                let reply = if line.contains("nobody") { "550 5.1.1 unknown\r\n" } else { "250 ok\r\n" };
                stream.write_all(reply.as_bytes()).unwrap();
                heard.push(line);
            }
            heard
        });
        let recipients = ["larry@example.com".to_owned(), "nobody@example.com".to_owned()];
        // Nobody listens at the first one.
        let addresses = [[127, 0, 0, 9].into(), [127, 0, 0, 1].into()];
        let answers = at(&addresses, port, "mx2.example.com", &recipients);
        let counts: Vec<_> = answers.recipients.iter().map(|asked| asked.counts).collect();
        assert_eq!(counts, [Counts::Accepted, Counts::Refused { sender: false }]);
        assert!(server.join().unwrap().iter().all(|line| !line.starts_with("DATA")));
        let nobody = at(&addresses[..1], port, "mx2.example.com", &recipients);
        assert_eq!(nobody.end, End::Unreached("connection refused".into()));
    }
}
