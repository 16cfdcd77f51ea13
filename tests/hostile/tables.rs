//! What reads the tables: a spreadsheet, and Prometheus.

use std::collections::HashSet;

use serde_json::json;

use crate::machine::Machine;
use crate::word;

/// A machine on which a message waits for each of these recipients.
fn with_recipients(recipients: &[&str]) -> Machine {
    let message = |recipient: &&str| {
        json!({
            "queue_name": "deferred", "queue_id": "A1", "arrival_time": 1, "message_size": 1, "sender": recipient,
            "recipients": [{"address": recipient, "delay_reason": recipient}],
        })
    };
    let lines: Vec<_> = recipients.iter().map(|recipient| message(recipient).to_string()).collect();
    Machine::with_lister("postfix", &format!("printf '%s\\n' {}", word(&lines.join("\n"))))
}

#[test]
fn a_field_with_a_semicolon_is_no_formula_where_semicolons_separate_cells() {
    let machine = with_recipients(&["x;=1+1;y", "x\t=1+1", "x; \"=1+1;y@example.com", " =1+1", "x|@SUM(1)"]);
    let csv = machine.get("format=csv").body;
    assert_eq!(csv.matches("A1,deferred").count(), 5, "{csv}");
    for line in csv.lines() {
        for separator in [";", "|", "\t"] {
            for cell in line.split(separator) {
                let begins = cell.trim_start_matches([' ', '"']);
                assert!(!begins.starts_with(['=', '+', '-', '@']), "{cell} in {line}");
            }
        }
    }
}

#[test]
fn no_domain_is_taken_for_all_others_or_for_this_machine() {
    let mut recipients: Vec<String> = (0..120).map(|number| format!("x@d{number:03}.example")).collect();
    let names = ["other", "local", "(other)", "(this machine)", "a\u{202e}b", "a⟨U+202E⟩b", "a\\", "a\nb", "a␊b"];
    // Twice, so that they are among those that are shown.
    recipients.extend(names.iter().flat_map(|name| vec![format!("x@{name}"); 2]));
    recipients.extend(["root".into(), "root".into()]);
    let machine = with_recipients(&recipients.iter().map(String::as_str).collect::<Vec<_>>());
    let text = machine.get("format=openmetrics").body;
    let samples = |name: &str| -> Vec<(&str, u64)> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        lines.map(|(labels, value)| (labels, value.parse().unwrap())).collect()
    };
    for family in ["bartleby_destination_messages", "bartleby_destination_recipients"] {
        let samples = samples(family);
        let labels: HashSet<_> = samples.iter().map(|(labels, _)| labels).collect();
        assert_eq!((labels.len(), samples.len()), (101, 101), "{text}");
        let value = |label: &str| samples.iter().find(|(labels, _)| *labels == format!("{{destination=\"{label}\"}}"));
        assert_eq!(value("(this machine)").unwrap().1, 2, "{text}");
        assert_eq!(value("other").unwrap().1, 2, "{text}");
        assert_eq!(value("(other)").unwrap().1, recipients.len() as u64 - 100 - 10, "{text}");
        assert_eq!(samples.iter().map(|(_, value)| value).sum::<u64>(), recipients.len() as u64);
    }
}
