//! The pages as a browser shows them: to axe-core, on narrow and wide screens, light and dark, by keyboard alone,
//! and on paper.

use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;

use crate::apache;
use crate::browser::Browser;
use crate::client;
use crate::machine::{BROUGHT, Lab};
use crate::mails;
use crate::mta::run;
use crate::page;
use crate::primary::{Mode, TUCCSTER};
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

/// The colours that tell how it is, as they are seen: of the bar beside the headline, in light and dark.
fn tone(browser: &Browser, colours: &str) -> [u8; 3] {
    browser.play(1200, colours, "screen");
    browser.open(BASE);
    let place = browser.run(
        "const box = document.querySelector('.status').getBoundingClientRect(); return [box.left + 2, box.top + 20]",
    );
    let place = |index: usize| place[index].as_f64().unwrap() as usize;
    browser.colour_at(place(0), place(1))
}

/// What w3m and lynx show: everything, in order, and the link to follow.
fn text_browsers() {
    let html = page::html(200);
    fs::write("/tmp/page.html", html).unwrap();
    for (program, arguments) in [
        ("w3m", &["-dump", "-cols", "80", "/tmp/page.html"][..]),
        ("lynx", &["-dump", "-nolist", "-width=80", "/tmp/page.html"]),
    ] {
        let told =
            String::from_utf8_lossy(&run(program, arguments).stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        let places: Vec<_> = [
            "messages are waiting",
            "Deliver waiting mail now",
            "Main mail server",
            "Disk for mail",
            "Waiting for",
            "Reasons",
            "alice@example.org",
            "Disks",
            "The listing is complete",
        ]
        .iter()
        .map(|part| told.find(part).unwrap_or_else(|| panic!("{program} shows no {part:?}: {told}")))
        .collect();
        assert!(places.is_sorted(), "{program}: {places:?} {told}");
    }
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
    assert_eq!(
        [tone(&browser, "light"), tone(&browser, "dark")],
        [[0x1f, 0x6f, 0x3d], [0x6c, 0xc5, 0x8b]],
        "empty: green"
    );
    assert_eq!(browser.colour_at(1, 1), [0x16, 0x15, 0x13], "dark");
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

    // A run that the main mail server would refuse.
    fs::write("/etc/bartleby.toml", format!("[primary]\nhosts = [\"{TUCCSTER}\"]\ndomains = [\"example.com\"]\n"))
        .unwrap();
    lab.primary.up(Mode::Refuses);
    look("?flush");
    lab.primary.down();
    // The receipt of an outage, which fits on one sheet: A4 is 794 by 1123 pixels of CSS.
    apache::command_line(&["doctor"]);
    look("?outage=1");
    browser.play(794, "light", "print");
    browser.open(&format!("{BASE}?outage=1"));
    assert_eq!(browser.run("return getComputedStyle(document.querySelector('nav')).display"), "none");
    let height = browser.run("return document.body.getBoundingClientRect().height").as_f64().unwrap();
    assert!(height < 1123.0, "the receipt takes {height} pixels");
    fs::remove_file("/etc/bartleby.toml").unwrap();

    assert_eq!(
        [tone(&browser, "light"), tone(&browser, "dark")],
        [[0x8f, 0x47, 0x00], [0xf0, 0xa6, 0x4b]],
        "waiting: amber"
    );
    run("postconf", &["-e", "authorized_mailq_users=root"]);
    assert_eq!(
        [tone(&browser, "light"), tone(&browser, "dark")],
        [[0xa8, 0x20, 0x1a], [0xff, 0x8a, 0x80]],
        "unknown: red"
    );
    run("postconf", &["-X", "authorized_mailq_users"]);
    text_browsers();

    // By keyboard alone: the button that runs the queue is reached, seen, and pressed.
    browser.play(1200, "light", "screen");
    browser.open(BASE);
    let reached = (0..30).any(|_| {
        browser.press(TAB);
        browser.run("return document.activeElement.matches('button.action')") == true
    });
    assert!(reached, "the button can't be reached by keyboard");
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
