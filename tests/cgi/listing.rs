//! The listing: its forms, what it selects, and that a failure is never an empty queue.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::machine::Machine;

#[test]
fn the_form_follows_accept_and_format() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    for (accept, query, media_type) in [
        ("text/html,*/*;q=0.8", "", "text/html; charset=utf-8"),
        ("*/*", "", "text/plain; charset=utf-8"),
        ("application/json", "", "application/json"),
        ("text/html", "format=json", "application/json"),
        ("text/html", "format=text", "text/plain; charset=utf-8"),
        ("*/*", "format=html", "text/html; charset=utf-8"),
    ] {
        let answer = machine.ask(&[("HTTP_ACCEPT", accept.as_bytes()), ("QUERY_STRING", query.as_bytes())]);
        assert_eq!(answer.field("content-type"), Some(media_type), "{accept} {query}");
        answer.assert_safe_headers();
        for id in ["951BB98C3CD", "93BAB98C209", "167A598CA53"] {
            assert!(answer.body.contains(id), "{accept} {query}");
        }
    }
}

#[test]
fn json_is_what_the_contract_says() {
    let (status, json) = Machine::with_fixture("postfix/mixed-json").json();
    assert_eq!(status, 200);
    assert_eq!(json["version"], 1);
    assert_eq!(json["program"], concat!("bartleby ", env!("CARGO_PKG_VERSION")));
    assert_eq!(json["mta"]["kind"], "postfix");
    let queue = &json["queue"];
    assert_eq!((&queue["status"], &queue["complete"], &queue["error"]), (&"ok".into(), &true.into(), &Value::Null));
    assert_eq!((&queue["messages"], &queue["recipients"]), (&21.into(), &28.into()));
    assert_eq!(queue["states"], serde_json::json!({"incoming": 0, "active": 0, "deferred": 20, "held": 1}));
    assert_eq!(queue["oldest"], "2026-11-23T11:17:42Z");
    assert_eq!(json["messages"].as_array().unwrap().len(), 21);
    assert_eq!(json["destinations"][0]["domain"], "example.com");
    assert_eq!(json["destinations"][0]["ages"].as_array().unwrap().len(), 10);
    assert_eq!(json["flush"]["allowed"], true);
    assert_eq!(json["flush"]["last"], Value::Null);
    assert_eq!(json["primary"], serde_json::json!([]));
    assert!(json["filesystems"][0]["bytes"].as_u64().unwrap() > 0);
    assert!(json.get("selection").is_none());
}

#[test]
fn filters_sorting_and_pages_select_messages_and_leave_the_totals() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let ask =
        |query: &str| -> Value { serde_json::from_str(&machine.get(&format!("format=json&{query}")).body).unwrap() };
    let ids = |json: &Value| -> Vec<String> {
        json["messages"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap().to_owned()).collect()
    };
    let filtered = ask("domain=other.example");
    assert_eq!(ids(&filtered), ["9875298C673", "C4D6F98C7A2", "1737F98CA54"]);
    assert_eq!(filtered["queue"]["messages"], 21);
    assert_eq!(ids(&ask("state=held")), ["93BAB98C209"]);
    assert_eq!(ids(&ask("sender=%3C%3E")), ["BE12E98C6B3"]);
    assert_eq!(ids(&ask("reason=greylist")), ["167A598CA53"]);
    assert_eq!(ids(&ask("q=D%C3%9CRER")), ["951BB98C3CD", "C1AE098C702"]);
    let page = ask("sort=-size&per_page=2");
    assert_eq!(page["selection"], serde_json::json!({"matched": 21, "page": 1, "pages": 11}));
    assert_eq!(ids(&page), ["95C7C98C654", "C25CC98C760"]);
    let all: Vec<String> = (1..=11).flat_map(|page| ids(&ask(&format!("sort=id&per_page=2&page={page}")))).collect();
    assert_eq!(all.len(), 21);
    assert!(all.is_sorted());
    let html = machine.get("format=html&per_page=2&page=11").body;
    assert!(html.contains("Messages 21-21 of 21") && html.contains("Page 11 of 11"), "{html}");
    assert!(machine.get("format=html&per_page=2&page=12").body.contains("There is no page 12"));
}

