//! What is remembered between requests is not trusted: the state folder may hold anything.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

mod machine;

use std::env;
use std::fs::{self, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use machine::{Answer, Machine};
use nix::libc;
use rusqlite::{Connection, OpenFlags};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// How long an answer may take, whatever stands in the folder.
const IN_TIME: Duration = Duration::from_secs(10);

/// A machine whose queue was run once, and whose database was then changed by this SQL.
fn with_database(sql: &str) -> Machine {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("flush").status, 303);
    machine.kill_all();
    machine.database().execute_batch(sql).unwrap();
    machine
}

#[test]
fn a_database_made_to_run_for_ever_is_set_aside_and_page_and_flush_answer_in_time() {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    for sql in [
        &*format!("DROP TABLE flush; CREATE VIEW flush AS {endless} SELECT i AS number FROM n"),
        &*format!("DROP TABLE sample; CREATE VIEW sample AS {endless} SELECT i AS taken FROM n"),
        &*format!(
            "CREATE TRIGGER more AFTER INSERT ON sample BEGIN
             INSERT INTO flush (started, target, by) SELECT i, '', '' FROM ({endless} SELECT i FROM n); END"
        ),
    ] {
        let machine = with_database(sql);
        let started = Instant::now();
        let page = machine.get("format=html");
        assert!(page.body.contains("The log of queue runs was damaged"), "{sql}: {}", page.body);
        assert!(page.log.contains("was set aside as"), "{sql}: {}", page.log);
        assert_eq!(machine.get("flush").field("location"), Some("?flushed=1"), "{sql}");
        machine.kill_all();

        let machine = with_database(sql);
        let answer = machine.get("flush");
        assert_eq!((answer.field("location"), machine.flushes()), (Some("?flushed=1"), 2), "{sql}: {}", answer.log);
        assert!(started.elapsed() < IN_TIME, "{sql}: {:?}", started.elapsed());
    }
}

/// A view wrote its sample with four fsyncs, on the disk that the mail server syncs each message to.
#[test]
fn no_view_waits_for_a_disk_and_its_sample_is_kept_all_the_same() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let syncs = [libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_sync_file_range, libc::SYS_syncfs, libc::SYS_msync];
    let filter = SeccompFilter::new(
        syncs.map(|call| (call, Vec::new())).into(),
        SeccompAction::Allow,
        SeccompAction::KillProcess,
        TargetArch::try_from(env::consts::ARCH).unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    let view = |format: &str| {
        let mut view = machine.cgi(&[("QUERY_STRING", format!("format={format}").as_bytes())]);
        let filter = filter.clone();
        // SAFETY: it makes two system calls, and nothing else.
        unsafe { view.pre_exec(move || seccompiler::apply_filter(&filter).map_err(io::Error::other)) };
        Answer::of(view.output().unwrap())
    };
    for format in ["html", "json", "openmetrics"] {
        assert_eq!(view(format).status, 200, "{format}");
        assert_ne!(fs::metadata(machine.path("state").join("samples.table")).unwrap().len(), 0);
    }
    // Neither is there a log where nothing was run.
    assert!(!machine.path("state").join("bartleby.db").exists());
    // What is news of the primary is noted behind the answer.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    machine.configure("postfix", &format!("[primary]\nhosts = [\"{}\"]", listener.local_addr().unwrap()));
    drop(listener);
    assert_eq!(view("json").status, 200);
    fs::remove_file(machine.path("state").join("primaries.seen")).unwrap();
    assert_eq!(machine.json().1["primary"][0]["up"], false);
    noted(&machine, "primary_host");
}

