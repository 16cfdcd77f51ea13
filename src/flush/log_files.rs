//! The files of a mail log: the one that is written, and what rotation has made of earlier ones.
//!
//! A log may be rotated while the queue is run, in many ways: renamed (`.1`, `.0`, `-20261124`, `.20261124-120000`),
//! compressed at once (`.gz`), copied and shrunk in place; and postlogd(8) goes on in a file that others have renamed. So
//! each file is taken whose name begins with the log's, and that was written to since then: one that was there before, under
//! any name, from where it ended then, and any other, which may be a copy of such a one, by the time of its lines.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::mta::{FileEnd, Mark};
use crate::system::process::Argv;

/// How much of a file is looked at, in bytes: its end. A run of 20,000 messages writes some 7 MB.
const LOOKED_AT: u64 = 256 * 1024 * 1024;

/// How many files of a log are looked at, the latest.
const MOST_FILES: usize = 8;

/// How compressed files begin, by their formats, and what unpacks them.
const PACKED: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd")];

/// A part of a log.
pub(super) struct Piece {
    pub(super) file: File,
    pub(super) stretch: Stretch,
    /// The command that prints it, given the file as its standard input, where it is compressed.
    pub(super) unpacked_by: Option<Argv>,
    /// When it was last written to, in seconds since 1970.
    written: i64,
    /// Its device and its number there.
    identity: (u64, u64),
}

/// What of a log is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stretch {
    /// Entries of the journal, which gives no others than those that were asked for.
    Entries,
    /// What was written since the mark: all of it counts, whenever that was.
    SinceMark,
    /// All of it.
    Whole,
    /// Only its end, so that the first line is no whole one.
    End,
}

/// Where each file of a log ends now.
pub(super) fn ends(log: &Path) -> Vec<FileEnd> {
    let found = names(log).into_iter().filter_map(|path| fs::symlink_metadata(path).ok());
    let mut found: Vec<_> = found.filter(|found| found.is_file()).collect();
    found.sort_by_key(MetadataExt::mtime);
    let last = found.split_off(found.len().saturating_sub(MOST_FILES));
    last.iter().map(|found| FileEnd { device: found.dev(), inode: found.ino(), size: found.len() }).collect()
}

/// The files of a log that were written to since then, the oldest first.
pub(super) fn pieces(log: &Path, since: i64, mark: &Mark) -> Vec<Piece> {
    let mut found: Vec<Piece> = names(log).iter().filter_map(|path| piece(path, since, mark)).collect();
    // One that is renamed meanwhile is seen twice.
    found.sort_by_key(|piece| (piece.identity, piece.written));
    found.dedup_by_key(|piece| piece.identity);
    found.sort_by_key(|piece| piece.written);
    found.split_off(found.len().saturating_sub(MOST_FILES))
}

/// The log, and what has its name and more. Where the folder can't be listed, the usual names.
fn names(log: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Vec::new();
    };
    let is_of_it =
        |other: &str| other.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']));
    match fs::read_dir(folder) {
        Ok(entries) => {
            let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
            names.filter(|other| is_of_it(other)).map(|other| folder.join(other)).collect()
        }
        Err(_) => ["", ".1", ".0"].iter().map(|rest| folder.join(format!("{name}{rest}"))).collect(),
    }
}

/// A file that has been written to since then, if it is one of its own: who can put a link there decides nothing.
fn piece(path: &Path, since: i64, mark: &Mark) -> Option<Piece> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).ok()?;
    let found = file.metadata().ok().filter(|found| found.is_file() && found.nlink() == 1 && found.mtime() >= since)?;
    let mut beginning = [0; 6];
    let length = file.read_at(&mut beginning, 0).unwrap_or_default();
    let packed = PACKED.iter().find(|(magic, _)| beginning.get(..length).unwrap_or_default().starts_with(magic));
    let unpacked_by = packed.map(|(_, program)| Argv::new(*program, &["-dc"]));
    let identity = (found.dev(), found.ino());
    let mut known = mark.files.iter().filter(|end| unpacked_by.is_none() && (end.device, end.inode) == identity);
    let (begin, stretch) = match known.find(|end| was_added_to(&file, found.len(), end.size)) {
        Some(end) => (end.size, Stretch::SinceMark),
        None => (0, Stretch::Whole),
    };
    let is_long = unpacked_by.is_none() && found.len() - begin > LOOKED_AT;
    let (start, stretch) = if is_long { (found.len() - LOOKED_AT, Stretch::End) } else { (begin, stretch) };
    file.seek(SeekFrom::Start(start)).ok()?;
    Some(Piece { file, stretch, unpacked_by, written: found.mtime(), identity })
}

