//! Who may see the page, and which requests may run the queue.

use std::fs;

use crate::machine::Machine;
use crate::start::post;

#[test]
fn without_the_web_servers_word_only_listed_addresses_are_served() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let denied: &[(&str, &[u8])] = &[("BARTLEBY_ACCESS", b""), ("HTTP_ACCEPT", b"text/html")];
    for more in [
        &[][..],
        &[("HTTP_X_CGI_REMOTE_ADDR", &b"127.0.0.1"[..])],
        &[("HTTP_X_FORWARDED_FOR", b"127.0.0.1")],
        &[("HTTP_BARTLEBY_ACCESS", b"granted")],
        &[("REMOTE_ADDR", b"")],
        &[("QUERY_STRING", b"flush")],
    ] {
        let answer = machine.ask(&[denied, more].concat());
        assert_eq!(answer.status, 403, "{more:?}");
        assert!(answer.body.contains("Require ip") && answer.body.contains("allow = ["), "{}", answer.body);
        assert!(!answer.body.contains("example.com"), "nothing of the queue is shown");
        answer.assert_safe_headers();
    }
    assert_eq!(machine.flushes(), 0);
    assert_eq!(machine.ask(&[denied, &[("REMOTE_ADDR", b"127.0.0.1")]].concat()).status, 200);
    assert_eq!(machine.ask(&[denied, &[("REMOTE_ADDR", b"::1")]].concat()).status, 200);
    fs::write(
        machine.path("bartleby.toml"),
        "[access]\nallow = [\"192.0.2.0/24\"]\n[mta]\nkind = \"postfix\"\nlist_command = [\"/bin/true\"]\n",
    )
    .unwrap();
    assert_eq!(machine.ask(denied).status, 200);
    assert_eq!(machine.ask(&[denied, &[("REMOTE_ADDR", b"127.0.0.1")]].concat()).status, 403);
}

#[test]
fn the_internet_behind_a_proxy_on_this_machine_is_not_local() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let local =
        [&b"127.0.0.1"[..], b"127.8.8.8", b"::1", b"[::1]", b"::ffff:127.0.0.1", b"[::ffff:127.0.0.1]", b"unix:"];
    let fields: [(&str, &[u8]); 4] = [
        ("HTTP_X_FORWARDED_FOR", b"203.0.113.9"),
        ("HTTP_FORWARDED", b"for=203.0.113.9"),
        ("HTTP_X_REAL_IP", b"127.0.0.1"),
        ("HTTP_VIA", b"1.1 front"),
    ];
    let ask = |address: &[u8], access: &[u8], more: (&str, &[u8]), query: &[u8]| {
        machine.ask(&[("REMOTE_ADDR", address), ("BARTLEBY_ACCESS", access), more, ("QUERY_STRING", query)])
    };
    for (address, field) in local.iter().flat_map(|address| fields.map(|field| (*address, field))) {
        for (access, query) in
            [(&b"granted"[..], &b"format=html"[..]), (b"", b""), (b"granted", b"flush"), (b"granted", b"format=json")]
        {
            let answer = ask(address, access, field, query);
            let shown = String::from_utf8_lossy(address);
            assert_eq!(answer.status, 403, "{shown} {field:?}: {}", answer.body);
            assert!(!answer.body.contains("951BB98C3CD") && !answer.body.contains("example.com"), "{}", answer.body);
            let remedied = answer.body.contains("mod_remoteip") && answer.body.contains("proxy = true");
            assert!(remedied || address == b"unix:" && access.is_empty(), "{shown} {field:?}: {}", answer.body);
        }
        assert_eq!(ask(b"192.0.2.7", b"granted", field, b"").status, 200, "a proxy elsewhere, or mod_remoteip's work");
    }
    assert_eq!(machine.flushes(), 0);
    for address in &local[..6] {
        assert_eq!(ask(address, b"", ("HTTP_VIA", b""), b"").status, 200, "an empty field counts as absent");
    }
    let configuration = fs::read_to_string(machine.path("bartleby.toml")).unwrap() + "[access]\nproxy = true\n";
    fs::write(machine.path("bartleby.toml"), configuration).unwrap();
    assert_eq!(ask(b"127.0.0.1", b"granted", fields[0], b"").status, 200);
}

#[test]
fn over_plain_http_the_referer_gives_away_another_sites_link() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for foreign in [&b"http://evil.example/"[..], b"http://mx2.test.evil.example/", b"http://x@mx2.test/", b"soup"] {
        let answer = machine.ask(&[("QUERY_STRING", b"flush"), ("HTTP_REFERER", foreign)]);
        assert_eq!((answer.status, machine.flushes()), (403, 0));
    }
    // With "no-referrer" that page keeps itself secret. A program is no browser.
    let browser = ("HTTP_USER_AGENT", &b"Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101"[..]);
    let silent = machine.ask(&[("QUERY_STRING", b"flush"), browser]);
    assert_eq!((silent.status, machine.flushes()), (403, 0));
    let own = machine.ask(&[("QUERY_STRING", b"flush"), browser, ("HTTP_REFERER", b"http://MX2.test/?page=2")]);
    assert_eq!((own.status, machine.flushes()), (303, 1));
}

