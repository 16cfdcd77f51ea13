//! One CGI request from its vetted form to its answer: the routes.

use std::io::{self, Write};

use ::cgi::http::{StatusCode, header};

use crate::cgi::access;
use crate::cgi::gateway::{self, Head, Method, Request, Stream, Unacceptable};
use crate::config::{AccessConfig, Config, ConfigError};
use crate::context::Context;
use crate::flush::{self, Refusal};
use crate::mta::trouble::Status;
use crate::queue::Window;
use crate::report::look;
use crate::request::{Asked, DEFAULT_PER_PAGE, Format, OLDEST_FIRST, Target};
use crate::system;
use crate::view::csv::Csv;
use crate::view::json::{self, Json};
use crate::view::openmetrics::OpenMetrics;
use crate::view::text::{Terminal, Text};
use crate::view::{Streamed, html};

/// How long after a queue run its page renews itself at the most, and how often, in seconds.
const FOLLOWED: i64 = flush::WATCHED.as_secs() as i64;
const RENEWED: u32 = 3;

/// Answers a request. The environment must have been emptied.
pub fn answer(request: Result<Request, Unacceptable>, config: Result<Config, ConfigError>) {
    let request = match request {
        Ok(request) => request,
        Err(unacceptable) => {
            let head = Head::new(unacceptable.status(), Format::Text.media_type());
            let head = match unacceptable {
                Unacceptable::Method(_) => head.with(header::ALLOW, "GET, HEAD, POST"),
                _ => head,
            };
            return gateway::send(&head, format!("{unacceptable}\n").into_bytes());
        }
    };
    // Without a configuration nobody but the default's own is told what is wrong with it.
    let allow = config.as_ref().map_or_else(|_| AccessConfig::default().allow, |config| config.access.allow.clone());
    let accept = request.accept.as_deref();
    let answer = Answer { format: Format::of(request.parameters(), accept), request: &request };
    if !access::is_granted(&request, &allow) {
        return answer.refuse(
            StatusCode::FORBIDDEN,
            "Not allowed from here",
            "This page is for certain addresses only, and yours is none of them.",
            "Either let the web server decide, with Require ip and SetEnv BARTLEBY_ACCESS granted in its configuration \
             (see apache/bartleby.conf), or list the address in /etc/bartleby.toml: [access] allow = [\"192.0.2.0/24\"]",
        );
    }
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            system::log(&error.to_string());
            let message = format!("The configuration can't be used: {error}");
            return answer.refuse(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Configuration error",
                &message,
                "Correct that line.",
            );
        }
    };
    let asked = match Asked::read(request.parameters(), accept) {
        Ok(asked) => asked,
        Err(bad) => return answer.refuse(StatusCode::BAD_REQUEST, "Not understood", &bad.to_string(), ""),
    };
    let context = Context::gather(config);
    match &asked.flush {
        Some(target) if request.method != Method::Head => answer.flush(&context, target),
        _ if asked.format == Format::Html => answer.page(&context, &asked),
        _ => answer.stream(&context, &asked),
    }
}

/// What all answers to one request have in common.
struct Answer<'a> {
    request: &'a Request,
    format: Format,
}

