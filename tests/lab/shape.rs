//! Whether this version of a mail server still prints what its recorded output, under `tests/fixtures`,
//! says: what the parsers are made for.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::machine::BROUGHT;
use crate::rule;

/// Fails unless every line that the command prints to root has a shape that the recorded listing has.
pub fn is_as_recorded(argv: &[&str], fixture: &str) {
    let output = Command::new(argv[0]).args(&argv[1..]).output().unwrap();
    assert!(output.status.success(), "{argv:?}: {output:?}");
    let (live, recorded) = (shapes(&output.stdout), shapes(&brought(fixture)));
    let unknown: Vec<_> = live.difference(&recorded).collect();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(!live.is_empty() && unknown.is_empty(), "{fixture} has no line like {unknown:#?}\n{printed}");
}

/// Fails unless the web server's user is refused in the very words, and with the status, that were recorded.
pub fn is_refused_as_recorded(argv: &[&str], case: &str) {
    let output = rule::as_web_server(argv[0], &argv[1..]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let recorded = |end: &str| text(&brought(&format!("{case}.{end}")));
    assert_eq!(
        [text(&output.stdout), text(&output.stderr), output.status.code().unwrap().to_string()],
        ["stdout", "stderr", "rc"].map(recorded),
        "{argv:?}"
    );
}

fn brought(name: &str) -> Vec<u8> {
    fs::read(Path::new(BROUGHT).join(name)).unwrap()
}

fn shapes(listing: &[u8]) -> BTreeSet<String> {
    String::from_utf8_lossy(listing).lines().map(|line| record(line).unwrap_or_else(|| shape(line))).collect()
}

/// The names and types of a line of JSON.
fn record(line: &str) -> Option<String> {
    fn describe(value: &Value) -> String {
        match value {
            Value::Object(fields) => {
                fields.iter().map(|(name, value)| format!("{name}: {}, ", describe(value))).collect()
            }
            Value::Array(values) => values.iter().map(describe).collect::<BTreeSet<_>>().into_iter().collect(),
            Value::String(_) => "text".into(),
            Value::Number(_) => "number".into(),
            Value::Bool(_) => "yes or no".into(),
            Value::Null => "nothing".into(),
        }
    }
    serde_json::from_str(line).ok().filter(Value::is_object).map(|value| describe(&value))
}

/// A line with an "x" for each word and number, nothing for what stands in brackets, and one space for many;
/// but with its indentation. The last of OpenSMTPD's 14 fields is free text.
fn shape(line: &str) -> String {
    let line = match line.splitn(14, '|').collect::<Vec<_>>() {
        fields if fields.len() == 14 => fields[..13].join("|"),
        _ => line.to_owned(),
    };
    let start = line.len() - line.trim_start().len();
    let (indentation, text) = line.split_at(start);
    let text = without(&without(text, '<', '>'), '(', ')');
    let mut shape = indentation.to_owned();
    for character in text.chars() {
        let class = if character.is_alphanumeric() { 'x' } else { character };
        if !(matches!(class, 'x' | ' ') && shape.len() > start && shape.ends_with(class)) {
            shape.push(class);
        }
    }
    shape
}

/// The text without what is between the first of one character and the last of another.
fn without(text: &str, open: char, close: char) -> String {
    match (text.find(open), text.rfind(close)) {
        (Some(start), Some(end)) if start < end => format!("{}{}", &text[..=start], &text[end..]),
        _ => text.to_owned(),
    }
}
