//! How much memory it takes.

use crate::machine::{Answer, Machine};
use crate::start::behind;

/// A long listing takes a program that is not optimised a while, on a busy machine.
const PATIENT: &str = "deadline = \"2m\"\n";

#[test]
fn the_memory_does_not_grow_with_the_page() {
    let line = r#"{"queue_name": "deferred", "queue_id": "%d", "arrival_time": %d, "message_size": 1, "forced_expire": false, "sender": "alice@example.org", "recipients": [{"address": "larry@example.com", "delay_reason": "connect to 192.0.2.1[192.0.2.1]:25: Connection timed out"}]}"#;
    let script = format!(
        "awk 'BEGIN {{ for (n = 0; n < 60000; n++) printf \"{}\\n\", n, 1000000000 + n }}'",
        line.replace('"', "\\\"")
    );
    let machine = Machine::with_lister("postfix", &script);
    machine.configure("postfix", PATIENT);
    // In front of the last page stand some 25 MiB of messages.
    for (query, first) in [
        ("page=600&format=json", "59900"),
        ("page=600&sort=age&format=json", "99"),
        ("page=600&sort=-sender&format=json", "59900"),
    ] {
        let output = behind(&["prlimit", "--data=12582912"], &machine.cgi(&[("QUERY_STRING", query.as_bytes())]))
            .output()
            .unwrap();
        let answer = Answer::of(output);
        let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, &json["selection"]["pages"]), (200, &600.into()), "{}", json["queue"]["error"]);
        assert_eq!((json["messages"].as_array().unwrap().len(), &json["messages"][0]["id"]), (100, &first.into()));
    }
    // Those that wait on disk meanwhile take nothing of what is to stay free for the mail queue.
    machine.configure("postfix", &format!("{PATIENT}[disk]\nwarn = \"100%\"\ncritical = \"100%\""));
    let answer = machine.get("page=600&sort=age&format=text");
    let words = "This page could not be built: no space left but what [disk] critical keeps free.";
    assert!(answer.status == 503 && answer.body.contains(words), "{}", answer.body);
    assert_eq!(machine.get("page=1&sort=age&format=text").status, 200);
}

/// Postfix's table has a reason once; repeated for each of its recipients, as here, it would take 50 MiB.
#[test]
fn one_reason_for_very_many_recipients_takes_no_memory() {
    let script = "echo '-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------'
        echo '95C7C98C654   300356 Mon Nov 23 11:18:08  big@example.org'
        awk 'BEGIN { printf \"(\"; for (n = 0; n < 1000; n++) printf \"full \"; print \")\"
            for (n = 0; n < 10000; n++) printf \"%41s%d@example.com\\n\", \"\", n
            printf \"\\n-- 293 Kbytes in 1 Request.\\n\" }'";
    let machine = Machine::with_lister("postfix", script);
    machine.configure("postfix", PATIENT);
    let answer = |format: &str| {
        let query = format!("format={format}");
        let command = machine.cgi(&[("QUERY_STRING", query.as_bytes())]);
        Answer::of(behind(&["prlimit", "--data=16777216"], &command).output().unwrap())
    };
    for format in ["html", "text", "csv", "openmetrics", "json"] {
        let answer = answer(format);
        assert_eq!(answer.status, 200, "{format}: {}", &answer.body[..answer.body.len().min(500)]);
        if format == "json" {
            let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            assert_eq!(json["messages"][0]["recipients"][9_999]["address"], "9999@example.com");
        }
    }
    let answer = answer("json&page=1");
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains(r#"they take more than 16 MiB.","remedy":"Request fewer rows per page"#),
        "{}",
        answer.body
    );
}
