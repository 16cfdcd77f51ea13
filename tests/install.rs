//! `make install` and `make uninstall`, into a folder (DESTDIR) that plays the machine.
//!
//! They run a copy of the Makefile and what it installs, so that a test can play a later version by
//! editing the copy. The program is a placeholder: that the real one works is other tests' business.

#![allow(clippy::expect_used, clippy::panic, reason = "a test says so when its own steps fail")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

const DEBIAN: &str = "etc/apache2/conf-available/bartleby.conf";
const REDHAT: &str = "etc/httpd/conf.d/bartleby.conf";
const PROGRAM: &str = "var/www/bartleby/index.cgi";
const COMMAND: &str = "usr/local/sbin/bartleby";

/// A machine to install on, and the source to install from.
struct Machine {
    folder: TempDir,
}

impl Machine {
    /// A machine with these folders.
    fn with(folders: &[&str]) -> Self {
        let machine = Self { folder: TempDir::new().expect("a temporary folder") };
        let source = machine.folder.path().join("source");
        fs::create_dir_all(source.join("target")).expect("source/target");
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let documents = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"];
        let servers = ["apache", "lighttpd", "nginx", "caddy", "busybox"];
        let others = ["Makefile", "Cargo.toml", "debian", "docs", "examples", "man", "completions"];
        for part in others.iter().chain(&servers).chain(&documents) {
            let copied = Command::new("cp").arg("-R").arg(project.join(part)).arg(&source).status().expect("cp");
            assert!(copied.success(), "cp {part}");
        }
        fs::write(source.join("target/index.cgi"), "#!/bin/sh\n").expect("placeholder");
        for folder in folders {
            fs::create_dir_all(machine.path(folder)).expect(folder);
        }
        machine
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join("root").join(file)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).expect(file);
    }

    /// Plays a later version of the project, whose snippet says something else.
    fn upgrade(&self, remark: &str) {
        let snippet = self.folder.path().join("source/apache/bartleby.conf");
        let text = fs::read_to_string(&snippet).expect("snippet");
        fs::write(&snippet, text + remark).expect("snippet");
    }

    /// `make ARGUMENTS...`, without cargo and without what the caller's environment says.
    fn make(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("make");
        for name in
            ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "PREFIX", "WWWDIR", "STATEDIR", "WEBSERVER", "APACHE", "PROGRAM"]
        {
            command.env_remove(name);
        }
        command.arg("-C").arg(self.folder.path().join("source")).arg("CARGO=/bin/false");
        command.arg(format!("DESTDIR={}", self.path("").display())).args(arguments);
        command.output().expect("make")
    }

    /// The same, and what it printed; it must succeed.
    fn made(&self, arguments: &[&str]) -> String {
        let output = self.make(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "make {arguments:?}: {out}{err}");
        assert!(err.is_empty(), "make {arguments:?} complains: {err}");
        out.into_owned()
    }

    /// Every file and link there is, from the machine's root.
    fn files(&self) -> BTreeSet<String> {
        let output =
            Command::new("find").args([".", "!", "-type", "d"]).current_dir(self.path("")).output().expect("find");
        String::from_utf8_lossy(&output.stdout).lines().map(|line| line.trim_start_matches("./").to_owned()).collect()
    }
}

fn one_of(layout: &str) -> Machine {
    Machine::with(&[if layout == DEBIAN { "etc/apache2/conf-enabled" } else { "etc/httpd" }])
}

/// The command that root runs: no link to what others may replace, and theirs in no way.
fn is_a_program_of_its_own(command: &Path) {
    let found = fs::symlink_metadata(command).expect("the command");
    assert!(found.is_file() && found.nlink() == 1, "{found:?}");
    assert_eq!(found.mode() & 0o7777, 0o755);
    assert_eq!(found.uid(), nix::unistd::geteuid().as_raw());
}

