//! What goes wrong under a real Apache: listers that break, machines in need, many readers, signals. Each ends in a
//! right page or a right error in time, and nothing is left behind.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::http::{self, ALLOWED, Response};
use crate::machine::{BROUGHT, Lab, PROGRAM};
use crate::mta::{Mta, run};
use crate::page::{self, Listing, target};
use crate::{apache, wait};

/// No mail server at all: a script lists.
pub struct Script;

const LISTER: &str = "/usr/local/bin/lister";

/// What is remembered is kept here.
pub const STATE: &str = "/var/lib/bartleby";

/// How long the lister may take, in seconds.
const DEADLINE: u64 = 3;

/// The messages of the fixture that the lister prints.
const MESSAGES: u64 = 21;

/// A long queue, which is made once.
const LONG: &str = "/var/tmp/long";

impl Mta for Script {
    fn kind(&self) -> &'static str {
        "postfix"
    }

    fn layer(&self) -> &'static str {
        "faults"
    }

    fn packages(&self) -> &'static [&'static str] {
        &["faketime", "sudo"]
    }

    fn brings(&self) -> Vec<&'static str> {
        vec![
            "tests/fixtures/postfix/mixed-json.stdout",
            "tests/fixtures/sendmail/mixed-bp-verbose.stdout",
            // A fake clock takes a program that is not static.
            env!("CARGO_BIN_EXE_bartleby"),
        ]
    }

    fn start(&self) {
        make_state_folder();
        configure("postfix");
        lister(&format!("cat {}", fixture()));
    }

    fn queue_command(&self) -> Command {
        Command::new(LISTER)
    }

    fn queue_id(&self, reply: &str) -> String {
        reply.to_owned()
    }
}

/// The listing that is printed where nothing else is said.
pub fn fixture() -> String {
    format!("{BROUGHT}/mixed-json.stdout")
}

/// Makes [`STATE`] as `make install` does.
pub fn make_state_folder() {
    fs::create_dir_all(STATE).unwrap();
    run("chown", &["www-data:", STATE]);
    run("chmod", &["700", STATE]);
}

fn configure(kind: &str) {
    fs::write("/etc/bartleby.toml", configuration(kind, DEADLINE)).unwrap();
}

/// With another deadline, in seconds, and more sections.
pub fn configure_with(deadline: u64, more: &str) {
    fs::write("/etc/bartleby.toml", configuration("postfix", deadline) + more).unwrap();
}

fn configuration(kind: &str, deadline: u64) -> String {
    format!(
        "[mta]\nkind = \"{kind}\"\nlist_command = [\"{LISTER}\"]\nflush_command = [\"/bin/true\"]\n\
         deadline = \"{deadline}s\"\n[flush]\ncooldown = \"1s\"\n[state]\ndirectory = \"{STATE}\"\n"
    )
}

/// Makes this shell script the lister.
pub fn lister(script: &str) {
    executable(LISTER, &format!("#!/bin/sh\n{script}\n"));
}

/// Makes this shell script the CGI program: it ends in `/lab/index.cgi`.
fn wrapper(script: &str) {
    executable(&format!("{}/{PROGRAM}", apache::FOLDER), &format!("#!/bin/sh\n{script}\n"));
}

