//! HTTP from a source address of choice, and as raw bytes: what a browser would never send.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

/// The address that the snippet lets in.
pub const ALLOWED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);

/// An address that it does not.
pub const FORBIDDEN: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 99);

/// Where the web server listens.
pub const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 80);
const LONGEST: Duration = Duration::from_secs(40);

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its header fields in their order.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: String,
}

impl Response {
    /// The value of a header field, which must not be there twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} is there twice: {:?}", self.headers);
        value
    }

    /// Fails unless the status is as expected.
    #[track_caller]
    pub fn expect(self, status: u16) -> Response {
        assert_eq!(self.status, status, "{:?}\n{}", self.headers, self.body);
        self
    }
}

/// `GET` of a path with its query, as a browser does it that comes from the page.
pub fn get(from: Ipv4Addr, target: &str) -> io::Result<Response> {
    let accept = "text/html,application/xhtml+xml,*/*;q=0.8";
    request(from, "GET", target, &[("Accept", accept), ("Referer", "http://localhost/bartleby/")])
}

/// A request without a body.
pub fn request(from: Ipv4Addr, method: &str, target: &str, headers: &[(&str, &str)]) -> io::Result<Response> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    raw(from, format!("{method} {target} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n").as_bytes())
}

/// The `POST` of the page's form with the given body, as a browser does it.
pub fn post(from: Ipv4Addr, target: &str, body: &str) -> io::Result<Response> {
    let form = "Origin: http://localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: ";
    raw(from, format!("POST {target} HTTP/1.0\r\nHost: localhost\r\n{form}{}\r\n\r\n{body}", body.len()).as_bytes())
}

/// Sends bytes as they are, then nothing more, and reads the answer.
pub fn raw(from: Ipv4Addr, bytes: &[u8]) -> io::Result<Response> {
    let mut stream = connect(from, SERVER)?;
    stream.write_all(bytes)?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer)
}

/// Sends bytes and reads the answer; a server that takes a connection that is half closed for one that was left is none
/// the wiser.
pub fn exchange(from: Ipv4Addr, bytes: &[u8]) -> io::Result<Response> {
    let mut stream = connect(from, SERVER)?;
    stream.write_all(bytes)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer)
}

/// Whether a web server answers at all, or why not.
pub fn answers() -> Result<Response, String> {
    exchange(ALLOWED, b"GET / HTTP/1.0\r\n\r\n").map_err(|error| error.to_string())
}

/// Sends bytes and hangs up without reading, as a browser that was closed.
pub fn hang_up(from: Ipv4Addr, bytes: &[u8]) -> io::Result<()> {
    let mut stream = connect(from, SERVER)?;
    stream.write_all(bytes)?;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}

/// A connection from one address to another.
pub fn connect(from: Ipv4Addr, to: SocketAddrV4) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddrV4::new(from, 0).into())?;
    socket.connect(&to.into())?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(LONGEST))?;
    Ok(stream)
}

fn parse(answer: &[u8]) -> io::Result<Response> {
    let incomprehensible = || {
        let text = String::from_utf8_lossy(&answer[..answer.len().min(200)]);
        io::Error::new(io::ErrorKind::InvalidData, format!("not an HTTP answer: {text:?}"))
    };
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(length)) = head.parse(answer) else { return Err(incomprehensible()) };
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Response {
        status: head.code.ok_or_else(incomprehensible)?,
        headers: head.headers.iter().map(|header| (header.name.to_owned(), text(header.value))).collect(),
        body: text(&answer[length..]),
    })
}
