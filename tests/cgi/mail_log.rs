//! What the mail log says of a queue run, through the whole program: who got the mail, and whose mail went back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bartleby::mta::{Kind, MailLog, Outcome};
use jiff::tz::TimeZone;
use serde_json::Value;

use crate::listed::list;
use crate::machine::Machine;

fn fixture(name: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures-log").join(name).join(file)
}

/// The lines of a log as if they were written a moment after now.
fn of_now(log: &[u8]) -> Vec<u8> {
    let now = jiff::Timestamp::now().as_second() + 5;
    let stamp =
        |form: &str| jiff::Timestamp::from_second(now).unwrap().to_zoned(TimeZone::UTC).strftime(form).to_string();
    let (old, own) = (stamp("%Y-%m-%dT%H:%M:%S+00:00"), stamp("%Y-%m-%d %H:%M:%S+00:00"));
    let restamped = |line: &[u8]| match line {
        [b'A'..=b'Z', ..] if line.len() > 15 => [old.as_bytes(), &line[15..]].concat(),
        [b'0'..=b'9', ..] if line.get(10) == Some(&b' ') && line.len() > 19 => {
            // Exim's own stamp, with the zone behind it.
            let own = own.replace("+00:00", " +0000");
            [own.as_bytes(), &line[19..]].concat()
        }
        _ => line.to_vec(),
    };
    log.split_inclusive(|byte| *byte == b'\n').flat_map(restamped).collect()
}

/// A machine with a log of its own. A run does what the script says, in the machine's folder; `swap LISTING` makes that
/// the queue from then on.
fn machine(kind: &str, before: &[u8], run: &str) -> Machine {
    let machine = Machine::with_lister(kind, "");
    fs::write(machine.path("before"), before).unwrap();
    fs::write(machine.path("none"), "").unwrap();
    let folder = machine.path("").display().to_string();
    let write = |name: &str, script: &str| {
        fs::write(machine.path(name), script).unwrap();
        fs::set_permissions(machine.path(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    write("list", &format!("#!/bin/sh\ncat {folder}/before\n"));
    let swap =
        "swap() { printf '#!/bin/sh\\ncat %s\\n' \"$PWD/$1\" > list.new; chmod 755 list.new; mv list.new list; }";
    write("flush", &format!("#!/bin/sh\ncd {folder}\n{swap}\n{run}\n"));
    machine.configure(kind, &format!("log = \"{}\"", machine.path("mail.log").display()));
    machine
}

/// What came of its first run, when it is over.
fn ended(machine: &Machine) -> Value {
    let until = Instant::now() + Duration::from_secs(90);
    loop {
        let last = machine.json().1["flush"]["last"].clone();
        if last["outcome"]["settled"] == true {
            return last["outcome"].clone();
        }
        assert!(Instant::now() < until, "{last:#}");
        thread::sleep(Duration::from_millis(300));
    }
}

/// How many were delivered, went back, are without a record, wait, and were refused without a sender to return to. That the library says so of these logs is what the
/// next server saw (`tests/maillog.rs`).
fn expected(kind: Kind, before: &[u8], log: &[u8], after: &[u8]) -> [u64; 5] {
    let mut read = MailLog::of(kind, None).unwrap();
    let waited = list(kind, before);
    waited.iter().for_each(|message| read.waited(message));
    let has_sender = |id: &str| waited.iter().all(|message| message.id != id || message.sender.as_deref() != Some(""));
    log.split(|byte| *byte == b'\n').for_each(|line| read.line(line));
    list(kind, after).iter().for_each(|message| read.waits(message));
    let count =
        |is: &dyn Fn(&str, &Outcome) -> bool| read.outcomes().filter(|(id, _, outcome)| is(id, outcome)).count() as u64;
    [
        count(&|_, outcome| *outcome == Outcome::Delivered),
        count(&|id, outcome| matches!(outcome, Outcome::Returned(_)) && has_sender(id)),
        count(&|_, outcome| *outcome == Outcome::Unrecorded),
        count(&|_, outcome| *outcome == Outcome::Waiting),
        count(&|id, outcome| matches!(outcome, Outcome::Returned(_)) && !has_sender(id)),
    ]
}

fn figures(outcome: &Value) -> [u64; 4] {
    ["delivered", "returned", "unrecorded", "recipients_left"].map(|key| outcome[key].as_u64().unwrap())
}

/// Real runs, with what strangers wrote meanwhile: each comes to its end after 15 seconds at rest.
#[test]
fn the_whole_program_reads_the_logs_of_real_runs_as_they_were() {
    let case = |kind: Kind, name: &'static str, case: &'static str| {
        move || {
            let read = |ending: &str| fs::read(fixture(name, &format!("{case}.{ending}"))).unwrap();
            let (before, after, log) = (read("before"), read("after"), of_now(&read("log")));
            let machine = machine(name, &before, "cp written mail.log; swap after");
            fs::write(machine.path("written"), &log).unwrap();
            fs::write(machine.path("after"), &after).unwrap();
            assert_eq!(machine.get("flush").status, 303);
            let outcome = ended(&machine);
            let expected = expected(kind, &before, &log, &after);
            let [delivered, returned, unrecorded, waiting] = figures(&outcome);
            let told = [delivered, returned, unrecorded, waiting, outcome["double_bounces"].as_u64().unwrap()];
            assert_eq!(told, expected, "{name}/{case}: {outcome:#}");
            assert!(expected[0] + expected[1] > 0, "{name}/{case}");
        }
    };
    let cases = [
        case(Kind::Postfix, "postfix", "mixed"),
        case(Kind::Postfix, "postfix", "expired"),
        case(Kind::Postfix, "postfix", "partial"),
        case(Kind::Sendmail, "sendmail", "mixed"),
        case(Kind::Sendmail, "sendmail", "expired"),
        case(Kind::Exim, "exim", "mixed"),
        case(Kind::Exim, "exim", "refused"),
        case(Kind::OpenSmtpd, "opensmtpd", "mixed"),
        case(Kind::OpenSmtpd, "opensmtpd", "refused"),
    ];
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(case);
        }
    });
}