/// Puts an executable file there.
pub fn executable(path: &str, text: &str) {
    // A new file each time: one that is being run can't be written to.
    let new = format!("{path}.new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(0o755)).unwrap();
    fs::rename(new, path).unwrap();
}

/// The JSON and the page of a listing that went wrong: both say so.
#[track_caller]
fn wrong(what: &str, statuses: &[&str]) -> Listing {
    let started = Instant::now();
    let listing = page::json(503);
    assert!(statuses.contains(&listing.queue.status.as_str()) && !listing.queue.complete, "{what}: {listing:?}");
    assert!(listing.queue.error.is_some(), "{what}: {listing:?}");
    assert_eq!(listing.queue.messages, listing.messages.len() as u64, "{what}");
    let page = page::html(200);
    assert!(page.contains("Unknown") && !page.contains("The queue is empty"), "{what}: {page}");
    assert!(page.contains("The listing is not complete"), "{what}: {page}");
    // Two listings, each with time to clean up.
    assert!(started.elapsed() < Duration::from_secs(DEADLINE * 2 + 8), "{what} took {:?}", started.elapsed());
    listing
}

/// The JSON and the page of a listing that went well.
#[track_caller]
fn well(what: &str, messages: u64) {
    let listing = page::json(200);
    assert_eq!((listing.queue.status.as_str(), listing.queue.messages), ("ok", messages), "{what}: {listing:?}");
    let page = page::html(200);
    assert!(page.contains("The listing is complete"), "{what}: {page}");
}

/// Listers that break, in every way that there is.
pub fn of_the_lister(_lab: &mut Lab) {
    well("as it should be", MESSAGES);
    let fixture = fixture();
    for (script, statuses, messages) in [
        (format!("head -5 {fixture}; kill -9 $$"), &["failed"][..], Some(5)),
        (format!("head -5 {fixture}; exit 75"), &["failed"], Some(5)),
        (format!("head -c 700 {fixture}"), &["failed"], None),
        (format!("head -5 {fixture}; sleep 60"), &["timeout"], Some(5)),
        (format!("cat {fixture}; sleep 60 &"), &["timeout"], Some(MESSAGES)),
        ("while :; do printf '{'; sleep 0.02; done".into(), &["timeout"], Some(0)),
        ("cat /dev/zero".into(), &["timeout"], Some(0)),
        ("yes ''".into(), &["timeout", "failed"], Some(0)),
        ("head -c 1000000000 /dev/zero | tr '\\0' x; echo".into(), &["timeout", "failed"], Some(0)),
        (format!("cat {fixture}; printf 'a\\0b\\n'"), &["failed"], Some(MESSAGES)),
        (format!("printf '\\377\\376\\n'; cat {fixture}"), &["failed"], Some(MESSAGES)),
        ("head -c 100000000 /dev/zero >&2; exit 1".into(), &["failed"], Some(0)),
        ("exec /nonexistent".into(), &["failed", "missing"], Some(0)),
    ] {
        lister(&script);
        let listing = wrong(&script, statuses);
        assert!(messages.is_none_or(|messages| messages == listing.queue.messages), "{script}: {listing:?}");
        let error = listing.queue.error.unwrap();
        if listing.queue.status == "timeout" && listing.queue.messages > 0 {
            let cut = format!("the first {} messages: the listing was cut after {DEADLINE} s", listing.queue.messages);
            assert!(error.message.contains(&cut), "{script}: {error:?}");
        }
        nothing_is_left(&script);
    }
    fs::remove_file(LISTER).unwrap();
    wrong("no lister", &["failed", "missing"]);
    strangers_words();
    cut_short();
}

/// What acts in a terminal or a browser is shown, not done.
fn strangers_words() {
    let line = r#"{"queue_name": "deferred", "queue_id": "A1", "arrival_time": 1, "message_size": 1, "sender": "\u001b[31m\u202e\u0000<b>@example.org", "recipients": [{"address": "\u2066\u0007@example.com", "delay_reason": "\u009b2J\u200b\ufeff\ud800 <script>alert(1)</script>"}]}"#;
    // A lone surrogate makes no text; without it the line does.
    for (line, status) in [(line.to_owned(), 503), (line.replace("\\ud800", ""), 200)] {
        fs::write("/var/tmp/words", line + "\n").unwrap();
        lister("cat /var/tmp/words");
        for query in ["?format=html", "?format=text", "?format=json", "?format=csv"] {
            let answer = page::get(query);
            assert!(answer.status == status || query == "?format=html", "{query}: {answer:?}");
            let acts =
                |c: &char| !matches!(c, '\n' | '\r') && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(c));
            let found = answer.body.chars().find(acts).filter(|_| !query.ends_with("json") && !query.ends_with("csv"));
            assert_eq!(found, None, "{query}: {answer:?}");
            assert!(!answer.body.contains("<script>alert") || !query.ends_with("html"), "{answer:?}");
        }
    }
}

/// A listing that is cut is never taken for a whole one. That this is so at every byte, tests/golden.rs proves.
fn cut_short() {
    configure("sendmail");
    let file = format!("{BROUGHT}/mixed-bp-verbose.stdout");
    let whole = fs::read_to_string(&file).unwrap();
    let head = whole.find('\n').unwrap() + 1;
    let total = whole.trim_end().rfind('\n').unwrap() + 1;
    // One byte, the head alone, in the middle of a message, all but the total, and all but the last line end.
    for end in [1, head, whole.len() / 2, total, whole.len() - 1] {
        lister(&format!("head -c {end} {file}"));
        let answer = http::get(ALLOWED, &target("?format=json")).unwrap();
        assert_eq!(answer.status, 503, "cut at byte {end}: {}", answer.body);
    }
    lister(&format!("cat {file}"));
    assert_eq!(page::json(200).queue.status, "ok");
    configure("postfix");
}

