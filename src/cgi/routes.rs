//! From a vetted request to its answer: the table of routes.

use ::cgi::http::{HeaderName, StatusCode, header};

use super::gateway::{self, Head, Method, Request, Unacceptable};
use super::host::Misdirected;
use super::{access, host};
use crate::config::{Config, ConfigError};
use crate::context::Context;
use crate::flush::{self, Asker, Care, NotRun, Refusal};
use crate::mta::trouble::Trouble;
use crate::queue::Window;
use crate::report::receipt::Receipt;
use crate::report::{self, Answer, HasBody, Verdict};
use crate::request::{Action, Asked, DEFAULT_PER_PAGE, Format, OLDEST_FIRST};
use crate::state::{RequestPlace, SeenBy};
use crate::system::{self, Free, log};
use crate::view::{self, Reader, Setting, html, json, text};

/// How often the page reloads itself while a queue run goes on, in seconds.
const RENEWED: u32 = 3;

/// How often a page that is kept live reloads itself, in seconds.
const LIVE: u32 = 10;

/// After how many seconds somebody who came when too many requests were under way may come again.
const CROWDED: u32 = 5;

/// One kind of answer.
struct Route {
    /// Whether a request is for it.
    is_for: fn(&Asked, Method) -> bool,
    /// Its answer.
    answer: for<'a> fn(&Exchange<'a>, &Context, &Asked),
}

/// Every route. The first one that fits answers the request.
static ROUTES: [Route; 3] = [
    // HEAD changes nothing: it gets the head of the page.
    Route {
        is_for: |asked, method| asked.action.changes() && method != Method::Head,
        answer: |exchange, context, asked| exchange.flush(context, asked),
    },
    Route {
        is_for: |asked, _| asked.outage.is_some(),
        answer: |exchange, context, asked| exchange.receipt(context, asked),
    },
    Route { is_for: |_, _| true, answer: |exchange, context, asked| exchange.queue(context, asked) },
];