#[test]
fn an_upgrade_replaces_the_earlier_link_into_the_document_root() {
    let machine = one_of(DEBIAN);
    machine.made(&["install"]);
    fs::remove_file(machine.path(COMMAND)).expect(COMMAND);
    // As it was, but within this test's own machine; what it leads to is the web server's user's.
    std::os::unix::fs::symlink(machine.path(PROGRAM), machine.path(COMMAND)).expect("link");
    machine.write(PROGRAM, "theirs");
    fs::write(machine.folder.path().join("source/target/index.cgi"), "#!/bin/sh\n# version 2\n").expect("program");
    machine.made(&["install"]);
    is_a_program_of_its_own(&machine.path(COMMAND));
    machine.write(PROGRAM, "theirs again");
    assert_eq!(machine.read(COMMAND), "#!/bin/sh\n# version 2\n");
    assert!(!machine.files().iter().any(|file| file.ends_with(".tmp")));
}

#[test]
fn a_fresh_install_follows_the_machine_s_layout() {
    for (layout, other, next) in [(DEBIAN, REDHAT, "a2enconf bartleby"), (REDHAT, DEBIAN, "httpd_sys_script_exec_t")] {
        let machine = one_of(layout);
        let said = machine.made(&["install"]);
        assert!(said.contains(next), "what to do next: {said}");
        assert!(said.contains("bartleby doctor") && said.contains("examples/sudoers"), "{said}");
        let mode = fs::metadata(machine.path(PROGRAM)).expect(PROGRAM).permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        is_a_program_of_its_own(&machine.path(COMMAND));
        assert!(machine.read(layout).contains("Alias \"/bartleby/\""));
        assert!(!machine.path(other).exists());
        let files = machine.files();
        assert!(files.contains("usr/local/share/doc/bartleby/apache/bartleby.conf"), "{files:?}");
        for file in
            ["README.md", "LICENSE", "docs/details.md", "apache/htaccess", "examples/README.md", "examples/sudoers"]
        {
            assert!(files.contains(&format!("usr/local/share/doc/bartleby/{file}")), "{file}: {files:?}");
        }
        for file in [
            "man/man8/bartleby.8",
            "man/man5/bartleby.toml.5",
            "bash-completion/completions/bartleby",
            "zsh/site-functions/_bartleby",
            "fish/vendor_completions.d/bartleby.fish",
            "doc/bartleby/examples/monitoring/grafana.json",
        ] {
            assert!(files.contains(&format!("usr/local/share/{file}")), "{file}: {files:?}");
        }
        assert!(!files.iter().any(|file| file.contains("/serve/") || file.ends_with("site.sh")), "{files:?}");
        // The state directory is made on a real machine only, where its owner is known.
        assert!(!machine.path("var/lib/bartleby").exists());
    }
}

#[test]
fn what_the_build_lacks_is_said_with_what_to_install() {
    let machine = Machine::with(&[]);
    let tools = machine.path("tools");
    fs::create_dir_all(&tools).expect("tools");
    let link = |name: &str, program: &Path| symlink(program, tools.join(name)).expect(name);
    let path = std::env::var_os("PATH").expect("PATH");
    for name in ["make", "sh", "mkdir", "rm", "sed"] {
        let program = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.exists());
        link(name, &program.expect(name));
    }
    let told = || {
        let source = machine.folder.path().join("source");
        let mut make = Command::new("make");
        // cargo names itself to the tests.
        let make = make.arg("run").current_dir(source).env("PATH", &tools).env_remove("CARGO");
        let output = make.output().expect("make");
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        String::from_utf8(output.stderr).expect("text")
    };
    let rust =
        "  Debian 13, Ubuntu: apt install rustup && rustup default stable\n  Fedora:            dnf install cargo\n";
    let linker = "  Debian, Ubuntu: apt install gcc libc6-dev\n  Fedora:         dnf install gcc glibc-static\n";
    for tool in ["cargo", "rustc"] {
        let told = told();
        let first = format!("make: {tool} is missing: Rust 1.89 or newer builds this.\n{rust}");
        assert!(told.starts_with(&first) && !told.contains(linker), "{told}");
        link(tool, &tools.join("sh"));
    }
    let missing = told();
    assert!(missing.starts_with("make: there is no C compiler (cc)") && missing.contains(linker), "{missing}");
    // One that is there, and finds no C library.
    let compiler = tools.join("cc");
    fs::write(&compiler, "#!/bin/sh\necho 'cannot find -lc' >&2\nexit 1\n").expect("cc");
    fs::set_permissions(&compiler, fs::Permissions::from_mode(0o755)).expect("cc");
    let useless = told();
    assert!(useless.contains("static program:\n  cannot find -lc\n") && useless.contains(linker), "{useless}");
}

