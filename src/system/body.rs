//! A body under construction: small pieces of text on their way to somewhere, put together.

use std::fmt;
use std::io::{self, Write};
use std::mem;

use crate::text::printable;

/// How much is put together, in bytes: half of it, after which a piece is handed on, fits into a pipe (64 KiB, pipe(7)).
pub(crate) const FULL: usize = 120 * 1024;

/// What a piece of the body ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seam {
    /// Something whole: should nothing follow, the body can still be ended.
    Whole,
    /// Something that is still to be completed.
    Open,
}

/// Where pieces go.
type Sink<'a> = Box<dyn FnMut(&[u8], Seam) -> io::Result<()> + 'a>;

/// Puts pieces together, at most 120 KiB of them (or one that is longer), and hands them on.
pub struct Body<'a> {
    buffer: Vec<u8>,
    /// The line that is being put together; kept, so that its memory is.
    line: String,
    sink: Sink<'a>,
}

impl<'a> Body<'a> {
    /// An empty body.
    pub(crate) fn new(sink: impl FnMut(&[u8], Seam) -> io::Result<()> + 'a) -> Self {
        Body { buffer: Vec::with_capacity(FULL), line: String::new(), sink: Box::new(sink) }
    }

    /// A body that is collected.
    pub fn into(bytes: &'a mut Vec<u8>) -> Self {
        Body::new(|piece, _| {
            bytes.extend_from_slice(piece);
            Ok(())
        })
    }

    /// Adds a line of text, and its end. What strangers wrote of it is made printable here, a line feed too, so that no
    /// form of text has to think of it.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn line(&mut self, line: fmt::Arguments<'_>) -> io::Result<()> {
        let mut text = mem::take(&mut self.line);
        text.clear();
        fmt::write(&mut text, line).map_err(io::Error::other)?;
        self.write_all(printable(&text).as_bytes())?;
        self.line = text;
        self.write_all(b"\n")
    }

    /// What was written so far is whole. It is handed on when there is enough of it.
    ///
    /// # Errors
    /// Those of the sink.
    pub(crate) fn seal(&mut self) -> io::Result<()> {
        if self.buffer.len() >= FULL / 2 { self.hand_on(Seam::Whole) } else { Ok(()) }
    }

    /// Hands on what is left, which is whole.
    ///
    /// # Errors
    /// Those of the sink.
    pub fn finish(&mut self) -> io::Result<()> {
        self.hand_on(Seam::Whole)
    }

    #[cold]
    fn hand_on(&mut self, seam: Seam) -> io::Result<()> {
        let handed = (self.sink)(&self.buffer, seam);
        self.buffer.clear();
        handed
    }
}

impl Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes)?;
        Ok(bytes.len())
    }

    /// What serde_json writes comes in very many very small pieces.
    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.buffer.len() + bytes.len() > FULL {
            self.hand_on(Seam::Open)?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Does nothing: what is written is handed on when there is enough of it.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
