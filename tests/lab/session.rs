//! One SMTP session of a primary mail server, in each of its moods.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddrV4, TcpStream};

use crate::mails::LINE;
use crate::primary::{Account, Delivery, Mode};

/// The reply of [`Mode::Mixed`] to `slow@`: two lines, full of what HTML is made of.
pub const SLOW: [&str; 2] = [
    "450-4.2.0 <greylisted>: Recipient address deferred, \"come back\" later",
    "450 4.2.0 see http://grey.example/?a=1&b='2' <script>alert(3)</script>",
];

/// The reply of [`Mode::TurnsAway`].
pub const TURNED_AWAY: &str = "421 4.3.2 tuccster is <b>down</b> for maintenance & will be back";

/// The reply of [`Mode::Mixed`] to `full@`: much longer than any column.
pub fn full() -> String {
    format!("452 4.2.2 The mailbox is over quota. See https://support.example/?p=quota {}", "x".repeat(300))
}

/// One SMTP session, RFC 5321, without extensions that change its order.
pub fn serve(stream: &TcpStream, server: SocketAddrV4, account: &Account) -> io::Result<()> {
    let mut input = BufReader::new(stream);
    let say = |line: &str| { stream }.write_all(format!("{line}\r\n").as_bytes());
    match account.mode() {
        Mode::TurnsAway => return say(TURNED_AWAY),
        Mode::Hangs => return io::copy(&mut input, &mut io::sink()).map(drop),
        Mode::Accepts | Mode::Mixed | Mode::Torn | Mode::Refuses | Mode::PutsOffData | Mode::RefusesData => {
            say("220 tuccster.example.com ESMTP")?
        }
    }
    let (mut sender, mut recipients) = (String::new(), Vec::new());
    while let Some(line) = read_line(&mut input)? {
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => say("250-tuccster.example.com\r\n250-SIZE 50000000\r\n250-8BITMIME\r\n250 SMTPUTF8")?,
            "MAIL" => {
                (sender, recipients) = (path(&line), Vec::new());
                say("250 2.1.0 Ok")?;
            }
            "RCPT" if account.mode() == Mode::Refuses => say("550 5.1.1 User unknown")?,
            "DATA" if account.mode() == Mode::PutsOffData => say("451 4.3.0 Not now")?,
            "DATA" if account.mode() == Mode::RefusesData => say("554 5.7.1 Not this one")?,
            "RCPT" => match path(&line) {
                recipient if account.mode() == Mode::Torn && recipient.starts_with("gone@") => {
                    say("550 5.1.1 User unknown")?
                }
                recipient if [Mode::Mixed, Mode::Torn].contains(&account.mode()) && recipient.starts_with("slow@") => {
                    say(&SLOW.join("\r\n"))?
                }
                recipient if account.mode() == Mode::Mixed && recipient.starts_with("full@") => say(&full())?,
                recipient => {
                    recipients.push(recipient);
                    say("250 2.1.5 Ok")?;
                }
            },
            "DATA" if recipients.is_empty() => say("554 5.5.1 No valid recipients")?,
            "DATA" => {
                say("354 Go ahead")?;
                let Some((subject, lines)) = read_mail(&mut input)? else { return Ok(()) };
                account.enter(recipients.drain(..).map(|recipient| {
                    let (subject, sender) = (subject.clone(), sender.clone());
                    Delivery { subject, sender, recipient, server, lines }
                }));
                say("250 2.0.0 Taken")?;
            }
            "QUIT" => return say("221 2.0.0 Bye"),
            _ => say("250 2.0.0 Ok")?,
        }
    }
    Ok(())
}

fn read_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    input.read_until(b'\n', &mut line)?;
    Ok((line.last() == Some(&b'\n')).then(|| String::from_utf8_lossy(line.trim_ascii_end()).into_owned()))
}

/// The subject and the number of lines of the text, or `None` where the mail breaks off.
fn read_mail(input: &mut impl BufRead) -> io::Result<Option<(String, usize)>> {
    let (mut subject, mut lines) = (String::new(), 0);
    while let Some(line) = read_line(input)? {
        match line.strip_prefix("Subject: ") {
            _ if line == "." => return Ok(Some((subject, lines))),
            Some(value) => value.clone_into(&mut subject),
            None => lines += usize::from(line == LINE),
        }
    }
    Ok(None)
}

/// The address between the angle brackets; in a quoted string they mean nothing.
fn path(command: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let start = command.find('<').map_or(command.len(), |at| at + 1);
    let end = command[start..].find(|character| {
        let ends = character == '>' && !quoted;
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        ends
    });
    command[start..][..end.unwrap_or(0)].to_owned()
}
