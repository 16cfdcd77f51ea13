//! The one rule for root, by each tool that there is here: what it does for the page and on its own, and what it refuses
//! to somebody who has taken over the web server's user.

mod log;
mod tool;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Output;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::tool::{Hangs, Tool, answer, found};
use crate::client::{self, Queued};
use crate::machine::Lab;
use crate::mails::Mail;
use crate::postfix::PostfixWith;
use crate::primary::Mode;
use crate::rule::{self, PROGRAM, as_web_server};
use crate::{apache, faults, page, story, wait};

const CONFIGURATION: &str = "/etc/bartleby.toml";

/// The web server's user on Debian.
const WWW_DATA: u32 = 33;

/// Postfix, with sudo and doas beside it.
pub static POSTFIX_WITH_RULES: PostfixWith = PostfixWith {
    layer: "postfix-rules",
    packages: &["postfix", "sudo", "doas"],
    wishes: &["sudo-rs"],
    brings: &["examples/sudoers", "examples/doas.conf"],
    ..PostfixWith::NOTHING
};

/// The whole of it, by each tool.
pub fn by_every_tool(lab: &mut Lab) {
    without_a_rule();
    for tool in Tool::all() {
        fs::write(CONFIGURATION, "[flush]\ncooldown = \"1s\"\n").unwrap();
        // Not down: a connection of the last run may still be open.
        lab.primary.up(Mode::Mixed);
        tool.install();
        is_exact(tool);
        let queued = queue(lab);
        lists(lab, tool, &queued);
        explains(lab, tool, &queued);
        refuses(tool, &queued);
        believes_no_one_but_root(tool, &queued);
        hands_the_place_on(lab, tool);
        when_next(lab, tool);
        let begun = log::now();
        runs(lab, tool, &queued);
        log::says_what_came_of_it(lab, tool, &queued, begun);
    }
    if lab.mta.kind() == "postfix" {
        log::of_the_journal(lab);
    }
}

/// The program by itself is of no use to the web server's user.
fn without_a_rule() {
    rule::program();
    let output = answer(&mut as_web_server(PROGRAM, &["as-root"]), b"{\"do\":\"list\"}\n");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(77), 0), "{output:?}");
}

/// Nothing but that one command line is allowed.
fn is_exact(tool: Tool) {
    let list = format!("{PROGRAM} list");
    let allowed = format!("{PROGRAM} as-root");
    let others = [list.as_str(), PROGRAM, "/bin/sh", "/usr/local/sbin/other as-root"];
    match tool {
        Tool::Sudo | Tool::SudoRs => rule::sudo_allows_only(&[&allowed], &others),
        Tool::Doas => rule::doas_allows_only(&[&allowed], &others),
    }
}

fn queue(lab: &Lab) -> Vec<Queued> {
    let queued = client::send(lab.mta, |_| {
        vec![
            Mail::new("one", "alice@example.org", &["slow@example.com"]),
            Mail::new("two", "bob@example.net", &["full@example.com"]),
            Mail::new("three", "dave@example.org", &["slow@other.example"]),
        ]
    });
    wait::until("all are deferred", 30, || {
        let listing = page::try_json(200)?;
        let is_settled = |queued: &Queued| {
            listing.message(&queued.id).is_some_and(|message| {
                message.state == "deferred" && message.recipients.iter().all(|recipient| recipient.reason.is_some())
            })
        };
        let settled = queued.iter().all(is_settled);
        settled.then_some(()).ok_or(format!("{listing:?}"))
    });
    queued
}

/// What root gets from the mail server, and the page goes the same way.
fn lists(lab: &Lab, tool: Tool, queued: &[Queued]) {
    let list = tool.asked("{\"do\":\"list\"}", 0);
    for Queued { mail, id } in queued {
        assert!(list.contains(id) && list.contains(&mail.recipients[0]), "{tool:?}: {id} in {list}");
    }
    let (status, doctor) = apache::command_line(&["doctor"]);
    assert!(doctor.contains(&format!("{PROGRAM} as-root")), "{status:?}: {doctor}");
    let listing = page::json(200);
    assert!(listing.flush.allowed && listing.queue.complete, "{listing:?}");
    assert_eq!(listing.mta.kind.as_deref(), Some(lab.mta.kind()));
}

