//! What the mail log says of some messages: its own lines, chosen by queue id and time in the sandbox, and otherwise
//! unread.
//!
//! Strangers write most of a line, so nothing is concluded from one here.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::context::Context;
use crate::listing::lines::Lines;
use crate::mta::{Clock, Mta, log_instant};
use crate::sandbox::{Purpose, Sandbox};
use crate::system::Free;
use crate::system::process::{self, Argv, Ending, Equipment, Life, PIPE};

/// How much of a log is looked at, in bytes: its end. A run of 20,000 messages writes some 7 MB.
const LOOKED_AT: u64 = 64 * 1024 * 1024;

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
    #[error("no mail log has been written to since then: neither {0} nor the journal")]
    NotFound(String),
    #[error("the journal could not be read: {0}")]
    Journal(String),
    #[error("the process that reads the mail log {0}")]
    Reader(String),
}

/// What to look for.
struct Wanted<'a> {
    mta: &'a dyn Mta,
    ids: HashSet<&'a str>,
    /// From when on; `None` where only such lines come.
    since: Option<i64>,
    clock: &'a Clock,
}

/// How much of a log is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stretch {
    /// All of it.
    Whole,
    /// Only its end, so that the first line is no whole one.
    End,
}

/// The lines that hold one of these queue ids and were written in this second or later.
///
/// # Errors
/// [`NoLog`].
pub(crate) fn lines(context: &Context, mta: &dyn Mta, ids: &[String], since: i64) -> Result<Excerpt, NoLog> {
    let deadline = Instant::now() + PATIENCE;
    let mut excerpt = Excerpt { lines: Vec::new(), whole: true };
    let wanted = |since| Wanted { mta, ids: ids.iter().map(String::as_str).collect(), since, clock: &context.clock };
    let of_log = |log: &&str| -> Vec<(File, Stretch)> {
        [format!("{log}.1"), (*log).to_owned()].iter().filter_map(|path| tail(path, since)).collect()
    };
    let tails = mta.logs().iter().map(of_log).find(|tails| !tails.is_empty()).unwrap_or_default();
    if tails.is_empty() {
        journal(context, &wanted(None), since, deadline, &mut excerpt)?;
    }
    for (file, stretch) in tails {
        pick(context, &wanted(Some(since)), file.into(), stretch, deadline, &mut excerpt)?;
    }
    Ok(excerpt)
}

/// A log that has been written to since then, if it is a file of its own: who can put a link there decides nothing.
fn tail(path: &str, since: i64) -> Option<(File, Stretch)> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).ok()?;
    let found = file.metadata().ok().filter(|found| found.is_file() && found.nlink() == 1 && found.mtime() >= since)?;
    let start = found.len().saturating_sub(LOOKED_AT);
    file.seek(SeekFrom::Start(start)).ok()?;
    Some((file, if start > 0 { Stretch::End } else { Stretch::Whole }))
}

/// What the journal holds of facility `mail` (2, syslog(3)), with who wrote it: any user can write there.
fn journal(
    context: &Context,
    wanted: &Wanted<'_>,
    since: i64,
    deadline: Instant,
    excerpt: &mut Excerpt,
) -> Result<(), NoLog> {
    let since = format!("--since=@{}", since.max(0));
    let fields = "--output-fields=MESSAGE,SYSLOG_IDENTIFIER,_UID,_COMM";
    let command =
        Argv::new("journalctl", &["--quiet", "--no-pager", "--output=json", fields, &since, "SYSLOG_FACILITY=2"]);
    let not_found = || NoLog::NotFound(wanted.mta.logs().join(", "));
    let running = process::start(&context.free, &command).map_err(|_| not_found())?;
    let output = running.stdout().try_clone().map_err(|error| NoLog::Journal(error.to_string()))?;
    pick(context, wanted, output.into(), Stretch::Whole, deadline, excerpt)?;
    let ending = if excerpt.whole { Ending::Exited } else { Ending::ReaderGone };
    let exit = running.exit(deadline, ending);
    if exit.success() || !excerpt.whole { Ok(()) } else { Err(NoLog::Journal(exit.describe())) }
}

