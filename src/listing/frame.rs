//! What a reader answers, on its standard output: frames of a kind (one byte), a length (four bytes, little-endian),
//! and so many bytes. The parent takes nothing in them for true but what it can check: lengths are bounded, and of
//! the body it knows no more than where it may end.

use std::fs::File;
use std::io::{self, IoSlice, Read};

use nix::errno::Errno;
use nix::sys::uio::writev;
use serde::Serialize;

use crate::system::Seam;

/// How much a frame may hold, in bytes: of the body, of counts, of the verdict.
const LIMITS: [(Kind, usize); 4] =
    [(Kind::Open, 8 << 20), (Kind::Whole, 8 << 20), (Kind::Counted, 8 << 20), (Kind::Done, 4 << 10)];

/// How much of the body a frame holds at the most, in bytes.
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

/// A frame as it comes.
#[derive(Default)]
pub(crate) struct Frames {
    header: [u8; HEADER],
    /// What the frame holds, as long as the header says.
    bytes: Vec<u8>,
    /// How much of the header, and of that, has come.
    come: usize,
}

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Come<'a> {
    /// A whole frame.
    Frame(Kind, &'a [u8]),
    /// A part of one.
    Part,
    /// Nothing: the reader has closed its output.
    End,
}

impl Frames {
    /// Reads what there is, of one frame at the most. To be called when there is something to read, which may be the end.
    ///
    /// # Errors
    /// [`Nonsense`].
    pub(crate) fn read(&mut self, mut from: &File) -> Result<Come<'_>, Nonsense> {
        let read = match self.come.checked_sub(HEADER) {
            None => from.read(&mut self.header[self.come..]),
            Some(come) => from.read(&mut self.bytes[come..]),
        };
        match read {
            Ok(0) => return Ok(Come::End),
            Ok(length) => self.come += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(Come::End),
        }
        if self.come < HEADER {
            return Ok(Come::Part);
        }
        let [kind, length @ ..] = self.header;
        let (kind, limit) = LIMITS.into_iter().find(|(known, _)| known.byte() == kind).ok_or(Nonsense)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > limit {
            return Err(Nonsense);
        }
        if self.come == HEADER {
            self.bytes.resize(length, 0);
        }
        if self.come < HEADER + length {
            return Ok(Come::Part);
        }
        self.come = 0;
        Ok(Come::Frame(kind, &self.bytes))
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
    // Past the buffer of standard output, which breaks at lines.
    let (mut sent, all) = (0, HEADER + bytes.len());
    while sent < all {
        let parts =
            [IoSlice::new(header.get(sent..).unwrap_or_default()), IoSlice::new(&bytes[sent.saturating_sub(HEADER)..])];
        match writev(io::stdout(), &parts) {
            Ok(length) => sent += length,
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

    /// What comes of these bytes, frame by frame, as text.
    fn frames(bytes: &[u8]) -> Result<Vec<(Kind, String)>, Nonsense> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        loop {
            match frames.read(&file)? {
                Come::Frame(kind, bytes) => found.push((kind, String::from_utf8(bytes.to_vec()).unwrap())),
                Come::Part => {}
                Come::End => return Ok(found),
            }
        }
    }

    #[test]
    fn frames_come_one_by_one_and_only_whole() {
        let found = frames(b"o\x02\0\0\0hiw\0\0\0\0c\x01\0\0\0{d\x03\0\0\0{").unwrap();
        let found: Vec<_> = found.iter().map(|(kind, text)| (*kind, text.as_str())).collect();
        assert_eq!(found, [(Kind::Open, "hi"), (Kind::Whole, ""), (Kind::Counted, "{")]);
        assert_eq!(frames(b""), Ok(vec![]));
        assert_eq!(frames(b"w\x02\0"), Ok(vec![]));
    }

    #[test]
    fn what_no_reader_would_send_is_nonsense() {
        for bytes in [&b"x\0\0\0\0"[..], b"c\xff\xff\xff\xff", b"d\0\x20\0\0", b"soup and more"] {
            assert_eq!(frames(bytes), Err(Nonsense), "{bytes:?}");
        }
    }
}