#[test]
fn all_four_mail_servers_make_a_page() {
    for (fixture, messages, held) in [
        ("postfix/mixed-json", 21, 1),
        ("sendmail/mixed-bp-verbose", 12, 0),
        ("exim/mixed-bp", 14, 2),
        ("opensmtpd/mixed-show-queue", 11, 1),
    ] {
        let machine = Machine::with_fixture(fixture);
        let (status, json) = machine.json();
        assert_eq!((status, &json["queue"]["messages"]), (200, &messages.into()), "{fixture}");
        assert_eq!(json["queue"]["states"]["held"], held, "{fixture}");
        let page = machine.get("format=html&per_page=5&page=2").body;
        assert!(page.contains(&format!("Messages 6-10 of {messages}")), "{fixture}: {page}");
    }
}

#[test]
fn an_empty_queue_is_called_so_and_offers_no_flush() {
    for case in ["postfix/empty-json", "sendmail/empty-bp", "sendmail/empty-mailq"] {
        let machine = Machine::with_fixture(case);
        let page = machine.get("format=html");
        assert_eq!(page.status, 200);
        assert!(
            page.body.contains("The queue is empty.") && !page.body.contains("name=\"flush\""),
            "{case}: {}",
            page.body
        );
        let (status, json) = machine.json();
        assert_eq!(
            (status, &json["queue"]["status"], &json["queue"]["messages"]),
            (200, &"ok".into(), &0.into()),
            "{case}"
        );
        assert!(machine.get("format=text").body.starts_with("The queue is empty."), "{case}");
    }
}

#[test]
fn a_listing_that_failed_is_never_an_empty_queue() {
    let bodies: Vec<(Machine, &str)> = vec![
        (Machine::with_fixture("postfix/denied-list"), "denied"),
        (Machine::with_fixture("postfix/as-www-data-nnp-json"), "denied"),
        (Machine::with_fixture("postfix/down-list-www-data"), "down"),
        (Machine::with_fixture("sendmail/denied-list"), "denied"),
        (Machine::with_fixture("sendmail/as-www-data-mailq-nnp"), "denied"),
        (Machine::with_lister("postfix", "exit 1"), "failed"),
        (Machine::with_lister("postfix", "kill -9 $$"), "failed"),
        (Machine::with_lister("postfix", "printf '{\"queue_name\"'"), "failed"),
        (Machine::with_lister("postfix", "echo soup"), "failed"),
        (Machine::with_lister("sendmail", ":"), "failed"),
        (Machine::with_lister("postfix", "echo 'postqueue: fatal: software error' >&2; exit 70"), "failed"),
    ];
    for (machine, word) in bodies {
        let (status, json) = machine.json();
        assert_eq!((status, &json["queue"]["status"]), (503, &word.into()));
        assert_eq!(json["queue"]["complete"], false);
        assert!(!json["queue"]["error"]["message"].as_str().unwrap().is_empty());
        assert!(!json["queue"]["error"]["remedy"].as_str().unwrap().is_empty());
        for format in ["html", "text"] {
            let answer = machine.get(&format!("format={format}"));
            assert_eq!(answer.status, if format == "html" { 200 } else { 503 });
            assert!(!answer.body.contains("queue is empty") && !answer.body.contains("Queue empty"), "{}", answer.body);
            assert!(answer.body.contains("is not known"), "{}", answer.body);
            assert!(answer.log.contains("bartleby: "), "the error log has it, too");
        }
        let output = machine.command().arg("list").output().unwrap();
        assert_eq!(output.status.code(), Some(69));
    }
}

#[test]
fn a_lister_that_hangs_is_stopped_and_what_it_printed_is_kept() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/postfix/mixed-json.stdout");
    let machine = Machine::with_lister("postfix", &format!("head -5 {}; sleep 977", fixture.display()));
    machine.configure("postfix", "deadline = \"300ms\"");
    let (status, json) = machine.json();
    assert_eq!((status, &json["queue"]["status"], &json["queue"]["messages"]), (503, &"timeout".into(), &5.into()));
    assert_eq!(json["messages"].as_array().unwrap().len(), 5);
    let page = machine.get("format=html").body;
    assert!(
        page.contains("At least 5 messages are waiting")
            && page.contains("These are the first 5 messages: the listing was cut after 0.3 s"),
        "{page}"
    );
}

#[test]
fn a_mail_server_that_is_configured_but_not_installed_is_missing() {
    let machine = Machine::with_lister("postfix", "");
    fs::write(machine.path("bartleby.toml"), "[mta]\nkind = \"opensmtpd\"\n").unwrap();
    if Path::new("/usr/sbin/smtpctl").exists() {
        return;
    }
    let (status, json) = machine.json();
    assert_eq!((status, &json["queue"]["status"]), (503, &"missing".into()));
    assert!(
        json["queue"]["error"]["message"].as_str().unwrap().starts_with("OpenSMTPD, which the configuration names")
    );
}

