//! The web server in front of the page, asked as its visitors ask it: whether the page comes, and who is turned away. It
//! is asked by plain HTTP, on this machine; the query never runs anything.

mod exchange;
mod url;

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::primary::Fault;
use crate::sandbox::worker::Worker;
use crate::sandbox::{Purpose, Sandbox};
use crate::system::{self, Free};
use crate::text::short;
use crate::view::PROGRAM;
use exchange::{Answer, Request, ask};
pub(crate) use url::Url;

/// What the page is asked for: its totals, with as few messages as can be, as a page without messages is short.
const QUERY: &str = "?format=json&per_page=1";

/// A name that nobody has (RFC 2606), as a stranger's web page could have it.
const STRANGERS_NAME: &str = "stranger.example";

/// An address that nobody has (RFC 5737).
const STRANGERS_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));

/// How long an answer may take beyond the listing.
const MARGIN: Duration = Duration::from_secs(10);

/// How a program that is not run begins (elf(5)).
const ELF: &[u8] = b"\x7fELF";

const RESTART: &str = "As root:\n    systemctl restart apache2\nOn Fedora and its kin:\n    systemctl restart httpd";

/// Apache writes its errors to a file, not to the journal.
const ERROR_LOG: &str = "For what Apache says, as root:\n    tail /var/log/apache2/error.log\nOn Fedora and its kin:\n    \
                         tail /var/log/httpd/error_log";

/// What was found, or the fault with its fix.
pub(crate) type Found = Result<String, Fault>;

fn fault(message: impl Into<String>, remedy: impl Into<String>) -> Found {
    Err(Fault { message: message.into(), remedy: remedy.into() })
}

/// What visitors get.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Visit {
    page: Found,
    /// How others are turned away; `None` where the page does not come.
    others: Option<Others>,
}

/// How others are turned away.
#[derive(Debug, Serialize, Deserialize)]
struct Others {
    name: Found,
    address: Found,
    /// `None` where the server is asked at an address at which no proxy of this machine would ask it.
    proxy: Option<Found>,
}

/// What is asked, and how the program is set up.
pub(crate) struct Plan {
    /// The page's address.
    pub(crate) url: Url,
    /// How long a listing may take.
    pub(crate) deadline: Duration,
    /// Whether `[access] proxy` is set.
    pub(crate) proxy: bool,
}

impl Visit {
    /// Asks the web server. A process of its own does that, in a sandbox without files.
    pub(crate) fn pay(free: &Free, plan: &Plan) -> Visit {
        let patience = plan.deadline + MARGIN;
        let job = |free: Free| {
            let (server, addresses) = (plan.url.server(), system::addresses());
            // Whether a sandbox holds is said of the reader's.
            Sandbox::enter(free, Purpose::Asking);
            Visitor { plan, server, patience }.visit(&addresses)
        };
        // A redirection, the page, and three others.
        Worker::begin(free, patience * 5, job).and_then(Worker::answer).unwrap_or_else(|error| Visit {
            page: fault(format!("the process that asks the web server {error}"), "Try it again."),
            others: None,
        })
    }

    /// Each check by its name.
    pub(crate) fn checks(self) -> Vec<(&'static str, Found)> {
        let mut checks = vec![("web page", self.page)];
        if let Some(Others { name, address, proxy }) = self.others {
            checks.extend([("web, other names", name), ("web, other addresses", address)]);
            checks.extend(proxy.map(|found| ("web, proxies", found)));
        }
        checks
    }
}

/// What an answer is.
enum Seen {
    /// The queue; or, by the program too, why it is not listed.
    Queue { program: String, trouble: Option<Fault> },
    /// A refusal of the program's.
    Refusal(Fault),
    /// The program as a file.
    File,
    /// The web server's own answer, or another program's.
    Foreign,
}