/// Too little of everything.
pub fn of_the_machine(_lab: &mut Lab) {
    lister(&format!("exec cat {}", fixture()));
    wrapper("exec prlimit --as=67108864 /lab/index.cgi");
    well("64 MiB of memory", MESSAGES);
    wrapper("exec prlimit --nofile=16 /lab/index.cgi");
    truthful("16 descriptors");
    wrapper("exec prlimit --nofile=20 /lab/index.cgi");
    well("20 descriptors", MESSAGES);
    wrapper("exec prlimit --nproc=1 /lab/index.cgi");
    let listing = wrong("no further process", &["failed"]);
    assert!(listing.queue.error.unwrap().message.contains("could not be started"));
    // Itself and the lister, but no thread.
    wrapper("n=$(ps --no-headers -L -u www-data | wc -l); exec prlimit --nproc=$n /lab/index.cgi");
    truthful("hardly any process");

    long_queue();
    wrapper("exec prlimit --as=67108864 /lab/index.cgi");
    well("64 MiB of memory, and 100,000 messages", 100_000);
    wrapper("exec /lab/index.cgi");
    let deep = "?format=html&page=600&per_page=100&sort=sender";
    assert!(page::get(deep).body.contains("Messages 59,901-60,000 of 100,000"));
    for options in ["size=64k", "size=64m,nr_inodes=4"] {
        let options = format!("{options},uid=33,gid=33,mode=700");
        run("mount", &["-t", "tmpfs", "-o", &options, "state", STATE]);
        page::html(200);
        // As much as fits.
        let _ = fs::write(Path::new(STATE).join("filler"), vec![0; 1 << 20]);
        (0..10).for_each(|number| drop(fs::write(Path::new(STATE).join(format!("filler{number}")), "")));
        well(&options, 100_000);
        let answer = page::get(deep);
        assert!(answer.body.contains("This page could not be built"), "{options}: {answer:?}");
        assert!(!answer.body.contains("The queue is empty"), "{options}: {answer:?}");
        run("umount", &[STATE]);
    }

    lister(&format!("exec cat {}", fixture()));
    run("mount", &["-t", "tmpfs", "none", "/proc"]);
    let (without, flushed) = (page::get(""), page::get("?flush"));
    run("umount", &["/proc"]);
    assert!(without.body.contains("The listing is complete"), "no /proc: {without:?}");
    assert_eq!(flushed.status, 303, "no /proc: {flushed:?}");

    on_a_read_only_root();
    with_a_wrong_clock();
}

/// The page says nothing false, whatever its status.
#[track_caller]
fn truthful(what: &str) -> Response {
    let page = page::get("");
    assert!(page.body.contains("</html>"), "{what}: {page:?}");
    assert!(!page.body.contains("The queue is empty"), "{what}: {page:?}");
    let complete = page.body.contains("The listing is complete");
    assert_eq!(complete, page.body.contains("951BB98C3CD") && !page.body.contains("Unknown: "), "{what}: {page:?}");
    page
}

/// So many messages, as `postqueue -j` lists them.
pub fn listing(messages: usize) -> String {
    let line = |number: usize| {
        format!(
            "{{\"queue_name\": \"deferred\", \"queue_id\": \"{number:010X}\", \"arrival_time\": 1795434000, \
             \"message_size\": 900, \"sender\": \"s{}@example.org\", \"recipients\": [{{\"address\": \"r@example.com\", \
             \"delay_reason\": \"connect to mx.example.com: Connection refused\"}}]}}\n",
            number % 997
        )
    };
    (0..messages).map(line).collect()
}

/// A lister of 100,000 messages that takes note of when it begins and ends.
fn long_queue() {
    fs::write(LONG, listing(100_000)).unwrap();
    lister(&format!("echo begin >> {LONG}.log; cat {LONG}; echo end >> {LONG}.log"));
    fs::write(format!("{LONG}.log"), "").unwrap();
    let_all_write(&format!("{LONG}.log"));
}

/// Lets the web server's user write to a file, too.
pub fn let_all_write(file: &str) {
    fs::set_permissions(file, Permissions::from_mode(0o666)).unwrap();
}

/// All but what is in memory can't be written to. Only root may arrange that, so sudo leads there and back.
fn on_a_read_only_root() {
    fs::write(
        "/etc/sudoers.d/lab",
        "Defaults:www-data !env_reset, !use_pty\nwww-data ALL=(root) NOPASSWD:SETENV: ALL\n",
    )
    .unwrap();
    wrapper(
        "exec sudo -n -E unshare --mount sh -c 'mount -o remount,bind,ro / && mount -o remount,bind,ro /tmp && \
         exec setpriv --reuid=www-data --regid=www-data --clear-groups /lab/index.cgi'",
    );
    let page = truthful("a read-only root");
    assert!(page.body.contains("The listing is complete") && page.body.contains("Read-only file system"), "{page:?}");
    fs::remove_file("/etc/sudoers.d/lab").unwrap();
}

