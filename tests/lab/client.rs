//! The rest of the Internet: hands mails to the backup MX by SMTP.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use crate::http::{self, FORBIDDEN};
use crate::mails::{LINE, Mail};
use crate::mta::Mta;
use crate::wait;

const BACKUP_MX: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 25);

/// A mail that the backup MX has taken over.
#[derive(Debug)]
pub struct Queued {
    /// What was sent.
    pub mail: Mail,
    /// The id that the mail server gave it.
    pub id: String,
}

/// Sends what `mails` gives (its argument is whether there is SMTPUTF8), all in one session.
pub fn send(mta: &dyn Mta, mails: impl FnOnce(bool) -> Vec<Mail>) -> Vec<Queued> {
    send_from(Ipv4Addr::LOCALHOST, mta, mails)
}

/// The same, from an address of choice.
pub fn send_from(from: Ipv4Addr, mta: &dyn Mta, mails: impl FnOnce(bool) -> Vec<Mail>) -> Vec<Queued> {
    let mut session =
        wait::until("the backup MX takes mail", 20, || Session::open(from).map_err(|error| error.to_string()));
    let utf8 = session.say("EHLO client.example.org").contains("SMTPUTF8");
    let taken = mails(utf8).into_iter().filter(|mail| mta.takes(mail));
    let queued = taken.map(|mail| Queued { id: mta.queue_id(&session.send(&mail)), mail }).collect();
    session.say("QUIT");
    queued
}

/// The reply to a recipient, offered by a stranger.
pub fn recipient_reply(recipient: &str) -> String {
    let mut session =
        wait::until("the backup MX answers", 20, || Session::open(FORBIDDEN).map_err(|error| error.to_string()));
    session.say("EHLO client.example.org");
    session.say("MAIL FROM:<alice@example.org>");
    session.0.get_mut().write_all(format!("RCPT TO:<{recipient}>\r\n").as_bytes()).unwrap();
    let reply = session.any_reply();
    session.say("QUIT");
    reply
}

struct Session(BufReader<TcpStream>);

impl Session {
    fn open(from: Ipv4Addr) -> std::io::Result<Session> {
        let stream = http::connect(from, BACKUP_MX)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut session = Session(BufReader::new(stream));
        session.reply("the greeting");
        Ok(session)
    }

    /// Sends one mail and returns the reply to its end.
    fn send(&mut self, mail: &Mail) -> String {
        let parameters = if mail.utf8 { " SMTPUTF8 BODY=8BITMIME" } else { "" };
        self.say(&format!("MAIL FROM:<{}>{parameters}", mail.sender));
        for recipient in &mail.recipients {
            self.say(&format!("RCPT TO:<{recipient}>"));
        }
        self.say("DATA");
        let text = format!("{LINE}\r\n").repeat(mail.lines);
        self.say(&format!("From: someone@example.org\r\nSubject: {}\r\n\r\n{text}.", mail.subject))
    }

    fn say(&mut self, command: &str) -> String {
        self.0.get_mut().write_all(format!("{command}\r\n").as_bytes()).unwrap();
        self.reply(command)
    }

    /// A reply, which must be a good one.
    fn reply(&mut self, command: &str) -> String {
        let reply = self.any_reply();
        let command = &command[..command.len().min(100)];
        assert!(reply.starts_with(['2', '3']), "{command:?} was answered: {reply:?}");
        reply
    }

    /// A reply of one or more lines.
    fn any_reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            self.0.read_line(&mut reply).unwrap();
            if reply.as_bytes().get(start + 3) != Some(&b'-') {
                break;
            }
        }
        reply
    }
}