/// The reasons of a mail server whose listing has none, as it prints them itself.
fn explains(lab: &Lab, tool: Tool, queued: &[Queued]) {
    let ids: Vec<_> = queued.iter().map(|queued| format!("\"{}\"", queued.id)).collect();
    let said = tool.asked(&format!("{{\"do\":\"reasons\",\"ids\":[{}]}}", ids.join(",")), 0);
    if lab.mta.kind() != "exim" {
        assert_eq!(said, "", "{tool:?}");
        return;
    }
    for Queued { mail, id } in queued {
        let head = said.find(&format!("{id} 0 ")).unwrap_or_else(|| panic!("no {id} in {said}"));
        assert!(said[head..].contains(&format!("{} ", mail.recipients[0])), "{said}");
    }
    let listing = page::json(200);
    let mut recipients = listing.messages.iter().flat_map(|message| &message.recipients);
    assert!(recipients.any(|recipient| recipient.last_attempt.is_some()), "{listing:?}");
    let refused = said.matches(" defer (").count();
    assert!(refused >= queued.len(), "{said}");
    // One that is not there is no reason to say nothing of the others.
    let other = if queued[0].id.len() == 16 { "1vNAb2-00000c-2p" } else { "1vNAb2-0000000000c-2p00" };
    let said = tool.asked(&format!("{{\"do\":\"reasons\",\"ids\":[\"{other}\",{}]}}", ids[0]), 0);
    assert!(said.contains(&format!("{} 0 ", queued[0].id)) && !said.contains(&format!("{other} 0 ")), "{said}");
}

/// Exim's database of retries, and whether OpenSMTPD's deliveries are paused, as they print it themselves; the others have
/// nothing of the kind.
fn when_next(lab: &Lab, tool: Tool) {
    if lab.mta.kind() == "opensmtpd" {
        let said = tool.asked("{\"do\":\"next\"}", 0);
        assert!(said.lines().any(|line| line == "MTA running"), "{tool:?}: {said}");
        return;
    }
    if lab.mta.kind() != "exim" {
        let said = tool.asked("{\"do\":\"next\"}", 69);
        assert!(said.ends_with(" has nothing to say about that\n") && said.lines().count() == 1, "{tool:?}: {said}");
        return;
    }
    // In UTC, wherever the machine is.
    let zone = fs::read("/etc/localtime").ok();
    let _ = fs::remove_file("/etc/localtime");
    fs::copy("/usr/share/zoneinfo/Asia/Tokyo", "/etc/localtime").unwrap();
    let said = tool.asked("{\"do\":\"next\"}", 0);
    fs::remove_file("/etc/localtime").unwrap();
    if let Some(zone) = zone {
        fs::write("/etc/localtime", zone).unwrap();
    }
    let lines: Vec<_> = said.lines().collect();
    let of_slow = lines.iter().position(|line| line.contains("slow@example.com"));
    let dates = lines[of_slow.unwrap_or_else(|| panic!("{said}")) + 1];
    // First failure, last attempt, next attempt.
    let [_, last, next] = dates.trim().split("  ").collect::<Vec<_>>()[..] else { panic!("{said}") };
    let instant = |text: &str| {
        jiff::civil::DateTime::strptime("%d-%b-%Y %H:%M:%S", text.trim())
            .unwrap()
            .to_zoned(jiff::tz::TimeZone::UTC)
            .unwrap()
            .timestamp()
            .as_second()
    };
    let now = log::now();
    assert!((now - 600..=now).contains(&instant(last)) && instant(next) > now, "{tool:?}: {said}");
}