/// Adds the lines of one log to the excerpt.
fn pick(
    context: &Context,
    wanted: &Wanted<'_>,
    input: OwnedFd,
    stretch: Stretch,
    deadline: Instant,
    excerpt: &mut Excerpt,
) -> Result<(), NoLog> {
    let room = MOST - excerpt.lines.len();
    let equipment = Equipment { input: Some(input), kept: &[], life: Life::Bound };
    let work = |free| {
        let is_more = pass_on(free, wanted, stretch, room);
        // What can't be read counts as more. Nobody may be left to hear it.
        if is_more.unwrap_or(true) {
            let _ = io::stderr().write_all(MORE);
        }
    };
    let running = process::branch(&context.free, equipment, work);
    let running = running.map_err(|error| NoLog::Reader(format!("could not be started: {error}")))?;
    let (exit, lines) = running.collect_up_to(room, deadline);
    if exit.ending == Ending::Exited && !exit.success() {
        return Err(NoLog::Reader(exit.describe()));
    }
    excerpt.whole &= exit.success() && exit.said.is_empty();
    excerpt.lines.extend_from_slice(&lines);
    Ok(())
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
            2 if self.stretch == Stretch::End => self.is_more |= self.wanted.is_in_time(line),
            _ => {}
        }
        let Some(left) = self.left.filter(|_| self.wanted.holds(line)) else { return false };
        self.left = left.checked_sub(line.len() + 1);
        self.is_more |= self.left.is_none();
        self.left.is_some()
    }
}

impl Wanted<'_> {
    fn holds(&self, line: &[u8]) -> bool {
        let mut words = line
            .split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-')
            .filter_map(|word| str::from_utf8(word).ok());
        words.any(|word| self.ids.contains(self.mta.id_in_log(word))) && self.is_in_time(line)
    }

    /// Whether it was written in time. A line of a file that does not say when belongs to no log.
    fn is_in_time(&self, line: &[u8]) -> bool {
        self.since.is_none_or(|since| log_instant(line, self.clock).is_some_and(|written| written >= since))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use jiff::tz::TimeZone;

    use super::*;
    use crate::mta::{self, Kind, Search};

    /// What of a log is passed on, and whether there is more.
    fn chosen(
        kind: Kind,
        log: &[u8],
        ids: &[&str],
        since: Option<i64>,
        stretch: Stretch,
        room: usize,
    ) -> (String, bool) {
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
        let at = |second: i64| Some("2026-11-24T07:00:00Z".parse::<jiff::Timestamp>().unwrap().as_second() + second);
        let chosen = |ids: &[&str], since| chosen(Kind::Postfix, LOG.as_bytes(), ids, since, Stretch::Whole, MOST);
        assert_eq!(chosen(&["AAAAAA1"], at(0)), (line(0) + &line(2), false));
        assert_eq!(chosen(&["AAAAAA1", "AAAAAA12"], at(1)), (line(1) + &line(2), false));
        assert_eq!(chosen(&["AAAAAA1"], at(3)), (String::new(), false));
        assert_eq!(chosen(&["root", "example"], at(3)).0, "", "a file that is no log");
        // The journal has looked at the time.
        assert_eq!(chosen(&["AAAAAA1"], None).0.lines().count(), 3);
    }

    #[test]
    fn it_is_known_where_there_may_be_more() {
        let since = Some(0);
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
        let (lines, _) = chosen(Kind::Exim, exim.as_bytes(), &["1vNAb2-00000c-2p"], Some(0), Stretch::Whole, MOST);
        assert_eq!(lines.lines().count(), 2, "{lines}");
        let opensmtpd =
            "Nov 24 07:00:00 bartleby smtpd[1]: 38f3a1c2a1b2c3d4 mta delivery evpid=0e78358bb2c3d4e5 from=<>\n";
        for (id, is_held) in [("0e78358b", true), ("b2c3d4e5", false), ("0e78358", false)] {
            let (lines, _) = chosen(Kind::OpenSmtpd, opensmtpd.as_bytes(), &[id], Some(0), Stretch::Whole, MOST);
            assert_eq!(!lines.is_empty(), is_held, "{id}");
        }
        // Bytes come out as they stand there.
        let raw = b"2026-11-24 07:00:00 1vNAb2-00000c-2p ** cr\rmoe\xff@example.com\n";
        let mta_lines = chosen(Kind::Exim, raw, &["1vNAb2-00000c-2p"], Some(0), Stretch::Whole, MOST).0;
        assert_eq!(mta_lines, String::from_utf8_lossy(raw));
    }

    #[test]
    fn only_the_end_of_a_long_log_is_looked_at_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mail.log");
        let tail = || tail(path.to_str().unwrap(), 0);
        assert!(tail().is_none());
        fs::write(&path, "x\n").unwrap();
        assert!(tail().unwrap().1 == Stretch::Whole);
        assert!(super::tail(path.to_str().unwrap(), i64::MAX).is_none(), "nothing was written since");
        OpenOptions::new().write(true).open(&path).unwrap().set_len(LOOKED_AT + 7).unwrap();
        let (mut file, stretch) = tail().unwrap();
        assert!(stretch == Stretch::End && file.stream_position().unwrap() == 7);
        let other = folder.path().join("other");
        fs::hard_link(&path, &other).unwrap();
        assert!(tail().is_none(), "a file with two names");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(tail().is_none());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(tail().is_none());
    }
}