/// A queue of so many messages, each for one recipient.
fn queue(messages: usize) -> String {
    let message = |number: usize| {
        format!(
            "{{\"queue_name\": \"deferred\", \"queue_id\": \"A0000{number:02}\", \"arrival_time\": 1, \"message_size\": 1, \
             \"sender\": \"bob@example.net\", \"recipients\": [{{\"address\": \"r{number}@example.com\"}}]}}\n"
        )
    };
    (1..=messages).map(message).collect()
}

/// What Postfix writes of one of them: now, in the shell.
fn says(number: usize, status: &str) -> String {
    format!(
        "echo \"$(date +%Y-%m-%dT%H:%M:%S%:z) bartleby postfix/smtp[1]: A0000{number:02}: to=<r{number}@example.com>, relay=mx[192.0.2.1]:25, \
         delay=1, delays=0/0/0/1, dsn=2.0.0, status={status}\""
    )
}

const SENT: &str = "sent (250 ok)";
const REFUSED: &str = "bounced (host mx[192.0.2.1] said: 550 5.1.1 unknown user (in reply to RCPT TO command))";

/// A run of three messages, of which the log says this, and then all are gone.
fn run_of_three(run: &str) -> Value {
    let machine = machine("postfix", queue(3).as_bytes(), &format!("{run}\nswap none"));
    assert_eq!(machine.get("flush").status, 303);
    ended(&machine)
}

#[test]
fn a_log_that_is_rotated_in_the_middle_of_a_run_is_read_all_the_same() {
    let [one, two, three] = [says(1, SENT), says(2, REFUSED), says(3, SENT)];
    let both = format!("{one} >> mail.log; {two} >> mail.log");
    for (how, run) in [
        ("renamed", format!("{both}; mv mail.log mail.log.1; {three} > mail.log")),
        (
            "renamed, and written on",
            format!("{one} >> mail.log; mv mail.log mail.log.old; {two} >> mail.log.old; {three} > mail.log"),
        ),
        ("compressed at once", format!("{both}; mv mail.log mail.log.1; gzip mail.log.1; {three} > mail.log")),
        ("by bzip2", format!("{both}; mv mail.log mail.log.0; bzip2 mail.log.0; {three} > mail.log")),
        ("by xz", format!("{both}; mv mail.log mail.log.1; xz mail.log.1; {three} > mail.log")),
        ("by zstd", format!("{both}; mv mail.log mail.log.1; zstd -q --rm mail.log.1; {three} > mail.log")),
        ("by date", format!("{both}; mv mail.log mail.log-20261124; {three} > mail.log")),
        (
            "as Postfix does it",
            format!("{both}; mv mail.log mail.log.20261124-080000; gzip mail.log.20261124-080000; {three} > mail.log"),
        ),
        ("missing", format!("{both}; {three} >> mail.log; mv mail.log mail.log.1")),
        ("shrunk in place", format!("{both}; cp mail.log mail.log.1; : > mail.log; {three} >> mail.log")),
        ("copied", format!("{both}; {three} >> mail.log; cp -p mail.log mail.log.bak")),
    ] {
        let program = how.strip_prefix("by ").filter(|program| *program != "date");
        if program.is_some_and(|program| !Path::new("/usr/bin").join(program).exists()) {
            eprintln!("*** A log rotated {how} is not tested: it is missing here. ***");
            continue;
        }
        let outcome = run_of_three(&run);
        assert_eq!(figures(&outcome), [2, 1, 0, 0], "{how}: {outcome:#}");
    }
}

