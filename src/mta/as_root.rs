//! What `bartleby as-root` can be asked, and how it answers: the one rule for root.
//!
//! A request is one line of JSON on standard input, since sudo-rs and doas know no patterns for arguments. The grammar
//! is closed: a verb that is not here, a field that no verb has, a second line, or a name that could be anything but a
//! name, is refused before anything is done. No verb deletes, edits or shows a message.

use std::path::Path;
use std::sync::OnceLock;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::trouble::Trouble;
use super::{Mark, Part};
use crate::queue::Target;
use crate::system::process::{Argv, Ending, Exit};

/// Where root's own copy of this program is: as `make install` puts it there, and as a package does.
pub(crate) const PROGRAMS: [&str; 2] = ["/usr/local/sbin/bartleby", "/usr/sbin/bartleby"];

/// Where the rule expects root's own copy of this program: where there is one, or as `make install` would put it. The
/// first to ask looks, so that a sandboxed reader knows it from its parent.
pub(crate) fn program() -> &'static str {
    static FOUND: OnceLock<&str> = OnceLock::new();
    let [installed, packaged] = PROGRAMS;
    FOUND.get_or_init(|| match (Path::new(installed).exists(), Path::new(packaged).exists()) {
        (false, true) => packaged,
        _ => installed,
    })
}

/// The one argument that the rule allows.
pub(crate) const WORD: &str = "as-root";

/// What a refusal begins with on standard error, so that it is not taken for the mail server's.
pub(crate) const REFUSES: &str = "as-root: ";

/// The longest request, in bytes, with its line feed: as much as a pipe holds.
pub const LONGEST: usize = 64 * 1024;

/// The most messages whose reasons a request may ask for: as many as a page has rows.
const MOST_IDS: usize = 1000;

/// The longest queue id, in characters; the longest in use has 23. And the longest domain (RFC 1035, section 2.3.4).
const LONGEST_ID: usize = 64;
const LONGEST_DOMAIN: usize = 255;

/// How much of what is wrong with a request is said, in characters.
const SAID: usize = 200;

/// Exit statuses of sysexits(3) by which a request is refused.
pub(crate) const EX_USAGE: u8 = 64;
/// The answer is not all of it.
pub(crate) const EX_TEMPFAIL: u8 = 75;
pub(crate) const EX_NOPERM: u8 = 77;
pub(crate) const EX_CONFIG: u8 = 78;

/// A request. (The braces make serde refuse unknown fields, which it takes in a variant without them.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// To list the queue: the answer is what the mail server prints.
    List {},
    /// To run the queue, or a part of it.
    Run {
        /// What to run.
        #[serde(serialize_with = "written", deserialize_with = "plain_target")]
        target: Target,
    },
    /// To print why messages wait, for a mail server whose listing does not: the answer is, for each, a line and what the
    /// mail server said.
    Reasons {
        /// The messages, 1000 at most.
        #[serde(deserialize_with = "few_plain_ids")]
        ids: Vec<String>,
    },
    /// To print when mail is tried next, and since when a host fails, where only root can read that: the answer is what
    /// [`Mta::next_command`](super::Mta::next_command) prints.
    Next {},
    /// To print where the mail log ends now: the answer is a [`Mark`], as a line of JSON.
    Mark {},
    /// To print what the mail log says of messages: the answer is the log's own lines, 4 MiB at most.
    Log {
        /// The messages, as many as a request can name.
        #[serde(deserialize_with = "plain_ids")]
        ids: Vec<String>,
        /// The time from which on, in seconds since 1970.
        since: i64,
        /// The place from which on; where it is of no use, the time counts.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mark: Option<Mark>,
    },
}

/// Why a request is refused. Its `Display` is a sentence without its full stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// More came than a request may be long.
    #[error("the request is longer than {LONGEST} bytes")]
    TooLong,
    /// Its line feed is missing: it may have been cut off.
    #[error("the request is not one whole line")]
    CutOff,
    /// There is more behind it.
    #[error("there is more than one line")]
    SeveralLines,
    /// It is no JSON, or not of this grammar.
    #[error("the request is not understood: {0}")]
    NotUnderstood(String),
}

impl Request {
    /// Reads all that came on standard input.
    ///
    /// # Errors
    /// [`BadRequest`].
    pub fn read(bytes: &[u8]) -> Result<Request, BadRequest> {
        if bytes.len() > LONGEST {
            return Err(BadRequest::TooLong);
        }
        match memchr::memchr(b'\n', bytes) {
            None => Err(BadRequest::CutOff),
            Some(end) if end + 1 < bytes.len() => Err(BadRequest::SeveralLines),
            Some(end) => serde_json::from_slice(&bytes[..end]).map_err(|error| {
                let said = error.to_string().chars().take(SAID).collect();
                BadRequest::NotUnderstood(said)
            }),
        }
    }

