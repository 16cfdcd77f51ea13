//! The story that this program is for, in its chapters: an outage, what strangers get, recovery. Every
//! mail server's test plays it, each with its own incidents in between.

use crate::client::{self, Queued};
use crate::http::{self, ALLOWED, FORBIDDEN};
use crate::machine::Lab;
use crate::page::{self, Listing, target};
use crate::primary::{self, Mode};
use crate::{apache, mails, wait};

/// While the primary is down mails come in, and the page shows each of them and why it waits.
pub fn outage(lab: &mut Lab) -> Vec<Queued> {
    lab.primary.down();
    let empty = page::json(200);
    assert_eq!((empty.queue.status.as_str(), empty.queue.messages), ("ok", 0), "{empty:?}");
    assert!(page::html(200).contains("The queue is empty"));

    let queued = client::send(lab.mta, mails::varied);
    let listing = wait::until("every mail is deferred", 30, || {
        let listing = page::try_json(200)?;
        let refused = listing.waiting().filter(|(_, reason)| lab.mta.is_refusal(reason)).count();
        let settled =
            refused == recipients(&queued) && listing.messages.iter().all(|message| message.state == "deferred");
        settled.then_some(()).ok_or(format!("{listing:?}"))?;
        Ok(listing)
    });
    every_mail_is_listed(lab, &queued, &listing);
    every_mail_is_shown(lab, &queued, &page::html(200));
    queued
}

fn recipients(queued: &[Queued]) -> usize {
    queued.iter().map(|queued| queued.mail.recipients.len()).sum()
}

fn every_mail_is_listed(lab: &Lab, queued: &[Queued], listing: &Listing) {
    let queue = &listing.queue;
    assert_eq!((queue.status.as_str(), queue.complete), ("ok", true), "{listing:?}");
    assert!(queue.error.is_none(), "{listing:?}");
    assert_eq!(queue.messages, queued.len() as u64, "{listing:?}");
    assert_eq!(queue.recipients, recipients(queued) as u64, "{listing:?}");
    assert_eq!(listing.messages.len(), queued.len(), "{listing:?}");
    assert_eq!(queue.states["deferred"], queue.messages, "{listing:?}");
    assert_eq!(listing.mta.kind.as_deref(), Some(lab.mta.kind()));
    assert!(
        listing.mta.version.as_deref().is_some_and(|version| version.starts_with(char::is_numeric)),
        "{:?}",
        listing.mta
    );
    assert!(
        listing.filesystems.iter().any(|filesystem| filesystem.queue && filesystem.bytes_available > 0),
        "{listing:?}"
    );
    let domains = listing.dns.domains.as_deref().unwrap_or_default();
    let relayed = ["example.com", "sub.example.com"].iter().all(|domain| domains.iter().any(|told| told == domain));
    assert_eq!(relayed, lab.mta.tells_domains(), "{:?}", listing.dns);
    for Queued { mail, id } in queued {
        let message = listing.message(id).unwrap_or_else(|| panic!("{id} is not listed: {listing:?}"));
        assert!(lab.mta.shows(&message.sender, &mail.sender), "{mail:?} is listed as {message:?}");
        assert_eq!(message.recipients.len(), mail.recipients.len(), "{mail:?} is listed as {message:?}");
        for address in &mail.recipients {
            let listed = message.recipients.iter().any(|recipient| lab.mta.shows(&recipient.address, address));
            assert!(listed, "{address} is not listed: {message:?}");
        }
    }
}

fn every_mail_is_shown(lab: &Lab, queued: &[Queued], page: &str) {
    for Queued { mail, id } in queued {
        assert!(page.contains(id.as_str()), "no {id} in {page}");
        for address in &mail.recipients {
            let (_, domain) = address.rsplit_once('@').unwrap();
            assert!(page.contains(domain), "no {domain} in {page}");
        }
    }
    assert!(lab.mta.is_refusal(page), "no reason in {page}");
    if queued.iter().any(|queued| queued.mail.subject == "markup") {
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"), "no sender with markup in {page}");
    }
    for markup in ["<script>alert", "<img src=x"] {
        assert!(!page.contains(markup), "{markup} in {page}");
    }
}

