//! Recorded listings of the mail servers, as the library reads them.

use std::path::Path;
use std::time::Duration;

use bartleby::mta::{self, Clock, Kind, Search};
use bartleby::queue::Message;
use bartleby::system::Account;
use bartleby::system::process::{Ending, Exit};
use jiff::tz::TimeZone;

/// The messages of a listing.
pub fn list(kind: Kind, listing: &[u8]) -> Vec<Message<'static>> {
    let mta = mta::find(Some(kind), &Search::below(Path::new("/nonexistent"))).ok().unwrap();
    let clock = Clock { now: 1_795_512_000, zone: TimeZone::UTC };
    let account = Account { uid: 0, name: "root".into(), bound: false };
    let exit = Exit {
        ending: Ending::Exited,
        code: Some(0),
        signal: None,
        said: String::new(),
        allowed: Duration::from_secs(20),
        unfinished: false,
    };
    let mut messages = Vec::new();
    let mut keep = |message: &Message<'_>| messages.push(message.clone().into_owned());
    let mut parser = mta.parser(&clock);
    listing.split_inclusive(|byte| *byte == b'\n').for_each(|line| {
        parser.line(line.strip_suffix(b"\n").unwrap_or(line), &mut keep);
    });
    parser.end(&mta.list_commands()[0], &exit, &account, &mut keep).unwrap();
    messages
}
