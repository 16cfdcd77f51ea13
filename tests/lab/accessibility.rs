//! The pages as a browser shows them: to axe-core, on narrow and wide screens, light and dark, by keyboard alone,
//! and on paper.

use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;

use crate::browser::Browser;
use crate::client;
use crate::machine::{BROUGHT, Lab};
use crate::mails;
use crate::page;
use crate::story;
use crate::wait;

/// WebDriver's codes for keys.
const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';

const BASE: &str = "http://127.0.0.1/bartleby/";

/// axe-core with its rules for WCAG 2.2 AA. What it finds, one line each.
fn violations(browser: &Browser, axe: &str) -> Vec<String> {
    browser.run(axe);
    let tags = "['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']";
    let found = browser.run_async(&format!(
        "const done = arguments[arguments.length - 1];
         axe.run({{runOnly: {{type: 'tag', values: {tags}}}}}).then(
             found => done(found.violations.map(fault => fault.id + ': ' + fault.nodes.map(node => node.html).join(' | '))),
             error => done(['axe failed: ' + error]));"
    ));
    found.as_array().unwrap().iter().map(|fault| fault.as_str().unwrap().chars().take(400).collect()).collect()
}

/// Every kind of page, each as many people meet it.
pub fn of_every_page(lab: &mut Lab) {
    let axe = fs::read_to_string(Path::new(BROUGHT).join("axe.min.js"));
    if axe.is_err() {
        assert!(env::var("BARTLEBY_LAB").as_deref() != Ok("required"), "axe-core is required, but there is none.");
        let _ = writeln!(
            std::io::stderr(),
            "\n*** What axe-core thinks of the pages is SKIPPED: there is no axe-core ***\n"
        );
    }
    let browser = Browser::start();
    let look = |query: &str| {
        for (width, colours) in [(1200, "light"), (1200, "dark"), (600, "light"), (320, "dark")] {
            browser.play(width, colours, "screen");
            browser.open(&format!("{BASE}{query}"));
            let overflow = browser.run("return document.documentElement.scrollWidth - window.innerWidth");
            assert!(overflow.as_i64().unwrap() <= 0, "{query} is {overflow} pixels too wide at {width}");
            if let Ok(axe) = &axe {
                let faults = violations(&browser, axe);
                assert!(faults.is_empty(), "{query} at {width}, {colours}: {faults:#?}");
            }
        }
        let requests = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)");
        assert_eq!(requests, serde_json::json!([]), "{query} asks for more than itself");
    };
    look("");
    client::send(lab.mta, mails::varied);
    wait::until("all are deferred", 30, || {
        let listing = page::try_json(200)?;
        (listing.queue.states["deferred"] == listing.queue.messages && listing.queue.messages > 5)
            .then_some(())
            .ok_or(format!("{listing:?}"))
    });
    for query in [
        "",
        "?q=example&state=deferred&domain=example.com&sort=-size",
        "?state=soup",
        "?flush=id:none",
        "?page=9&per_page=2",
    ] {
        look(query);
    }

    // By keyboard alone: the link that runs the queue is reached, seen, and followed.
    browser.play(1200, "light", "screen");
    browser.open(BASE);
    let reached = (0..30).any(|_| {
        browser.press(TAB);
        browser.run("return document.activeElement.matches('a.action')") == true
    });
    assert!(reached, "the link can't be reached by keyboard");
    let outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle");
    assert_ne!(outline, "none", "where the focus is can't be seen");
    browser.press(ENTER);
    wait::until("the queue is run", 20, || {
        let address = browser.address();
        if address.contains("?flushed=1") { Ok(()) } else { Err(address) }
    });
    look("?flushed=1");

    // On paper there is nothing to click on.
    story::cooled_down();
    browser.play(800, "light", "print");
    browser.open(BASE);
    assert_eq!(browser.run("return getComputedStyle(document.querySelector('.run')).display"), "none");
}
