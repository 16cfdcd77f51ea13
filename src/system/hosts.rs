//! The form of `/etc/hosts` (hosts(5)).

use std::str::SplitAsciiWhitespace;

/// The address and the names of each line that has any, without comments.
pub(crate) fn lines(text: &str) -> impl Iterator<Item = (&str, SplitAsciiWhitespace<'_>)> {
    text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        Some((words.next()?, words))
    })
}
