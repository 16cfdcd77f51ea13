//! What the mail log says of some messages: its own lines, chosen in the sandbox by queue id and by the place or the time
//! from which on they were written, and otherwise unread.
//!
//! Strangers write most of a line, so nothing is concluded from one here.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::log_files::{Piece, Stretch, pieces};
use crate::context::{Context, Source};
use crate::listing::lines::Lines;
use crate::mta::{Clock, Facts, Mark, Mta, log_instant, log_text};
use crate::sandbox::{Purpose, Sandbox};
use crate::system::Free;
use crate::system::process::{self, Argv, Ending, Equipment, Life, PIPE};

/// How many bytes are passed on at most.
pub(crate) const MOST: usize = 4 * 1024 * 1024;

/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the process in the sandbox says where there is more than it has passed on.
const MORE: &[u8] = b"more";

/// The lines of a log.
pub(crate) struct Excerpt {
    /// The lines with their line feeds, the oldest first. Those of the journal are JSON (journalctl(1), `-o json`).
    pub(crate) lines: Vec<u8>,
    /// Whether there are no more of them.
    pub(crate) whole: bool,
}

/// Why nothing is known of the log. Its `Display` is a sentence without its full stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLog {
    #[error("no mail log has been written to since then: {0}")]
    NotFound(String),
    #[error("the journal could not be read: {0}")]
    Journal(String),
    #[error("the process that reads the mail log {0}")]
    Reader(String),
    /// `as-root` has no answer.
    #[error("the rule for root gave no mail log: {0}")]
    Rule(String),
}

/// Which lines are asked for.
pub(crate) struct Question<'a> {
    /// Where they may stand.
    pub(crate) places: &'a Places,
    /// The messages.
    pub(crate) ids: &'a [String],
    /// The second from which on they were written, in seconds since 1970.
    pub(crate) since: i64,
    /// Where the log ended then, where that was noted.
    pub(crate) mark: Option<&'a Mark>,
    /// How many bytes of them are wanted.
    pub(crate) room: usize,
}

/// What to look for.
struct Wanted<'a> {
    mta: &'a dyn Mta,
    ids: HashSet<&'a str>,
    /// From when on.
    since: i64,
    clock: &'a Clock,
}

/// Where the mail server may log.
#[derive(Clone, Debug)]
pub(crate) enum Places {
    /// In this file: the configuration says so, or its own settings.
    Named(PathBuf),
    /// In the first of these that is in use, or in the journal.
    Usual(Vec<PathBuf>),
}

impl Places {
    /// Where this one does.
    pub(crate) fn of(context: &Context, source: &Source, facts: &Facts) -> Places {
        let named = context.config.mta.log.as_ref().or(facts.log.as_ref());
        named
            .cloned()
            .map_or_else(|| Places::Usual(source.mta.logs().iter().map(PathBuf::from).collect()), Places::Named)
    }

    /// These files.
    pub(crate) fn files(&self) -> &[PathBuf] {
        match self {
            Places::Named(file) => std::slice::from_ref(file),
            Places::Usual(files) => files,
        }
    }

    /// The same as a list in words.
    pub(crate) fn names(&self) -> String {
        self.files().iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
    }

    /// That nothing was found there.
    fn are_silent(&self) -> NoLog {
        let names = self.names();
        NoLog::NotFound(match self {
            Places::Named(_) => format!("not {names}"),
            Places::Usual(_) => format!("neither {names} nor the journal"),
        })
    }
}

/// The lines that hold one of these queue ids and were written since then. None at all are a log that says nothing of them.
///
/// # Errors
/// [`NoLog`].
pub(crate) fn lines(context: &Context, mta: &dyn Mta, question: &Question<'_>) -> Result<Excerpt, NoLog> {
    let Question { places, ids, since, mark, room } = *question;
    let mut excerpt = Excerpt { lines: Vec::new(), whole: true };
    let wanted = Wanted { mta, ids: ids.iter().map(String::as_str).collect(), since, clock: &context.clock };
    let deadline = Instant::now() + PATIENCE;
    let mut reading = Reading { context, wanted, room, deadline, excerpt: &mut excerpt };
    let mut is_found = false;
    for log in places.files() {
        for piece in pieces(log, since, mark.unwrap_or(&Mark::default())) {
            is_found = true;
            reading.piece(piece)?;
        }
        // One that is written to by others, and says nothing of these messages, is not the one.
        if !reading.excerpt.lines.is_empty() {
            return Ok(excerpt);
        }
    }
    match places {
        // A mail server that was told where to log, and has not, says nothing.
        Places::Named(log) => is_found |= File::open(log).is_ok(),
        Places::Usual(_) => match reading.journal(mark.and_then(|mark| mark.cursor.as_deref())) {
            // A journal that no mail server had written to, or that this user can't read, is not the one.
            Ok(()) => is_found |= mark.is_none_or(|mark| mark.cursor.is_some()) || !reading.excerpt.lines.is_empty(),
            Err(error) if !is_found => return Err(error),
            Err(_) => {}
        },
    }
    if is_found { Ok(excerpt) } else { Err(places.are_silent()) }
}

