//! Answers that hold for a while: who asks again soon gets the same answer, as long as what it was made from is unchanged.
//!
//! Each question has a small file of its own (see [`Sighting`]), which is written without waiting for the disk. What it says
//! is taken for no more than what any program of this user could say.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Records, Sighting};

/// For how long an answer holds, in seconds, as not all that it was made from is known.
const GOOD_FOR: i64 = 60;

/// How long a file must be unchanged for its identity to tell every later change: longer than any tick of a filesystem's
/// clock.
const SETTLED: Duration = Duration::from_secs(2);

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// What the mail server's settings are.
    Settings,
    /// What sudo or doas lets this user do.
    Rules,
    /// What the mail server is called, and for which domains it relays mail.
    Names,
}

impl Question {
    fn file(self) -> &'static str {
        match self {
            Question::Settings => "settings.seen",
            Question::Rules => "rules.seen",
            Question::Names => "names.seen",
        }
    }
}

/// What an answer was made from, as it was before the question was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Basis {
    words: Vec<String>,
    files: Vec<Option<Identity>>,
}

/// What distinguishes a file from another one, and from itself after a change: device, inode, size, and in nanoseconds since 1970
/// its last modification and its last change of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: i128,
    changed: i128,
}

impl Basis {
    /// These words, and these files, some of which may be missing. `None` where one of them was changed just now: its next
    /// change might leave no trace.
    pub(crate) fn of(words: &[&str], files: &[PathBuf]) -> Option<Basis> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let settled = i128::try_from(now.saturating_sub(SETTLED).as_nanos()).ok()?;
        let files: Vec<_> = files.iter().map(|file| Identity::of(file)).collect();
        let is_settled = files.iter().flatten().all(|file| file.changed < settled);
        is_settled.then(|| Basis { words: words.iter().map(|&word| word.to_owned()).collect(), files })
    }
}

impl Identity {
    fn of(file: &Path) -> Option<Identity> {
        let found = fs::metadata(file).ok()?;
        let nanoseconds = |seconds: i64, more: i64| i128::from(seconds) * 1_000_000_000 + i128::from(more);
        Some(Identity {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: nanoseconds(found.mtime(), found.mtime_nsec()),
            changed: nanoseconds(found.ctime(), found.ctime_nsec()),
        })
    }
}

/// An answer, with when it was given, in seconds since 1970.
#[derive(Serialize, Deserialize)]
struct Remembered<A> {
    basis: Basis,
    given: i64,
    answer: A,
}

impl Records {
    /// The answer that was given on the same basis a short while ago. One that seems to be of the future was given before
    /// the clock was set back.
    pub(crate) fn recall<A: DeserializeOwned>(&self, question: Question, basis: &Basis, now: i64) -> Option<A> {
        let bytes = self.sighting_in(question.file())?.read()?;
        let remembered: Remembered<A> = serde_json::from_slice(&bytes).ok()?;
        let age = now.checked_sub(remembered.given)?;
        (remembered.basis == *basis && (0..GOOD_FOR).contains(&age)).then_some(remembered.answer)
    }

    /// Keeps an answer for who asks soon. Where that fails, they ask again.
    pub(crate) fn remember<A: Serialize>(&self, question: Question, basis: &Basis, now: i64, answer: &A) {
        let remembered = Remembered { basis: basis.clone(), given: now, answer };
        let write = |sighting: Sighting| {
            let bytes = serde_json::to_vec(&remembered).ok().filter(|_| sighting.try_lock())?;
            sighting.write(&bytes).ok()
        };
        let _ = self.sighting_in(question.file()).and_then(write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::tests::records;

    #[test]
    fn an_answer_holds_for_a_minute_on_the_same_basis() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path()).unwrap();
        let basis = |word: &str| Basis::of(&[word], &["/etc/passwd".into(), "/nonexistent".into()]).unwrap();
        let recall = |word: &str, now| records.recall::<String>(Question::Settings, &basis(word), now);
        assert_eq!(recall("a", 100), None);
        records.remember(Question::Settings, &basis("a"), 100, &"yes");
        assert_eq!([recall("a", 100), recall("a", 159)], [Some("yes".into()), Some("yes".into())]);
        assert_eq!([recall("a", 160), recall("a", 99), recall("b", 100)], [None, None, None]);
        assert_eq!(records.recall::<String>(Question::Rules, &basis("a"), 100), None, "of another question");
        assert_eq!(records.recall::<u64>(Question::Settings, &basis("a"), 100), None, "of another form");
    }

    #[test]
    fn a_file_that_was_changed_just_now_is_no_basis() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(Basis::of(&[], &[file.path().into()]), None);
        assert!(Basis::of(&[], &["/etc/passwd".into()]).is_some());
    }

    #[test]
    fn every_change_of_a_file_changes_its_identity() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("main.cf");
        let identity = || Identity::of(&file);
        assert_eq!(identity(), None);
        let mut seen = Vec::new();
        let changes: [&dyn Fn(); 4] = [
            &|| fs::write(&file, "a").unwrap(),
            &|| fs::write(&file, "b").unwrap(),
            // Another file with the same contents and, by cp -p, the same time.
            &|| {
                let old = fs::metadata(&file).unwrap().modified().unwrap();
                fs::copy(&file, folder.path().join("new")).unwrap();
                fs::File::open(folder.path().join("new")).unwrap().set_modified(old).unwrap();
                fs::rename(folder.path().join("new"), &file).unwrap();
            },
            &|| fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap(),
        ];
        for change in changes {
            change();
            let now = identity();
            assert!(now.is_some() && !seen.contains(&now));
            seen.push(now);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
