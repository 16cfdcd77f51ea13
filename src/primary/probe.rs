//! Whether a mail server takes mail: connection, greeting, EHLO, QUIT (RFC 5321, section 3.1), and no mail command.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::conversation::{CLOSED, Conversation, LATE, told};
use super::rehearsal::Heard;
use crate::state::Condition;

/// How long the reply to QUIT may take.
const PARTING: Duration = Duration::from_millis(200);

/// How much of a reply is shown, in characters.
const TOLD: usize = 200;

/// Talks to one address of a mail server until the deadline. Returns its condition, and its words or what is wrong.
pub(crate) fn probe(address: IpAddr, port: u16, own_name: &str, deadline: Instant) -> (Condition, String) {
    let mut conversation = match Conversation::begin(SocketAddr::new(address, port), deadline) {
        Ok(conversation) => conversation,
        Err(error) => return (Condition::Down, told(&error)),
    };
    let (condition, words) = talk(&mut conversation, own_name).unwrap_or_else(silent);
    (condition, words.chars().take(TOLD).collect())
}

/// Greeting and EHLO.
///
/// # Errors
/// What was heard instead of a reply.
fn talk(conversation: &mut Conversation, own_name: &str) -> Result<(Condition, String), Heard> {
    let (code, greeting) = reply(conversation.hear())?;
    if code != 220 {
        // "421", or "554 no SMTP service here" (section 3.1).
        quit(conversation);
        return Ok((if code / 100 == 4 { Condition::Busy } else { Condition::Down }, greeting));
    }
    let (mut code, mut words) = reply(conversation.ask(&format!("EHLO {own_name}")))?;
    if code / 100 == 5 {
        // A server from the time before RFC 1869.
        (code, words) = reply(conversation.ask(&format!("HELO {own_name}")))?;
    }
    quit(conversation);
    Ok(match code {
        250 => (Condition::Up, greeting),
        400..500 => (Condition::Busy, words),
        _ => (Condition::Down, words),
    })
}

fn reply(heard: Heard) -> Result<(u16, String), Heard> {
    match heard {
        Heard::Reply(reply) => Ok((reply.code, reply.first_line())),
        other => Err(other),
    }
}

/// What is known of a server that does not reply. One that has begun to greet is up: postscreen(8) lets callers wait
/// for six seconds after the first line.
fn silent(heard: Heard) -> (Condition, String) {
    match heard {
        Heard::Late { begun: Some(line) } if line.starts_with("220") => (Condition::Up, line),
        Heard::Nonsense(nonsense) => (Condition::Down, nonsense.to_string()),
        Heard::Closed => (Condition::Down, CLOSED.into()),
        Heard::Late { .. } | Heard::Reply(_) => (Condition::Down, LATE.into()),
    }
}

/// Says goodbye. The server may hang up without a word, or take its time.
fn quit(conversation: &mut Conversation) {
    conversation.within(PARTING);
    conversation.ask("QUIT");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread;

    /// What a server that says these things, one after the other, is taken for, and what it hears.
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
        assert_eq!((condition, words.as_str()), (Condition::Up, "220 mx ESMTP"));
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