impl Answer<'_> {
    fn page(&self, context: &Context, asked: &Asked) {
        let window = asked.window.unwrap_or(Window { page: 1, per_page: DEFAULT_PER_PAGE });
        let asked = Asked { window: Some(window), order: Some(asked.order.unwrap_or(OLDEST_FIRST)), ..asked.clone() };
        let Ok((report, rows)) = look(context, &asked, &mut |_| Ok(())) else { return };
        let mut head = Head::new(StatusCode::OK, Format::Html.media_type());
        if let Some((flush, outcome)) = &report.followed
            && !outcome.settled
            && (0..FOLLOWED).contains(&(context.clock.now - flush.started))
        {
            head = head.with(header::REFRESH, RENEWED.to_string());
        }
        self.send(&head, html::page(&report, &rows, &asked).into_string().into_bytes());
    }

    fn stream(&self, context: &Context, asked: &Asked) {
        let head = Head::new(StatusCode::OK, asked.format.media_type());
        let out = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
        let stream = Stream::new(head, self.request.method != Method::Head, out);
        // An error of writing is a reader that went away, which ended the listing, too.
        let _ = write_listing(context, asked, None, stream).and_then(|(status, stream)| {
            // What scrapes takes an answer of another status for none at all, and would miss "bartleby_up 0".
            stream.finish(if asked.format == Format::OpenMetrics { StatusCode::OK } else { status })
        });
    }

    fn flush(&self, context: &Context, target: &Target) {
        if let Err(not_meant) = access::is_meant(self.request) {
            return self.refuse(StatusCode::FORBIDDEN, "Not run", &not_meant.to_string(), "");
        }
        let by = [self.request.remote_user.clone(), self.request.remote_addr.map(|address| address.to_string())];
        let by = by.into_iter().flatten().collect::<Vec<_>>().join(" at ");
        let by = if by.is_empty() { "somebody unknown".to_owned() } else { by };
        match flush::start(context, target, by) {
            Ok(flush) => {
                let place = format!("?flushed={}", flush.number);
                let head = Head::new(StatusCode::SEE_OTHER, Format::Text.media_type()).with(header::LOCATION, &*place);
                self.send(&head, format!("The queue run was started: {place}\n").into_bytes());
            }
            Err(refusal) => {
                let message = refusal.to_string();
                let (status, title, remedy, wait) = match refusal {
                    Refusal::CoolDown(seconds) => {
                        (StatusCode::TOO_MANY_REQUESTS, "Not run again yet", String::new(), Some(seconds))
                    }
                    Refusal::UnderWay => {
                        let seconds = context.config.flush.cooldown.as_secs().max(1);
                        (StatusCode::TOO_MANY_REQUESTS, "Being run already", String::new(), Some(seconds))
                    }
                    Refusal::NotQueued(_) => (StatusCode::NOT_FOUND, "Nothing to run", String::new(), None),
                    Refusal::Part(_) | Refusal::NotPlain(_) | Refusal::TooMany(_) => {
                        (StatusCode::BAD_REQUEST, "Not run", String::new(), None)
                    }
                    Refusal::Held { release } => (StatusCode::CONFLICT, "Not run", release.to_owned(), None),
                    Refusal::Impossible(trouble) => {
                        system::log(&message);
                        (StatusCode::SERVICE_UNAVAILABLE, "The queue was not run", trouble.remedy(), None)
                    }
                };
                let fields = wait.map(|seconds| (header::RETRY_AFTER, seconds.to_string()));
                self.refuse_with(status, title, &message, &remedy, fields);
            }
        }
    }

    fn refuse(&self, status: StatusCode, title: &str, message: &str, remedy: &str) {
        self.refuse_with(status, title, message, remedy, None);
    }

    fn refuse_with(
        &self,
        status: StatusCode,
        title: &str,
        message: &str,
        remedy: &str,
        field: Option<(::cgi::http::HeaderName, String)>,
    ) {
        // A refusal is no table and no metric.
        let format = match self.format {
            Format::Csv | Format::OpenMetrics => Format::Text,
            format => format,
        };
        let mut head = Head::new(status, format.media_type());
        head.fields.extend(field);
        let body = match format {
            Format::Html => html::notice(&system::host_name(), title, message, remedy).into_string().into_bytes(),
            Format::Json => json::refusal(message, remedy),
            Format::Text | Format::Csv | Format::OpenMetrics => {
                format!("{title}: {message}\n{remedy}\n").trim_end().to_owned().into_bytes()
            }
        };
        self.send(&head, body);
    }

    fn send(&self, head: &Head, body: Vec<u8>) {
        gateway::send(head, if self.request.method == Method::Head { Vec::new() } else { body });
    }
}

/// Lists, and writes that, perhaps to a terminal, in the form that is asked for (the page is none of these: it comes as text). Returns the
/// HTTP status that tells how it went, and the writer.
///
/// # Errors
/// Those of writing.
pub fn write_listing<W: Write>(
    context: &Context,
    asked: &Asked,
    terminal: Option<Terminal>,
    out: W,
) -> io::Result<(StatusCode, W)> {
    Ok(match asked.format {
        Format::Json => {
            let mut json = Json::begin(out)?;
            (write_in(context, asked, &mut json)?, json.into_inner()?)
        }
        Format::Csv => {
            let mut csv = Csv::begin(out)?;
            (write_in(context, asked, &mut csv)?, csv.into_inner()?)
        }
        Format::OpenMetrics => {
            let mut metrics = OpenMetrics::begin(out);
            (write_in(context, asked, &mut metrics)?, metrics.into_inner())
        }
        Format::Text | Format::Html => {
            let mut text = Text::begin(out, context.clock.now).on(terminal);
            (write_in(context, asked, &mut text)?, text.into_inner())
        }
    })
}

fn write_in(context: &Context, asked: &Asked, form: &mut impl Streamed) -> io::Result<StatusCode> {
    let (report, rows) = look(context, asked, &mut |message| form.message(message))?;
    for row in &rows {
        form.message(&row.message)?;
    }
    form.end(&report)?;
    Ok(match report.listing.status() {
        Status::Ok => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    })
}
