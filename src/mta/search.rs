//! Finding out which mail server is installed.

use std::path::{Path, PathBuf};

use super::{Kind, exim, sendmail};

/// Where programs are looked for: absolute folders, whatever the web server's `PATH` holds.
#[derive(Clone, Debug)]
pub struct Search {
    /// What every path starts with; `/` but in tests.
    root: PathBuf,
    pub(super) folders: Vec<String>,
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
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        self.folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| self.below_root(path).is_file())
    }

    pub(super) fn below_root(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Which mail server is installed, told by the programs that only it brings. `/usr/sbin/sendmail`
    /// is brought by all of them; where several are installed, it tells which one is in use.
    pub(super) fn installed(&self) -> Option<Kind> {
        let installed = self.all_installed();
        let in_use = self.in_use();
        installed.iter().copied().find(|kind| Some(*kind) == in_use).or_else(|| installed.first().copied())
    }

    fn all_installed(&self) -> Vec<Kind> {
        [
            (Kind::Postfix, self.program("postqueue").is_some()),
            (Kind::Exim, exim::installed(self).is_some()),
            (Kind::OpenSmtpd, self.program("smtpctl").is_some()),
            (Kind::Sendmail, sendmail::installed(self).is_some()),
            (Kind::Courier, self.program("courier").is_some()),
            (Kind::Nullmailer, self.program("nullmailer-send").is_some()),
            (Kind::Dma, self.program("dma").is_some()),
        ]
        .into_iter()
        .filter_map(|(kind, there)| there.then_some(kind))
        .collect()
    }

    /// Whether this mail server is installed.
    pub fn has(&self, kind: Kind) -> bool {
        self.all_installed().contains(&kind)
    }

    /// The mail server that `/usr/sbin/sendmail` leads to, by the names that distributions give.
    fn in_use(&self) -> Option<Kind> {
        let target = self.below_root(Path::new("/usr/sbin/sendmail")).canonicalize().ok()?;
        let target = target.to_str()?;
        [("exim", Kind::Exim), ("smtpctl", Kind::OpenSmtpd), ("postfix", Kind::Postfix)]
            .into_iter()
            .find_map(|(name, kind)| target.contains(name).then_some(kind))
            .or_else(|| sendmail::is_sendmail(Path::new(target)).then_some(Kind::Sendmail))
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
    fn the_mail_server_is_told_by_what_only_it_brings() {
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
