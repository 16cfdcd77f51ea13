//! Recorded listings of the mail servers, as the library reads them.

use std::path::Path;
use std::time::Duration;

use bartleby::mta::trouble::Trouble;
use bartleby::mta::{self, Clock, Kind, Search};
use bartleby::queue::Message;
use bartleby::system::Account;
use bartleby::system::process::{Ending, Exit};
use jiff::tz::TimeZone;

/// Has a mail server's parser read a listing whose lister ended well, at this time, and `found` look at each message. Why they
/// are not all; a last line without its end is none.
pub fn read(kind: Kind, listing: &[u8], now: i64, found: &mut dyn FnMut(&Message<'_>)) -> Option<Trouble> {
    let mta = mta::find(Some(kind), &Search::below(Path::new("/nonexistent"))).ok().unwrap();
    let mut parser = mta.parser(&Clock { now, zone: TimeZone::UTC });
    let mut lines: Vec<&[u8]> = listing.split(|byte| *byte == b'\n').collect();
    let rest = lines.pop().unwrap_or_default();
    lines.into_iter().for_each(|line| parser.line(line, found));
    let exit = Exit {
        ending: Ending::Exited,
        code: Some(0),
        signal: None,
        said: String::new(),
        allowed: Duration::from_secs(20),
        unfinished: !rest.is_empty(),
    };
    let account = Account { uid: 33, name: "www-data".into(), bound: false };
    parser.end(&mta.list_commands()[0], &exit, &account, found).err()
}

/// The messages of a whole listing.
#[allow(dead_code, reason = "not every test lists what is whole")]
pub fn list(kind: Kind, listing: &[u8]) -> Vec<Message<'static>> {
    let mut messages = Vec::new();
    let trouble = read(kind, listing, 1_795_512_000, &mut |message| messages.push(message.clone().into_owned()));
    assert_eq!(trouble, None);
    messages
}
