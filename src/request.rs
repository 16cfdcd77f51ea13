//! What a request asks for: the view and its selection, or a flush. Values are vetted here.

pub use crate::queue::Target;
use crate::queue::{Filter, Order, SortKey, State, Window};

/// Rows a page where the request does not say.
pub const DEFAULT_PER_PAGE: usize = 100;

/// The order of the page where the request does not say.
pub const OLDEST_FIRST: Order = Order { key: SortKey::Age, reversed: true };

/// Most rows a page.
const MAX_PER_PAGE: usize = 1000;

/// The forms that an answer can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The page.
    Html,
    /// Plain text for terminals.
    Text,
    /// JSON.
    Json,
    /// CSV (RFC 4180).
    Csv,
    /// OpenMetrics.
    OpenMetrics,
}

impl Format {
    /// Every form.
    pub const ALL: [Format; 5] = [Format::Html, Format::Text, Format::Json, Format::Csv, Format::OpenMetrics];

    /// The word for `format=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Html => "html",
            Format::Text => "text",
            Format::Json => "json",
            Format::Csv => "csv",
            Format::OpenMetrics => "openmetrics",
        }
    }

    /// The format to tell a mistake in: the one that is named, if that is one, else by `Accept`.
    pub fn of(parameters: impl Iterator<Item = (String, String)>, accept: Option<&str>) -> Format {
        let named =
            |(name, value): (String, String)| Format::ALL.into_iter().find(|f| name == "format" && f.as_str() == value);
        parameters.filter_map(named).last().unwrap_or_else(|| Format::accepted(accept.unwrap_or_default()))
    }

    /// The format's media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Html => "text/html; charset=utf-8",
            Format::Text => "text/plain; charset=utf-8",
            Format::Json => "application/json",
            Format::Csv => "text/csv; charset=utf-8; header=present",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The format that an `Accept` header (RFC 9110, section 12.5.1) prefers: browsers name HTML,
    /// curl takes anything and gets text.
    pub fn accepted(accept: &str) -> Format {
        let mut best = (0.0, Format::Text);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "text/html" | "application/xhtml+xml" => Format::Html,
                "application/json" | "application/*" => Format::Json,
                "text/csv" => Format::Csv,
                "application/openmetrics-text" => Format::OpenMetrics,
                "text/plain" | "text/*" | "*/*" => Format::Text,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }
}

/// What is asked, all parameters vetted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `format=`, else by `Accept`.
    pub format: Format,
    /// `q=`, `domain=`, `sender=`, `state=`, `reason=`, `age=`.
    pub filter: Filter,
    /// `sort=`.
    pub order: Option<Order>,
    /// `page=` and `per_page=`; `None` where neither these nor `sort=` are given.
    pub window: Option<Window>,
    /// `flush`.
    pub flush: Option<Target>,
    /// `flushed=`: the number of a flush whose outcome is asked for.
    pub flushed: Option<u64>,
}

/// A parameter with a value that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The value “{value}” of “{name}” is not understood: it should be {expected}.")]
pub struct BadValue {
    /// The parameter.
    pub name: &'static str,
    /// What it was.
    pub value: String,
    /// What it could be.
    pub expected: String,
}

impl Asked {
    /// All of the queue in this form.
    pub fn of(format: Format) -> Asked {
        Asked { format, filter: Filter::default(), order: None, window: None, flush: None, flushed: None }
    }

    /// Reads parameters; unknown ones are ignored, empty ones are as good as absent (a form sends
    /// all its fields).
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn read(parameters: impl Iterator<Item = (String, String)>, accept: Option<&str>) -> Result<Asked, BadValue> {
        let mut asked = Asked::of(Format::of(std::iter::empty(), accept));
        let (mut page, mut per_page) = (None, None);
        for (name, value) in parameters {
            let text = Some(value.clone()).filter(|value| !value.is_empty());
            match name.as_str() {
                "flush" => {
                    let expected = "nothing, all, domain:NAME or id:ID";
                    asked.flush = Some(value.parse().map_err(|()| bad("flush", &value, expected))?);
                }
                _ if value.is_empty() => {}
                "format" => asked.format = word("format", &value, &Format::ALL, Format::as_str)?,
                "state" => asked.filter.state = Some(word("state", &value, &State::ALL, State::as_str)?),
                "q" => asked.filter.text = text,
                "domain" => asked.filter.domain = text,
                "sender" => asked.filter.sender = text,
                "reason" => asked.filter.reason = text,
                "age" => {
                    let expected = "a span of minutes such as 5-10 or 1280-";
                    asked.filter.age = Some(value.parse().map_err(|()| bad("age", &value, expected))?);
                }
                "sort" => {
                    let keys = SortKey::ALL.map(SortKey::as_str).join(", ");
                    let expected = format!("{keys}, each also with - before it");
                    asked.order = Some(Order::from_word(&value).ok_or_else(|| bad("sort", &value, expected))?);
                }
                "page" => page = Some(number("page", &value, 1, u32::MAX as usize)?),
                "per_page" => per_page = Some(number("per_page", &value, 1, MAX_PER_PAGE)?),
                "flushed" => asked.flushed = Some(number("flushed", &value, 0, usize::MAX)? as u64),
                _ => {}
            }
        }
        if page.or(per_page).is_some() || asked.order.is_some() {
            asked.window = Some(Window { page: page.unwrap_or(1), per_page: per_page.unwrap_or(DEFAULT_PER_PAGE) });
        }
        Ok(asked)
    }
}