#[test]
fn a_gigabyte_of_log_is_read_from_its_end() {
    let [one, two, three] = [says(1, SENT), says(2, REFUSED), says(3, SENT)];
    let run =
        format!("truncate -s 1G mail.log; echo >> mail.log; {one} >> mail.log; {two} >> mail.log; {three} >> mail.log");
    let begun = Instant::now();
    assert_eq!(figures(&run_of_three(&run)), [2, 1, 0, 0]);
    assert!(begun.elapsed() < Duration::from_secs(30));
}

/// Each of these is what a stranger can make a mail server write, or what was written of other messages.
#[test]
fn what_has_no_line_of_its_own_is_never_called_delivered() {
    let forged = |words: &str| format!("echo \"$(date +%Y-%m-%dT%H:%M:%S%:z) bartleby {words}\" >> mail.log");
    let line =
        "A000001: to=<r1@example.com>, relay=x[192.0.2.9]:25, delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)";
    for run in [
        forged(&format!("postfix/smtpd[1]: {line}")),
        forged(&format!(
            "postfix/cleanup[1]: BBBBBBB: message-id=<x> Nov 24 08:00:00 bartleby postfix/smtp[1]: {line}"
        )),
        forged(&format!("www-data[1]: {line}")),
        forged(&format!("postfix/smtp[1]: A000009: to=<x@example.com>, relay=x, {line}")),
        // Of another recipient.
        says(1, SENT).replace("r1@", "r9@") + " >> mail.log",
    ] {
        let outcome = run_of_three(&run);
        assert_eq!(figures(&outcome), [0, 0, 3, 0], "{run}: {outcome:#}");
        assert_eq!(outcome["words"], "3 left without a record in the mail log");
    }
    // Nor has one that says nothing of any of them.
    for run in [": >> mail.log".to_owned(), says(9, SENT) + " >> mail.log"] {
        let outcome = run_of_three(&run);
        assert_eq!(figures(&outcome), [0, 0, 3, 0], "{run}: {outcome:#}");
        assert_eq!(outcome["words"], "3 left without a record in the mail log");
    }
}

/// The null sender is nobody.
#[test]
fn a_bounce_that_is_refused_is_not_said_to_go_back_to_its_sender() {
    let lines =
        says(1, REFUSED) + " >> mail.log\n" + &says(2, REFUSED) + " >> mail.log\n" + &says(3, SENT) + " >> mail.log\n";
    let listing = queue(3).replacen("bob@example.net", "", 1);
    let machine = machine("postfix", listing.as_bytes(), &format!("{lines}swap none"));
    let output = machine.command().args(["flush", "--wait"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let words = "1 delivered, 1 returned to the sender (550 5.1.1 unknown user), 1 refused for good, with no sender to return to";
    assert!(
        said.starts_with(&format!("Queue run 1: {words}.\nreturned to the sender: A000002, for r2@example.com")),
        "{said}"
    );
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 2), "{said}");
    let outcome = ended(&machine);
    assert_eq!((&outcome["returned"], &outcome["double_bounces"]), (&1.into(), &1.into()));
    let page = machine.get("flushed=1&format=html").body;
    assert!(page.contains(words) && page.contains("<bdi>r2@example.com</bdi>"), "{page}");
    assert!(!page.contains("<bdi>r1@example.com</bdi>"), "{page}");
}

