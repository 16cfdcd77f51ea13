//! The conversation with a mail server over its connection: one line, one reply, until a deadline.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::rehearsal::{Answers, End, Heard, Rehearsal};
use super::reply::Replies;

/// How long a rehearsal may take.
pub(crate) const REHEARSAL: Duration = Duration::from_secs(10);

/// How long the connection may take, for one address.
const CONNECTION: Duration = Duration::from_secs(3);

/// How long the greeting may take: postscreen(8) lets callers wait for 6 s.
const GREETING: Duration = Duration::from_secs(7);

/// How long the replies to the last RSET and to QUIT may take.
const FAREWELL: Duration = Duration::from_secs(2);
const PARTING: Duration = Duration::from_millis(500);

/// A connection to a mail server.
pub(super) struct Conversation {
    stream: TcpStream,
    replies: Replies,
    /// Until when it is waited for.
    pub(super) deadline: Instant,
}

impl Conversation {
    /// Connects.
    ///
    /// # Errors
    /// Those of connect(2), and [`io::ErrorKind::TimedOut`].
    pub(super) fn begin(address: SocketAddr, deadline: Instant) -> io::Result<Conversation> {
        let stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
        Ok(Conversation { stream, replies: Replies::default(), deadline })
    }

    /// Says a line. Where that fails, the next reply does not come.
    pub(super) fn say(&mut self, line: &str) {
        let timeout = left(self.deadline).and_then(|left| self.stream.set_write_timeout(Some(left)));
        let _ = timeout.and_then(|()| self.stream.write_all(format!("{line}\r\n").as_bytes()));
    }

    /// The next reply.
    pub(super) fn hear(&mut self) -> Heard {
        let mut buffer = [0; 4096];
        loop {
            match self.replies.take() {
                Ok(None) => {}
                Ok(Some(reply)) => return Heard::Reply(reply),
                Err(nonsense) => return Heard::Nonsense(nonsense),
            }
            let timeout = left(self.deadline).and_then(|left| self.stream.set_read_timeout(Some(left)));
            match timeout.and_then(|()| self.stream.read(&mut buffer)) {
                Ok(0) => return Heard::Closed,
                Ok(length) => self.replies.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if is_late(&error) => return Heard::Late { begun: self.replies.begun() },
                Err(_) => return Heard::Closed,
            }
        }
    }

    /// Says a line, and returns the reply.
    pub(super) fn ask(&mut self, line: &str) -> Heard {
        self.say(line);
        self.hear()
    }

    /// Waits no longer than for that time from now on.
    pub(super) fn within(&mut self, patience: Duration) {
        self.deadline = self.deadline.min(Instant::now() + patience);
    }
}

/// Rehearses with the first of these addresses that takes the connection.
pub(super) fn rehearse(addresses: &[SocketAddr], own_name: &str, recipients: &[String]) -> Answers {
    let deadline = Instant::now() + REHEARSAL;
    let mut failure = "its name has no address".to_owned();
    for address in addresses {
        match Conversation::begin(*address, deadline.min(Instant::now() + CONNECTION)) {
            Ok(conversation) => return converse(conversation, deadline, Rehearsal::new(own_name, recipients)),
            Err(error) => failure = told(&error),
        }
    }
    Answers::unreached(failure)
}

fn converse(mut conversation: Conversation, deadline: Instant, mut rehearsal: Rehearsal) -> Answers {
    conversation.deadline = deadline.min(Instant::now() + GREETING);
    let mut heard = conversation.hear();
    conversation.deadline = deadline;
    while let Some(command) = rehearsal.next(heard) {
        match () {
            () if rehearsal.says_goodbye() => conversation.within(PARTING),
            () if rehearsal.is_over() => conversation.within(FAREWELL),
            () => {}
        }
        heard = conversation.ask(&command);
    }
    let answers = rehearsal.answers();
    if matches!(answers.end, End::Late(_) | End::Nonsense(_)) {
        // A connection that breaks off is counted by some bans.
        conversation.deadline = Instant::now() + PARTING;
        conversation.say("QUIT");
    }
    answers
}

/// The time left. No time is an error, because a socket takes a timeout of zero for "for ever".
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// The error, in the words that mail servers use.
pub(super) fn told(error: &io::Error) -> String {
    match error.kind() {
        _ if is_late(error) => LATE.into(),
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::HostUnreachable => "no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => CLOSED.into(),
        _ => error.to_string(),
    }
}

/// What is said of a server that takes too long, and of one that ends the connection.
pub(super) const LATE: &str = "it does not answer in time";
pub(super) const CLOSED: &str = "it breaks off the connection";

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::primary::rehearsal::Counts;

    /// A server that says this for a greeting, and one of these for each command; what it hears.
    fn server(greeting: &'static str, replies: Vec<&'static str>) -> (SocketAddr, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut heard = Vec::new();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            // It may hang up in the middle of it.
            let _ = stream.write_all(greeting.as_bytes());
            for reply in replies {
                match lines.next() {
                    Some(Ok(line)) => heard.push(line),
                    _ => break,
                }
                if stream.write_all(reply.as_bytes()).is_err() {
                    break;
                }
            }
            heard
        });
        (address, server)
    }

    fn rehearsed(greeting: &'static str, replies: &[&'static str]) -> (Answers, Vec<String>) {
        let (address, server) = server(greeting, replies.to_vec());
        let answers = rehearse(&[address], "mx2.example.com", &["larry@example.com".into(), "moe@example.com".into()]);
        (answers, server.join().unwrap())
    }

    #[test]
    fn a_server_is_asked_line_by_line_and_left_with_a_farewell() {
        let replies = ["250 mx\r\n", "250 ok\r\n", "250 ok\r\n", "550 5.1.1 no\r\n", "250 ok\r\n", "221 bye\r\n"];
        let (answers, heard) = rehearsed("220-mx\r\n220 ESMTP\r\n", &replies);
        let counts: Vec<_> = answers.recipients.iter().map(|asked| asked.counts).collect();
        assert_eq!(counts, [Counts::Accepted, Counts::Refused { sender: false }]);
        assert_eq!((heard.len(), heard.last().map(String::as_str)), (6, Some("QUIT")));
    }

    #[test]
    fn a_server_that_never_ends_a_reply_is_given_up() {
        let line: &'static str = "250-and so on and so on and so on\r\n".repeat(2000).leak();
        let (answers, _) = rehearsed("220 mx\r\n", &[line]);
        assert_eq!(answers.end, End::Nonsense("its reply has no end".into()));
        let long: &'static str = "2".repeat(8 << 20).leak();
        let (answers, _) = rehearsed(long, &[]);
        assert_eq!(answers.end, End::Nonsense("its reply has no end".into()));
        let (answers, _) = rehearsed("220 mx\r\n250 mx\r\n", &["250 mx\r\n"]);
        assert_eq!(answers.end, End::Nonsense("it speaks before it is asked".into()));
    }

    #[test]
    fn the_next_address_is_tried_where_one_takes_no_connection() {
        let (address, server) = server("220 mx\r\n", vec!["250 mx\r\n", "451 later\r\n", "250 ok\r\n", "221 bye\r\n"]);
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let answers = rehearse(&[nobody, address], "mx2.example.com", &["larry@example.com".into()]);
        assert_eq!(answers.mail.map(|said| said.code), Some(451));
        server.join().unwrap();
        assert_eq!(rehearse(&[nobody], "mx2", &[]).end, End::Unreached("connection refused".into()));
        assert_eq!(rehearse(&[], "mx2", &[]).end, End::Unreached("its name has no address".into()));
    }
}
