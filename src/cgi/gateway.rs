//! The CGI side (RFC 3875): it vets the environment into a [`Request`], and sends answers.
//!
//! The `cgi` crate panics on much that a client may send, so it never sees a request: what is needed is read here into
//! owned values, and `main` empties the environment. The answer is the crate's response, written here: the crate would
//! hand it over line by line, so that a signal in between leaves a part of a page behind that looks like the whole, and
//! would lose what does not fit into a pipe that does not block.

use std::ffi::OsString;
use std::io::{self, Read};
use std::net::IpAddr;

use ::cgi::http::{HeaderName, HeaderValue, StatusCode, header};

use crate::system::EndingSignals;
use crate::system::output::Output;

/// The longest query string and the longest body that are read, in bytes.
pub(crate) const INPUT_LIMIT: usize = 16 * 1024;

/// How much of a body is read, if only to drop it, in bytes.
const BODY_LIMIT: u64 = 64 * 1024;

/// The methods that are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Method {
    /// GET
    #[default]
    Get,
    /// HEAD: the answer to GET without its body; never runs the queue.
    Head,
    /// POST
    Post,
}

/// A request: the parts of it that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// `REQUEST_METHOD`
    pub(crate) method: Method,
    /// `QUERY_STRING`, undecoded.
    pub(crate) query: String,
    /// The body of a POST, a form as browsers encode it.
    pub(crate) form: String,
    /// `REMOTE_ADDR`: the web server's word, never a header's.
    pub remote_addr: Option<IpAddr>,
    /// What says that a proxy handed the request on: `Forwarded` (RFC 7239), `Via` (RFC 9110, section 7.6.3) or what
    /// proxies use besides.
    pub forwarded_by: Option<&'static str>,
    /// `REMOTE_USER`: who logged in at the web server, if it asks.
    pub(crate) remote_user: Option<String>,
    /// `BARTLEBY_ACCESS=granted`: the web server's configuration lets this client in.
    pub access_granted: bool,
    /// `Accept`
    pub accept: Option<String>,
    /// `SERVER_PORT`: where the web server listens.
    pub server_port: Option<u16>,
    /// `HTTPS=on`: the request came by TLS.
    pub by_tls: bool,
    /// `Host`
    pub(crate) host: Option<String>,
    /// `Origin`
    pub(crate) origin: Option<String>,
    /// `Referer`
    pub(crate) referer: Option<String>,
    /// `User-Agent`
    pub(crate) user_agent: Option<String>,
    /// `Sec-Fetch-Site`
    pub(crate) fetch_site: Option<String>,
    /// `Sec-Purpose`, `Purpose`, `X-Purpose` and `X-Moz`, by which browsers say that they fetch in advance.
    pub(crate) purposes: Vec<String>,
}

/// Why a request is refused before it is read to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// Another method.
    #[error("The method {0} is not answered here; GET, HEAD and POST are.")]
    Method(String),
    /// A query string over `INPUT_LIMIT`.
    #[error("The address is longer than {INPUT_LIMIT} bytes.")]
    LongQuery,
    /// A body over `INPUT_LIMIT`.
    #[error("The request is longer than {INPUT_LIMIT} bytes.")]
    TooLong,
    /// A body without a `CONTENT_LENGTH`, which RFC 3875, section 4.1.2, asks for: it came in chunks.
    #[error("The request's body has no Content-Length.")]
    NoLength,
    /// A `CONTENT_LENGTH` that is no number.
    #[error("The request's Content-Length is not a number.")]
    Length,
    /// A body that ended early.
    #[error("The request's body is shorter than its Content-Length announces.")]
    Short,
    /// A POST that is not a form.
    #[error("A POST is read as a form (application/x-www-form-urlencoded), and this one is not a form.")]
    NoForm,
}

impl Unacceptable {
    /// The HTTP status that says so.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Unacceptable::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Unacceptable::LongQuery => StatusCode::URI_TOO_LONG,
            Unacceptable::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Unacceptable::NoLength => StatusCode::LENGTH_REQUIRED,
            Unacceptable::Length | Unacceptable::Short | Unacceptable::NoForm => StatusCode::BAD_REQUEST,
        }
    }
}