/// Whether a file of this length still holds what it did when it had `size` bytes, and more. One that was shrunk in place,
/// or has the number of one that is gone, has no line that ends there, but by chance.
fn was_added_to(file: &File, length: u64, size: u64) -> bool {
    let ends_a_line = |before: u64| {
        let mut last = [0];
        let read: io::Result<()> = file.read_exact_at(&mut last, before);
        read.is_ok() && last == *b"\n"
    };
    length >= size && size.checked_sub(1).is_none_or(ends_a_line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn only_the_end_of_a_long_log_is_looked_at_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mail.log");
        let piece = || super::piece(&path, 0, &Mark::default());
        assert!(piece().is_none());
        fs::write(&path, "x\n").unwrap();
        assert!(piece().unwrap().stretch == Stretch::Whole);
        assert!(super::piece(&path, i64::MAX, &Mark::default()).is_none(), "nothing was written since");
        OpenOptions::new().write(true).open(&path).unwrap().set_len(LOOKED_AT + 7).unwrap();
        let Piece { mut file, stretch, .. } = piece().unwrap();
        assert!(stretch == Stretch::End && file.stream_position().unwrap() == 7);
        let other = folder.path().join("other");
        fs::hard_link(&path, &other).unwrap();
        assert!(piece().is_none(), "a file with two names");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(piece().is_none());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(piece().is_none());
    }

    #[test]
    fn each_file_that_rotation_made_is_taken_the_oldest_first() {
        let folder = tempfile::tempdir().unwrap();
        let since = 1_000_000;
        let write = |name: &str, written: i64, content: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, content).unwrap();
            let written = std::time::UNIX_EPOCH + std::time::Duration::from_secs(written.cast_unsigned());
            File::options().write(true).open(path).unwrap().set_modified(written).unwrap();
        };
        write("mail.log", since + 9, b"now");
        write("mail.log.1", since + 5, b"renamed");
        write("mail.log-20261124", since + 4, b"dated");
        write("mail.log.20261124-120000.gz", since + 3, b"\x1f\x8b\x08");
        write("mail.log.2", since - 1, b"long ago");
        write("mail.logger", since + 9, b"another's");
        write("mail.err", since + 9, b"another's");
        let read = |piece: Piece| {
            let mut content = Vec::new();
            { piece.file }.read_to_end(&mut content).unwrap();
            (String::from_utf8_lossy(&content).into_owned(), piece.unpacked_by.map(|command| command.to_string()))
        };
        let found: Vec<_> =
            pieces(&folder.path().join("mail.log"), since, &Mark::default()).into_iter().map(read).collect();
        let plain = |content: &str| (content.to_owned(), None);
        let gzip = (String::from_utf8_lossy(b"\x1f\x8b\x08").into_owned(), Some("gzip -dc".to_owned()));
        assert_eq!(found, [gzip, plain("dated"), plain("renamed"), plain("now")]);
        // The log itself may be missing for a while.
        fs::remove_file(folder.path().join("mail.log")).unwrap();
        assert_eq!(pieces(&folder.path().join("mail.log"), since, &Mark::default()).len(), 3);
        (0..20).for_each(|number| write(&format!("mail.log.x{number}"), since + 20 + number, b""));
        assert_eq!(pieces(&folder.path().join("mail.log"), since, &Mark::default()).len(), MOST_FILES);
    }

    /// What is read of a log that had an earlier line, and whose lines are such after this.
    fn read_after(happens: fn(&Path)) -> Vec<(Stretch, String)> {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("mail.log");
        fs::write(&log, "before\n").unwrap();
        fs::write(folder.path().join("mail.log.1"), "long before\n").unwrap();
        let mark = Mark { files: ends(&log), cursor: None };
        assert_eq!(mark.files.len(), 2);
        happens(&log);
        let read = |mut piece: Piece| {
            let mut content = String::new();
            piece.file.read_to_string(&mut content).unwrap();
            (piece.stretch, content)
        };
        let found = pieces(&log, 0, &mark).into_iter().map(read);
        let mut found: Vec<_> = found.filter(|(_, content)| !content.is_empty()).collect();
        found.sort_by_key(|(_, content)| content.clone());
        found
    }

    fn append(log: &Path, line: &str) {
        use std::io::Write;
        OpenOptions::new().create(true).append(true).open(log).unwrap().write_all(line.as_bytes()).unwrap();
    }

    /// What happens to a log, and what is read of it then.
    type Case = (fn(&Path), &'static [(Stretch, &'static str)]);

    #[test]
    fn a_file_that_was_there_is_read_from_where_it_ended_under_whatever_name() {
        use Stretch::{SinceMark, Whole};
        let cases: [Case; 6] = [
            (|_| (), &[]),
            (|log| append(log, "now\n"), &[(SinceMark, "now\n")]),
            (
                |log| {
                    append(log, "now\n");
                    fs::rename(log, log.with_extension("log.2")).unwrap();
                    append(log, "then\n");
                },
                &[(SinceMark, "now\n"), (Whole, "then\n")],
            ),
            (
                |log| {
                    let renamed = log.with_extension("log-1");
                    fs::rename(log, &renamed).unwrap();
                    append(&renamed, "now\n");
                },
                &[(SinceMark, "now\n")],
            ),
            // Copied and shrunk in place: by time, as no line can be told by its place.
            (
                |log| {
                    append(log, "now\n");
                    fs::copy(log, log.with_extension("log.2")).unwrap();
                    fs::write(log, "then\n").unwrap();
                },
                &[(Whole, "before\nnow\n"), (Whole, "then\n")],
            ),
            // Shrunk, and longer again than it was.
            (|log| fs::write(log, "much more than before\n").unwrap(), &[(Whole, "much more than before\n")]),
        ];
        for (number, (happens, expected)) in cases.into_iter().enumerate() {
            let found = read_after(happens);
            let found: Vec<_> = found.iter().map(|(stretch, content)| (*stretch, content.as_str())).collect();
            assert_eq!(found, expected, "case {number}");
        }
    }
}
