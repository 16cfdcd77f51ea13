//! How many processes a view of the page starts, once everything about the mail server is known.

use std::process::Command;

use crate::page;

/// Views that are looked at: something else may start a process during one of them.
const VIEWS: usize = 8;

/// Fails unless a view starts at most so many processes, the web server's and the mail server's own among them, when
/// another one came just before.
pub fn of_a_second_view(most: u32) {
    page::html(200);
    let views: Vec<u32> = (0..VIEWS)
        .map(|_| {
            let before = number();
            page::html(200);
            number() - before - 1
        })
        .collect();
    assert!(views.iter().any(|started| *started <= most), "more than {most} each time: {views:?}");
}

/// The number of a process that is started now: this machine, which is a namespace of its own, counts them one by one.
fn number() -> u32 {
    let mut child = Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}