/// Requests of somebody who has taken over the web server's user: nothing is done, and nothing else than the refusal said.
fn refuses(tool: Tool, queued: &[Queued]) {
    let reasons = |ids: &str| format!("{{\"do\":\"reasons\",\"ids\":[{ids}]}}\n").into_bytes();
    let run = |target: &str| format!("{{\"do\":\"run\",\"target\":\"{target}\"}}\n").into_bytes();
    let list = b"{\"do\":\"list\"}";
    let mut requests: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"\n".to_vec(),
        list.to_vec(),
        [&list[..], b"\n", list, b"\n"].concat(),
        [&list[..], b"\n\0"].concat(),
        [&list[..], b"\0\n"].concat(),
        b"{\"do\":\"list\"\n".to_vec(),
        b"{\"do\":\"delete\",\"ids\":[\"A1\"]}\n".to_vec(),
        b"{\"do\":\"show\",\"id\":\"A1\"}\n".to_vec(),
        b"{\"do\":\"list\",\"command\":[\"/bin/sh\"]}\n".to_vec(),
        b"{\"do\":\"list\",\"do\":\"run\",\"target\":\"all\"}\n".to_vec(),
        run("everything"),
        run("id:-f"),
        run("id:--"),
        run("id:-Mrm"),
        run("id:a b"),
        run("id:../../etc/shadow"),
        run("domain:-f"),
        run("domain:a b"),
        run("domain:$(id)"),
        reasons("\"-bP\""),
        reasons("\"A1\",\"-Mrm\""),
        reasons("\"A1\\u0000\""),
        b"{\"do\":\"next\",\"spool\":\"/tmp\"}\n".to_vec(),
        b"{\"do\":\"log\",\"ids\":[\"A1\"],\"since\":1,\"file\":\"/etc/shadow\"}\n".to_vec(),
        b"{\"do\":\"log\",\"ids\":[\".*\"],\"since\":1}\n".to_vec(),
        b"{\"do\":\"log\",\"ids\":[\"A1\"],\"since\":\"yesterday\"}\n".to_vec(),
        vec![0; 100],
        vec![b'x'; 1 << 20],
        vec![b'\n'; 1 << 20],
        run(&format!("id:{}", "A".repeat(1 << 20))),
        [b"[".repeat(60_000), b"\n".to_vec()].concat(),
        b"\xff\xfe\n".to_vec(),
    ];
    requests.push(reasons(&vec!["\"1vNAb2-0000000000c-2p00\""; 1001].join(",")));
    for request in requests {
        let shown = String::from_utf8_lossy(&request[..request.len().min(60)]).into_owned();
        let Output { status, stdout, stderr } = tool.ask(&request);
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!((status.code(), stdout.len()), (Some(64), 0), "{tool:?} {shown:?}: {said}");
        assert!(said.lines().count() == 1 && said.starts_with("bartleby: as-root: "), "{shown:?}: {said}");
    }
    for arguments in [&["as-root", "x"][..], &["as-root", "--help"], &["list"], &[]] {
        let output = answer(&mut tool.command(arguments), b"{\"do\":\"list\"}\n");
        assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
    all_wait(queued);
}

/// All still wait; perhaps with the mail that sudo writes to root about what it refused.
fn all_wait(queued: &[Queued]) {
    let listing = page::json(200);
    assert!(queued.iter().all(|queued| listing.message(&queued.id).is_some()), "{listing:?}");
}

/// Nothing that the web server's user can write decides what root does.
fn believes_no_one_but_root(tool: Tool, queued: &[Queued]) {
    let own = fs::read(CONFIGURATION).unwrap();
    let marker = "/run/was-here";
    let evil = format!("[mta]\nlist_command = [\"touch\", \"{marker}\"]\nflush_command = [\"touch\", \"{marker}\"]\n");
    // The environment that a caller hands over.
    fs::write("/tmp/evil.toml", &evil).unwrap();
    let mut command = as_web_server("env", &["BARTLEBY_CONFIG=/tmp/evil.toml", "GATEWAY_INTERFACE=CGI/1.1"]);
    let inner = tool.command(&["as-root"]);
    // Behind `--`, the tool's own words.
    let words = inner.get_args().skip_while(|word| *word != "--").skip(1);
    let output = answer(command.args(words), b"{\"do\":\"list\"}\n");
    assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
    assert!(!output.stdout.starts_with(b"Status:"), "{output:?}");
    // A command that root has configured is not run by the rule.
    fs::write(CONFIGURATION, &evil).unwrap();
    assert!(!tool.asked("{\"do\":\"list\"}", 0).is_empty());
    assert!(!Path::new(marker).exists());
    // What is no configuration.
    fs::write(CONFIGURATION, "[mta]\nkinds = 1\n").unwrap();
    assert!(tool.asked("{\"do\":\"list\"}", 78).contains("line 2, [mta] kinds"));
    // A configuration that others than root may write to, or once could.
    for (uid, mode) in [(WWW_DATA, 0o644), (0, 0o666), (WWW_DATA, 0o400)] {
        fs::write(CONFIGURATION, "[flush]\ncooldown = \"1s\"\n").unwrap();
        chown(CONFIGURATION, Some(uid), None).unwrap();
        fs::set_permissions(CONFIGURATION, Permissions::from_mode(mode)).unwrap();
        let said = tool.asked("{\"do\":\"list\"}", 78);
        assert!(said.starts_with("bartleby: as-root: /etc/bartleby.toml: root obeys no configuration that "), "{said}");
        story::not_listed("denied", "Put right what it says");
        fs::remove_file(CONFIGURATION).unwrap();
    }
    chown("/tmp/evil.toml", Some(WWW_DATA), None).unwrap();
    symlink("/tmp/evil.toml", CONFIGURATION).unwrap();
    assert!(tool.asked("{\"do\":\"list\"}", 78).contains("and /tmp/evil.toml belongs to user 33."));
    fs::remove_file(CONFIGURATION).unwrap();
    fs::set_permissions("/etc", Permissions::from_mode(0o777)).unwrap();
    fs::write(CONFIGURATION, &own).unwrap();
    assert!(tool.asked("{\"do\":\"list\"}", 78).contains("and /etc can be written to by others."));
    fs::set_permissions("/etc", Permissions::from_mode(0o755)).unwrap();
    // A program that is not root's alone: what the rule would be a hole with.
    fs::set_permissions(PROGRAM, Permissions::from_mode(0o757)).unwrap();
    assert!(tool.asked("{\"do\":\"list\"}", 77).contains("and /usr/local/sbin/bartleby can be written to by others."));
    story::not_listed("denied", "Put right what it says");
    fs::set_permissions(PROGRAM, Permissions::from_mode(0o755)).unwrap();
    all_wait(queued);
}

