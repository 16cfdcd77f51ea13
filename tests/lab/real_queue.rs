//! A real Postfix queue of 20,000 messages, for `make bench` to measure: no test, as nothing here depends on time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::machine::{BROUGHT, Lab, PROGRAM};
use crate::mta::{Mta, run};
use crate::postfix::Postfix;
use crate::{page, wait};

/// How many messages.
const MESSAGES: u64 = 20_000;

/// The variable that names the bench's program.
const BENCH: &str = "BARTLEBY_BENCH";

/// Postfix beside the bench.
pub struct PostfixWithBench;

impl Mta for PostfixWithBench {
    fn kind(&self) -> &'static str {
        Postfix.kind()
    }

    fn packages(&self) -> &'static [&'static str] {
        Postfix.packages()
    }

    fn brings(&self) -> &'static [&'static str] {
        static FILES: OnceLock<Vec<&'static str>> = OnceLock::new();
        let bench = std::env::var(BENCH).ok().map(|path| &*path.leak());
        let baseline = "benches/baseline.pl";
        FILES.get_or_init(|| Postfix.brings().iter().copied().chain(bench).chain([baseline]).collect())
    }

    fn start(&self) {
        Postfix.start();
    }

    fn queue_command(&self) -> Command {
        Postfix.queue_command()
    }

    fn queue_id(&self, reply: &str) -> String {
        Postfix.queue_id(reply)
    }
}

/// Fills the queue while the primary is down, and runs the bench over it.
pub fn is_measured(lab: &mut Lab) {
    lab.primary.down();
    for setting in ["smtpd_client_connection_rate_limit=0", "smtpd_client_connection_count_limit=0", "in_flow_delay=0"]
    {
        run("postconf", &["-e", setting]);
    }
    // What is deferred once is not tried again while it is measured.
    run("postconf", &["-e", "minimal_backoff_time=1d", "maximal_backoff_time=1d", "queue_run_delay=1d"]);
    run("postfix", &["reload"]);
    let messages = MESSAGES.to_string();
    let sender = ["-s", "20", "-l", "600", "-m", &messages, "-f", "alice@example.org", "-t", "larry@example.com"];
    run("/usr/sbin/smtp-source", &[&sender[..], &["inet:127.0.0.1:25"]].concat());
    wait::until("all of it is deferred", 120, || {
        let listing = page::try_json(200)?;
        let deferred = listing.queue.states["deferred"];
        if deferred == MESSAGES { Ok(()) } else { Err(format!("{deferred} are deferred")) }
    });
    let bench = PathBuf::from(std::env::var(BENCH).unwrap());
    let bench = Path::new(BROUGHT).join(bench.file_name().unwrap());
    let status = Command::new(bench).arg("--own-queue").arg(Path::new(BROUGHT).join(PROGRAM)).status().unwrap();
    assert!(status.success());
}