#[test]
fn a_pipe_in_the_place_of_any_file_holds_nobody_up() {
    for name in ["flush.lock", "listing-0.lock", "bartleby.db", "bartleby.db-journal", "bartleby.db.new"] {
        let machine = Machine::with_fixture("postfix/mixed-json");
        fs::create_dir(machine.path("state")).unwrap();
        fs::set_permissions(machine.path("state"), Permissions::from_mode(0o700)).unwrap();
        nix::unistd::mkfifo(&machine.path("state").join(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let started = Instant::now();
        assert_eq!(machine.get("flush").status, 303, "{name}");
        let page = machine.get("format=html");
        // Without places to list there is only no limit on how many list. What is in the way of a copy is taken away.
        let said = ["listing-0.lock", "bartleby.db.new"].contains(&name) || page.body.contains("is not a regular file");
        assert!(page.status == 200 && said, "{name}: {}", page.status);
        assert!(started.elapsed() < IN_TIME, "{name}: {:?}", started.elapsed());
    }
}

#[test]
fn doctor_prints_no_name_that_somebody_else_chose() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    assert_eq!(machine.get("format=json").status, 200);
    fs::write(machine.path("state").join("bartleby.db.damaged-1'; id >pwned; echo '"), "").unwrap();
    let output = machine.command().arg("doctor").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("ok    state directory: ") && !text.contains("pwned"), "{text}");
    assert!(!machine.get("format=html").body.contains("pwned"));
}

/// The web server's user on Debian.
const WWW_DATA: u32 = 33;

/// A machine whose state folder is the web server's; `None`, loudly, where this test is not root.
fn of_web_server() -> Option<Machine> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root can be two users");
        return None;
    }
    let machine = Machine::with_fixture("postfix/mixed-json");
    machine.configure("postfix", "[flush]\ncooldown = \"0s\"");
    fs::set_permissions(machine.path(""), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(machine.path("state")).unwrap();
    fs::set_permissions(machine.path("state"), Permissions::from_mode(0o700)).unwrap();
    chown(machine.path("state"), Some(WWW_DATA), Some(WWW_DATA)).unwrap();
    // Ends when the test lets it.
    fs::write(machine.path("flush"), format!("#!/bin/sh\nread end < {}\n", machine.path("gate").display())).unwrap();
    nix::unistd::mkfifo(&machine.path("gate"), nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    fs::set_permissions(machine.path("gate"), Permissions::from_mode(0o644)).unwrap();
    Some(machine)
}

fn page_of_web_server(machine: &Machine, query: &str) -> Answer {
    let mut page = machine.cgi(&[("QUERY_STRING", query.as_bytes())]);
    Answer::of(page.uid(WWW_DATA).gid(WWW_DATA).output().unwrap())
}

fn on_command_line(machine: &Machine, words: &[&str]) -> (Option<i32>, String) {
    let output = machine.command().args(words).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// The files in a folder, with their owners.
fn owners(folder: &Path) -> Vec<(String, u32)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let mut owners: Vec<_> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().uid())).collect();
    owners.sort();
    owners
}

#[test]
fn root_and_the_web_server_run_the_queue_one_at_a_time_and_share_no_other_file() {
    let Some(machine) = of_web_server() else { return };
    assert_eq!(on_command_line(&machine, &["flush"]).0, Some(0));
    assert_eq!(owners(&machine.path("state")), [("flush.lock".into(), WWW_DATA), ("listing-0.lock".into(), WWW_DATA)]);
    let own = owners(&machine.path("state-root"));
    assert!(own.iter().all(|(_, owner)| *owner == 0) && own[0].0 == "bartleby.db", "{own:?}");
    assert_eq!(fs::metadata(machine.path("state-root")).unwrap().mode() & 0o7777, 0o700);

    let refused = page_of_web_server(&machine, "flush");
    assert!(
        refused.status == 429 && refused.body.contains("is being run already"),
        "{} {}",
        refused.status,
        refused.body
    );
    machine.kill_all();
    assert_eq!(page_of_web_server(&machine, "flush").status, 303);
    let (code, said) = on_command_line(&machine, &["flush"]);
    assert!(code == Some(75) && said.contains("is being run already"), "{code:?} {said}");
    assert!(page_of_web_server(&machine, "format=json").body.contains("\"under_way\":true"));
    assert!(on_command_line(&machine, &["list", "--format", "json"]).1.contains("\"under_way\":true"));
    assert!(owners(&machine.path("state")).iter().all(|(_, owner)| *owner == WWW_DATA));

    let (_, text) = on_command_line(&machine, &["doctor"]);
    let (own, shared) = (machine.path("state-root"), machine.path("state"));
    let line =
        format!("ok    state directory: {}, which is root's own, and the locks of {}", own.display(), shared.display());
    assert!(text.contains(&line), "{text}");
}

