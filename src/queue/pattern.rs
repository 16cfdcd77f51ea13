//! Reasons that differ only in names, addresses, ids and numbers are one reason to a reader.

/// The character that replaces a part that differs.
const GAP: char = '…';

/// The reason with every part that names something replaced by `…`: addresses, host names, IP addresses, queue ids,
/// long numbers, URLs. Reply codes and enhanced status codes stay, as they are a
/// part of the reason.
pub(crate) fn pattern(reason: &str) -> String {
    // Postfix's own remark that it did not even try, before the reason of the last try.
    let reason = reason.strip_prefix("delivery temporarily suspended: ").unwrap_or(reason);
    let mut shape = String::with_capacity(reason.len());
    for (index, word) in reason.split(' ').enumerate() {
        if index > 0 {
            shape.push(' ');
        }
        let is_edge = |c: char| !c.is_alphanumeric();
        let core = word.trim_matches(is_edge);
        if names_something(word, core) {
            let start = word.len() - word.trim_start_matches(is_edge).len();
            let end = start + core.len();
            let (before, after) = (&word[..start], &word[end..]);
            shape += before.trim_end_matches(['[', '<', '"']);
            shape.push(GAP);
            shape += after.trim_start_matches([']', '>', '"']);
        } else {
            shape += word;
        }
    }
    shape
}

/// The longest part of a pattern that every reason of that pattern contains, to search for.
pub(crate) fn common_part(pattern: &str) -> &str {
    pattern
        .split(GAP)
        .map(|part| part.trim_matches([' ', ':', ',', ';']))
        .max_by_key(|part| part.len())
        .unwrap_or(pattern)
}

fn names_something(word: &str, core: &str) -> bool {
    let bytes = word.as_bytes();
    // A URL is looked for in this way because most words are too short for the usual one to pay.
    let is_address =
        bytes.iter().any(|byte| matches!(byte, b'@' | b'[')) || bytes.windows(3).any(|part| part == b"://");
    if is_address {
        return true;
    }
    let digits = core.bytes().filter(u8::is_ascii_digit).count();
    if core.contains(|c: char| c.is_alphabetic()) {
        let is_host = core.contains('.') && core.split('.').all(|label| !label.is_empty());
        let is_id = digits > 2 && core.len() > 7;
        return is_host || is_id;
    }
    let is_status_code = core.len() <= 9 && core.split(['.', '-']).all(|part| part.len() <= 3);
    let is_number = digits > 3 && !is_status_code;
    let is_ip = core.split('.').count() == 4;
    is_number || is_ip
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_differ_in_names_alone_are_one() {
        for (reason, shape) in [
            ("connect to mx1.example.com[192.0.2.1]:25: Connection timed out", "connect to …: Connection timed out"),
            ("connect to mx2.example.net[2001:db8::7]:25: Connection timed out", "connect to …: Connection timed out"),
            (
                "host 127.0.0.2[127.0.0.2] said: 450 4.2.0 <a@example.com>: Greylisted",
                "host … said: 450 4.2.0 …: Greylisted",
            ),
            ("Deferred: Connection refused by [127.0.0.2]", "Deferred: Connection refused by …"),
            ("451 4.7.1 try again, id 4F1A9C00123", "451 4.7.1 try again, id …"),
            (
                "450 see https://example.com/x?y=1 (in reply to RCPT TO command)",
                "450 see … (in reply to RCPT TO command)",
            ),
            (
                "delivery temporarily suspended: connect to a.example[192.0.2.1]:25: Connection refused",
                "connect to …: Connection refused",
            ),
            ("mail transport unavailable", "mail transport unavailable"),
            ("", ""),
        ] {
            assert_eq!(pattern(reason), shape, "{reason}");
            assert!(reason.contains(common_part(shape)), "{shape}: {}", common_part(shape));
        }
    }
}
