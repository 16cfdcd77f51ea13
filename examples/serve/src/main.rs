//! `make run`: a web server for development that runs `index.cgi` for each request.
//!
//! It stands in for Apache as far as this program can tell: one path, RFC 3875's variables, the
//! request's bytes handed on as they came. It listens on the loopback address alone and lets every
//! caller in, so it is no server for anything else.
//!
//!     serve PROGRAM [--port 8025] [--sample]
//!
//! On a machine without a mail server, or with `--sample`, the program is given a recorded queue:
//! `examples/sample-queue/postfix.json`, printed by `postqueue -j` of Postfix 3.7.11 on a backup MX
//! whose primary refused connections. Its arrival times, spread over a day since, are moved so that
//! the newest message is three minutes old.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::percent_decode;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The longest request head that is read, in bytes: Apache's limits come to about as much.
const HEAD_LIMIT: u64 = 64 * 1024;

/// How long a client may keep a thread waiting.
const PATIENCE: Duration = Duration::from_secs(60);

/// What stands before the one field of a recorded message that is changed.
const ARRIVAL: &str = "\"arrival_time\": ";

/// The sample queue, as Postfix printed it.
const RECORDED: &str = include_str!("../../sample-queue/postfix.json");

/// Any of these is a mail server that the program would find by itself.
const MAIL_SERVERS: [&str; 8] = [
    "/usr/sbin/postqueue",
    "/usr/libexec/sendmail/sendmail",
    "/usr/lib/sm.bin/sendmail",
    "/usr/sbin/sendmail.sendmail",
    "/usr/sbin/exim4",
    "/usr/sbin/exim",
    "/usr/sbin/smtpctl",
    "/usr/local/sbin/exim",
];

fn main() -> Result<()> {
    let options = Options::read()?;
    let program = fs::canonicalize(&options.program)
        .map_err(|error| format!("{}: {error} (run `make` first)", options.program.display()))?;
    let mut site = Site { program, port: options.port, config: None };
    let chosen = std::env::var_os("BARTLEBY_CONFIG").is_some();
    if options.sample || !chosen && !MAIL_SERVERS.iter().any(|path| Path::new(path).exists()) {
        site.config = Some(sample_queue(&site.program)?);
        println!(
            "A RECORDED SAMPLE QUEUE is shown, not this machine's: {}",
            if options.sample { "as asked" } else { "it has no mail server" }
        );
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, site.port))?;
    println!("http://127.0.0.1:{}/ runs {} (Ctrl-C ends it)", site.port, site.program.display());
    let site = Arc::new(site);
    for stream in listener.incoming() {
        let (stream, site) = (stream?, Arc::clone(&site));
        thread::spawn(move || {
            if let Err(error) = answer(&site, stream) {
                eprintln!("serve: {error}");
            }
        });
    }
    Ok(())
}

/// The command line.
struct Options {
    program: PathBuf,
    port: u16,
    sample: bool,
}

impl Options {
    fn read() -> Result<Self> {
        use lexopt::prelude::*;
        let mut options = Self { program: "target/index.cgi".into(), port: 8025, sample: false };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("port") => options.port = parser.value()?.parse()?,
                Long("sample") => options.sample = true,
                Value(path) => options.program = path.into(),
                _ => return Err(argument.unexpected().into()),
            }
        }
        Ok(options)
    }
}

/// What is served.
struct Site {
    program: PathBuf,
    port: u16,
    /// The configuration that gives the sample queue.
    config: Option<PathBuf>,
}

