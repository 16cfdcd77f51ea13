//! The properties of `holds.rs`, with bytes made up by proptest: half of them at random, half of them from recorded
//! listings with a few changes. `fuzz/` hunts for more; what it finds is kept in `found/`, and tried here each time.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod holds;

use std::fs;
use std::path::{Path, PathBuf};

use bartleby::mta::Kind;
use bartleby::queue::Message;
use proptest::prelude::*;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// Every file of a folder; none where there is no such folder.
fn files(folder: &Path) -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Bytes at random, or some of `seeds`, a line of one behind a line of another, with a few bytes changed.
fn bytes(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let lines: Vec<Vec<u8>> =
        seeds.iter().flat_map(|seed| seed.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec)).collect();
    let line = any::<prop::sample::Index>().prop_map(move |index| index.get(&lines).clone());
    let change = (
        any::<prop::sample::Index>(),
        prop_oneof![any::<u8>(), prop::sample::select(b"\0\n\t \"\\<>(){}@\xff".to_vec())],
    );
    let changed = |(lines, changes): (Vec<Vec<u8>>, Vec<(prop::sample::Index, u8)>)| {
        let mut bytes = lines.concat();
        for (place, byte) in changes.iter().filter(|_| !lines.is_empty()) {
            *place.get_mut(&mut bytes) = *byte;
        }
        bytes
    };
    let mixed = (prop::collection::vec(line, 0..40), prop::collection::vec(change, 0..6)).prop_map(changed);
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..600), 3 => mixed]
}

/// How many cases are tried: 300, or as many as `PROPTEST_CASES` says.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300)
}

/// Tries what was found before, every seed as it is, and what is made up of them.
fn hold(name: &str, seeds: Vec<Vec<u8>>, property: impl Fn(&[u8])) {
    for found in files(&tests().join("properties/found").join(name)).iter().chain(&seeds) {
        property(found);
    }
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let tried = runner.run(&bytes(seeds), |bytes| {
        property(&bytes);
        Ok(())
    });
    if let Err(failure) = tried {
        panic!("{failure}");
    }
}

fn fixtures(name: &str) -> Vec<Vec<u8>> {
    files(&tests().join("fixtures").join(name))
}

#[test]
fn any_listing_of_postfix() {
    hold("postfix", fixtures("postfix"), |bytes| holds::listing(Kind::Postfix, bytes));
}

#[test]
fn any_listing_of_sendmail() {
    hold("sendmail", fixtures("sendmail"), |bytes| holds::listing(Kind::Sendmail, bytes));
}

#[test]
fn any_listing_of_exim() {
    hold("exim", fixtures("exim"), |bytes| holds::listing(Kind::Exim, bytes));
}

#[test]
fn any_listing_of_opensmtpd() {
    hold("opensmtpd", fixtures("opensmtpd"), |bytes| holds::listing(Kind::OpenSmtpd, bytes));
}

/// Words made of what separates cells, begins formulas, ends labels or stands for what is not shown.
fn words() -> impl Strategy<Value = String> {
    let pieces = [
        "x",
        "1",
        ";",
        "|",
        ",",
        "\t",
        " ",
        "\"",
        "'",
        "=",
        "+",
        "-",
        "@",
        "＝",
        "\\",
        "\n",
        "\r",
        "(",
        ")",
        "other",
        "local",
        "this machine",
        "⟨U+202E⟩",
        "\u{202e}",
        "␊",
        "\u{a0}",
        "⟨",
        ".",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..7).prop_map(|pieces| pieces.concat())
}

/// A local part, a domain and a reason.
type Words = (String, String, String);