impl Seen {
    fn of(answer: &Answer) -> Seen {
        let body = &*answer.body;
        let Ok(value) = serde_json::from_slice::<Value>(body) else {
            return match cut(body) {
                Some(program) => Seen::Queue { program, trouble: None },
                None if body.starts_with(ELF) => Seen::File,
                None => Seen::Foreign,
            };
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let trouble =
            |error: &Value| Some(Fault { message: text(&error["message"])?, remedy: text(&error["remedy"])? });
        match (text(&value["program"]), trouble(&value["error"])) {
            (Some(program), None) if value["queue"].is_object() => {
                Seen::Queue { program, trouble: trouble(&value["queue"]["error"]) }
            }
            // A stranger does not learn the program's name.
            (_, Some(refusal)) if value["version"].is_number() => Seen::Refusal(refusal),
            _ => Seen::Foreign,
        }
    }
}

/// The program that a listing names which was too long to be read to its end: that stands in front.
fn cut(body: &[u8]) -> Option<String> {
    let begin = String::from_utf8_lossy(&body[..body.len().min(100)]);
    let (_, rest) = begin.strip_prefix("{\"version\":")?.split_once("\"program\":\"")?;
    rest.split_once('"').map(|(program, _)| program.to_owned())
}

/// Who asks.
struct Visitor<'a> {
    plan: &'a Plan,
    server: SocketAddr,
    /// How long each answer may take.
    patience: Duration,
}

impl Visitor<'_> {
    fn visit(&self, own_addresses: &[IpAddr]) -> Visit {
        let url = &self.plan.url;
        let own = url.authority();
        let plain = Request { target: "", host: &own, from: None, on_behalf_of: None };
        let mut path = url.path.clone();
        let mut start = Instant::now();
        let mut answer = self.ask(&path, plain);
        // A folder without its slash: mod_dir (DirectorySlash) leads to the one with it.
        let with_slash = format!("{path}/");
        let leads_there = |place: &str| {
            let place = place.split_once('?').map_or(place, |(place, _)| place);
            place == with_slash || place == url.with(&with_slash)
        };
        if answer.as_ref().is_ok_and(|answer| answer.location.as_deref().is_some_and(leads_there)) {
            path = with_slash;
            start = Instant::now();
            answer = self.ask(&path, plain);
        }
        let page = match &answer {
            Ok(answer) => judge(answer, &url.with(&path), start.elapsed()),
            Err(error) => unanswered(error, self.server),
        };
        let comes = answer.is_ok_and(|answer| matches!(Seen::of(&answer), Seen::Queue { .. }));
        let others = comes.then(|| Others {
            name: self.by_another_name(&path),
            address: self.at_another_address(&path, plain, own_addresses),
            proxy: self.server.ip().is_loopback().then(|| self.through_a_proxy(&path, plain)),
        });
        Visit { page, others }
    }

    fn ask(&self, path: &str, request: Request<'_>) -> io::Result<Answer> {
        ask(self.server, Request { target: &format!("{path}{QUERY}"), ..request }, self.patience)
    }

    /// DNS rebinding: a stranger's page, in the browser of somebody who is let in, names its own host.
    fn by_another_name(&self, path: &str) -> Found {
        let host = self.plan.url.authority_of(STRANGERS_NAME);
        match shown(self.ask(path, Request { target: "", host: &host, from: None, on_behalf_of: None })) {
            Ok(how) => Ok(format!("called by the name {STRANGERS_NAME}, it shows nothing ({how})")),
            Err(()) => fault(
                format!(
                    "called by the name {STRANGERS_NAME}, it shows the queue, so a stranger's web page can read it"
                ),
                "If a proxy stands in between, let it pass the name on. In Apache's configuration:\n    ProxyPreserveHost \
                 On\nIn nginx's:\n    proxy_set_header Host $http_host;\nWithout a proxy, the page is of an older version. As \
                 root, in the source:\n    make install",
            ),
        }
    }

    /// From here, only this machine's own addresses can be tried.
    fn at_another_address(&self, path: &str, plain: Request<'_>, own: &[IpAddr]) -> Found {
        const ELSEWHERE: &str = "can't be seen from here: try it from a machine that must not see it";
        let server = self.server.ip();
        let is_link_local = |v6: Ipv6Addr| v6.segments()[0] & 0xffc0 == 0xfe80;
        let fits = |address: &&IpAddr| match (*address, server) {
            (IpAddr::V4(address), IpAddr::V4(server)) => *address != server,
            // A link's own address is one only together with that link.
            (IpAddr::V6(address), IpAddr::V6(server)) => *address != server && !is_link_local(*address),
            _ => false,
        };
        let Some(from) = own.iter().find(fits) else {
            return Ok(format!(
                "this machine has no other address than {server}, so whether others are refused {ELSEWHERE}"
            ));
        };
        Ok(match shown(self.ask(path, Request { from: Some(*from), ..plain })) {
            Ok(how) => format!("asked from {from}, this machine's address in its network, it shows nothing ({how})"),
            Err(()) => {
                format!("{from}, this machine's address in its network, is let in; whether others are {ELSEWHERE}")
            }
        })
    }

    fn through_a_proxy(&self, path: &str, plain: Request<'_>) -> Found {
        let request = Request { on_behalf_of: Some(STRANGERS_ADDRESS), ..plain };
        match (shown(self.ask(path, request)), self.plan.proxy) {
            (Ok(how), _) => Ok(format!("through a proxy here, {STRANGERS_ADDRESS} is shown nothing ({how})")),
            (Err(()), true) => Ok("by [access] proxy, a proxy here decides who is shown the queue".into()),
            (Err(()), false) => fault(
                format!("through a proxy here, {STRANGERS_ADDRESS} is shown the queue: anybody is"),
                "Let in only whom you mean. In Apache's configuration, in place of Require all granted, with your own \
                 addresses:\n    Require ip 192.0.2.0/24",
            ),
        }
    }
}

