//! Questions to the name servers of this machine, as resolv.conf(5) names them.
//!
//! A static glibc can't load its resolver. The crate `domain` builds and reads the messages (RFC 1035); this file only
//! sends them, over UDP, or over TCP where an answer is too long for UDP. (Complete resolvers bring an asynchronous
//! runtime, which is half as large as the rest of this program.)

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use domain::base::iana::Rcode;
use domain::base::{Message, MessageBuilder, Name, Rtype};
use domain::rdata::{A, Aaaa, Cname, Mx};

use crate::system::hosts;

/// How long one name server may take before the next is asked.
const PATIENCE: Duration = Duration::from_millis(600);

/// How many times all name servers are asked.
const ROUNDS: usize = 2;

/// The most name servers that are used, as in resolv.conf(5).
const MOST_SERVERS: usize = 3;

/// Asks name servers, until a deadline.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    servers: Vec<SocketAddr>,
    hosts: String,
    deadline: Instant,
}

/// A mail exchanger, an MX record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exchanger {
    /// The lowest is tried first (RFC 5321, section 5.1).
    pub(crate) preference: u16,
    /// Its name in lower case, without the last dot; empty for the null MX (RFC 7505).
    pub(crate) host: String,
}

/// The addresses of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// Empty where the name has none.
    pub(crate) list: Vec<IpAddr>,
    /// Whether the name is an alias (CNAME).
    pub(crate) alias: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// The domain name system has no such name.
    #[error("there is no such name")]
    NoName,
    /// Nothing came back in time.
    #[error("no name server answers")]
    Silent,
    /// The name server could not find out, or would not.
    #[error("the name server answers {0}")]
    Failed(String),
    /// The question is not a host name.
    #[error("that is no host name")]
    NotAName,
}

impl Resolver {
    /// Asks the servers of `/etc/resolv.conf`, and `/etc/hosts` first for addresses.
    pub(crate) fn of_system(deadline: Instant) -> Resolver {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Resolver { servers: servers(&text("/etc/resolv.conf")), hosts: text("/etc/hosts"), deadline }
    }

    /// Asks the same servers until another time.
    pub(crate) fn until(&self, deadline: Instant) -> Resolver {
        Resolver { deadline, ..self.clone() }
    }

    /// The mail exchangers of a domain, the most preferred first; none where the domain has no MX record.
    ///
    /// # Errors
    /// [`NoAnswer`]
    pub(crate) fn mail_exchangers(&self, domain: &str) -> Result<Vec<Exchanger>, NoAnswer> {
        let answer = self.ask(domain, Rtype::MX)?;
        let section = answer.answer().map_err(|error| NoAnswer::Failed(error.to_string()))?;
        let mut list: Vec<_> = section
            .limit_to_in::<Mx<_>>()
            .flatten()
            .map(|record| Exchanger {
                preference: record.data().preference(),
                host: record.data().exchange().to_string().trim_end_matches('.').to_ascii_lowercase(),
            })
            .collect();
        list.sort_by(|a, b| (a.preference, &a.host).cmp(&(b.preference, &b.host)));
        Ok(list)
    }

    /// The addresses of a host, which may also be written as an address.
    ///
    /// # Errors
    /// [`NoAnswer`]
    pub(crate) fn addresses(&self, host: &str) -> Result<Addresses, NoAnswer> {
        if let Ok(address) = host.parse() {
            return Ok(Addresses { list: vec![address], alias: false });
        }
        let known = in_hosts(&self.hosts, host);
        if !known.is_empty() {
            return Ok(Addresses { list: known, alias: false });
        }
        self.addresses_in_dns(host)
    }

    /// The addresses of a host as all the world sees them, whatever this machine's `/etc/hosts` says.
    ///
    /// # Errors
    /// [`NoAnswer`]
    pub fn addresses_in_dns(&self, host: &str) -> Result<Addresses, NoAnswer> {
        if let Ok(address) = host.parse() {
            return Ok(Addresses { list: vec![address], alias: false });
        }
        let v4 = self.ask(host, Rtype::A);
        let v6 = self.ask(host, Rtype::AAAA);
        let mut found = Addresses::default();
        for answer in [&v4, &v6].into_iter().flatten() {
            let Ok(section) = answer.answer() else { continue };
            found.alias |= section.limit_to_in::<Cname<_>>().next().is_some();
            found.list.extend(section.limit_to_in::<A>().flatten().map(|record| IpAddr::from(record.data().addr())));
            found.list.extend(section.limit_to_in::<Aaaa>().flatten().map(|record| IpAddr::from(record.data().addr())));
        }
        // Where one of the two questions was answered, the other may fail.
        match (v4, v6) {
            (Err(error), _) | (_, Err(error)) if found.list.is_empty() => Err(error),
            _ => Ok(found),
        }
    }