/// Answers a request: vets who asks, by which name, and for what, in this order.
pub fn answer(free: Free, request: Result<Request, Unacceptable>, config: Result<Config, ConfigError>) {
    let request = match request {
        Ok(request) => request,
        Err(unacceptable) => {
            let head = Head::new(unacceptable.status(), view::form(Format::Text).media_type);
            let head = match unacceptable {
                Unacceptable::Method(_) => head.with(header::ALLOW, "GET, HEAD, POST"),
                _ => head,
            };
            return gateway::send(&head, text::refusal("Not understood", &unacceptable.to_string(), ""));
        }
    };
    // Without a configuration nobody but the default's own learns what is wrong with it.
    let default = Config::default();
    let settings = config.as_ref().unwrap_or(&default);
    let accepted = match request.accept.as_deref() {
        // Some servers (mini_httpd, Boa) keep it to themselves.
        None if request.user_agent.as_deref().is_some_and(access::is_browser) => Format::Html,
        accept => view::accepted(accept.unwrap_or_default()),
    };
    let format = Format::named(request.parameters()).unwrap_or(accepted);
    let exchange = Exchange { format, request: &request };
    if !access::is_granted(&request, &settings.access.allow) {
        return exchange.turn_away(&Notice {
            status: StatusCode::FORBIDDEN,
            title: "Not allowed from here",
            message: "This page is for certain addresses only, and yours is not one of them.",
            remedy: "Let the web server decide, with these lines in its configuration (see apache/bartleby.conf):\n    Require ip \
                     192.0.2.0/24\n    SetEnv BARTLEBY_ACCESS granted\nOr list the address in /etc/bartleby.toml:\n    [access]\n    \
                     allow = [\"192.0.2.0/24\"]",
            field: None,
        });
    }
    if let Some(field) = access::local_proxy(&request).filter(|_| !settings.access.proxy) {
        return exchange.turn_away(&Notice {
            status: StatusCode::FORBIDDEN,
            title: "Not through a proxy",
            message: &format!(
                "A proxy on this machine handed this request on ({field}), so the web server takes everybody for local."
            ),
            remedy: "Let the web server find out who really asks (Apache: mod_remoteip with these lines):\n    RemoteIPHeader \
                     X-Forwarded-For\n    RemoteIPInternalProxy 127.0.0.1 ::1\nOr, if the proxy itself lets in only whom it \
                     should, say so in /etc/bartleby.toml:\n    [access]\n    proxy = true",
            field: None,
        });
    }
    if let Err(Misdirected { name }) = host::vet(&free, &request, settings) {
        // The line that lets the name pass may be in the file that can't be read.
        if let Err(error) = &config {
            log(&error.to_string());
        }
        let name = name.as_deref().unwrap_or("queue.example.com");
        return exchange.turn_away(&Notice {
            status: StatusCode::MISDIRECTED_REQUEST,
            title: "Not by this name",
            message: "This page was called by a name that is not known to be this machine's. \
                      Anybody can make a name of their own lead here, so nothing is shown.",
            remedy: &format!(
                "If the name is right, add it to /etc/bartleby.toml:\n    [access]\n    hosts = [\"{name}\"]"
            ),
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
    /// The remedy; empty where there is nothing to do.
    remedy: &'a str,
    field: Option<(HeaderName, String)>,
}

/// The request, and the form of its answers.
struct Exchange<'a> {
    request: &'a Request,
    format: Format,
}

impl Exchange<'_> {
    /// The queue, in any form.
    fn queue(&self, context: &Context, asked: &Asked) {
        let Some(_place) = self.place(context) else { return };
        let mut asked = asked.clone();
        if asked.format == Format::Html {
            // The page always shows a part.
            asked.window = asked.window.or(Some(Window { page: 1, per_page: DEFAULT_PER_PAGE }));
            asked.order = asked.order.or(Some(OLDEST_FIRST));
        }
        let row = view::form(asked.format);
        let mut form = (row.begin)(&Setting { now: context.clock.now, asked: &asked, terminal: None });
        let head = |verdict: Verdict| {
            let failed = StatusCode::from_u16(row.failed).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            let head = Head::new(if verdict.status == 0 { StatusCode::OK } else { failed }, row.media_type);
            let live = asked.live && asked.format == Format::Html;
            let after = verdict.renew.then_some(RENEWED).or_else(|| live.then_some(LIVE));
            let renewed =
                after.map(|seconds| (header::REFRESH, format!("{seconds}; url={}", html::links::view(&asked))));
            renewed.into_iter().fold(head, |head, (name, value)| head.with(name, value)).to_bytes()
        };
        let body = if self.request.method == Method::Head { HasBody::No } else { HasBody::Yes };
        if body == HasBody::No && row.failed == StatusCode::OK.as_u16() {
            // The page's and the metrics' status says nothing of the queue, so HEAD lists nothing. (That a page renews
            // itself would take a listing, and may be left out: RFC 9110, section 9.3.2.) Those of text, JSON and CSV do.
            return self.send(&Head::new(StatusCode::OK, row.media_type), Vec::new());
        }
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
        if asked.despite.is_some() && self.request.method != Method::Post {
            let message = "A queue run against what the main mail server says is asked for by POST alone.";
            let (status, field) = (StatusCode::METHOD_NOT_ALLOWED, Some((header::ALLOW, "POST".to_owned())));
            return self.refuse(&Notice { status, title: "Not run", message, remedy: "", field });
        }
        let Some(_place) = self.place(context) else { return };
        let care = asked.despite.map_or(Care::Rehearse, Care::Despite);
        let by = [self.request.remote_user.clone(), self.request.remote_addr.map(|address| address.to_string())];
        let by = by.into_iter().flatten().collect::<Vec<_>>().join(" at ");
        let by = if by.is_empty() { "somebody unknown".to_owned() } else { by };
        match flush::start(context, target, Asker { by, address: self.request.remote_addr }, &care) {
            Ok(run) => {
                let place = html::links::followed(asked, run.flush.number);
                let media_type = view::form(Format::Text).media_type;
                let head = Head::new(StatusCode::SEE_OTHER, media_type).with(header::LOCATION, &*place);
                self.send(&head, format!("The queue run was started: {place}\n").into_bytes());
            }
            Err(refusal) => self.refuse_to_run(context, refusal),
        }
    }

    /// The receipt of an outage: it lists nothing, and asks nobody.
    fn receipt(&self, context: &Context, asked: &Asked) {
        let Some(_place) = self.place(context) else { return };
        let found = context.records.as_ref().map_err(Clone::clone);
        let now = context.clock.now;
        match found.and_then(|records| Receipt::of(records, asked.outage, now)) {
            Ok(Some(receipt)) => {
                let format = self.short_form();
                let head = Head::new(StatusCode::OK, view::form(format).media_type);
                self.send(&head, view::receipt::receipt(format, &context.host, &context.clock.zone, &receipt));
            }
            Ok(None) => self.refuse(&Notice {
                status: StatusCode::NOT_FOUND,
                title: "No such outage",
                message: &format!("There is no outage {} on record.", asked.outage.unwrap_or_default()),
                remedy: "",
                field: None,
            }),
            Err(error) => {
                log(&error.to_string());
                self.refuse(&Notice {
                    status: StatusCode::SERVICE_UNAVAILABLE,
                    title: "Nothing is on record",
                    message: &format!("The record of outages can't be read: {error}."),
                    remedy: "To see what is to be done:\n    bartleby doctor",
                    field: None,
                });
            }
        }
    }

    /// A place among the requests under way, to be kept until the answer was sent. Where there is none, that is answered.
    fn place(&self, context: &Context) -> Option<RequestPlace> {
        let records = context.records.as_ref();
        let crowd = match records
            .map_or(Ok(RequestPlace::UNLIMITED), |records| records.request_place(self.request.remote_addr))
        {
            Ok(place) => return Some(place),
            Err(crowd) => crowd,
        };
        self.refuse(&Notice {
            status: StatusCode::SERVICE_UNAVAILABLE,
            title: "Too many requests",
            message: &crowd.to_string(),
            remedy: "Reload in a few seconds.",
            field: Some((header::RETRY_AFTER, CROWDED.to_string())),
        });
        None
    }

    /// Says what the main mail server would do with the mail.
    fn refuse_to_return(&self, not_run: &NotRun) {
        let host = &system::host_name();
        let head = Head::new(StatusCode::CONFLICT, view::form(self.short_form()).media_type);
        self.send(&head, view::rehearsal::not_run(self.short_form(), host, not_run));
    }

    fn refuse_to_run(&self, context: &Context, refusal: Refusal) {
        let message = &refusal.to_string();
        let (status, title, remedy, wait) = match refusal {
            Refusal::CoolDown(seconds) | Refusal::InVain(seconds) => {
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
            Refusal::Rehearsed(not_run) => return self.refuse_to_return(&not_run),
            Refusal::Impossible(trouble) => {
                log(message);
                let wait = if let Trouble::InHand { seconds, .. } = trouble { Some(seconds) } else { None };
                (StatusCode::SERVICE_UNAVAILABLE, "The queue was not run", trouble.remedy(), wait)
            }
        };
        let field = wait.map(|seconds| (header::RETRY_AFTER, seconds.to_string()));
        self.refuse(&Notice { status, title, message, remedy: &remedy, field });
    }

    fn refuse(&self, notice: &Notice<'_>) {
        self.say(notice, Reader::Admitted { host: &system::host_name() });
    }

    /// Refuses somebody who may not even see the queue.
    fn turn_away(&self, notice: &Notice<'_>) {
        self.say(notice, Reader::Stranger);
    }

    /// The form of a short answer: a refusal is no table and no metric.
    fn short_form(&self) -> Format {
        match self.format {
            Format::Csv | Format::OpenMetrics => Format::Text,
            format => format,
        }
    }

    fn say(&self, notice: &Notice<'_>, reader: Reader<'_>) {
        let format = self.short_form();
        let mut head = Head::new(notice.status, view::form(format).media_type);
        head.fields.extend(notice.field.clone());
        let Notice { title, message, remedy, .. } = notice;
        let body = match format {
            Format::Html => html::notice(reader, title, message, remedy).into_string().into_bytes(),
            Format::Json => json::refusal(reader, message, remedy),
            Format::Text | Format::Csv | Format::OpenMetrics => text::refusal(title, message, remedy),
        };
        self.send(&head, body);
    }

    fn send(&self, head: &Head, body: Vec<u8>) {
        gateway::send(head, if self.request.method == Method::Head { Vec::new() } else { body });
    }
}
