//! The page: what it says, what it links to, and that strangers' words do nothing on it.

use std::fs;

use crate::machine::Machine;

#[test]
fn the_page_says_what_goes_on_and_isolates_what_strangers_wrote() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let page = machine.get("format=html").body;
    assert!(
        page.contains("<em>21 messages are waiting here.</em>")
            && page.contains("Most are for <bdi>example.com</bdi>; the oldest has been waiting for "),
        "{page}"
    );
    assert!(page.contains(
        "<bdi>example.com</bdi></a> <span>23 recipients</span></div><p class=\"soft\">at the last attempt, the server there \
         refused the connection"
    ));
    assert!(page.contains("&quot;&lt;img src=x onerror=alert(2)&gt;&quot;@example.com"));
    assert!(
        !page.contains("<script")
            && !page.contains("<img")
            && !page.contains("javascript:")
            && !page.contains(" style=")
    );
    assert!(page.contains("name=\"flush\" value=\"all\""));
    assert!(!page.contains("href=\"?flush"), "a link is followed by whatever looks ahead");
    assert!(page.contains("The listing is complete."));
    let evil = "{\"queue_name\":\"deferred\",\"queue_id\":\"A1\",\"arrival_time\":1795432688,\"message_size\":1,\"sender\":\"a\\u202emoc@x.example\",\"recipients\":[{\"address\":\"b\\u0007\\u001b[31m@x.example\",\"delay_reason\":\"r\\u200b\"}]}";
    let machine = Machine::with_lister("postfix", &format!("cat <<'E'\n{evil}\nE"));
    for format in ["html", "text"] {
        let shown = machine.get(&format!("format={format}")).body;
        let is_isolated =
            shown.contains("<bdi>a⟨U+202E⟩moc@x.example</bdi>") && shown.contains("<bdi>b␇␛[31m@x.example</bdi>");
        assert_eq!(is_isolated, format == "html", "what is not ASCII may turn the direction: {shown}");
        assert!(shown.contains("a⟨U+202E⟩moc@x.example") && shown.contains("b␇␛[31m@x.example"), "{shown}");
        assert!(!shown.contains(['\u{202e}', '\u{7}', '\u{1b}', '\u{200b}']));
    }
    let (_, json) = machine.json();
    assert_eq!(json["messages"][0]["sender"], "a\u{202e}moc@x.example", "machines get the text itself");
}

#[test]
fn the_title_says_in_one_word_how_it_is() {
    for (script, word) in
        [("true", "Empty"), ("cat tests/fixtures/postfix/mixed-json.stdout", "Waiting"), ("echo soup", "Unknown")]
    {
        let script = script.replace("tests", concat!(env!("CARGO_MANIFEST_DIR"), "/tests"));
        let page = Machine::with_lister("postfix", &script).get("format=html").body;
        assert!(page.contains(&format!("<title>{word}")), "{page}");
    }
}

#[test]
fn filters_order_and_search_are_plain_links_and_one_form() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let page = machine.get("format=html&domain=example.com&q=larry&sort=-size&per_page=5").body;
    for part in [
        // Each filter can be taken away alone; the others stay.
        "href=\"?domain=example.com&amp;sort=-size&amp;per_page=5\"",
        "href=\"?q=larry&amp;sort=-size&amp;per_page=5\"",
        "text <bdi>“larry”</bdi> ×",
        "domain <bdi>“example.com”</bdi> ×",
        // The order in force is marked; a second click turns it round.
        "aria-sort=\"descending\"><a href=\"?q=larry&amp;domain=example.com&amp;sort=size&amp;per_page=5#messages\">Size ↓</a>",
        "<input type=\"search\" name=\"q\" value=\"larry\">",
        "<input type=\"hidden\" name=\"domain\" value=\"example.com\">",
        "<option value=\"held\">on hold</option>",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    assert!(machine.get("format=html&state=held").body.contains("<option value=\"held\" selected>"));
    // What a reason has in common leads to all of its kind.
    let page = machine.get("format=html").body;
    assert!(page.contains("connect to …: Connection refused</bdi></a> <span>18 recipients"), "{page}");
    let reason = machine.get("format=html&reason=Connection+refused").body;
    assert!(reason.contains("match: ") && reason.contains("reason <bdi>“Connection refused”</bdi>"), "{reason}");
    // A bar of the age profile leads to just those.
    let bar = page.split("<svg class=\"bar\"").nth(1).unwrap();
    assert!(bar.contains("<title>23 recipients waiting for "), "the age profile has its words: {bar}");
    let link = bar.split("<a href=\"").nth(1).unwrap().split('"').next().unwrap().replace("&amp;", "&");
    assert!(link.starts_with("?domain=example.com&age="), "{link}");
    let behind = machine.get(&format!("format=html&{}", &link[1..])).body;
    assert!(behind.contains("16 messages match: ") && behind.contains("minutes <bdi>“"), "{behind}");
    assert!(machine.get("format=html&age=0-5").body.contains("0 messages match"));
    assert_eq!(machine.get("age=5").status, 400);
}

