//! What holds whatever the bytes are: nothing panics, counts add up, a message that comes in comes out once, in every
//! form, and each form is well-formed. Shared by this test, which makes up bytes, and by `fuzz/`, which hunts for them.

#[path = "json.rs"]
mod json;

#[path = "../listed/mod.rs"]
mod listed;

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use bartleby::cgi::access;
use bartleby::cgi::gateway::Request;
use bartleby::config::Config;
use bartleby::flush::readiness::{Held, Readiness};
use bartleby::listing::{Listing, Sampling};
use bartleby::mta::as_root::{LONGEST, Request as Ask};
use bartleby::mta::trouble::Trouble;
use bartleby::mta::{self, Clock, Facts, Kind, Mark};
use bartleby::primary::PrimaryStatus;
use bartleby::queue::{Mask, Message, Order, Row, Selection, SortKey, State, Summary, Target, Window};
use bartleby::report::{Form, Report};
use bartleby::request::{Asked, Format};
use bartleby::system::Body;
use bartleby::text::printable;
use bartleby::view::csv::Csv;
use bartleby::view::openmetrics::OpenMetrics;
use bartleby::view::sentences::Sentences;
use bartleby::view::text::Text;
use bartleby::view::{self, html};
use jiff::tz::TimeZone;
use scraper::{Html, Selector};

#[path = "rehearsal.rs"]
mod rehearsal;

pub use rehearsal::rehearsal;

/// The day on which the fixtures were recorded: 2026-11-23, 11:45 UTC.
pub const NOW: i64 = 1_795_434_300;

/// Rows on the page.
const ROWS: usize = 25;

/// What a parser makes of a listing.
pub struct Read {
    /// The messages, in their order.
    pub messages: Vec<Message<'static>>,
    /// Why that is not all.
    pub trouble: Option<Trouble>,
    /// Bytes of text in them.
    pub text: usize,
}

/// Reads a listing whose lister ended well.
pub fn read(kind: Kind, bytes: &[u8]) -> Read {
    let (mut messages, mut text) = (Vec::new(), 0);
    let trouble = listed::read(kind, bytes, NOW, &mut |message| {
        text += length(message);
        messages.push(message.clone().into_owned());
    });
    Read { messages, trouble, text }
}

fn clock(now: i64) -> Clock {
    Clock { now, zone: TimeZone::UTC }
}

/// Any listing: what comes of it adds up, and comes out once in every form.
pub fn listing(kind: Kind, bytes: &[u8]) {
    let Read { messages, trouble, text } = read(kind, bytes);
    assert!(messages.len() <= bytes.split(|byte| *byte == b'\n').count(), "more messages than lines");
    // A byte that is no text becomes three; a state may have a name of its own; sendmail gives one reason of 100 bytes
    // for all recipients of a message.
    let recipients: usize = messages.iter().map(|message| message.recipients.len()).sum();
    let most = 3 * bytes.len() + 64 * messages.len() + 512 * recipients;
    assert!(text <= most, "{text} bytes of {}", bytes.len());

    let mut summary = Summary::new(NOW);
    messages.iter().for_each(|message| summary.add(message));
    adds_up(&summary, &messages);
    in_parts(&messages);

    if kind == Kind::Postfix {
        bytes.split(|byte| *byte == b'\n').for_each(json::as_any_parser_reads_it);
    }

    let window = Window { page: 1, per_page: ROWS };
    let mut first = Selection::new(Default::default(), None, window, NOW, None).abridged();
    messages.iter().for_each(|message| first.offer(message));
    let rows = first.into_rows().unwrap();
    let report = report(kind, summary, trouble, window);
    let told = Sentences::of(&report);
    let names = told.details.iter().map(|detail| &detail.name).chain([&told.for_whom[1]]);
    names.for_each(|name| assert!(name.chars().count() <= 121, "{name}"));
    let shown = &messages[..rows.len()];
    assert_eq!(as_page(&report, &rows), printed_ids(shown), "the page");
    assert_eq!(json::as_json(&report, &messages), ids(&messages), "JSON");
    assert_eq!(as_csv(&report, &messages), ids_of_lines(&messages), "CSV");
    as_text(&report, &messages);
    as_metrics(&report, &messages);
    for message in &messages {
        assert!(length(&Mask::LocalPart.hide(message)) <= 4 * length(message) + 64);
    }
}

