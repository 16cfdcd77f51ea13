//! A real Postfix queue of up to 20,000 messages behind a real Apache, beside the Perl script of the old kind, for `make
//! bench` to measure: no test, as nothing here depends on time.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::machine::{BROUGHT, Lab, PROGRAM};
use crate::mta::run;
use crate::postfix::PostfixWith;
use crate::primary::TUCCSTER;
use crate::{faults, page, wait};

/// How many messages.
const MESSAGES: u64 = 20_000;

/// How many of them at first.
const FEW: u64 = 1000;

/// The program's configuration.
const CONFIGURATION: &str = "/etc/bartleby.toml";

/// The folder of the Perl script.
const PERL: &str = "/var/www/perl";

/// A lister that is counted, and the file with a line for each time that it ran.
const LISTER: &str = "/usr/local/sbin/counted-postqueue";
const COUNTS: &str = "/var/lib/counts";

/// The variable that names the bench's program.
pub const BENCH: &str = "BARTLEBY_BENCH";

/// Postfix beside the bench, which [`BENCH`] names.
pub static POSTFIX_WITH_BENCH: PostfixWith = PostfixWith { brings: &["benches/baseline.pl"], ..PostfixWith::NOTHING };

/// Measures with an empty queue, with a short and with a long one.
pub fn is_measured(lab: &mut Lab) {
    lab.primary.down();
    for setting in ["smtpd_client_connection_rate_limit=0", "smtpd_client_connection_count_limit=0", "in_flow_delay=0"]
    {
        run("postconf", &["-e", setting]);
    }
    // What is deferred once is not tried again while it is measured.
    run("postconf", &["-e", "minimal_backoff_time=1d", "maximal_backoff_time=1d", "queue_run_delay=1d"]);
    run("postfix", &["reload"]);
    let primary = format!("[primary]\nhosts = [\"{TUCCSTER}\"]\n");
    fs::write(CONFIGURATION, &primary).unwrap();
    faults::make_state_folder();
    serve_perl();

    bench(&["--served", "an empty queue"]);
    fill(FEW);
    bench(&["--served", "1,000 messages"]);
    fill(MESSAGES - FEW);
    bench(&["--own-queue", &Path::new(BROUGHT).join(PROGRAM).to_string_lossy()]);
    let script = format!("#!/bin/sh\necho >>{COUNTS}\nexec /usr/sbin/postqueue -j\n");
    fs::write(LISTER, script).unwrap();
    fs::set_permissions(LISTER, Permissions::from_mode(0o755)).unwrap();
    fs::write(COUNTS, "").unwrap();
    run("chown", &["www-data:", COUNTS]);
    fs::write(CONFIGURATION, format!("[mta]\nlist_command = [\"{LISTER}\"]\n{primary}")).unwrap();
    bench(&["--crowd", COUNTS]);
}

/// The Perl script behind the same Apache.
fn serve_perl() {
    fs::create_dir_all(PERL).unwrap();
    let script = Path::new(PERL).join("index.cgi");
    fs::copy(Path::new(BROUGHT).join("baseline.pl"), &script).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let directory = format!(
        "Alias /perl/ {PERL}/\n<Directory {PERL}>\nRequire local\nOptions ExecCGI\nSetHandler cgi-script\n\
         DirectoryIndex index.cgi\nSetEnv BASELINE_LIST \"/usr/sbin/postqueue -p\"\n</Directory>\n"
    );
    fs::write("/etc/apache2/conf-enabled/perl.conf", directory).unwrap();
    run("apache2ctl", &["graceful"]);
}

/// Puts so many messages into the queue, and waits until all have been tried.
fn fill(messages: u64) {
    let before = page::json(200).queue.messages;
    let count = messages.to_string();
    let sender = ["-s", "20", "-l", "600", "-m", &count, "-f", "alice@example.org", "-t", "larry@example.com"];
    run("/usr/sbin/smtp-source", &[&sender[..], &["inet:127.0.0.1:25"]].concat());
    wait::until("all of it is deferred", 120, || {
        let deferred = page::try_json(200)?.queue.states["deferred"];
        if deferred == before + messages { Ok(()) } else { Err(format!("{deferred} are deferred")) }
    });
}

/// Runs the bench, with its words.
fn bench(words: &[&str]) {
    let bench = PathBuf::from(std::env::var(BENCH).unwrap());
    let bench = Path::new(BROUGHT).join(bench.file_name().unwrap());
    let status = Command::new(bench).args(words).status().unwrap();
    assert!(status.success());
}
