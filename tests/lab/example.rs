//! The configurations that are shipped, with what is the lab's own put in: its primaries have other
//! addresses and ports, there is one domain more, and the mails of the story are for all kinds of recipients.

use std::fs;
use std::path::Path;

use crate::machine::BROUGHT;

/// Writes a shipped file to `path`, with each first text replaced by the second wherever it stands, and
/// `more` at its end.
pub fn install(name: &str, path: &str, ours: &[(&str, &str)], more: &str) {
    let shipped = fs::read_to_string(Path::new(BROUGHT).join(name)).unwrap();
    let adapted = ours.iter().fold(shipped, |text, (theirs, ours)| {
        assert!(text.contains(theirs), "{name} no longer has {theirs:?}");
        text.replace(theirs, ours)
    });
    fs::write(path, adapted + more).unwrap();
}