#[test]
fn the_links_of_the_installed_documents_lead_somewhere() {
    let machine = one_of(DEBIAN);
    machine.made(&["install"]);
    let folder = "usr/local/share/doc/bartleby";
    let mut links = 0;
    for file in machine.files().iter().filter(|file| file.starts_with(folder) && file.ends_with(".md")) {
        let text = machine.read(file);
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for target in targets.filter(|target| !target.is_empty() && !target.contains("://")) {
            links += 1;
            let beside = Path::new(file).parent().expect("a folder").join(target);
            assert!(machine.path(&beside.to_string_lossy()).exists(), "{file}: {target}");
        }
    }
    assert!(links > 30, "{links}");
}

#[test]
fn the_layout_can_be_named() {
    let machine = Machine::with(&["etc/apache2"]);
    machine.made(&["install", "APACHE=redhat"]);
    assert!(machine.path(REDHAT).exists() && !machine.path(DEBIAN).exists());

    let machine = Machine::with(&[]);
    let said = machine.made(&["install"]);
    assert!(said.contains("no web server found"), "{said}");
    assert!(machine.path(PROGRAM).exists() && !machine.path("etc").exists());

    for (wrong, words) in [
        ("APACHE=nginx", "APACHE=nginx: it must be debian, redhat or none"),
        ("WEBSERVER=iis", "WEBSERVER=iis: it must be apache, lighttpd, nginx, caddy or none"),
    ] {
        let output = machine.make(&["install", wrong]);
        assert!(!output.status.success(), "{wrong}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(words), "{output:?}");
    }
}

/// The web servers besides Apache, and where each wants its snippet.
const OTHERS: [(&str, &str); 3] = [
    ("lighttpd", "etc/lighttpd/conf-available/90-bartleby.conf"),
    ("nginx", "etc/nginx/snippets/bartleby.conf"),
    ("caddy", "etc/caddy/bartleby.caddyfile"),
];

#[test]
fn the_web_server_that_is_there_gets_its_snippet_and_leaves_nothing() {
    for (server, snippet) in OTHERS {
        let folder = format!("etc/{server}");
        let machine = Machine::with(&[&folder]);
        let said = machine.made(&["install", "WWWDIR=/srv/queue"]);
        let next = if server == "lighttpd" { "lighty-enable-mod bartleby" } else { "fcgiwrap" };
        assert!(said.contains(next) && !said.contains("mod_cgid"), "{said}");
        let text = machine.read(snippet);
        assert!(text.contains("/srv/queue/") && !text.contains("/var/www"), "{text}");
        // One that was edited stays, as Apache's does.
        machine.write(snippet, "mine\n");
        machine.made(&["install", "WWWDIR=/srv/queue"]);
        assert_eq!(machine.read(snippet), "mine\n");
        machine.write(snippet, &text);
        machine.made(&["uninstall", "WWWDIR=/srv/queue"]);
        assert_eq!(machine.files(), BTreeSet::new(), "{server}");
    }
}

#[test]
fn another_web_server_can_be_named() {
    let machine = Machine::with(&["etc/apache2/conf-enabled", "etc/nginx/sites-available"]);
    machine.made(&["install", "WEBSERVER=nginx"]);
    assert!(!machine.path(DEBIAN).exists() && machine.path(OTHERS[1].1).exists());
    // A configuration that asks for the snippet would be refused without it.
    let site = "etc/nginx/sites-available/default";
    machine.write(site, "server {\n    include snippets/bartleby.conf;\n}\n");
    let said = machine.made(&["uninstall"]);
    assert!(said.contains("sites-available/default includes it") && machine.path(OTHERS[1].1).exists(), "{said}");
    machine.made(&["install", "WEBSERVER=none"]);
    assert!(!machine.path(DEBIAN).exists() && machine.path(PROGRAM).exists());
}

#[test]
fn other_places_are_kept_to() {
    let machine = one_of(DEBIAN);
    let places = ["PREFIX=/usr", "WWWDIR=/srv/www/queue"];
    machine.made(&["install", places[0], places[1]]);
    is_a_program_of_its_own(&machine.path("usr/sbin/bartleby"));
    assert!(machine.path("srv/www/queue/index.cgi").exists());
    let snippet = machine.read(DEBIAN);
    assert!(snippet.contains("<Directory \"/srv/www/queue\">") && !snippet.contains("/var/www"), "{snippet}");
    assert!(!machine.path("usr/local").exists() && !machine.path("var").exists());
    machine.made(&["uninstall", places[0], places[1]]);
    assert_eq!(machine.files(), BTreeSet::new());
}

#[test]
fn installing_needs_the_program_and_says_so() {
    let machine = one_of(DEBIAN);
    fs::remove_file(machine.folder.path().join("source/target/index.cgi")).expect("placeholder");
    let output = machine.make(&["install"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("run make first"));
    assert_eq!(machine.files(), BTreeSet::new());
}

#[test]
fn a_second_install_changes_nothing() {
    for layout in [DEBIAN, REDHAT] {
        let machine = one_of(layout);
        machine.made(&["install"]);
        let (files, snippet) = (machine.files(), machine.read(layout));
        machine.made(&["install"]);
        assert_eq!(machine.files(), files);
        assert_eq!(machine.read(layout), snippet);
    }
}

#[test]
fn an_upgrade_replaces_a_snippet_that_nobody_edited() {
    for layout in [DEBIAN, REDHAT] {
        let machine = one_of(layout);
        machine.made(&["install"]);
        let files = machine.files();
        machine.upgrade("# version 2\n");
        machine.made(&["install"]);
        assert!(machine.read(layout).ends_with("# version 2\n"));
        assert_eq!(machine.files(), files);
    }
}

#[test]
fn an_edited_snippet_is_kept_and_the_new_one_put_beside_it() {
    for layout in [DEBIAN, REDHAT] {
        let machine = one_of(layout);
        let new = format!("{layout}.new");
        machine.made(&["install"]);
        machine.write(layout, "# mine\n");

        // The same version again: there is nothing new to look at.
        let said = machine.made(&["install"]);
        assert!(said.contains("as you edited it"), "{said}");
        assert!(!machine.path(&new).exists());

        for version in ["# version 2\n", "# version 3\n"] {
            machine.upgrade(version);
            let said = machine.made(&["install"]);
            assert!(said.contains("bartleby.conf.new"), "{said}");
            assert_eq!(machine.read(layout), "# mine\n");
            assert!(machine.read(&new).ends_with(version));
        }

        // Taken over, it counts as unedited again.
        fs::rename(machine.path(&new), machine.path(layout)).expect("rename");
        machine.upgrade("# version 4\n");
        machine.made(&["install"]);
        assert!(machine.read(layout).ends_with("# version 4\n"));
        assert!(!machine.path(&new).exists());
    }
}

/// The page was refused by names that the program itself lets pass: below the domains whose mail is kept here.
#[test]
fn the_name_rule_holds_what_the_machine_can_know_of_its_names() {
    let machine = Machine::with(&["bin", "etc/mail"]);
    for (program, script) in [
        ("hostname", "echo bartleby.example.org"),
        (
            "postconf",
            "case $2 in myhostname) echo mx2.example.net;; *) echo 'example.com, hash:/etc/x .y.example 192.0.2.1 !n.example';; esac",
        ),
        ("postmap", "printf 'table.example\\tOK\\n$(id).example\\tx\\n'"),
        ("exim4", "exit 1"),
    ] {
        machine.write(&format!("bin/{program}"), &format!("#!/bin/sh\n{script}\n"));
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(machine.path(&format!("bin/{program}")), mode).expect("mode");
    }
    machine.write("etc/mail/relay-domains", "sm.example\nlocalhost\n");
    let names = |destdir: &str| {
        let mut command = Command::new("sh");
        command.arg(machine.folder.path().join("source/apache/site.sh")).arg("names").env("DESTDIR", destdir);
        command.env("PATH", format!("{}:/usr/bin:/bin", machine.path("bin").display())).env("PREFIX", "/usr/local");
        command.env("SYSCONFDIR", machine.path("etc")).env("WWWDIR", "/var/www").env("STATEDIR", "/var/lib/x");
        String::from_utf8(command.output().expect("sh").stdout).expect("UTF-8")
    };
    let below = ["example", "sm", "table"].map(|name| {
        let end = if name == "example" { "com" } else { "example" };
        format!("([^:]+\\.)?{name}\\.{end}")
    });
    let all = format!("bartleby\\.example\\.org|mx2\\.example\\.net|{}", below.join("|"));
    assert_eq!(names(""), format!("            Require expr \"%{{HTTP_HOST}} =~ m#^({all})\\.?(:[0-9]*)?$#i\"\n"));
    assert_eq!(names("/some/package"), "", "a package is for other machines");
}

#[test]
fn a_snippet_of_unknown_origin_is_an_edited_one() {
    let machine = Machine::with(&["etc/httpd/conf.d"]);
    machine.write(REDHAT, "# somebody's\n");
    machine.made(&["install"]);
    assert_eq!(machine.read(REDHAT), "# somebody's\n");
    assert!(machine.path(&format!("{REDHAT}.new")).exists());
}

#[test]
fn uninstalling_leaves_nothing() {
    for layout in [DEBIAN, REDHAT] {
        let machine = one_of(layout);
        machine.made(&["install"]);
        machine.made(&["uninstall"]);
        assert_eq!(machine.files(), BTreeSet::new());
        assert!(!machine.path("var/www/bartleby").exists() && !machine.path("usr/local/share/bartleby").exists());
        // And again: there is nothing to do, and no error.
        machine.made(&["uninstall"]);
    }
}

#[test]
fn uninstalling_also_disables_the_snippet() {
    let machine = one_of(DEBIAN);
    machine.made(&["install"]);
    let enabled = machine.path("etc/apache2/conf-enabled/bartleby.conf");
    std::os::unix::fs::symlink("../conf-available/bartleby.conf", &enabled).expect("link");
    machine.made(&["uninstall"]);
    assert_eq!(machine.files(), BTreeSet::new());
}

#[test]
fn uninstalling_leaves_what_was_edited() {
    for layout in [DEBIAN, REDHAT] {
        let machine = one_of(layout);
        machine.made(&["install"]);
        machine.write(layout, "# mine\n");
        machine.upgrade("# version 2\n");
        machine.made(&["install"]);
        machine.write("var/www/bartleby/.htaccess", "# mine, too\n");
        let said = machine.made(&["uninstall"]);
        assert!(said.contains("because you edited it"), "{said}");
        assert_eq!(machine.files(), BTreeSet::from([layout.to_owned(), "var/www/bartleby/.htaccess".to_owned()]));
        assert_eq!(machine.read(layout), "# mine\n");
    }
}

#[test]
fn the_archive_is_installed_as_the_source_is() {
    let (whole, machine) = (one_of(DEBIAN), one_of(DEBIAN));
    whole.made(&["install"]);
    let source = machine.folder.path().join("source");
    machine.make(&["--old-file=all", "dist"]);
    let archive = fs::read_dir(source.join("target")).expect("target").map(|entry| entry.expect("entry").path());
    let archive: Vec<_> = archive.filter(|path| path.to_string_lossy().ends_with(".tar.gz")).collect();
    let [archive] = &archive[..] else { panic!("{archive:?}") };
    let unpacked = machine.folder.path().join("unpacked");
    fs::create_dir(&unpacked).expect("unpacked");
    let tar = Command::new("tar").args(["--strip-components=1", "-xzf"]).arg(archive).arg("-C").arg(&unpacked).status();
    assert!(tar.expect("tar").success());
    fs::rename(&source, machine.folder.path().join("away")).expect("rename");
    fs::rename(unpacked, &source).expect("rename");
    machine.made(&["install"]);
    assert_eq!(machine.files(), whole.files());
    machine.made(&["uninstall"]);
    assert_eq!(machine.files(), BTreeSet::new());
}