fn word<T: Copy>(name: &'static str, value: &str, all: &[T], as_str: fn(T) -> &'static str) -> Result<T, BadValue> {
    let words = || all.iter().map(|item| as_str(*item)).collect::<Vec<_>>().join(", ");
    all.iter().copied().find(|item| as_str(*item) == value).ok_or_else(|| bad(name, value, words()))
}

fn number(name: &'static str, value: &str, least: usize, most: usize) -> Result<usize, BadValue> {
    let expected = || format!("a number from {least} to {most}");
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|number| digits && (least..=most).contains(number));
    number.ok_or_else(|| bad(name, value, expected()))
}

fn bad(name: &'static str, value: &str, expected: impl Into<String>) -> BadValue {
    BadValue { name, value: value.to_owned(), expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Asked, BadValue> {
        Asked::read(form_urlencoded::parse(query.as_bytes()).into_owned(), None)
    }

    #[test]
    fn browsers_get_the_page_and_curl_gets_text() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(Format::accepted(firefox), Format::Html);
        assert_eq!(Format::accepted("*/*"), Format::Text);
        assert_eq!(Format::accepted(""), Format::Text);
        assert_eq!(Format::accepted("application/json"), Format::Json);
        assert_eq!(Format::accepted("text/html;q=0.5, application/json"), Format::Json);
        assert_eq!(Format::accepted("image/png"), Format::Text);
    }

    #[test]
    fn every_parameter_is_read() {
        let asked = read(
            "format=json&q=a+b&domain=example.com&sender=%3C%3E&state=held&reason=full&sort=-size&page=3&per_page=20",
        )
        .unwrap();
        assert_eq!(asked.format, Format::Json);
        assert_eq!(asked.filter.text.as_deref(), Some("a b"));
        assert_eq!(asked.filter.sender.as_deref(), Some("<>"));
        assert_eq!(asked.filter.state, Some(State::Held));
        assert_eq!(asked.order, Order::from_word("-size"));
        assert_eq!(asked.window, Some(Window { page: 3, per_page: 20 }));
        assert_eq!(asked.flush, None);
    }

    #[test]
    fn flush_targets() {
        assert_eq!(read("flush").unwrap().flush, Some(Target::All));
        assert_eq!(read("flush=").unwrap().flush, Some(Target::All));
        assert_eq!(read("flush=all").unwrap().flush, Some(Target::All));
        assert_eq!(read("flush=domain:Example.COM").unwrap().flush, Some(Target::Domain("example.com".into())));
        assert_eq!(read("flush=id:4F1A").unwrap().flush, Some(Target::Id("4F1A".into())));
        assert_eq!(read("flushed=7").unwrap().flushed, Some(7));
        for query in ["flush=id:", "flush=yes", "flush=domain:"] {
            assert_eq!(read(query).unwrap_err().name, "flush", "{query}");
        }
    }

    #[test]
    fn bad_values_are_named_and_unknown_parameters_ignored() {
        for (query, name) in [
            ("format=pdf", "format"),
            ("state=lost", "state"),
            ("sort=weight", "sort"),
            ("page=0", "page"),
            ("page=-1", "page"),
            ("page=+1", "page"),
            ("page=99999999999999999999", "page"),
            ("per_page=1001", "per_page"),
            ("flushed=x", "flushed"),
        ] {
            assert_eq!(read(query).unwrap_err().name, name, "{query}");
        }
        assert!(read("utm_source=x&=&&%ff=%fe&state=&page=").unwrap().filter.is_empty());
    }

    #[test]
    fn without_sort_or_page_there_is_no_window() {
        assert_eq!(read("q=x").unwrap().window, None);
        assert_eq!(read("sort=age").unwrap().window, Some(Window { page: 1, per_page: DEFAULT_PER_PAGE }));
    }
}
