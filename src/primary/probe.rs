//! Whether a mail server takes mail: connection, greeting, EHLO, QUIT (RFC 5321, section 3.1), and no mail command.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::state::Condition;

/// The longest reply that is read, in bytes.
const REPLY_LIMIT: usize = 8 * 1024;

/// How long the reply to QUIT may take.
const PARTING: Duration = Duration::from_millis(200);

/// How much of a reply is shown, in characters.
const TOLD: usize = 200;

/// Talks to one address of a mail server until the deadline. Returns its condition, and its words or the error.
pub(crate) fn probe(address: IpAddr, port: u16, own_name: &str, deadline: Instant) -> (Condition, String) {
    match talk(SocketAddr::new(address, port), own_name, deadline) {
        Ok(found) => found,
        Err(error) => (Condition::Down, told(&error)),
    }
}

fn talk(address: SocketAddr, own_name: &str, deadline: Instant) -> io::Result<(Condition, String)> {
    let stream = TcpStream::connect_timeout(&address, left(deadline)?)?;
    let mut session = Session { stream, unread: Vec::new(), deadline };
    let (code, greeting) = session.reply()?;
    if code != 220 {
        // "421", or "554 no SMTP service here" (section 3.1).
        session.quit();
        return Ok((if code / 100 == 4 { Condition::Busy } else { Condition::Down }, greeting));
    }
    let (mut code, mut words) = session.command(&format!("EHLO {own_name}"))?;
    if code / 100 == 5 {
        // A server from the time before RFC 1869.
        (code, words) = session.command(&format!("HELO {own_name}"))?;
    }
    session.quit();
    Ok(match code {
        250 => (Condition::Up, greeting),
        400..500 => (Condition::Busy, words),
        _ => (Condition::Down, words),
    })
}

struct Session {
    stream: TcpStream,
    unread: Vec<u8>,
    deadline: Instant,
}

impl Session {
    fn command(&mut self, line: &str) -> io::Result<(u16, String)> {
        self.stream.set_write_timeout(Some(left(self.deadline)?))?;
        self.stream.write_all(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// Says goodbye. The server may hang up without a word, or take its time.
    fn quit(&mut self) {
        self.deadline = self.deadline.min(Instant::now() + PARTING);
        let _ = self.command("QUIT");
    }

    /// A reply: its code, and its first line (section 4.2).
    fn reply(&mut self) -> io::Result<(u16, String)> {
        let mut first = None;
        loop {
            let line = self.line()?;
            let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
            let Some(code) = code.filter(|code| (200..600).contains(code)) else {
                let line: String = line.chars().take(TOLD).collect();
                return Err(io::Error::other(format!("this is no mail server; it says “{line}”")));
            };
            let goes_on = line.as_bytes().get(3) == Some(&b'-');
            let first = first.get_or_insert_with(|| line.chars().take(TOLD).collect::<String>());
            if !goes_on {
                return Ok((code, first.clone()));
            }
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.unread) {
                let line = String::from_utf8_lossy(&self.unread[..end]).trim_end().to_owned();
                self.unread.drain(..=end);
                return Ok(line);
            }
            if self.unread.len() > REPLY_LIMIT {
                return Err(io::Error::other("its reply has no end"));
            }
            let mut buffer = [0; 1024];
            self.stream.set_read_timeout(Some(left(self.deadline)?))?;
            match self.stream.read(&mut buffer)? {
                0 => return Err(io::Error::other("it breaks off the connection")),
                length => self.unread.extend_from_slice(&buffer[..length]),
            }
        }
    }
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The error, in the words that mail servers use.
fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "it does not answer in time".into(),
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::HostUnreachable => "no route to host".into(),
        io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "it breaks off the connection".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread;

    /// What a server that says these things, one after the other, is taken for, and what it is told.
    fn probed(replies: &'static [&'static str]) -> (Condition, String, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heard, commands) = mpsc::channel();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for reply in replies {
                stream.write_all(reply.as_bytes()).unwrap();
                match lines.next() {
                    Some(Ok(line)) => heard.send(line).unwrap(),
                    _ => break,
                }
            }
        });
        let deadline = Instant::now() + Duration::from_millis(if replies.is_empty() { 200 } else { 20_000 });
        let (condition, words) = probe([127, 0, 0, 1].into(), port, "mx2.example.com", deadline);
        server.join().unwrap();
        (condition, words, commands.try_iter().collect())
    }

    #[test]
    fn a_server_that_takes_mail_is_up_and_hears_no_mail_command() {
        let (condition, words, heard) =
            probed(&["220-mx ESMTP\r\n220 hello\r\n", "250-mx\r\n250 SIZE\r\n", "221 bye\r\n"]);
        assert_eq!((condition, words.as_str()), (Condition::Up, "220-mx ESMTP"));
        assert_eq!(heard, ["EHLO mx2.example.com", "QUIT"]);
        let (condition, _, heard) = probed(&["220 mx\r\n", "500 what?\r\n", "250 mx\r\n", ""]);
        assert_eq!((condition, heard.len()), (Condition::Up, 3));
    }

    #[test]
    fn every_other_server_is_busy_or_down() {
        for (replies, condition, words) in [
            (&["421 too busy\r\n"][..], Condition::Busy, "421 too busy"),
            (&["220 mx\r\n", "451 later\r\n"], Condition::Busy, "451 later"),
            (&["554 no service\r\n"], Condition::Down, "554 no service"),
            (&["220 mx\r\n", "500 what?\r\n", "502 no\r\n"], Condition::Down, "502 no"),
            (&["SSH-2.0-OpenSSH\r\n"], Condition::Down, "this is no mail server; it says “SSH-2.0-OpenSSH”"),
            (&["999 x\r\n"], Condition::Down, "this is no mail server; it says “999 x”"),
        ] {
            let (found, said, _) = probed(replies);
            assert_eq!((found, said.as_str()), (condition, words));
        }
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let deadline = Instant::now() + Duration::from_secs(20);
        assert_eq!(probe([127, 0, 0, 1].into(), nobody, "x", deadline), (Condition::Down, "connection refused".into()));
    }

    #[test]
    fn a_server_that_says_nothing_or_never_ends_is_down() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let soon = Instant::now() + Duration::from_millis(200);
        assert_eq!(probe([127, 0, 0, 1].into(), port, "x", soon).1, "it does not answer in time");
        let flood = thread::spawn(move || {
            let (_, mut stream) = (listener.accept().unwrap(), listener.accept().unwrap().0);
            while stream.write_all(&[b'2'; 1000]).is_ok() {}
        });
        let deadline = Instant::now() + Duration::from_secs(20);
        assert_eq!(probe([127, 0, 0, 1].into(), port, "x", deadline).1, "its reply has no end");
        flood.join().unwrap();
    }
}
