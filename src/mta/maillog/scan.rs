//! Reading from left to right: each step fails where the bytes are others.

/// The bytes that are still to be read.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a>(pub(super) &'a [u8]);

impl<'a> Scan<'a> {
    /// Passes these bytes.
    pub(super) fn word(&mut self, word: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(word)?;
        Some(())
    }

    /// Passes these bytes if they come next.
    pub(super) fn may_have(&mut self, word: &[u8]) -> bool {
        self.word(word).is_some()
    }

    /// Passes all bytes of a kind, none perhaps.
    pub(super) fn all(&mut self, is: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.0.iter().position(|byte| !is(*byte)).unwrap_or(self.0.len());
        let (passed, rest) = self.0.split_at(length);
        self.0 = rest;
        passed
    }

    /// Passes all bytes of a kind, at least one.
    pub(super) fn some(&mut self, is: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
        Some(self.all(is)).filter(|passed| !passed.is_empty())
    }

    /// Passes a field: its name with what stands around it, one or more bytes of its value, and what ends it.
    pub(super) fn field(&mut self, name: &[u8], is: impl Fn(u8) -> bool, end: &[u8]) -> Option<&'a [u8]> {
        self.word(name)?;
        let value = self.some(is)?;
        self.word(end)?;
        Some(value)
    }

    /// Passes a field that may not be there.
    pub(super) fn may_have_field(&mut self, name: &[u8], is: impl Fn(u8) -> bool, end: &[u8]) {
        let mut ahead = *self;
        if ahead.field(name, is, end).is_some() {
            *self = ahead;
        }
    }

    /// Passes a queue id of any mail server.
    pub(super) fn id(&mut self) -> Option<&'a [u8]> {
        self.some(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    }

    /// Passes a status code as RFC 3463 has it, and gives its class: 2, 4 or 5.
    pub(super) fn status(&mut self) -> Option<u8> {
        let class = *self.0.first().filter(|class| matches!(class, b'2' | b'4' | b'5'))?;
        self.0 = self.0.get(1..)?;
        for _ in 0..2 {
            self.word(b".")?;
            self.some(|byte| byte.is_ascii_digit())?;
        }
        Some(class - b'0')
    }

    /// Passes an address: a local part, perhaps quoted (RFC 5321, section 4.1.2), and a domain.
    pub(super) fn address(&mut self) -> Option<&'a [u8]> {
        let start = self.0;
        if self.0.first() == Some(&b'"') {
            self.quoted()?;
        } else {
            self.all(|byte| !matches!(byte, b'"' | b'@') && is_of_address(byte));
        }
        if self.may_have(b"@") {
            self.all(|byte| byte != b'"' && is_of_address(byte));
        }
        start.get(..start.len() - self.0.len())
    }

    /// Passes a quoted string with its quotes. One that does not end, because the line was cut, does not count.
    fn quoted(&mut self) -> Option<()> {
        self.word(b"\"")?;
        loop {
            self.all(|byte| !matches!(byte, b'"' | b'\\'));
            if self.may_have(b"\"") {
                return Some(());
            }
            // A backslash and what it quotes.
            self.0 = self.0.get(2..)?;
        }
    }
}

/// What an address holds outside of quotes.
fn is_of_address(byte: u8) -> bool {
    !matches!(byte, b'<' | b'>' | b',' | b'\x0b' | b'\x0c') && !byte.is_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_ends_where_its_quotes_allow_it() {
        for (line, address) in [
            ("larry@example.com> x", Some("larry@example.com")),
            (r#""a> b"@example.com> x"#, Some(r#""a> b"@example.com"#)),
            (r#""a\"> b\\"@example.com>"#, Some(r#""a\"> b\\"@example.com"#)),
            (r#""never closed> status=sent (250 ok)"#, None),
            (r#""ends in a backslash\"#, None),
            ("root, delay=1", Some("root")),
            ("", Some("")),
        ] {
            let found = Scan(line.as_bytes()).address().map(|address| std::str::from_utf8(address).unwrap());
            assert_eq!(found, address, "{line}");
        }
    }

    #[test]
    fn a_status_has_three_parts() {
        assert_eq!(Scan(b"2.0.0, ").status(), Some(2));
        assert_eq!(Scan(b"5.10.123").status(), Some(5));
        for wrong in ["3.0.0", "2.0", "2..0", "2.0.", "", "2"] {
            assert_eq!(Scan(wrong.as_bytes()).status(), None, "{wrong}");
        }
    }
}