/// Writes the sample queue and a configuration for it beside the program, where `make clean` finds
/// them, and returns the configuration's path.
fn sample_queue(program: &Path) -> Result<PathBuf> {
    let folder = program.with_file_name("sample-queue");
    let (listing, config) = (folder.join("postfix.json"), folder.join("bartleby.toml"));
    fs::create_dir_all(folder.join("state"))?;

    // Only the digits are changed: the rest stays as Postfix wrote it.
    let mut messages = Vec::new();
    for line in RECORDED.lines() {
        let (before, rest) = line.split_once(ARRIVAL).ok_or("a sample message has no arrival time")?;
        let (arrival, after) = rest.split_once(',').ok_or("a sample message ends too early")?;
        messages.push((before, arrival.parse::<u64>()?, after));
    }
    let newest = messages.iter().map(|(_, arrival, _)| *arrival).max().ok_or("the sample queue is empty")?;
    let later = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() - 180 - newest;
    let mut moved = String::new();
    for (before, arrival, after) in messages {
        writeln!(moved, "{before}{ARRIVAL}{},{after}", arrival + later)?;
    }
    fs::write(&listing, moved)?;

    // A TOML string is quoted as a Rust one is, as far as paths go.
    let settings = format!(
        "[mta]\nkind = \"postfix\"\nlabel = \"recorded sample queue, not the mail of this machine\"\nlifetime = \"5d\"\nlist_command = [\"/bin/cat\", {listing:?}]\n\
         flush_command = [\"/bin/true\"]\n[state]\ndirectory = {:?}\n",
        folder.join("state")
    );
    fs::write(&config, settings)?;
    Ok(config)
}

/// A request's head, as it came.
struct Head {
    method: String,
    target: String,
    version: String,
    headers: Vec<(String, Vec<u8>)>,
}

impl Head {
    /// Reads up to the empty line. `None` when the client closed without a request.
    fn read(reader: &mut impl BufRead) -> Result<Option<Self>> {
        let mut bytes = Vec::new();
        let mut reader = reader.take(HEAD_LIMIT);
        while !bytes.ends_with(b"\r\n\r\n") && !bytes.ends_with(b"\n\n") {
            if reader.read_until(b'\n', &mut bytes)? == 0 {
                return if bytes.is_empty() {
                    Ok(None)
                } else {
                    Err("the request's head is cut off or too long".into())
                };
            }
        }
        let mut headers = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut headers);
        request.parse(&bytes)?;
        Ok(Some(Self {
            method: request.method.unwrap_or_default().into(),
            target: request.path.unwrap_or_default().into(),
            version: format!("HTTP/1.{}", request.version.unwrap_or_default()),
            headers: request.headers.iter().map(|header| (header.name.to_lowercase(), header.value.into())).collect(),
        }))
    }

    /// The first header of that name, given in lower case.
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(is, _)| is == name).map(|(_, value)| value.as_slice())
    }
}

/// Answers the one request of a connection.
fn answer(site: &Site, stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let head = match Head::read(&mut reader) {
        Ok(Some(head)) => head,
        Ok(None) => return Ok(()),
        Err(error) => {
            refuse(&stream, "400 Bad Request")?;
            return Err(error);
        }
    };
    let status = match environment(site, &head, &stream)? {
        None => refuse(&stream, "404 Not Found")?,
        Some(_) if head.header("transfer-encoding").is_some() => refuse(&stream, "411 Length Required")?,
        Some(variables) => run(site, variables, &head, reader, &stream)?,
    };
    println!("{} {} {status}", head.method, head.target);
    // The client's last bytes are read before closing, or it would see a reset instead of the answer.
    // One that is gone already is no error.
    drop(stream.shutdown(Shutdown::Write));
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    drop(io::copy(&mut &stream, &mut io::sink()));
    Ok(())
}

/// Answers without the program, and returns the status.
fn refuse(mut stream: &TcpStream, status: &str) -> Result<String> {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n{status}\n")?;
    Ok(status.into())
}