#[test]
fn strangers_words_in_every_form() {
    let recipient = (words(), words(), words());
    let message = (words(), prop::collection::vec(recipient, 1..5));
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let tried = runner.run(&prop::collection::vec(message, 1..6), |messages| {
        let line = |(number, (sender, recipients)): (usize, &(String, Vec<Words>))| {
            let recipients = recipients.iter().map(|(local, domain, reason)| {
                serde_json::json!({"address": format!("{local}@{domain}"), "delay_reason": reason})
            });
            let message = serde_json::json!({
                "queue_name": "deferred", "queue_id": format!("A{number}"), "arrival_time": 1, "message_size": 1,
                "sender": sender, "recipients": recipients.collect::<Vec<_>>(),
            });
            format!("{message}\n")
        };
        let lines: String = messages.iter().enumerate().map(line).collect();
        prop_assert_eq!(holds::read(Kind::Postfix, lines.as_bytes()).trouble, None);
        holds::listing(Kind::Postfix, lines.as_bytes());
        Ok(())
    });
    if let Err(failure) = tried {
        panic!("{failure}");
    }
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    files(&tests().join("properties/seeds").join(name))
}

#[test]
fn any_query_string() {
    hold("query", seeds("query"), holds::query);
}

#[test]
fn any_environment() {
    hold("environment", seeds("environment"), holds::environment);
}

#[test]
fn any_configuration() {
    hold("configuration", seeds("configuration"), holds::configuration);
}

#[test]
fn any_date() {
    hold("date", seeds("date"), holds::date);
}

/// What each recorded primary said, without what it heard.
fn said_by_primaries() -> Vec<Vec<u8>> {
    let said = |recording: Vec<u8>| {
        let recording = String::from_utf8(recording).unwrap();
        let lines = recording.lines().filter_map(|line| Some(format!("{}\r\n", line.split_once("S: ")?.1)));
        lines.collect::<String>().into_bytes()
    };
    fixtures("rehearsal").into_iter().map(said).collect()
}

#[test]
fn whatever_a_primary_says() {
    hold("rehearsal", said_by_primaries(), holds::rehearsal);
}

/// A local part that smtpd takes, made of what else stands in a line of its listing.
fn local_part() -> impl Strategy<Value = String> {
    let pieces = [
        "x",
        "|",
        "|",
        "|",
        "0",
        "1795503951",
        "-4",
        "pending",
        "inflight",
        "invalid",
        "offline",
        "bounce",
        "suspend",
        "mta",
        "inet4",
        "c44e9b80594dd7b5",
        "!",
        "#",
        "$",
        "=",
        "?",
        "{",
        "é",
        ".",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 1..14).prop_map(|pieces| pieces.concat())
}

#[test]
fn no_address_and_no_error_forges_a_line_of_opensmtpd() {
    let addresses = (local_part(), local_part(), local_part());
    let envelope = (addresses, prop::sample::select(vec!["pending|-4", "inflight|1", "invalid|"]), local_part());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let tried = runner.run(&prop::collection::vec(envelope, 1..6), |envelopes| {
        let mut text = String::new();
        for (number, ((sender, recipient, resolved), state, error)) in envelopes.iter().enumerate() {
            let addresses = format!("{sender}@example.org|{recipient}@example.com|{resolved}@mx.example.com");
            text += &format!("{number:08x}594dd7b5|inet4|mta||{addresses}|1795433446|1795433446|0|1|{state}|{error}\n");
        }
        let read = holds::read(Kind::OpenSmtpd, text.as_bytes());
        prop_assert_eq!(read.trouble, None, "{}", text);
        prop_assert_eq!(read.messages.len(), envelopes.len());
        for (message, ((sender, _, resolved), state, error)) in read.messages.iter().zip(&envelopes) {
            prop_assert_eq!(message.sender.clone().unwrap(), format!("{sender}@example.org"));
            prop_assert_eq!(&message.mta_state, state.split('|').next().unwrap());
            let recipient = &message.recipients[0];
            prop_assert_eq!(recipient.address.clone(), format!("{resolved}@mx.example.com"));
            prop_assert_eq!(recipient.reason.as_deref(), Some(error.as_str()));
        }
        Ok(())
    });
    if let Err(failure) = tried {
        panic!("{failure}");
    }
}

#[test]
fn any_request_to_root() {
    hold("as_root", seeds("as_root"), holds::as_root);
}

/// A recorded listing taken apart: what it is made of.
struct Form {
    kind: Kind,
    head: fn(usize) -> String,
    /// Each message alone, with its id.
    blocks: Vec<(String, String)>,
    foot: fn(usize) -> String,
}