/// A lister that heeds no request to end is killed by root at the deadline. Each has the place of its request among those
/// that list, and keeps it even if nobody is left who could kill it: two hang at most.
fn hands_the_place_on(lab: &Lab, tool: Tool) {
    let own = fs::read(CONFIGURATION).unwrap();
    fs::write(CONFIGURATION, "[mta]\ndeadline = \"2s\"\n").unwrap();
    let program = found(lab.mta.queue_command().get_program());
    let hangs = Hangs::in_place_of(&program);
    let named = |name: &str, word: &str| -> Vec<i32> {
        let has = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(word));
        faults::processes().into_iter().filter(|(pid, of)| of == name && has(*pid)).map(|(pid, _)| pid).collect()
    };
    let hanging = || named("sleep", "987");
    let listing = page::json(503);
    assert_eq!(listing.queue.status, "timeout", "{tool:?}: {listing:?}");
    wait::until("root has killed the lister", 10, || {
        if hanging().is_empty() { Ok(()) } else { Err(format!("{tool:?}: {:?}", hanging())) }
    });
    for number in 1..=2 {
        let list = thread::spawn(|| apache::command_line(&["list"]));
        let pids = wait::until("a lister hangs", 10, || {
            if hanging().len() == number { Ok(hanging()) } else { Err(format!("{tool:?}: {:?}", hanging())) }
        });
        for pid in pids {
            let input = fs::read_link(format!("/proc/{pid}/fd/0")).unwrap();
            assert!(input.to_string_lossy().contains("/listing-"), "{tool:?} hands the place on: {input:?}");
        }
        for pid in named("bartleby", "as-root") {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        let (_, said) = list.join().unwrap();
        assert!(said.contains("could not be stopped"), "{tool:?}: {said}");
    }
    let error = page::json(503).queue.error.unwrap().message;
    assert!(error.starts_with("Two other requests kept listing the queue for 1.5 s"), "{tool:?}: {error}");
    assert_eq!(hanging().len(), 2, "{tool:?}: none was started");
    for pid in hanging() {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    drop(hangs);
    fs::write(CONFIGURATION, own).unwrap();
    wait::until("their places are free", 10, || page::try_json(200));
}

/// One message, one domain, and all; the last through the page.
fn runs(lab: &mut Lab, tool: Tool, queued: &[Queued]) {
    let [_, two, three] = queued else { panic!("{queued:?}") };
    let gone = |ids: &[&str]| {
        wait::until("the part is delivered", 30, || {
            let listing = page::try_json(200)?;
            let all = ids.iter().all(|id| listing.message(id).is_none());
            all.then_some(()).ok_or(format!("{tool:?} {ids:?} {listing:?}"))?;
            Ok(listing)
        })
    };
    lab.primary.up(Mode::Accepts);
    tool.asked(&format!("{{\"do\":\"run\",\"target\":\"id:{}\"}}", two.id), 0);
    // Exim takes along what waits for the same host; but nothing for another.
    assert!(gone(&[&two.id]).message(&three.id).is_some());
    tool.asked("{\"do\":\"run\",\"target\":\"domain:other.example\"}", 0);
    gone(&[&three.id]);
    story::cooled_down();
    page::flush("?flush");
    let ids: Vec<_> = queued.iter().map(|queued| queued.id.as_str()).collect();
    gone(&ids);
    // Of nothing, all is run, too.
    tool.asked("{\"do\":\"run\",\"target\":\"all\"}", 0);
    let elsewhere = tool.ask(b"{\"do\":\"run\",\"target\":\"domain:elsewhere.example\"}\n");
    let by_messages = ["postfix", "opensmtpd"].contains(&lab.mta.kind());
    assert_eq!(elsewhere.status.code() == Some(65), by_messages, "{elsewhere:?}");
}
