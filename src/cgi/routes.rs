//! One CGI request from its vetted form to its answer: the route table.

use ::cgi::http::{HeaderName, StatusCode, header};

use super::access;
use super::gateway::{self, Head, Method, Request, Unacceptable};
use crate::config::{AccessConfig, Config, ConfigError};
use crate::context::Context;
use crate::flush::{self, Refusal};
use crate::queue::Window;
use crate::report::{self, Answer, HasBody, Verdict};
use crate::request::{Action, Asked, DEFAULT_PER_PAGE, Format, OLDEST_FIRST};
use crate::state::SeenBy;
use crate::system::{self, Free, log};
use crate::view::{self, Setting, html, json};

/// How often the page of a queue run that goes on renews itself, in seconds.
const RENEWED: u32 = 3;

/// A page, or whatever else a request may get.
struct Route {
    /// Whether a request is for it.
    is_for: fn(&Asked, Method) -> bool,
    /// Its answer.
    answer: for<'a> fn(&Exchange<'a>, &Context, &Asked),
}

/// Every page; the first that a request is for answers it.
static ROUTES: [Route; 2] = [
    // HEAD changes nothing: it is answered as if the queue were looked at.
    Route {
        is_for: |asked, method| asked.action.changes() && method != Method::Head,
        answer: |exchange, context, asked| exchange.flush(context, asked),
    },
    Route { is_for: |_, _| true, answer: |exchange, context, asked| exchange.queue(context, asked) },
];

/// Answers a request. The environment must have been emptied.
pub fn answer(free: Free, request: Result<Request, Unacceptable>, config: Result<Config, ConfigError>) {
    let request = match request {
        Ok(request) => request,
        Err(unacceptable) => {
            let head = Head::new(unacceptable.status(), view::form(Format::Text).media_type);
            let head = match unacceptable {
                Unacceptable::Method(_) => head.with(header::ALLOW, "GET, HEAD, POST"),
                _ => head,
            };
            return gateway::send(&head, format!("{unacceptable}\n").into_bytes());
        }
    };
    // Without a configuration nobody but the default's own learns what is wrong with it.
    let allow = config.as_ref().map_or_else(|_| AccessConfig::default().allow, |config| config.access.allow.clone());
    let accepted = view::accepted(request.accept.as_deref().unwrap_or_default());
    let format = Format::named(request.parameters()).unwrap_or(accepted);
    let exchange = Exchange { format, request: &request };
    if !access::is_granted(&request, &allow) {
        return exchange.refuse(&Notice {
            status: StatusCode::FORBIDDEN,
            title: "Not allowed from here",
            message: "This page is for certain addresses only, and yours is none of them.",
            remedy: "Either let the web server decide, with Require ip and SetEnv BARTLEBY_ACCESS granted in its configuration \
                     (see apache/bartleby.conf), or list the address in /etc/bartleby.toml: [access] allow = [\"192.0.2.0/24\"]",
            field: None,
        });
    }
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            log(&error.to_string());
            return exchange.refuse(&Notice {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                title: "Configuration error",
                message: &format!("The configuration can't be used: {error}"),
                remedy: &error.remedy(),
                field: None,
            });
        }
    };
    let asked = match Asked::read(request.parameters(), accepted) {
        Ok(asked) => asked,
        Err(bad) => {
            let (status, message) = (StatusCode::BAD_REQUEST, &bad.to_string());
            return exchange.refuse(&Notice { status, title: "Not understood", message, remedy: "", field: None });
        }
    };
    let context = Context::gather(free, SeenBy::Page, config);
    if let Some(route) = ROUTES.iter().find(|route| (route.is_for)(&asked, request.method)) {
        (route.answer)(&exchange, &context, &asked);
    }
}

/// A short answer that says one thing.
struct Notice<'a> {
    status: StatusCode,
    title: &'a str,
    message: &'a str,
    /// What to do about it; empty where nothing is to be done.
    remedy: &'a str,
    field: Option<(HeaderName, String)>,
}