/// Bytes of a message's text; a reason that recipients share counts once.
fn length(message: &Message<'_>) -> usize {
    let mut last = None;
    let recipients = message.recipients.iter().map(|recipient| {
        let reason = recipient.reason.as_deref();
        let shared = std::mem::replace(&mut last, reason.map(str::as_ptr)) == reason.map(str::as_ptr);
        recipient.address.len() + reason.filter(|_| !shared).map_or(0, str::len)
    });
    message.id.len()
        + message.mta_state.len()
        + message.sender.as_ref().map_or(0, |sender| sender.len())
        + recipients.sum::<usize>()
}

fn ids(messages: &[Message<'_>]) -> Vec<String> {
    messages.iter().map(|message| message.id.clone().into_owned()).collect()
}

fn printed_ids(messages: &[Message<'_>]) -> Vec<String> {
    messages.iter().map(|message| printable(&message.id).into_owned()).collect()
}

/// A line a recipient, and one for a message without any. A field that looks like a formula gets an apostrophe.
fn ids_of_lines(messages: &[Message<'_>]) -> Vec<String> {
    let lines = messages.iter().flat_map(|message| vec![message.id.as_ref(); message.recipients.len().max(1)]);
    lines.map(|id| printable(id).replace('\'', "")).collect()
}

fn adds_up(summary: &Summary, messages: &[Message<'_>]) {
    let recipients = || messages.iter().flat_map(|message| &message.recipients);
    let waiting = recipients().filter(|recipient| !recipient.delivered).count() as u64;
    assert_eq!(summary.messages, messages.len() as u64);
    assert_eq!((summary.recipients, summary.delivered), (waiting, recipients().count() as u64 - waiting));
    assert_eq!(State::ALL.map(|state| summary.state(state)).iter().sum::<u64>(), summary.messages);
    assert_eq!(State::ALL.map(|state| summary.recipients_in(state)).iter().sum::<u64>(), summary.recipients);
    let with_reason = recipients().filter(|recipient| !recipient.delivered && recipient.reason.is_some()).count();
    for limit in [0, 1, 7, 10_000] {
        let destinations = summary.destinations(limit);
        assert!(destinations.len() <= limit + 1);
        assert_eq!(destinations.iter().map(|d| d.recipients).sum::<u64>(), summary.recipients);
        for destination in &destinations {
            assert!(destination.ages.iter().sum::<u64>() <= destination.recipients);
            assert!((1..=destination.recipients).contains(&destination.messages), "{destination:?}");
        }
        assert_eq!(summary.reasons(limit).iter().map(|r| r.recipients).sum::<u64>(), with_reason as u64);
    }
    let bytes: u64 = messages.iter().filter_map(|message| message.size).fold(0, u64::saturating_add);
    assert_eq!(summary.bytes().unwrap_or_default(), bytes);
}

/// The pages of every order hold each message once.
fn in_parts(messages: &[Message<'_>]) {
    let orders = SortKey::ALL.into_iter().flat_map(|key| [false, true].map(|reversed| Some(Order { key, reversed })));
    for order in orders.chain([None]) {
        let page = |page| {
            let window = Window { page, per_page: 7 };
            let mut selection = Selection::new(Default::default(), order, window, NOW, None);
            messages.iter().for_each(|message| selection.offer(message));
            assert_eq!(selection.matched(), messages.len() as u64);
            selection.into_rows().unwrap()
        };
        let last = messages.len().min(21).div_ceil(7);
        let mut left: HashMap<&str, i64> = HashMap::new();
        messages.iter().for_each(|message| *left.entry(&message.id).or_default() += 1);
        let mut shown = 0;
        for Row { message: row, .. } in (1..=last).flat_map(page) {
            shown += 1;
            *left.get_mut(&*row.id).unwrap() -= 1;
        }
        assert_eq!(shown, messages.len().min(21));
        assert!(left.values().all(|left| *left >= 0), "{order:?} shows a message twice");
    }
}

fn report(kind: Kind, summary: Summary, trouble: Option<Trouble>, window: Window) -> Report {
    let selection = Some((window, summary.messages));
    let listing = Listing {
        trouble,
        summary,
        kind: Some(kind),
        facts: Facts::default(),
        sampling: Sampling { command: "lister".into(), started: NOW, took: Duration::from_millis(1) },
    };
    Report {
        host: "mx2.example.com".into(),
        label: None,
        zone: TimeZone::UTC,
        user: "www-data".into(),
        listing,
        gap: None,
        selection,
        note: None,
        unexplained: None,
        filesystems: Vec::new(),
        history: Vec::new(),
        primary: PrimaryStatus::default(),
        outages: Default::default(),
        flush: Readiness {
            possible: Ok(()),
            parts: true,
            held: Held { all: false, one_by_one: true, message: true },
            left_out: vec![],
            release: "".into(),
            wait_seconds: 0,
            under_way: false,
            log: Vec::new(),
            unguarded: None,
            set_aside: None,
        },
        followed: None,
        unrecorded: None,
    }
}

macro_rules! selector {
    ($text:literal) => {
        LazyLock::new(|| Selector::parse($text).unwrap())
    };
}

/// The ids in the page's rows.
fn as_page(report: &Report, rows: &[Row]) -> Vec<String> {
    let page = html::page(report, rows, &Asked::of(Format::Html)).into_string();
    let document = well_formed(&page);
    let id = |row: scraper::ElementRef<'_>| row.select(&ID).next().unwrap().text().collect();
    document.select(&ROW).map(id).collect()
}

static ROW: LazyLock<Selector> = selector!(".messages tbody tr");
static ID: LazyLock<Selector> = selector!("td:last-child code");
static LINK: LazyLock<Selector> = selector!("a");
static SORT: LazyLock<Selector> = selector!("th a");
static ACTIVE: LazyLock<Selector> =
    selector!("script,iframe,object,embed,img,base,[onclick],[onerror],[onload],[style]");

/// A page as a browser reads it, which finds nothing wrong with it, and runs nothing.
fn well_formed(page: &str) -> Html {
    let document = Html::parse_document(page);
    assert_eq!(document.errors, Vec::<String>::new(), "{page}");
    assert!(document.select(&ACTIVE).next().is_none(), "{page}");
    for link in document.select(&LINK) {
        let target = link.attr("href").unwrap();
        assert!(target.starts_with(['?', '#', '.', '/']) || target.starts_with("https://"), "{target}");
    }
    document
}

fn written(mut form: impl Form, report: &Report, messages: &[Message<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut body = Body::into(&mut bytes);
    form.begin(&NOW.into(), &mut body).unwrap();
    messages.iter().for_each(|message| form.message(message, &mut body).unwrap());
    form.end(report, &[], &mut body).unwrap();
    body.finish().unwrap();
    drop(body);
    bytes
}

fn as_csv(report: &Report, messages: &[Message<'_>]) -> Vec<String> {
    let csv = written(Csv::default(), report, messages);
    let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(csv.as_slice());
    let lines: Vec<_> = reader.records().map(Result::unwrap).collect();
    let incomplete = report.listing.trouble.is_some();
    assert!(!incomplete || lines.last().is_some_and(|line| &line[1] == "INCOMPLETE"));
    no_cell_is_a_formula(&csv);
    let lines = &lines[..lines.len() - usize::from(incomplete)];
    lines.iter().map(|line| line[0].replace('\'', "")).collect()
}

/// Whatever a spreadsheet takes for the end of a cell, and whether or not quotes keep one together.
fn no_cell_is_a_formula(csv: &[u8]) {
    let check = |cell: &str| {
        let begins = cell.trim_start_matches(|c: char| c.is_whitespace() || c == '"');
        assert!(!begins.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']), "{cell:?} is a formula");
    };
    for separator in [b',', b';', b'|', b'\t'] {
        let mut reader = csv::ReaderBuilder::new();
        let mut reader = reader.flexible(true).has_headers(false).delimiter(separator).from_reader(csv);
        reader.records().for_each(|line| line.unwrap().iter().for_each(check));
    }
    std::str::from_utf8(csv).unwrap().split(['\n', ';', '|', '\t']).for_each(check);
}

fn as_text(report: &Report, messages: &[Message<'_>]) {
    let text = String::from_utf8(written(Text::new(NOW, None), report, messages)).unwrap();
    let acts = |c: char| c != '\n' && printable(c.encode_utf8(&mut [0; 4])).len() > c.len_utf8();
    assert_eq!(text.chars().find(|c| acts(*c)), None, "{text:?}");
    for message in messages {
        assert!(text.contains(&*printable(&message.id)), "no {:?} in {text}", message.id);
    }
}

fn as_metrics(report: &Report, messages: &[Message<'_>]) {
    let metrics = written(OpenMetrics, report, messages);
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.ends_with("# EOF\n"));
    assert!(metrics.lines().all(|line| line.starts_with("# ") || line.starts_with("bartleby_")), "{metrics}");
    let mut samples = std::collections::HashSet::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (sample, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok() && samples.insert(sample), "{line} is there twice");
    }
    let up = if report.listing.trouble.is_some() { "bartleby_up 0\n" } else { "bartleby_up 1\n" };
    assert!(metrics.contains(up), "{metrics}");
}

/// Any query string: it is understood or refused, and the links of its page ask for the same again.
pub fn query(bytes: &[u8]) {
    let Ok(request) = request(|name| (name == "QUERY_STRING").then(|| bytes.to_vec()), &[]) else { return };
    let asked = match Asked::read(request.parameters(), Format::Html) {
        Ok(asked) => asked,
        Err(bad) => {
            well_formed(
                &html::notice(
                    view::Reader::Admitted { host: "mx2.example.com" },
                    "Not understood",
                    &bad.to_string(),
                    "",
                )
                .into_string(),
            );
            return;
        }
    };
    let window = asked.window.unwrap_or(Window { page: 1, per_page: ROWS });
    assert!(window.page >= 1 && (1..=1000).contains(&window.per_page));
    let message = read(Kind::Postfix, MESSAGE).messages.remove(0);
    let matches = u64::from(asked.filter.matches(&message, &NOW.into()));
    let mut selection = Selection::new(asked.filter.clone(), asked.order, Window { page: 1, ..window }, NOW, None);
    selection.offer(&message);
    assert_eq!(selection.matched(), matches);
    let rows = selection.into_rows().unwrap();
    let mut summary = Summary::new(NOW);
    summary.add(&message);
    let report = Report { selection: Some((window, matches)), ..report(Kind::Postfix, summary, None, window) };
    let asked = Asked { window: Some(window), ..asked };
    let document = well_formed(&html::page(&report, &rows, &asked).into_string());
    // A column's link keeps the filter.
    for link in document.select(&SORT) {
        // A browser keeps what is behind the "#" to itself.
        let target = link.attr("href").unwrap().trim_start_matches('?');
        let again = target.split('#').next().unwrap_or_default().as_bytes().to_vec();
        let request = self::request(|name| (name == "QUERY_STRING").then(|| again.clone()), &[]).unwrap();
        let again = Asked::read(request.parameters(), Format::Html).unwrap();
        assert_eq!(again.filter, asked.filter);
    }
}

/// A message that filters are tried on.
const MESSAGE: &[u8] = br#"{"queue_name": "deferred", "queue_id": "951BB98C3CD", "arrival_time": 1795434000, "message_size": 344, "sender": "sender@example.org", "recipients": [{"address": "larry@example.com", "delay_reason": "connect to mx: Connection refused"}]}
"#;

fn request(
    variable: impl Fn(&str) -> Option<Vec<u8>>,
    body: &[u8],
) -> Result<Request, bartleby::cgi::gateway::Unacceptable> {
    Request::read(|name| variable(name).map(OsString::from_vec), body)
}

/// The variables of a request, in the order in which [`environment`] fills them.
const VARIABLES: [&str; 17] = [
    "REQUEST_METHOD",
    "QUERY_STRING",
    "CONTENT_LENGTH",
    "CONTENT_TYPE",
    "REMOTE_ADDR",
    "REMOTE_USER",
    "BARTLEBY_ACCESS",
    "HTTP_ACCEPT",
    "HTTP_HOST",
    "HTTP_ORIGIN",
    "HTTP_REFERER",
    "HTTP_USER_AGENT",
    "HTTP_SEC_FETCH_SITE",
    "HTTP_SEC_PURPOSE",
    "HTTP_PURPOSE",
    "HTTP_X_PURPOSE",
    "HTTP_X_MOZ",
];

/// Any environment and body, one value a line (an empty one is not set), the body last: nothing panics, and nobody is
/// let in but by an address or the web server's word.
pub fn environment(bytes: &[u8]) {
    let mut lines = bytes.splitn(VARIABLES.len() + 1, |byte| *byte == b'\n');
    let mut values = HashMap::new();
    for name in VARIABLES {
        values.insert(name, lines.next().unwrap_or_default().to_vec());
    }
    let value = |name: &str| values.get(name).filter(|value| !value.is_empty()).cloned();
    let body = lines.next().unwrap_or_default();
    let Ok(request) = request(value, body) else { return };
    let allow = bartleby::config::AccessConfig::default().allow;
    if access::is_granted(&request, &allow) {
        let address = request.remote_addr.is_some_and(|address| address.to_canonical().is_loopback());
        assert!(request.access_granted || address, "{request:?}");
    }
    let meant = access::is_meant(&request).is_ok();
    let foreign = ["cross-site", "same-site"].map(|site| Some(site.as_bytes().to_vec()));
    assert!(!meant || !foreign.contains(&value("HTTP_SEC_FETCH_SITE")), "{request:?}");
    assert!(!meant || value("HTTP_ORIGIN") != Some(b"null".to_vec()), "{request:?}");
    let format = view::accepted(request.accept.as_deref().unwrap_or_default());
    assert!(Format::ALL.contains(&format));
    let _ = Asked::read(request.parameters(), format);
}

/// Any configuration: it is taken, or refused with its file and what is wrong, on one line.
pub fn configuration(bytes: &[u8]) {
    match Config::from_bytes(bytes, Path::new("/etc/bartleby.toml")) {
        Ok(config) => assert!(config.mta.deadline > Duration::ZERO),
        Err(error) => {
            let error = error.to_string();
            assert!(error.starts_with("/etc/bartleby.toml") && error.contains(": "), "{error}");
            assert_eq!(printable(&error), error);
        }
    }
}

/// Any request to root: what is understood is one line that says just that, with names that no command could take for
/// anything else.
pub fn as_root(bytes: &[u8]) {
    let request = match Ask::read(bytes) {
        Ok(request) => request,
        Err(error) => return assert!(error.to_string().chars().count() < 300, "{error}"),
    };
    assert!(bytes.len() <= LONGEST && bytes.iter().filter(|byte| **byte == b'\n').count() == 1);
    let line = format!("{}\n", request.line());
    assert_eq!(Ask::read(line.as_bytes()), Ok(request.clone()));
    let (ids, domain) = match &request {
        Ask::List {} => (Vec::new(), None),
        Ask::Run { target: Target::All } => (Vec::new(), None),
        Ask::Run { target: Target::Domain(name) } => (Vec::new(), Some(name)),
        Ask::Run { target: Target::Id(id) } => (vec![id.clone()], None),
        Ask::Reasons { ids } | Ask::Log { ids, .. } => (ids.clone(), None),
        Ask::Next {} | Ask::Mark {} => (Vec::new(), None),
    };
    if let Ask::Log { mark: Some(Mark { cursor: Some(cursor), .. }), .. } = &request {
        assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b";=".contains(&byte)), "{cursor:?}");
    }
    for id in ids {
        let is_plain = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        assert!(is_plain && !id.is_empty() && !id.starts_with('-'), "{id:?}");
    }
    if let Some(name) = domain {
        let acts = |c: char| c.is_ascii_punctuation() && !".-_".contains(c) || c.is_whitespace() || c.is_control();
        assert!(!name.is_empty() && !name.starts_with('-') && !name.contains(acts), "{name:?}");
    }
}

/// Any date of sendmail's, and any present: it lies in the past, and reads as it was written.
pub fn date(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for now in [NOW, 0, 1, -1, 4_294_967_295, 951_782_400, i64::MAX, i64::MIN] {
        let Some(instant) = mta::past_instant(&text, &clock(now)) else { continue };
        assert!(instant <= now, "{text} is {instant}, after {now}");
        let local = jiff::Timestamp::from_second(instant).unwrap().to_zoned(TimeZone::UTC);
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        assert_eq!(words.len(), 3, "{text}");
        if instant < now {
            assert_eq!(words[0], local.strftime("%b").to_string());
            assert_eq!(words[1].parse(), Ok(local.day()));
            let time: Vec<i8> = words[2].split(':').map(|number| number.parse().unwrap()).collect();
            assert_eq!(time[..2], [local.hour(), local.minute()]);
        }
    }
}