impl Form {
    fn of(
        kind: Kind,
        case: &str,
        first: fn(&str, &str) -> bool,
        head: fn(usize) -> String,
        foot: fn(usize) -> String,
    ) -> Form {
        let text = fs::read_to_string(tests().join("fixtures").join(case).with_extension("stdout")).unwrap();
        let mut blocks: Vec<String> = Vec::new();
        for line in text.split_inclusive('\n') {
            match blocks.last_mut() {
                Some(block) if !first(block, line) => block.push_str(line),
                _ => blocks.push(line.to_owned()),
            }
        }
        let with_id = |block: String| {
            let read = holds::read(kind, format!("{}{block}{}", head(1), foot(1)).as_bytes());
            let ([message], None) = (read.messages.as_slice(), &read.trouble) else { return None };
            Some((message.id.clone().into_owned(), block))
        };
        let blocks: Vec<_> = blocks.into_iter().filter_map(with_id).collect();
        assert!(blocks.len() > 8, "{case}: {}", blocks.len());
        Form { kind, head, blocks, foot }
    }

    /// A listing of these messages, each under an id of its own, and what is to come out.
    fn listing(&self, chosen: &[prop::sample::Index]) -> (String, Vec<Message<'static>>) {
        let (head, foot) = (self.head, self.foot);
        let one = |(number, index): (usize, &prop::sample::Index)| {
            let (id, block) = index.get(&self.blocks);
            let block = block.replace(id.as_str(), &format!("{number:06}{}", &id[6..]));
            let read = holds::read(self.kind, format!("{}{block}{}", head(1), foot(1)).as_bytes());
            assert!(read.trouble.is_none() && read.messages.len() == 1, "{block}: {:?}", read.trouble);
            (block, read.messages.into_iter().next().unwrap())
        };
        let (blocks, messages): (Vec<String>, Vec<_>) = chosen.iter().enumerate().map(one).unzip();
        (format!("{}{}{}", head(blocks.len()), blocks.concat(), foot(blocks.len())), messages)
    }
}

/// A listing of any messages is read as these messages, in their order, each once.
fn comes_out_once(form: &Form) {
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let tried = runner.run(&prop::collection::vec(any::<prop::sample::Index>(), 1..60), |chosen| {
        let (text, messages) = form.listing(&chosen);
        let read = holds::read(form.kind, text.as_bytes());
        prop_assert_eq!(read.trouble, None);
        prop_assert_eq!(read.messages, messages, "{}", text);
        Ok(())
    });
    if let Err(failure) = tried {
        panic!("{failure}");
    }
}

#[test]
fn every_message_in_comes_out_once() {
    let nothing: fn(usize) -> String = |_| String::new();
    comes_out_once(&Form::of(Kind::Postfix, "postfix/mixed-json", |_, _| true, nothing, nothing));
    comes_out_once(&Form::of(
        Kind::Postfix,
        "postfix/mixed-text",
        |block, _| block.ends_with("\n\n"),
        |_| "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------\n".into(),
        |count| format!("-- 9 Kbytes in {count} Request{}.\n", if count == 1 { "" } else { "s" }),
    ));
    comes_out_once(&Form::of(
        Kind::Sendmail,
        "sendmail/mixed-bp-verbose",
        |_, line| !line.starts_with([' ', '\t']),
        |count| {
            format!(
                "\t\t/var/spool/mqueue ({count} request{})\n-----Q-ID----- --Size-- -Priority- ---Q-Time--- --------Sender/Recipient--------\n",
                if count == 1 { "" } else { "s" }
            )
        },
        |count| format!("\t\tTotal requests: {count}\n"),
    ));
    comes_out_once(&Form::of(Kind::Exim, "exim/mixed-bp", |block, _| block.ends_with("\n\n"), nothing, nothing));
    comes_out_once(&Form::of(
        Kind::OpenSmtpd,
        "opensmtpd/mixed-show-queue",
        |block, line| block.get(..8) != line.get(..8),
        nothing,
        nothing,
    ));
}
