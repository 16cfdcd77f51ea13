//! The replies of a mail server (RFC 5321, section 4.2), taken from the bytes as they come, within limits.

use std::mem;

use memchr::memchr;

/// The longest reply that is taken, in bytes.
const LONGEST: usize = 64 * 1024;

/// The most lines of a reply.
const MOST_LINES: usize = 200;

/// How much of a server's words is kept, in characters.
const KEPT: usize = 500;

/// A whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The code of its last line, from 200 to 599.
    pub code: u16,
    /// The text of each line, without the code.
    pub lines: Vec<String>,
}

impl Reply {
    /// The code and the text in one line; the code is not repeated.
    pub(crate) fn words(&self) -> String {
        let text = self.lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect::<Vec<_>>();
        kept(&format!("{} {}", self.code, text.join(" ")))
    }

    /// The code and the text of the first line.
    pub(crate) fn first_line(&self) -> String {
        kept(&format!("{} {}", self.code, self.lines.first().map_or("", String::as_str)))
    }
}

/// What no mail server says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// A line does not begin with a code.
    #[error("this is no mail server; it says “{0}”")]
    NotSmtp(String),
    /// A reply is longer than any.
    #[error("its reply has no end")]
    Endless,
    /// Something came before it was asked.
    #[error("it speaks before it is asked")]
    OutOfTurn,
}

/// The replies in what a server sends.
#[derive(Debug, Default)]
pub struct Replies {
    unread: Vec<u8>,
    /// The lines of a reply that goes on, its last code, and how many bytes they took.
    begun: Vec<String>,
    code: u16,
    taken: usize,
}

impl Replies {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// The first line of a reply that goes on, as it came, where only a part of one has come.
    pub(crate) fn begun(&self) -> Option<String> {
        self.begun.first().map(|text| kept(&format!("{}-{text}", self.code)))
    }

    /// The next whole reply, if it has come. Nothing may come behind it until the next command.
    ///
    /// # Errors
    /// [`Nonsense`]
    pub fn take(&mut self) -> Result<Option<Reply>, Nonsense> {
        while let Some(end) = memchr(b'\n', &self.unread) {
            let line = String::from_utf8_lossy(&self.unread[..end]).trim_end().to_owned();
            self.unread.drain(..=end);
            self.taken += end + 1;
            let code = line.get(..3).and_then(|code| code.parse::<u16>().ok());
            let sign = line.get(3..4).unwrap_or(" ");
            let Some(code) = code.filter(|code| (200..600).contains(code) && [" ", "-"].contains(&sign)) else {
                return Err(Nonsense::NotSmtp(kept(&line)));
            };
            self.begun.push(line.get(4..).unwrap_or_default().to_owned());
            self.code = code;
            if self.taken > LONGEST || self.begun.len() > MOST_LINES {
                return Err(Nonsense::Endless);
            }
            if sign == " " {
                self.taken = 0;
                let lines = mem::take(&mut self.begun);
                return if self.unread.is_empty() { Ok(Some(Reply { code, lines })) } else { Err(Nonsense::OutOfTurn) };
            }
        }
        if self.taken + self.unread.len() > LONGEST { Err(Nonsense::Endless) } else { Ok(None) }
    }
}

fn kept(text: &str) -> String {
    text.trim_end().chars().take(KEPT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<Reply>, Nonsense> {
        let mut replies = Replies::default();
        replies.push(bytes);
        replies.take()
    }

    #[test]
    fn a_reply_is_whole_with_its_last_line() {
        let mut replies = Replies::default();
        for bytes in [&b"250-mx\r\n250-SI"[..], b"ZE 10\r\n", b"250 HELP"] {
            replies.push(bytes);
            assert_eq!(replies.take(), Ok(None));
        }
        assert_eq!(replies.begun().as_deref(), Some("250-mx"));
        replies.push(b"\r\n");
        let reply = replies.take().unwrap().unwrap();
        assert_eq!((reply.code, reply.words().as_str()), (250, "250 mx SIZE 10 HELP"));
        assert_eq!((reply.first_line().as_str(), replies.begun()), ("250 mx", None));
        assert_eq!(read(b"221\n").unwrap().unwrap().words(), "221");
        assert_eq!(read(b"550-5.1.1 No.\r\n550 \xff\r\n").unwrap().unwrap().words(), "550 5.1.1 No. \u{fffd}");
    }

    #[test]
    fn what_no_mail_server_says_is_no_reply() {
        for bytes in [&b"SSH-2.0-OpenSSH\r\n"[..], b"999 x\r\n", b"\r\n", b"25 x\r\n", b"250x\r\n", b"2\xc3\xa90 x\r\n"]
        {
            assert!(matches!(read(bytes), Err(Nonsense::NotSmtp(_))), "{bytes:?}");
        }
        assert_eq!(read(b"250 ok\r\n550 and\r\n"), Err(Nonsense::OutOfTurn));
    }

    #[test]
    fn a_reply_without_end_is_given_up() {
        assert_eq!(read(&[b'2'; LONGEST + 1]), Err(Nonsense::Endless));
        assert_eq!(read(&b"250-x\r\n".repeat(MOST_LINES + 1)), Err(Nonsense::Endless));
        assert!(matches!(read(&[&b"250-x\r\n".repeat(MOST_LINES - 1)[..], b"250 x\r\n"].concat()), Ok(Some(_))));
        let long = [&b"250-"[..], &[b'x'; 1000], b"\r\n"].concat();
        assert_eq!(read(&long.repeat(LONGEST / 1000 + 1)), Err(Nonsense::Endless), "bytes count over all lines");
    }
}
