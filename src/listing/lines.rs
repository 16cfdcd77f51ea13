//! Lines out of bytes that come in chunks.

/// The longest line that is read whole, in bytes: a message with some 50,000 recipients.
pub(crate) const LINE_LIMIT: usize = 8 * 1024 * 1024;

/// The beginning of a line of which the end is still to come.
#[derive(Default)]
pub(crate) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Passes each line on that is complete, without its line feed, and of one longer than [`LINE_LIMIT`] its
    /// beginning.
    pub(crate) fn feed(&mut self, mut chunk: &[u8], line: &mut dyn FnMut(&[u8])) {
        while let Some(end) = memchr::memchr(b'\n', chunk) {
            if self.rest.is_empty() {
                line(&chunk[..end]);
            } else {
                self.append(&chunk[..end]);
                line(&self.rest);
                self.rest.clear();
            }
            chunk = &chunk[end + 1..];
        }
        self.append(chunk);
    }

    /// Whether the last line lacks its line feed: it was cut off, and was not passed on.
    pub(crate) fn is_unfinished(&self) -> bool {
        !self.rest.is_empty()
    }

    fn append(&mut self, more: &[u8]) {
        let room = LINE_LIMIT.saturating_sub(self.rest.len());
        self.rest.extend_from_slice(&more[..more.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, bool) {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        chunks.iter().for_each(|chunk| lines.feed(chunk, &mut |line| found.push(line.to_vec())));
        (found, lines.is_unfinished())
    }

    #[test]
    fn lines_come_without_their_line_feeds_and_an_unfinished_one_is_not_passed_on() {
        assert_eq!(lines(&[b"one\n\ntw", b"o\nthree"]), (vec![b"one".into(), vec![], b"two".into()], true));
        assert_eq!(lines(&[b"one\n"]), (vec![b"one".into()], false));
        assert_eq!(lines(&[]), (vec![], false));
    }

    #[test]
    fn of_a_line_without_end_the_beginning_is_kept() {
        let long = vec![b'x'; LINE_LIMIT + 9];
        let (found, unfinished) = lines(&[&long, b"\nnext\n"]);
        assert_eq!((found[0].len(), &found[1][..], unfinished), (LINE_LIMIT, &b"next"[..], false));
    }
}