    fn ask(&self, name: &str, record: Rtype) -> Result<Message<Vec<u8>>, NoAnswer> {
        let name: Name<Vec<u8>> = name.parse().map_err(|_| NoAnswer::NotAName)?;
        let mut query = MessageBuilder::new_vec();
        query.header_mut().set_rd(true);
        // The id must not be guessable for anybody who can't see the query.
        query.header_mut().set_id(RandomState::new().hash_one(()) as u16);
        let mut query = query.question();
        query.push((name, record)).map_err(|_| NoAnswer::NotAName)?;
        let query = query.into_message();
        let mut failure = NoAnswer::Silent;
        for server in self.servers.iter().cycle().take(self.servers.len() * ROUNDS) {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let Ok(answer) = exchange(*server, &query, left.min(PATIENCE)) else { continue };
            match answer.header().rcode() {
                Rcode::NOERROR => return Ok(answer),
                Rcode::NXDOMAIN => return Err(NoAnswer::NoName),
                // Another server may know.
                other => failure = NoAnswer::Failed(other.to_string()),
            }
        }
        Err(failure)
    }
}

/// One question to one server.
fn exchange(server: SocketAddr, query: &Message<Vec<u8>>, patience: Duration) -> io::Result<Message<Vec<u8>>> {
    let until = Instant::now() + patience;
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.send(query.as_slice())?;
    let mut buffer = [0; 4096];
    loop {
        socket.set_read_timeout(Some(left(until)?))?;
        let length = socket.recv(&mut buffer)?;
        let Ok(answer) = Message::from_octets(buffer[..length].to_vec()) else { continue };
        if answer.is_answer(query) {
            return if answer.header().tc() { exchange_long(server, query, until) } else { Ok(answer) };
        }
    }
}

/// The same over TCP (RFC 7766), where each message follows its length.
fn exchange_long(server: SocketAddr, query: &Message<Vec<u8>>, until: Instant) -> io::Result<Message<Vec<u8>>> {
    let mut stream = TcpStream::connect_timeout(&server, left(until)?)?;
    stream.set_write_timeout(Some(left(until)?))?;
    let length = u16::try_from(query.as_slice().len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query.as_slice()].concat())?;
    stream.set_read_timeout(Some(left(until)?))?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut bytes)?;
    let answer = Message::from_octets(bytes).map_err(io::Error::other)?;
    if answer.is_answer(query) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// The time left. No time is an error, because a socket takes a timeout of zero for "for ever".
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The servers in text of the form of resolv.conf(5); where it names none, this machine itself.
fn servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse::<IpAddr>().ok()).flatten()
    };
    let mut list: Vec<_> = resolv_conf.lines().filter_map(server).take(MOST_SERVERS).collect();
    if list.is_empty() {
        list.push(Ipv4Addr::LOCALHOST.into());
    }
    list.into_iter().map(|address| SocketAddr::new(address, 53)).collect()
}