    /// It as a line, without its line feed.
    pub fn line(&self) -> String {
        // Nothing in it can fail to be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn written<S: Serializer>(target: &Target, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(target)
}

fn plain_target<'de, D: Deserializer<'de>>(from: D) -> Result<Target, D::Error> {
    let word = String::deserialize(from)?;
    let target = if word.is_empty() { Err(()) } else { word.parse() };
    let target = target.map_err(|()| de::Error::custom("it is no target"))?;
    let is_plain = match &target {
        Target::All => true,
        Target::Domain(name) => target.is_plain() && name.chars().count() <= LONGEST_DOMAIN,
        Target::Id(id) => is_id(id),
    };
    if is_plain { Ok(target) } else { Err(de::Error::custom("its target has no plain name")) }
}

fn few_plain_ids<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let ids = plain_ids(from)?;
    if ids.len() > MOST_IDS { Err(de::Error::custom("it names more than 1000 messages")) } else { Ok(ids) }
}

fn plain_ids<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let ids = Vec::<String>::deserialize(from)?;
    let are_plain = ids.iter().all(|id| is_id(id));
    if are_plain { Ok(ids) } else { Err(de::Error::custom("it names a queue id that can't be one")) }
}

/// Whether a word can be a queue id, of any mail server. None of them has an id that an option could look like.
pub(crate) fn is_id(word: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=LONGEST_ID).contains(&word.len()) && !word.starts_with('-') && word.bytes().all(is_part)
}

impl Part<'_> {
    /// It as a request names it.
    pub(crate) fn target(&self) -> Target {
        match self {
            Part::All | Part::Each { .. } => Target::All,
            Part::Domain { name, .. } => Target::Domain((*name).to_owned()),
            Part::Message(id) => Target::Id((*id).to_owned()),
        }
    }
}

/// The command that the rule allows, without sudo or doas before it.
pub(crate) fn command() -> Argv {
    Argv::new(program(), &[WORD])
}

/// Whether root's copy of this program is there.
pub(crate) fn is_installed() -> bool {
    Path::new(program()).exists()
}

/// Whether the command did what it was asked: if it was `as-root` that was asked, and refused.
///
/// # Errors
/// [`Trouble::RootRefuses`]. That the mail server refuses is no matter of this.
pub(crate) fn verdict(command: &Argv, exit: &Exit) -> Result<(), Trouble> {
    let statuses = [EX_USAGE, EX_NOPERM, EX_CONFIG].map(|status| Some(i32::from(status)));
    let is_refusal = !command.input().is_empty() && exit.ending == Ending::Exited && statuses.contains(&exit.code);
    let words = exit.said.lines().rev().find_map(|line| line.strip_prefix("bartleby: ")?.strip_prefix(REFUSES));
    match words {
        Some(words) if is_refusal => Err(Trouble::RootRefuses { words: words.to_owned() }),
        _ => Ok(()),
    }
}

/// What the mail server said of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its queue id.
    pub id: String,
    /// The status that the mail server's command ended with; `None` where it was killed.
    pub status: Option<i32>,
    /// What that printed.
    pub output: Vec<u8>,
}

impl Answer {
    /// It as `as-root` prints it: a line with the id, the status (`-`: none) and the number of bytes, then these.
    pub fn written(&self) -> Vec<u8> {
        let status = self.status.map_or("-".to_owned(), |status| status.to_string());
        let mut written = format!("{} {status} {}\n", self.id, self.output.len()).into_bytes();
        written.extend_from_slice(&self.output);
        written
    }

    /// The answers that have come whole.
    pub fn read_all(mut bytes: &[u8]) -> Vec<Answer> {
        let mut answers = Vec::new();
        while let Some((answer, rest)) = Answer::read(bytes) {
            answers.push(answer);
            bytes = rest;
        }
        answers
    }

