//! The parent: has the queue listed and read, and hands on what the reader writes.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use super::disk::Filesystem;
use super::known::{Inquiries, Known};
use super::reading::{self, Counted, Reading};
use super::{Form, Report, Verdict};
use crate::context::Context;
use crate::flush::outcome::Followed;
use crate::listing::count::task;
use crate::listing::frame::Nonsense;
use crate::listing::session::{Broken, Client};
use crate::listing::{Lister, Listing, Session};
use crate::mta::trouble::Trouble;
use crate::primary::PrimaryStatus;
use crate::queue::{Clocks, Lifetimes, Row};
use crate::request::{Asked, Format};
use crate::system::output::Output;
use crate::system::{Audience, Body, EndingSignals, log};

/// What stands in front of a body, made for its verdict.
type Head<'a> = &'a dyn Fn(Verdict) -> Vec<u8>;

/// How an answer is sent.
pub struct Answer<'a> {
    /// What stands in front; without it, nothing does.
    pub(crate) head: Option<Head<'a>>,
    /// Whether there is a body.
    pub(crate) body: HasBody,
}

/// Whether an answer has a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HasBody {
    /// It has one.
    Yes,
    /// It answers HEAD.
    No,
}

impl Answer<'_> {
    /// A body alone.
    pub const PLAIN: Answer<'static> = Answer { head: None, body: HasBody::Yes };
}

/// Lists for one answer, as long as somebody reads our standard output, and sends it there.
///
/// # Errors
/// Those of writing: the client has left ([`io::ErrorKind::BrokenPipe`]), say, or takes nothing
/// ([`io::ErrorKind::TimedOut`]).
pub fn answer(context: &Context, asked: &Asked, form: &mut dyn Form, how: &Answer<'_>) -> io::Result<Verdict> {
    let scratch = context.scratch.as_ref();
    let output = if how.head.is_some() { Output::held_back(scratch)? } else { Output::new(scratch)? };
    // Of an answer to a web server a part would look like the whole.
    let signals = how.head.and_then(|_| EndingSignals::hold_back());
    let mut handing = Handing { context, how, inquiries: None, output, signals };
    let stdout = io::stdout();
    let lister = Lister::start(context, handing.audience(&stdout));
    if lister.is_err() {
        handing.audience(&stdout).is_there()?;
    }
    handing.inquiries = Some(Inquiries::begin(context));
    let broken = match lister.and_then(|lister| read(&mut handing, lister, asked, form)) {
        Ok(Ok(verdict)) => return handing.finish(verdict),
        Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted && how.head.is_some() => Trouble::Stopped,
        Ok(Err(error)) => return Err(error),
        Err(trouble) => trouble,
    };
    log(&broken.to_string());
    handing.end_broken(broken, asked, form)
}

/// How much waits, and how the primaries are.
pub(crate) struct Stock {
    /// Messages in the queue.
    pub(crate) messages: u64,
    /// Those of them that are held.
    pub(crate) held: u64,
    /// The primaries.
    pub(crate) primary: PrimaryStatus,
    /// The filesystems.
    pub(crate) filesystems: Vec<Filesystem>,
    /// When the first of it goes back, in seconds since 1970, if less than a day is left.
    pub(crate) returns: Option<i64>,
}

/// Lists for no answer: takes a sample, and stock.
///
/// # Errors
/// Why the queue could not be listed.
pub(crate) fn stock(context: &Context) -> Result<Stock, Trouble> {
    let mut taking = Taking { context, inquiries: Some(Inquiries::begin(context)), stock: None };
    let mut lister = Lister::start(context, Audience::default())?;
    let Some(mut task) = task(context) else { return Err(Trouble::Reader { how: "has no mail server".into() }) };
    lister.wait_for_first_bytes(context, None);
    task.lifetimes = lifetimes(context, &mut taking.inquiries, Audience::default());
    let asked = Asked::of(Format::Text);
    let reading = Reading::of(context, &asked);
    let work = |free, desk| reading::work(free, desk, &reading, &task, None, &mut Silent);
    let attended = Session::begin(context, lister, None, work)?.attend(&mut taking);
    match (attended, taking.stock) {
        (Ok(verdict), Some(stock)) => stock.map(|stock| {
            let Verdict { returns, .. } = serde_json::from_slice(&verdict).unwrap_or_default();
            Stock { returns, ..stock }
        }),
        (Err(Broken::Reader(trouble)), _) => Err(trouble),
        _ => Err(Trouble::Reader { how: "ended without an answer".into() }),
    }
}

/// How long mail is kept, as far as that is known. The reader must know it before the first message.
fn lifetimes(context: &Context, inquiries: &mut Option<Inquiries>, audience: Audience<'_>) -> Lifetimes {
    inquiries.as_mut().map(|inquiries| inquiries.facts(context, audience).timing.lifetimes()).unwrap_or_default()
}

/// What the parent does while stock is taken.
struct Taking<'a> {
    context: &'a Context,
    inquiries: Option<Inquiries>,
    stock: Option<Result<Stock, Trouble>>,
}

impl Client for Taking<'_> {
    fn counted(&mut self, bytes: &[u8], took: Duration) -> Result<Vec<u8>, Broken> {
        let counted: Counted = serde_json::from_slice(bytes).map_err(|_| Nonsense)?;
        let inquiries = self.inquiries.take().ok_or(Nonsense)?;
        let known = inquiries.known(self.context, Some(&counted), took, Audience::default())?;
        let words = serde_json::to_vec(&known).map_err(|_| Nonsense)?;
        let Counted { trouble, messages, held, .. } = counted;
        self.stock = Some(trouble.map_or(
            Ok(Stock { messages, held, primary: known.primary, filesystems: known.filesystems, returns: None }),
            Err,
        ));
        Ok(words)
    }
}