impl Request {
    /// Reads a request from CGI's meta-variables and body. Bytes that are not UTF-8 are replaced; no value that matters
    /// holds any.
    ///
    /// What is left of a body is read and dropped, whatever comes of the request: Apache's mod_cgid hands all of it over
    /// before it takes the answer, and breaks the connection off where it can't.
    ///
    /// # Errors
    /// [`Unacceptable`]; nothing a client sends makes this panic.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>, body: impl Read) -> Result<Request, Unacceptable> {
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let announced = match text("CONTENT_LENGTH").filter(|length| !length.is_empty()) {
            Some(length) => length.parse().unwrap_or(0),
            None if text("HTTP_TRANSFER_ENCODING").is_some() => BODY_LIMIT,
            None => 0,
        };
        let mut body = body.take(announced.min(BODY_LIMIT));
        let request = Request::vet(&text, &mut body);
        // Where it breaks off, there is nothing left to drop.
        let _ = io::copy(&mut body, &mut io::sink());
        request
    }

    fn vet(text: &impl Fn(&str) -> Option<String>, body: &mut impl Read) -> Result<Request, Unacceptable> {
        // An empty field says nothing: it counts as absent.
        let field = |name: &str| text(name).filter(|value| !value.trim().is_empty());
        let method = match text("REQUEST_METHOD").as_deref() {
            None | Some("GET") => Method::Get,
            Some("HEAD") => Method::Head,
            Some("POST") => Method::Post,
            Some(other) => return Err(Unacceptable::Method(other.chars().take(40).collect())),
        };
        let query = text("QUERY_STRING").unwrap_or_default();
        if query.len() > INPUT_LIMIT {
            return Err(Unacceptable::LongQuery);
        }
        let form = if method == Method::Post { form(text, body)? } else { String::new() };
        Ok(Request {
            method,
            query,
            form,
            remote_addr: text("REMOTE_ADDR").and_then(|address| bare(&address).parse().ok()),
            forwarded_by: FORWARDED.into_iter().find(|(variable, _)| field(variable).is_some()).map(|(_, name)| name),
            remote_user: text("REMOTE_USER").filter(|user| !user.is_empty()),
            access_granted: text("BARTLEBY_ACCESS").as_deref() == Some("granted"),
            server_port: text("SERVER_PORT").and_then(|port| port.parse().ok()),
            by_tls: text("HTTPS").is_some_and(|word| word.eq_ignore_ascii_case("on")),
            accept: field("HTTP_ACCEPT"),
            host: field("HTTP_HOST"),
            origin: field("HTTP_ORIGIN"),
            referer: field("HTTP_REFERER"),
            user_agent: field("HTTP_USER_AGENT"),
            fetch_site: field("HTTP_SEC_FETCH_SITE"),
            purposes: ["HTTP_SEC_PURPOSE", "HTTP_PURPOSE", "HTTP_X_PURPOSE", "HTTP_X_MOZ"]
                .into_iter()
                .filter_map(field)
                .collect(),
        })
    }

    /// The parameters of the query string, then those of the form, decoded.
    pub fn parameters(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let decoded = |text: &str| form_urlencoded::parse(text.as_bytes()).into_owned().collect::<Vec<_>>();
        decoded(&self.query).into_iter().chain(decoded(&self.form))
    }
}

/// The fields by which proxies say that they are between, as variables and by name.
const FORWARDED: [(&str, &str); 4] = [
    ("HTTP_X_FORWARDED_FOR", "X-Forwarded-For"),
    ("HTTP_FORWARDED", "Forwarded"),
    ("HTTP_X_REAL_IP", "X-Real-IP"),
    ("HTTP_VIA", "Via"),
];

/// An address without the brackets that some servers put around it (busybox: `[::ffff:127.0.0.1]`), and without its zone,
/// which a link-local one may have (`fe80::1%eth0`, RFC 4007).
fn bare(address: &str) -> &str {
    let inner = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(address).split('%').next().unwrap_or_default()
}