#[test]
fn a_rule_is_never_for_what_the_configuration_names() {
    for words in
        [&["/bin/sh", "-c", "echo 'exim: permission denied'; exit 1"][..], &["sudo", "-n", "-u", "nobody", "x"]]
    {
        let machine = Machine::with_fixture("exim/as-www-data-bp");
        let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        let text = format!("[mta]\nkind = \"exim\"\nlist_command = [{}]\n", quoted.join(", "));
        fs::write(machine.path("bartleby.toml"), text).unwrap();
        let answer = machine.get("format=text").body;
        assert!(!answer.contains("NOPASSWD: /bin/sh") && !answer.contains("NOPASSWD: sudo"), "{answer}");
    }
    let answer = Machine::with_fixture("exim/as-www-data-bp").get("format=text").body;
    assert!(answer.contains("NOPASSWD: /usr/sbin/exim4 -bp, /usr/sbin/exim4 -qf"), "{answer}");
    assert!(answer.contains("Then take the command out of [mta] in the configuration"), "{answer}");
}

#[test]
fn addresses_can_be_masked() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "[privacy]\nmask = \"local-part\"");
    for query in ["format=html", "format=json", "format=text", "format=csv"] {
        let body = machine.get(query).body;
        assert!(body.contains("…@example.com") && body.contains("Connection refused"), "{body}");
        for name in ["larry", "carol@", "full@", "slow@"] {
            assert!(!body.contains(name), "{name} in {body}");
        }
    }
    machine.configure("postfix", "[privacy]\nmask = \"everything\"");
    assert!(machine.get("format=text").body.contains("[privacy] mask: `everything` is not possible"));
}

/// Sendmail's times have minutes only, and its own bounces no brackets.
#[test]
fn of_sendmail_nothing_is_said_to_the_second_and_a_bounce_has_the_null_sender() {
    let script = "cat <<E\n\t\t/var/spool/mqueue (1 request)\n\
        -----Q-ID----- --Size-- -Priority- ---Q-Time--- --------Sender/Recipient--------\n\
        6AO6oQ8o011612     1668      30000 $(date '+%b %d %H:%M') MAILER-DAEMON\n\
        \t\t\t\t\t\t<alice@example.org>\n\t\tTotal requests: 1\nE";
    let machine = Machine::with_lister("sendmail", script);
    let text = machine.get("format=text").body;
    assert!(
        text.contains("it has been waiting for under a minute") || text.contains("it has been waiting for 1 minute"),
        "{text}"
    );
    assert!(text.contains("< 1 min ") || text.contains(" 1 min "), "{text}");
    assert_eq!(machine.json().1["messages"][0]["sender"], "");
}

/// Exim's listing holds no reasons, and its `D` before a recipient does not say whether that was delivered or refused.
#[test]
fn of_exim_missing_reasons_are_said_in_every_form_and_a_recipient_is_done() {
    let machine = Machine::with_fixture("exim/mixed-bp");
    let note = "This mail server's listing does not say why messages are waiting.";
    for form in ["text", "html"] {
        let shown = machine.get(&format!("format={form}")).body;
        assert!(shown.contains(" (done)") && !shown.contains("(delivered)"), "{shown}");
        assert!(shown.contains(note), "{shown}");
    }
    assert_eq!(machine.json().1["note"], note);
    let csv = machine.get("format=csv").body;
    assert!(csv.ends_with(&format!(",NOTE,,,,,,,{note},,,,\r\n")), "{csv}");
    let nobody = " 0m   506 1xVkfZ-0000000045I-3dMa <alice@example.org>\n        D larry@example.com\n\n";
    let machine = Machine::with_lister("exim", &format!("cat <<'E'\n{nobody}E"));
    let text = machine.get("format=text").body;
    assert!(text.contains("1 message remains, but the mail server has no more to do for any recipient."), "{text}");
}

#[test]
fn a_strangers_sender_does_not_make_opensmtpd_look_stopped() {
    let machine = Machine::with_fixture("opensmtpd/forged-offline-show-queue");
    let (status, json) = machine.json();
    assert_eq!(
        (status, json["queue"]["status"].as_str(), json["queue"]["messages"].as_u64()),
        (200, Some("ok"), Some(2))
    );
    assert_eq!(json["messages"][1]["sender"], "x|1|1|0|0|offline||y@example.org");
    assert!(machine.get("format=openmetrics").body.contains("bartleby_up 1\n"));
}