#[test]
fn what_fetches_addresses_by_itself_runs_nothing() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let flush: (&str, &[u8]) = ("QUERY_STRING", b"flush=all");
    // Mail programs, previews of chats, libraries; and whatever asks for more than curl does.
    for (name, accept) in [
        ("MacOutlook/16.89.24090815 (Intelx64 Mac OS X)", "*/*"),
        ("Evolution/3.46.4", "*/*"),
        ("Thunderbird/128.0", "*/*"),
        ("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", "*/*"),
        ("Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)", ""),
        ("WhatsApp/2.23.20.0", "*/*"),
        ("TelegramBot (like TwitterBot)", "*/*"),
        ("facebookexternalhit/1.1", "*/*"),
        ("Mozilla/5.0 (compatible; Discordbot/2.0)", "*/*"),
        ("python-requests/2.31", "*/*"),
        ("libcurl/8.5", "*/*"),
        ("xcurl/8.5", "*/*"),
        ("w3m/0.5.3", "text/html, text/*;q=0.5"),
        ("curl/7.88.1", "text/html"),
        ("", "text/html,*/*"),
        ("Wget/1.21.3", "image/*"),
    ] {
        let answer = machine.ask(&[flush, ("HTTP_USER_AGENT", name.as_bytes()), ("HTTP_ACCEPT", accept.as_bytes())]);
        assert_eq!((answer.status, machine.flushes()), (403, 0), "{name} {accept}: {}", answer.body);
    }
    for (name, accept) in [("curl/7.88.1", "*/*"), ("Wget/1.21.3", "*/*"), ("", ""), ("", " */* "), ("curl/8", "")] {
        let machine = Machine::with_fixture("postfix/mixed-json");
        let answer = machine.ask(&[flush, ("HTTP_USER_AGENT", name.as_bytes()), ("HTTP_ACCEPT", accept.as_bytes())]);
        assert_eq!((answer.status, machine.flushes()), (303, 1), "{name} {accept}: {}", answer.body);
    }
}

#[test]
fn the_pages_own_buttons_run_the_queue_by_a_form() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let page = machine.get("format=html&per_page=5&page=2&state=deferred").body;
    let page = scraper::Html::parse_document(&page);
    let all = scraper::Selector::parse("form[method=post]:not([action]) button[name=flush]").unwrap();
    let values: Vec<_> = page.select(&all).filter_map(|button| button.value().attr("value")).collect();
    assert_eq!(values, ["all"], "a configured command runs the whole");
    let browser: &[(&str, &[u8])] = &[
        ("HTTP_USER_AGENT", b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101"),
        ("HTTP_ACCEPT", b"text/html,*/*;q=0.8"),
    ];
    let silent = post(&machine, "9", b"flush=all", browser);
    assert_eq!((silent.status, machine.flushes()), (403, 0), "every browser says where a POST comes from");
    let foreign = post(&machine, "9", b"flush=all", &[browser, &[("HTTP_ORIGIN", b"http://evil.test")]].concat());
    assert_eq!((foreign.status, machine.flushes()), (403, 0));
    let own = post(&machine, "9", b"flush=all", &[browser, &[("HTTP_ORIGIN", b"http://mx2.test")]].concat());
    assert_eq!((own.status, machine.flushes()), (303, 1));
}

#[test]
fn head_foreign_pages_and_prefetching_run_nothing() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let flush: (&str, &[u8]) = ("QUERY_STRING", b"flush");
    let head = machine.ask(&[flush, ("REQUEST_METHOD", b"HEAD")]);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for guard in [
        ("HTTP_SEC_FETCH_SITE", &b"cross-site"[..]),
        ("HTTP_SEC_FETCH_SITE", b"same-site"),
        ("HTTP_SEC_PURPOSE", b"prefetch"),
        ("HTTP_SEC_PURPOSE", b"prefetch;prerender"),
        ("HTTP_PURPOSE", b"prefetch"),
        ("HTTP_ORIGIN", b"http://evil.example"),
        ("HTTP_ORIGIN", b"null"),
    ] {
        let answer = machine.ask(&[flush, guard]);
        assert_eq!(answer.status, 403, "{guard:?}");
        answer.assert_safe_headers();
    }
    assert_eq!(machine.flushes(), 0);
    assert_eq!(machine.ask(&[flush, ("HTTP_SEC_FETCH_SITE", b"same-origin")]).status, 303);
    assert_eq!(machine.flushes(), 1);
}
