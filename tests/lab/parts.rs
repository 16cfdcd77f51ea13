//! Running a part of the queue: one message, then one domain.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::client::{self, Queued};
use crate::machine::Lab;
use crate::mails::Mail;
use crate::page;
use crate::primary::{self, Mode};
use crate::{story, wait};

/// That part is delivered, and nothing else. What is not in the queue is not run.
pub fn of_the_queue(lab: &mut Lab) {
    fs::write("/etc/bartleby.toml", "[flush]\ncooldown = \"1s\"\n").unwrap();
    let queued = client::send(lab.mta, |_| {
        vec![
            Mail::new("one", "alice@example.org", &["larry@example.com"]),
            Mail::new("two", "bob@example.net", &["curly@example.com"]),
            Mail::new("three", "dave@example.org", &["user@other.example"]),
        ]
    });
    wait::until("all are deferred", 20, || {
        let listing = page::try_json(200)?;
        (listing.queue.states["deferred"] == 3).then_some(()).ok_or(format!("{listing:?}"))
    });
    lab.primary.up(Mode::Accepts);
    for unknown in ["id:0", "id:-f", "id:ALL", "domain:elsewhere.example", "domain:com", "domain:-f", "everything"] {
        // One who asked in vain waits for a moment.
        let refused = wait::until("it is looked for", 10, || {
            let answer = page::get(&format!("?flush={unknown}"));
            if answer.status == 429 { Err(answer.body) } else { Ok(answer) }
        });
        assert!([400, 404].contains(&refused.status), "{unknown}: {refused:?}");
    }
    thread::sleep(Duration::from_secs(2));
    assert!(page::json(200).flush.last.is_none());

    let [one, two, three] = queued.as_slice() else { panic!("{queued:?}") };
    page::flush(&format!("?flush=id:{}", two.id));
    delivered(lab, &[two]);
    story::cooled_down();
    page::flush("?flush=domain:other.example");
    delivered(lab, &[two, three]);
    assert!(page::json(200).message(&one.id).is_some());
}

/// Waits until exactly these have left the queue, and have arrived.
fn delivered(lab: &Lab, gone: &[&Queued]) {
    wait::until("the part is delivered", 20, || {
        let listing = page::try_json(200)?;
        let left = listing.queue.messages as usize == 3 - gone.len();
        (left && gone.iter().all(|queued| listing.message(&queued.id).is_none()))
            .then_some(())
            .ok_or(format!("{listing:?}"))
    });
    assert_eq!(lab.primary.deliveries(), primary::due(gone.iter().map(|queued| &queued.mail)));
}