fn form(text: &impl Fn(&str) -> Option<String>, body: &mut impl Read) -> Result<String, Unacceptable> {
    let length = match text("CONTENT_LENGTH").filter(|length| !length.is_empty()) {
        None if text("HTTP_TRANSFER_ENCODING").is_some() => return Err(Unacceptable::NoLength),
        None => 0,
        Some(length) if !length.bytes().all(|byte| byte.is_ascii_digit()) => return Err(Unacceptable::Length),
        // A number that does not fit is too long in any case.
        Some(length) => length.parse::<usize>().unwrap_or(usize::MAX),
    };
    if length > INPUT_LIMIT {
        return Err(Unacceptable::TooLong);
    }
    let mut bytes = Vec::with_capacity(length);
    let read = body.by_ref().take(length as u64).read_to_end(&mut bytes);
    if read.is_err() || bytes.len() < length {
        return Err(Unacceptable::Short);
    }
    let media_type = text("CONTENT_TYPE").unwrap_or_default();
    let is_form = media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .eq_ignore_ascii_case("application/x-www-form-urlencoded");
    if length > 0 && !is_form {
        return Err(Unacceptable::NoForm);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// The status.
    pub(crate) status: StatusCode,
    /// The media type.
    pub(crate) media_type: &'static str,
    /// Header fields besides those that every answer has.
    pub(crate) fields: Vec<(HeaderName, String)>,
}

impl Head {
    /// A head without further fields.
    pub(crate) fn new(status: StatusCode, media_type: &'static str) -> Head {
        Head { status, media_type, fields: Vec::new() }
    }

    /// Adds a field.
    #[must_use]
    pub(crate) fn with(mut self, name: HeaderName, value: impl Into<String>) -> Head {
        self.fields.push((name, value.into()));
        self
    }

    /// All fields. The policy lets in nothing but our own style sheet, by its hash, and images that
    /// are part of the page.
    fn all_fields(&self) -> impl Iterator<Item = (HeaderName, String)> + '_ {
        let policy = concat!(
            "default-src 'none'; style-src 'sha256-",
            env!("BARTLEBY_STYLE_HASH"),
            "'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        );
        [
            (header::CONTENT_TYPE, self.media_type),
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            // What the policy says of frames, for browsers that know only this (RFC 7034); and nothing of this is an
            // image or a script of another site (Fetch, "Cross-Origin-Resource-Policy header").
            (header::X_FRAME_OPTIONS, "DENY"),
            (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
            (header::REFERRER_POLICY, "same-origin"),
            (header::CACHE_CONTROL, "no-store"),
            (header::VARY, "Accept"),
        ]
        .into_iter()
        .map(|(name, value)| (name, value.to_owned()))
        .chain(self.fields.iter().cloned())
    }
}

impl Head {
    /// The answer with this body.
    fn answer(&self, body: Vec<u8>) -> ::cgi::Response {
        let mut response = ::cgi::Response::new(body);
        *response.status_mut() = self.status;
        for (name, value) in self.all_fields() {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }

    /// The head as it stands in front of a body.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        to_bytes(&self.answer(Vec::new()))
    }
}

/// An answer as it is written (RFC 3875, section 6.3.3).
fn to_bytes(answer: &::cgi::Response) -> Vec<u8> {
    let mut bytes = format!("Status: {}\r\n", answer.status()).into_bytes();
    for (name, value) in answer.headers() {
        bytes.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(answer.body());
    bytes
}

/// Sends a whole answer. A signal that ends this process waits until it is sent: a part of it would look like the whole.
pub(crate) fn send(head: &Head, body: Vec<u8>) {
    let signals = EndingSignals::hold_back();
    // All that can fail is the writing, when the reader has hung up or takes nothing: no error.
    let _ = write(&to_bytes(&head.answer(body)), signals.as_ref());
    drop(signals);
}

fn write(bytes: &[u8], signals: Option<&EndingSignals>) -> io::Result<()> {
    let mut output = Output::new(None)?;
    output.push(bytes);
    output.seal();
    output.finish(signals)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    fn read(variables: &[(&str, &[u8])], body: &[u8]) -> Result<Request, Unacceptable> {
        let variable = |name: &str| {
            let (_, value) = variables.iter().find(|(known, _)| *known == name)?;
            Some(OsString::from_vec(value.to_vec()))
        };
        Request::read(variable, body)
    }

    #[test]
    fn an_empty_environment_is_a_get() {
        assert_eq!(read(&[], b""), Ok(Request::default()));
    }

    #[test]
    fn bytes_that_are_no_text_do_no_harm() {
        let request = read(
            &[
                ("QUERY_STRING", b"q=\xff<{ }"),
                ("HTTP_ACCEPT", b"\x80"),
                ("REMOTE_ADDR", b"\xff"),
                ("SERVER_PROTOCOL", b"HTTP/3.0"),
            ],
            b"",
        )
        .unwrap();
        assert_eq!(request.remote_addr, None);
        assert_eq!(request.parameters().next(), Some(("q".into(), "\u{fffd}<{ }".into())));
    }

    #[test]
    fn other_methods_are_refused() {
        for method in ["PUT", "get", "", "OPTIONS", "\u{fffd}"] {
            assert!(
                matches!(read(&[("REQUEST_METHOD", method.as_bytes())], b""), Err(Unacceptable::Method(_))),
                "{method}"
            );
        }
    }

    #[test]
    fn a_form_is_read_to_its_length_and_no_further() {
        let post = |length: &str, media_type: &str, body: &[u8]| {
            read(
                &[
                    ("REQUEST_METHOD", b"POST"),
                    ("CONTENT_LENGTH", length.as_bytes()),
                    ("CONTENT_TYPE", media_type.as_bytes()),
                ],
                body,
            )
        };
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        assert_eq!(post("5", form, b"flush&more").unwrap().form, "flush");
        assert_eq!(post("", "", b"").unwrap().form, "");
        let chunked = [("REQUEST_METHOD", &b"POST"[..]), ("HTTP_TRANSFER_ENCODING", b"chunked")];
        assert_eq!(read(&chunked, b"flush"), Err(Unacceptable::NoLength));
        assert_eq!(post("6", form, b"flush"), Err(Unacceptable::Short));
        assert_eq!(post("99999999999999", form, b""), Err(Unacceptable::TooLong));
        assert_eq!(post("99999999999999999999999999", form, b""), Err(Unacceptable::TooLong));
        assert_eq!(post("-1", form, b""), Err(Unacceptable::Length));
        assert_eq!(post("+5", form, b"flush"), Err(Unacceptable::Length));
        assert_eq!(post("5", "text/plain", b"flush"), Err(Unacceptable::NoForm));
    }

    #[test]
    fn what_is_left_of_a_body_is_read_and_dropped_up_to_a_limit() {
        let left = |variables: &[(&str, &str)], body: usize| {
            let body = vec![b'x'; body];
            let mut rest = body.as_slice();
            let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
            let _ = Request::read(value, &mut rest);
            rest.len()
        };
        let length = |length| ("CONTENT_LENGTH", length);
        assert_eq!(left(&[("REQUEST_METHOD", "PUT"), length("300")], 400), 100);
        assert_eq!(left(&[("REQUEST_METHOD", "GET"), length("300")], 400), 100);
        assert_eq!(left(&[("REQUEST_METHOD", "POST"), length("60000")], 60_000), 0, "413");
        assert_eq!(left(&[("REQUEST_METHOD", "POST"), length("70000")], 70_000), 70_000 - 65_536);
        assert_eq!(left(&[("REQUEST_METHOD", "POST"), ("HTTP_TRANSFER_ENCODING", "chunked")], 400), 0);
        assert_eq!(left(&[("REQUEST_METHOD", "GET")], 400), 400, "none was announced");
    }

    #[test]
    fn access_takes_the_exact_word_and_no_header() {
        assert!(read(&[("BARTLEBY_ACCESS", b"granted")], b"").unwrap().access_granted);
        assert!(
            !read(&[("BARTLEBY_ACCESS", b"denied"), ("HTTP_BARTLEBY_ACCESS", b"granted")], b"").unwrap().access_granted
        );
        let request =
            read(&[("HTTP_X_CGI_REMOTE_ADDR", b"127.0.0.1"), ("HTTP_X_FORWARDED_FOR", b"127.0.0.1")], b"").unwrap();
        assert_eq!(request.remote_addr, None);
    }
}