/// How it is that an answer does not show the queue.
///
/// # Errors
/// It does.
fn shown(answer: io::Result<Answer>) -> Result<String, ()> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Ok(error.to_string()),
    };
    match Seen::of(&answer) {
        Seen::Queue { .. } => Err(()),
        _ => Ok(answer.status.to_string()),
    }
}

/// Whether the page comes, and if not, what is to be done.
fn judge(answer: &Answer, url: &str, took: Duration) -> Found {
    let words = || short(String::from_utf8_lossy(&answer.body).trim());
    match Seen::of(answer) {
        Seen::Queue { trouble: Some(trouble), .. } => {
            fault(format!("{url} answers, but it can't list the queue: {}", trouble.message), trouble.remedy)
        }
        Seen::Queue { program, .. } if program != PROGRAM => fault(
            format!("{url} is of another version: {program}, and this is {PROGRAM}"),
            "As root, in the source of the newer one:\n    make install",
        ),
        Seen::Queue { program, .. } => Ok(format!("{program} answers at {url} in {:.2} s", took.as_secs_f64())),
        Seen::Refusal(Fault { message, remedy }) => {
            fault(format!("{url} answers {}: {message}", answer.status), remedy)
        }
        Seen::File => fault(
            format!("{url} offers the program for download, in place of running it"),
            format!(
                "As root, on Debian and its kin:\n    a2enmod cgid\nThen restart Apache. {RESTART}\nWhere .htaccess is used, it \
                 needs AllowOverride, see its first lines; bartleby.conf does without."
            ),
        ),
        Seen::Foreign => match (answer.status, answer.location.as_deref()) {
            (300..=399, Some(place)) => fault(
                format!("{url} leads to {}, which is not followed", short(place)),
                "Name that address, if it is one of http; else look at it with a browser.",
            ),
            (401, _) => Ok(format!("{url} asks for a name and a password, so that nothing more can be seen")),
            (403, _) => fault(
                format!("{url} answers 403: {}", words()),
                format!("See the Require lines in bartleby.conf or .htaccess. {ERROR_LOG}"),
            ),
            (404, _) => fault(
                format!("there is nothing at {url}"),
                format!(
                    "If this is the page's address: as root, on Debian and its kin:\n    a2enconf bartleby\nThen restart \
                     Apache. {RESTART}\nOr name the page's own address."
                ),
            ),
            (503, _) => fault(
                format!("{url} answers 503: Apache's CGI daemon does not run, as after a2enmod cgid and a mere reload"),
                format!("Restart Apache; a reload does not start it. {RESTART}\nIf that does not help: {ERROR_LOG}"),
            ),
            (500.., _) => fault(format!("{url} answers {}", answer.status), ERROR_LOG),
            (status, _) => fault(
                format!("{url} is something else; it answers {status}: {}", words()),
                "Name the page's own address, such as http://localhost/bartleby/.",
            ),
        },
    }
}

/// Why there is no answer.
fn unanswered(error: &io::Error, server: SocketAddr) -> Found {
    match error.kind() {
        ErrorKind::ConnectionRefused => fault(
            format!("nobody listens at {server}"),
            "Start the web server. As root, where it is Apache:\n    systemctl start apache2\nOn Fedora and its kin:\n    \
             systemctl start httpd\nOr name the address at which it listens.",
        ),
        _ => fault(format!("{server}: {error}"), ERROR_LOG),
    }
}
