//! Finding out which mail server is installed.

use std::path::{Path, PathBuf};

use super::{Kind, ROWS, Row};

/// Where programs are looked for: absolute folders, whatever the web server's `PATH` holds.
#[derive(Clone, Debug)]
pub struct Search {
    /// What every path starts with; `/` but in tests.
    root: PathBuf,
    folders: Vec<String>,
}

impl Default for Search {
    fn default() -> Self {
        Search::below(Path::new("/"))
    }
}

impl Search {
    /// Programs below `root`.
    pub fn below(root: &Path) -> Search {
        let folders = ["/usr/sbin", "/usr/bin", "/usr/libexec", "/usr/local/sbin", "/usr/local/bin", "/sbin", "/bin"];
        Search { root: root.into(), folders: folders.map(String::from).into() }
    }

    /// The absolute path of a program.
    pub(super) fn program(&self, name: &str) -> Option<PathBuf> {
        self.folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| self.below_root(path).is_file())
    }

    pub(super) fn below_root(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// The folders that are searched, in a sentence.
    pub(super) fn folders(&self) -> String {
        self.folders.join(", ")
    }

    /// Which mail server is installed. All of them bring a `/usr/sbin/sendmail`: where several are installed, it
    /// shows which one is in use.
    pub(super) fn installed(&self) -> Option<Kind> {
        let installed: Vec<&Row> = ROWS.iter().filter(|row| (row.is_installed)(self)).collect();
        let sendmail = self.below_root(Path::new("/usr/sbin/sendmail")).canonicalize().ok();
        let in_use = |row: &&&Row| sendmail.as_deref().is_some_and(row.is_behind_sendmail);
        installed.iter().find(in_use).or(installed.first()).map(|row| row.kind)
    }

    /// Whether this mail server is installed.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        (kind.row().is_installed)(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn machine(programs: &[&str], sendmail_leads_to: Option<&str>) -> (tempfile::TempDir, Search) {
        let root = tempfile::tempdir().unwrap();
        for program in programs {
            let path = root.path().join(program.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        if let Some(target) = sendmail_leads_to {
            fs::create_dir_all(root.path().join("usr/sbin")).unwrap();
            let target = root.path().join(target.trim_start_matches('/'));
            symlink(target, root.path().join("usr/sbin/sendmail")).unwrap();
        }
        let search = Search::below(root.path());
        (root, search)
    }

    #[test]
    fn a_mail_server_is_recognised_by_a_program_that_only_it_brings() {
        for (programs, link, kind) in [
            (&["/usr/sbin/postqueue", "/usr/sbin/sendmail"][..], None, Some(Kind::Postfix)),
            (&["/usr/libexec/sendmail/sendmail"], Some("/usr/libexec/sendmail/sendmail"), Some(Kind::Sendmail)),
            (&["/usr/sbin/sendmail.sendmail"], Some("/usr/sbin/sendmail.sendmail"), Some(Kind::Sendmail)),
            (&["/usr/sbin/exim4"], Some("/usr/sbin/exim4"), Some(Kind::Exim)),
            (&["/usr/sbin/smtpctl"], Some("/usr/sbin/smtpctl"), Some(Kind::OpenSmtpd)),
            (&["/usr/sbin/dma"], Some("/usr/sbin/dma"), Some(Kind::Dma)),
            (&["/usr/sbin/nullmailer-send", "/usr/sbin/sendmail"], None, Some(Kind::Nullmailer)),
            (&["/usr/sbin/courier", "/usr/sbin/sendmail"], None, Some(Kind::Courier)),
            (&["/usr/sbin/sendmail"], None, None),
            (&[], None, None),
        ] {
            let (_root, search) = machine(programs, link);
            assert_eq!(search.installed(), kind, "{programs:?}");
        }
    }

    #[test]
    fn of_several_the_one_behind_usr_sbin_sendmail_is_in_use() {
        let programs = ["/usr/sbin/postqueue", "/usr/libexec/sendmail/sendmail"];
        let (_root, search) = machine(&programs, Some("/usr/libexec/sendmail/sendmail"));
        assert_eq!(search.installed(), Some(Kind::Sendmail));
        let programs = ["/usr/sbin/postqueue", "/usr/sbin/sendmail.postfix", "/usr/sbin/sendmail.sendmail"];
        let (_root, search) = machine(&programs, Some("/usr/sbin/sendmail.postfix"));
        assert_eq!(search.installed(), Some(Kind::Postfix));
    }
}
