//! Which folder is used, and why not the one that should be.
//!
//! Root works in no folder that root does not own, as its owner could lay files out there for root to trip over.
//! Where the folder is another user's (the web server's, usually), root keeps what it remembers in a folder of its own
//! beside it, and takes only the locks there, so that one run at a time holds for both.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::mkdtemp;

use super::folder::Folder;
use super::{StateError, locks};
use crate::system::Account;
use crate::system::trust::{self, Last, OPEN_TO_OTHERS, Untrusted};

/// The folder that `make install` makes for the web server's user.
const DEFAULT_DIRECTORY: &str = "/var/lib/bartleby";

/// Where a private folder is looked for, and made.
const PRIVATE_PARENTS: [&str; 2] = ["/run", "/tmp"];

/// What the name of root's own folder has behind that of the shared one.
const OF_ROOT: &str = "-root";

/// How long a process waits while another one makes the private folder.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Debug)]
pub(super) struct Place {
    /// The folder for everything that is remembered.
    pub(super) folder: Folder,
    /// Another user's folder, of which root takes the locks.
    pub(super) shared: Option<Folder>,
    /// Why the folder that should be used is not.
    pub(super) instead_of: Option<StateError>,
    /// The default folder, where it is not there and no other is configured.
    pub(super) missing: Option<PathBuf>,
}

impl Place {
    fn of(folder: Folder) -> Place {
        Place { folder, shared: None, instead_of: None, missing: None }
    }
}

/// Where folders are: only tests have others than those of this system.
pub(super) struct Places<'a> {
    default: &'a Path,
    private: &'a [&'a Path],
}

/// The configured folder, or else the first usable of `/var/lib/bartleby` and a private folder under `/run` or `/tmp`.
pub(super) fn find(configured: Option<&Path>, account: &Account) -> Result<Place, StateError> {
    let private = PRIVATE_PARENTS.map(Path::new);
    Places { default: Path::new(DEFAULT_DIRECTORY), private: &private }.find(configured, account)
}