/// More than there is room to note, and a file that can't be unpacked.
#[test]
fn what_was_not_looked_up_is_not_said_to_be_without_a_record() {
    const MANY: usize = 40_000;
    let line = |number: usize| {
        format!(
            "2026-11-24T07:00:00Z bartleby postfix/smtp[1]: A0000{number:02}: to=<r{number}@example.com>, relay=mx[192.0.2.1]:25, \
             delay=1, delays=0/0/0/1, dsn=2.0.0, status=sent (250 ok)\n"
        )
    };
    let many = machine("postfix", queue(MANY).as_bytes(), "cat written >> mail.log; swap none");
    fs::write(many.path("mail.log"), "").unwrap();
    fs::write(many.path("written"), (1..=MANY).map(line).collect::<String>()).unwrap();
    assert_eq!(many.get("flush").status, 303);
    let outcome = ended(&many);
    let [delivered, left] = ["delivered", "not_looked_up"].map(|key| outcome[key].as_u64().unwrap());
    assert_eq!((delivered + left, &outcome["unrecorded"]), (MANY as u64, &0.into()), "{outcome:#}");
    assert!(delivered > 20_000 && left > 1000, "{outcome:#}");
    let words = format!("{delivered} delivered, {left} left, but not all was looked up in the mail log");
    assert_eq!(outcome["words"], words.as_str());

    let both = format!("{} >> mail.log; {} >> mail.log", says(1, SENT), says(2, SENT));
    let cut = "mv mail.log mail.log.1; gzip mail.log.1; truncate -s 40 mail.log.1.gz";
    let outcome = run_of_three(&format!("{both}; {cut}; {} >> mail.log", says(3, SENT)));
    assert_eq!(figures(&outcome), [1, 0, 0, 0], "{outcome:#}");
    assert_eq!(outcome["words"], "1 delivered, 2 left, but not all was looked up in the mail log");
}

/// Syslog's older stamp has no zone, and clocks are set: a line counts by its place.
#[test]
fn only_what_was_written_behind_the_mark_counts_whatever_its_time() {
    let at =
        |year: &str, line: String| line.replace("$(date +%Y-%m-%dT%H:%M:%S%:z)", &format!("{year}-01-01T00:00:00Z"));
    let [early, late] = [at("2999", says(1, SENT)), at("2001", says(2, REFUSED))];
    for how in ["", "mv mail.log mail.log.1;", "mv mail.log mail.log-20010101;"] {
        let run = format!("{late} >> mail.log; {how} {} >> mail.log; swap none", says(3, SENT));
        let machine = machine("postfix", queue(3).as_bytes(), &run);
        let before = format!("cd {}; {early} > mail.log", machine.path("").display());
        assert!(std::process::Command::new("/bin/sh").args(["-c", &before]).status().unwrap().success());
        assert_eq!(machine.get("flush").status, 303);
        let outcome = ended(&machine);
        assert_eq!(figures(&outcome), [1, 1, 1, 0], "{how} {outcome:#}");
    }
}

#[test]
fn without_the_log_it_is_said_that_it_may_have_been_returned() {
    let outcome = run_of_three("rm -f mail.log");
    assert_eq!([&outcome["delivered"], &outcome["returned"], &outcome["unrecorded"]], [&Value::Null; 3]);
    assert_eq!(outcome["words"], "all 3 are gone from here: delivered, or returned to the sender");
}