/// The addresses of a name in text of the form of hosts(5).
fn in_hosts(hosts: &str, name: &str) -> Vec<IpAddr> {
    let is_named = |known: &str| known.eq_ignore_ascii_case(name);
    let named = hosts::lines(hosts).filter_map(|(address, mut names)| names.any(is_named).then_some(address));
    named.filter_map(|address| address.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    use domain::base::iana::Class;

    /// What a name server answers over UDP.
    #[derive(Clone, Copy, PartialEq)]
    enum Udp {
        Whole,
        Cut,
    }

    /// A name server that answers once over UDP, and, where that answer is cut, once over TCP.
    fn server(udp_answer: Udp, rcode: Rcode, answers: &'static [(&'static str, u16, &'static str)]) -> Resolver {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = std::net::TcpListener::bind(address).unwrap();
        let reply = move |query: &[u8], answer: Udp| {
            let cut = answer == Udp::Cut;
            let query = Message::from_octets(query).unwrap();
            let mut answer = MessageBuilder::new_vec().start_answer(&query, rcode).unwrap();
            answer.header_mut().set_tc(cut);
            for (name, preference, host) in answers.iter().filter(|_| !cut) {
                let name: Name<Vec<u8>> = name.parse().unwrap();
                let host: Name<Vec<u8>> = host.parse().unwrap();
                answer.push((name, Class::IN, 60, Mx::new(*preference, host))).unwrap();
            }
            answer.finish()
        };
        thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, peer) = udp.recv_from(&mut buffer).unwrap();
            // One that was not asked for comes first.
            udp.send_to(b"soup", peer).unwrap();
            udp.send_to(&reply(&buffer[..length], udp_answer), peer).unwrap();
            if udp_answer == Udp::Cut {
                let (mut stream, _) = tcp.accept().unwrap();
                let mut query = vec![0; length + 2];
                stream.read_exact(&mut query).unwrap();
                let answer = reply(&query[2..], Udp::Whole);
                stream.write_all(&u16::try_from(answer.len()).unwrap().to_be_bytes()).unwrap();
                stream.write_all(&answer).unwrap();
            }
        });
        Resolver { servers: vec![address], hosts: String::new(), deadline: Instant::now() + Duration::from_secs(20) }
    }

    #[test]
    fn mail_exchangers_come_most_preferred_first_over_udp_and_tcp() {
        for udp in [Udp::Whole, Udp::Cut] {
            let answers = &[("example.com", 20, "MX2.example.com"), ("example.com", 10, "mx1.example.com")];
            let list = server(udp, Rcode::NOERROR, answers).mail_exchangers("example.com").unwrap();
            let exchanger = |preference, host: &str| Exchanger { preference, host: host.into() };
            assert_eq!(list, [exchanger(10, "mx1.example.com"), exchanger(20, "mx2.example.com")]);
        }
        assert_eq!(server(Udp::Whole, Rcode::NOERROR, &[]).mail_exchangers("example.com"), Ok(vec![]));
        let null =
            server(Udp::Whole, Rcode::NOERROR, &[("example.com", 0, ".")]).mail_exchangers("example.com").unwrap();
        assert_eq!(null[0].host, "");
    }

    #[test]
    fn a_failure_is_no_absence() {
        let ask = |rcode| server(Udp::Whole, rcode, &[]).mail_exchangers("example.com").unwrap_err();
        assert_eq!(ask(Rcode::NXDOMAIN), NoAnswer::NoName);
        assert_eq!(ask(Rcode::SERVFAIL), NoAnswer::Failed("SERVFAIL".into()));
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let resolver = Resolver {
            servers: vec![silent.local_addr().unwrap()],
            hosts: String::new(),
            deadline: Instant::now() + Duration::from_millis(100),
        };
        assert_eq!(resolver.mail_exchangers("example.com"), Err(NoAnswer::Silent));
        assert_eq!(resolver.mail_exchangers("two words..x"), Err(NoAnswer::NotAName));
    }

    #[test]
    fn name_servers_are_those_of_resolv_conf() {
        let text = "# c\nsearch example.com\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver soup\n";
        assert_eq!(
            servers(text).iter().map(SocketAddr::to_string).collect::<Vec<_>>(),
            ["192.0.2.53:53", "[2001:db8::53]:53"]
        );
        assert_eq!(servers("")[0].to_string(), "127.0.0.1:53");
    }

    #[test]
    fn the_hosts_file_comes_first() {
        let hosts = "127.0.0.1 localhost\n192.0.2.1 mx.example.com mx # not this.example\n2001:db8::1 MX.example.com\n";
        let resolver = Resolver { servers: vec![], hosts: hosts.into(), deadline: Instant::now() };
        let list = resolver.addresses("mx.example.com").unwrap().list;
        assert_eq!(list.iter().map(IpAddr::to_string).collect::<Vec<_>>(), ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(resolver.addresses("2001:db8::2").unwrap().list[0].to_string(), "2001:db8::2");
        assert_eq!(resolver.addresses("this.example"), Err(NoAnswer::Silent));
        assert_eq!(resolver.addresses_in_dns("mx.example.com"), Err(NoAnswer::Silent), "not for what others see");
    }
}