/// What is asked of the journal: entries of facility `mail` (2, syslog(3)), as JSON.
pub(super) fn journalctl(more: &[&str]) -> Argv {
    let always = ["--quiet", "--no-pager", "--output=json", "SYSLOG_FACILITY=2"];
    Argv::new("journalctl", &[&always, more].concat())
}

/// A log that is being read.
struct Reading<'a> {
    context: &'a Context,
    wanted: Wanted<'a>,
    /// How many bytes of lines are wanted.
    room: usize,
    deadline: Instant,
    excerpt: &'a mut Excerpt,
}

impl Reading<'_> {
    /// One file. One that is compressed is unpacked by the program of its format, which reads nothing else.
    fn piece(&mut self, piece: Piece) -> Result<(), NoLog> {
        let Some(command) = piece.unpacked_by else { return self.pick(piece.file.into(), piece.stretch) };
        let unpacking = process::start_with(&self.context.free, &command, Some(piece.file)).ok();
        let output = unpacking.as_ref().and_then(|unpacking| unpacking.stdout().try_clone().ok());
        let Some((unpacking, output)) = unpacking.zip(output) else {
            self.excerpt.whole = false;
            return Ok(());
        };
        self.pick(output.into(), piece.stretch)?;
        // One that is still being written has no end; the file that it is made from is there then.
        self.excerpt.whole &= unpacking.exit(self.deadline, Ending::Exited).success();
        Ok(())
    }

    /// What the journal holds from there on, or from then on, with who wrote it: any user can write there.
    fn journal(&mut self, cursor: Option<&str>) -> Result<(), NoLog> {
        let from = match cursor {
            Some(cursor) => format!("--after-cursor={cursor}"),
            None => format!("--since=@{}", self.wanted.since.max(0)),
        };
        // Without --all, a long message is left out (journalctl(1)).
        let command = journalctl(&["--all", "--output-fields=MESSAGE,SYSLOG_IDENTIFIER,_UID,_COMM", &from]);
        // Not every system has one.
        let Ok(running) = process::start(&self.context.free, &command) else { return Ok(()) };
        let output = running.stdout().try_clone().map_err(|error| NoLog::Journal(error.to_string()))?;
        self.pick(output.into(), Stretch::Entries)?;
        let ending = if self.excerpt.whole { Ending::Exited } else { Ending::ReaderGone };
        let exit = running.exit(self.deadline, ending);
        if exit.success() || !self.excerpt.whole { Ok(()) } else { Err(NoLog::Journal(exit.describe())) }
    }

    /// Adds the lines of one file to the excerpt.
    fn pick(&mut self, input: OwnedFd, stretch: Stretch) -> Result<(), NoLog> {
        let room = self.room.saturating_sub(self.excerpt.lines.len());
        let equipment = Equipment { input: Some(input), kept: &[], life: Life::Bound };
        let wanted = &self.wanted;
        let work = |free| {
            let is_more = pass_on(free, wanted, stretch, room);
            // What can't be read counts as more. Nobody may be left to hear it.
            if is_more.unwrap_or(true) {
                let _ = io::stderr().write_all(MORE);
            }
        };
        let running = process::branch(&self.context.free, equipment, work);
        let running = running.map_err(|error| NoLog::Reader(format!("could not be started: {error}")))?;
        let (exit, lines) = running.collect_up_to(room, self.deadline);
        if exit.ending == Ending::Exited && !exit.success() {
            return Err(NoLog::Reader(exit.describe()));
        }
        self.excerpt.whole &= exit.success() && exit.said.is_empty();
        self.excerpt.lines.extend_from_slice(&lines);
        Ok(())
    }
}