#[test]
fn who_was_returned_is_listed_in_every_form_and_much_of_it_alarms() {
    let lines: String =
        (1..=20).map(|number| says(number, if number < 4 { REFUSED } else { SENT }) + " >> mail.log\n").collect();
    let machine = machine("postfix", queue(20).as_bytes(), &format!("{lines}swap none"));
    let output = machine.command().args(["flush", "--wait"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let words = "17 delivered, 3 returned to the sender (550 5.1.1 unknown user)";
    assert!(
        said.starts_with(&format!(
            "Queue run 1: {words}.\nreturned to the sender: A000001, for r1@example.com: host mx["
        )),
        "{said}"
    );
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 4), "something was returned: {said}");
    let page = machine.get("flushed=1&format=html").body;
    for part in [
        "class=\"outcome alarm\"",
        "Mail returned",
        words,
        "Returned to the sender</h2>",
        "<bdi>r2@example.com</bdi>",
        "<li class=\"alarm\">",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    assert!(!page.contains("r4@example.com"), "it was delivered");
    let text = machine.get("flushed=1&format=text").body;
    assert!(
        text.contains(&format!("Queue run 1: {words}.")) && text.contains("A000003, for r3@example.com: host mx["),
        "{text}"
    );
    let json: Value = serde_json::from_str(&machine.get("flushed=1&format=json").body).unwrap();
    let returned = &json["flush"]["followed"]["outcome"]["returned_for"];
    assert_eq!((returned.as_array().unwrap().len(), &returned[0]["recipient"]), (3, &"r1@example.com".into()));
    let check = machine.command().arg("check").output().unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    assert!(check.status.code() == Some(1) && said.contains("queue run 1 returned mail for 3 recipients"), "{said}");
    let metrics = machine.get("format=openmetrics").body;
    assert!(metrics.contains("bartleby_last_flush_recipients_returned 3\n"), "{metrics}");
}

#[test]
fn only_a_run_after_which_all_is_known_to_be_delivered_ends_with_0() {
    let all: String = (1..=3).map(|number| says(number, SENT) + " >> mail.log\n").collect();
    let one_back =
        says(1, REFUSED) + " >> mail.log\n" + &says(2, SENT) + " >> mail.log\n" + &says(3, SENT) + " >> mail.log\n";
    for (run, status) in [(all, 0), (one_back, 1)] {
        let machine = machine("postfix", queue(3).as_bytes(), &format!("{run}swap none"));
        let output = machine.command().args(["flush", "--wait"]).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// The record of a run that nobody finished, and that was begun before this boot.
#[test]
fn a_run_in_the_middle_of_which_the_machine_was_restarted_is_not_known() {
    let machine = machine("postfix", queue(3).as_bytes(), "sleep 600");
    assert_eq!(machine.get("flush").status, 303);
    machine.kill_all();
    let database = machine.database();
    assert_eq!(database.execute("UPDATE result SET boot = 'another'", []).unwrap(), 1);
    // Its follower may have listed once.
    database.execute("UPDATE flush SET sampled = NULL", []).unwrap();
    drop(database);
    fs::write(machine.path("before"), queue(1)).unwrap();
    let page = machine.get("flushed=1&format=html");
    let words = "this machine was restarted in the middle of it, so what it delivered is not known; 1 of 3 still waits";
    assert!(page.body.contains(words), "{}", page.body);
    assert!(!page.body.contains("gone from here") && page.field("refresh").is_none());
    let last = machine.json().1["flush"]["last"].clone();
    assert_eq!((&last["restarted"], &last["outcome"]), (&true.into(), &Value::Null));
}

/// A run that takes a while: two messages a second leave.
#[test]
fn while_it_runs_its_speed_and_its_end_are_said() {
    let machine = machine("postfix", queue(60).as_bytes(), "sleep 600");
    let begun = machine.path("begun");
    let list = format!(
        "#!/bin/sh\nif [ -e {0} ]; then tail -n +$(( 2 * ($(date +%s) - $(stat -c %Y {0})) + 1 )) {1}; else cat {1}; fi\n",
        begun.display(),
        machine.path("before").display()
    );
    fs::write(machine.path("list"), list).unwrap();
    fs::write(machine.path("flush"), format!("#!/bin/sh\ntouch {}\nexec sleep 600\n", begun.display())).unwrap();
    assert_eq!(machine.get("flush").status, 303);
    let until = Instant::now() + Duration::from_secs(25);
    let outcome = loop {
        let json: Value = serde_json::from_str(&machine.get("flushed=1&format=json").body).unwrap();
        let outcome = json["flush"]["followed"]["outcome"].clone();
        if outcome["per_minute"].is_u64() {
            break outcome;
        }
        assert!(Instant::now() < until, "{outcome:#}");
        thread::sleep(Duration::from_millis(500));
    };
    let speed = outcome["per_minute"].as_u64().unwrap();
    assert!((60..=180).contains(&speed), "{outcome:#}");
    assert_eq!((&outcome["settled"], &outcome["slower"]), (&false.into(), &false.into()));
    let done: jiff::Timestamp = outcome["done_about"].as_str().unwrap().parse().unwrap();
    assert!((5..60).contains(&(done.as_second() - jiff::Timestamp::now().as_second())), "{outcome:#}");
    for format in ["text", "html"] {
        let said = machine.get(&format!("flushed=1&format={format}")).body;
        assert!(said.contains("While it runs: ") && said.contains(" recipients a minute, done in about "), "{said}");
    }
    assert_eq!(machine.get("flushed=1&format=html").field("refresh"), Some("3; url=?flushed=1"));
}