#[test]
fn what_the_web_servers_user_plants_leads_root_nowhere() {
    let Some(machine) = of_web_server() else { return };
    fs::write(machine.path("roots"), "as it was").unwrap();
    for name in ["bartleby.db", "bartleby.db-journal", "database.lock", "samples.table", "listing-0.lock", "flush.lock"]
    {
        symlink(machine.path("roots"), machine.path("state").join(name)).unwrap();
    }
    let (_, text) = on_command_line(&machine, &["doctor"]);
    assert!(text.contains("FAIL  state directory: ") && text.contains("flush.lock is not a regular file"), "{text}");
    let roots = fs::metadata(machine.path("roots")).unwrap();
    assert_eq!((roots.uid(), fs::read(machine.path("roots")).unwrap()), (0, b"as it was".to_vec()));
    assert!(owners(&machine.path("state-root")).contains(&("samples.table".into(), 0)));
}

#[test]
fn a_primary_that_a_view_of_the_page_saw_go_down_is_news_to_watch_once() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let primary = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = primary.local_addr().unwrap().to_string();
    machine.configure("postfix", &format!("[primary]\nhosts = [\"{host}\"]"));
    let watch = || {
        let output = machine.command().args(["watch", "--once"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let gone = Arc::new(AtomicBool::new(false));
    let serving = thread::spawn({
        let gone = Arc::clone(&gone);
        move || {
            while let Ok((mut stream, _)) = primary.accept() {
                if gone.load(Ordering::SeqCst) {
                    break;
                }
                stream.write_all(b"220 primary\r\n").unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                // EHLO and QUIT.
                while let Some(Ok(_)) = lines.next() {
                    stream.write_all(b"250 primary\r\n").unwrap();
                }
            }
        }
    });
    let line = watch();
    assert!(line.contains(&format!("{host} is up")) && !line.contains("seen by"), "{line}");

    gone.store(true, Ordering::SeqCst);
    drop(TcpStream::connect(&host));
    serving.join().unwrap();
    // As if some seconds had passed, for which what was seen is good.
    fs::remove_file(machine.path("state").join("primaries.seen")).unwrap();
    assert_eq!(machine.json().1["primary"][0]["up"], false);
    noted(&machine, "transition");
    let line = watch();
    assert!(line.starts_with(&format!("{host} went down at 2")) && line.contains(" (seen by page); "), "{line}");
    let line = watch();
    assert!(line.starts_with(&format!("{host} is down; ")), "said once: {line}");
}

/// Waits until there is a row in this table: a view notes what it saw behind its answer, as it waits for no disk.
fn noted(machine: &Machine, table: &str) {
    let end = Instant::now() + Duration::from_secs(60);
    let query = format!("SELECT 1 FROM {table}");
    let is_there = || {
        let file = machine.path("state").join("bartleby.db");
        let database = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        database.query_row(&query, [], |_| Ok(()))
    };
    while is_there().is_err() {
        assert!(Instant::now() < end, "nothing in {table}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_listing_that_fails_does_not_keep_a_change_of_the_primary_from_being_said() {
    let machine = Machine::with_fixture("postfix/mixed-json");
    let primary = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = primary.local_addr().unwrap().to_string();
    drop(primary);
    machine.configure("postfix", &format!("[primary]\nhosts = [\"{host}\"]"));
    assert_eq!(machine.json().1["primary"][0]["up"], false);
    noted(&machine, "primary_host");
    let database = machine.database();
    database.execute("UPDATE primary_host SET state = 'up'", []).unwrap();
    drop(database);
    fs::remove_file(machine.path("state").join("primaries.seen")).unwrap();
    fs::write(machine.path("list"), "#!/bin/sh\nexit 1\n").unwrap();
    let output = machine.command().args(["watch", "--once"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("went down at 2") && said.contains("(seen by watch); "), "{said}");
    assert!(output.status.code() == Some(69) && said.contains("ended with status 1"), "{said}");
}

#[test]
fn a_database_of_a_later_version_is_left_alone_and_said() {
    let machine = with_database("PRAGMA user_version = 99");
    let file = machine.path("state").join("bartleby.db");
    let before = fs::read(&file).unwrap();
    let page = machine.get("format=html");
    assert!(page.body.contains("was written by a later version of Bartleby"), "{}", page.status);
    assert_eq!(machine.get("flush").status, 303, "without a cool-down");
    let (_, text) = on_command_line(&machine, &["doctor"]);
    assert!(
        text.contains("FAIL  state directory: the cool-down is off: ") && text.contains("Run that version here"),
        "{text}"
    );
    machine.kill_all();
    assert!(fs::read(&file).unwrap() == before);
}

/// The private folders of a user, which are outside of any test's own folder.
fn private_folders(parent: &str, uid: u32) -> Vec<PathBuf> {
    let beginning = format!("bartleby-{uid}-");
    let entries = fs::read_dir(parent).unwrap().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&beginning));
    named.map(|entry| entry.path()).collect()
}

#[test]
fn a_stranger_who_makes_the_old_private_folder_first_turns_no_cool_down_off() {
    let Some(machine) = of_web_server() else { return };
    if Path::new("/var/lib/bartleby").exists() || !private_folders("/tmp", WWW_DATA).is_empty() {
        return eprintln!("SKIPPED: this machine has a folder for the web server's user");
    }
    let text = fs::read_to_string(machine.path("bartleby.toml")).unwrap();
    fs::write(machine.path("bartleby.toml"), text.split("[flush]").next().unwrap()).unwrap();
    fs::write(machine.path("flush"), "#!/bin/sh\n").unwrap();
    let planted = Path::new("/tmp/bartleby-33");
    let made = fs::create_dir(planted).is_ok();
    let answers = ["flush", "flush"].map(|query| page_of_web_server(&machine, query));
    machine.kill_all();
    let private = private_folders("/tmp", WWW_DATA);
    for folder in private.iter().map(PathBuf::as_path).chain(made.then_some(planted)) {
        fs::remove_dir_all(folder).unwrap();
    }
    assert_eq!(answers.map(|answer| answer.status), [303, 429]);
    assert_eq!(private.len(), 1);
}

#[test]
fn doctor_says_why_root_does_not_use_a_folder_that_another_user_could_replace() {
    let Some(machine) = of_web_server() else { return };
    let text = fs::read_to_string(machine.path("bartleby.toml")).unwrap();
    let state = machine.path("theirs/state");
    fs::create_dir(machine.path("theirs")).unwrap();
    fs::rename(machine.path("state"), &state).unwrap();
    fs::write(
        machine.path("bartleby.toml"),
        text.replace(&*machine.path("state").to_string_lossy(), state.to_str().unwrap()),
    )
    .unwrap();
    chown(machine.path("theirs"), Some(WWW_DATA), None).unwrap();
    let before = private_folders("/run", 0);
    let (code, text) = on_command_line(&machine, &["doctor"]);
    for folder in private_folders("/run", 0).iter().filter(|folder| !before.contains(folder)) {
        fs::remove_dir_all(folder).unwrap();
    }
    let line =
        text.lines().find(|line| line.starts_with("FAIL  state directory: /run/bartleby-0-")).unwrap_or_default();
    let reason = format!(" is used instead, as {} is not safe for root: ", state.display());
    assert!(code == Some(1) && line.contains(&reason), "{text}");
    assert_eq!(owners(&state), []);
}
