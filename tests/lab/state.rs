//! Where what is remembered can't be kept: the page lists and runs the queue all the same, and says so.

use std::fs;
use std::path::Path;

use crate::client;
use crate::machine::Lab;
use crate::mails::Mail;
use crate::mta::run;
use crate::page;
use crate::primary::{self, Mode};
use crate::wait;

const FOLDER: &str = "/var/lib/bartleby";

/// A full disk, a read-only one, and a folder that is another user's.
pub fn can_not_be_kept(lab: &mut Lab) {
    fs::write("/etc/bartleby.toml", format!("[state]\ndirectory = \"{FOLDER}\"\n")).unwrap();
    fs::create_dir_all(FOLDER).unwrap();
    run("mount", &["-t", "tmpfs", "-o", "size=2m,uid=33,gid=33,mode=700", "state", FOLDER]);
    assert!(!page::html(200).contains("are off"), "with room there is a cool-down");

    let fill = Path::new(FOLDER).join("filler");
    // As much as fits.
    let _ = fs::write(&fill, vec![0; 4 << 20]);
    let mut sent = Vec::new();
    for (spoil, reason, subject) in [
        (&["true"][..], "no space left", "full"),
        (&["mount", "-o", "remount,ro", FOLDER], "Read-only file system", "readonly"),
        (&["umount", FOLDER], "belongs to user 0, not to www-data", "foreign"),
    ] {
        run(spoil[0], &spoil[1..]);
        lab.primary.down();
        sent.extend(client::send(lab.mta, |_| vec![Mail::new(subject, "alice@example.org", &["larry@example.com"])]));
        wait::until("the mail is deferred", 20, || {
            let listing = page::try_json(200)?;
            (listing.queue.states["deferred"] == 1).then_some(()).ok_or(format!("{listing:?}"))
        });
        let page = page::html(200);
        assert!(page.contains("The cool-down between queue runs and their log are off"), "{subject}: {page}");
        assert!(page.contains(reason) && page.contains("Deliver waiting mail now"), "{subject}: {page}");
        lab.primary.up(Mode::Accepts);
        let outcome = page::flush("?flush").body;
        assert!(outcome.contains("There is no record of it"), "{subject}: {outcome}");
        wait::until("the queue is empty", 20, || {
            let listing = page::try_json(200)?;
            (listing.queue.messages == 0).then_some(()).ok_or(format!("{listing:?}"))
        });
    }
    assert_eq!(lab.primary.deliveries(), primary::due(sent.iter().map(|queued| &queued.mail)));
}