#[test]
fn the_line_of_the_other_domains_shows_all_of_them_and_links_to_none() {
    let lines: Vec<_> = (0..8)
        .map(|n| {
            format!(
                r#"{{"queue_name":"deferred","queue_id":"A{n}","arrival_time":1795432688,"message_size":1,"sender":"","recipients":[{{"address":"a@d{n}.example","delay_reason":"r"}}]}}"#
            )
        })
        .collect();
    let page = Machine::with_lister("postfix", &format!("cat <<'E'\n{}\nE", lines.join("\n"))).get("format=html").body;
    let others = page.split("<bdi>other domains</bdi>").nth(1).unwrap().split("<li>").next().unwrap();
    assert!(others.contains("<title>3 recipients waiting for ") && !others.contains("href"), "{others}");
}

#[test]
fn mail_on_hold_is_named() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let page = machine.get("format=html");
    assert!(page.body.contains(" 1 is on hold and stays until an administrator releases it."), "{}", page.body);
}

#[test]
fn what_the_mail_server_cut_is_marked_and_counted() {
    let page = Machine::with_fixture("sendmail/mixed-bp-verbose").get("format=html").body;
    assert!(page.contains("The mail server cut 3 addresses or reasons short"), "{page}");
    assert!(page.contains("@example.c…</bdi>"), "{page}");
}

#[test]
fn where_the_mail_server_gives_no_reasons_the_page_says_so() {
    // The configured command may list another machine's queue: nothing else is asked.
    let page = Machine::with_fixture("exim/mixed-bp").get("format=html").body;
    assert!(page.contains("1xVSDK-0002Gk-2p") && page.contains("larry@example.com (done)"), "{page}");
    assert!(
        page.contains("This mail server's listing does not say why messages are waiting.") && !page.contains("-Mvl"),
        "{page}"
    );
    let filtered = Machine::with_fixture("exim/mixed-bp").get("format=html&reason=greylisted").body;
    assert!(filtered.contains("so the filter could not look at them"), "{filtered}");
}

#[test]
fn how_it_went_is_drawn_from_earlier_looks() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert!(!machine.get("format=html").body.contains("History"), "of one look there is no line");
    let file = machine.path("state").join("samples.table");
    let number = |at: usize| u64::from_le_bytes(fs::read(&file).unwrap()[at..at + 8].try_into().unwrap());
    let [taken, recipients, bytes] = [0, 16, 24].map(number);
    let numbers = [taken - 7200, 7, recipients, bytes, 9_000_000_000_000_000];
    let sum = numbers.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, n| (sum ^ n).wrapping_mul(0x0000_0100_0000_01b3));
    let sample: Vec<u8> = numbers.iter().chain([&sum]).flat_map(|number| number.to_le_bytes()).collect();
    fs::write(&file, sample).unwrap();
    let page = machine.get("format=html").body;
    assert!(
        page.contains("Last 24 hours: 7 messages at first, 21 now, never more than 21 (597 KiB) when looked at"),
        "{page}"
    );
    assert!(page.contains("<path class=\"area\" d=\"M"), "{page}");
    // The same figures as a table, and where the mouse rests.
    assert!(page.contains("<td>7, 597 KiB<tr>") && page.contains(": at most 7 messages, 597 KiB</title>"), "{page}");
    assert!(page.contains("<th>Most messages<tbody><tr><th>") && page.contains(" y=\"115\">now</text>"), "{page}");
}

