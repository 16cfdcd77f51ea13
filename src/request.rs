//! What a request asks for: the view and its selection, or a flush. Values are vetted here.

use crate::queue::{Despite, Filter, Order, SortKey, State, Target, Window};

/// Rows a page where the request does not say.
pub(crate) const DEFAULT_PER_PAGE: usize = 100;

/// The order of the page where the request does not say.
pub(crate) const OLDEST_FIRST: Order = Order { key: SortKey::Age, reversed: true };

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
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Format::Html => "html",
            Format::Text => "text",
            Format::Json => "json",
            Format::Csv => "csv",
            Format::OpenMetrics => "openmetrics",
        }
    }

    /// The format that a request names, if it is one.
    pub(crate) fn named(parameters: impl Iterator<Item = (String, String)>) -> Option<Format> {
        let named =
            |(name, value): (String, String)| Format::ALL.into_iter().find(|f| name == "format" && f.as_str() == value);
        parameters.filter_map(named).last()
    }
}

/// What a request may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It looks at the queue.
    Show,
    /// It runs the queue, or a part of it.
    Flush(Target),
}

impl Action {
    /// Whether it changes something: then it must be meant, and HEAD does not do it.
    pub(crate) fn changes(&self) -> bool {
        matches!(self, Action::Flush(_))
    }
}

/// What is asked, all parameters vetted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// `format=`, else by `Accept`.
    pub format: Format,
    /// `q=`, `domain=`, `sender=`, `state=`, `reason=`, `age=`, `returns=`.
    pub filter: Filter,
    /// `sort=`.
    pub order: Option<Order>,
    /// `page=` and `per_page=`; `None` where neither these nor `sort=` are given.
    pub window: Option<Window>,
    /// `flush`: what is to be done.
    pub action: Action,
    /// `despite=`: against what the queue is to be run all the same.
    pub despite: Option<Despite>,
    /// `flushed=`: the number of a flush whose outcome is asked for.
    pub flushed: Option<u64>,
    /// `outage=`: the number of an outage whose receipt is asked for.
    pub outage: Option<u64>,
    /// `live`: the page is to renew itself.
    pub live: bool,
}

/// A parameter with a value that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The value “{value}” of “{name}” is not understood: it should be {expected}.")]
pub struct BadValue {
    /// The parameter.
    pub(crate) name: &'static str,
    /// What it was.
    pub(crate) value: String,
    /// What it could be.
    pub(crate) expected: String,
}

impl Asked {
    /// All of the queue in this form.
    pub fn of(format: Format) -> Asked {
        Asked {
            format,
            filter: Filter::default(),
            order: None,
            window: None,
            action: Action::Show,
            despite: None,
            flushed: None,
            outage: None,
            live: false,
        }
    }

    /// Reads parameters; without `format=` the answer comes in `format`. Unknown ones are ignored, empty ones are as good as absent (a form sends
    /// all its fields).
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn read(parameters: impl Iterator<Item = (String, String)>, format: Format) -> Result<Asked, BadValue> {
        let mut asked = Asked::of(format);
        let (mut page, mut per_page) = (None, None);
        for (name, value) in parameters {
            let text = Some(value.clone()).filter(|value| !value.is_empty());
            match name.as_str() {
                "flush" => {
                    let expected = "nothing, all, domain:NAME or id:ID";
                    asked.action = Action::Flush(value.parse().map_err(|()| bad("flush", &value, expected))?);
                }
                "live" => asked.live = true,
                _ if value.is_empty() => {}
                "format" => asked.format = word("format", &value, &Format::ALL, Format::as_str)?,
                "despite" => asked.despite = Some(word("despite", &value, &Despite::ALL, Despite::as_str)?),
                "state" => asked.filter.state = Some(word("state", &value, &State::ALL, State::as_str)?),
                "q" => asked.filter.text = text,
                "domain" => asked.filter.domain = text,
                "sender" => asked.filter.sender = text,
                "reason" => asked.filter.reason = text,
                "age" => {
                    let expected = "a span of minutes such as 5-10 or 1280-";
                    asked.filter.age = Some(value.parse().map_err(|()| bad("age", &value, expected))?);
                }
                "returns" => {
                    let expected = "overdue, never, or a time such as 90m, 12h or 2d";
                    asked.filter.returns = Some(value.parse().map_err(|()| bad("returns", &value, expected))?);
                }
                "sort" => {
                    let keys = SortKey::ALL.map(SortKey::as_str).join(", ");
                    let expected = format!("{keys}, each also with - before it");
                    asked.order = Some(Order::from_word(&value).ok_or_else(|| bad("sort", &value, expected))?);
                }
                "page" => page = Some(number("page", &value, 1, u32::MAX as usize)?),
                "per_page" => per_page = Some(number("per_page", &value, 1, MAX_PER_PAGE)?),
                "flushed" => asked.flushed = Some(number("flushed", &value, 0, usize::MAX)? as u64),
                "outage" => asked.outage = Some(number("outage", &value, 1, u32::MAX as usize)? as u64),
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
        Asked::read(form_urlencoded::parse(query.as_bytes()).into_owned(), Format::Text)
    }

    #[test]
    fn every_parameter_is_read() {
        let asked = read(
            "format=json&q=a+b&domain=example.com&sender=%3C%3E&state=held&reason=full&sort=-size&page=3&per_page=20&returns=1d",
        )
        .unwrap();
        assert_eq!(asked.format, Format::Json);
        assert_eq!(asked.filter.text.as_deref(), Some("a b"));
        assert_eq!(asked.filter.sender.as_deref(), Some("<>"));
        assert_eq!(asked.filter.state, Some(State::Held));
        assert_eq!(asked.order, Order::from_word("-size"));
        assert_eq!(asked.filter.returns.unwrap().to_string(), "1d");
        assert_eq!(asked.window, Some(Window { page: 3, per_page: 20 }));
        assert!(!asked.action.changes());
    }

    #[test]
    fn flush_targets() {
        assert_eq!(read("flush").unwrap().action, Action::Flush(Target::All));
        assert_eq!(read("flush=").unwrap().action, Action::Flush(Target::All));
        assert_eq!(read("flush=all").unwrap().action, Action::Flush(Target::All));
        assert_eq!(
            read("flush=domain:Example.COM").unwrap().action,
            Action::Flush(Target::Domain("example.com".into()))
        );
        assert_eq!(read("flush=id:4F1A").unwrap().action, Action::Flush(Target::Id("4F1A".into())));
        assert_eq!(read("flush=all&despite=refusals").unwrap().despite, Some(Despite::Refusals));
        assert_eq!(read("flush=all&despite=overdue").unwrap().despite, Some(Despite::Overdue));
        assert_eq!(read("flush=all&despite=everything").unwrap_err().name, "despite");
        assert_eq!(read("flushed=7").unwrap().flushed, Some(7));
        assert_eq!(["live", "live=1", "q=live"].map(|query| read(query).unwrap().live), [true, true, false]);
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
            ("outage=0", "outage"),
            ("outage=-1", "outage"),
            ("outage=99999999999", "outage"),
            ("returns=soon", "returns"),
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