    fn read(bytes: &[u8]) -> Option<(Answer, &[u8])> {
        let end = memchr::memchr(b'\n', bytes)?;
        let mut words = str::from_utf8(&bytes[..end]).ok()?.split(' ');
        let (id, status, length) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        let status = if status == "-" { None } else { Some(status.parse().ok()?) };
        let (output, rest) = bytes[end + 1..].split_at_checked(length)?;
        (is_id(id) && words.next().is_none())
            .then(|| (Answer { id: id.to_owned(), status, output: output.to_owned() }, rest))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::mta::FileEnd;

    fn read(line: &str) -> Result<Request, BadRequest> {
        Request::read(format!("{line}\n").as_bytes())
    }

    #[test]
    fn each_request_is_read_as_it_is_written() {
        let ids = vec!["1vNAb2-00000c-2p".to_owned(), "A1".to_owned()];
        for (request, line) in [
            (Request::List {}, r#"{"do":"list"}"#),
            (Request::Run { target: Target::All }, r#"{"do":"run","target":"all"}"#),
            (
                Request::Run { target: Target::Domain("example.com".into()) },
                r#"{"do":"run","target":"domain:example.com"}"#,
            ),
            (Request::Run { target: Target::Id("4F1A".into()) }, r#"{"do":"run","target":"id:4F1A"}"#),
            (Request::Reasons { ids: ids.clone() }, r#"{"do":"reasons","ids":["1vNAb2-00000c-2p","A1"]}"#),
            (Request::Next {}, r#"{"do":"next"}"#),
            (
                Request::Log { ids: ids.clone(), since: 1_795_433_282, mark: None },
                r#"{"do":"log","ids":["1vNAb2-00000c-2p","A1"],"since":1795433282}"#,
            ),
            (
                Request::Log {
                    ids: ids[1..].to_vec(),
                    since: 1,
                    mark: Some(Mark {
                        files: vec![FileEnd { device: 64, inode: 3, size: 9 }],
                        cursor: Some("s=a1;i=2".into()),
                    }),
                },
                r#"{"do":"log","ids":["A1"],"since":1,"mark":{"files":[[64,3,9]],"cursor":"s=a1;i=2"}}"#,
            ),
            (Request::Mark {}, r#"{"do":"mark"}"#),
        ] {
            assert_eq!(request.line(), line);
            assert_eq!(read(line), Ok(request));
        }
        assert_eq!(read(r#" { "do" : "list" } "#), Ok(Request::List {}));
    }

    #[test]
    fn whatever_is_not_in_the_grammar_is_refused() {
        for line in [
            "",
            " ",
            "list",
            "null",
            "[]",
            "\"list\"",
            "{}",
            "{",
            r#"{"do":"list""#,
            r#"{"do":"list"}}"#,
            r#"{"do":"list"} {"do":"list"}"#,
            r#"{"do":"List"}"#,
            r#"{"do":"delete"}"#,
            r#"{"do":"remove","ids":["A1"]}"#,
            r#"{"do":"show","id":"A1"}"#,
            r#"{"do":"list","command":["/bin/sh"]}"#,
            r#"{"do":"list","config":"/tmp/x"}"#,
            r#"{"do":"list","do":"run","target":"all"}"#,
            r#"{"do":["list"]}"#,
            r#"{"do":1}"#,
            r#"{"do":null}"#,
            r#"{"do":{"list":{}}}"#,
            r#"{"do":"run"}"#,
            r#"{"do":"run","target":null}"#,
            r#"{"do":"run","target":["all"]}"#,
            r#"{"do":"run","target":"all","target":"id:A"}"#,
            r#"{"do":"run","target":"all","ids":[]}"#,
            r#"{"do":"run","target":""}"#,
            r#"{"do":"run","target":"-f"}"#,
            r#"{"do":"run","target":"id:"}"#,
            r#"{"do":"run","target":"id:-f"}"#,
            r#"{"do":"run","target":"id:--"}"#,
            r#"{"do":"run","target":"id:A 1"}"#,
            r#"{"do":"run","target":"id:../../etc/shadow"}"#,
            r#"{"do":"run","target":"id:A\u0000"}"#,
            r#"{"do":"run","target":"id:A\n"}"#,
            r#"{"do":"run","target":"id:é"}"#,
            r#"{"do":"run","target":"domain:-x.example"}"#,
            r#"{"do":"run","target":"domain:a b"}"#,
            r#"{"do":"run","target":"domain:*"}"#,
            r#"{"do":"run","target":"domain:a@b"}"#,
            r#"{"do":"reasons"}"#,
            r#"{"do":"reasons","ids":"A1"}"#,
            r#"{"do":"reasons","ids":[1]}"#,
            r#"{"do":"reasons","ids":["A1","-Mrm"]}"#,
            r#"{"do":"reasons","ids":[""]}"#,
            r#"{"do":"next","ids":[]}"#,
            r#"{"do":"log","ids":["A1"]}"#,
            r#"{"do":"log","since":1}"#,
            r#"{"do":"log","ids":["A1"],"since":"1"}"#,
            r#"{"do":"log","ids":["A1"],"since":1.5}"#,
            r#"{"do":"log","ids":["A1"],"since":99999999999999999999}"#,
            r#"{"do":"log","ids":["A1",".*"],"since":1}"#,
            r#"{"do":"log","ids":["A1"],"since":1,"file":"/etc/shadow"}"#,
            r#"{"do":"log","ids":["A1"],"since":1,"mark":{"files":[],"cursor":"x --file=/etc/shadow"}}"#,
            r#"{"do":"log","ids":["A1"],"since":1,"mark":{"files":["/etc/shadow"],"cursor":null}}"#,
            r#"{"do":"mark","file":"/etc/shadow"}"#,
            "{\"do\":\"list\"}\0",
            "\u{feff}{\"do\":\"list\"}",
        ] {
            assert!(matches!(read(line), Err(BadRequest::NotUnderstood(_))), "{line}: {:?}", read(line));
        }
        let long = |length| format!(r#"{{"do":"run","target":"id:{}"}}"#, "A".repeat(length));
        assert!(read(&long(LONGEST_ID)).is_ok());
        assert!(read(&long(LONGEST_ID + 1)).is_err());
        let many = |count| Request::Reasons { ids: vec!["1vNAb2-0000000000c-2p00".to_owned(); count] }.line();
        assert!(read(&many(MOST_IDS)).is_ok(), "as many as a page has rows");
        assert!(read(&many(MOST_IDS + 1)).is_err());
        assert!(read(&format!("{}{}", "[".repeat(9000), "]".repeat(9000))).is_err(), "deep");
        assert!(read(&format!(r#"{{"do":"{}"}}"#, "x".repeat(60_000))).unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn a_request_is_one_whole_line() {
        let list = br#"{"do":"list"}"#;
        assert_eq!(Request::read(list), Err(BadRequest::CutOff));
        assert_eq!(Request::read(b""), Err(BadRequest::CutOff));
        assert_eq!(Request::read(&[&list[..], b"\n\n"].concat()), Err(BadRequest::SeveralLines));
        assert_eq!(Request::read(&[&list[..], b"\n", list, b"\n"].concat()), Err(BadRequest::SeveralLines));
        assert_eq!(Request::read(&[&list[..], b"\n", list].concat()), Err(BadRequest::SeveralLines));
        assert_eq!(Request::read(&vec![b' '; LONGEST + 1]), Err(BadRequest::TooLong));
        assert_eq!(Request::read(&vec![b'\n'; 1 << 20]), Err(BadRequest::TooLong));
        assert!(matches!(Request::read(b"\xff\xfe\n"), Err(BadRequest::NotUnderstood(_))));
    }

    #[test]
    fn answers_are_read_as_they_are_written_and_only_whole() {
        let answer = |id: &str, status, output: &[u8]| Answer { id: id.into(), status, output: output.to_vec() };
        let all = [
            answer("A1", Some(0), b"A2 0 3\nx\n\xff"),
            answer("1vNAb2-00000c-2p", Some(1), b""),
            answer("B", None, b"y"),
        ];
        let written = all.iter().flat_map(Answer::written).collect::<Vec<_>>();
        assert_eq!(Answer::read_all(&written), all);
        for length in 0..written.len() {
            let read = Answer::read_all(&written[..length]);
            assert!(read.len() < all.len() && all.starts_with(&read), "{length}: {read:?}");
        }
        for broken in
            ["A1 0 9\nx", "A1 0 -1\n", "-f 0 0\n", "A1 x 0\n", "A1 0 0 0\n", "\n", "A1 0 99999999999999999999\n"]
        {
            assert_eq!(Answer::read_all(broken.as_bytes()), [], "{broken}");
        }
    }

    #[test]
    fn a_refusal_of_the_rule_is_not_taken_for_one_of_the_mail_server() {
        let asked = command().with_input(Request::List {}.line());
        let ended = |command: &Argv, code, said: &str| {
            let (ending, allowed) = (Ending::Exited, Duration::ZERO);
            verdict(
                command,
                &Exit { ending, code: Some(code), signal: None, said: said.into(), allowed, unfinished: false },
            )
        };
        let refused = ended(&asked, 78, "sudo: some warning\nbartleby: as-root: /etc/bartleby.toml: it is not read\n");
        assert_eq!(refused, Err(Trouble::RootRefuses { words: "/etc/bartleby.toml: it is not read".into() }));
        assert_eq!(ended(&asked, 77, "postqueue: not allowed\n"), Ok(()), "the mail server's own");
        assert_eq!(ended(&asked, 0, "bartleby: as-root: x\n"), Ok(()));
        assert_eq!(ended(&command(), 77, "bartleby: as-root: x\n"), Ok(()), "it was not asked");
    }
}
