//! What a reader answers, on its standard output: frames of a kind (one byte), a length (four bytes, little-endian),
//! and so many bytes. The parent takes nothing in them for true but what it can check: lengths are bounded, and of
//! the body it knows no more than where it may end.

use std::fs::File;
use std::io::{self, Read};

use nix::errno::Errno;
use serde::Serialize;

use crate::system::Seam;

/// How much a frame may hold, in bytes: of the body, of counts, of the verdict.
const LIMITS: [(Kind, usize); 4] =
    [(Kind::Open, 8 << 20), (Kind::Whole, 8 << 20), (Kind::Counted, 4 << 20), (Kind::Done, 4 << 10)];

/// How much is read at once, in bytes.
const CHUNK: usize = 256 * 1024;

const HEADER: usize = 5;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A piece of the body, which is to be completed.
    Open,
    /// A piece of the body, after which it may end.
    Whole,
    /// What was counted, as JSON.
    Counted,
    /// The verdict, as JSON: the reader has finished.
    Done,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Open => b'o',
            Kind::Whole => b'w',
            Kind::Counted => b'c',
            Kind::Done => b'd',
        }
    }
}

/// A frame that no reader of ours would send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Nonsense;

/// The frames that a reader has sent so far.
#[derive(Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Frames {
    /// Reads what there is. Returns whether there may be more.
    pub(crate) fn read(&mut self, mut from: &File) -> bool {
        if self.begin > 0 {
            self.bytes.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        if self.bytes.len() < self.end + CHUNK {
            self.bytes.resize(self.end + CHUNK, 0);
        }
        match from.read(&mut self.bytes[self.end..]) {
            Ok(0) => false,
            Ok(length) => {
                self.end += length;
                true
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock),
        }
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// [`Nonsense`].
    pub(crate) fn next(&mut self) -> Result<Option<(Kind, &[u8])>, Nonsense> {
        let unread = &self.bytes[self.begin..self.end];
        let Some((&[kind, ref length @ ..], rest)) = unread.split_first_chunk::<HEADER>() else { return Ok(None) };
        let (kind, limit) = LIMITS.into_iter().find(|(known, _)| known.byte() == kind).ok_or(Nonsense)?;
        let length = u32::from_le_bytes(*length) as usize;
        if length > limit {
            return Err(Nonsense);
        }
        let whole = rest.len() >= length;
        let start = self.begin + HEADER;
        if whole {
            self.begin = start + length;
        }
        Ok(whole.then(|| (kind, &self.bytes[start..start + length])))
    }
}

/// Sends a piece of the body.
///
/// # Errors
/// Those of write(2).
pub(crate) fn send_body(bytes: &[u8], seam: Seam) -> io::Result<()> {
    // One write may be longer than a frame may be.
    let mut pieces = bytes.chunks(CHUNK).peekable();
    while let Some(piece) = pieces.next() {
        let last = pieces.peek().is_none() && seam == Seam::Whole;
        send(if last { Kind::Whole } else { Kind::Open }, piece)?;
    }
    Ok(())
}

/// Sends something as JSON.
///
/// # Errors
/// As [`send_body`].
pub(crate) fn send_json(kind: Kind, value: &impl Serialize) -> io::Result<()> {
    send(kind, &serde_json::to_vec(value)?)
}

fn send(kind: Kind, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut header = [kind.byte(), 0, 0, 0, 0];
    header[1..].copy_from_slice(&length.to_le_bytes());
    write(&header)?;
    write(bytes)
}

/// Writes past the buffer of standard output, which breaks at lines.
fn write(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match nix::unistd::write(io::stdout(), bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn frames(bytes: &[u8]) -> Frames {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let mut frames = Frames::default();
        while frames.read(&file) {}
        frames
    }

    #[test]
    fn frames_come_one_by_one_and_only_whole() {
        let mut frames = frames(b"o\x02\0\0\0hiw\0\0\0\0d\x03\0\0\0{");
        assert_eq!(frames.next(), Ok(Some((Kind::Open, &b"hi"[..]))));
        assert_eq!(frames.next(), Ok(Some((Kind::Whole, &b""[..]))));
        assert_eq!(frames.next(), Ok(None));
        assert_eq!(frames.next(), Ok(None));
    }

    #[test]
    fn what_no_reader_would_send_is_nonsense() {
        for bytes in [&b"x\0\0\0\0"[..], b"c\xff\xff\xff\xff", b"d\0\x20\0\0", b"soup and more"] {
            assert_eq!(frames(bytes).next(), Err(Nonsense), "{bytes:?}");
        }
        assert_eq!(frames(b"").next(), Ok(None));
    }
}