/// What all answers to one request have in common.
struct Exchange<'a> {
    request: &'a Request,
    format: Format,
}

impl Exchange<'_> {
    /// The queue, in any form.
    fn queue(&self, context: &Context, asked: &Asked) {
        let mut asked = asked.clone();
        if asked.format == Format::Html {
            // The page is always one of several.
            asked.window = asked.window.or(Some(Window { page: 1, per_page: DEFAULT_PER_PAGE }));
            asked.order = asked.order.or(Some(OLDEST_FIRST));
        }
        let row = view::form(asked.format);
        let mut form = (row.begin)(&Setting { now: context.clock.now, asked: &asked, terminal: None });
        let head = |verdict: Verdict| {
            let failed = StatusCode::from_u16(row.failed).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            let head = Head::new(if verdict.status == 0 { StatusCode::OK } else { failed }, row.media_type);
            let renewed = verdict.renew.then(|| (header::REFRESH, RENEWED.to_string()));
            renewed.into_iter().fold(head, |head, (name, value)| head.with(name, value)).to_bytes()
        };
        let body = if self.request.method == Method::Head { HasBody::No } else { HasBody::Yes };
        // An error of writing is a reader who went away, which has ended the listing, too.
        let _ = report::answer(context, &asked, &mut *form, &Answer { head: Some(&head), body });
    }

    /// Runs the queue.
    fn flush(&self, context: &Context, asked: &Asked) {
        let Action::Flush(target) = &asked.action else { return };
        if let Err(not_meant) = access::is_meant(self.request) {
            let (status, message) = (StatusCode::FORBIDDEN, &not_meant.to_string());
            return self.refuse(&Notice { status, title: "Not run", message, remedy: "", field: None });
        }
        let by = [self.request.remote_user.clone(), self.request.remote_addr.map(|address| address.to_string())];
        let by = by.into_iter().flatten().collect::<Vec<_>>().join(" at ");
        let by = if by.is_empty() { "somebody unknown".to_owned() } else { by };
        match flush::start(context, target, by) {
            Ok(flush) => {
                let place = format!("?flushed={}", flush.number);
                let media_type = view::form(Format::Text).media_type;
                let head = Head::new(StatusCode::SEE_OTHER, media_type).with(header::LOCATION, &*place);
                self.send(&head, format!("The queue run was started: {place}\n").into_bytes());
            }
            Err(refusal) => self.refuse_to_run(context, refusal),
        }
    }

    fn refuse_to_run(&self, context: &Context, refusal: Refusal) {
        let message = &refusal.to_string();
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
                log(message);
                (StatusCode::SERVICE_UNAVAILABLE, "The queue was not run", trouble.remedy(), None)
            }
        };
        let field = wait.map(|seconds| (header::RETRY_AFTER, seconds.to_string()));
        self.refuse(&Notice { status, title, message, remedy: &remedy, field });
    }

    fn refuse(&self, notice: &Notice<'_>) {
        // A refusal is no table and no metric.
        let format = match self.format {
            Format::Csv | Format::OpenMetrics => Format::Text,
            format => format,
        };
        let mut head = Head::new(notice.status, view::form(format).media_type);
        head.fields.extend(notice.field.clone());
        let Notice { title, message, remedy, .. } = notice;
        let body = match format {
            Format::Html => html::notice(&system::host_name(), title, message, remedy).into_string().into_bytes(),
            Format::Json => json::refusal(message, remedy),
            Format::Text | Format::Csv | Format::OpenMetrics => {
                (format!("{title}: {message}\n{remedy}").trim_end().to_owned() + "\n").into_bytes()
            }
        };
        self.send(&head, body);
    }

    fn send(&self, head: &Head, body: Vec<u8>) {
        gateway::send(head, if self.request.method == Method::Head { Vec::new() } else { body });
    }
}
