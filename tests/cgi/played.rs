//! A primary that is played: what it says to each command can be changed, and what it heard is kept.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::unistd::Pid;

use crate::machine::Machine;

/// What it says to a command; to none, its greeting. `None`: it says nothing more, and keeps the connection.
pub type Reply = fn(&str) -> Option<String>;

#[derive(Clone)]
pub struct Played {
    pub host: String,
    reply: Arc<Mutex<Option<Reply>>>,
    connections: Arc<AtomicUsize>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Played {
    pub fn new(reply: Reply) -> Played {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let reply = Arc::new(Mutex::new(Some(reply)));
        let played = Played { host, reply, connections: Arc::default(), heard: Arc::default() };
        let server = played.clone();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let server = server.clone();
                thread::spawn(move || server.serve(stream));
            }
        });
        played
    }

    /// Lets it say something else from now on; nothing is a connection that ends at once.
    pub fn says(&self, reply: Option<Reply>) {
        *self.reply.lock().unwrap() = reply;
    }

    /// How many connections asked for recipients.
    pub fn rehearsals(&self) -> usize {
        self.heard().iter().filter(|line| line.starts_with("MAIL FROM:<p")).count()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Each line that it heard.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }

    /// A machine whose primary it is, for `example.com`, with more in its configuration.
    pub fn machine(&self, more: &str) -> Machine {
        let machine = Machine::with_fixture("postfix/mixed-json");
        let text = format!("{more}\n[primary]\nhosts = [\"{}\"]\ndomains = [\"example.com\"]\n", self.host);
        machine.configure("postfix", &text);
        machine
    }

    fn serve(&self, mut stream: TcpStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut line = String::new();
        loop {
            let Some(reply) = *self.reply.lock().unwrap() else { return };
            let Some(said) = reply(&line) else {
                // Until the other side gives up.
                lines.by_ref().for_each(drop);
                return;
            };
            if stream.write_all(said.as_bytes()).is_err() || line == "QUIT" {
                return;
            }
            let Some(Ok(next)) = lines.next() else { return };
            line = next;
            self.heard.lock().unwrap().push(line.clone());
        }
    }
}

/// Takes everything.
pub fn accepts(line: &str) -> Option<String> {
    Some(match line.get(..4).unwrap_or_default() {
        "" => "220 tuccster.example.com ESMTP\r\n".into(),
        "EHLO" => "250-tuccster.example.com\r\n250 SIZE 50000000\r\n".into(),
        "QUIT" => "221 2.0.0 bye\r\n".into(),
        _ => "250 2.0.0 ok\r\n".into(),
    })
}

/// Was restored without its mailboxes.
pub fn refuses(line: &str) -> Option<String> {
    match line.strip_prefix("RCPT TO:") {
        Some(path) => Some(format!("550 5.1.1 {path}: Recipient address rejected: User <b>unknown</b>\r\n")),
        None => accepts(line),
    }
}

/// Knows one of its mailboxes no longer.
pub fn refuses_one(line: &str) -> Option<String> {
    if line.starts_with("RCPT TO:<moe@") { refuses(line) } else { accepts(line) }
}

/// Puts everybody off.
pub fn puts_off(line: &str) -> Option<String> {
    if line.starts_with("RCPT") { Some("450 4.2.0 Greylisted\r\n".into()) } else { accepts(line) }
}

/// The processes that a process has started and that run now.
fn children(pid: u32) -> Vec<u32> {
    let parent =
        |status: String| status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse::<u32>().ok());
    let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_child = |child: &u32| fs::read_to_string(format!("/proc/{child}/status")).ok().and_then(parent) == Some(pid);
    all.filter(is_child).collect()
}

/// The process in the sandbox that has the connection to a primary: the only one of a view, or of a run that begins, that
/// is a child of its child.
pub fn asking(view: &Child) -> Pid {
    let found: Vec<u32> = children(view.id()).into_iter().flat_map(children).collect();
    assert_eq!(found.len(), 1, "one process connects");
    Pid::from_raw(found[0].cast_signed())
}