/// RFC 3875's variables for a request; `None` when its path is not the program's.
fn environment(site: &Site, head: &Head, stream: &TcpStream) -> Result<Option<BTreeMap<String, OsString>>> {
    let (path, query) = head.target.split_once('?').unwrap_or((&head.target, ""));
    // As Apache does it: the folder's own path, or the file's with anything behind it.
    let (script, rest) = match path.strip_prefix("/index.cgi") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => ("/index.cgi", rest),
        _ if path == "/" => ("/", ""),
        _ => return Ok(None),
    };
    let peer = stream.peer_addr()?;
    let mut variables: BTreeMap<String, OsString> = BTreeMap::new();
    for (name, value) in &head.headers {
        // No Proxy: it would become HTTP_PROXY, which other programs obey (CVE-2016-5385).
        let bare = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if bare && !["content-type", "content-length", "authorization", "proxy"].contains(&name.as_str()) {
            let name = format!("HTTP_{}", name.to_uppercase().replace('-', "_"));
            variables.insert(name, OsString::from_vec(value.clone()));
        }
    }
    let mut set = |name: &str, value: OsString| drop(variables.insert(name.into(), value));
    for (name, header) in [("CONTENT_TYPE", "content-type"), ("CONTENT_LENGTH", "content-length")] {
        if let Some(value) = head.header(header) {
            set(name, OsString::from_vec(value.into()));
        }
    }
    if !rest.is_empty() {
        set("PATH_INFO", OsString::from_vec(percent_decode(rest.as_bytes()).collect()));
    }
    set("GATEWAY_INTERFACE", "CGI/1.1".into());
    set("SERVER_SOFTWARE", "bartleby-serve".into());
    set("SERVER_NAME", "127.0.0.1".into());
    set("SERVER_PORT", site.port.to_string().into());
    set("SERVER_PROTOCOL", head.version.as_str().into());
    set("REQUEST_METHOD", head.method.as_str().into());
    set("REQUEST_URI", head.target.as_str().into());
    set("SCRIPT_NAME", script.into());
    set("QUERY_STRING", query.into());
    set("REMOTE_ADDR", peer.ip().to_string().into());
    set("REMOTE_PORT", peer.port().to_string().into());
    // What the Apache snippet sets where it lets somebody in.
    set("BARTLEBY_ACCESS", "granted".into());
    if let Some(config) = site.config.clone().map(OsString::from).or_else(|| std::env::var_os("BARTLEBY_CONFIG")) {
        set("BARTLEBY_CONFIG", config);
    }
    if let Some(path) = std::env::var_os("PATH") {
        set("PATH", path);
    }
    Ok(Some(variables))
}

/// Runs the program, hands it the body and sends on what it answers. Returns the status.
fn run(
    site: &Site,
    variables: BTreeMap<String, OsString>,
    head: &Head,
    body: BufReader<TcpStream>,
    mut stream: &TcpStream,
) -> Result<String> {
    if head.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let length = head.header("content-length").and_then(|value| str::from_utf8(value).ok()?.trim().parse().ok());
    let mut child = Command::new(&site.program)
        .env_clear()
        .envs(variables)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", site.program.display()))?;
    // Beside the answer, which may come before the body has been read, if it ever is.
    if let Some(stdin) = child.stdin.take() {
        thread::spawn(move || send_body(body, length.unwrap_or(0), stdin));
    }
    let mut output = BufReader::new(child.stdout.take().ok_or("the program has no output")?);
    let status = match read_answer(&mut output)? {
        None => refuse(stream, "502 Bad Gateway")?,
        Some((status, headers)) => {
            stream.write_all(format!("HTTP/1.1 {status}\r\n").as_bytes())?;
            stream.write_all(&headers)?;
            stream.write_all(b"Connection: close\r\n\r\n")?;
            // A reader that hangs up is no error. The program then finds the pipe closed.
            drop(io::copy(&mut output, &mut stream));
            status
        }
    };
    drop(output);
    let exit = child.wait()?;
    Ok(if exit.success() { status } else { format!("{status} ({exit})") })
}

/// Streams the request's body to the program, which need not read it.
fn send_body(body: BufReader<TcpStream>, length: u64, mut stdin: ChildStdin) {
    drop(io::copy(&mut body.take(length), &mut stdin));
}

/// Reads the head of a CGI answer: the status, and the other header lines to send on. `None` when it is no
/// CGI answer.
fn read_answer(output: &mut impl BufRead) -> Result<Option<(String, Vec<u8>)>> {
    let (mut status, mut headers) = (None, Vec::new());
    loop {
        let mut line = Vec::new();
        output.read_until(b'\n', &mut line)?;
        let text = line.trim_ascii_end();
        if line.is_empty() {
            return Ok(None);
        } else if text.is_empty() {
            // RFC 3875, 6.2: a Location without a Status is a redirect.
            let default = if headers.to_ascii_lowercase().starts_with(b"location:") { "302 Found" } else { "200 OK" };
            return Ok(Some((status.unwrap_or_else(|| default.into()), headers)));
        }
        match text.split_at_checked(7) {
            Some((name, value)) if name.eq_ignore_ascii_case(b"status:") => {
                status = Some(String::from_utf8_lossy(value.trim_ascii()).into_owned());
            }
            _ if !text.contains(&b':') => return Ok(None),
            _ => {
                headers.extend_from_slice(text);
                headers.extend_from_slice(b"\r\n");
            }
        }
    }
}