impl Places<'_> {
    fn find(&self, configured: Option<&Path>, account: &Account) -> Result<Place, StateError> {
        // Only the installation makes the default folder: made by root it would shut others out.
        let default = || fs::symlink_metadata(self.default).is_ok().then_some(self.default);
        let Some(wanted) = configured.or_else(default) else {
            let folder = self.private(account, Vec::new())?;
            return Ok(Place { missing: Some(self.default.to_owned()), ..Place::of(folder) });
        };
        let found = if account.is_root() { self.for_root(wanted, account) } else { usable(wanted, account) };
        match found {
            Ok(found) => Ok(found),
            // Where the configuration says so, it is there or nowhere; but root never works where others could trick it.
            Err(reason) if configured.is_some() && !matches!(reason, StateError::Replaceable { .. }) => Err(reason),
            Err(reason) => {
                let folder = self.private(account, vec![reason.clone()])?;
                Ok(Place { instead_of: Some(reason), ..Place::of(folder) })
            }
        }
    }

    fn for_root(&self, wanted: &Path, account: &Account) -> Result<Place, StateError> {
        let (Some(parent), Some(name)) = (wanted.parent(), wanted.file_name()) else {
            return Err(StateError::NotAFolder(wanted.to_owned()));
        };
        let parent = no_one_can_replace(parent, wanted)?;
        let path = parent.join(name);
        let foreign = match usable(&path, account) {
            Err(StateError::Foreign { .. }) => path,
            found => return found,
        };
        let shared = Folder::of_another(&foreign, account).and_then(|shared| shared.file(locks::FLUSH).map(|_| shared));
        let beside = || {
            let only_roots = fs::metadata(&parent).is_ok_and(|parent| parent.mode() & OPEN_TO_OTHERS == 0);
            let mut name = name.to_owned();
            name.push(OF_ROOT);
            only_roots.then(|| usable(&parent.join(name), account))
        };
        let (folder, refused) = match beside() {
            Some(Ok(place)) => (place.folder, None),
            Some(Err(reason)) => (self.private(account, vec![reason.clone()])?, Some(reason)),
            None => (self.private(account, Vec::new())?, None),
        };
        let (shared, not_shared) = match shared {
            Ok(shared) => (Some(shared), None),
            Err(reason) => (None, Some(reason)),
        };
        Ok(Place { shared, instead_of: not_shared.or(refused), ..Place::of(folder) })
    }

    /// A private folder under the first of the parents where there is or can be one.
    fn private(&self, account: &Account, mut reasons: Vec<StateError>) -> Result<Folder, StateError> {
        for parent in self.private {
            match private_under(parent, account) {
                Ok(folder) => return Ok(folder),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(StateError::NoFolder(reasons))
    }
}

/// A folder of ours in which at least the turn to flush can be taken.
fn usable(path: &Path, account: &Account) -> Result<Place, StateError> {
    let folder = Folder::of_ours(path, account)?;
    folder.file(locks::FLUSH)?;
    Ok(Place::of(folder))
}

/// The first private folder of ours under a parent that everybody may use; if it finds none, it makes one. Nobody
/// can foresee its name, and so nobody can take it first, which would leave us without one.
fn private_under(parent: &Path, account: &Account) -> Result<Folder, StateError> {
    let beginning = format!("bartleby-{}-", account.uid);
    let parent =
        if account.is_root() { no_one_can_replace(parent, &parent.join(&beginning))? } else { parent.to_owned() };
    let first = || {
        let entries = fs::read_dir(&parent).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().as_bytes().starts_with(beginning.as_bytes()));
        let ours = named.map(|entry| entry.path()).filter(|path| is_private(path, account));
        ours.min()
    };
    if let Some(first) = first() {
        return Ok(usable(&first, account)?.folder);
    }
    // Two first requests make one folder. Where the wait is in vain they may make two; from then on all use the first.
    let _one_at_a_time = locked(&parent);
    let mine = match first() {
        Some(first) => first,
        None => {
            let template = parent.join(format!("{beginning}XXXXXX"));
            let made = mkdtemp(&template).map_err(|error| StateError::system(&parent, std::io::Error::from(error)))?;
            match first() {
                Some(first) if first < made => {
                    // Still empty. Another process that uses it already keeps it.
                    let _ = fs::remove_dir(&made);
                    first
                }
                _ => made,
            }
        }
    };
    Ok(usable(&mine, account)?.folder)
}

fn is_private(path: &Path, account: &Account) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == account.uid && found.permissions().mode() & 0o777 == 0o700)
}

