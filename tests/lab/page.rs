//! The program as its readers see it: the page, the JSON and the flush link, asked for from the
//! allowed address.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;

use crate::http::{self, ALLOWED, Response};

/// Where the snippet puts the program.
pub const BASE: &str = "/bartleby/";

/// What the tests read of `?format=json`.
#[derive(Debug, Deserialize)]
pub struct Listing {
    /// The mail server.
    pub mta: Mta,
    /// The whole queue.
    pub queue: Queue,
    /// Its messages.
    pub messages: Vec<Message>,
    /// The machine's disks.
    pub filesystems: Vec<Filesystem>,
    /// What can be done.
    pub flush: Flush,
    /// What was asked of DNS.
    pub dns: Dns,
}

/// What was asked of DNS.
#[derive(Debug, Deserialize)]
pub struct Dns {
    /// The domains that are relayed.
    pub domains: Option<Vec<String>>,
}

/// Which mail server it is.
#[derive(Debug, Deserialize)]
pub struct Mta {
    /// Its kind.
    pub kind: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Instances whose queues are not listed.
    pub unlisted: Option<Vec<String>>,
}

/// How the listing went, and its totals.
#[derive(Debug, Deserialize)]
pub struct Queue {
    /// One word.
    pub status: String,
    /// Whether this is all.
    pub complete: bool,
    /// How many messages.
    pub messages: u64,
    /// How many recipients.
    pub recipients: u64,
    /// How many messages in each state.
    pub states: BTreeMap<String, u64>,
    /// What went wrong.
    pub error: Option<Failure>,
}

/// What went wrong.
#[derive(Debug, Deserialize)]
pub struct Failure {
    /// The reason.
    pub message: String,
    /// The fix.
    pub remedy: String,
}

/// One message of the queue.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// Its queue id.
    pub id: String,
    /// Its state.
    pub state: String,
    /// The envelope sender.
    pub sender: String,
    /// Its recipients.
    pub recipients: Vec<Recipient>,
    /// The instance that has it.
    pub instance: Option<String>,
}

/// One recipient.
#[derive(Debug, Deserialize)]
pub struct Recipient {
    /// The envelope recipient.
    pub address: String,
    /// Why it waits.
    pub reason: Option<String>,
    /// Whether it has its copy already.
    pub delivered: bool,
    /// When the attempt failed that the reason is of, where the mail server says so.
    pub last_attempt: Option<String>,
}

/// One disk.
#[derive(Debug, Deserialize)]
pub struct Filesystem {
    /// Whether the queue is there.
    pub queue: bool,
    /// Its free space.
    pub bytes_available: u64,
}

/// The flush link.
#[derive(Debug, Deserialize)]
pub struct Flush {
    /// Whether a flush would be tried.
    pub allowed: bool,
    /// How long the cool-down lasts.
    pub wait_seconds: u64,
    /// The last flush.
    pub last: Option<serde_json::Value>,
}

impl Listing {
    /// The message with this queue id.
    pub fn message(&self, id: &str) -> Option<&Message> {
        self.messages.iter().find(|message| message.id == id)
    }

    /// Every recipient that waits, with the reason.
    pub fn waiting(&self) -> impl Iterator<Item = (&str, &str)> {
        let recipients =
            self.messages.iter().flat_map(|message| &message.recipients).filter(|recipient| !recipient.delivered);
        recipients.map(|recipient| (recipient.address.as_str(), recipient.reason.as_deref().unwrap_or_default()))
    }
}

static JSON: OnceLock<&str> = OnceLock::new();

/// Sets the query by which this lab asks for JSON.
pub fn ask_for_json_with(query: &'static str) {
    JSON.set(query).unwrap();
}

/// The path of the program with this query.
pub fn target(query: &str) -> String {
    format!("{BASE}{query}")
}

/// The page with this query, which may be empty.
pub fn get(query: &str) -> Response {
    http::get(ALLOWED, &target(query)).unwrap()
}

/// The page itself: HTML with this status.
pub fn html(status: u16) -> String {
    let page = get("").expect(status);
    let kind = page.header("Content-Type").unwrap_or_default();
    assert!(kind.starts_with("text/html"), "{kind}");
    assert!(page.body.contains("</html>"), "no whole page: {}", page.body);
    page.body
}

/// The JSON, which must be valid, with this status.
pub fn json(status: u16) -> Listing {
    try_json(status).unwrap_or_else(|wrong| panic!("{wrong}"))
}

/// The JSON with this status, or what came instead.
pub fn try_json(status: u16) -> Result<Listing, String> {
    let answer = http::get(ALLOWED, &target(JSON.get().unwrap())).map_err(|error| error.to_string())?;
    if answer.status != status {
        return Err(format!("status {}: {}", answer.status, answer.body));
    }
    let kind = answer.header("Content-Type").unwrap_or_default();
    if !kind.starts_with("application/json") {
        return Err(format!("{kind}: {}", answer.body));
    }
    serde_json::from_str(&answer.body).map_err(|error| format!("{error} in {}", answer.body))
}

/// Follows the flush link with success, and the redirection that it answers with.
pub fn flush(query: &str) -> Response {
    let answer = get(query).expect(303);
    let location = answer.header("Location").unwrap_or_default();
    assert!(location.contains("?flushed="), "Location: {location}");
    let path = match location.strip_prefix("http://").map(|rest| rest.find('/').map_or("", |at| &rest[at..])) {
        Some(path) => path.to_owned(),
        None if location.starts_with('/') => location.to_owned(),
        None => target(location),
    };
    http::get(ALLOWED, &path).unwrap().expect(200)
}