/// A form that says nothing.
struct Silent;

impl Form for Silent {
    fn end(&mut self, _: &Report, _: &[Row], _: &mut Body<'_>) -> io::Result<()> {
        Ok(())
    }

    fn verdict(&self, report: &Report) -> Verdict {
        Verdict { returns: report.returns_within_a_day(), ..Verdict::default() }
    }
}

/// Has the listing read, and the answer written, as far as somebody is there who takes it.
fn read(
    handing: &mut Handing<'_>,
    mut lister: Lister,
    asked: &Asked,
    form: &mut dyn Form,
) -> Result<io::Result<Verdict>, Trouble> {
    let context = handing.context;
    let Some(mut task) = task(context) else { return Err(Trouble::Reader { how: "has no mail server".into() }) };
    let followed = asked.flushed.and_then(|number| Followed::find(context.records.as_ref().ok()?, number));
    let overflow = asked.window.and(context.scratch.as_ref()).and_then(|scratch| scratch.file().ok());
    lister.wait_for_first_bytes(context, Some(io::stdout().as_fd()));
    let mut inquiries = handing.inquiries.take();
    task.lifetimes = lifetimes(context, &mut inquiries, handing.audience(&io::stdout()));
    handing.inquiries = inquiries;
    let reading = Reading::of(context, asked);
    let work = |free, desk| reading::work(free, desk, &reading, &task, followed, form);
    let session = Session::begin(context, lister, overflow, work)?;
    match session.attend(handing) {
        Ok(verdict) => match serde_json::from_slice(&verdict) {
            Ok(verdict) => Ok(Ok(verdict)),
            Err(_) => Err(Trouble::Reader { how: "answered nonsense".into() }),
        },
        Err(Broken::Client(error)) => Ok(Err(error)),
        Err(Broken::Reader(trouble)) => Err(trouble),
    }
}

/// What the parent does while the reader answers.
struct Handing<'a> {
    context: &'a Context,
    how: &'a Answer<'a>,
    inquiries: Option<Inquiries>,
    output: Output,
    /// The signals that are held back until the answer is sent.
    signals: Option<EndingSignals>,
}

impl Client for Handing<'_> {
    fn counted(&mut self, bytes: &[u8], took: Duration) -> Result<Vec<u8>, Broken> {
        let counted: Counted = serde_json::from_slice(bytes).map_err(|_| Nonsense)?;
        // It asks once.
        let inquiries = self.inquiries.take().ok_or(Nonsense)?;
        let stdout = io::stdout();
        let known = inquiries.known(self.context, Some(&counted), took, self.audience(&stdout))?;
        Ok(serde_json::to_vec(&known).map_err(|_| Nonsense)?)
    }

    fn output(&mut self) -> Option<&mut Output> {
        Some(&mut self.output)
    }

    fn has_come(&mut self) {
        if self.how.body == HasBody::No {
            self.output.clear();
        }
        if self.output.is_full() {
            // What is in front of so much can't wait any longer.
            self.release(Verdict::default());
        }
    }
}

impl Handing<'_> {
    fn audience<'a>(&'a self, stdout: &'a io::Stdout) -> Audience<'a> {
        Audience { client: Some(stdout.as_fd()), signals: self.signals.as_ref() }
    }

    fn release(&mut self, verdict: Verdict) {
        let front = self.how.head.map(|head| head(verdict)).unwrap_or_default();
        if self.output.is_held_back() {
            self.output.release(&front);
        }
    }

    /// Sends what is left.
    fn finish(mut self, verdict: Verdict) -> io::Result<Verdict> {
        self.output.seal();
        self.release(verdict);
        self.output.finish(self.signals.as_ref()).map(|()| verdict)
    }

    /// Ends an answer whose reader broke off, or never began: what was sent is true, and the end says what it lacks.
    fn end_broken(mut self, trouble: Trouble, asked: &Asked, form: &mut dyn Form) -> io::Result<Verdict> {
        let known = if trouble == Trouble::Stopped {
            // There is no time for it.
            Known::unasked(self.context)
        } else {
            let inquiries = self.inquiries.take().unwrap_or_else(|| Inquiries::begin(self.context));
            inquiries.known(self.context, None, Duration::ZERO, self.audience(&io::stdout()))?
        };
        let mut listing = Listing::of_nothing(self.context, trouble);
        listing.facts = known.facts.clone();
        let reading = Reading::of(self.context, asked);
        let report = Report { selection: asked.window.map(|window| (window, 0)), ..reading.report(listing, known) };
        // A head that was released is a beginning, too.
        let begun = self.output.has_begun() || (!self.output.is_held_back() && self.how.head.is_some());
        if begun {
            self.output.take_back();
        } else {
            self.output.clear();
        }
        let mut bytes = Vec::new();
        let mut body = Body::into(&mut bytes);
        if !begun {
            form.begin(&Clocks::default(), &mut body)?;
        }
        form.end(&report, &[], &mut body)?;
        body.finish()?;
        drop(body);
        if self.how.body == HasBody::Yes {
            self.output.push(&bytes);
        }
        self.finish(form.verdict(&report))
    }
}