/// The folder's lock. `None` where it can't be had in time: any user can hold that of `/tmp`.
fn locked(folder: &Path) -> Option<File> {
    let file = File::open(folder).ok()?;
    let deadline = Instant::now() + PATIENCE;
    while file.try_lock().is_err() {
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
    Some(file)
}

/// Where a path really leads, if no one but root can put another folder there. `wanted` is the folder of which that is
/// asked.
fn no_one_can_replace(path: &Path, wanted: &Path) -> Result<PathBuf, StateError> {
    trust::only_roots(path, Last::Folder).map_err(|untrusted| match untrusted {
        Untrusted::System(path, error) => StateError::system(&path, error),
        Untrusted::NotAFolder(path) | Untrusted::NotAFile(path) => StateError::NotAFolder(path),
        Untrusted::Foreign(by, _) | Untrusted::Open(by) => StateError::Replaceable { folder: wanted.to_owned(), by },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{chown, symlink};
    use std::sync::Barrier;

    use tempfile::TempDir;

    /// The web server's user on Debian.
    const WWW_DATA: u32 = 33;

    /// A machine's folders, and the user of this test.
    struct Machine {
        folder: TempDir,
        account: Account,
    }

    impl Machine {
        fn new() -> Machine {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("run")).unwrap();
            Machine { folder, account: Account::current() }
        }

        /// One on which this test is root; `None`, loudly, where it is not.
        fn of_root() -> Option<Machine> {
            let machine = Machine::new();
            if !machine.account.is_root() {
                eprintln!("SKIPPED: only root has to do with other users' folders");
            }
            machine.account.is_root().then_some(machine)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn folder_of(&self, owner: u32, name: &str) -> PathBuf {
            let made = self.path(name);
            fs::create_dir_all(&made).unwrap();
            fs::set_permissions(&made, fs::Permissions::from_mode(0o700)).unwrap();
            chown(&made, Some(owner), Some(owner)).unwrap();
            made
        }

        fn find(&self, configured: Option<&Path>) -> Result<Place, StateError> {
            let places = Places { default: &self.path("default"), private: &[&self.path("run")] };
            places.find(configured, &self.account)
        }

        fn private(&self) -> PathBuf {
            private_under(&self.path("run"), &self.account).unwrap().path().to_owned()
        }

        fn all_private(&self) -> usize {
            fs::read_dir(self.path("run")).unwrap().count()
        }
    }

    #[test]
    fn nobody_can_take_the_private_folder_first() {
        let machine = Machine::new();
        let uid = machine.account.uid;
        // What a stranger would have made in time, were it not for the name.
        fs::write(machine.path(&format!("run/bartleby-{uid}")), "").unwrap();
        fs::write(machine.path(&format!("run/bartleby-{uid}-")), "").unwrap();
        fs::create_dir(machine.path(&format!("run/bartleby-{uid}-0"))).unwrap();
        fs::set_permissions(machine.path(&format!("run/bartleby-{uid}-0")), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/etc", machine.path(&format!("run/bartleby-{uid}-1"))).unwrap();
        if machine.account.is_root() {
            machine.folder_of(WWW_DATA, "run/bartleby-0-2");
        }
        let others = machine.all_private();
        let private = machine.private();
        assert!(is_private(&private, &machine.account));
        assert!(private.to_string_lossy().len() > machine.path(&format!("run/bartleby-{uid}-00000")).as_os_str().len());
        assert_eq!((machine.private(), machine.all_private()), (private, others + 1), "it is found again");
    }

    #[test]
    fn of_several_private_folders_all_use_the_first() {
        let machine = Machine::new();
        let uid = machine.account.uid;
        for name in ["b", "a", "c"] {
            machine.folder_of(uid, &format!("run/bartleby-{uid}-{name}"));
        }
        assert_eq!(machine.private(), machine.path(&format!("run/bartleby-{uid}-a")));
    }

    #[test]
    fn first_requests_at_once_agree_on_one_private_folder() {
        let machine = Machine::new();
        let start = Barrier::new(20);
        let found: Vec<_> = thread::scope(|scope| {
            let request = || {
                start.wait();
                machine.private()
            };
            let requests: Vec<_> = (0..20).map(|_| scope.spawn(request)).collect();
            requests.into_iter().map(|request| request.join().unwrap()).collect()
        });
        assert!(found.iter().all(|one| *one == found[0]), "{found:?}");
        assert_eq!(machine.all_private(), 1);
    }

    #[test]
    fn a_stranger_who_holds_the_parents_lock_only_delays_the_first_request() {
        let machine = Machine::new();
        let _held = locked(&machine.path("run")).unwrap();
        assert!(is_private(&machine.private(), &machine.account));
    }

    #[test]
    fn the_folder_that_should_be_used_is_named_with_what_is_wrong_with_it() {
        let machine = Machine::new();
        let place = machine.find(None).unwrap();
        assert_eq!(place.instead_of, None, "nothing is installed, so nothing is wrong");
        assert_eq!(place.missing, Some(machine.path("default")));
        let default = machine.folder_of(machine.account.uid, "default");
        assert_eq!(machine.find(None).unwrap().folder.path(), default);
        fs::set_permissions(&default, fs::Permissions::from_mode(0o777)).unwrap();
        let place = machine.find(None).unwrap();
        assert_eq!(place.instead_of, Some(StateError::OpenToOthers(default.clone())));
        assert_eq!(place.folder.path().parent(), Some(&*machine.path("run")));
        assert_eq!(machine.find(Some(&default)).unwrap_err(), StateError::OpenToOthers(default), "there or nowhere");
    }

    #[test]
    fn root_keeps_its_own_folder_beside_another_users_and_shares_only_its_locks() {
        let Some(machine) = Machine::of_root() else { return };
        let theirs = machine.folder_of(WWW_DATA, "state");
        let place = machine.find(Some(&theirs)).unwrap();
        assert_eq!(place.folder.path(), machine.path("state-root"));
        assert_eq!((place.shared.unwrap().path(), place.instead_of), (&*theirs, None));
        assert_eq!(fs::metadata(theirs.join("flush.lock")).unwrap().uid(), WWW_DATA, "made for the folder's owner");
        assert_eq!(fs::read_dir(&theirs).unwrap().count(), 1);
        machine.folder_of(WWW_DATA, "state-root");
        let place = machine.find(Some(&theirs)).unwrap();
        assert_eq!(place.folder.path().parent(), Some(&*machine.path("run")), "that one is not root's");
        assert!(matches!(place.instead_of, Some(StateError::Foreign { .. })) && place.shared.is_some());
    }

    #[test]
    fn root_gives_no_file_away_that_it_did_not_make() {
        let Some(machine) = Machine::of_root() else { return };
        let theirs = machine.folder_of(WWW_DATA, "state");
        fs::write(machine.path("roots"), "").unwrap();
        for plant in [symlink::<PathBuf, PathBuf>, fs::hard_link, |from, to| fs::copy(from, to).map(|_| ())] {
            plant(machine.path("roots"), theirs.join("flush.lock")).unwrap();
            let place = machine.find(Some(&theirs)).unwrap();
            assert!(place.instead_of.is_some() || fs::metadata(theirs.join("flush.lock")).unwrap().uid() == 0);
            assert_eq!(fs::metadata(machine.path("roots")).unwrap().uid(), 0);
            fs::remove_file(theirs.join("flush.lock")).unwrap();
        }
    }

    #[test]
    fn root_uses_no_folder_that_another_user_could_replace() {
        let Some(machine) = Machine::of_root() else { return };
        machine.folder_of(WWW_DATA, "home");
        symlink(machine.path("run"), machine.path("home/link")).unwrap();
        fs::create_dir_all(machine.path("home/below/state")).unwrap();
        fs::create_dir_all(machine.path("open/state")).unwrap();
        fs::set_permissions(machine.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
        symlink(machine.path("run"), machine.path("theirs")).unwrap();
        std::os::unix::fs::lchown(machine.path("theirs"), Some(WWW_DATA), None).unwrap();
        for (folder, by) in [
            ("home/below/state", "home"),
            ("home/link/state", "home"),
            ("open/state", "open"),
            ("theirs/state", "theirs"),
        ] {
            let place = machine.find(Some(&machine.path(folder))).unwrap();
            let replaceable = StateError::Replaceable { folder: machine.path(folder), by: machine.path(by) };
            assert_eq!((place.instead_of, place.shared.is_none()), (Some(replaceable), true), "{folder}");
            assert_eq!(place.folder.path().parent(), Some(&*machine.path("run")), "{folder}");
        }
        // Sticky, as /tmp is, and by a link of root's own.
        fs::set_permissions(machine.path("open"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("open/../open", machine.path("link")).unwrap();
        let place = machine.find(Some(&machine.path("link/state"))).unwrap();
        assert_eq!((place.folder.path(), place.instead_of), (&*machine.path("open/state"), None));
        // Where others can make files, root makes no folder with a name that they can foresee.
        machine.folder_of(WWW_DATA, "open/of-another");
        let place = machine.find(Some(&machine.path("open/of-another"))).unwrap();
        assert_eq!(place.folder.path().parent(), Some(&*machine.path("run")));
        assert!(place.instead_of.is_none() && place.shared.is_some());
    }
}
