//! What root reads in the mail log, and in the journal of a machine without a syslogd.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command};

use serde_json::Value;

use super::tool::Tool;
use crate::client::{self, Queued};
use crate::machine::Lab;
use crate::mails::Mail;
use crate::mta::run;
use crate::outcome;
use crate::primary::Mode;
use crate::syslog::{MAIL_LOG, SOCKET};
use crate::wait;

const JOURNALD: &str = "/usr/lib/systemd/systemd-journald";
const JOURNAL: &str = "/run/systemd/journal/dev-log";

/// The present, in seconds since 1970.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The log's lines about some messages since then.
fn ask(tool: Tool, ids: &[&str], since: i64, status: i32) -> String {
    let ids = serde_json::to_string(ids).unwrap();
    tool.asked(&format!("{{\"do\":\"log\",\"ids\":{ids},\"since\":{since}}}"), status)
}

/// Of the messages that were delivered, the log's own lines, and no line of another message.
pub fn says_what_came_of_it(lab: &Lab, tool: Tool, queued: &[Queued], begun: i64) {
    let delivered = match lab.mta.kind() {
        "postfix" => "status=sent (",
        "sendmail" => "stat=Sent",
        "exim" => " => ",
        _ => "result=\"Ok\"",
    };
    for Queued { id, .. } in queued {
        let lines = wait::until("the log has it", 20, || {
            let lines = ask(tool, &[id], begun, 0);
            if lines.contains(delivered) { Ok(lines) } else { Err(format!("{tool:?} {id}: {lines}")) }
        });
        assert!(lines.lines().all(|line| line.contains(id.as_str())), "{tool:?} {id}: {lines}");
        assert!(!lines.contains("greylisted"), "{tool:?}: the attempts before are not asked for: {lines}");
    }
    let all: Vec<_> = queued.iter().map(|queued| queued.id.as_str()).collect();
    let lines = ask(tool, &all, begun, 0);
    assert!(all.iter().all(|id| lines.contains(id)), "{tool:?}: {lines}");
    assert_eq!(ask(tool, &["1vNAb2-00000c-2p", "ABCDEF0"], begun, 0), "", "{tool:?}");
    only_of_a_log(lab, tool);
}

/// Who can put a link in the log's place gets no other file to read.
fn only_of_a_log(lab: &Lab, tool: Tool) {
    // They stand in no log.
    let words = ["nologin", "irc", "games"];
    let log = if lab.mta.kind() == "exim" { "/var/log/exim4/mainlog" } else { MAIL_LOG };
    let kept = format!("{log}.kept");
    fs::rename(log, &kept).unwrap();
    symlink("/etc/passwd", log).unwrap();
    let output = tool.ask(format!("{{\"do\":\"log\",\"ids\":{words:?},\"since\":1}}\n").as_bytes());
    assert!(output.stdout.is_empty(), "{tool:?}: {output:?}");
    fs::remove_file(log).unwrap();
    fs::write(log, fs::read("/etc/passwd").unwrap()).unwrap();
    assert_eq!(ask(tool, &words, 1, 0), "", "{tool:?}: no line of it says when it was written");
    fs::rename(kept, log).unwrap();
}

/// Ends with the test.
struct Journald(Child);

impl Drop for Journald {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where nothing writes files, the journal has the lines, with who wrote them.
pub fn of_the_journal(lab: &mut Lab) {
    if !Path::new(JOURNALD).exists() {
        let _ =
            writeln!(io::stderr(), "\n*** This Debian has no journald: what is read in its journal is SKIPPED ***\n");
        return;
    }
    Tool::Sudo.install();
    let kept = format!("{MAIL_LOG}.kept");
    fs::rename(MAIL_LOG, &kept).unwrap();
    let begun = now();
    // It looks there for who writes.
    fs::create_dir_all("/sys/fs/cgroup").unwrap();
    run("mount", &["-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]);
    let _journald = Journald(Command::new(JOURNALD).spawn().unwrap());
    wait::until("journald listens", 10, || fs::metadata(JOURNAL).map(drop).map_err(|error| error.to_string()));
    fs::remove_file(SOCKET).unwrap();
    symlink(JOURNAL, SOCKET).unwrap();
    run("postfix", &["stop"]);
    run("postfix", &["start"]);
    lab.primary.up(Mode::Accepts);
    let queued = client::send(lab.mta, |_| vec![Mail::new("journal", "alice@example.org", &["slow@example.com"])]);
    let id = queued[0].id.as_str();
    let lines = wait::until("the journal has it", 20, || {
        let lines = ask(Tool::Sudo, &[id], begun, 0);
        if lines.contains("status=sent (") { Ok(lines) } else { Err(lines) }
    });
    // What any user could write there is there, too, and is known by its writer.
    run(
        "setpriv",
        &["--reuid=www-data", "--clear-groups", "logger", "-p", "mail.info", "-t", "postfix/smtp", &forged(id)],
    );
    let with_forged = wait::until("the journal has the other", 20, || {
        let lines = ask(Tool::Sudo, &[id], begun, 0);
        if lines.contains("forged") { Ok(lines) } else { Err(lines) }
    });
    let read = |lines: &str| -> Vec<(String, String)> {
        let of = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| (of(&line, "MESSAGE"), of(&line, "_UID"))).collect()
    };
    assert!(read(&lines).iter().all(|(message, uid)| message.contains(id) && uid != "33"), "{lines}");
    let forged_by = read(&with_forged).into_iter().find(|(message, _)| message.contains("forged"));
    assert_eq!(forged_by.unwrap().1, "33", "{with_forged}");
    // A message that is no text is written there as numbers.
    run("logger", &["-p", "mail.info", "-t", "postfix/smtp", &forged(id).replace("forged@", "bell\u{7}@")]);
    wait::until("the journal has the one with a control character", 20, || {
        let lines = ask(Tool::Sudo, &[id], begun, 0);
        let values = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let numbers: Vec<Vec<u8>> =
            values.filter_map(|value| serde_json::from_value(value["MESSAGE"].clone()).ok()).collect();
        let has = numbers.iter().any(|bytes| String::from_utf8_lossy(bytes).contains("bell\u{7}@"));
        if has { Ok(()) } else { Err(lines) }
    });
    assert_eq!(ask(Tool::Sudo, &[id], now() + 60, 0), "");
    outcome::of_a_run_in_the_journal(lab);
    fs::rename(kept, MAIL_LOG).unwrap();
}

fn forged(id: &str) -> String {
    format!("{id}: to=<forged@example.com>, relay=none, delay=1, delays=0/0/0/0, dsn=2.0.0, status=sent (250 ok)")
}