/// Strangers and other sites see nothing and set nothing off, while the primary would take mail.
pub fn strangers(lab: &mut Lab, queued: &[Queued]) {
    lab.primary.up(Mode::Accepts);
    for query in ["", "index.cgi", "?format=json", "?format=csv", "?flush"] {
        let refused = http::get(FORBIDDEN, &target(query)).unwrap().expect(403);
        let told =
            queued.iter().find(|queued| refused.body.contains(&queued.id) || refused.body.contains("example.com"));
        assert!(told.is_none(), "a stranger sees {told:?} in {}", refused.body);
    }
    http::post(FORBIDDEN, page::BASE, "flush=").unwrap().expect(403);
    http::get(ALLOWED, page::BASE.trim_end_matches('/')).unwrap().expect(301);

    for file in ["secret.txt", "index.cgi~", ".htaccess", "below/secret.txt"] {
        let path = std::path::Path::new(apache::FOLDER).join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "the secret of the folder").unwrap();
        let answer = http::get(ALLOWED, &target(file)).unwrap();
        assert!([403, 404].contains(&answer.status), "{file}: {answer:?}");
        assert!(!answer.body.contains("the secret"), "{file}: {answer:?}");
    }

    let head = http::request(ALLOWED, "HEAD", &target("?flush"), &[]).unwrap();
    assert!(head.status < 500 && head.body.is_empty(), "{head:?}");
    for header in [
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Sec-Purpose", "prefetch"),
        ("Purpose", "prefetch"),
        ("Origin", "http://elsewhere.example"),
        ("Origin", "null"),
    ] {
        let refused = http::request(ALLOWED, "GET", &target("?flush"), &[header]).unwrap();
        assert_eq!(refused.status, 403, "{header:?}: {}", refused.body);
    }
    let listing = page::json(200);
    assert!(listing.flush.last.is_none() && listing.flush.wait_seconds == 0, "{:?}", listing.flush);
    assert_eq!(listing.queue.messages, queued.len() as u64, "{listing:?}");
    assert_eq!(lab.primary.deliveries(), []);
    lab.primary.down();
}

/// The primary is back but defers two recipients: only they are left, each with the primary's reason.
pub fn partial_recovery(lab: &mut Lab, queued: &[Queued], slow: &str, full: &str) {
    lab.primary.up(Mode::Mixed);
    cooled_down();
    page::flush("?flush");
    waits_only(lab, &[("full@example.com", full), ("slow@example.com", slow)]);
    let listing = page::json(200);
    let mixed = queued.iter().find(|queued| queued.mail.recipients[0] == "slow@example.com").unwrap();
    assert!(listing.message(&mixed.id).is_some(), "{listing:?}");
}

/// Waits until exactly these recipients wait for exactly these reasons.
pub fn waits_only(lab: &Lab, expected: &[(&str, &str)]) {
    wait::until("the rest is delivered", 30, || {
        let listing = page::try_json(200)?;
        let mut waiting: Vec<_> = listing.waiting().collect();
        waiting.sort_unstable();
        let same = waiting.len() == expected.len()
            && waiting.iter().zip(expected).all(|((address, reason), (other_address, other_reason))| {
                address == other_address && lab.mta.shows(reason, other_reason)
            });
        same.then_some(()).ok_or(format!("{listing:?}"))
    });
}

/// The primary is back; one link delivers all that waits, and a second one has to wait.
pub fn recovery(lab: &mut Lab, queued: &[Queued]) {
    lab.primary.up(Mode::Accepts);
    cooled_down();
    let offer = page::html(200);
    assert!(offer.contains("name=\"flush\" value=\"all\""), "no button in {offer}");
    page::flush("?flush");

    for early in [page::get("?flush"), http::post(ALLOWED, page::BASE, "flush=").unwrap()] {
        let early = early.expect(429);
        let seconds: u64 = early.header("Retry-After").unwrap_or_default().parse().unwrap();
        assert!((1..=30).contains(&seconds), "{early:?}");
    }

    let empty = wait::until("the queue is empty", 60, || {
        let listing = page::try_json(200)?;
        (listing.queue.messages == 0).then_some(()).ok_or(format!("{listing:?}"))?;
        Ok(listing)
    });
    assert_eq!((empty.queue.status.as_str(), empty.queue.complete), ("ok", true), "{empty:?}");
    assert!(empty.flush.last.is_some(), "{:?}", empty.flush);
    // All of them, none twice, each with its own envelope and whole.
    assert_eq!(lab.primary.deliveries(), primary::due(queued.iter().map(|queued| &queued.mail)));
    let page = page::html(200);
    assert!(page.contains("The queue is empty"), "{page}");
    assert!(!apache::error_log().contains("panicked"), "{}", apache::error_log());
}

/// Waits until a flush may be asked for again.
pub fn cooled_down() {
    wait::until("the cool-down is over", 40, || match page::try_json(200)?.flush {
        flush if flush.wait_seconds == 0 => Ok(()),
        flush => Err(format!("{flush:?}")),
    });
}

/// The listing fails with this status; JSON and page say so, and how to mend it.
pub fn not_listed(status: &str, remedy: &str) {
    let listing = page::json(503);
    assert_eq!((listing.queue.status.as_str(), listing.queue.complete), (status, false), "{listing:?}");
    let error = listing.queue.error.as_ref().unwrap_or_else(|| panic!("no error in {listing:?}"));
    assert!(!error.message.is_empty() && error.remedy.contains(remedy), "{error:?}");
    let page = page::get("");
    assert!([200, 503].contains(&page.status), "{page:?}");
    assert!(page.body.contains("</html>") && page.body.contains(remedy), "{}", page.body);
    assert!(!page.body.contains("is empty"), "a failure is shown as an empty queue: {}", page.body);
}