/// Reads standard input, and writes the wanted lines to standard output, `room` bytes at most. Returns whether there may
/// be more.
fn pass_on(free: Free, wanted: &Wanted<'_>, stretch: Stretch, room: usize) -> io::Result<bool> {
    let _sandbox = Sandbox::enter(free, Purpose::Reading { room: 0 });
    let mut choice = Choice { wanted, stretch, number: 0, left: Some(room), is_more: false };
    let (mut out, mut buffer, mut lines) = (io::stdout().lock(), vec![0; PIPE], Lines::default());
    let mut written = Ok(());
    while choice.left.is_some() && written.is_ok() {
        match nix::unistd::read(io::stdin(), &mut buffer) {
            Ok(0) => break,
            Ok(length) => lines.feed(&buffer[..length], &mut |line| {
                if choice.takes(line) && written.is_ok() {
                    written = out.write_all(line).and_then(|()| out.write_all(b"\n"));
                }
            }),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    written?;
    out.flush()?;
    Ok(choice.is_more)
}

/// Which lines are passed on.
struct Choice<'a> {
    wanted: &'a Wanted<'a>,
    stretch: Stretch,
    /// How many lines were seen.
    number: u64,
    /// How many bytes may still be passed on; `None` when a line did not fit.
    left: Option<usize>,
    /// Whether there are wanted lines, or may be, that are not passed on.
    is_more: bool,
}

impl Choice<'_> {
    /// Whether the next line, which lacks its line feed here, is passed on.
    fn takes(&mut self, line: &[u8]) -> bool {
        self.number += 1;
        match self.number {
            // It has no beginning.
            1 if self.stretch == Stretch::End => return false,
            2 if self.stretch == Stretch::End => self.is_more |= self.wanted.is_in_time(line, self.stretch),
            _ => {}
        }
        let Some(left) = self.left.filter(|_| self.wanted.holds(line, self.stretch)) else { return false };
        self.left = left.checked_sub(line.len() + 1);
        self.is_more |= self.left.is_none();
        self.left.is_some()
    }
}