/// A clock that is far off: ages are not known better, but nothing breaks, and no flush is locked out for ever.
fn with_a_wrong_clock() {
    for (year, time) in [("1970", "1970-01-01 00:00:07"), ("2106", "2106-02-07 06:28:20")] {
        // Not by FAKETIME: the program empties its environment.
        fs::write("/etc/faketimerc", format!("@{time}\n")).unwrap();
        wrapper(
            "export LD_PRELOAD=$(echo /usr/lib/*/faketime/libfaketime.so.1) FAKETIME_DONT_FAKE_MONOTONIC=1\n\
             exec /lab/bartleby",
        );
        let answer = http::get(ALLOWED, &target("?format=json")).unwrap().expect(200);
        let value: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert!(value["generated"].as_str().unwrap().starts_with(year), "{}", answer.body);
        assert_eq!(value["queue"]["messages"], MESSAGES);
        let page = truthful(time);
        assert!(page.body.contains(&format!("datetime=\"{year}-")), "{page:?}");
        page::get("?flush").expect(303);
        wrapper("exec /lab/index.cgi");
        let now = page::json(200);
        assert!(now.flush.wait_seconds <= 1, "after {year}: {:?}", now.flush);
    }
}

/// Fifty at once, many in a row, and some that are ended in the middle.
pub fn of_many_readers(_lab: &mut Lab) {
    page::html(200);
    let (before, temporary) = (names(STATE), names("/tmp"));
    long_queue();
    // With time enough for all of them, who are two at a time; of one address, fewer are under way.
    configure_with(30, "");
    let reader = |number: u8| {
        let from = Ipv4Addr::new(127, 0, 1, 1 + number);
        thread::spawn(move || http::get(from, &target("")).unwrap().expect(200).body)
    };
    let readers: Vec<_> = (0..50).map(reader).collect();
    for reader in readers {
        let page = reader.join().unwrap();
        assert!(page.contains("100,000 messages") && page.contains("The listing is complete"), "{page}");
    }
    let log = fs::read_to_string(format!("{LONG}.log")).unwrap();
    let running = log.lines().scan(0, |running, line| {
        *running += if line == "begin" { 1 } else { -1 };
        Some(*running)
    });
    let most = running.max().unwrap();
    assert!((1..=2).contains(&most), "{most} listings at a time");
    nothing_is_left("50 readers");
    configure("postfix");

    lister(&format!("exec cat {}", fixture()));
    // What each request leaves behind shows after a few; what one in a hundred does, after these.
    for number in 0..300 {
        let query = ["", "?format=json", "?q=larry&sort=-size", "?format=text"][number % 4];
        page::get(query).expect(200);
    }
    nothing_is_left("300 requests");

    lister(&format!("head -5 {0}; sleep 0.03; tail -n +6 {0}", fixture()));
    for delay in (0..80).map(Duration::from_millis) {
        // A listing that goes to disk; and from time to time a queue run.
        let query = if delay.subsec_millis() % 10 == 9 { "?flush" } else { "?page=60&per_page=100&format=html" };
        let reader = thread::spawn(move || http::get(ALLOWED, &target(query)));
        thread::sleep(delay);
        for pid in processes().into_iter().filter(|(_, name)| name == PROGRAM).map(|(pid, _)| pid) {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        if let Ok(answer) = reader.join().unwrap() {
            assert!(!answer.body.contains("The queue is empty"), "after {delay:?}: {answer:?}");
            assert!(answer.status != 200 || answer.body.contains("</html>"), "after {delay:?}: {answer:?}");
        }
    }
    nothing_is_left("SIGTERM");
    well("after all that", MESSAGES);
    // The first queue run makes the log of runs.
    let stays = |name: &str| name.starts_with("listing-") || ["bartleby.db", "database.lock"].contains(&name);
    assert_eq!(names(STATE).difference(&before).filter(|name| !stays(name)).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(names("/tmp"), temporary);
    for name in names(STATE) {
        let mode = fs::metadata(Path::new(STATE).join(&name)).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
}

fn names(folder: &str) -> std::collections::BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Every process and the name of its program.
pub fn processes() -> Vec<(i32, String)> {
    let process = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        Some((pid, fs::read_to_string(entry.path().join("comm")).ok()?.trim().to_owned()))
    };
    fs::read_dir("/proc").unwrap().filter_map(|entry| process(entry.ok()?)).collect()
}

/// Nothing of a request still runs or holds a lock.
pub fn nothing_is_left(after: &str) {
    let ours = [PROGRAM, "lister", "sleep", "head", "tail", "tr", "cat", "yes"];
    wait::until(&format!("nothing is left after {after}"), 10, || {
        let left: Vec<_> = processes().into_iter().filter(|(_, name)| ours.contains(&name.as_str())).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
    let temporary: Vec<_> =
        names(STATE).into_iter().filter(|name| name.contains("etilqs") || name.contains("-journal")).collect();
    assert!(temporary.is_empty(), "after {after}: {temporary:?}");
    for lock in names(STATE).iter().filter(|name| name.ends_with(".lock")) {
        let file = fs::File::open(Path::new(STATE).join(lock)).unwrap();
        assert!(file.try_lock().is_ok(), "after {after} {lock} is held");
    }
}
