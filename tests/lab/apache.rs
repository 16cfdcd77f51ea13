//! Debian's Apache with the shipped snippet, installed as the snippet's own comment says.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::http::ALLOWED;
use crate::machine::{BROUGHT, PROGRAM};
use crate::mta::run;
use crate::{http, wait};

/// The shipped snippet's file name.
pub const SNIPPET: &str = "bartleby.conf";

/// Where Apache logs errors, and what the program writes to standard error.
pub const ERROR_LOG: &str = "/var/log/apache2/error.log";

/// The folder that the snippet serves.
pub const FOLDER: &str = "/var/www/bartleby";

/// Other addresses that are let in, for where one does not do.
const CROWD: &str = "127.0.1.0/24";

/// The threaded MPM with its module for CGI, as Debian has them.
const THREADED: [&str; 2] = ["mpm_event", "cgid"];

/// Starts Apache with the program at `/bartleby/`, for [`ALLOWED`] and a crowd beside it.
pub fn start(snippet: &str) {
    start_with(snippet, &THREADED);
}

/// The same with modules of choice, an MPM first.
pub fn start_with(snippet: &str, modules: &[&str]) {
    // The administrator's one decision: who is let in. "local" would let in all of 127.0.0.0/8.
    let ours = snippet.replacen("Require local", &format!("Require ip {ALLOWED} {CROWD}"), 1);
    assert_ne!(ours, snippet, "the snippet has no \"Require local\"");
    fs::write(Path::new("/etc/apache2/conf-available").join(SNIPPET), ours).unwrap();

    fs::create_dir_all(FOLDER).unwrap();
    install(FOLDER);
    if modules.first() != THREADED.first() {
        run("a2dismod", &["--quiet", "mpm_event"]);
    }
    run("a2enmod", &[&["--quiet"], modules].concat());
    run("a2enconf", &["--quiet", "bartleby"]);
    let loaded = run("apache2ctl", &["-M"]).stdout;
    let loaded = String::from_utf8_lossy(&loaded);
    assert!(modules.iter().all(|module| loaded.contains(&format!(" {module}_module"))), "{modules:?}: {loaded}");
    run("apache2ctl", &["start"]);
    wait::until("Apache answers", 10, http::answers);
}

/// Puts a copy of the program into a folder.
pub fn install(folder: &str) {
    let program = Path::new(folder).join(PROGRAM);
    fs::copy(Path::new(BROUGHT).join(PROGRAM), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
}

/// What was logged.
pub fn error_log() -> String {
    fs::read(ERROR_LOG).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The command line as the web server's user: exit status, and both streams.
pub fn command_line(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=www-data", "--regid=www-data", "--init-groups"]);
    let output = command.arg(Path::new(FOLDER).join(PROGRAM)).args(arguments).env_clear().output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}
