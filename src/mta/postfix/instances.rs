//! Several instances of Postfix on one machine, each with a configuration, a queue and a name of its own.
//!
//! Sources: Postfix's MULTI_INSTANCE_README, postmulti(1), and postconf(5) on the form of main.cf. They are read from the
//! files, which everybody may read, as no program should be started before the one that lists.

use std::fs;
use std::path::{Path, PathBuf};

use crate::mta::Search;
use crate::mta::trouble::Trouble;
use crate::text::{Odd, plain_word};

/// The configuration folder of the first instance.
const DEFAULT: &str = "/etc/postfix";

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instance {
    /// Its name, or that of its configuration folder.
    pub(super) name: String,
    /// Its configuration folder, where commands have to name it.
    folder: Option<String>,
}

impl Instance {
    /// One of this name, whose configuration is in this folder.
    #[cfg(test)]
    pub(super) fn named(name: &str, folder: Option<String>) -> Instance {
        Instance { name: name.to_owned(), folder }
    }

    /// The arguments of a command for this instance, of Postfix' own programs.
    pub(super) fn arguments<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let which = self.folder.iter().flat_map(|folder| ["-c", folder]);
        which.chain(arguments.iter().copied()).collect()
    }

    /// Its main.cf, where that of the first one is `first`.
    pub(super) fn main_cf(&self, first: &Path) -> PathBuf {
        self.folder.as_ref().map_or_else(|| first.to_owned(), |folder| Path::new(folder).join("main.cf"))
    }

    /// The option by which a command names it, with a space in front.
    pub(super) fn option(&self) -> Result<String, Odd> {
        let Some(folder) = &self.folder else { return Ok(String::new()) };
        plain_word(folder).map(|folder| format!(" -c {folder}"))
    }

    /// The same trouble, of this instance.
    pub(super) fn blamed_for(&self, trouble: Trouble) -> Trouble {
        let words = |words: &str| format!("{}: {words}", self.name);
        match trouble.with_settings(&self.folder.as_ref().map(PathBuf::from)) {
            Trouble::NotRunning { mta, words: said } => Trouble::NotRunning { mta, words: words(&said) },
            Trouble::NotPermitted { mta, act, account, program, configured, settings, words: said } => {
                Trouble::NotPermitted { mta, act, account, program, configured, settings, words: words(&said) }
            }
            other => other,
        }
    }
}

/// The instances of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Instances {
    /// The first one, and the others that Postfix starts.
    pub(super) running: Vec<Instance>,
    /// The names of those that are disabled: their mail waits until they are enabled.
    pub(super) disabled: Vec<String>,
    /// The configuration files of all but the first one.
    pub(super) others: Vec<PathBuf>,
}

impl Instances {
    /// Those that the first one's main.cf names.
    pub(super) fn of(search: &Search) -> Instances {
        let file = |folder: &str| search.below_root(&Path::new(folder).join("main.cf"));
        let read = |folder: &str| fs::read_to_string(file(folder)).unwrap_or_default();
        let main_cf = read(DEFAULT);
        let first = Instance { name: name(&main_cf, DEFAULT), folder: None };
        let mut all = Instances { running: vec![first], disabled: Vec::new(), others: Vec::new() };
        for folder in folders(&main_cf) {
            let main_cf = read(&folder);
            all.others.push(file(&folder));
            let name = name(&main_cf, &folder);
            if setting(&main_cf, "multi_instance_enable").as_deref() == Some("yes") {
                all.running.push(Instance { name, folder: Some(folder) });
            } else {
                all.disabled.push(name);
            }
        }
        all
    }

    /// One of them; `None` where there is one alone, whose messages need no name of it.
    pub(super) fn among_several(&self, place: usize) -> Option<&Instance> {
        self.running.get(place).filter(|_| self.running.len() > 1)
    }
}

/// The other instances' configuration folders.
fn folders(main_cf: &str) -> Vec<String> {
    let named = setting(main_cf, "multi_instance_directories").unwrap_or_default();
    let folders = named.split([',', ' ', '\t']).filter(|word| word.starts_with('/'));
    folders.map(str::to_owned).collect()
}

fn name(main_cf: &str, folder: &str) -> String {
    let named = setting(main_cf, "multi_instance_name").filter(|name| !name.is_empty());
    named.unwrap_or_else(|| folder.trim_end_matches('/').rsplit('/').next().unwrap_or(folder).to_owned())
}

/// The value of a parameter, the last one where there are several. A line that begins with space continues the one
/// before; between them there may be comments and empty lines.
fn setting(main_cf: &str, name: &str) -> Option<String> {
    let mut value = None;
    let mut is_ours = false;
    for line in main_cf.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty()) {
        if line.starts_with([' ', '\t']) {
            let more = value.as_mut().filter(|_| is_ours);
            more.into_iter().for_each(|value: &mut String| *value = format!("{value} {}", line.trim()));
        } else {
            let (key, text) = line.split_once('=').unwrap_or((line, ""));
            is_ours = key.trim() == name;
            value = if is_ours { Some(text.trim().to_owned()) } else { value };
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_found_by_the_first_ones_main_cf() {
        let root = tempfile::tempdir().unwrap();
        let write = |folder: &str, text: &str| {
            let folder = root.path().join(folder);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("main.cf"), text).unwrap();
        };
        let found = || Instances::of(&Search::below(root.path()));
        let instance =
            |name: &str, folder: Option<&str>| Instance { name: name.to_owned(), folder: folder.map(str::to_owned) };
        let alone = Instances { running: vec![instance("postfix", None)], disabled: vec![], others: vec![] };
        assert_eq!(found(), alone, "nothing can be read");
        assert_eq!(alone.among_several(0), None);
        write(
            "etc/postfix",
            "myhostname = a.example\nmulti_instance_directories = /etc/postfix-in,\n# more:\n\n  /etc/postfix-out, /etc/postfix-old\n",
        );
        write("etc/postfix-in", "multi_instance_name = postfix-incoming\nmulti_instance_enable = yes\n");
        write("etc/postfix-out", "multi_instance_enable = no\nmulti_instance_enable = yes\n");
        write("etc/postfix-old", "multi_instance_name = postfix-old\n#multi_instance_enable = yes\n");
        let all = found();
        let incoming = instance("postfix-incoming", Some("/etc/postfix-in"));
        let outgoing = instance("postfix-out", Some("/etc/postfix-out"));
        assert_eq!(all.running, [instance("postfix", None), incoming, outgoing]);
        assert_eq!(all.disabled, ["postfix-old"]);
        assert_eq!(all.others.len(), 3);
        assert_eq!(all.among_several(0).unwrap().name, "postfix");
        assert_eq!(all.running[1].arguments(&["-j"]), ["-c", "/etc/postfix-in", "-j"]);
        assert_eq!(all.running[0].arguments(&["-j"]), ["-j"]);
    }
}