impl Wanted<'_> {
    fn holds(&self, line: &[u8], stretch: Stretch) -> bool {
        // The journal writes a message that is no text as numbers.
        let text = if stretch == Stretch::Entries { log_text(line) } else { Some(line.into()) };
        let text = text.unwrap_or_default();
        let mut words = text
            .split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-')
            .filter_map(|word| str::from_utf8(word).ok());
        words.any(|word| self.ids.contains(self.mta.id_in_log(word))) && self.is_in_time(line, stretch)
    }

    /// Whether it was written in time. A line of a file that does not say when belongs to no log.
    fn is_in_time(&self, line: &[u8], stretch: Stretch) -> bool {
        let written = || log_instant(line, self.clock);
        match stretch {
            Stretch::Entries => true,
            Stretch::SinceMark => written().is_some(),
            Stretch::Whole | Stretch::End => written().is_some_and(|written| written >= self.since),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use jiff::tz::TimeZone;

    use super::*;
    use crate::mta::{self, Kind, Search};

    /// What of a log is passed on, and whether there is more.
    fn chosen(kind: Kind, log: &[u8], ids: &[&str], since: i64, stretch: Stretch, room: usize) -> (String, bool) {
        let mta = mta::find(Some(kind), &Search::below(Path::new("/nonexistent"))).unwrap();
        let clock = Clock { now: 1_795_503_951, zone: TimeZone::UTC };
        let wanted = Wanted { mta: &*mta, ids: ids.iter().copied().collect(), since, clock: &clock };
        let mut choice = Choice { wanted: &wanted, stretch, number: 0, left: Some(room), is_more: false };
        let mut lines = Vec::new();
        let mut feed = Lines::default();
        feed.feed(log, &mut |line| {
            if choice.takes(line) {
                lines.extend_from_slice(line);
                lines.push(b'\n');
            }
        });
        (String::from_utf8_lossy(&lines).into_owned(), choice.is_more)
    }

    const LOG: &str = "2026-11-24T07:00:00+00:00 bartleby postfix/smtp[1]: AAAAAA1: to=<a@example.com>, status=deferred (x)\n\
                       2026-11-24T07:00:01+00:00 bartleby postfix/smtp[1]: AAAAAA12: to=<a@example.com>, status=sent (ok)\n\
                       2026-11-24T07:00:02+00:00 bartleby postfix/smtp[1]: AAAAAA1: to=<a@example.com>, status=sent (ok)\n\
                       AAAAAA1:x:0:0:root\n\
                       2026-11-24T07:00:03+00:00 bartleby postfix/qmgr[1]: AAAAAA1: remo";

    fn line(number: usize) -> String {
        format!("{}\n", LOG.lines().nth(number).unwrap())
    }

    #[test]
    fn only_whole_lines_with_these_ids_and_since_then_are_passed_on() {
        let at = |second: i64| "2026-11-24T07:00:00Z".parse::<jiff::Timestamp>().unwrap().as_second() + second;
        let behind = chosen(Kind::Postfix, LOG.as_bytes(), &["AAAAAA1"], i64::MAX, Stretch::SinceMark, MOST);
        assert_eq!(behind, (line(0) + &line(2), false), "behind the mark, whatever the time says");
        let chosen = |ids: &[&str], since| chosen(Kind::Postfix, LOG.as_bytes(), ids, since, Stretch::Whole, MOST);
        assert_eq!(chosen(&["AAAAAA1"], at(0)), (line(0) + &line(2), false));
        assert_eq!(chosen(&["AAAAAA1", "AAAAAA12"], at(1)), (line(1) + &line(2), false));
        assert_eq!(chosen(&["AAAAAA1"], at(3)), (String::new(), false));
        assert_eq!(chosen(&["root", "example"], at(3)).0, "", "a file that is no log");
    }

    #[test]
    fn the_journal_has_looked_at_the_time_and_writes_what_is_no_text_as_numbers() {
        let entry = |message: &serde_json::Value| {
            serde_json::json!({"MESSAGE": message, "SYSLOG_IDENTIFIER": "postfix/smtp", "_UID": "102"}).to_string()
        };
        let words = "AAAAAA1: to=<\u{7}a@example.com>, status=sent (ok)";
        let (text, numbers) = (entry(&words.into()), entry(&words.as_bytes().into()));
        let other = entry(&words.replace("AAAAAA1", "AAAAAA2").as_bytes().into());
        let log = format!("{text}\n{other}\n{numbers}\n");
        let found = chosen(Kind::Postfix, log.as_bytes(), &["AAAAAA1"], i64::MAX, Stretch::Entries, MOST);
        assert_eq!(found, (format!("{text}\n{numbers}\n"), false));
        let in_a_file = chosen(Kind::Postfix, log.as_bytes(), &["AAAAAA1"], i64::MIN, Stretch::SinceMark, MOST).0;
        assert_eq!(in_a_file, "", "a file has no entries, and these say no time as its lines do");
        // A word around the message is not one of its ids.
        assert_eq!(chosen(Kind::Postfix, log.as_bytes(), &["MESSAGE"], i64::MAX, Stretch::Entries, MOST).0, "");
    }

    #[test]
    fn it_is_known_where_there_may_be_more() {
        let since = 0;
        let chosen = |stretch, room| chosen(Kind::Postfix, LOG.as_bytes(), &["AAAAAA1"], since, stretch, room);
        assert_eq!(chosen(Stretch::End, MOST), (line(2), true), "what stood before the second line is not known");
        let both = line(0).len() + line(2).len();
        assert_eq!(chosen(Stretch::Whole, both), (line(0) + &line(2), false));
        assert_eq!(chosen(Stretch::Whole, both - 1), (line(0), true));
    }

    #[test]
    fn each_mail_server_logs_its_own_ids() {
        let exim = "2026-11-24 07:00:00 1vNAb2-00000c-2p => a@example.com R=r T=t\n\
                    2026-11-24 07:00:00 1vNAb2-00000d-2p <= <> R=1vNAb2-00000c-2p U=Debian-exim P=local\n\
                    2026-11-24 07:00:00 1vNAb2-00000c-2p0 Completed\n";
        let (lines, _) = chosen(Kind::Exim, exim.as_bytes(), &["1vNAb2-00000c-2p"], 0, Stretch::Whole, MOST);
        assert_eq!(lines.lines().count(), 2, "{lines}");
        let opensmtpd =
            "Nov 24 07:00:00 bartleby smtpd[1]: 38f3a1c2a1b2c3d4 mta delivery evpid=0e78358bb2c3d4e5 from=<>\n";
        for (id, is_held) in [("0e78358b", true), ("b2c3d4e5", false), ("0e78358", false)] {
            let (lines, _) = chosen(Kind::OpenSmtpd, opensmtpd.as_bytes(), &[id], 0, Stretch::Whole, MOST);
            assert_eq!(!lines.is_empty(), is_held, "{id}");
        }
        // Bytes come out as they stand there.
        let raw = b"2026-11-24 07:00:00 1vNAb2-00000c-2p ** cr\rmoe\xff@example.com\n";
        let mta_lines = chosen(Kind::Exim, raw, &["1vNAb2-00000c-2p"], 0, Stretch::Whole, MOST).0;
        assert_eq!(mta_lines, String::from_utf8_lossy(raw));
    }
}
