//! One request and its answer: HTTP/1.0 (RFC 1945), so that the body ends with the connection and is never in chunks, with
//! the `Host` that distinguishes virtual hosts (RFC 9110, section 7.2).

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// The most that is read of an answer, in bytes.
const LONGEST: usize = 1024 * 1024;

/// The most header fields of an answer.
const MOST_FIELDS: usize = 100;

/// A request as a program makes it.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    /// The path with its query.
    pub(super) target: &'a str,
    /// The value of `Host`.
    pub(super) host: &'a str,
    /// The address to ask from; the system chooses it where there is none.
    pub(super) from: Option<IpAddr>,
    /// The client that a proxy would name.
    pub(super) on_behalf_of: Option<IpAddr>,
}

/// An answer; what is longer than a MiB is cut.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Where it leads.
    pub(super) location: Option<String>,
    pub(super) body: Vec<u8>,
}

/// Asks, for at most so long.
///
/// # Errors
/// There is no connection, or no answer in time, or what came is not HTTP ([`ErrorKind::InvalidData`]).
pub(super) fn ask(server: SocketAddr, request: Request<'_>, patience: Duration) -> io::Result<Answer> {
    let start = Instant::now();
    let late = || io::Error::new(ErrorKind::TimedOut, format!("there was no answer within {} s", patience.as_secs()));
    let left = || patience.checked_sub(start.elapsed()).filter(|left| !left.is_zero()).ok_or_else(late);
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    if let Some(from) = request.from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect_timeout(&server.into(), left()?)?;
    let mut stream = TcpStream::from(socket);
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(head(request).as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 16 * 1024];
    while answer.len() < LONGEST {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Which of the two it is depends on the system (TcpStream::set_read_timeout).
            Err(error) if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) => return Err(late()),
            // A server that hangs up in the middle has answered as far as it did.
            Err(error) if error.kind() == ErrorKind::ConnectionReset && !answer.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    parse(&answer)
}

fn head(request: Request<'_>) -> String {
    let Request { target, host, on_behalf_of, .. } = request;
    let mut head =
        format!("GET {target} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n");
    if let Some(client) = on_behalf_of {
        // Text takes everything.
        let _ = write!(head, "X-Forwarded-For: {client}\r\n");
    }
    head + "\r\n"
}

fn parse(bytes: &[u8]) -> io::Result<Answer> {
    let nonsense = |what: &str| io::Error::new(ErrorKind::InvalidData, format!("this is no web server: {what}"));
    if bytes.is_empty() {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "it hangs up without an answer"));
    }
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => {
            let location = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case("Location"));
            Ok(Answer {
                status: head.code.unwrap_or_default(),
                location: location.map(|field| String::from_utf8_lossy(field.value).into_owned()),
                body: bytes[length..].to_vec(),
            })
        }
        Ok(httparse::Status::Partial) => Err(nonsense("its answer has no end of the head")),
        Err(error) => Err(nonsense(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_or_it_is_said_what_it_is() {
        let answer = parse(b"HTTP/1.1 301 Moved\r\nlocation: /x/\r\n\r\nbody").unwrap();
        assert_eq!((answer.status, answer.location.as_deref(), &*answer.body), (301, Some("/x/"), &b"body"[..]));
        for (bytes, words) in [
            (&b""[..], "hangs up"),
            (b"220 mail ESMTP\r\n", "no web server"),
            (b"HTTP/1.1 200 OK\r\nA: b\r\n", "no end"),
        ] {
            let error = parse(bytes).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