#[test]
fn a_message_with_very_many_recipients_does_not_take_the_page() {
    let recipients: Vec<_> = (0..40_000).map(|n| format!("{{\"address\":\"r{n}@example.com\"}}")).collect();
    let line = format!(
        "{{\"queue_name\":\"active\",\"queue_id\":\"A1\",\"arrival_time\":0,\"message_size\":1,\"sender\":\"\",\"recipients\":[{}]}}\n",
        recipients.join(",")
    );
    let machine = Machine::with_lister("postfix", "");
    fs::write(machine.path("queue"), line).unwrap();
    fs::write(machine.path("list"), format!("#!/bin/sh\ncat {}\n", machine.path("queue").display())).unwrap();
    let page = machine.get("format=html").body;
    assert!(
        page.contains("more recipients; the <a href=\"?format=json\">JSON output</a> lists all")
            && page.contains("40,000"),
        "{}",
        page.len()
    );
    assert!(page.len() < 200_000, "{}", page.len());
    let (_, json) = machine.json();
    assert_eq!(json["messages"][0]["recipients"].as_array().unwrap().len(), 40_000);
}

#[test]
fn only_what_strangers_wrote_can_need_to_be_made_visible() {
    for fixture in ["postfix/mixed-json", "sendmail/mixed-bp-verbose", "exim/mixed-bp", "opensmtpd/mixed-show-queue"] {
        let page = Machine::with_fixture(fixture).get("format=html").body;
        assert!(page.contains("<td>") && !page.contains("⟨U+"), "{fixture}: {page}");
    }
}

#[test]
fn a_live_page_renews_itself_and_stops_where_somebody_decides() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let page = machine.get("format=html&q=example&per_page=5&page=2&live");
    assert_eq!(page.field("refresh"), Some("10; url=?q=example&per_page=5&live=&page=2"));
    for part in [
        "renewed every 10 s",
        // It stays where it is, and so it stops.
        "<a href=\"?q=example&amp;per_page=5&amp;page=2\">stop</a>",
        "href=\"?q=example&amp;per_page=5&amp;live=&amp;page=3#messages\"",
        // Nothing that is being typed is taken away.
        "Stop renewing the page, to search",
    ] {
        assert!(page.body.contains(part), "no {part}: {}", page.body);
    }
    assert!(!page.body.contains("type=\"search\"") && !page.body.contains("http-equiv"));
    // A run comes back to the view that it was asked for in, which is live again when the run is over.
    let run = machine.ask(&[("REQUEST_METHOD", b"POST"), ("QUERY_STRING", b"q=example&live=&flush")]);
    assert_eq!((run.status, run.field("location")), (303, Some("?q=example&live=&flushed=1")));
    machine.kill_all();
    let still = machine.get("format=html&q=example&page=2");
    assert_eq!(still.field("refresh"), None);
    assert!(
        still.body.contains("<a href=\"?q=example&amp;live=&amp;page=2\">keep this page live</a>"),
        "{}",
        still.body
    );
    assert_eq!(machine.get("format=json&live").field("refresh"), None);
    // A page that asks something waits for the answer; so does one that says no.
    let primary = crate::played::Played::new(crate::played::refuses);
    let asks = primary.machine("").get("flush&format=html&live");
    assert_eq!((asks.status, asks.field("refresh")), (409, None));
}

#[test]
fn on_a_live_page_nothing_can_be_opened_that_would_close_by_itself() {
    let recipients: Vec<_> = (0..9)
        .map(|n| format!(r#"{{"address":"r{n}@example.com","delay_reason":"{} end"}}"#, "soon ".repeat(40)))
        .collect();
    let line = |id| {
        format!(
            r#"{{"queue_name":"deferred","queue_id":"{id}","arrival_time":1795432688,"message_size":1,"sender":"","recipients":[{}]}}"#,
            recipients.join(",")
        )
    };
    let machine = Machine::with_lister("postfix", &format!("cat <<'E'\n{}\n{}\nE", line("A1"), line("B2")));
    // The second look has a history.
    let still = ["format=html", "format=html"].map(|query| machine.get(query).body);
    assert!(
        still[1].contains("<details><summary>soon") && still[1].contains("<details><summary>and 4 more recipients")
    );
    let live = machine.get("format=html&live").body;
    assert!(!live.contains("<details") && live.contains("<a href=\"?q=A1&amp;live=\">more</a>"), "{live}");
    let all = machine.get("format=html&live&q=A1").body;
    assert!(all.contains("r8@example.com<p>soon ") && all.contains(" end<td>") && !all.contains("<details"), "{all}");
}
