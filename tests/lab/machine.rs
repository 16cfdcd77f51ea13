//! A machine of its own for each test: namespaces for mounts, network, processes, host name and IPC,
//! over the root of a release and a layer of packages. The test runs itself in there.
//!
//! All of it, daemons included, ends with the test, however that ends: every process in between
//! dies with its parent.

use std::env;
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::apache::{self, SNIPPET};
use crate::evidence::Evidence;
use crate::mta::Mta;
use crate::primary::Primary;
use crate::real_queue::BENCH;
use crate::release::Release;
use crate::{layer, page, syslog, wait};

/// The name of the backup MX.
pub const HOSTNAME: &str = "bartleby.example.net";

/// The folder, on the lab's machine, of the files that were brought from this one.
pub const BROUGHT: &str = "/lab";

/// What a web server's CGI program is called there.
pub const PROGRAM: &str = "index.cgi";

const SOURCE: &str = env!("CARGO_MANIFEST_DIR");
const INSIDE: &str = "BARTLEBY_LAB_INSIDE";
const LONGEST: Duration = Duration::from_secs(300);

/// The same for `make bench`, which measures in many rounds.
const LONGEST_BENCH: Duration = Duration::from_secs(1800);

/// The lab's machine with all that runs on it.
pub struct Lab {
    /// Its mail server, configured and running.
    pub mta: &'static dyn Mta,
    /// The primary mail servers: down at first.
    pub primary: Primary,
}

/// Runs a test in a lab with the given mail server, of the first release. `name` is the test's own.
pub fn in_lab(name: &str, mta: &'static dyn Mta, test: fn(&mut Lab)) {
    in_labs(&Release::all()[..1], name, mta, test);
}

/// The same in a lab of each release, one after the other.
pub fn in_each_lab(name: &str, mta: &'static dyn Mta, test: fn(&mut Lab)) {
    in_labs(&Release::all(), name, mta, test);
}

fn in_labs(releases: &[Release], name: &str, mta: &'static dyn Mta, test: fn(&mut Lab)) {
    if env::var_os(INSIDE).is_some() {
        return inside(mta, test);
    }
    for release in releases {
        match possible().and_then(|()| release.possible()) {
            Ok(()) => outside(name, mta, release),
            Err(reason) => {
                assert!(env::var("BARTLEBY_LAB").as_deref() != Ok("required"), "The lab is required, but {reason}.");
                // libtest does not capture this.
                let _ = writeln!(
                    io::stderr(),
                    "\n*** The test {name} against the real {} is SKIPPED: {reason} ***\n",
                    mta.kind()
                );
            }
        }
    }
}

/// Whether there can be a lab here, or why not.
fn possible() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("it needs root".into());
    }
    if !Path::new("/etc/debian_version").exists() || !Path::new("/usr/bin/apt-get").exists() {
        return Err("it needs Debian and its apt-get".into());
    }
    let output = unshare().arg("true").output().map_err(|error| format!("unshare did not start: {error}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    output.status.success().then_some(()).ok_or(format!("root may not make namespaces here ({})", words.trim()))
}

/// A command in namespaces of its own that dies with the thread that starts it.
fn unshare() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--mount", "--net", "--uts", "--ipc", "--pid"]);
    command.args(["--fork", "--kill-child", "--mount-proc"]);
    command
}

/// Starts this test again, in a machine of its own, and passes on how it went.
fn outside(name: &str, mta: &dyn Mta, release: &Release) {
    let program = env::var_os("BARTLEBY_CGI").map_or_else(|| Path::new(SOURCE).join("target/index.cgi"), PathBuf::from);
    assert!(program.is_file(), "There is no {}: run make first.", program.display());
    let archive = layer::of(mta, release);
    let (kept, mountpoint) = layer::folders();
    let root = release.root(&kept);
    let itself = env::current_exe().unwrap();
    // One file, so that both streams stay in their order.
    let mut output = tempfile::tempfile().unwrap();
    let mut command = unshare();
    command.arg("sh").arg(Path::new(SOURCE).join("tests/lab/enter.sh"));
    command.args([&mountpoint, &root, &archive]).arg(HOSTNAME).args([&program, &itself]);
    let (brought, bench) = (mta.brings(), env::var(BENCH).ok());
    let files = ["apache/bartleby.conf", "examples/aliases"].into_iter().chain(brought).chain(bench.as_deref());
    let files = files.map(|file| release.brings(&kept, file));
    // What tests/tools.sh puts into target may not be there elsewhere.
    command.args(files.filter(|file| file.exists() || !file.starts_with(Path::new(SOURCE).join("target"))));
    command.env("LAB_ARGUMENTS", format!("--exact {name} --nocapture --include-ignored --test-threads=1"));
    command.env(INSIDE, "yes").env("LC_ALL", "C").env_remove("RUST_TEST_THREADS");
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output.try_clone().unwrap());
    let status = end_of(command.spawn().unwrap());

    let mut told = Vec::new();
    output.rewind().unwrap();
    output.read_to_end(&mut told).unwrap();
    let told = String::from_utf8_lossy(&told);
    print!("{told}");
    // libtest does not capture this.
    let skipped = told.lines().filter(|line| line.starts_with("*** "));
    skipped.for_each(|line| drop(writeln!(io::stderr(), "\n{line}\n")));
    let passed = status.is_some_and(|status| status.success()) && told.contains("test result: ok. 1 passed");
    let how = status.map_or("was stopped, as it took too long".to_owned(), |status| format!("ended with {status}"));
    assert!(passed, "The lab of Debian {} {how}; what it printed is above.", release.name());
}

/// How the lab ended, or `None` if it had to be stopped.
fn end_of(mut child: Child) -> Option<ExitStatus> {
    let longest = if env::var_os(BENCH).is_some() { LONGEST_BENCH } else { LONGEST };
    let ended = wait::poll(longest, || child.try_wait().unwrap().ok_or(()));
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    ended.ok()
}

/// Starts everything, then the test itself.
fn inside(mta: &'static dyn Mta, test: fn(&mut Lab)) {
    let _evidence = Evidence { mta };
    page::ask_for_json_with(mta.json_query());
    syslog::start();
    mta.start();
    if mta.serves() {
        let snippet = fs::read_to_string(Path::new(BROUGHT).join(SNIPPET)).unwrap();
        apache::start(&snippet);
    }
    test(&mut Lab { mta, primary: Primary::new() });
}
